"""The differences between a run's settings and those of an earlier run, in a sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from visxai.errors import Argument, StoreError, Words

START_OVER: Words = (
    *("choose another ", Argument("out")),
    *(", or ", Argument("fresh", True), " to delete what is there and start over"),
)
MAKE_ROOM: Words = (
    *("make room there or choose another ", Argument("out")),
    " (what is finished is kept, the same command goes on from there)",
)

# Settings whose argument has another name, and those that follow from others.
_ARGUMENTS = {
    "methods": "method",
    "layers": "layer",
    "batch": "batch_size",
    "chunk": "chunk_size",
    "overlays": "style",
}
_FOLLOWS = {
    "model": ("weights", "preprocess", "activation", "labels", "layers"),
    "methods": ("layers",),
}


def differing(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> StoreError:
    """Make the error about a run whose settings differ from those that `out` was begun with."""
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    for cause, effects in _FOLLOWS.items():
        if cause in names:
            names = [name for name in names if name not in effects]
    before, now = ([_argument(name, one.get(name)) for name in names] for one in (old, new))
    return StoreError(
        expected=(f"the settings that {out} was begun with (", *_listed(before), ")"),
        got=_listed(now),
        remedy=("give those, ", *START_OVER),
        field=now[0].name if now else None,
    )


def _argument(name: str, value: Any) -> Argument:
    """Write a setting as the argument that it came from."""
    if isinstance(value, list):
        given = list(dict.fromkeys(one for one in value if one is not None))
        value = given if len(given) > 1 else next(iter(given), None)
    elif isinstance(value, Mapping):  # how overlays are drawn
        value = {part: one for part, one in value.items() if one not in (None, False)}
    return Argument(_ARGUMENTS.get(name, name), value)


def _listed(arguments: Sequence[Argument]) -> tuple[str | Argument, ...]:
    """Put commas between arguments."""
    return tuple(item for one in arguments for item in (", ", one))[1:]
