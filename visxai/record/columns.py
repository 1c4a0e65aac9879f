"""The columns of a record, shared by rows, results folders and the published schema.

A record is flat: its columns are those of every kind of record and those of its kind's input. Each
column is described here once; the JSON Schema and the types of the Parquet table are derived from
it.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError

# The most cells of a stored map, as a record may be a stranger's: a cell for each pixel of a large
# model input.
MAX_CELLS = 2**24
_MOST = 2**31 - 1  # the largest integer of a stored row's columns

SCHEMA_VERSION = 2
# The schema versions of records and stored rows that can be read.
READABLE = (1, 2)

_TEXT, _NUMBER, _INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_SIDE = {**_INTEGER, "minimum": 1, "maximum": _MOST}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _integers(count: int, least: int) -> dict[str, Any]:
    items = {**_INTEGER, "minimum": least, "maximum": _MOST}
    return {"type": "array", "items": items, "minItems": count, "maxItems": count}


@dataclass(frozen=True)
class Column:
    """One column of a record.

    Attributes:
        name: The key in `Explanation.to_dict()` and the column's name in Parquet.
        stored: The column's type in Parquet: "string", "int32", "float64", "bool", "binary",
            "integers" (a list of int32), "transform" or "scores" (structs), or "json" (a string of
            JSON).
        meaning: The description of the value for the published schema, with unit and range.
        json: The JSON Schema of the value, without its description.
        since: The first schema version with this column.
    """

    name: str
    stored: str
    meaning: str
    json: Mapping[str, Any]
    since: int = 1


def _nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "type": [schema["type"], "null"]}


_IMAGE = (
    Column("path", "string", "Where the image came from: a path, or an address.", _nullable(_TEXT)),
    Column(
        "source_sha256", "string", "Of the file's bytes, or of the pixels without a file.", _SHA256
    ),
    Column("width", "int32", "Of the upright image, in pixels.", _SIDE),
    Column("height", "int32", "Of the upright image, in pixels.", _SIDE),
    Column(
        "transform",
        "transform",
        "How the upright image became the model's input, in pixels: `resized` is the (width, "
        "height) of the whole image after the resize, `crop` the (left, top, width, height) of "
        "the model's view in it, `orientation` the EXIF orientation that was undone before; "
        "`assumed` says that an opaque preprocessing was taken to show the whole image.",
        {
            "type": "object",
            "properties": {
                "resized": _integers(2, 1),
                "crop": _integers(4, -_MOST),
                "orientation": {"type": "integer", "minimum": 1, "maximum": 8},
                "assumed": {"type": "boolean"},
            },
            "required": ["resized", "crop", "orientation", "assumed"],
            "additionalProperties": False,
        },
    ),
)
_SHARED = (
    Column("model", "string", "The model's name.", _TEXT),
    Column("weights_sha256", "string", "Of the model's weights and buffers.", _SHA256),
    Column("preprocess", "string", "How inputs were prepared, in words.", _TEXT),
    Column("method", "string", "The method's spec, which builds it again.", _TEXT),
    Column("layer", "string", "The layer that the map comes from.", _nullable(_TEXT)),
    Column("target", "string", "What was explained, as it was asked for.", _TEXT),
    Column(
        "class_index",
        "int32",
        "The class explained, null for a set or a function of the scores.",
        _nullable(_INTEGER),
    ),
    Column("label", "string", "The name of what was explained.", _TEXT),
    Column(
        "score",
        "float64",
        "What the model reports for it: a probability from 0 to 1 for softmax and sigmoid models.",
        _NUMBER,
    ),
    Column("logit", "float64", "The scalar that the map explains.", _NUMBER),
    Column("device", "string", "Where the model ran.", _TEXT),
    Column("precision", "string", "fp32, bf16 or fp16, and what was rerun in float32.", _TEXT),
    Column("accelerate", "string", "The prepared form that ran, or off.", _TEXT),
    Column(
        "versions",
        "json",
        "Versions of the software, by name.",
        {"type": "object", "additionalProperties": _TEXT},
    ),
    Column(
        "map",
        "binary",
        "The method's native map, unscaled. Decode base64, decompress with zlib, read as "
        "little-endian float16 of shape `map_shape` in row order, and multiply by `map_scale`.",
        {"type": "string", "contentEncoding": "base64"},
    ),
    Column("map_shape", "integers", "The map's shape.", _integers(2, 1)),
    Column(
        "map_scale",
        "float64",
        "The map's largest magnitude, 1 for an empty map.",
        # Above this the values would be infinite in float32.
        {"type": "number", "exclusiveMinimum": 0, "maximum": 3.4028234663852886e38},
    ),
    Column(
        "degenerate",
        "bool",
        "Whether the map says nothing: it is flat, or was not finite.",
        {"type": "boolean"},
    ),
    Column(
        "quality",
        "json",
        "Figures that say how far the map can be trusted, by name.",
        {"type": "object"},
    ),
    Column(
        "created",
        "string",
        "When the map was made, UTC.",
        {"type": "string", "format": "date-time"},
    ),
    Column(
        "seconds",
        "float64",
        "This map's share of its batch's time.",
        {"type": "number", "minimum": 0},
    ),
    Column("kind", "string", "The kind of the input.", {"enum": ["image"]}),
    Column("schema_version", "int32", "Of this record.", {"const": SCHEMA_VERSION}),
    Column(
        "two_sided",
        "bool",
        "Whether maps of this method can hold evidence against the target; maps of one-sided "
        "methods are never negative and are drawn from zero up.",
        {"type": "boolean"},
        since=2,
    ),
)


def columns(kind: str = "image") -> tuple[Column, ...]:
    """List the columns of a kind of record, those of its input first.

    Raises:
        ArgumentError: The kind doesn't exist.
    """
    if kind != "image":
        raise ArgumentError(f"expected a kind of record ('image'), got {kind!r}")
    return _IMAGE + _SHARED


def schema(kind: str = "image") -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `Explanation.to_dict()` for a kind of input.

    Args:
        kind: "image".

    Returns:
        The schema as plain values, with a description for each property.

    Raises:
        ArgumentError: The kind doesn't exist.
    """
    found = columns(kind)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:visxai:explanation:{SCHEMA_VERSION}",
        "title": "visxai explanation",
        "type": "object",
        "properties": {one.name: {**one.json, "description": one.meaning} for one in found},
        "required": [one.name for one in found],
        "additionalProperties": False,
    }


