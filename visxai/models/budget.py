"""The number of rows that fit in memory, and the detection of errors for lack of memory."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from visxai.errors import OutOfMemory

# The messages of the CPU's allocator, CUDA, cuBLAS, cuDNN and ONNX Runtime when memory runs out.
# The last two are cuDNN's when no algorithm's workspace fits.
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|out of memory|failed to allocate memory"
    r"|CU[A-Z]+_STATUS_[A-Z_]*ALLOC[A-Z]*_FAILED"
    r"|unable to find an engine to execute|unable to find a valid cuDNN algorithm",
    re.IGNORECASE,
)


_PATIENCE = 32  # blocks that must fit before the number of rows is doubled again
_MOST_PATIENCE = 4096


@dataclass
class RowBudget:
    """The number of rows that a call may hold, learned for each kind of call and input shape.

    Attributes:
        limit: the number of rows to begin with.
        most: the number of rows that blocks may grow to, by doubling; at least `limit`.
        known: the numbers that were learned, by kind of call and input shape.
        patience: the full blocks that must fit before a number is doubled, by the same: one, until
            one didn't fit; it grows with each failure.
        fitted: how many blocks did since the number last changed.
        lock: what keeps threads from changing `known` at once.
    """

    limit: int = 16
    most: int = 0
    known: dict[tuple[object, ...], int] = field(default_factory=dict)
    patience: dict[tuple[object, ...], int] = field(default_factory=dict)
    fitted: Counter[tuple[object, ...]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: tuple[object, ...]) -> int:
        """Return how many rows a call may hold."""
        return self.known.get(key, self.limit)

    def shrink(self, key: tuple[object, ...], failed: int) -> None:
        """Record that `failed` rows didn't fit, so that the next block has half as many.

        Raises:
            OutOfMemory: it was a single row.
        """
        if failed <= 1:
            raise OutOfMemory(
                f"expected one row of {key} to fit in memory, but it did not: use a smaller "
                "input or model, precision='bf16', a later layer, or free the device's memory"
            )
        with self.lock:
            self.known[key] = max(1, min(self.get(key), failed // 2))
            self.patience[key] = min(_MOST_PATIENCE, 2 * self.patience.get(key, _PATIENCE // 2))
            self.fitted[key] = 0

    def fits(self, key: tuple[object, ...], rows: int) -> None:
        """Record that a block fitted; after enough full ones the next has twice as many rows.

        Memory that another program held comes back, so a smaller number isn't kept for ever. Where
        twice as many don't fit after all, the next try comes after twice as many blocks.
        """
        size, most = self.get(key), max(self.limit, self.most)
        if rows < size or size >= most:
            return
        with self.lock:
            self.fitted[key] += 1
            if self.fitted[key] >= self.patience.get(key, 1):
                self.fitted[key] = 0
                self.known[key] = min(most, 2 * size)
                if self.known[key] == self.limit:
                    del self.known[key]


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out, on any device or runtime.

    An `OutOfMemory` of visxai's own doesn't count: it has been handled already.
    """
    if isinstance(error, OutOfMemory):
        return False
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


@contextmanager
def looking(at: str) -> Iterator[None]:
    """Turn a lack of memory while a model is inspected into OutOfMemory; let other errors pass.

    What is learned about a model from a first run is kept. A lack of memory says nothing about the
    model, so it must reach the caller and not be recorded as a property of the model.

    Args:
        at: the model's name for the message.

    Raises:
        OutOfMemory: memory ran out inside.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return
    # Outside the `except`: inside, the traceback would keep the tensors alive.
    raise OutOfMemory(
        f"expected one or two images to fit in memory while {at} was looked at, but they did not: "
        "free the device's memory and try again, or use a smaller input or model"
    )
