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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_MOST = 40  # choices that a message lists in full


class VisxaiError(Exception):
    """The base class of the errors below: `except visxai.errors.VisxaiError` catches them all."""


class ArgumentError(VisxaiError, ValueError):
    """An argument is wrong."""


class UnknownName(ArgumentError):
    """A name that isn't among the choices; the message suggests those that may have been meant."""

    def __init__(
        self,
        kind: str,
        name: object,
        choices: Iterable[str],
        remedy: str = "",
        near: Sequence[str] | None = None,
    ) -> None:
        """Write the message.

        Args:
            kind: What the name stands for, such as "method".
            name: The unknown name.
            choices: The names that exist.
            remedy: A sentence that follows the suggestions.
            near: The names to suggest; None suggests those with a similar spelling.
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
        super().__init__(f"unknown {kind} {str(name)!r}: {hint}{' ' + remedy if remedy else ''}")


class TargetError(ArgumentError):
    """A target that doesn't fit the model's scores or the batch."""


class ModelError(VisxaiError):
    """A model can't be loaded or used."""


class LayerError(ModelError, ValueError):
    """A layer doesn't exist, didn't run, ran twice, or has no positions to map."""


class ImageError(VisxaiError):
    """An image can't be read safely."""


class StoreError(VisxaiError):
    """Results can't be read or written."""


class OutOfMemory(VisxaiError, MemoryError):
    """Memory ran out at the smallest size."""


class MissingExtra(VisxaiError, ImportError):
    """An optional dependency isn't installed."""


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
        raise MissingExtra(
            f"{purpose} needs the package {module.split('.')[0]!r}, which isn't installed: "
            f"pip install 'visxai[{extra}]'"
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