def pack(values: NDArray[np.float32]) -> tuple[bytes, float]:
    """Compress a map.

    Args:
        values: The map, float32 of any shape.

    Returns:
        The zlib-compressed little-endian float16 of values / scale, and the scale: the largest
        magnitude, so that a map of any size keeps its 11 bits.
    """
    peak = float(np.abs(values).max(initial=0.0))
    scale = peak if np.isfinite(peak) and peak > 0 else 1.0
    return zlib.compress((values / scale).astype("<f2").tobytes(), 6), scale


def unpack(blob: bytes, shape: Any, scale: float) -> NDArray[np.float32]:
    """Unpack a map that `pack` compressed.

    Args:
        blob: The compressed bytes.
        shape: (rows, columns) of the map.
        scale: The scale that `pack` returned.

    Returns:
        float32 of `shape`.

    Raises:
        ArgumentError: The map is larger than 2**24 cells, or the bytes don't fit the shape.
    """
    rows, columns = (int(size) for size in shape)
    if min(rows, columns) < 0 or rows * columns > MAX_CELLS:
        raise ArgumentError(
            f"expected a map of at most {MAX_CELLS} values, got {rows}x{columns}: the record is "
            "damaged"
        )
    # The output of the decompressor is limited, so that a hostile blob can't fill the memory.
    data = zlib.decompressobj().decompress(blob, 2 * rows * columns + 1)
    if len(data) != 2 * rows * columns:
        raise ArgumentError(
            f"expected a map of {rows}x{columns} float16 values, got {len(data)} bytes: "
            "the record is damaged"
        )
    values = np.frombuffer(data, dtype="<f2").reshape(rows, columns)
    return values.astype(np.float32) * np.float32(scale)
