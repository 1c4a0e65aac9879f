"""Shared code of the methods that draw: numbers that all batches of a run have in common.

They are drawn on the CPU, so that they are the same on every device, and kept where the batches
lie: drawing and uploading them anew for each batch would keep a GPU waiting.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import torch
from torch import Tensor

FEW = 4  # draws that are kept
_LARGEST = 2**26  # bytes of a draw that is kept: 64 MiB

_kept: OrderedDict[tuple[Hashable, ...], Tensor] = OrderedDict()
_lock = threading.Lock()


def shared(key: tuple[Hashable, ...], like: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """Return what `draw` returns in the type and on the device of a tensor, kept for later calls.

    Args:
        key: What the numbers depend on.
        like: The tensor.
        draw: Draws the numbers on the CPU.

    Returns:
        Numbers that others read too: they must not be written to.
    """
    key = (*key, like.dtype, like.device)
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    with torch.inference_mode(False):  # they outlive the caller's
        found = draw().to(like)
    if found.numel() * found.element_size() <= _LARGEST:
        with _lock:
            _kept[key] = found
            while len(_kept) > FEW:
                _kept.popitem(last=False)
    return found
