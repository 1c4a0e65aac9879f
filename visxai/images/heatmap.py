"""Where the evidence lies: placing a native map on the original image, and cutting it into regions.

Plain numpy arrays in, plain numbers out; coordinates are pixels of the upright original image,
x to the right, y down, boxes as (left, top, right, bottom) with right and bottom exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# Regions and masks are found on a grid of at most this many pixels a side: a map of at most
# 224 cells gains nothing from being labelled at 12 megapixels.
_WORKING_SIDE = 512


@dataclass(frozen=True)
class Region:
    """A connected area of strong evidence.

    `box` (left, top, right, bottom) and `polygon` ((x, y), ...) are in pixels of the upright
    original; `share` is its part of all positive evidence, 0 to 1.
    """

    box: tuple[int, int, int, int]
    share: float
    polygon: tuple[tuple[int, int], ...] = field(default=(), repr=False)  # hundreds of points

    def to_dict(self) -> dict[str, Any]:
        return {
            "box": list(self.box),
            "share": self.share,
            "polygon": [list(point) for point in self.polygon],
        }


def resample(values: Array, ys: Array, xs: Array) -> Array:
    """Bilinear samples of `values` (u, v) at rows `ys` and columns `xs`, edges repeated.

    Coordinates count cells from the first cell's centre, the convention of
    `interpolate(mode="bilinear", align_corners=False)`. Returns (len(ys), len(xs)).
    """

    def along(size: int, at: Array) -> tuple[NDArray[np.intp], NDArray[np.intp], Array]:
        clipped = np.clip(at, 0, size - 1)
        low = np.floor(clipped).astype(np.intp)
        return low, np.minimum(low + 1, size - 1), (clipped - low).astype(np.float32)

    top, bottom, fy = along(values.shape[0], ys)
    left, right, fx = along(values.shape[1], xs)
    rows = values[top] * (1 - fy)[:, None] + values[bottom] * fy[:, None]
    return (rows[:, left] * (1 - fx) + rows[:, right] * fx).astype(np.float32, copy=False)


def smallest_area(heatmap: Array, share: float) -> NDArray[np.bool_]:
    """The fewest pixels of `heatmap` (H, W) that hold `share` (0 to 1) of its positive evidence.

    NaN (unseen) and negative pixels never belong to it; a map without positive evidence gives
    an empty mask.
    """
    positive = np.nan_to_num(heatmap, nan=0.0).clip(min=0)
    flat = positive.ravel()
    total = float(flat.sum(dtype=np.float64))
    if total <= 0 or share <= 0:
        return np.zeros(heatmap.shape, dtype=np.bool_)
    order = np.argsort(-flat, kind="stable")
    held = np.cumsum(flat[order], dtype=np.float64)
    count = int(np.searchsorted(held, min(share, 1.0) * total * (1 - 1e-9))) + 1
    mask = np.zeros(flat.size, dtype=np.bool_)
    mask[order[:count]] = True
    return mask.reshape(heatmap.shape)


def regions(heatmap: Array, top: int, share: float) -> tuple[Region, ...]:
    """The `top` connected parts of the smallest area that holds `share`, strongest first."""
    import cv2

    positive = np.nan_to_num(heatmap, nan=0.0).clip(min=0)
    total = float(positive.sum(dtype=np.float64))
    mask = smallest_area(heatmap, share)
    if not mask.any():
        return ()
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), None, 8)
    held = np.bincount(labels.ravel(), weights=positive.ravel(), minlength=count)
    held[0] = -1.0  # the background
    found = []
    for label in np.argsort(-held, kind="stable")[: min(top, count - 1)]:
        x, y, w, h = (int(value) for value in stats[label][:4])
        part = (labels[y : y + h, x : x + w] == label).astype(np.uint8)
        outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        outline = max(outlines, key=cv2.contourArea).reshape(-1, 2)
        polygon = tuple((int(px) + x, int(py) + y) for px, py in outline)
        found.append(Region((x, y, x + w, y + h), float(held[label]) / total, polygon))
    return tuple(found)


def working_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) shrunk so that the longer side is at most 512, and at least 1 each."""
    factor = min(1.0, _WORKING_SIDE / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def scaled(region: Region, fx: float, fy: float, width: int, height: int) -> Region:
    """`region` with coordinates multiplied by (fx, fy) and kept inside width and height."""
    left, top, right, bottom = region.box
    box = (
        min(width - 1, int(left * fx)),
        min(height - 1, int(top * fy)),
        min(width, max(1, round(right * fx))),
        min(height, max(1, round(bottom * fy))),
    )
    polygon = tuple(
        (min(width - 1, round((x + 0.5) * fx - 0.5)), min(height - 1, round((y + 0.5) * fy - 0.5)))
        for x, y in region.polygon
    )
    return Region(box, region.share, polygon)
