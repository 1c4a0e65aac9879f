"""Worker processes that start before the settings of their run are known."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from visxai import cli
from visxai.images.prepared import Prepared
from visxai.images.preprocess import Preprocess
from visxai.pipeline.spawning import EarlyWorkers
from visxai.pipeline.tasks import Setup, decode
from visxai.pipeline.workers import Workers, confinement

PHOTO = str(Path(__file__).parent / "data" / "version1" / "photos" / "coffee.jpg")


def test_a_run_uses_early_workers_and_the_others_end() -> None:
    before = set(multiprocessing.active_children())
    with EarlyWorkers(2) as early:
        started = set(multiprocessing.active_children()) - before
        assert len(started) == 2
        pool = Workers(Setup(Preprocess((8, 8)), timeout=30.0), 1, early)
        try:
            (one,) = started - {process for _, process in _idle(early)}
            found = pool.result(pool.submit(decode, PHOTO))
            assert isinstance(found, Prepared)
            assert found.pixels.shape == (8, 8, 3)
            # It gave up the same rights as a worker that starts with its settings.
            assert set(pool.result(pool.submit(confinement, PHOTO)))
            assert set(multiprocessing.active_children()) - before == started
        finally:
            pool.close()
        assert not one.is_alive()
    assert set(multiprocessing.active_children()) <= before


def _idle(early: EarlyWorkers) -> list[tuple[object, multiprocessing.process.BaseProcess]]:
    """List the pools that no run has taken, each with its process."""
    return [(pool, next(iter(pool._processes.values()))) for pool, _ in early._waiting]


def test_an_early_worker_that_died_is_started_anew() -> None:
    with EarlyWorkers(1) as early:
        ((_, process),) = _idle(early)
        process.kill()
        process.join()
        pool = Workers(Setup(Preprocess((8, 8))), 1, early)
        try:
            assert isinstance(pool.result(pool.submit(decode, PHOTO)), Prepared)
        finally:
            pool.close()


def test_leaving_waits_for_no_worker_to_start() -> None:
    before = set(multiprocessing.active_children())
    with EarlyWorkers(1) as early:
        ((_, process),) = _idle(early)
    assert process.exitcode == -signal.SIGTERM if os.name == "posix" else process.exitcode
    assert set(multiprocessing.active_children()) <= before


def test_a_program_that_calls_the_command_line_keeps_its_settings() -> None:
    before = gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()) == before
