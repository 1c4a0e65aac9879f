"""Bars to the left and right of zero: what each feature of a row added to its score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from visxai.drawing import lettering
from visxai.drawing.colours import Pixels
from visxai.errors import ArgumentError
from visxai.references import Caption

_PAPER, _INK, _QUIET, _RULE = (252, 252, 251), (24, 24, 27), (113, 113, 122), (212, 212, 216)
# Told apart without red and green, and by their side of zero too.
RAISED, LOWERED = (37, 99, 175), (194, 84, 28)
_MARGIN, _SIZE, _SMALL, _TITLE, _GAP = 20, 15, 13, 20, 8


class Bar(NamedTuple):
    """One bar.

    Attributes:
        name: What it stands for.
        value: The row's own value in words, drawn quietly behind the name.
        length: Its signed length, in any unit.
    """

    name: str
    value: str
    length: float


def draw(bars: Sequence[Bar], caption: Caption, *, unit: str = "", width: int = 720) -> Image.Image:
    """Draw bars below each other, over a caption.

    Args:
        bars: The bars, from the top.
        caption: The caption.
        unit: The unit of the lengths, named beside the title.
        width: The picture's width in pixels, at least 320.

    Raises:
        ArgumentError: The picture is too narrow for its words.
    """
    if width < 320:
        raise ArgumentError(
            f"expected a width of at least 320 pixels, got {width}: the words don't fit"
        )
    line, head = lettering.line_height(_SIZE), lettering.line_height(_TITLE)
    small = lettering.line_height(_SMALL)
    first = _MARGIN + head + small + 2 * _GAP
    foot = first + len(bars) * (line + _GAP) + _GAP
    canvas = np.full((foot + 2 * small + _MARGIN, width, 3), _PAPER, np.uint8)
    room = width - 2 * _MARGIN
    score = f"{caption.score:.3f}"
    spare = room - int(lettering.ink(score, _TITLE).shape[1]) - 12
    end = lettering.write(
        canvas, caption.label, _MARGIN, _MARGIN, _TITLE, _INK, bold=True, width=spare
    )
    lettering.write(canvas, score, end + 12, _MARGIN, _TITLE, _QUIET)
    key = _MARGIN + head + _GAP // 2
    end = lettering.write(canvas, "■ raised the score", _MARGIN, key, _SMALL, RAISED)
    end = lettering.write(canvas, "■ lowered it", end + 20, key, _SMALL, LOWERED)
    lettering.write(canvas, unit, end + 20, key, _SMALL, _QUIET, width=width - _MARGIN - end - 20)
    _bars(canvas, bars, first, width)
    lettering.write(canvas, caption.method, _MARGIN, foot, _SMALL, _QUIET, width=room)
    lettering.write(canvas, caption.source, _MARGIN, foot + small, _SMALL, _QUIET, width=room)
    return Image.fromarray(canvas)


def _bars(canvas: Pixels, bars: Sequence[Bar], top: int, width: int) -> None:
    """Draw the bars with their names at the left and their numbers at their ends."""
    line = lettering.line_height(_SIZE)
    names = int(width * 0.46)
    number = max((lettering.ink(_signed(one.length), _SMALL).shape[1] for one in bars), default=0)
    low = min((one.length for one in bars), default=0.0)
    high = max((one.length for one in bars), default=0.0)
    low, high = min(low, 0.0), max(high, 0.0)
    # Room for a number beside the longest bar of each side.
    left = _MARGIN + names + (number + _GAP if low < 0 else 0)
    right = width - _MARGIN - (number + _GAP if high > 0 else 0)
    scale = (right - left) / ((high - low) or 1.0)
    zero = round(left - low * scale)
    canvas[top : top + len(bars) * (line + _GAP) - _GAP, zero] = _RULE
    for one in bars:
        end = lettering.write(canvas, one.name, _MARGIN, top, _SIZE, _INK, width=names - _GAP)
        rest = _MARGIN + names - _GAP - end - 10
        if one.value and rest > 30:
            lettering.write(
                canvas, one.value, end + 10, top + _SIZE - _SMALL, _SMALL, _QUIET, width=rest
            )
        tip = round(zero + one.length * scale)
        colour = RAISED if one.length > 0 else LOWERED
        canvas[top + 2 : top + line - 2, min(zero, tip) : max(zero, tip)] = colour
        ink = lettering.ink(_signed(one.length), _SMALL)
        side = tip + 5 if one.length >= 0 else tip - 5 - ink.shape[1]
        lettering.stamp(canvas, ink, side, top + _SIZE - _SMALL, _QUIET)
        top += line + _GAP


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
