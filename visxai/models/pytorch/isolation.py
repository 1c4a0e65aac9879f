"""The isolation of images from each other, and of the caller's tensors from a network's writes.

A forward may write into its input (`x.div_(255)`, an in-place activation first of all). It then
gets a copy. Whether it writes is observed in the first forward, by the version that PyTorch counts
up with every write, so a network that leaves its input alone gets no further copies.

A batch norm without running statistics normalises by the current batch: an image's scores would
depend on its neighbours, and so would its map. Such networks are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from visxai.errors import ModelError


class Inputs:
    """A record of whether a network writes into its inputs, learned from its first forward."""

    def __init__(self) -> None:
        self._overwritten: bool | None = None

    def run(self, part: Callable[[Tensor], Any], x: Tensor, *, whole: bool) -> Any:
        """Run a part of a network on x, or on a copy where the network may write into x.

        Args:
            part: the network or a part of it.
            x: its input (b, ...), which must not change.
            whole: whether `part` is the network itself, so that its forward shows whether it
                writes.

        Returns:
            What `part` returned.
        """
        if torch.compiler.is_compiling():  # a tracer's tensors count no versions
            return part(x if self._overwritten is False else x.clone())
        if self._overwritten is not False or x.is_inference():
            x = x.clone()
        if x.is_inference():  # counts no writes; a copy is safe from them anyway
            return part(x)
        before = x._version
        output = part(x)
        if x._version != before:
            self._overwritten = True
        elif whole and self._overwritten is None:
            self._overwritten = False
        return output


def check_independent(module: nn.Module, name: str) -> None:
    """Refuse a module in which the images of a batch change each other's scores.

    Args:
        module: any network.
        name: the network's name for the message.

    Raises:
        ModelError: a batch norm in it has no running statistics.
    """
    for path, part in module.named_modules():
        if isinstance(part, _BatchNorm) and (part.running_mean is None or part.running_var is None):
            raise ModelError(
                f"expected running statistics in every batch norm of {name}, but {path or 'it'} "
                "has none, so the images of a batch would change each other's scores: build it "
                "with track_running_stats=True and load or average its statistics"
            )
