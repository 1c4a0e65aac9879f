"""The rows of a results table and the records they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from visxai.errors import StoreError
from visxai.record.base import Explanation

SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("source_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        (
            "transform",
            pa.struct(
                [
                    ("resized", pa.list_(pa.int32())),
                    ("crop", pa.list_(pa.int32())),
                    ("orientation", pa.int32()),
                    ("assumed", pa.bool_()),
                ]
            ),
        ),
        ("model", pa.string()),
        ("weights_sha256", pa.string()),
        ("preprocess", pa.string()),
        ("method", pa.string()),
        ("layer", pa.string()),
        ("target", pa.string()),
        ("class_index", pa.int32()),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("logit", pa.float64()),
        ("device", pa.string()),
        ("precision", pa.string()),
        ("accelerate", pa.string()),
        ("versions", pa.string()),
        ("map", pa.binary()),
        ("map_shape", pa.list_(pa.int32())),
        ("map_scale", pa.float64()),
        ("degenerate", pa.bool_()),
        ("quality", pa.string()),
        ("created", pa.string()),
        ("seconds", pa.float64()),
        ("kind", pa.string()),
        ("schema_version", pa.int32()),
        ("overlay", pa.string()),
        ("expected", pa.string()),
    ]
)

_JSON = ("quality", "versions")

Row = dict[str, Any]


def text(path: Any) -> Any:
    """A path as valid text: bytes that are none are written \\xNN."""
    return None if path is None else str(path).encode("utf-8", "backslashreplace").decode()


def row_of(explanation: Explanation, overlay: str | None, expected: str | None = None) -> Row:
    """The stored row of an explanation, `overlay` being its picture's name below OUT/overlays and
    `expected` the label its image came with."""
    row = explanation.row() | {"overlay": overlay, "expected": expected}
    row["path"] = text(row["path"])
    return row | {name: json.dumps(row[name], sort_keys=True) for name in _JSON}


def of_row(row: Mapping[str, Any]) -> Explanation:
    """The explanation in a stored row; its map has float16 precision."""
    try:
        told = {name: json.loads(row[name]) for name in _JSON}
    except (KeyError, TypeError, ValueError, RecursionError):
        raise StoreError(
            f"expected a stored row with {' and '.join(_JSON)} as JSON, got something else: the "
            "file is damaged, restore it or explain its images again"
        ) from None
    return Explanation.from_dict({**row, **told})
