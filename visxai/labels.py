"""Names of classes: read from files and mappings, and looked up."""

from __future__ import annotations

import difflib
import json
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from visxai.errors import ArgumentError, TargetError, UnknownName

_SHOWN = 3  # entries of a wrong mapping that its refusal shows

_DIGITS = 18  # of an index: more are no class

Labels = Sequence[str] | Mapping[Any, Any] | str | os.PathLike[str]


def read_labels(labels: Labels | None) -> tuple[str, ...] | None:
    """Class names in order, from a sequence, {index: name}, {name: index}, or a file of them:
    JSON, or one name a line."""
    if labels is None:
        return None
    if isinstance(labels, (str, os.PathLike)):
        path = Path(labels)
        if not path.is_file():
            raise ArgumentError(
                f"expected labels as a list or a file of them, found no file {str(path)!r}: "
                "write one name a line, or pass labels=[...]"
            )
        text = path.read_text("utf-8-sig")
        if path.suffix != ".json":
            names = tuple(text.rstrip("\r\n").splitlines())
            if not names:
                raise ArgumentError(f"expected names in {path.name}, found none: write one a line")
            return names
        try:
            labels = json.loads(text)
        except json.JSONDecodeError as error:
            raise ArgumentError(
                f"expected JSON in {path.name}, got something else ({error}): write a list of "
                "names, or one name a line in a .txt"
            ) from None
    if isinstance(labels, Mapping):
        return _numbered(labels)
    if not isinstance(labels, Sequence):
        raise ArgumentError(
            f"expected labels as names in order, got {type(labels).__name__}: pass labels=[...]"
        )
    return tuple(str(label) for label in labels)


def _numbered(labels: Mapping[Any, Any]) -> tuple[str, ...]:
    """{0: "cat"}, {"0": "cat"} or {"cat": 0} as names in order."""
    try:
        by_index = {int(key): str(value) for key, value in labels.items()}
    except ValueError:
        try:
            by_index = {int(value): str(key) for key, value in labels.items()}
        except (TypeError, ValueError):
            by_index = {}
    if sorted(by_index) != list(range(len(labels))) or not by_index:
        raise ArgumentError(
            f"expected labels numbered from 0 to {len(labels) - 1}, each once, got "
            f"{', '.join(map(str, list(labels.items())[:_SHOWN]))}: pass labels=[...] in order"
        )
    return tuple(by_index[index] for index in range(len(by_index)))


def label_of(labels: Sequence[str] | None, index: int) -> str:
    """A class's label, or "class 7" where the model has no labels for it."""
    return labels[index] if labels is not None and index < len(labels) else f"class {index}"


UNKNOWN: Sequence[str] = ["the labels of a model that isn't loaded yet"]


def class_of(text: str, labels: Sequence[str] | None) -> int:
    """A class written as an index or a label: whole, or one of its comma-separated names."""
    if (index := parse_index(text)) is not None:
        return index
    if labels is UNKNOWN:
        # Only the form is checked: any number does, another for another name, so that a name
        # given twice is told.
        return zlib.crc32(text.casefold().encode("utf-8", "backslashreplace"))
    if not labels:
        raise TargetError(
            f"expected a class index, got {text!r}: this model has no labels, pass labels=[...]"
        )
    wanted = text.casefold()
    exact = [i for i, label in enumerate(labels) if label.casefold() == wanted]
    partly = [
        i
        for i, label in enumerate(labels)
        if wanted in (name.strip().casefold() for name in label.split(","))
    ]
    found = exact or partly
    if not found:
        near = near_labels(text, labels)
        where = "" if near else "(engine.model.labels has them all; class=INDEX needs no name)"
        raise UnknownName("label", text, labels, where, near)
    if len(found) > 1:
        raise TargetError(
            f"expected a label of one class, got {text!r}, which names the classes "
            f"{', '.join(map(str, found))}: use class=INDEX"
        )
    return found[0]


def near_labels(text: str, labels: Sequence[str]) -> list[str]:
    """At most four names of classes that may have been meant: with that word, or spelt alike."""
    names = {name.strip().casefold(): name.strip() for one in labels for name in one.split(",")}
    wanted = text.casefold()
    worded = [name for name in names if wanted in name.split()]
    alike = difflib.get_close_matches(wanted, names, n=4, cutoff=0.6)
    return [names[name] for name in dict.fromkeys([*worded, *alike])][:4]


def class_finder(labels: Sequence[str] | None) -> Callable[[str], int]:
    """What finds the class of a label, or of an index written as one; labels the model doesn't
    have raise UnknownName or TargetError."""
    often = Counter(labels or ())
    known = {label: index for index, label in enumerate(labels or ()) if often[label] == 1}

    def find(label: str) -> int:
        if label not in known:
            found = class_of(label.strip(), labels)
            if labels and found >= len(labels):
                raise TargetError(
                    f"expected a class from 0 to {len(labels) - 1}, got {label}: the model has "
                    f"{len(labels)} classes"
                )
            known[label] = found
        return known[label]

    return find


def parse_index(text: str) -> int | None:
    """A count or a class's index as it is written; None for anything else, and for one of more
    digits than any model has classes, which Python may refuse to read."""
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


def parse_number(text: str) -> float | None:
    """A finite number as it is written; None for anything else."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
