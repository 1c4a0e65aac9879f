"""Rows of inputs that are built block by block, and the reductions over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """The inputs of images × turns, of which only a block is in memory at a time.

    Attributes:
        images: the number of images.
        turns: the number of inputs that each image has: path points, windows or masks.
        shape: an input's shape.
        build: build(image (n,), turn (n,)) makes the inputs (n, *shape) of n pairs of indices.
        batch: the inputs themselves, where they exist already.
    """

    images: int
    turns: int
    shape: tuple[int, ...]
    build: Callable[[Tensor, Tensor], Tensor]
    batch: Tensor | None = None

    @classmethod
    def of(cls, x: Tensor) -> Rows:
        """Return rows over a batch x (b, ...), with a single turn for each image."""
        return cls(x.shape[0], 1, tuple(x.shape[1:]), lambda image, _: x[image], x)

    def block(self, image: Tensor, turn: Tensor) -> Tensor:
        """Build the inputs of consecutive rows; a block of the whole batch is not copied."""
        if self.batch is not None and len(image) == self.images:
            return self.batch
        return self.build(image, turn)

    def pairs(self, image: Tensor, turn: Tensor) -> Rows:
        """Return the rows (image[i], turn[i]) alone, as images with a single turn each."""
        return Rows(len(image), 1, self.shape, lambda i, _: self.build(image[i], turn[i]))


def wide(value: Tensor) -> Tensor:
    """Convert to float32 and keep float64: the types that all reductions of a map compute in."""
    return value if value.dtype in (torch.float32, torch.float64) else value.float()


def vanished(gradient: Tensor) -> Tensor:
    """Return (n,) whether a row's gradient is all zero, or contains a value that isn't finite."""
    highest = peak(gradient)
    return (highest == 0) | ~highest.isfinite()


def peak(values: Tensor) -> Tensor:
    """Return (n,) the largest magnitude of each row of values (n, ...); NaN where it holds one."""
    # Two passes in any layout; `isfinite` takes four, and flattening channels-last copies.
    return values.abs().amax(tuple(range(1, values.ndim)))
