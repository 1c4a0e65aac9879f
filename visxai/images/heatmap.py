"""Heatmaps: places a native map on the original image and cuts it into regions.

Inputs and results are NumPy arrays and plain numbers. Coordinates are pixels of the upright
original image, x to the right and y down; boxes are (left, top, right, bottom) with right and
bottom exclusive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError
from visxai.references import Transform

Array = NDArray[np.float32]

# EXIF orientations as (transpose first, flip rows, flip columns), from stored to upright pixels.
_ORIENTATIONS = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

# Regions and masks are computed on a grid of at most this many pixels a side: a map of at most 224
# cells a side gains nothing from a grid of 12 megapixels.
_WORKING_SIDE = 512


@dataclass(frozen=True)
class Region:
    """A connected area of strong evidence.

    Attributes:
        box: (left, top, right, bottom) in pixels of the upright original, ends exclusive.
        share: The region's part of all positive evidence, 0 to 1.
        polygon: The outline ((x, y), ...) in pixels of the upright original.
    """

    box: tuple[int, int, int, int]
    share: float
    polygon: tuple[tuple[int, int], ...] = field(default=(), repr=False)  # hundreds of points

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON."""
        return {
            "box": list(self.box),
            "share": self.share,
            "polygon": [list(point) for point in self.polygon],
        }


def resample(values: Array, ys: Array, xs: Array) -> Array:
    """Sample values bilinearly, with edges repeated.

    Args:
        values: float32 (u, v).
        ys: The rows of the samples, in cells from the first cell's centre, the convention of
            `interpolate(mode="bilinear", align_corners=False)`.
        xs: The columns of the samples, likewise.

    Returns:
        float32 (len(ys), len(xs)).
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
    """Find the fewest pixels that hold a share of the positive evidence.

    Args:
        heatmap: float32 (H, W). NaN (unseen) and negative pixels never belong to the area.
        share: The share of the positive evidence, 0 to 1.

    Returns:
        bool (H, W); all False for a map without positive evidence.
    """
    positive = np.nan_to_num(heatmap, nan=0.0).clip(min=0)
    flat = positive.ravel()
    total = float(flat.sum(dtype=np.float64))
    if total <= 0 or share <= 0:
        return np.zeros(heatmap.shape, dtype=np.bool_)
    # Most of a map is often zero, and sorting is what this function takes.
    seen = np.flatnonzero(flat)
    order = seen[np.argsort(-flat[seen], kind="stable")]
    held = np.cumsum(flat[order], dtype=np.float64)
    count = int(np.searchsorted(held, min(share, 1.0) * total * (1 - 1e-9))) + 1
    mask = np.zeros(flat.size, dtype=np.bool_)
    mask[order[:count]] = True
    return mask.reshape(heatmap.shape)


def regions(heatmap: Array, top: int, share: float) -> tuple[Region, ...]:
    """Find the strongest connected parts of the smallest area that holds `share` of the evidence.

    Args:
        heatmap: float32 (H, W).
        top: The most regions.
        share: The share of the positive evidence that the area holds, 0 to 1.

    Returns:
        The regions, strongest first, in pixels of `heatmap`.
    """
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


def working_size(width: int, height: int, side: int = _WORKING_SIDE) -> tuple[int, int]:
    """Shrink (width, height) to at most `side` on the longer side and at least 1 on each."""
    factor = min(1.0, side / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def scaled(region: Region, fx: float, fy: float, width: int, height: int) -> Region:
    """Multiply a region's coordinates by (fx, fy) and keep them inside width and height."""
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


