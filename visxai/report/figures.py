"""Figures of a map, and the mean maps of the classes.

    spread  = the smallest part of the model's view that holds half of the evidence, 0 to 1
    against = negative evidence / all evidence, 0 to 1
    mean map of a class = mean over its images of  map / max |map|,  in the model's view

A small spread means that the evidence is concentrated; a map that is the same everywhere has 0.5.
"""

from __future__ import annotations

import base64
import io
from collections import OrderedDict
from typing import Any

import numpy as np

from visxai.drawing.colours import Scale, coloured, lut, scale_of
from visxai.images import heatmap
from visxai.images.heatmap import Array
from visxai.record.image import ImageExplanation

_FINE = 56  # cells a side at which maps are measured
_CELLS = 28  # cells a side of a mean map
_CLASSES = 500  # the most classes with mean maps on a page, the most frequent first
_PIXELS = 112  # pixels a side of a mean map's picture
_STOPS = 17  # colours of a key


def spread(values: Array) -> float | None:
    """Compute the part of the view, 0 to 1, that holds half of the positive evidence.

    Args:
        values: float32 (u, v).

    Returns:
        The part, None for a map without positive evidence.
    """
    area = heatmap.smallest_area(_on_grid(values, _FINE), 0.5)
    return float(area.mean()) if area.any() else None


def against(values: Array) -> float:
    """Compute the share, 0 to 1, of the evidence of a map (u, v) that is against the target."""
    total = float(np.abs(values).sum(dtype=np.float64))
    return float(-values.clip(max=0).sum(dtype=np.float64)) / total if total > 0 else 0.0


def scale_told(scale: Scale) -> dict[str, Any]:
    """Describe a colour scale for a key: its colours in order, and the meanings of its ends."""
    picked = lut(scale.colormap)[np.linspace(0, 255, _STOPS).astype(int)]
    colours = ["#" + "".join(f"{part:02x}" for part in colour) for colour in picked]
    return {"colours": colours, "ends": list(scale.ends)}


class Figures:
    """The running sums of the maps of each method and class, from which mean maps are drawn."""

    def __init__(self, colormap: str | None = None) -> None:
        self._colormap = colormap
        self._scales: dict[str, Scale] = {}
        self._sums: dict[tuple[str, str], tuple[Array, int]] = {}
        self._counts: OrderedDict[str, int] = OrderedDict()

    def add(self, explanation: ImageExplanation, method: str) -> None:
        """Add an explanation under its method's name; a flat map is no part of a mean."""
        label = explanation.label
        self._counts[label] = self._counts.get(label, 0) + 1
        peak = float(np.abs(explanation.values).max(initial=0.0))
        if explanation.degenerate or not np.isfinite(peak) or peak <= 0:
            return
        scale = scale_of(explanation.placed, self._colormap)
        # A single map with evidence against the target makes the method's scale symmetric.
        if scale.symmetric or method not in self._scales:
            self._scales[method] = scale
        key = method, label
        grid = _on_grid(explanation.values, _CELLS) / np.float32(peak)
        total, count = self._sums.get(key, (np.zeros_like(grid), 0))
        self._sums[key] = total + grid, count + 1

    def classes(self) -> list[dict[str, Any]]:
        """List the classes, the most frequent first.

        Returns:
            For each class its label, its count of explanations, and its mean map for each method
            (`means`) as a data URI.
        """
        order = sorted(self._counts, key=lambda label: -self._counts[label])
        found: dict[str, dict[str, Any]] = {
            label: {"label": label, "count": self._counts[label], "means": {}} for label in order
        }
        carried = set(order[:_CLASSES])
        for (method, label), (total, count) in self._sums.items():
            if label in carried:
                mean = total / np.float32(count)
                found[label]["means"][method] = _picture(self._scales[method], mean)
        return list(found.values())


def _on_grid(values: Array, cells: int) -> Array:
    """Resample a map (u, v) to a square grid of cells, with 0 for values that aren't finite."""
    import cv2

    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    shrink = max(values.shape) > cells
    how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    grid: Array = cv2.resize(finite, (cells, cells), interpolation=how).astype(np.float32)
    return grid


def _picture(scale: Scale, mean: Array) -> str:
    """Draw a mean map (n, n) as a WebP data URI."""
    import cv2
    from PIL import Image

    scaled = mean / (float(np.abs(mean).max(initial=0.0)) or 1.0)
    large = cv2.resize(scaled, (_PIXELS, _PIXELS), interpolation=cv2.INTER_CUBIC)
    large = cv2.GaussianBlur(large, (0, 0), _PIXELS / 28).clip(-1, 1)
    file = io.BytesIO()
    Image.fromarray(coloured(large, scale)).save(file, "WEBP", quality=60, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
