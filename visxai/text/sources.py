"""The texts of a run: cells of a table's column, lines of JSON, or lines of standard input.

comments.csv, comments.parquet     a table; --text-column names the column, or it is found by name
comments.jsonl                     an object on each line, with such a field
-                                  standard input, a text on each line

A text's address is its source and its row from 1, "/data/comments.csv#row=12".
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from visxai.errors import ArgumentError, ImageError
from visxai.foreign import shown
from visxai.images import tables
from visxai.images.address import Origin
from visxai.images.sources import Found

ENDINGS = (*tables.ENDINGS, ".jsonl", ".ndjson")
_MOST = 2**31  # bytes of a source


@dataclass(frozen=True)
class Texts:
    """The texts of a run.

    Attributes:
        found: For each text its address and label, as the store of a run lists inputs.
        texts: The texts by address.
    """

    found: tuple[Found, ...]
    texts: dict[str, str]


def read(
    sources: Sequence[str | os.PathLike[str]],
    text_column: str | None = None,
    label_column: str | None = None,
    stream: IO[bytes] | None = None,
) -> Texts:
    """Read the texts of sources, in order; rows without a text are left out.

    Args:
        sources: Paths of tables and of files with lines of JSON, and "-".
        text_column: The column of texts; None finds it by the names of `tables.TEXTS`.
        label_column: The column of labels; None finds it by its usual names, "none" leaves labels
            out.
        stream: Standard input, for "-".

    Raises:
        ArgumentError: A source can't be read, or holds no texts.
        UnknownName: A source has no column of a given name.
    """
    found: list[Found] = []
    texts: dict[str, str] = {}
    for source in sources:
        name = os.fspath(source)
        if name == "-":
            cells, labels = _lines(stream), None
            path, root = "stdin", ""
        else:
            path = os.path.abspath(name)
            root = os.path.dirname(path)
            cells, labels = _columns(path, text_column, label_column)
        for row, text in enumerate(cells, 1):
            address = f"{path}#row={row}"
            if not text.strip() or address in texts:
                continue
            label = labels[row - 1] if labels is not None else ""
            data = text.encode("utf-8", "surrogatepass")
            # In place of a file's size and time: a text that has changed is noticed.
            stamp = (len(data), zlib.crc32(data))
            found.append(Found(address, root, None, label or None, stamp=stamp))
            texts[address] = text
    if not found:
        raise ArgumentError(
            f"expected texts in {', '.join(shown(one) for one in sources)[:200]}, got none: check "
            "the column"
        )
    return Texts(tuple(found), texts)


def _lines(stream: IO[bytes] | None) -> list[str]:
    if stream is None or stream.isatty():
        raise ArgumentError(
            "expected texts on standard input, a line each, got a terminal: pipe them in, as in "
            "cat comments.txt | visxai explain - --model toxicity"
        )
    return stream.read(_MOST).decode("utf-8-sig", "replace").splitlines()


def _columns(
    path: str, text_column: str | None, label_column: str | None
) -> tuple[list[str], list[str] | None]:
    """Read the texts of a file, and their labels, None where it has none."""
    try:
        data = Origin(path, path).read(_MOST)
    except ImageError as error:
        raise ArgumentError(str(error)) from error
    lower = path.lower()
    if lower.endswith((".jsonl", ".ndjson")):
        table = _of_json(shown(path), data)
    elif lower.endswith(tables.ENDINGS):
        table = tables.read(path, data)
    else:
        raise ArgumentError(
            f"expected texts in a file of {' '.join(ENDINGS)}, got {shown(path)}: write a text a "
            "row, or pipe them in, a line each, with -"
        )
    ignored = (label_column or "").casefold() == "none"
    return table.texts(text_column), None if ignored else table.labels(label_column)


def _of_json(name: str, data: bytes) -> tables.Table:
    """Read lines of JSON objects as a table; fields that are no text become text."""
    rows = []
    lines = data.decode("utf-8-sig", "replace").split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise ArgumentError(
                f"expected an object of JSON on each line of {name}, got something else on line "
                f'{number}: write {{"text": ...}}'
            )
        rows.append(row)
    columns = tuple(dict.fromkeys(key for row in rows for key in row))

    def cells(index: int) -> list[str]:
        values = [row.get(columns[index]) for row in rows]
        return ["" if value is None else str(value) for value in values]

    return tables.Table(name, columns, cells)
