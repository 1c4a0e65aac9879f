"""What keeps the service quick and its memory flat: who waits for what, and in which thread."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from test_service import config, drain, photo

import visxai
from visxai import files
from visxai.serve import worker as workers
from visxai.serve.blobs import Blobs
from visxai.serve.intake import Item, explain, moderate
from visxai.serve.keys import Principal
from visxai.serve.service import Places, Service
from visxai.serve.waiting import Ends
from visxai.serve.worker import Worker

WHO = Principal("a-key", "acme", "admin", "")


def test_a_request_wakes_when_its_job_ends_and_otherwise_hardly_looks() -> None:
    ends, looks = Ends(), [0]
    ends.here = True
    states = {"a": "running"}

    async def state() -> str:
        looks[0] += 1
        return states["a"]

    def finish() -> None:
        ends.tell(["another"])
        states["a"] = "done"
        ends.tell(["a"])

    timer = threading.Timer(0.03, finish)
    timer.start()
    began = time.monotonic()
    assert asyncio.run(ends.wait("a", state, 60.0)) == "done"
    assert time.monotonic() - began < 30
    assert looks[0] <= 20  # before and after, and few between however slow the machine is
    timer.join()
    assert not ends._waiting
    states["a"] = "running"
    assert asyncio.run(ends.wait("a", state, 0.02)) == "running"
    # What another process ends is seen as well.
    ends.here = False
    timer = threading.Timer(0.03, states.update, [{"a": "failed"}])
    timer.start()
    assert asyncio.run(ends.wait("a", state, 60.0)) == "failed"
    timer.join()


def test_the_precise_lane_computes_in_one_thread_for_all_its_jobs(
    engine: visxai.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that computes leaves memory and threads of OpenMP behind."""
    threads: list[int] = []
    check = workers.check_image

    def noted(*given: Any) -> Any:
        threads.append(threading.get_native_id())
        return check(*given)

    monkeypatch.setattr(workers, "check_image", noted)
    service = Service(config(), Places.below(tmp_path), engine=engine)
    worker = Worker(service, "precise")
    try:
        for seed in range(2):
            explain(service, WHO, Item(photo(seed)), "class=7", "precise")
            assert worker.step() == 1
        assert len(threads) == 2
        assert len(set(threads)) == 1
        assert worker._held == []
    finally:
        worker._compute.shutdown()
        service.close()


def test_an_item_and_a_batch_take_few_statements(engine: visxai.Engine, tmp_path: Path) -> None:
    """Statements are most of a cache hit's time."""
    service = Service(config(), Places.below(tmp_path), engine=engine)
    said: list[str] = []
    event.listen(
        service.database.engine,
        "before_cursor_execute",
        lambda connection, cursor, statement, *more: said.append(statement.split()[0]),
    )
    try:
        moderate(service, WHO, Item(photo(1)))
        new = said.count("INSERT")
        moderate(service, WHO, Item(photo(2)))
        said.clear()
        assert drain(service) == 2
        # A batch is written by as few statements as one job is.
        assert said.count("UPDATE") == 4  # claimed, ended, their followers, the chain's head
        assert said.count("INSERT") == 4  # the model, what later ones take, the records, the chain
        said.clear()
        answer = moderate(service, WHO, Item(photo(1)))
        assert answer["explanation"]["state"] == "done"
        assert new == 4  # item, job, the chain, decision
        assert said.count("INSERT") == 5  # and the record
        assert len(said) <= 16
    finally:
        service.close()


def test_equal_bytes_at_the_same_time_both_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, go, order = Blobs(tmp_path), threading.Event(), []
    real = os.fsync

    def slow(handle: int) -> None:
        go.wait(30)
        order.append("synced")
        real(handle)

    monkeypatch.setattr(files.os, "fsync", slow)

    def put(name: str) -> None:
        with blobs.putting("acme", b"bytes") as blob:
            assert blobs.get(blob) == b"bytes"  # readable before it is on the disk
            order.append(f"{name} written")
        order.append(f"{name} kept")

    threads = [threading.Thread(target=put, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    while len(order) < 2:
        time.sleep(0.001)
    assert sorted(order) == ["a written", "b written"]
    go.set()
    for thread in threads:
        thread.join()
    assert sorted(order[2:4]) == ["synced", "synced"]
    assert sorted(order[4:]) == ["a kept", "b kept"]
    blobs.close()
