"""Finding the images below a folder, in a fixed order, without following unsafe links."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from visxai.errors import ArgumentError, Failure
from visxai.foreign import shown
from visxai.images.decoding import RAW
from visxai.images.tars import ENDING

READ = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".avif", ".heic", ".heif", ".jfif", ".jpe", ".apng", ".dib"),
)
# Every file with an image's ending belongs to a run, also in formats that can't be decoded: it
# becomes a failure instead of being skipped silently.
EXTENSIONS = (
    *READ,
    *(".avifs", ".hif", ".jxl", ".jp2", ".j2k", ".jxr", ".psd", ".svg", ".ico", ".exr", ".hdr"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".qoi", ".pcx", *RAW),
)


def is_results(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder holds a run's results, whose pictures aren't images to explain."""
    try:
        about = json.loads(Path(folder, "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(about, dict) and "visxai_results" in about


def images_below(root: str | os.PathLike[str]) -> Iterator[Path | Failure]:
    """Yield the images below a folder, ordered by posix relative path.

    Hidden entries are skipped. Linked folders inside aren't entered: their images are found where
    they lie.

    Args:
        root: The folder; a file is yielded itself.

    Yields:
        The path of each image, or a Failure for what can't be followed safely: a link that leads
        out of the folder or nowhere, a folder that can't be listed.

    Raises:
        ArgumentError: The path is missing, or the folder holds no image.
    """
    top = Path(root)
    if not os.path.lexists(top):
        raise ArgumentError(
            f"expected an existing file or folder, got {shown(top)}: check the path"
        )
    if not top.is_dir():
        yield top
        return
    inside, empty = top.resolve(), True
    pending = [(top, True)]
    while pending:
        path, is_folder = pending.pop()
        item: Path | Failure | None = path
        if is_folder:
            try:
                pending += reversed(_entries(path))
                continue
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                item = Failure(
                    str(path), f"the folder can't be listed ({reason}): check its permissions"
                )
        elif path.is_symlink():
            item = _followed(path, inside)
        if item is not None:
            empty = False
            yield item
    if empty:
        tar = next(top.glob(f"*{ENDING}"), None)
        raise none_below(top, shown(top / f"*{ENDING}") if tar else "")


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """List the images, folders and linked folders in a folder as (path, is a folder), in order."""
    kept = []
    with os.scandir(folder) as entries:
        for entry in entries:
            is_folder = entry.is_dir(follow_symlinks=False)
            image = entry.name.lower().endswith(EXTENSIONS)
            if not entry.name.startswith(".") and (is_folder or image or os.path.isdir(entry.path)):
                # With a slash at its end a folder sorts where the paths of its files do.
                kept.append((entry.name + "/" * is_folder, Path(entry.path), is_folder))
    return [(path, is_folder) for _, path, is_folder in sorted(kept)]


def _followed(link: Path, inside: Path) -> Path | Failure | None:
    """Return a link to a file below `inside`, a Failure if it leads astray, None for a folder."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        return Failure(str(link), "the link leads nowhere: remove it or restore its target")
    if not target.is_relative_to(inside):
        return Failure(str(link), "the link leads out of the folder: copy its target inside")
    return None if target.is_dir() else link


def none_below(place: str | os.PathLike[str], tars: str = "") -> ArgumentError:
    """Make the error for a place without images; `tars` is a pattern that names its tars."""
    remedy = f"name its tars themselves, as in {tars}" if tars else "check the folder"
    return ArgumentError(
        f"expected images ({' '.join(READ)}), got none below {shown(place)}: {remedy}"
    )


def _longest() -> tuple[int, int]:
    """Return the most bytes of a name's component and of a name of several components.

    Windows refuses whole paths over 259 characters, unless its administrator has lifted that limit.
    """
    return (80, 120) if sys.platform == "win32" else (200, 1024)
