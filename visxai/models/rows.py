"""Rows of inputs that are built block by block, and how many of them fit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """images × turns inputs that are never all in memory.

    build(image (n,), turn (n,)) makes the inputs (n, *shape) of n pairs of indices. batch: the
    inputs themselves, where they exist already.
    """

    images: int
    turns: int
    shape: tuple[int, ...]
    build: Callable[[Tensor, Tensor], Tensor]
    batch: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor) -> Rows:
        """The batch itself, one turn each."""
        return cls(x.shape[0], 1, tuple(x.shape[1:]), lambda image, _: x[image], x)

    def block(self, image: Tensor, turn: Tensor) -> Tensor:
        """The inputs of consecutive rows; all of a batch are the batch, which isn't copied."""
        if self.batch is not None and len(image) == self.images:
            return self.batch
        return self.build(image, turn)

    def pairs(self, image: Tensor, turn: Tensor) -> Rows:
        """The rows (image[i], turn[i]) alone, as images with one turn each."""
        return Rows(len(image), 1, self.shape, lambda i, _: self.build(image[i], turn[i]))


def wide(value: Tensor) -> Tensor:
    """float32, or float64 as it is: what every reduction that makes a map runs in."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def vanished(gradient: Tensor) -> Tensor:
    """(n,) whether a row's gradient is all zero, or anywhere not finite."""
    peak = gradient.flatten(1).abs().amax(1)
    return (peak == 0) | ~peak.isfinite()
