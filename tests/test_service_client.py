"""The client over real HTTP, and the demonstration."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from sqlalchemy import func, select
from test_service import CHEAP, FLAG_ALL, key, nearby, photo

import visxai
from visxai.serve import AsyncClient, Client, ServiceError, demo, run, tables
from visxai.serve.app import create
from visxai.serve.client import explanation
from visxai.serve.config import Config
from visxai.serve.service import Places, Service


@pytest.fixture(scope="module")
def served(
    engine: visxai.Engine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, str, str]]:
    service = Service(
        Config.of({**FLAG_ALL, "tiers": CHEAP}),
        Places.below(tmp_path_factory.mktemp("served")),
        engine=engine,
    )
    listener = run.listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(create(service), log_level="warning", access_log=False, ws="none")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with run.working(service, run.LANES, print):
        yield service, url, key(service, "admin", "default")["Authorization"].split()[1]
    server.should_exit = True
    thread.join(20)
    listener.close()
    service.close()


def test_a_client_sends_waits_reads_and_contests(
    served: tuple[Service, str, str], tmp_path: Path
) -> None:
    _, url, own = served
    path = tmp_path / "cat.png"
    path.write_bytes(photo(1))
    with Client(url, own) as client:
        answer = client.moderate(path, metadata={"group": "a"})
        found = client.wait(answer["explanation"]["id"])
        assert found["state"] == "done"
        assert found["envelope"]["metadata"] == {"group": "a"}
        assert explanation(found).values.shape == (7, 7)
        assert client.overlay(found["id"], side=40)[:2] == b"\xff\xd8"
        appeal = client.appeal(answer["decision_id"], "look again")
        assert client.wait(appeal["explanation"]["id"])["envelope"]["tier"] == "precise"
        assert client.decision(answer["decision_id"])["lane"] == "appeal"
        assert client.statement(answer["decision_id"])["puid"] == answer["decision_id"]
        asked = client.explain([photo(2), path], "class=3")
        assert {client.wait(one["id"])["state"] for one in asked} == {"done"}
        with pytest.raises(ServiceError, match="convert it") as told:
            client.moderate(b"no image")
        assert (told.value.status, told.value.error["code"]) == (422, "image")
        with pytest.raises(ServiceError, match=r"add a part \[table\]"):
            client.moderate(features={"income": 20.5})
    with Client(url, "vx_0_0") as stranger, pytest.raises(ServiceError) as told:
        stranger.get("f" * 32)
    assert told.value.status == 401


def test_an_asynchronous_client_does_the_same(served: tuple[Service, str, str]) -> None:
    _, url, own = served

    async def work() -> list[str]:
        async with AsyncClient(url, own) as client:
            sent = await asyncio.gather(*(client.moderate(photo(n)) for n in (21, 22, 23)))
            ends = await asyncio.gather(*(client.wait(one["explanation"]["id"]) for one in sent))
            return [one["state"] for one in ends]

    assert asyncio.run(work()) == ["done"] * 3


def test_a_client_waits_for_a_busy_service_and_names_one_that_is_not_there(
    served: tuple[Service, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from visxai.serve import intake
    from visxai.serve.errors import Overloaded

    _, url, own = served
    real = intake.moderate
    refused: list[int] = []

    def busy_once(*arguments: object) -> dict[str, object]:
        if not refused:
            refused.append(1)
            raise Overloaded(1)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(intake, "moderate", busy_once)
    with Client(url, own) as client:
        assert client.moderate(photo(31))["decision"] == "flag"
    refused.clear()
    with Client(url, own, patience=0.5) as hasty, pytest.raises(ServiceError) as told:
        hasty.moderate(photo(32))
    assert told.value.status == 429
    with Client("http://127.0.0.1:1", own) as lost, pytest.raises(ServiceError) as none:
        lost.get("f" * 32)
    assert none.value.error["code"] == "unreachable"


def test_the_demonstration_has_something_for_every_page(
    engine: visxai.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("skimage")
    pytest.importorskip("xgboost")
    pytest.importorskip("shap")  # here, as its import warns
    settings = {**demo.settings(tmp_path), "tiers": CHEAP}
    settings["post"]["precise"] = "leave_one_out"
    monkeypatch.setattr(demo, "_PHOTOGRAPHS", ("chelsea",))
    monkeypatch.setattr(demo, "_COMMENTS", demo._COMMENTS[:2])
    monkeypatch.setattr(demo, "_APPLICANTS", range(0, 1000, 250))
    service = Service(nearby(Config.of(settings)), Places.below(tmp_path), engine=engine)
    try:
        with run.working(service, run.LANES, print):
            assert demo.fill(service, "default") == 2 + 4 + 4 + 3
            assert demo.fill(service, "default") == 0  # a second start sends nothing again
        with service.database.reading() as connection:
            rows = connection.execute(
                select(tables.decisions.c.state, func.count()).group_by(tables.decisions.c.state)
            ).all()
        counts = {row[0]: row[1] for row in rows}
        assert counts["open"] >= 2
        assert counts["closed"] >= 1
        with service.database.reading() as connection:
            flagged = connection.execute(
                select(tables.items.c.kind).where(tables.items.c.blob.is_not(None))
            )
            assert set(flagged.scalars()) == {"image", "text", "post", "table"}
        assert service.ledger.verify()
    finally:
        service.close()
