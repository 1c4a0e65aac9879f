"""The errors that visxai raises on purpose: each message says expected, actual and remedy.

VisxaiError
├── ArgumentError (ValueError)     an argument is wrong: a name, a number, a combination
│   ├── UnknownName                no such method, model, layer, label: lists the choices
│   └── TargetError                a target that doesn't fit the scores or the batch
├── ModelError                     the model can't be loaded, or outputs something unexpected
│   └── LayerError                 a layer that doesn't exist, doesn't run, or isn't spatial
├── ImageError                     an image can't be read safely
├── StoreError                     results can't be read or written
├── OutOfMemory (MemoryError)      memory ran out and no smaller batch is left to try
└── MissingExtra (ImportError)     an optional dependency isn't installed
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

_MOST = 40  # choices that are listed whole
_LONGEST = 80  # characters of a value that are shown


@dataclass(frozen=True)
class Argument:
    """An argument that a sentence mentions, so that each surface can name it in its own words.

    Attributes:
        name: Its name in Python.
        value: The value that matters, `...` where none does; a mapping is an object's fields.

    >>> print(Argument("out"), Argument("fresh", True), Argument("style", {"format": "png"}))
    out fresh=True style=Style(format='png')
    """

    name: str
    value: Any = ...

    def __str__(self) -> str:
        if self.value is ...:
            return self.name
        if isinstance(self.value, Mapping):
            inner = ", ".join(f"{name}={value!r}" for name, value in self.value.items())
            return f"{self.name}={self.name.capitalize()}({inner})"
        said = repr(self.value)
        return f"{self.name}={said}" if len(said) <= _LONGEST else f"{self.name}={said[:79]}…"


Words = str | tuple[str | Argument, ...]  # a part of a sentence


class VisxaiError(Exception):
    """The root: `except visxai.errors.VisxaiError` catches all of them.

    Attributes:
        code: The kind of error, a word that stays the same from version to version.
        expected: What was expected, None where the sentence isn't divided into its parts.
        got: What came instead.
        remedy: What to do.
        field: The argument that is wrong, by its name in Python.

    >>> error = ArgumentError(expected="a side above 0", got="0", remedy="use 8", field="window")
    >>> print(error)
    expected a side above 0, got 0: use 8
    >>> error.code, error.field
    ('argument', 'window')
    """

    code: ClassVar[str] = "error"

    def __init__(
        self,
        sentence: Words = "",
        *,
        expected: Words | None = None,
        got: Words | None = None,
        remedy: Words | None = None,
        field: str | None = None,
    ) -> None:
        """Make an error of its sentence, of the sentence's parts, or of both.

        Args:
            sentence: The whole; without one it is "expected X, got Y: remedy".
            expected: What was expected.
            got: What came instead.
            remedy: What to do.
            field: The argument that is wrong, by its name in Python.
        """
        self._words = _items(sentence) if sentence else _sentence(expected, got, remedy)
        super().__init__(_joined(self._words))
        self.expected = None if expected is None else _joined(_items(expected))
        self.got = None if got is None else _joined(_items(got))
        self.remedy = None if remedy is None else _joined(_items(remedy))
        self.field = field

    def __reduce__(self) -> tuple[Any, ...]:
        # Kinds have their own ways to be made from parts; what they have become crosses processes.
        return _restored, (type(self), self.args, self.__dict__)

    def worded(self, name: Callable[[Argument], str]) -> str:
        """Return the sentence with its arguments as `name` calls them."""
        return _joined(self._words, name)

    def to_dict(self) -> dict[str, str | None]:
        """Return the error as plain values, for logs and answers over HTTP."""
        return {
            "code": self.code,
            "message": str(self),
            "expected": self.expected,
            "got": self.got,
            "remedy": self.remedy,
            "field": self.field,
        }


def _items(words: Words) -> tuple[str | Argument, ...]:
    return (words,) if isinstance(words, str) else words


def _joined(items: Iterable[str | Argument], name: Callable[[Argument], str] = str) -> str:
    return "".join(item if isinstance(item, str) else name(item) for item in items)


def _sentence(
    expected: Words | None, got: Words | None, remedy: Words | None
) -> tuple[str | Argument, ...]:
    """Join the parts that are given into one sentence."""
    made: tuple[str | Argument, ...] = ()
    for before, words in (("expected ", expected), (", got ", got), (": ", remedy)):
        if words is not None:
            made += (before if made else before.lstrip(", :"), *_items(words))
    return made


def _restored(
    kind: type[VisxaiError], args: tuple[Any, ...], state: Mapping[str, Any]
) -> VisxaiError:
    # Not kind.__new__, which MemoryError refuses to OutOfMemory.
    error = Exception.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class ArgumentError(VisxaiError, ValueError):
    """An argument is wrong."""

    code = "argument"


class UnknownName(ArgumentError):
    """A name that isn't among the choices; the message suggests those that may have been meant."""

    code = "unknown_name"

    def __init__(
        self,
        kind: str,
        name: object,
        choices: Iterable[str],
        remedy: str = "",
        near: Sequence[str] | None = None,
        field: str | None = None,
    ) -> None:
        """Write the message.

        Args:
            kind: What the name stands for, such as "method".
            name: The unknown name.
            choices: The names that exist.
            remedy: A sentence that follows the suggestions.
            near: The names to suggest; None suggests those with a similar spelling.
            field: The argument that is wrong, by its name in Python.
        """
        known = list(choices)
        if near is None:
            near = difflib.get_close_matches(str(name), known, n=4, cutoff=0.6)
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        elif len(known) > _MOST:
            hint = f"choose one of {len(known)}, such as {', '.join(known[:4])}"
        else:
            hint = f"choose one of: {', '.join(known)}" if known else "there are none"
        advice = f"{hint}{' ' + remedy if remedy else ''}"
        super().__init__(
            f"unknown {kind} {str(name)!r}: {advice}",
            expected=f"a known {kind}",
            got=repr(str(name)),
            remedy=advice,
            field=field,
        )