@dataclass(frozen=True, eq=False)
class PlacedMap:
    """A method's native map and its place on the upright original.

    Attributes:
        values: float32 (u, v), unscaled.
        width: Width of the upright original, in pixels.
        height: Height of the upright original, in pixels.
        transform: How the upright original became the model's input.
        two_sided: Whether the method's maps can hold evidence against the target.
        degenerate: Whether the map holds no information: it is flat, or was not finite.
    """

    values: Array
    width: int
    height: int
    transform: Transform
    two_sided: bool = True
    degenerate: bool = False

    @property
    def signed(self) -> bool:
        """Whether this map holds evidence against the target."""
        return bool((self.values < 0).any())

    def on_original(self, size: tuple[int, int] | None = None, *, stored: bool = False) -> Array:
        """Place the map on the original's pixels, bilinearly between the native cells' centres.

        Args:
            size: (width, height) of the grid that samples the original's area, by default the
                upright original's own pixels.
            stored: Whether to return the pixels as the file stores them, before EXIF rotation.

        Returns:
            float32 (height, width), NaN outside the model's view.
        """
        width, height = size or (self.width, self.height)
        xs, ys = self._view(width, height)
        crop_w, crop_h = self.transform.crop[2:]
        rows, columns = self.values.shape
        out = resample(
            self.values,
            (ys * (rows / crop_h) - 0.5).astype(np.float32),
            (xs * (columns / crop_w) - 0.5).astype(np.float32),
        )
        out[(ys < 0) | (ys > crop_h), :] = np.nan
        out[:, (xs < 0) | (xs > crop_w)] = np.nan
        if not stored:
            return out
        transpose, rows_flip, columns_flip = _ORIENTATIONS[self.transform.orientation]
        if rows_flip:
            out = out[::-1]
        if columns_flip:
            out = out[:, ::-1]
        return np.ascontiguousarray(out.T if transpose else out)

    def seen(self, size: tuple[int, int] | None = None) -> tuple[int, int, int, int]:
        """Find the box (left, top, right, bottom) of the model's view, ends exclusive.

        Args:
            size: (width, height) of the grid whose pixels the box is in, as for `on_original`.
        """
        xs, ys = self._view(*(size or (self.width, self.height)))
        crop_w, crop_h = self.transform.crop[2:]
        columns = np.flatnonzero((xs >= 0) & (xs <= crop_w))
        rows = np.flatnonzero((ys >= 0) & (ys <= crop_h))
        if not columns.size or not rows.size:
            return 0, 0, 0, 0
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

    def regions(
        self, top: int = 3, share: float = 0.5, *, side: int = _WORKING_SIDE
    ) -> tuple[Region, ...]:
        """Find the connected areas of strongest evidence.

        They are the parts of the smallest area that holds `share` of the positive evidence.

        Args:
            top: The most regions.
            share: Above 0, at most 1.
            side: The most cells a side of the grid on which they are found.

        Returns:
            The regions, strongest first, in pixels of the upright original.

        Raises:
            ArgumentError: `top` or `share` is out of range.
        """
        _check_share(share)
        if top < 1:
            raise ArgumentError(f"expected at least 1 region, got top={top}: try top=3")
        width, height = working_size(self.width, self.height, side)
        found = regions(self.on_original((width, height)), top, share)
        fx, fy = self.width / width, self.height / height
        return tuple(scaled(region, fx, fy, self.width, self.height) for region in found)

    def mask(self, share: float = 0.5) -> NDArray[np.bool_]:
        """Find the smallest area that holds a share of the positive evidence.

        Args:
            share: Above 0, at most 1.

        Returns:
            bool (height, width) of the upright original.

        Raises:
            ArgumentError: `share` is out of range.
        """
        _check_share(share)
        width, height = working_size(self.width, self.height)
        small = smallest_area(self.on_original((width, height)), share)
        if (width, height) == (self.width, self.height):
            return small
        rows = (np.arange(self.height) * height) // self.height
        columns = (np.arange(self.width) * width) // self.width
        return small[np.ix_(rows, columns)]

    def _view(self, width: int, height: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Compute the centres of the columns and rows of a width x height grid over the original.

        They are in pixels of the model's view, which spans 0 to the crop's width and height.
        """
        resized, crop = self.transform.resized, self.transform.crop
        xs = (np.arange(width) + 0.5) * (resized[0] / width) - crop[0]
        ys = (np.arange(height) + 0.5) * (resized[1] / height) - crop[1]
        return xs, ys


def _check_share(share: float) -> None:
    if not 0 < share <= 1:
        raise ArgumentError(f"expected a share between 0 and 1, got {share}: try share=0.5")
