"""Dynamic batching: requests that arrive together share a forward."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Batcher(Generic[T, R]):
    """Gathers items from many threads and runs them in batches, in the thread of an executor.

    A batch is what has come by the time that the thread is free. It waits for more items only
    while other callers have announced some, and never longer than `wait`; a lone request waits for
    nothing.

    Args:
        run: Runs a batch; returns one result an item.
        rows: The most items of a batch.
        wait: The most seconds that the first item of a batch waits for others.
        executor: Whose single thread runs the batches.
    """

    def __init__(
        self,
        run: Callable[[Sequence[T]], Sequence[R]],
        rows: int,
        wait: float,
        executor: Executor,
    ) -> None:
        self._run, self._rows, self._wait, self._executor = run, rows, wait, executor
        self._items: queue.SimpleQueue[tuple[T, Future[R]]] = queue.SimpleQueue()
        self._coming = 0
        self._lock = threading.Lock()
        self.batches = 0
        self.rows = 0

    def announce(self, change: int) -> None:
        """Say that a caller will bring an item soon (1), or that it won't after all (-1)."""
        with self._lock:
            self._coming += change

    def submit(self, item: T) -> R:
        """Run an item with others; wait for its result.

        Raises:
            Exception: What the run raised.
        """
        future: Future[R] = Future()
        self._items.put((item, future))
        # As many turns as items: the first of them takes all that are there, others find nothing.
        self._executor.submit(self._turn)
        return future.result()

    def _turn(self) -> None:
        batch: list[tuple[T, Future[R]]] = []
        end = time.monotonic() + self._wait
        while len(batch) < self._rows:
            left = end - time.monotonic()
            patient = batch and left > 0 and self._coming > len(batch)
            try:
                batch.append(self._items.get(timeout=left) if patient else self._items.get_nowait())
            except queue.Empty:
                break
        if batch:
            self._do(batch)

    def _do(self, batch: list[tuple[T, Future[R]]]) -> None:
        self.batches, self.rows = self.batches + 1, self.rows + len(batch)
        try:
            results = self._run([item for item, _ in batch])
        except Exception as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
