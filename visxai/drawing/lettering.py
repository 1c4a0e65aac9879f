"""Text for pictures: any label as a coverage mask, whatever its script, without a bundled font.

OpenCV 5 contains a font for Latin, Greek, Cyrillic, Hebrew and CJK, so most text looks the same on
every machine. It can neither join letters nor set text from right to left: Arabic and combining
marks are left to Pillow and an installed font that has them. A character that no available font
has is spelled out ("[cat face]", "[U+0E01]"), so that readers see that it exists and what it is.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

Mask = NDArray[np.uint8]
Colour = tuple[int, int, int]

LONGEST = 300  # characters of a label that are drawn
_JOINERS = "\u200c\u200d"  # they shape Persian and Indic words; other format characters are dropped
_PAUSES = " -–,.:;/()[]…"  # characters that take the direction of the text around them
_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts", "~/AppData/Local/Microsoft/Windows/Fonts"),
}.get(sys.platform, ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts"))
_MOST_FONTS = 400  # with thousands of installed fonts the first label would take too long
# Glyph caches of OpenCV and FreeType aren't documented as safe to share between threads.
_lock = threading.RLock()


class Face(Protocol):
    """The interface of a font."""

    def covers(self, char: str) -> bool:
        """Tell whether the font has a character."""

    def ink(self, run: str, size: int, bold: bool, right_to_left: bool) -> Mask:
        """Draw a run of characters as coverage uint8 (line_height(size), width)."""


def ink(text: str, size: int, *, bold: bool = False, width: int | None = None) -> Mask:
    """Draw one line of text as a coverage mask.

    Args:
        text: The text; control characters are made visible, line breaks become spaces.
        size: The font's em in pixels.
        bold: Whether the text is bold.
        width: The most pixels of the line; a longer line ends in "…".

    Returns:
        Coverage uint8 (height, width), 0 to 255, of height `line_height(size)`.
    """
    with _lock:
        pieces = _clusters(_visible(text))
        line = _line(pieces, size, bold)
        if width is None or line.shape[1] <= width:
            return line
        low, high = 0, len(pieces)
        while high - low > 1:
            middle = (low + high) // 2
            if _line([*pieces[:middle], "…"], size, bold).shape[1] <= width:
                low = middle
            else:
                high = middle
        return _line([*pieces[:low], "…"], size, bold)[:, : max(width, 0)]


def write(
    canvas: Mask,
    text: str,
    left: int,
    top: int,
    size: int,
    colour: Colour,
    *,
    bold: bool = False,
    width: int | None = None,
) -> int:
    """Draw one line of text on a canvas.

    Args:
        canvas: uint8 RGB (h, w, 3), changed in place.
        text: The text, as for `ink`.
        left: The line's left edge, in pixels.
        top: The line's upper edge, in pixels.
        size: The font's em in pixels.
        colour: The text's colour, RGB.
        bold: Whether the text is bold.
        width: The most pixels of the line.

    Returns:
        The line's right edge, in pixels.
    """
    line = ink(text, size, bold=bold, width=width)
    stamp(canvas, line, left, top, colour)
    return left + int(line.shape[1])


def stamp(canvas: Mask, line: Mask, left: int, top: int, colour: Colour) -> None:
    """Draw a coverage mask in one colour on a canvas (h, w, 3), cut off at the canvas's edges."""
    part = canvas[top : top + line.shape[0], left : left + line.shape[1]]
    share = (line[: part.shape[0], : part.shape[1], None] / np.float32(255)).astype(np.float32)
    part[:] = np.rint(part + (np.array(colour, np.float32) - part) * share).astype(np.uint8)


def line_height(size: int) -> int:
    """Return a line's height in pixels, with room for accents and descenders."""
    return _baseline(size) + max(2, round(size * 0.34))


def _baseline(size: int) -> int:
    return round(size * 1.06)


def _visible(text: str) -> str:
    """Normalise text to one line, without characters that only control or hide others."""
    shown = []
    for char in unicodedata.normalize("NFC", text[:LONGEST] + ("…" if text[LONGEST:] else "")):
        kind = unicodedata.category(char)
        if char.isspace():
            shown.append(" ")
        elif kind == "Cc":
            shown.append(f"\\x{ord(char):02x}")
        elif char in _JOINERS or (kind != "Cf" and not 0xFE00 <= ord(char) <= 0xFE0F):
            shown.append(char)
    return re.sub(" +", " ", "".join(shown)).strip()


def _clusters(text: str) -> list[str]:
    """Split text into base characters, each with the marks and joiners that follow it."""
    found: list[str] = []
    for char in text:
        if found and (unicodedata.category(char)[0] == "M" or char in _JOINERS):
            found[-1] += char
        else:
            found.append(char)
    return found


def _line(clusters: list[str], size: int, bold: bool) -> Mask:
    """Draw clusters side by side, in the order in which they are read."""
    runs: list[tuple[Face, bool, str]] = []
    for cluster in clusters:
        turned = _right_to_left(cluster)
        face, text = _setting(cluster)
        if runs and runs[-1][1] and cluster in _PAUSES and runs[-1][0].covers(cluster):
            face, turned = runs[-1][:2]  # the pause belongs to the right-to-left phrase
        if runs and runs[-1][:2] == (face, turned):
            runs[-1] = (face, turned, runs[-1][2] + text)
        else:
            runs.append((face, turned, text))
    parts = []
    for face, turned, text in runs:  # trailing pauses become a part between two phrases
        phrase = text.rstrip(_PAUSES if turned else " ")
        parts += [(face, turned, phrase)] if phrase else []
        parts += [(_builtin(), False, text[len(phrase) :])] if phrase != text else []
    if runs and runs[0][1]:  # a label that starts right to left is read from the right
        parts.reverse()
    inks = [face.ink(text, size, bold, turned) for face, turned, text in parts]
    return np.hstack(inks) if inks else np.zeros((line_height(size), 0), np.uint8)


