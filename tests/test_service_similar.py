"""Images that look the same share an explanation, where the settings ask for it, and only then."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select
from starlette.testclient import TestClient
from test_pdq import picture
from test_service import config, drain, key, nearby

import visxai
from visxai.serve import similar, tables
from visxai.serve.app import create
from visxai.serve.jobs import Job
from visxai.serve.service import Places, Service


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture(scope="module")
def made(engine: visxai.Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = config(cache={"similar": True, "tolerance": 0.05})
    service = Service(
        nearby(settings), Places.below(tmp_path_factory.mktemp("similar")), engine=engine
    )
    yield service
    service.close()


@pytest.fixture(scope="module")
def own(made: Service) -> dict[str, str]:
    return key(made, "admin")


def send(client: httpx.Client, own: dict[str, str], data: bytes) -> dict[str, Any]:
    told = client.post("/v1/items", headers=own, files={"image": ("a.jpg", data)}).json()
    found: dict[str, Any] = client.get(
        f"/v1/explanations/{told['explanation']['id']}", headers=own
    ).json()
    return {**found, "item_id": told["item_id"], "score": told["score"]}


def count(service: Service, table: Any) -> int:
    with service.database.reading() as connection:
        return int(connection.execute(select(func.count()).select_from(table)).scalar_one())


def test_an_image_that_looks_the_same_takes_the_explanation_over(
    client: httpx.Client, made: Service, own: dict[str, str], engine: visxai.Engine
) -> None:
    first = send(client, own, jpeg(picture(0)))
    assert first["state"] == "queued"
    assert drain(made) == 1
    smaller = picture(0).resize((560, 420), Image.Resampling.LANCZOS)
    forwards = made.batcher.rows
    second = send(client, own, jpeg(smaller, 60))
    assert made.batcher.rows == forwards + 1  # its own scores were computed
    assert second["state"] == "done"
    assert drain(made) == 0
    cache = second["envelope"]["cache"]
    assert (cache["kind"], cache["source"]) == ("similar", first["id"])
    assert 0 <= cache["distance"] <= 10
    source = client.get(f"/v1/explanations/{first['id']}", headers=own).json()
    assert second["record"]["map"] == source["record"]["map"]
    # The map lies over the item's own pixels, and says what its own would have said.
    assert (second["record"]["width"], second["record"]["height"]) == (560, 420)
    assert second["record"]["source_sha256"] == second["envelope"]["content_sha256"]
    overlay = client.get(f"/v1/explanations/{second['id']}/overlay.jpg", headers=own)
    assert Image.open(io.BytesIO(overlay.content)).size == (560, 420)
    (direct,) = engine.explain([smaller], target="class=7")
    shown = visxai.Explanation.from_dict(second["record"])
    cosine = (shown.values * direct.values).sum() / (
        np.linalg.norm(shown.values) * np.linalg.norm(direct.values)
    )
    assert cosine > 0.9
    # The same bytes again: still said to be taken over from the first.
    again = send(client, own, jpeg(smaller, 60))
    assert again["envelope"]["cache"] == cache
    assert made.ledger.verify()


def test_a_contested_image_is_computed_for_itself(
    client: httpx.Client, made: Service, own: dict[str, str]
) -> None:
    send(client, own, jpeg(picture(1)))
    assert drain(made) == 1
    told = client.post(
        "/v1/items", headers=own, files={"image": ("a.jpg", jpeg(picture(1), 70))}
    ).json()
    assert told["explanation"]["state"] == "done"
    url = f"/v1/decisions/{told['decision_id']}/appeals"
    assert client.post(url, headers=own, json={"reason": "r"}).status_code == 202
    assert drain(made, "precise") == 1


def test_what_is_apart_in_any_respect_is_computed(
    client: httpx.Client, made: Service, own: dict[str, str]
) -> None:
    send(client, own, jpeg(picture(2)))
    assert drain(made) == 1
    stretched = picture(2).resize((640, 400))  # another aspect
    assert send(client, own, jpeg(stretched))["state"] == "queued"
    stranger = key(made, "admin", "other")
    assert send(client, stranger, jpeg(picture(2), 80))["state"] == "queued"
    assert send(client, own, jpeg(picture(3)))["state"] == "queued"
    blank = Image.new("RGB", (64, 64), (3, 3, 3))
    send(client, own, jpeg(blank))
    assert drain(made) == 4
    # Flat pictures all look the same to a hash: they are never compared.
    assert send(client, own, jpeg(Image.new("RGB", (64, 64), (250, 3, 3))))["state"] == "queued"
    assert drain(made) == 1


def job(made: Service, hash: int, score: float = 0.5, tenant: str = "acme") -> Job:
    shape = {"width": 8, "height": 6, "path": None, "source_sha256": "0" * 64}
    look = {"pdq": f"{hash:064x}", "score": score, "input": shape}
    return made.job(tenant, "fast", "p" * 64, "class=9", {"look": look})


def test_ten_bits_are_near_and_eleven_are_not_wherever_they_lie(
    client: httpx.Client, made: Service, own: dict[str, str]
) -> None:
    source = send(client, own, jpeg(picture(4)))
    assert drain(made) == 1
    rng = np.random.default_rng(0)
    base = int.from_bytes(rng.bytes(32), "big")
    with made.database.writing() as connection:
        similar.forget(connection, [source["id"]])
        known = replace(job(made, base), id=source["id"])  # an explanation that is on record
        similar.remember(connection, known, 0.0)
        for number in range(40):
            flips = [int(bit) for bit in rng.choice(256, 10 + number % 2, replace=False)]
            other = base
            for bit in flips:
                other ^= 1 << bit
            found = similar.find(connection, job(made, other), 0.05)
            assert (found is not None) == (len(flips) == 10)
            if found is not None:
                assert found.distance == 10
        assert similar.find(connection, job(made, base, 0.56), 0.05) is None  # another score
        assert similar.find(connection, job(made, base, 0.54), 0.05) is not None
        assert similar.find(connection, job(made, base, tenant="other"), 0.05) is None


def test_erasure_removes_the_hash(client: httpx.Client, made: Service, own: dict[str, str]) -> None:
    before = count(made, tables.similar), count(made, tables.bands)
    told = send(client, own, jpeg(picture(5)))
    assert drain(made) == 1
    assert (count(made, tables.similar), count(made, tables.bands)) == (
        before[0] + 1,
        before[1] + 11,
    )
    assert client.delete(f"/v1/items/{told['item_id']}", headers=own).status_code == 204
    assert (count(made, tables.similar), count(made, tables.bands)) == before
    assert send(client, own, jpeg(picture(5), 80))["state"] == "queued"
    assert drain(made) == 1


def test_without_being_asked_nothing_is_hashed(engine: visxai.Engine, tmp_path: Path) -> None:
    service = Service(nearby(config()), Places.below(tmp_path), engine=engine)
    try:
        own = key(service, "admin")
        with TestClient(create(service)) as client:
            send(client, own, jpeg(picture(0)))
            assert drain(service) == 1
            assert send(client, own, jpeg(picture(0), 80))["state"] == "queued"
        assert count(service, tables.similar) == 0
    finally:
        service.close()
