"""Colours of a map: the colour scales, and the conversion of values to pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from visxai.errors import UnknownName
from visxai.images.heatmap import Array, PlacedMap

Pixels = NDArray[np.uint8]  # (height, width, 3), RGB
Colormap = Literal["viridis", "plasma", "cividis", "inferno", "magma", "turbo", "jet", "diverging"]

COLORMAPS: tuple[str, ...] = get_args(Colormap)
# More evidence is lighter in it for every kind of colour vision, unlike in turbo and jet, and few
# photographs have its greens.
DEFAULT = "viridis"

_DIVERGING = ((24, 60, 190), (96, 155, 240), (246, 244, 240), (244, 128, 96), (190, 14, 38))


@dataclass(frozen=True)
class Scale:
    """The colour scale of maps.

    Attributes:
        colormap: The name of the colour map.
        symmetric: Whether zero lies in the middle of the scale, not at its lower end.
    """

    colormap: str
    symmetric: bool

    @property
    def ends(self) -> tuple[str, str]:
        """The meaning of the first and the last colour, in words."""
        return ("against", "for") if self.symmetric else ("little", "much evidence")


def lut(colormap: str) -> Pixels:
    """Return the 256 colours of a colour map, uint8 RGB (256, 3).

    Raises:
        UnknownName: There is no such colour map.
    """
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
    """Choose the colour scale of a map by its method, so that all maps of a method look alike.

    Args:
        placed: The map.
        colormap: The colour map; None takes "viridis", or "diverging" for a symmetric scale.
    """
    symmetric = placed.two_sided or placed.signed or colormap == "diverging"
    return Scale(colormap or ("diverging" if symmetric else DEFAULT), symmetric)


def coloured(field: Array, scale: Scale) -> Pixels:
    """Colour the values of a map.

    Args:
        field: float32 (h, w), -1 to 1 for a symmetric scale, else 0 to 1.
        scale: The colour scale.

    Returns:
        uint8 RGB (h, w, 3).
    """
    index = (field + 1) * 127.5 if scale.symmetric else field.clip(min=0) * 255
    levels = np.rint(index).astype(np.uint8)
    table = np.ascontiguousarray(lut(scale.colormap)).reshape(256, 1, 3)
    tints: Pixels = cv2.applyColorMap(levels, table)  # which keeps the order of the channels
    return tints
