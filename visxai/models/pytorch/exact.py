"""float32 that is float32 on a GPU too: TensorFloat-32 off while it computes.

PyTorch lets convolutions round their inputs to 10 bits on a GPU (TF32), which is fp16's
precision. What a record calls fp32, what is run again because half precision lost it and the
small differences that ablation reads all want 23. The switches belong to the whole process:
they are turned when the first thread begins and turned back when the last one ends.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class _Switches:
    """TF32's two switches, off as long as any thread asks for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = (False, "highest")

    def off(self) -> None:
        with self._lock:
            if self._users == 0:
                matmul = torch.get_float32_matmul_precision()
                self._before = (torch.backends.cudnn.allow_tf32, matmul)
                self._set(False, "highest")
            self._users += 1

    def back(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._set(*self._before)

    def _set(self, convolutions: bool, matmul: str) -> None:
        # Only what differs: setting a switch makes compiled code check its guards anew.
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
