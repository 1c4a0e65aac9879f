"""The columns of a record, shared by rows, results folders and the published schema.

A record is flat: its columns are those of every kind of record and those of its kind's input. Each
column is described here once; the JSON Schema and the types of the Parquet table are derived from
it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError

# The most cells of a stored map, as a record may be a stranger's: a cell for each pixel of a large
# model input.
MAX_CELLS = 2**24
_MOST = 2**31 - 1  # the largest integer of a stored row's columns

SCHEMA_VERSION = 3
# The schema versions of records and stored rows that can be read.
READABLE = (1, 2, 3)

_TEXT, _NUMBER, _INTEGER = {"type": "string"}, {"type": "number"}, {"type": "integer"}
_SIDE = {**_INTEGER, "minimum": 1, "maximum": _MOST}
_SHA256 = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_OBJECT = {"type": "object"}


def _integers(count: int, least: int) -> dict[str, Any]:
    items = {**_INTEGER, "minimum": least, "maximum": _MOST}
    return {"type": "array", "items": items, "minItems": count, "maxItems": count}


def _list_of(item: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": item}


@dataclass(frozen=True)
class Column:
    """One column of a record.

    Attributes:
        name: The key in `Explanation.to_dict()` and the column's name in Parquet.
        stored: The column's type in Parquet: "string", "int32", "float64", "bool", "binary",
            "integers" and "strings" (lists), "transform" or "scores" (structs), or "json" (a string
            of JSON).
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
    Column(
        "regions",
        "json",
        "The connected areas of strongest evidence, at most three, strongest first: `box` is "
        "(left, top, right, bottom) in pixels of the upright image, ends exclusive, `share` its "
        "part of all positive evidence, 0 to 1. They follow from the map.",
        _list_of(
            {
                "type": "object",
                "properties": {
                    "box": _integers(4, 0),
                    "share": {"type": "number", "minimum": 0, "maximum": 1.000001},
                },
                "required": ["box", "share"],
                "additionalProperties": False,
            }
        ),
        since=3,
    ),
)
_CELL = {"type": ["number", "string", "boolean", "null"]}
_TABLE = (
    Column("path", "string", "The table's path or address.", _nullable(_TEXT)),
    Column(
        "source_sha256",
        "string",
        "Of the row: the UTF-8 JSON of its features' names and values, without spaces.",
        _SHA256,
    ),
    Column("row", "int32", "The row's position in the table, from 0.", {**_INTEGER, "minimum": 0}),
    Column("features", "strings", "The names of the scored features, in order.", _list_of(_TEXT)),
    Column("data", "json", "The row's values of these features, in order.", _list_of(_CELL)),
    Column(
        "base_value",
        "float64",
        "What the attributions start from: `base_value` plus their sum is `logit`.",
        _NUMBER,
    ),
    Column(
        "scale",
        "string",
        "The scale of `logit`, `base_value` and the attributions.",
        {"enum": ["log-odds", "probability", "response"]},
    ),
    Column(
        "threshold",
        "float64",
        "The score from which the decision is favourable, null without a decision.",
        _nullable(_NUMBER),
    ),
    Column(
        "background",
        "json",
        "What the row was compared with: the rule that chose the rows, their number and the "
        "SHA-256 of their values.",
        {
            "type": "object",
            "properties": {
                "rule": _TEXT,
                "rows": {**_INTEGER, "minimum": 0},
                "sha256": {"type": ["string", "null"]},
            },
            "required": ["rule", "rows", "sha256"],
            "additionalProperties": False,
        },
    ),
    Column(
        "typical",
        "json",
        "The typical value of each feature in the background: the median, or the most frequent.",
        _list_of(_CELL),
    ),
    Column("excluded", "strings", "Columns that the model never saw.", _list_of(_TEXT)),
    Column("groups", "json", "The row's protected columns, by name; never scored.", _OBJECT),
)
_TEXTS = (
    Column("path", "string", "Where the text came from: a file and a row.", _nullable(_TEXT)),
    Column("source_sha256", "string", "Of the text in UTF-8.", _SHA256),
    Column("text", "string", "The text as the model was given it.", _TEXT),
    Column(
        "spans",
        "integers",
        "Start and end of each word in the text, in characters, end exclusive: start, end, start, "
        "end and so on. The map has a value for each word.",
        _list_of({**_INTEGER, "minimum": 0, "maximum": _MOST}),
    ),
)
_PAIR = (
    Column("path", "string", "Where the pair came from: a file and a row.", _nullable(_TEXT)),
    Column(
        "source_sha256",
        "string",
        "Of both parts' SHA-256, the image's first, as text without a gap.",
        _SHA256,
    ),
    Column("image", "json", "The record of the image, as its own schema describes it.", _OBJECT),
    Column("text", "json", "The record of the text, as its own schema describes it.", _OBJECT),
    Column("rule", "string", "How the two scores become one: noisy_or, max or mean.", _TEXT),
    Column(
        "base_value",
        "float64",
        "The score of a blank image with an empty text: with the sum of the map it is `score`.",
        _NUMBER,
    ),
    Column(
        "interaction",
        "float64",
        "What both parts add together beyond what each adds alone.",
        _NUMBER,
    ),
)
_INPUTS = {"image": _IMAGE, "pair": _PAIR, "table": _TABLE, "text": _TEXTS}
# The axes of a map and the number type that it is packed as, by the kind of record. A picture's map
# is drawn; attributions of a table's row or a text must still add up to the score.
AXES = {"image": 2, "pair": 1, "table": 1, "text": 1}
PACKED = {"image": "<f2", "pair": "<f4", "table": "<f4", "text": "<f4"}
_NUMBERS = {"<f2": "float16", "<f4": "float32"}
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
        "little-endian {numbers} of shape `map_shape` in row order, and multiply by `map_scale`.",
        {"type": "string", "contentEncoding": "base64"},
    ),
    Column("map_shape", "integers", "The map's shape.", {}),
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
    Column("kind", "string", "The kind of the input.", {}),
    Column("schema_version", "int32", "Of this record.", {"const": SCHEMA_VERSION}),
    Column(
        "two_sided",
        "bool",
        "Whether maps of this method can hold evidence against the target; maps of one-sided "
        "methods are never negative and are drawn from zero up.",
        {"type": "boolean"},
        since=2,
    ),
    Column(
        "id",
        "string",
        "The caller's own identifier of the input, null without one.",
        _nullable(_TEXT),
        since=3,
    ),
    Column(
        "top_scores",
        "json",
        "The classes with the greatest scores, at most five, greatest first, each score as the "
        "model reports it (null where it isn't finite); empty where they weren't kept.",
        _list_of(
            {
                "type": "object",
                "properties": {
                    "class_index": _INTEGER,
                    "label": _TEXT,
                    "score": _nullable(_NUMBER),
                },
                "required": ["class_index", "label", "score"],
                "additionalProperties": False,
            }
        ),
        since=3,
    ),
)


