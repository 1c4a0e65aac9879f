"""How a record is stored: its columns, its schema, and its map as bytes."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from visxai.errors import ArgumentError

if TYPE_CHECKING:
    from visxai.images.heatmap import Array

SCHEMA_VERSION = 1
# What a stored record may ask of memory: cells of a map (the largest is one a pixel of a model's
# input) and pixels of an original, over which maps are laid.
MAX_CELLS = 2**24


def pack(values: Array) -> tuple[bytes, float]:
    """A map as (zlib-compressed little-endian float16 of values / scale, scale).

    The scale is the largest magnitude, so that a map of any size keeps its 11 bits.
    """
    peak = float(np.abs(values).max(initial=0.0))
    scale = peak if np.isfinite(peak) and peak > 0 else 1.0
    return zlib.compress((values / scale).astype("<f2").tobytes(), 6), scale


def unpack(blob: bytes, shape: Any, scale: float) -> Array:
    """The inverse of `pack`: float32 of `shape`."""
    rows, columns = (int(size) for size in shape)
    if min(rows, columns) < 0 or rows * columns > MAX_CELLS:
        raise ArgumentError(
            f"expected a map of at most {MAX_CELLS} values, got {rows}x{columns}: the record is "
            "damaged"
        )
    # The decompressor is told how much may come out: a hostile blob can't fill the memory.
    data = zlib.decompressobj().decompress(blob, 2 * rows * columns + 1)
    if len(data) != 2 * rows * columns:
        raise ArgumentError(
            f"expected a map of {rows}x{columns} float16 values, got {len(data)} bytes: "
            "the record is damaged"
        )
    values = np.frombuffer(data, dtype="<f2").reshape(rows, columns)
    return values.astype(np.float32) * np.float32(scale)


def schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of `Explanation.to_dict()`."""
    text, number, integer, flag = (
        {"type": kind} for kind in ("string", "number", "integer", "boolean")
    )
    optional_text = {"type": ["string", "null"]}
    sha = {"type": "string", "pattern": "^[0-9a-f]{64}$"}

    most = 2**31 - 1  # what a stored row's columns hold

    def integers(count: int, least: int) -> dict[str, Any]:
        items = {**integer, "minimum": least, "maximum": most}
        return {"type": "array", "items": items, "minItems": count, "maxItems": count}

    properties: dict[str, Any] = {
        "schema_version": {"const": SCHEMA_VERSION},
        "kind": {"enum": ["image"]},
        "path": optional_text,
        "source_sha256": sha,
        "width": {"type": "integer", "minimum": 1, "maximum": most},
        "height": {"type": "integer", "minimum": 1, "maximum": most},
        "transform": {
            "type": "object",
            "properties": {
                "resized": integers(2, 1),
                "crop": integers(4, -most),
                "orientation": {"type": "integer", "minimum": 1, "maximum": 8},
                "assumed": flag,
            },
            "required": ["resized", "crop", "orientation", "assumed"],
            "additionalProperties": False,
        },
        "model": text,
        "weights_sha256": sha,
        "preprocess": text,
        "method": text,
        "layer": optional_text,
        "target": text,
        "class_index": {"type": ["integer", "null"]},
        "label": text,
        "score": number,
        "logit": number,
        "device": text,
        "precision": text,
        "accelerate": text,
        "versions": {"type": "object", "additionalProperties": text},
        "map": {"type": "string", "contentEncoding": "base64"},
        "map_shape": integers(2, 1),
        # Above this the values would be infinite in float32.
        "map_scale": {"type": "number", "exclusiveMinimum": 0, "maximum": 3.4028234663852886e38},
        "degenerate": flag,
        "quality": {"type": "object"},
        "created": {"type": "string", "format": "date-time"},
        "seconds": {"type": "number", "minimum": 0},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:visxai:explanation:{SCHEMA_VERSION}",
        "title": "visxai explanation",
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
