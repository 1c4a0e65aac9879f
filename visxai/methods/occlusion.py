"""Occlusion: how far the score falls when a window of the image is painted over.

    M_p = mean over windows w that cover pixel p of  ( y(x) - y(x with w painted) )

Windows of `window` pixels (or (height, width)) start every `stride` pixels; the last ones are cut
at the border, so that every pixel is covered. A window covers all channels at once. `baseline` is
the paint, in model space: a number, 'mean' (the image's mean colour) or 'blur'.

    visxai.Engine().explain("cat.jpg", method="occlusion(window=32, stride=16)")

The map is exact at pixel resolution (b, h, w): sums are kept on the coarse grid of windows and
spread once, by a product with the 0/1 coverage of rows and columns.

Cost: one forward, and one for each window: (ceil((h - window) / stride) + 1) times the same for w.
Source: Zeiler & Fergus, Visualizing and understanding convolutional networks, ECCV 2014.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._maps import baseline_like
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class Occlusion(Method):
    """Score drop by painted windows; see the module's docstring.

    Attributes:
        window: Side, or height and width, of a window in pixels.
        stride: Distance between windows in pixels, no larger than the window.
        baseline: The paint in model space: a number, 'mean', 'blur' or a tensor.
    """

    window: int | tuple[int, int] = 32
    stride: int | tuple[int, int] = 16
    baseline: float | str | Tensor = 0.0

    needs = Need.SCORES

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("window", "stride"):
            value = getattr(self, name)
            self._require(min(_pair(value)) > 0, f"{name} of at least 1 pixel", value)
        gaps = any(s > w for s, w in zip(_pair(self.stride), _pair(self.window), strict=True))
        self._require(
            not gaps,
            f"a stride no larger than window={self.window}, so none is skipped",
            self.stride,
        )

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = model.clean(x, target)
        down, across = (
            _coverage(size, *self._spans(size, axis)).to(x.device)
            for axis, size in enumerate(x.shape[2:])
        )
        columns = len(across)
        paint = baseline_like(x, self.baseline)
        paint = paint if paint.ndim == 4 and len(paint) == 1 else paint.expand_as(x)

        def painted(image: Tensor, turn: Tensor) -> Tensor:
            rows, columns_of = down[turn // columns], across[turn % columns]
            window = rows[:, None, :, None] & columns_of[:, None, None, :]
            # One image is broadcast, which costs a third less than a copy of it for each window.
            colours, seen = (t if len(t) == 1 else t[image] for t in (paint, x))
            return torch.where(window, colours, seen)

        turns = len(down) * columns
        painted_values = model.values(Rows(x.shape[0], turns, tuple(x.shape[1:]), painted), aim)
        drops = clean.unsqueeze(1) - painted_values
        grid = drops.reshape(-1, len(down), columns)
        down, across = down.to(grid), across.to(grid)
        counts = down.sum(0).unsqueeze(1) * across.sum(0)
        return Maps(down.T @ grid @ across / counts)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(1 + len(self._spans(x.shape[2], 0)[0]) * len(self._spans(x.shape[3], 1)[0]))

    def _spans(self, size: int, axis: int) -> tuple[list[int], list[int]]:
        """Compute the starts and lengths of the windows along an axis of `size` pixels."""
        window, stride = _pair(self.window)[axis], _pair(self.stride)[axis]
        count = max(0, math.ceil((size - window) / stride)) + 1
        starts = [index * stride for index in range(count)]
        return starts, [min(window, size - start) for start in starts]


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _coverage(size: int, starts: list[int], lengths: list[int]) -> Tensor:
    """Build a matrix (windows, size) of whether a window covers a pixel."""
    at = torch.arange(size)
    first = torch.tensor(starts).unsqueeze(1)
    return (at >= first) & (at < first + torch.tensor(lengths).unsqueeze(1))