def _right_to_left(cluster: str) -> bool:
    return unicodedata.bidirectional(cluster[0]) in ("R", "AL")


def _combines(cluster: str) -> bool:
    return len(cluster) > 1 or _right_to_left(cluster)


@lru_cache(maxsize=8192)
def _setting(cluster: str) -> tuple[Face, str]:
    """Choose the font of a cluster, and the text to draw: the cluster or its spelling."""
    if all(unicodedata.category(char) != "Cs" for char in cluster):
        for face in _shaping() if _combines(cluster) else _plain():
            if all(face.covers(char) for char in cluster):
                return face, cluster
        if len(cluster) > 1:
            return _setting(cluster[0])
    name = unicodedata.name(cluster[0], "").lower()
    symbol = unicodedata.category(cluster[0]).startswith("S")
    return _builtin(), f"[{name}]" if name and symbol else f"[U+{ord(cluster[0]):04X}]"


class _OpenCV:
    """The font inside OpenCV 5, which draws "?" for missing characters and only left to right."""

    def __init__(self) -> None:
        self.font = cv2.FontFace("sans")
        self.unknown = self._drawn("?")

    def covers(self, char: str) -> bool:
        return char == "?" or self._drawn(char) != self.unknown

    def _drawn(self, char: str) -> bytes:
        canvas = np.zeros((32, 64), np.uint8)
        cv2.putText(canvas, char, (8, 24), (255,), self.font, 20, 400)
        return canvas.tobytes()

    def ink(self, run: str, size: int, bold: bool, right_to_left: bool) -> Mask:
        shown = run[::-1] if right_to_left else run
        weight = 600 if bold else 400
        parts = [self._part(part, size, weight) for part in re.split("([()])", shown) if part]
        return np.hstack(parts)

    def _part(self, text: str, size: int, weight: int) -> Mask:
        canvas = np.zeros((line_height(size), 2 * size * (len(text) + 1)), np.uint8)
        start = size  # a margin on the left, as a parenthesis is trimmed on both sides
        at = (start, _baseline(size))
        end, _ = cv2.putText(canvas, text, at, (255,), self.font, size, weight)
        if text in "()":  # this font makes parentheses as wide as an ideograph
            inked = np.flatnonzero(canvas.any(axis=0))
            beside = max(1, size // 14)
            return canvas[:, int(inked[0]) - beside : int(inked[-1]) + 1 + beside]
        return canvas[:, start : max(start + 1, end[0])]


class _TrueType:
    """A font file, or Pillow's own font, drawn by Pillow: joined and right to left if possible."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.fonts: dict[int, ImageFont.FreeTypeFont | ImageFont.ImageFont] = {}
        self.unknown = self._drawn("\U0010fffe")

    def _font(self, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        if size not in self.fonts:
            self.fonts[size] = (
                ImageFont.truetype(self.path, size) if self.path else ImageFont.load_default(size)
            )
        return self.fonts[size]

    def _drawn(self, char: str) -> bytes:
        return bytes(self._font(20).getmask(char))

    def covers(self, char: str) -> bool:
        return self._drawn(char) != self.unknown

    def ink(self, run: str, size: int, bold: bool, right_to_left: bool) -> Mask:
        shown = run[::-1] if right_to_left and not features.check("raqm") else run
        font = self._font(size)
        canvas = Image.new("L", (max(1, round(font.getlength(shown))), line_height(size)))
        ImageDraw.Draw(canvas).text((0, _baseline(size)), shown, fill=255, font=font, anchor="ls")
        return np.asarray(canvas)


@lru_cache(maxsize=1)
def _builtin() -> Face:
    return _OpenCV() if hasattr(cv2, "FontFace") else _TrueType(None)


def _plain() -> Iterator[Face]:
    yield _builtin()
    yield from _installed()


def _shaping() -> Iterator[Face]:
    yield from _installed()
    yield _builtin()


_opened: dict[Path, Face | None] = {}


def _installed() -> Iterator[Face]:
    """Yield the machine's fonts, upright sans serifs first; each is opened when it is reached."""
    for path in _font_files():
        if path not in _opened:
            try:
                _opened[path] = _TrueType(path)
            except (OSError, ValueError):  # bitmap-only emoji fonts have a single size
                _opened[path] = None
        if (face := _opened[path]) is not None:
            yield face


@lru_cache(maxsize=1)
def _font_files() -> tuple[Path, ...]:
    def rank(path: Path) -> tuple[bool, bool, int, str]:
        name = path.stem.lower()
        styled = re.search("bold|italic|oblique|mono|light|thin|black|condensed", name)
        return bool(styled), not re.search("sans|arial|segoeui", name), len(name), name

    found = (
        path
        for folder in _FOLDERS
        for path in Path(os.path.expanduser(folder)).rglob("*")
        # Fonts that claim every character, but draw boxes or nothing, are left out.
        if path.suffix.lower() in (".ttf", ".ttc", ".otf")
        and not re.search("lastresort|blank", path.stem.lower())
    )
    return tuple(sorted(found, key=rank)[:_MOST_FONTS])
