"""Worker processes that decode photographs and draw overlays; they never import torch.

Before a worker reads its first file it gives up the rights that it doesn't need: memory beyond
what the limits on images require, the network, other programs, and writing outside `Setup.writes`
(see `visxai.sandbox`). A hostile file may crash its process, or keep it busy for ever;
then the process ends itself. Each worker is its own pool of one process, so a crash affects only
the tasks that waited there. These are run again, one at a time, and only a task that ends a
process with no other task becomes a Failure. A worker keeps the photographs that it decoded,
within a limit, so that drawing on them needn't decode them again. Files behind URLs are fetched by
a few threads of the parent, each of which holds one file's bytes until a worker has taken them.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from typing import Any

from visxai.errors import ArgumentError, Failure, VisxaiError
from visxai.foreign import shown
from visxai.images.address import Origin, Unfetched
from visxai.pipeline.spawning import EarlyWorkers, pool_of_one, quietly
from visxai.pipeline.tasks import Setup, WorkerState, _do

_FETCHING = 16  # URLs read at once


def confinement(worker: WorkerState, _: str | Origin) -> dict[str, str]:
    """Return for each part of the sandbox why it isn't in force in a worker, or "" if it is."""
    return worker.confined


@dataclass
class Task:
    """A task that was given to a worker; `Workers.result` waits for it.

    Attributes:
        call: The function and its arguments, after the worker's state.
        at: The worker's index.
        future: The future of its result.
    """

    call: tuple[Any, ...]
    at: int
    future: Future[Any]


