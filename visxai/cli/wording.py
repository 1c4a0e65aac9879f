"""Words errors for the command line: with its options, where Python has arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from visxai.errors import Argument, VisxaiError

_OPTIONS = {
    "out": "--out",
    "fresh": "--fresh",
    "model": "--model",
    "method": "--method",
    "layer": "--layer",
    "metrics": "--metrics",
    "target": "--target",
    "only": "--only",
    "check": "--check",
    "device": "--device",
    "precision": "--precision",
    "accelerate": "--accelerate",
    "batch_size": "--batch-size",
    "chunk_size": "--chunk-size",
    "path_column": "--path-column",
    "text_column": "--text-column",
    "label_column": "--label-column",
    "truth": "--truth",
    "max_pixels": "--limit-pixels",
    "style": "--overlay-format",
    "format": "--overlay-format",
    "colormap": "--colormap",
    "panel": "--panel",
}
_LONGEST = 80  # characters of a value that are shown


def sentence(error: VisxaiError) -> str:
    """Return what an error says, in the words of the command line."""
    return error.worded(_option)


def _option(argument: Argument) -> str:
    """Write an argument as its option, where it has an option."""
    name, value = argument.name, argument.value
    if isinstance(value, Mapping):
        return " ".join(_option(Argument(part, one)) for part, one in value.items())
    option = _OPTIONS.get(name, name)
    if value is ... or value is True:
        return option
    if value is None:  # no style is no overlays
        return f"{option} none" if name == "style" else f"no {option}"
    return f"{option} {_cut(value)}"


def _cut(value: Any) -> str:
    values = value if isinstance(value, list) else [value]
    said = ",".join(str(one) for one in values)
    return said if len(said) <= _LONGEST else f"{said[: _LONGEST - 1]}…"
