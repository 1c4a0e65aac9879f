"""Files that earlier runs left in OUT: recognises them, and removes them and nothing else."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from visxai import files
from visxai.errors import Argument, StoreError
from visxai.results.reading import EXPORTED, parts

# The folders of OUT that visxai writes into.
_FOLDERS = ("explanations", "overlays", "report", "export")
_PICTURE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{24}\.webp")


def check_empty(out: Path) -> None:
    """Raise StoreError where OUT, which has no run.json, holds files that no run leaves there."""
    if not out.is_dir():
        return
    for entry in sorted(out.iterdir()):
        if not _is_left_by_a_start(entry):
            raise StoreError(
                expected=f"{out} empty or the results of visxai",
                got=f"{entry.name} in it without their run.json and inputs.parquet",
                remedy=("choose another ", Argument("out")),
                field="out",
            )


def _is_left_by_a_start(entry: Path) -> bool:
    """Tell whether a run that was killed at its start can leave such an entry in OUT."""
    if entry.name in _FOLDERS and entry.is_dir():
        return all(files.is_temporary(name) for *_, names in os.walk(entry) for name in names)
    return entry.name == ".lock" or files.is_temporary(entry.name)


def sweep(out: Path) -> None:
    """Remove the files that killed processes were still writing."""
    for entry in list(out.iterdir()):
        if files.is_temporary(entry.name) and not entry.is_dir():
            entry.unlink(missing_ok=True)
    for name in _FOLDERS:
        files.sweep(out / name)


def remove(out: Path, names: Container[str], settings: Mapping[str, Any]) -> None:
    """Remove the files of a run, and those that `visxai report` and `visxai export` made of it.

    Files that somebody else put there stay. run.json stays too, as it marks the rest as visxai's.
    Parts are removed first, so that the next run, which finds no parts, completes an interrupted
    removal.

    Args:
        out: The folder.
        names: The names that the run's overlays begin with (`Input.name`).
        settings: The settings of the run.
    """
    for part in parts(out).values():
        part.unlink()
    _remove_overlays(out / "overlays", names, settings)
    pictures = out / "report" / "pictures"
    for picture in pictures.glob("*/*.webp"):
        if _PICTURE.fullmatch(picture.relative_to(pictures).as_posix()):
            picture.unlink()
    for mark in (out / "export").glob(f"*/{EXPORTED}"):
        files.remove_listed(mark.parent, EXPORTED)
    tables = ("failures.parquet", "scores.parquet", "inputs.parquet")
    for name in ("report/index.html", "report.html", *tables):
        (out / name).unlink(missing_ok=True)
    for page in (out / "report").glob("page-*.html"):
        page.unlink()
    files.prune(pictures)
    for name in ("report", "export"):
        with contextlib.suppress(OSError):  # missing, or it holds files of somebody else
            (out / name).rmdir()


def _remove_overlays(overlays: Path, names: Container[str], settings: Mapping[str, Any]) -> None:
    """Remove the overlays whose names a run of these settings gives to its images."""
    style = settings.get("overlays")
    if not isinstance(style, Mapping):
        return
    methods = {re.escape(str(spec).partition("(")[0]) for spec in settings.get("methods", ())}
    # IMAGE[.METHOD[-2]][.CLASS].FORMAT
    method = rf"(?:\.(?:{'|'.join(methods)})(?:-\d+)?)?"
    ending = re.compile(rf"{method}(?:\.\d+)?\.{re.escape(str(style.get('format')))}$")
    for place, _, found in os.walk(overlays):
        for name in found:
            path = Path(place, name)
            if _image(path.relative_to(overlays).as_posix(), ending, names):
                path.unlink()
    files.prune(overlays, keep=lambda folder: folder == overlays)


def _image(name: str, ending: re.Pattern[str], names: Container[str]) -> bool:
    """Tell whether an overlay's name is the name of an image followed by an ending."""
    return any(
        ending.fullmatch(name, at) and name[:at] in names
        for at in range(len(name))
        if name[at] == "."
    )
