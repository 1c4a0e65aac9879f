"""Statistics of images: what input drift is tested on, beside scores and explanations.

The upright image is shrunk to at most 256 pixels a side; with luminance Y from 0 to 1:

    brightness, contrast     mean and standard deviation of Y
    red, green, blue         means of the channels
    saturation               mean of  max - min  over the channels
    sharpness                mean |Laplacian of Y|
    noise                    median |Y - median of its 3 x 3 neighbourhood|
    luma_rc                  mean of Y in row r and column c of a 3 x 3 grid
    aspect                   log(width / height)

Cost: decoding, some 2 to 20 ms an image.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 256
_GRID = 3

NAMES = (
    *("brightness", "contrast", "red", "green", "blue", "saturation", "sharpness", "noise"),
    *(f"luma_{row}{column}" for row in range(_GRID) for column in range(_GRID)),
    "aspect",
)


def measure_image(image: Image | NDArray[Any]) -> dict[str, float]:
    """Measure an image.

    Args:
        image: A PIL image, or uint8 (height, width, 3).

    Returns:
        The statistics by name.
    """
    import cv2
    from PIL import Image as pillow

    opened = pillow.fromarray(image) if isinstance(image, np.ndarray) else image
    width, height = opened.size
    small = opened.convert("RGB")
    small.thumbnail((_SIDE, _SIDE))
    pixels = np.asarray(small, np.float32) / 255
    luma = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    # By area, as an image may have fewer pixels a side than the grid has cells.
    grid = cv2.resize(
        cv2.resize(luma, None, fx=_GRID, fy=_GRID, interpolation=cv2.INTER_NEAREST),
        (_GRID, _GRID),
        interpolation=cv2.INTER_AREA,
    )
    cells = {
        f"luma_{row}{column}": float(grid[row, column])
        for row in range(_GRID)
        for column in range(_GRID)
    }
    red, green, blue = (float(value) for value in pixels.mean((0, 1)))
    return {
        "brightness": float(luma.mean()),
        "contrast": float(luma.std()),
        "red": red,
        "green": green,
        "blue": blue,
        "saturation": float((pixels.max(-1) - pixels.min(-1)).mean()),
        "sharpness": float(np.abs(cv2.Laplacian(luma, cv2.CV_32F)).mean()),
        "noise": float(np.median(np.abs(luma - cv2.medianBlur(luma, 3)))),
        **cells,
        "aspect": math.log(width / height),
    }
