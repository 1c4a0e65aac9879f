"""Pages of pictures: a captioned panel of one map, and a contact sheet of many pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
from PIL import Image

from visxai.drawing import colours, lettering, overlays
from visxai.drawing.colours import Pixels, Scale
from visxai.errors import ArgumentError
from visxai.images.heatmap import PlacedMap
from visxai.references import Caption

_PAPER, _INK, _QUIET = (252, 252, 251), (24, 24, 27), (113, 113, 122)
_MARGIN = 20
_BAR, _KEY, _KEY_BAR = 10, 13, 110  # pixels: a colour bar's height, a key's text, its bar's width


def panel(
    placed: PlacedMap,
    image: Image.Image,
    caption: Caption,
    *,
    bare: bool = True,
    side: int = 640,
    **style: Any,
) -> Image.Image:
    """Draw photograph, overlay and map side by side, over a caption.

    The caption shows the label, its score, the method, the model and the file, and explains the
    colours.

    Args:
        placed: The map.
        image: The upright photograph, as for `overlay`.
        caption: The caption.
        bare: Whether to draw the map alone as a third picture.
        side: The longest side of each picture, in pixels.
        **style: The keyword arguments of `overlay`.
    """
    photo = _fitted(image.convert("RGB"), side, side, smallest=side // 2)
    cells = [("Photograph", photo), ("Evidence", overlays.overlay(placed, photo, **style))]
    if bare:
        blank = Image.new("RGB", photo.size, (128, 128, 128))
        plain = overlays.overlay(placed, blank, colormap=style.get("colormap"), alpha=1.0)
        cells.append(("Map", plain))
    heading, title, small = 13, 24, 15
    # A very narrow photograph still needs room for a readable caption.
    column = max(photo.width, 640 // len(cells))
    width = _MARGIN + len(cells) * (column + _MARGIN)
    top = _MARGIN + lettering.line_height(heading) + 4
    foot = top + photo.height + _MARGIN
    lines = lettering.line_height(title) + 4 + 2 * lettering.line_height(small)
    canvas = _page(width, foot + lines + _MARGIN)
    for number, (name, cell) in enumerate(cells):
        left = _MARGIN + number * (column + _MARGIN)
        lettering.write(canvas, name, left, _MARGIN, heading, _QUIET)
        _paste(canvas, cell, left, top)
    bar = min(220, width // 3)
    room = width - 3 * _MARGIN - bar
    score = f"{caption.score:.3f}"
    spare = room - lettering.ink(score, title).shape[1] - 12
    end = lettering.write(canvas, caption.label, _MARGIN, foot, title, _INK, bold=True, width=spare)
    lettering.write(canvas, score, end + 12, foot, title, _QUIET)
    second = foot + lettering.line_height(title) + 4
    lettering.write(canvas, caption.method, _MARGIN, second, small, _INK, width=room)
    below = second + lettering.line_height(small)
    lettering.write(canvas, caption.source, _MARGIN, below, small, _QUIET, width=room)
    scale = colours.scale_of(placed, style.get("colormap"))
    left, under = width - _MARGIN - bar, foot + 9 + _BAR + 4
    _bar(canvas, scale, left, foot + 9, bar)
    lettering.write(canvas, scale.ends[0], left, under, heading, _QUIET)
    last = lettering.ink(scale.ends[1], heading)
    lettering.stamp(canvas, last, width - _MARGIN - last.shape[1], under, _QUIET)
    return Image.fromarray(canvas)


def sheet(
    cells: Sequence[Sequence[Image.Image]],
    columns: Sequence[str],
    rows: Sequence[str],
    cell: int = 224,
    scales: Iterable[Scale] = (),
) -> Image.Image:
    """Draw a contact sheet of pictures in rows and columns with names.

    Args:
        cells: The pictures, row by row.
        columns: The names of the columns.
        rows: The names of the rows; the text after a line break is drawn smaller below.
        cell: The side in pixels of the square that each picture is fitted into.
        scales: The colour scales of the overlays (`colours.scale_of`); each is explained once,
            below the pictures.

    Raises:
        ArgumentError: The pictures don't match the names of rows and columns.
    """
    if len(cells) != len(rows) or any(len(row) != len(columns) for row in cells):
        raise ArgumentError(
            f"expected {len(rows)} rows of {len(columns)} pictures, got rows of "
            f"{[len(row) for row in cells]}: give each row and column one name"
        )
    gap, size = 10, 15
    line = lettering.line_height(size)
    fitted = [[_fitted(picture.convert("RGB"), cell, cell) for picture in row] for row in cells]
    names = [_lines(name, size, 2 * cell) for name in rows]
    # A row of landscape pictures is lower than the square cell.
    heights = [
        max([sum(len(ink) for ink, _ in told), *(picture.height for picture in row)])
        for told, row in zip(names, fitted, strict=True)
    ]
    named = max((ink.shape[1] for told in names for ink, _ in told), default=0)
    first = _MARGIN + (named + _MARGIN if named else 0)
    y = _MARGIN + (line + gap // 2 if any(columns) else 0)
    keys = list(dict.fromkeys(scales))
    foot = y + sum(heights) + len(rows) * gap - gap + _MARGIN
    canvas = _page(
        max(1, first + len(columns) * (cell + gap) - gap + _MARGIN, _keys_width(keys)),
        max(1, foot + (line + _MARGIN if keys else 0)),
    )
    for j, name in enumerate(columns):
        lettering.write(
            canvas, name, first + j * (cell + gap), _MARGIN, size, _INK, bold=True, width=cell
        )
    for told, row, height in zip(names, fitted, heights, strict=True):
        top = y + (height - sum(len(ink) for ink, _ in told)) // 2
        for ink, colour in told:
            lettering.stamp(canvas, ink, _MARGIN, top, colour)
            top += len(ink)
        for j, picture in enumerate(row):
            x = first + j * (cell + gap) + (cell - picture.width) // 2
            _paste(canvas, picture, x, y + (height - picture.height) // 2)
        y += height + gap
    _keys(canvas, keys, foot)
    return Image.fromarray(canvas)


def captioned(image: Image.Image, text: str, side: int) -> Image.Image:
    """Draw a picture in a square of `side` pixels over one line of text, shortened to fit."""
    picture = _fitted(image.convert("RGB"), side, side)
    canvas = _page(side, side + lettering.line_height(_KEY) + 4)
    _paste(canvas, picture, (side - picture.width) // 2, (side - picture.height) // 2)
    if text:
        lettering.write(canvas, text, 0, side + 4, _KEY, _INK, width=side)
    return Image.fromarray(canvas)


def _fitted(image: Image.Image, width: int, height: int, smallest: int = 0) -> Image.Image:
    """Shrink an image into the box, or enlarge it until its longer side has `smallest` pixels."""
    factor = min(width / image.width, height / image.height, 1.0)
    factor = max(factor, smallest / max(image.size)) if factor == 1.0 else factor
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    if size == image.size:
        return image
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return Image.fromarray(cv2.resize(np.asarray(image), size, interpolation=how))


def _page(width: int, height: int) -> Pixels:
    return np.full((height, width, 3), _PAPER, np.uint8)


def _paste(canvas: Pixels, image: Image.Image, left: int, top: int) -> None:
    canvas[top : top + image.height, left : left + image.width] = np.asarray(image)


def _lines(name: str, size: int, width: int) -> list[tuple[lettering.Mask, lettering.Colour]]:
    """Draw a row's name and the text below it, at most `width` pixels wide, with their colours."""
    first, _, rest = name.partition("\n")
    lines = [(lettering.ink(first, size, width=width), _INK)]
    return lines + ([(lettering.ink(rest, size - 3, width=width), _QUIET)] if rest else [])


def _bar(canvas: Pixels, scale: Scale, left: int, top: int, width: int) -> None:
    """Draw all colours of a scale side by side."""
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    canvas[top : top + _BAR, left : left + width] = colours.lut(scale.colormap)[ramp]


def _keys(canvas: Pixels, scales: Sequence[Scale], top: int) -> None:
    """Draw the scales side by side, each between the meanings of its ends."""
    left, middle = _MARGIN, (lettering.line_height(_KEY) - _BAR) // 2
    for scale in scales:
        left = lettering.write(canvas, scale.ends[0], left, top, _KEY, _QUIET) + 8
        _bar(canvas, scale, left, top + middle, _KEY_BAR)
        left = lettering.write(canvas, scale.ends[1], left + _KEY_BAR + 8, top, _KEY, _QUIET) + 32


def _keys_width(scales: Sequence[Scale]) -> int:
    words = sum(int(lettering.ink(word, _KEY).shape[1]) for scale in scales for word in scale.ends)
    return 2 * _MARGIN + words + len(scales) * (_KEY_BAR + 48) - 32