@cache
def columns(kind: str = "image") -> tuple[Column, ...]:
    """List the columns of a kind of record, those of its input first.

    Raises:
        ArgumentError: The kind doesn't exist.
    """
    if kind not in _INPUTS:
        kinds = " or ".join(map(repr, _INPUTS))
        raise ArgumentError(f"expected a kind of record ({kinds}), got {kind!r}")
    return _INPUTS[kind] + tuple(_of_kind(one, kind) for one in _SHARED)


def _of_kind(one: Column, kind: str) -> Column:
    """Return a column that every kind of record has, as records of this kind hold it."""
    if one.name == "map":
        return replace(one, meaning=one.meaning.format(numbers=_NUMBERS[PACKED[kind]]))
    if one.name == "map_shape":
        # A text may have no words.
        return replace(one, json=_integers(AXES[kind], 0 if kind == "text" else 1))
    return replace(one, json={"enum": [kind]}) if one.name == "kind" else one


def schema(kind: str = "image") -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of `Explanation.to_dict()` for a kind of input.

    Args:
        kind: "image", "pair", "table" or "text".

    Returns:
        The schema as plain values, with a description for each property.

    Raises:
        ArgumentError: The kind doesn't exist.
    """
    found, of = columns(kind), "" if kind == "image" else f"{kind}:"
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:visxai:explanation:{of}{SCHEMA_VERSION}",
        "title": "visxai explanation",
        "type": "object",
        "properties": {one.name: {**one.json, "description": one.meaning} for one in found},
        "required": [one.name for one in found],
        "additionalProperties": False,
    }


def pack(values: NDArray[np.float32], kind: str = "image") -> tuple[bytes, float]:
    """Compress a map.

    Args:
        values: The map, float32 of any shape.
        kind: The kind of its record.

    Returns:
        The zlib-compressed little-endian numbers (float16 for an image, float32 otherwise) of
        values / scale, and the scale: the largest magnitude for float16, so that a map of any size
        keeps its 11 bits, and 1 for float32.
    """
    peak = float(np.abs(values).max(initial=0.0))
    scale = peak if np.isfinite(peak) and peak > 0 and PACKED[kind] == "<f2" else 1.0
    return zlib.compress((values / scale).astype(PACKED[kind]).tobytes(), 6), scale


def unpack(blob: bytes, shape: Any, scale: float, kind: str = "image") -> NDArray[np.float32]:
    """Unpack a map that `pack` compressed.

    Args:
        blob: The compressed bytes.
        shape: The lengths of the map's axes.
        scale: The scale that `pack` returned.
        kind: The kind of its record.

    Returns:
        float32 of `shape`.

    Raises:
        ArgumentError: The map is larger than 2**24 cells, or the bytes don't fit the shape.
    """
    sizes = tuple(int(size) for size in shape)
    said, cells = "x".join(map(str, sizes)), math.prod(sizes)
    if min(sizes, default=0) < 0 or cells > MAX_CELLS:
        raise ArgumentError(
            f"expected a map of at most {MAX_CELLS} values, got {said}: the record is damaged"
        )
    # The output of the decompressor is limited, so that a hostile blob can't fill the memory.
    length = np.dtype(PACKED[kind]).itemsize * cells
    data = zlib.decompressobj().decompress(blob, length + 1)
    if len(data) != length:
        raise ArgumentError(
            f"expected a map of {said} {_NUMBERS[PACKED[kind]]} values, got {len(data)} bytes: "
            "the record is damaged"
        )
    values = np.frombuffer(data, dtype=PACKED[kind]).reshape(sizes)
    return values.astype(np.float32) * np.float32(scale)
