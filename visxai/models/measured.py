"""Figures that were measured on this machine once, and are kept in the cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import uuid
from functools import cache
from pathlib import Path


def read(folder: Path, name: str, key: str) -> float | None:
    """Read a figure that an earlier process kept.

    Args:
        folder: visxai's cache folder.
        name: What the figure is called, in a file's name.
        key: What it depends on, as text.

    Returns:
        The figure, more than 0; None where there is none, or a damaged one.
    """
    try:
        kept = float(json.loads(_place(folder, name, key).read_text("utf-8"))[name])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kept if kept > 0 else None


def keep(folder: Path, name: str, key: str, figure: float) -> None:
    """Keep a figure for later processes; a cache that can't be written keeps nothing."""
    place = _place(folder, name, key)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{uuid.uuid4().hex}.partial")
        partial.write_text(json.dumps({name: figure}), "utf-8")
        os.replace(partial, place)


def _place(folder: Path, name: str, key: str) -> Path:
    digest = hashlib.sha256(key.encode()).hexdigest()[:32]
    return folder / "measured" / f"{name}-{digest}.json"


@cache
def processor() -> str:
    """Return the processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    told = (
        line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "flags"))
    )
    return " ".join(dict.fromkeys(told))
