"""Figures that were measured on this machine once, and are kept in the cache folder.

What a figure depends on, its subject, is kept beside it: the model and its weights, the size of its
input, versions, processor and threads. Figures of another subject are never read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

Subject = tuple[str, ...]


def read(folder: Path, name: str, subject: Subject, figures: Sequence[str]) -> dict[str, float]:
    """Read figures that an earlier process kept.

    Args:
        folder: visxai's cache folder.
        name: What was measured, in a file's name.
        subject: What the figures depend on.
        figures: The figures' names.

    Returns:
        The figures, each more than 0; empty where there are none, or damaged ones.
    """
    found = _content(_place(folder, name, subject))
    if found is None or found[0] != subject or not set(figures) <= set(found[1]):
        return {}
    return found[1]


def keep(folder: Path, name: str, subject: Subject, figures: Mapping[str, float]) -> None:
    """Keep figures for later processes; a cache that can't be written keeps nothing."""
    place = _place(folder, name, subject)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{uuid.uuid4().hex}.partial")
        partial.write_text(json.dumps({"subject": subject, "figures": dict(figures)}), "utf-8")
        os.replace(partial, place)


def kept(folder: Path, name: str) -> Iterator[tuple[Subject, dict[str, float]]]:
    """Yield the subjects and figures of all measurements called `name`."""
    for place in sorted((folder / "measured").glob(f"{name}-*.json")):
        found = _content(place)
        if found is not None:
            yield found


def _content(place: Path) -> tuple[Subject, dict[str, float]] | None:
    """Read a file of figures; None where there is none, or a damaged one."""
    try:
        content = json.loads(place.read_text("utf-8"))
        figures = {str(name): float(figure) for name, figure in content["figures"].items()}
        subject = tuple(str(part) for part in content["subject"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    sound = all(math.isfinite(figure) and figure > 0 for figure in figures.values())
    return (subject, figures) if sound else None


def _place(folder: Path, name: str, subject: Subject) -> Path:
    digest = hashlib.sha256("\n".join(subject).encode()).hexdigest()[:32]
    return folder / "measured" / f"{name}-{digest}.json"


@cache
def processor() -> str:
    """Return the processor's name and a digest of what it can do, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = {
        start: next(
            (line.partition(":")[2].strip() for line in lines if line.startswith(start)), ""
        )
        for start in ("model name", "flags")
    }
    return f"{told['model name']} {hashlib.sha256(told['flags'].encode()).hexdigest()[:8]}"
