"""Canonical JSON: one text for one value, so that its hash says whether the value is the same."""

from __future__ import annotations

import datetime
import hashlib
import json
from typing import Any

from visxai.errors import ArgumentError


def canonical(value: Any) -> str:
    """Write a value as canonical JSON.

    Keys are sorted by code point, there is no white space, text isn't escaped beyond what JSON
    requires, and numbers have the shortest digits that give them back.

    Args:
        value: Mappings with text as keys, lists, text, booleans, None, and finite numbers.

    Returns:
        The text.

    Raises:
        ArgumentError: The value holds anything else.

    >>> canonical({"b": [1, 2.5, None], "a": "é"})
    '{"a":"é","b":[1,2.5,null]}'
    """
    try:
        text = json.dumps(
            value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
        text.encode("utf-8")
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            expected="values that JSON has, with finite numbers",
            got=str(error)[:200],
            remedy="pass plain values",
        ) from error
    return text


def sha256(data: str | bytes) -> str:
    """Return the SHA-256 of text (in UTF-8) or bytes, in hexadecimal."""
    return hashlib.sha256(data.encode("utf-8") if isinstance(data, str) else data).hexdigest()


def timestamp(seconds: float) -> str:
    """Write a time in seconds since 1970 as ISO 8601 in UTC, with microseconds.

    >>> timestamp(0)
    '1970-01-01T00:00:00.000000Z'
    """
    told = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return told.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> str:
    """Rewrite any ISO 8601 time as `timestamp` writes it; one without a zone is taken as UTC.

    Raises:
        ArgumentError: The text isn't such a time.

    >>> parse_time("2026-01-02T03:00+02:00")
    '2026-01-02T01:00:00.000000Z'
    """
    try:
        told = datetime.datetime.fromisoformat(text)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            expected="a time by ISO 8601", got=repr(text), remedy="write 2026-01-31T12:00:00Z"
        ) from error
    if told.tzinfo is None:
        told = told.replace(tzinfo=datetime.UTC)
    return told.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
