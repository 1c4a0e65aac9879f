"""Data held against a schema: the first part that doesn't fit is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from visxai.schemas import mismatch

SCHEMA = {
    "type": "object",
    "properties": {
        "side": {"type": "integer", "minimum": 1, "maximum": 9},
        "scale": {"type": "number", "exclusiveMinimum": 0},
        "name": {"type": ["string", "null"]},
        "form": {"const": 1},
        "kind": {"enum": ["image", "text"]},
        "sides": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
        "flag": {"type": "boolean"},
        "more": {"type": "object", "additionalProperties": {"type": "string"}},
        "strict": {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
    },
    "required": ["side"],
}


@pytest.mark.parametrize(
    "fields",
    [
        {"side": 9, "scale": 0.5, "name": None, "form": 1, "kind": "text", "flag": True},
        {"side": np.int32(3), "scale": np.float32(1), "flag": np.True_},
        {"side": 3.0, "sides": np.array([1, 2]), "unknown": object()},
        {"side": 1, "sides": (1, 2), "more": {"torch": "2"}, "strict": {"a": 1}},
    ],
)
def test_what_fits(fields: dict[str, Any]) -> None:
    assert mismatch(fields, SCHEMA) is None


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, "side"),
        ([], ""),
        ({"side": 0}, "side"),
        ({"side": 10}, "side"),
        ({"side": 2.5}, "side"),
        ({"side": float("inf")}, "side"),
        ({"side": True}, "side"),
        ({"side": 1, "scale": float("nan")}, "scale"),
        ({"side": 1, "scale": 0}, "scale"),
        ({"side": 1, "name": 3}, "name"),
        ({"side": 1, "form": 2}, "form"),
        ({"side": 1, "kind": []}, "kind"),
        ({"side": 1, "sides": [1]}, "sides"),
        ({"side": 1, "sides": [1, "2"]}, "sides.1"),
        ({"side": 1, "sides": "12"}, "sides"),
        ({"side": 1, "flag": 1}, "flag"),
        ({"side": 1, "more": {"torch": 2}}, "more.torch"),
        ({"side": 1, "strict": {"b": 1}}, "strict.b"),
    ],
)
def test_the_first_that_does_not_fit_is_named(fields: Any, wrong: str) -> None:
    assert mismatch(fields, SCHEMA) == wrong
