"""Exact float32 on a GPU: TensorFloat-32 is off during a computation.

PyTorch lets convolutions round their inputs to 10 bits of mantissa on a GPU (TF32), which is fp16's
precision. All 23 bits are needed where a record says fp32, where rows that half precision lost are
run again, and where ablation reads small differences. The switches belong to the whole process:
they are turned off when the first thread begins and restored when the last thread ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Switches:
    """TF32's two switches, off as long as any thread needs them off."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = (False, "highest")

    def off(self) -> None:
        """Turn TF32 off, and remember its state if no other thread has turned it off."""
        with self._lock:
            if self._users == 0:
                matmul = torch.get_float32_matmul_precision()
                self._before = (torch.backends.cudnn.allow_tf32, matmul)
                self._set(False, "highest")
            self._users += 1

    def back(self) -> None:
        """Restore TF32's state if no other thread still needs it off."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._set(*self._before)

    def _set(self, convolutions: bool, matmul: str) -> None:
        # Only what differs: setting a switch makes compiled code check its guards anew.
        """Set both switches: TF32 in convolutions, and the precision of matrix products."""
        if torch.backends.cudnn.allow_tf32 != convolutions:
            torch.backends.cudnn.allow_tf32 = convolutions
        if torch.get_float32_matmul_precision() != matmul:
            torch.set_float32_matmul_precision(matmul)


_SWITCHES = _Switches()


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Compute float32 on `device` with all its bits; a CPU always does."""
    if device.type != "cuda":
        yield
        return
    _SWITCHES.off()
    try:
        yield
    finally:
        _SWITCHES.back()