class Workers:
    """A set of worker processes, which may be used from several threads.

    Args:
        setup: The settings that all tasks share.
        count: The number of processes; with 0 all tasks run in this process, as they do with a
            preprocessing that can't be pickled.
        early: Processes that were started before the settings were known, to be used first.
    """

    def __init__(self, setup: Setup, count: int, early: EarlyWorkers | None = None) -> None:
        self.setup = replace(setup, cache=setup.cache // max(1, count))
        self.count = count
        self._here = WorkerState(self.setup)
        self._lock = threading.Lock()
        self._alone = threading.Lock()
        self._waiting = [0] * count
        self._pools: list[ProcessPoolExecutor] = []
        self._fetchers: ThreadPoolExecutor | None = None
        self._spare: ProcessPoolExecutor | None = None
        if count:
            try:
                self._pickled = pickle.dumps(self.setup)
                # A preprocessing that the user's script defines needs the script in each worker.
                self._script = b"__main__" in self._pickled
            except (pickle.PicklingError, AttributeError, TypeError):
                self.count = 0  # a preprocessing that can't be sent to another process
                return
            started = [] if early is None else early.take(count, self._pickled)
            self._pools = [*started, *(self._pool() for _ in range(count - len(started)))]

    def submit(
        self, task: Callable[..., Any], source: str | Origin, *rest: Any, at: int | None = None
    ) -> Task:
        """Start a task about an image.

        Args:
            task: The function; its first argument is the worker's state.
            source: The image.
            *rest: Further arguments.
            at: The index of the worker that keeps the image's photograph; None chooses the worker
                with the fewest waiting tasks.
        """
        origin = Origin.of(source).located() if self.count else Origin.of(source)
        arguments = (origin, *rest)
        call = (task, *arguments)
        if not self.count:
            future: Future[Any] = Future()
            try:
                with self._alone:
                    future.set_result(task(self._here, *arguments))
            except Exception as error:
                future.set_exception(error)
            return Task(call, 0, future)
        with self._lock:
            kept = at is not None
            at = self._waiting.index(min(self._waiting)) if at is None else at
            self._waiting[at] += 1
            if origin.remote and origin.fetched is None:
                self._fetchers = self._fetchers or ThreadPoolExecutor(_FETCHING, "visxai-fetch")
                future = self._fetchers.submit(self._fetched, at, call, kept)
            else:
                future = self._send(at, call)
        future.add_done_callback(lambda _: self._finished(at))
        return Task(call, at, future)

    def result(self, task: Task | Failure) -> Any:
        """Wait for a task; return its result, or a Failure if it killed its process twice.

        A Failure in the place of a task is its own result.

        Raises:
            VisxaiError: If worker processes can't start.
            Exception: The task's own error.
        """
        if isinstance(task, Failure):
            return task
        try:
            return task.future.result()
        except BrokenProcessPool:
            return self._again(task)

    def _fetched(self, at: int, call: tuple[Any, ...], kept: bool) -> Any:
        """Fetch a URL, run a task about it in a worker, and wait for the result.

        Args:
            at: The worker's index.
            call: The function and its arguments.
            kept: Whether the worker should still keep the photograph, so that nothing is fetched.
        """
        task, origin, *rest = call
        if kept:
            with contextlib.suppress(Unfetched):
                return self._done(at, (task, replace(origin, away=True), *rest))
        fetched = origin.fetch(self.setup.limits.max_bytes, self.setup.timeout)
        return self._done(at, (task, fetched, *rest))

    def _done(self, at: int, call: tuple[Any, ...]) -> Any:
        with self._lock:
            future = self._send(at, call)
        return self.result(Task(call, at, future))

    def close(self) -> None:
        """Stop the processes, each after its present task; cancel waiting tasks."""
        if self._fetchers is not None:
            self._fetchers.shutdown(cancel_futures=True)
        for pool in (*self._pools, *filter(None, [self._spare])):
            pool.shutdown(cancel_futures=True)

    def _again(self, task: Task) -> Any:
        """Run a task again, in a process with no other task."""
        with self._alone:
            pool = self._spare = self._spare or self._pool()
            try:
                with quietly(self._script):
                    pool.submit(os.getpid).result()
            except BrokenProcessPool:
                raise VisxaiError(
                    "expected worker processes to start, but they don't: use workers=0, or in a "
                    "script start the run below if __name__ == '__main__'"
                ) from None
            began = time.monotonic()
            try:
                return pool.submit(_do, *task.call).result()
            except BrokenProcessPool:
                self._spare = None
                pool.shutdown()
                path, limit = str(task.call[1]), self.setup.timeout
                late = time.monotonic() - began >= limit
                what = (
                    f"kept the process that read it busy for {limit:g} s"
                    if late
                    else ("killed the process that read it")
                )
                return Failure(
                    path,
                    f"expected an image that can be decoded, got {shown(path)}, which {what}, "
                    "twice: leave it out or save it again",
                    "WorkerDied",
                )

    def _pool(self) -> ProcessPoolExecutor:
        return pool_of_one(self._pickled)

    def _send(self, at: int, call: tuple[Any, ...]) -> Future[Any]:
        with quietly(self._script):
            try:
                return self._pools[at].submit(_do, *call)
            except BrokenProcessPool:
                self._pools[at].shutdown(wait=False)
                self._pools[at] = self._pool()
                return self._pools[at].submit(_do, *call)

    def _finished(self, at: int) -> None:
        # Called by a thread of the pool, or by submit's thread once it has released the lock.
        with self._lock:
            self._waiting[at] -= 1


def check_workers(workers: int | None, timeout: float | None) -> None:
    """Check a number of worker processes and a timeout.

    Raises:
        ArgumentError: If the number is negative, the timeout isn't positive, or there is a
            timeout without worker processes to keep it.
    """
    if workers is not None and workers < 0:
        raise ArgumentError(
            f"expected 0 or more workers, got {workers}: leave it out for one a core"
        )
    if timeout is not None and not timeout > 0:
        raise ArgumentError(f"expected a timeout of more than 0 seconds, got {timeout}")
    if workers == 0 and timeout is not None:
        raise ArgumentError(
            f"expected worker processes for a timeout, got workers=0 and a timeout of {timeout:g} "
            "seconds: only a process of its own can be ended, so leave one of them out"
        )


def worker_count(workers: int | None, images: int, timeout: float | None = None) -> int:
    """Choose the number of worker processes of a run.

    Args:
        workers: The requested number, None for one a core and at most 32; either way at most one
            an image.
        images: The number of images of the run.
        timeout: The requested timeout in seconds, None for none: for one or two images, starting
            processes takes longer than decoding, and is done only to keep a timeout.
    """
    if workers is not None:
        return min(workers, max(1, images))
    if images <= 2:
        return 0 if timeout is None else min(1, images)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(cores or 1, 32, images)
