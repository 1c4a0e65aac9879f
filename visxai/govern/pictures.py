"""Small pictures of maps for the governance page, and the strongest parts of texts and rows."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from visxai.errors import VisxaiError
from visxai.govern.daily import Point
from visxai.govern.features.images import GRID
from visxai.record.columns import unpack

_SIDE = 48  # pixels of a small map's longer side
_WORDS = 300  # words of a text on the page
_FEATURES = 12  # features of a row on the page


def small_map(record: Mapping[str, Any]) -> str | None:
    """Draw the native map of an image, alone or a post's, small; None without a whole one."""
    if record.get("kind") == "pair":
        record = _part(record, "image")
    if record.get("kind", "image") != "image":
        return None
    values = _values(record)
    return None if values is None else picture(values)


def parts(record: Mapping[str, Any]) -> list[list[Any]]:
    """List what a text, a post's text or a row is made of, each part with its attribution.

    Args:
        record: The record's fields.

    Returns:
        For a text its words [word, attribution] in order; for a row its strongest features [name,
        cell, attribution]; nothing for other kinds and damaged records.
    """
    if record.get("kind") == "pair":
        record = _part(record, "text")
    kind = record.get("kind")
    values = None if kind not in ("text", "table") else _values(record)
    if values is None:
        return []
    if kind == "text":
        text, spans = record["text"], record["spans"]
        words = [text[start:end] for start, end in zip(spans[::2], spans[1::2], strict=False)]
        return [[w, float(v)] for w, v in zip(words, values, strict=False)][:_WORDS]
    order = np.argsort(-np.abs(values), kind="stable")[:_FEATURES]
    names, cells = record["features"], record["data"]
    return [[names[at], cells[at], float(values[at])] for at in order]


def picture(values: Any) -> str:
    """Draw a map (u, v) from zero up as a PNG data URI, each cell a block."""
    from PIL import Image

    positive = np.nan_to_num(np.asarray(values, np.float64)).clip(min=0)
    scaled = positive / (float(positive.max(initial=0)) or 1.0)
    image = Image.fromarray(_colours()[(scaled * 255).astype(int)])
    if max(image.size) > _SIDE:
        image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def mean_map(found: Mapping[str, Sequence[Point]], days: slice) -> dict[str, Any] | None:
    """Draw the mean share of the evidence by cell of the grid over some of the days.

    Args:
        found: The days of each figure.
        days: Which of the days.

    Returns:
        The picture, the number of items, the first day and the last; None without any.
    """
    grid = np.zeros((GRID, GRID))
    chosen: Sequence[Point] = ()
    for row in range(GRID):
        for column in range(GRID):
            chosen = list(found.get(f"cell_{row}{column}", ()))[days]
            if not chosen:
                return None
            grid[row, column] = sum(p.n * p.mean for p in chosen) / sum(p.n for p in chosen)
    n = sum(p.n for p in chosen)
    return {"src": picture(grid), "n": n, "first": chosen[0].day, "last": chosen[-1].day}


@cache
def _colours() -> Any:
    from visxai.drawing.colours import DEFAULT, lut

    return lut(DEFAULT)


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return the record of a post's part, one without a map where it is damaged."""
    part = record.get(name)
    return part if isinstance(part, dict) else {"kind": name}


def _values(record: Mapping[str, Any]) -> Any:
    try:
        packed = base64.b64decode(record["map"])
        kind = record.get("kind", "image")
        return unpack(packed, record["map_shape"], record["map_scale"], kind)
    except (VisxaiError, KeyError, ValueError, TypeError, zlib.error):
        return None
