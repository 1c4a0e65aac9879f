"""What a map says in a number, and what the maps of a class have in common.

    spread  = the smallest part of the model's view that holds half of the evidence, 0 to 1
    against = negative evidence / all evidence, 0 to 1
    mean map of a class = mean over its images of  map / max |map|,  in the model's view

A small spread is a map that points at something; 0.5 is a map that is the same everywhere.
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
_CELLS = 28  # of a mean map
_CLASSES = 500  # classes whose mean maps a page carries, the most frequent
_PIXELS = 112  # of a mean map's picture
_STOPS = 17  # colours that a key is made of


def spread(values: Array) -> float | None:
    """The part of the view that holds half of the positive evidence of a map (u, v), if any."""
    area = heatmap.smallest_area(_on_grid(values, _FINE), 0.5)
    return float(area.mean()) if area.any() else None


def against(values: Array) -> float:
    """The share of the evidence of a map (u, v) that is against the target."""
    total = float(np.abs(values).sum(dtype=np.float64))
    return float(-values.clip(max=0).sum(dtype=np.float64)) / total if total > 0 else 0.0


def scale_told(scale: Scale) -> dict[str, Any]:
    """A scale for a key: colours from first to last, and what its ends mean."""
    picked = lut(scale.colormap)[np.linspace(0, 255, _STOPS).astype(int)]
    colours = ["#" + "".join(f"{part:02x}" for part in colour) for colour in picked]
    return {"colours": colours, "ends": list(scale.ends)}


class Figures:
    """Sums the maps of each method and class, to be drawn as the overlays are."""

    def __init__(self, colormap: str | None = None) -> None:
        self._colormap = colormap
        self._scales: dict[str, Scale] = {}
        self._sums: dict[tuple[str, str], tuple[Array, int]] = {}
        self._counts: OrderedDict[str, int] = OrderedDict()

    def add(self, explanation: ImageExplanation) -> None:
        """Count an explanation in; a flat map counts, but is no part of a mean."""
        label = explanation.label
        self._counts[label] = self._counts.get(label, 0) + 1
        peak = float(np.abs(explanation.values).max(initial=0.0))
        if explanation.degenerate or not np.isfinite(peak) or peak <= 0:
            return
        scale = scale_of(explanation.placed, self._colormap)
        # One map against the target, and the method is drawn as one that knows such evidence.
        if scale.symmetric or explanation.method not in self._scales:
            self._scales[explanation.method] = scale
        key = explanation.method, label
        grid = _on_grid(explanation.values, _CELLS) / np.float32(peak)
        total, count = self._sums.get(key, (np.zeros_like(grid), 0))
        self._sums[key] = total + grid, count + 1

    def classes(self) -> list[dict[str, Any]]:
        """The classes, the most frequent first: label, explanations, mean maps by method."""
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
    import cv2

    finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    shrink = max(values.shape) > cells
    how = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    grid: Array = cv2.resize(finite, (cells, cells), interpolation=how).astype(np.float32)
    return grid


def _picture(scale: Scale, mean: Array) -> str:
    """A mean map (n, n) as a WebP data URI."""
    import cv2
    from PIL import Image

    scaled = mean / (float(np.abs(mean).max(initial=0.0)) or 1.0)
    large = cv2.resize(scaled, (_PIXELS, _PIXELS), interpolation=cv2.INTER_CUBIC)
    large = cv2.GaussianBlur(large, (0, 0), _PIXELS / 28).clip(-1, 1)
    file = io.BytesIO()
    Image.fromarray(coloured(large, scale)).save(file, "WEBP", quality=60, method=2)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
