"""Several maps in one picture, a colour each, and the legend that names them.

The colours are those of Okabe and Ito, which every kind of colour vision tells apart. A pixel has
the colour of the map that is strongest there, as opaque as that map is strong, so that colours
never mix into others.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image

from visxai.drawing import lettering
from visxai.drawing.colours import Pixels
from visxai.images.heatmap import PlacedMap, working_size

PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_INK, _PAPER = (24, 24, 27), (252, 252, 251)
_SIZE, _SWATCH, _MARGIN = 15, 14, 20


def overlay(
    maps: Sequence[PlacedMap],
    peaks: Sequence[float],
    image: Image.Image,
    strength: float = 0.8,
) -> Image.Image:
    """Draw maps over a photograph, each in its own colour.

    Args:
        maps: At most 7 maps without negative values, in the order of `PALETTE`.
        peaks: What counts as the full strength of each map.
        image: The upright photograph, at any size.
        strength: The opacity of a map at its peak, 0 to 1.

    Returns:
        RGB, at the size of `image`.
    """
    size = working_size(*image.size)
    fields = np.stack(
        [
            np.nan_to_num(one.on_original(size)).clip(min=0) / max(peak, 1e-12)
            for one, peak in zip(maps, peaks, strict=True)
        ]
    )
    winner = fields.argmax(0)
    opacity = (fields.max(0).clip(max=1) * strength).astype(np.float32)
    tints = np.array(PALETTE, np.float32)[winner]
    # Colour and opacity are enlarged together, so that no edge gets a fringe of another colour.
    whole = cv2.resize(
        np.dstack([tints * opacity[..., None], opacity]), image.size, interpolation=cv2.INTER_LINEAR
    )
    pixels = np.asarray(image.convert("RGB"), np.float32)
    mixed = pixels * (1 - whole[..., 3:]) + whole[..., :3]
    return Image.fromarray(np.rint(mixed).clip(0, 255).astype(np.uint8))


def with_legend(picture: Image.Image, names: Sequence[str]) -> Image.Image:
    """Write the name of each colour below a picture.

    Args:
        picture: The picture.
        names: The names, in the order of `PALETTE`.
    """
    line = lettering.line_height(_SIZE) + 4
    widest = max((lettering.ink(name, _SIZE).shape[1] for name in names), default=0)
    room = max(picture.width, 2 * _MARGIN + _SWATCH + 8 + widest)
    columns = max(1, (room - _MARGIN) // (_SWATCH + 8 + widest + _MARGIN))
    rows = -(-len(names) // columns)
    canvas: Pixels = np.full(
        (picture.height + rows * line + 2 * _MARGIN, room, 3), _PAPER, np.uint8
    )
    canvas[: picture.height, : picture.width] = np.asarray(picture.convert("RGB"))
    for number, name in enumerate(names):
        left = _MARGIN + number % columns * (_SWATCH + 8 + widest + _MARGIN)
        top = picture.height + _MARGIN + number // columns * line
        middle = top + (lettering.line_height(_SIZE) - _SWATCH) // 2
        canvas[middle : middle + _SWATCH, left : left + _SWATCH] = PALETTE[number]
        lettering.write(canvas, name, left + _SWATCH + 8, top, _SIZE, _INK)
    return Image.fromarray(canvas)


def framed(picture: Image.Image, number: int, width: int = 5) -> Image.Image:
    """Draw a frame in the colour of a map around a picture; a map without a colour gets none."""
    if number >= len(PALETTE):
        return picture
    pixels = np.array(picture.convert("RGB"))
    edge = min(width, *(side // 2 for side in picture.size))
    for band in (
        pixels[:edge],
        pixels[-edge:] if edge else pixels[:0],
        pixels[:, :edge],
        pixels[:, -edge:] if edge else pixels[:, :0],
    ):
        band[:] = PALETTE[number]
    return Image.fromarray(pixels)
