"""Checks untrusted data against a JSON Schema, for the keywords that visxai's own schemas use.

    mismatch({"width": 0}, {"properties": {"width": {"minimum": 1}}})      "width"

Types, ranges and sizes are checked; patterns and formats aren't, since no code that reads the data
relies on them. Numbers and arrays of NumPy and pandas count as JSON's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

Schema = Mapping[str, Any]


def mismatch(value: Any, schema: Schema, name: str = "") -> str | None:
    """Find the first part of a value that breaks a schema.

    Args:
        value: Data as JSON, TOML or a table give it.
        schema: A schema of the keywords type, const, enum, minimum, maximum, exclusiveMinimum,
            minItems, maxItems, items, properties, required and additionalProperties.
        name: The name of the value, which prefixes the result.

    Returns:
        The dotted name of the first part that breaks the schema, None where the value is valid.
    """
    kinds = schema.get("type", ())
    if isinstance(kinds, str):
        if not _TYPES[kinds](value):
            return name
    elif kinds and not any(_TYPES[kind](value) for kind in kinds):
        return name
    if "const" in schema and value != schema["const"]:
        return name
    if "enum" in schema and not any(value == choice for choice in schema["enum"]):
        return name
    if isinstance(value, str):
        return None
    if _is_real(value):
        return None if _in_range(value, schema) else name
    if isinstance(value, Mapping):
        return _in_object(value, schema, name)
    if _is_array(value):
        return _in_array(value, schema, name)
    return None


def _in_range(value: Any, schema: Schema) -> bool:
    return (
        ("minimum" not in schema or value >= schema["minimum"])
        and ("maximum" not in schema or value <= schema["maximum"])
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
    )


def _in_object(value: Mapping[Any, Any], schema: Schema, name: str) -> str | None:
    known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
    for key in schema.get("required", ()):
        if key not in value:
            return _dotted(name, key)
    for key, item in value.items():
        expected = known.get(key, others)
        if expected is False:
            return _dotted(name, key)
        if expected is not True:
            found = mismatch(item, expected)
            if found is not None:
                return _dotted(name, key, found)
    return None


def _in_array(value: Sequence[Any], schema: Schema, name: str) -> str | None:
    if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
        return name
    expected = schema.get("items", {})
    for index, item in enumerate(value):
        found = mismatch(item, expected)
        if found is not None:
            return _dotted(name, index, found)
    return None


def _dotted(*parts: object) -> str:
    return ".".join(str(one) for one in parts if one != "")


def _is_real(value: Any) -> bool:
    # Most numbers are plain, and asking an abstract class takes ten times as long.
    return type(value) in (int, float) or isinstance(value, Real)


def _is_number(value: Any) -> bool:
    return _is_real(value) and not _is_flag(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def _is_array(value: Any) -> bool:
    return isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim == 1)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "null": lambda value: value is None,
    "boolean": _is_flag,
    "number": _is_number,
    "integer": lambda value: _is_number(value) and value % 1 == 0,
    "string": lambda value: isinstance(value, str),
    "array": _is_array,
    "object": lambda value: isinstance(value, Mapping),
}
