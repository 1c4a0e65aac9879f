"""Checks an option's value against the annotation of its field.

    fitted(3.0, float), fitted([7, 7], tuple[int, int])      3.0, (7, 7)
    fitted(10.5, int)                                        TypeError

A valid value is returned as the plain Python value that a spec's text can express, so that parsing
a spec's repr gives the spec again: NumPy's numbers become Python's and lists become tuples.
Infinities are refused.
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_INTEGERS = range(-(2**63), 2**64)  # the seeds that a random generator accepts
_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    NoneType: "None",
}


def fitted(value: Any, hint: Any) -> Any:
    """Convert `value` to the plain Python form of an annotation.

    Args:
        value: The option's value.
        hint: None, bool, int, float, str, Any, a class, or tuples, unions and literals of them.
            For a literal only the type is checked: the class checks the values itself.

    Returns:
        The value itself, or its plain Python form.

    Raises:
        TypeError: The value is of another type, a float isn't finite, or an int exceeds 64 bits.
    """
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, UnionType):
        return _one_of(value, get_args(hint))
    if origin is Literal:
        return _one_of(value, tuple({type(choice) for choice in get_args(hint)}))
    if origin is tuple:
        return _items(value, get_args(hint))
    if hint is int:
        return _integer(value)
    if hint is float:
        return _finite(value)
    if not isinstance(value, NoneType if hint is None else hint):
        raise TypeError
    return value


def told(hint: Any) -> str:
    """Describe an annotation in words: "a whole number or None"."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(told(part) for part in parts)
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin is tuple:
        many = parts[-1] is ...
        return f"a tuple of {told(parts[0])}" + (" each" if many else f", {len(parts)} of them")
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def _one_of(value: Any, hints: tuple[Any, ...]) -> Any:
    for hint in hints:
        try:
            return fitted(value, hint)
        except TypeError:
            continue
    raise TypeError


def _items(value: Any, hints: tuple[Any, ...]) -> tuple[Any, ...]:
    many = hints[-1] is ...
    if many and not isinstance(value, (list, tuple)):
        value = (value,)  # a single item also stands for a tuple of any length
    if not isinstance(value, (list, tuple)) or not (many or len(value) == len(hints)):
        raise TypeError
    each = hints[:1] * len(value) if many else hints
    return tuple(fitted(item, hint) for item, hint in zip(value, each, strict=True))


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError
    number = int(value)  # `in` would search the range linearly for any other integer type
    if number not in _INTEGERS:
        raise TypeError
    return number


def _finite(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, Real)):
        raise TypeError
    try:
        number = float(value)
    except OverflowError:
        raise TypeError from None
    if not math.isfinite(number):
        raise TypeError
    return value if isinstance(value, int) else number
