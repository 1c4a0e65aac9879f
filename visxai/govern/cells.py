"""Cells of explained rows as columns of numbers: what input drift of a table is tested on.

Numbers stay what they are and booleans become 0 and 1. A column of words becomes a column for each
of its 20 most frequent words, "job=skilled", with 1 where the row has it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from visxai.record.table import TableExplanation
from visxai.references import Cell

_WORDS = 20


def measure_rows(rows: Sequence[TableExplanation]) -> dict[str, list[float]]:
    """Turn the cells of rows into columns of numbers, NaN where a cell is missing.

    Args:
        rows: Rows of one table.
    """
    cells: dict[str, list[Cell]] = {}
    for at, row in enumerate(rows):
        for name, cell in zip(row.features, row.input.data, strict=True):
            # A row that lacks a column of the others has a missing cell there.
            cells.setdefault(name, [None] * len(rows))[at] = cell
    found: dict[str, list[float]] = {}
    for name, column in cells.items():
        words = Counter(cell for cell in column if isinstance(cell, str))
        if words:
            for word, _ in words.most_common(_WORDS):
                found[f"{name}={word}"] = [float(cell == word) for cell in column]
        else:
            found[name] = [math.nan if cell is None else float(cell) for cell in column]
    return found
