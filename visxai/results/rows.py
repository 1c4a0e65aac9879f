"""The rows of a results table, and the records that they hold."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pyarrow as pa

from visxai.errors import StoreError
from visxai.record.base import Explanation
from visxai.record.columns import SCHEMA_VERSION, columns
from visxai.record.image import ImageExplanation

_TYPES = {
    "string": pa.string(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "binary": pa.binary(),
    "integers": pa.list_(pa.int32()),
    "strings": pa.list_(pa.string()),
    "json": pa.string(),
    "transform": pa.struct(
        [
            ("resized", pa.list_(pa.int32())),
            ("crop", pa.list_(pa.int32())),
            ("orientation", pa.int32()),
            ("assumed", pa.bool_()),
        ]
    ),
}


def schema_of(kind: str) -> pa.Schema:
    """Make the schema of a results table of one kind of record.

    Its columns are those of the record, the picture's name below OUT/overlays, and the label that
    the input came with.
    """
    own = [(one.name, _TYPES[one.stored]) for one in columns(kind)]
    return pa.schema([*own, ("overlay", pa.string()), ("expected", pa.string())])


SCHEMA = schema_of("image")

Row = dict[str, Any]
# The columns of repeated values, which are dictionary-encoded; maps never repeat.
REPEATED = [name for name in SCHEMA.names if name not in ("map", "path", "source_sha256")]


def text(path: Any) -> Any:
    r"""Convert a path to valid text, with undecodable bytes written as \xNN; keep None."""
    return None if path is None else str(path).encode("utf-8", "backslashreplace").decode()


def row_of(explanation: Explanation, overlay: str | None, expected: str | None = None) -> Row:
    """Make the stored row of an explanation.

    Args:
        explanation: The explanation.
        overlay: The name of its picture below OUT/overlays, None without a picture.
        expected: The label that its image came with, None without a label.
    """
    row = explanation.row() | {"overlay": overlay, "expected": expected}
    row["path"] = text(row["path"])
    return row | {name: json.dumps(row[name], sort_keys=True) for name in _json(explanation.kind)}


def of_row(row: Mapping[str, Any]) -> Explanation:
    """Read the explanation of a stored row; an image's map has float16 precision.

    Raises:
        StoreError: The row's JSON is damaged.
        ArgumentError: The row doesn't match the schema.
    """
    return Explanation.from_dict(_plain(row))


def record_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Read a stored row as JSON-ready values, as `Explanation.to_dict` gives them.

    Raises:
        StoreError: The row's JSON is damaged.
        ArgumentError: The row is of an earlier schema version and doesn't match its schema.
    """
    plain = _plain(row)
    if plain.get("schema_version") != SCHEMA_VERSION:
        return Explanation.from_dict(plain).to_dict()
    found = {one.name: plain.get(one.name) for one in columns(str(plain.get("kind")))}
    return found | {"map": base64.b64encode(found["map"] or b"").decode("ascii")}


def image_of(row: Mapping[str, Any]) -> ImageExplanation:
    """Read the explanation of a stored row about an image; its map has float16 precision.

    Raises:
        StoreError: The row's JSON is damaged.
        ArgumentError: The row doesn't match the schema, or is about another kind of input.
    """
    return ImageExplanation.from_dict(_plain(row))


@cache
def _json(kind: str, version: int = SCHEMA_VERSION) -> tuple[str, ...]:
    """List the columns of a kind of record of a schema version that are stored as JSON."""
    found = (one for one in columns(kind) if one.stored == "json")
    return tuple(one.name for one in found if one.since <= version)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    version = row.get("schema_version")
    known = version if isinstance(version, int) else SCHEMA_VERSION
    names = _json(str(row.get("kind") or "image"), known)
    try:
        return {**row, **{name: json.loads(row[name]) for name in names}}
    except (KeyError, TypeError, ValueError, RecursionError):
        raise StoreError(
            f"expected a stored row with {' and '.join(names)} as JSON, got something else: the "
            "file is damaged, restore it or explain its inputs again"
        ) from None
