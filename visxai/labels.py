"""Class names: reading them from files and mappings, and finding a class by its name."""

from __future__ import annotations

import difflib
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from visxai.errors import ArgumentError, TargetError, UnknownName

_SHOWN = 3  # entries of a wrong mapping that the error message shows

_DIGITS = 18  # the most digits of a class's index

Labels = Sequence[str] | Mapping[Any, Any] | str | os.PathLike[str]


def read_labels(labels: Labels | None) -> tuple[str, ...] | None:
    """Read class names in the order of the classes.

    Args:
        labels: A sequence of names, a mapping {index: name} or {name: index}, the path of a file
            (JSON with any of these, or text with a name on each line), or None.

    Returns:
        The names, None where `labels` is None.

    Raises:
        ArgumentError: The file is missing, empty or no JSON, or the indices aren't 0 to n - 1.
    """
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
    """Order the names of {0: "cat"}, {"0": "cat"} or {"cat": 0} by their index."""
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
    """Return a class's label, or "class 7" where the model has no label for it."""
    return labels[index] if labels is not None and index < len(labels) else f"class {index}"


def class_of(text: str, labels: Sequence[str] | None) -> int:
    """Find the class of an index or a label: the whole label or one of its comma-separated names.

    Args:
        text: The index or the label, in upper or lower case.
        labels: The model's labels.

    Returns:
        The class's index. It isn't checked against the number of classes.

    Raises:
        UnknownName: No class has this label.
        TargetError: The model has no labels, or several classes share this label.
    """
    if (index := parse_index(text)) is not None:
        return index
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
    """Suggest at most four class names: those that contain the word, then those spelt alike."""
    names = {name.strip().casefold(): name.strip() for one in labels for name in one.split(",")}
    wanted = text.casefold()
    worded = [name for name in names if wanted in name.split()]
    alike = difflib.get_close_matches(wanted, names, n=4, cutoff=0.6)
    return [names[name] for name in dict.fromkeys([*worded, *alike])][:4]


def class_finder(labels: Sequence[str] | None) -> Callable[[str], int]:
    """Make a function that finds the class of a label or of an index written as text.

    Args:
        labels: The model's labels, in the order of the classes.

    Returns:
        The function, which caches its results. It raises UnknownName or TargetError for a label or
        an index that the model doesn't have.
    """
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
    """Parse a count or a class's index; return None for any other text.

    Text of more than 18 digits isn't parsed: no model has so many classes, and Python refuses to
    read very long numbers.
    """
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


def parse_number(text: str) -> float | None:
    """Parse a finite number; return None for any other text."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
