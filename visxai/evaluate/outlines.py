"""Outlines of objects, as COCO's files hold them: polygons, or runs of pixels.

Both answer one question: which points of a raster lie inside? So an outline is never drawn at the
photograph's size, and a pixel of the model's view counts when its centre is in the object.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.floating[Any]]
Inside = NDArray[np.bool_]


@dataclass(frozen=True)
class Polygons:
    """The union of polygons, each x0, y0, x1, y1, ... in pixels; a polygon that crosses itself
    holds what an odd number of its sides separate from far away."""

    parts: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, parts: Any) -> Polygons:
        """From COCO's lists; ValueError for what are no polygons."""
        made = tuple(tuple(float(value) for value in part) for part in parts)
        if any(len(part) < 6 or len(part) % 2 for part in made):
            raise ValueError
        if not all(math.isfinite(value) for part in made for value in part):
            raise ValueError
        return cls(made)

    def holds(self, xs: Points, ys: Points) -> Inside:
        """(h, w): whether the points of columns xs (w,) and rows ys (h,), ascending, are inside."""
        found = np.zeros((len(ys), len(xs)), dtype=bool)
        for part in self.parts:
            corners = np.array(part).reshape(-1, 2)
            x0, y0 = corners.T
            x1, y1 = np.roll(corners, -1, axis=0).T
            # Each row is crossed by some sides; right of an odd number of them it is inside.
            row, side = np.nonzero((y0 <= ys[:, None]) != (y1 <= ys[:, None]))
            slope = (x1 - x0)[side] / (y1 - y0)[side]
            column = np.searchsorted(xs, x0[side] + (ys[row] - y0[side]) * slope)
            crossed = np.zeros((len(ys), len(xs) + 1), dtype=np.int64)
            np.add.at(crossed, (row, column), 1)
            found |= crossed.cumsum(1)[:, :-1] % 2 == 1
        return found


@dataclass(frozen=True)
class Runs:
    """Runs of pixels outside and inside in turn, down the columns of a (height, width) raster."""

    size: tuple[int, int]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, size: Any, counts: Any) -> Runs:
        """From COCO's run-length encoding, its counts as a list or packed into a string;
        ValueError where they don't fill the size."""
        height, width = (int(side) for side in size)
        made = unpacked(counts) if isinstance(counts, str) else [int(count) for count in counts]
        if min(height, width, *made) < 0 or sum(made) != height * width or height * width > 2**40:
            raise ValueError
        return cls((height, width), tuple(made))

    def holds(self, xs: Points, ys: Points) -> Inside:
        """(h, w): whether the points of columns xs (w,) and rows ys (h,) are inside."""
        height, width = self.size
        columns, rows = (np.floor(points).astype(np.int64) for points in (xs, ys))
        there = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
        run = np.searchsorted(
            np.cumsum(self.counts, dtype=np.int64), columns * height + rows[:, None], side="right"
        )
        inside: Inside = there & (run % 2 == 1)
        return inside


def unpacked(text: str) -> list[int]:
    """The counts in COCO's packed string: 5 bits a character from the lowest on, one that says
    whether more follow, the last one's highest the sign; from the fourth on the difference from
    the count before the last."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 60:
            raise ValueError
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("unfinished")
    return counts
