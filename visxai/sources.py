"""What a run explains: the images of files and folders, in order, each with its place."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from visxai import images
from visxai.errors import ArgumentError
from visxai.record import Failure
from visxai.results import is_results


def find(
    sources: Iterable[str | os.PathLike[str]], out: str | os.PathLike[str]
) -> Iterator[tuple[Path | Failure, Path]]:
    """The images of files and folders, each with the folder its output name is relative to.

    Results of visxai that lie below a folder aren't explained again.
    """
    given = [Path(os.path.abspath(source)) for source in sources]
    if not given:
        raise ArgumentError("expected at least one file or folder, got none: try '.'")
    tops = [path if path.is_dir() else path.parent for path in given]
    try:
        common = Path(os.path.commonpath(tops))
    except ValueError:  # on several drives
        common = None
    results = {Path(os.path.abspath(out)): True}
    for source, path, top in zip(sources, given, tops, strict=True):
        count = 0
        for item in images.find(source):
            where = Path(os.path.abspath(str(item.path if isinstance(item, Failure) else item)))
            if path != where and _within_results(where.parent, path, results):
                continue
            count += 1
            yield item, common or top
        if not count:
            raise ArgumentError(
                f"expected images of your own, got only results of visxai below {source}: "
                "name the folder of the photographs"
            )


def _within_results(folder: Path, top: Path, known: dict[Path, bool]) -> bool:
    if folder not in known:
        above = folder != top and _within_results(folder.parent, top, known)
        known[folder] = above or (folder != top and is_results(folder))
    return known[folder]
