"""The differences between a run's settings and those of an earlier run, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The command-line option of each setting, and the settings that others determine.
_OPTIONS = {
    "model": "--model",
    "methods": "--method",
    "layers": "--layer",
    "metrics": "--metrics",
    "target": "--target",
    "only": "--only",
    "check": "--check",
    "device": "--device",
    "precision": "--precision",
    "accelerate": "--accelerate",
    "batch": "--batch-size",
    "chunk": "--chunk-size",
    "max_pixels": "--limit-pixels",
    "overlays": "--overlay-format",
    "format": "--overlay-format",
    "colormap": "--colormap",
    "panel": "--panel",
}
_FOLLOWS = {
    "model": ("weights", "preprocess", "activation", "labels", "layers"),
    "methods": ("layers",),
}


def _difference(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Write the error message about settings that differ from those of the run in OUT."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    for cause, effects in _FOLLOWS.items():
        if cause in names:
            names = [name for name in names if name not in effects]
    told, now = (", ".join(_told(name, one.get(name)) for name in names) for one in (old, new))
    return (
        f"expected the settings that {out} was begun with ({told}), got {now}: give those, choose "
        "another --out, or --fresh to delete what is there and start over"
    )


def _told(name: str, value: Any) -> str:
    """Write a setting as its command-line option, where it has an option."""
    if isinstance(value, dict):  # how overlays are drawn
        parts = (_told(part, inner) for part, inner in value.items() if inner not in (None, False))
        return " ".join(parts)
    option = _OPTIONS.get(name, name)
    if value is True:
        return option
    values = value if isinstance(value, list) else [value]
    told = ",".join(dict.fromkeys(str(one) for one in values if one is not None))
    if not told:
        return f"{option} none" if name == "overlays" else f"no {option}"
    return f"{option} {told}" if len(told) <= 80 else f"{option} {told[:79]}…"
