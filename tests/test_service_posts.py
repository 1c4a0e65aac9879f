"""Posts in the service: an image with a text, decided on, explained by parts and contested."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient
from test_service import CHEAP, FLAG_ALL, drain, key, nearby, photo

import visxai
from visxai import fused, govern
from visxai.errors import ArgumentError, ModelError
from visxai.record.columns import schema
from visxai.record.pair import PairExplanation
from visxai.serve import tables
from visxai.serve.app import create
from visxai.serve.config import Config
from visxai.serve.image_with_text import Post
from visxai.serve.service import Places, Service

CARD = """
label = "harmful"
[image]
model = "efficientnet_lite0"
target = "class=7"
[text]
model = "toxicity"
target = "class=insult"
"""
INSULT = "You are an idiot, <b>and</b> a fool."
KIND = "What a beautiful photograph!"


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("card") / "harmful.toml"
    path.write_text(CARD, "utf-8")
    return path


def settings(card: Path, **more: Any) -> Config:
    post = {"model": str(card), "severity": 3, "ground": "rule 5", "precise": "leave_one_out"}
    return Config.of({**FLAG_ALL, "tiers": CHEAP, "post": {**post, **more}})


@pytest.fixture(scope="module")
def made(
    engine: visxai.Engine, card: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    places = Places.below(tmp_path_factory.mktemp("posts"))
    service = Service(nearby(settings(card)), places, engine=engine)
    yield service
    service.close()


def send(client: httpx.Client, own: dict[str, str], image: bytes, text: str) -> Any:
    files = {"image": ("a.png", image)}
    return client.post("/v1/items", headers=own, files=files, data={"text": text}).json()


def test_a_post_is_one_thing_in_bytes() -> None:
    for text in ("", "hi", "\N{GRINNING FACE}\nא", "\ud800"):
        for image in (b"", b"\0\1", photo()):
            found = Post.read(Post(image, text).to_bytes())
            assert found == (image, text.replace("\ud800", "?"))
    with pytest.raises(UnicodeDecodeError):
        Post.read(b"\0" * 7 + b"\1\xff")


def test_a_post_is_decided_on_explained_contested_and_stated(
    client: httpx.Client,
    made: Service,
    own: dict[str, str],
    engine: visxai.Engine,
    card: Path,
    tmp_path: Path,
) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(photo(1))
    direct = fused.Engine(card, image=engine)
    (record,) = direct.explain([(str(picture), INSULT)])
    answer = send(client, own, photo(1), INSULT)
    assert (answer["decision"], answer["category"]) == ("flag", "harmful")
    assert (answer["severity"], answer["threshold"]) == (3, 0.5)
    assert answer["score"] == pytest.approx(record.score, abs=1e-5)
    passed = send(client, own, photo(1), KIND)
    assert (passed["decision"], passed["explanation"]) == ("pass", None)
    assert made.kinds.posts is not None
    assert made.kinds.posts.engine.image is engine  # the service's own, not a second one

    assert drain(made) == 1
    place = f"/v1/explanations/{answer['explanation']['id']}"
    found = client.get(place, headers=own).json()
    assert found["state"] == "done", found["reason"]
    jsonschema.validate(found["record"], schema("pair"))
    stored = visxai.Explanation.from_dict(found["record"])
    assert isinstance(stored, PairExplanation)
    assert stored.values == pytest.approx(record.values, abs=1e-4)
    assert stored.total == pytest.approx(stored.score, abs=1e-6)
    assert stored.image.values == pytest.approx(record.image.values, rel=1e-2, abs=1e-5)
    assert stored.text.values == pytest.approx(record.text.values, abs=1e-4)
    assert {"decode", "decide", "queue", "explain"} <= set(found["envelope"]["timings"])

    whole = client.get(f"{place}/fragment.html", headers=own)
    words = client.get(f"{place}/fragment.html?part=text&whole=true", headers=own)
    for told in ("idiot", "By itself", "data:image/jpeg;base64,", "harmful"):
        assert told in whole.text
    assert "data:image" not in words.text
    for one in (whole.text, words.text):
        assert "<b>and" not in one
        assert "<script" not in one
    for name, kind in (("overlay.jpg", "image/jpeg"), ("map.png", "image/png")):
        drawn = client.get(f"{place}/{name}", headers=own)
        assert (drawn.status_code, drawn.headers["content-type"]) == (200, kind)

    case = f"/v1/decisions/{answer['decision_id']}"
    appeal = client.post(f"{case}/appeals", headers=own, json={"reason": "a joke"}).json()
    assert drain(made, "precise") == 1
    precise = client.get(f"/v1/explanations/{appeal['explanation']['id']}", headers=own).json()
    assert precise["state"] == "done", precise["reason"]
    assert precise["record"]["image"]["method"].startswith("occlusion(window=112")
    assert precise["record"]["text"]["method"].startswith("leave_one_out")
    confidence = precise["envelope"]["confidence"]
    for part in ("image", "text"):
        assert -1 <= confidence[part]["agreement"] <= 1
    hidden = confidence["counterfactual"]
    assert hidden["before"] == pytest.approx(record.score, abs=1e-4)
    assert hidden["after"] < hidden["text_alone"] + 1e-6 < hidden["before"]
    assert hidden["after"] <= hidden["image_alone"]

    page = client.get(f"/review/{answer['decision_id']}", headers=own).text
    for told in (
        f"{place}/fragment.html?whole=true&amp;part=text",
        f"{place}/overlay.jpg",
        "of the text&#39;s evidence: <bdi>idiot</bdi>",
        "words left out",
        "Text: it agrees with the fast map",
        "a joke",
    ):
        assert told in page
    shot = client.get(f"/review/{answer['decision_id']}/photo.jpg", headers=own)
    assert shot.headers["content-type"] == "image/jpeg"
    assert "agreement" in client.get("/dashboard", headers=own).text

    client.post(f"{case}/actions", headers=own, json={"action": "uphold"})
    statement = client.get(f"{case}/statement", headers=own).json()
    assert statement["content_type"] == ["CONTENT_TYPE_IMAGE", "CONTENT_TYPE_TEXT"]
    image, text = stored.values.tolist()
    told = f"The image added +0.00 and the text {text:+.2f} to it."
    assert abs(image) < 0.005
    assert told in statement["decision_facts"]
    assert "areas and words" in statement["decision_facts"]
    assert "idiot" not in str(statement)
    assert made.ledger.verify()


def test_equal_posts_share_an_explanation_and_erasing_one_removes_it(
    client: httpx.Client, made: Service, own: dict[str, str]
) -> None:
    first = send(client, own, photo(2), INSULT)
    other = send(client, own, photo(2), f"{INSULT} Fool!")  # the same picture isn't the same post
    drain(made)
    again = send(client, own, photo(2), INSULT)
    place = f"/v1/explanations/{again['explanation']['id']}"
    envelope = client.get(place, headers=own).json()["envelope"]
    assert envelope["cache"] == {"kind": "exact", "source": first["explanation"]["id"]}
    apart = client.get(f"/v1/explanations/{other['explanation']['id']}", headers=own).json()
    assert apart["envelope"]["cache"] == {"kind": "none"}
    page = client.get(f"/review/{again['decision_id']}", headers=own).text
    assert f'href="/review/{first["decision_id"]}"' in page
    assert f'href="/review/{other["decision_id"]}"' not in page

    for answer in (first, other, again):
        client.delete(f"/v1/items/{answer['item_id']}", headers=own)
    assert client.get(place, headers=own).json()["state"] == "erased"
    with made.database.reading() as connection:
        kept = connection.execute(
            select(tables.items).where(tables.items.c.id == first["item_id"])
        ).one()
    assert (kept.kind, kept.blob, kept.pixel_sha256) == ("post", None, None)
    blobs = Path(made.places.blobs)
    left = [one.read_bytes() for one in blobs.rglob("*") if one.is_file()]
    assert not any(photo(2) in one for one in left)
    assert "The text was erased" in client.get(f"/review/{first['decision_id']}", headers=own).text
    audit = client.get("/v1/audit", headers=own).text
    assert first["item_id"] in audit
    assert "idiot" not in audit


def test_kinds_wait_in_one_lane_and_governance_measures_posts(
    client: httpx.Client, made: Service, own: dict[str, str]
) -> None:
    flagged = send(client, own, photo(3), INSULT)
    image = client.post("/v1/items", headers=own, files={"image": ("a.png", photo(3))}).json()
    assert drain(made) == 2
    with govern.Log(made.ledger) as log:
        assert log.catch_up() >= 2
        (model,) = (one for one in log.models() if one.name == "harmful")
        seen = log.observe(model.id)
        assert {"image_adds", "image_share", "cell_00", "negation"} <= set(seen.explanations)
        assert "text_concentration" in seen.explanations
        found = client.get("/governance", headers=own, params={"model": model.id}).text
    told = json.loads(found.partition('id="data">')[2].partition("</script>")[0])
    (shown,) = (one for one in told["models"] if one["id"] == model.id)
    assert "image_adds" in shown["trends"][""]
    rows = {row["id"]: row for row in shown["items"]["rows"]}
    row = rows[flagged["explanation"]["id"]]
    assert row["map"].startswith("data:image/png")
    assert "idiot" in {part[0].strip(",") for part in row["parts"]}
    assert "map" not in row["record"]["image"]
    assert image["explanation"]["id"] not in rows


def test_a_wrong_post_is_one_sentence(
    client: httpx.Client, engine: visxai.Engine, own: dict[str, str], tmp_path: Path
) -> None:
    def refused(**told: Any) -> dict[str, Any]:
        answer = client.post("/v1/items", headers=own, **told)
        assert answer.status_code == 422
        found: dict[str, Any] = answer.json()["error"]
        return found

    broken = {"image": ("a.png", b"no image")}
    assert refused(files=broken, data={"text": INSULT})["code"] == "image"
    nothing = {"image": ("", b"")}
    assert "or both" in refused(files=nothing, data={"text": ""})["message"]
    both = {"image": "aGk=", "url": "http://example.org/a.png", "text": "hi"}
    assert "an image with a text" in refused(json=both)["message"]
    row = {"text": "hi", "features": {"a": 1}}
    assert "an image with a text" in refused(json=row)["message"]
    asked = {"items": [{"image": "aGk=", "text": "hi"}]}
    alone = client.post("/v1/explanations", headers=own, json=asked)
    assert "/v1/items" in alone.json()["error"]["remedy"]
    without = Service(
        nearby(Config.of({**FLAG_ALL, "tiers": CHEAP})), Places.below(tmp_path), engine=engine
    )
    bare: Any
    with TestClient(create(without)) as bare:
        answer = send(bare, key(without, "admin", "default"), photo(), INSULT)
    assert "[post]" in answer["error"]["message"]
    without.close()


def test_settings_that_do_not_fit_are_refused(
    engine: visxai.Engine, card: Path, tmp_path: Path
) -> None:
    with pytest.raises(ArgumentError, match="threshold"):
        settings(card, threshold=1.0)
    with pytest.raises(ArgumentError, match="no_method"):
        settings(card, precise="no_method")
    with pytest.raises(ModelError, match="a card of a fused model"):
        Service(settings(tmp_path / "no.toml"), Places.below(tmp_path), engine=engine)
