"""Colours of a map: the scales and how values become pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from visxai.errors import UnknownName
from visxai.images.heatmap import Array, PlacedMap

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB
Colormap = Literal["turbo", "jet", "viridis", "inferno", "diverging"]

COLORMAPS: tuple[str, ...] = get_args(Colormap)

_DIVERGING = ((24, 60, 190), (96, 155, 240), (246, 244, 240), (244, 128, 96), (190, 14, 38))


@dataclass(frozen=True)
class Scale:
    """The colours of maps and what they mean: symmetric ones have zero in their middle."""

    colormap: str
    symmetric: bool

    @property
    def ends(self) -> tuple[str, str]:
        """What the first and the last colour stand for, in words."""
        return ("against", "for") if self.symmetric else ("little", "much evidence")


def lut(colormap: str) -> Pixels:
    """The 256 colours of a map, uint8 RGB (256, 3)."""
    if colormap not in COLORMAPS:
        raise UnknownName("colormap", colormap, COLORMAPS)
    if colormap == "diverging":
        stops = np.array(_DIVERGING, np.float32)
        at = np.linspace(0, len(stops) - 1, 256)
        ramps = [np.interp(at, range(len(stops)), stops[:, channel]) for channel in range(3)]
        return np.rint(np.stack(ramps, axis=1)).astype(np.uint8)
    code = getattr(cv2, f"COLORMAP_{colormap.upper()}")
    table: Pixels = cv2.applyColorMap(np.arange(256, dtype=np.uint8), code).reshape(256, 3)
    return np.ascontiguousarray(table[:, ::-1])


def scale_of(placed: PlacedMap, colormap: str | None = None) -> Scale:
    """Choose the colours of a map: by its method, so that all maps of a method are drawn alike."""
    symmetric = placed.two_sided or placed.signed or colormap == "diverging"
    return Scale(colormap or ("diverging" if symmetric else "turbo"), symmetric)


def coloured(field: Array, scale: Scale) -> Pixels:
    """A field (h, w) of -1 to 1, or of 0 to 1, in colours: uint8 RGB (h, w, 3)."""
    index = (field + 1) * 127.5 if scale.symmetric else field.clip(min=0) * 255
    tints: Pixels = lut(scale.colormap)[np.rint(index).astype(np.uint8)]
    return tints
