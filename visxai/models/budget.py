"""How many rows fit in memory, and what says that they didn't."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from visxai.errors import OutOfMemory

# What the CPU's allocator, CUDA, cuBLAS, cuDNN and ONNX Runtime say when memory runs out. Of the
# last two, cuDNN says so when no algorithm's workspace fits.
_OUT_OF_MEMORY = re.compile(
    r"can't allocate memory|out of memory|failed to allocate memory"
    r"|CU[A-Z]+_STATUS_[A-Z_]*ALLOC[A-Z]*_FAILED"
    r"|unable to find an engine to execute|unable to find a valid cuDNN algorithm",
    re.IGNORECASE,
)


@dataclass
class RowBudget:
    """How many rows one call may hold, learned for each kind of call and input shape."""

    limit: int = 16
    known: dict[tuple[object, ...], int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def get(self, key: tuple[object, ...]) -> int:
        return self.known.get(key, self.limit)

    def shrink(self, key: tuple[object, ...], failed: int) -> None:
        """Note that `failed` rows were too many; raises OutOfMemory when that was one row."""
        if failed <= 1:
            raise OutOfMemory(
                f"expected one row of {key} to fit in memory, but it did not: use a smaller "
                "input or model, precision='bf16', a later layer, or free the device's memory"
            )
        with self.lock:
            self.known[key] = max(1, min(self.get(key), failed // 2))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on any device or runtime."""
    if isinstance(error, OutOfMemory):
        return False
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


@contextmanager
def looking(at: str) -> Iterator[None]:
    """Say of memory that ran out while a model is looked at that it did, and nothing else.

    What is learned of a model by running it once is kept; that memory ran out says nothing of the
    model, so it must reach the caller and not be taken for an answer.

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
