"""Requests that wait for jobs' ends: woken by the workers of this process, else they look."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable

from visxai.serve.jobs import OPEN

# The first and the longest pause between two looks, in seconds: at what other processes work on,
# and at what this one does, whose ends are told.
_AWAY, _HERE = (0.005, 0.1), (0.1, 0.5)


class Ends:
    """The ends of jobs, as the workers of this process tell them.

    Attributes:
        here: Whether workers of this process tell ends.
    """

    def __init__(self) -> None:
        self.here = False
        self._lock = threading.Lock()
        self._waiting: defaultdict[str, list[Callable[[], object]]] = defaultdict(list)

    def tell(self, ids: Iterable[str]) -> None:
        """Wake the requests that wait for jobs whose end is on record."""
        with self._lock:
            woken = [wake for id in ids for wake in self._waiting.get(id, ())]
        for wake in woken:
            with contextlib.suppress(RuntimeError):  # the server has stopped meanwhile
                wake()

    async def wait(self, id: str, state: Callable[[], Awaitable[str]], seconds: float) -> str:
        """Wait for a job's end.

        Another process may end it, so that its state is read now and then as well.

        Args:
            id: The job.
            state: Reads its state.
            seconds: The most seconds to wait.

        Returns:
            Its state.
        """
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        end = time.monotonic() + seconds
        pause, longest = _HERE if self.here else _AWAY

        def wake() -> None:
            loop.call_soon_threadsafe(told.set)

        with self._lock:
            self._waiting[id].append(wake)
        try:
            # It is read after `wake` is known: an end between the two isn't missed.
            while (found := await state()) in OPEN and (left := end - time.monotonic()) > 0:
                try:
                    await asyncio.wait_for(told.wait(), min(pause, left))
                    told.clear()
                except TimeoutError:
                    pause = min(pause * 1.5, longest)
            return found
        finally:
            with self._lock:
                self._waiting[id].remove(wake)
                if not self._waiting[id]:
                    del self._waiting[id]
