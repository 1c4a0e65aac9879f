"""Outlines of objects, as COCO's files store them: polygons, or runs of pixels.

Both classes test which points of a raster lie inside. So an outline is never drawn at the
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
    """The union of polygons.

    The inside of a polygon that crosses itself follows the even-odd rule.

    Attributes:
        parts: The corners x0, y0, x1, y1, ... of each polygon, in pixels.
    """

    parts: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, parts: Any) -> Polygons:
        """Build polygons from COCO's lists; raise ValueError for anything else."""
        made = tuple(tuple(float(value) for value in part) for part in parts)
        if any(len(part) < 6 or len(part) % 2 for part in made):
            raise ValueError
        if not all(math.isfinite(value) for part in made for value in part):
            raise ValueError
        return cls(made)

    def holds(self, xs: Points, ys: Points) -> Inside:
        """Test which points of a raster are inside.

        Args:
            xs: The columns of the points (w,), ascending, in pixels.
            ys: The rows of the points (h,), in pixels.

        Returns:
            A mask (h, w).
        """
        found = np.zeros((len(ys), len(xs)), dtype=bool)
        for part in self.parts:
            corners = np.array(part).reshape(-1, 2)
            x0, y0 = corners.T
            x1, y1 = np.roll(corners, -1, axis=0).T
            # A point is inside if the number of sides that cross its row to the left of it is odd.
            row, side = np.nonzero((y0 <= ys[:, None]) != (y1 <= ys[:, None]))
            slope = (x1 - x0)[side] / (y1 - y0)[side]
            column = np.searchsorted(xs, x0[side] + (ys[row] - y0[side]) * slope)
            crossed = np.zeros((len(ys), len(xs) + 1), dtype=np.int64)
            np.add.at(crossed, (row, column), 1)
            found |= crossed.cumsum(1)[:, :-1] % 2 == 1
        return found


@dataclass(frozen=True)
class Runs:
    """Runs of pixels, alternately outside and inside, down the columns of a raster.

    Attributes:
        size: Height and width of the raster in pixels.
        counts: The length of each run, the first one outside.
    """

    size: tuple[int, int]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, size: Any, counts: Any) -> Runs:
        """Build runs from COCO's run-length encoding.

        Args:
            size: Height and width in pixels.
            counts: The lengths of the runs, as a list or packed into a string.

        Raises:
            ValueError: The runs don't fill the size.
        """
        height, width = (int(side) for side in size)
        made = unpacked(counts) if isinstance(counts, str) else [int(count) for count in counts]
        if min(height, width, *made) < 0 or sum(made) != height * width or height * width > 2**40:
            raise ValueError
        return cls((height, width), tuple(made))

    def holds(self, xs: Points, ys: Points) -> Inside:
        """Test which points of a raster are inside.

        Args:
            xs: The columns of the points (w,), in pixels.
            ys: The rows of the points (h,), in pixels.

        Returns:
            A mask (h, w).
        """
        height, width = self.size
        columns, rows = (np.floor(points).astype(np.int64) for points in (xs, ys))
        there = ((rows >= 0) & (rows < height))[:, None] & (columns >= 0) & (columns < width)
        run = np.searchsorted(
            np.cumsum(self.counts, dtype=np.int64), columns * height + rows[:, None], side="right"
        )
        inside: Inside = there & (run % 2 == 1)
        return inside


def unpacked(text: str) -> list[int]:
    """Decode COCO's packed string of counts.

    Each character holds 5 bits, the lowest first, and a flag that says whether more follow; the
    highest bit of the last character is the sign. From the fourth count on, the number is the
    difference from the count before the last.

    Raises:
        ValueError: The string is no such encoding.
    """
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
