"""The start of worker processes, before or after the settings of their run are known."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.spawn
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from visxai.pipeline.tasks import _start

MOST_EARLY = 4  # processes that start before it is known how many images there are


def pool_of_one(setup: bytes | Connection) -> ProcessPoolExecutor:
    """Make a pool of one worker process, which starts with its first task.

    Args:
        setup: The pickled settings of the run, or where the process receives them.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, initializer=_start, initargs=(setup,))


class EarlyWorkers:
    """Worker processes that start while PyTorch is imported, and wait for the settings of a run.

    Importing what a worker needs takes half a second of a core that would be idle otherwise. As a
    context manager it ends those that no run has taken, without waiting until they have started: a
    misspelt option is told at once.

    Args:
        count: The number of processes.
    """

    def __init__(self, count: int) -> None:
        self._waiting: list[tuple[ProcessPoolExecutor, Connection]] = []
        for _ in range(count):
            receiver, sender = multiprocessing.Pipe(duplex=False)
            pool = pool_of_one(receiver)
            with quietly(script=False):
                pool.submit(os.getpid)  # a pool starts its process with its first task
            receiver.close()
            self._waiting.append((pool, sender))

    def take(self, count: int, setup: bytes) -> list[ProcessPoolExecutor]:
        """Send the pickled settings of a run to at most `count` processes; return their pools."""
        taken: list[ProcessPoolExecutor] = []
        while self._waiting and len(taken) < count:
            pool, sender = self._waiting.pop()
            with sender, contextlib.suppress(OSError):  # a process that died is started anew
                sender.send_bytes(setup)
            taken.append(pool)
        return taken

    def __enter__(self) -> EarlyWorkers:
        return self

    def __exit__(self, *_: object) -> None:
        for pool, sender in self._waiting:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            sender.close()
            pool.shutdown()


_starting = threading.local()
_described = multiprocessing.spawn.get_preparation_data


def _without_script(name: str) -> dict[str, Any]:
    """Return the data that a new process gets from this one, without its script in `quietly`."""
    told: dict[str, Any] = _described(name)
    if getattr(_starting, "alone", False):
        for key in ("init_main_from_name", "init_main_from_path"):
            told.pop(key, None)
    return told


# Other code that starts processes, in this thread or another, gets the same data as before.
multiprocessing.spawn.get_preparation_data = _without_script


@contextlib.contextmanager
def quietly(script: bool) -> Iterator[None]:
    """Start processes in this context so that they miss Ctrl-C until they can ignore it.

    Args:
        script: Whether they import the program's own script, which may take seconds and runs
            everything that isn't below its `if __name__ == "__main__"`.
    """
    before = None
    if hasattr(signal, "pthread_sigmask"):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    _starting.alone = not script
    try:
        yield
    finally:
        _starting.alone = False
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