class TargetError(ArgumentError):
    """A target that doesn't fit the model's scores or the batch."""

    code = "target"


class ModelError(VisxaiError):
    """A model can't be loaded or used."""

    code = "model"


class LayerError(ModelError, ValueError):
    """A layer doesn't exist, didn't run, ran twice, or has no positions to map."""

    code = "layer"


class ImageError(VisxaiError):
    """An image can't be read safely."""

    code = "image"


class StoreError(VisxaiError):
    """Results can't be read or written."""

    code = "store"


class OutOfMemory(VisxaiError, MemoryError):
    """Memory ran out at the smallest size."""

    code = "out_of_memory"


class MissingExtra(VisxaiError, ImportError):
    """An optional dependency isn't installed."""

    code = "missing_extra"


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional module; raise MissingExtra with the install command where it is missing.

    Args:
        module: The module's full name.
        extra: The extra of visxai that installs it.
        purpose: What needs it, as the beginning of the error's sentence.

    Returns:
        The module.

    Raises:
        MissingExtra: The module isn't installed.

    Example:
        >>> require("json", "demo", "reading").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package, remedy = module.split(".")[0], f"pip install 'visxai[{extra}]'"
        raise MissingExtra(
            f"{purpose} needs the package {package!r}, which isn't installed: {remedy}",
            expected=f"the package {package!r}",
            got="none",
            remedy=remedy,
        ) from error


@dataclass(frozen=True)
class Failure:
    """An image that could not be explained, and the reason.

    Attributes:
        path: The image's address, None where it has none.
        reason: The reason in one sentence.
        kind: The name of the error's class.
    """

    path: str | None
    reason: str
    kind: str = "ImageError"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON."""
        return {"path": self.path, "reason": self.reason, "kind": self.kind}
