"""Writes files and folders aside, syncs them and renames them into place: whole, or not at all.

Whatever kills the process, and whenever, a reader sees the old content or the new. What such a
process was still writing has a name that nothing else has, by which the next run removes it. Files
get the permissions that the umask leaves.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path, PurePosixPath

from visxai.errors import StoreError

# A dot, a version 4 UUID without its dashes, and an ending; short, as the name of the file that is
# written may already be as long as the disk allows.
_TEMPORARY = re.compile(r"\.[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\.part")

_AT_ONCE = 8  # files that are synced together


def temporary(path: Path) -> Path:
    """Returns a new temporary name beside `path`, so that a rename stays on one disk."""
    return path.with_name(f".{uuid.uuid4().hex}.part")


def is_temporary(name: str) -> bool:
    """Tells whether a file or folder has a name that only `temporary` makes."""
    return _TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which takes its place when the block ends well.

    Args:
        path: The file to write; its folder must exist.
        durable: Sync the file and its folder. Without it a crash of the machine (not of the
            process) may leave the file empty, until `sync` is called.

    Raises:
        OSError: The file can't be written. The old one is there, the temporary one isn't.
    """
    partial = temporary(path)
    try:
        yield partial
        if durable:
            _sync(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        _sync_folder(path.parent)


def write(path: Path, content: str | bytes, *, durable: bool = True) -> None:
    """Writes text (UTF-8, lines ending as they are) or bytes in the place of `path`.

    Raises:
        OSError: The file can't be written; the old one is still there.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    with replacing(path, durable=durable) as partial, open(partial, "wb") as file:
        file.write(data)


def sync(paths: Iterable[Path]) -> None:
    """Brings files that were written without `durable`, and their folders, to the disk.

    Several at once: the disk then waits for all of them together, some ten times faster than one
    by one. Files that are missing are passed over.

    Raises:
        OSError: A file can't be brought to the disk.
    """
    with ThreadPoolExecutor(_AT_ONCE, "visxai-sync") as pool:
        folders = dict.fromkeys(pool.map(_sync_if_there, paths))
    for folder in folders:
        if folder is not None:
            _sync_folder(folder)


@contextlib.contextmanager
def one_sentence(what: str, remedy: str) -> Iterator[None]:
    """Raises what the system says about a full disk or a forbidden folder as a StoreError.

    Args:
        what: What was expected, such as "to write /out/report.html".
        remedy: What to do, such as "make room there and run it again".
    """
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StoreError(f"expected {what}, got: {reason}; {remedy}") from error


def sweep(folder: Path) -> None:
    """Removes from a folder and those below it what a killed process was still writing."""
    for place, folders, names in os.walk(folder):
        for name in filter(is_temporary, names):
            Path(place, name).unlink(missing_ok=True)
        for name in filter(is_temporary, folders):
            shutil.rmtree(Path(place, name), ignore_errors=True)
        folders[:] = [name for name in folders if not is_temporary(name)]


def lock(path: Path, taken: str) -> int:
    """Opens a file and locks it; the system frees the lock when the file or the process is closed.

    Returns:
        The open file, for `os.close`.

    Raises:
        StoreError: Another process has it; `taken` is the sentence.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise StoreError(taken) from None
    return handle


# ---- folders -------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing_folder(target: Path, mark: str) -> Iterator[Path]:
    """Yields a new folder, which takes the place of `target` when the block ends well.

    What was written is listed in the file `mark` inside it. Only what such a list names is ever
    replaced; files that somebody else added to `target` are kept in the new folder.

    Args:
        target: The folder to write. It may exist if it is empty or has a list.
        mark: The name of the list.

    Raises:
        StoreError: `target` holds files that nothing lists.
        OSError: It can't be written. The old folder is there, or comes back with the next call.
    """
    target = Path(os.path.realpath(target))
    old = _retired(target)
    _recover(target, old, mark)
    if target.exists() and any(target.iterdir()) and _listed(target, mark) is None:
        raise StoreError(
            f"expected {target} empty or an earlier export that lists its files, got other files "
            "there: choose another folder"
        )
    aside = temporary(target)
    try:
        aside.mkdir(parents=True)
        yield aside
        written = _files(aside)
        _check_free(target, mark, written)
        _mark(aside, mark, written)
        sync(path for name in [*written, mark] if not (path := aside / name).is_symlink())
        if target.exists():
            os.rename(target, old)
        os.rename(aside, target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        if old.exists() and not target.exists():
            os.rename(old, target)
    _recover(target, old, mark)


def remove_listed(folder: Path, mark: str) -> None:
    """Removes the files that `folder` lists in `mark`, and the folder if nothing else is in it."""
    listed = _listed(folder, mark)
    if listed is None:
        return
    for name in _files(folder):
        if name in listed:
            (folder / name).unlink()
    (folder / mark).unlink()
    prune(folder)


def prune(folder: Path, keep: Callable[[Path], bool] = lambda _: False) -> None:
    """Removes `folder` and the folders below it that hold no file."""
    for place, _, _ in os.walk(folder, topdown=False):
        if not keep(Path(place)):
            with contextlib.suppress(OSError):  # something is in it
                os.rmdir(place)


def _recover(target: Path, old: Path, mark: str) -> None:
    """Ends the replacing of a folder, wherever it was broken off."""
    if not old.exists():
        return
    if not target.exists():
        os.rename(old, target)
        return
    listed = _listed(old, mark) or frozenset()
    for name in _files(old):
        if name == mark or name in listed:
            continue
        kept = target / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(kept):
            os.rename(old / name, kept)
    for name in _files(old):
        if name in listed:
            (old / name).unlink()
    (old / mark).unlink(missing_ok=True)
    prune(old)


def _retired(target: Path) -> Path:
    """The place of a replaced folder until what was added to it has moved: always the same."""
    return target.with_name(f".{sha256(os.fsencode(target.name)).hexdigest()[:32]}.old")


def _check_free(target: Path, mark: str, written: Iterable[str]) -> None:
    """Raises StoreError where a new file would take the place of one that somebody added."""
    listed = _listed(target, mark) or frozenset()
    new = {PurePosixPath(name) for name in written}
    folders = {folder for name in new for folder in name.parents}
    for name in _files(target):
        path = PurePosixPath(name)
        if name == mark or name in listed:
            continue
        if path in new | folders or not new.isdisjoint(path.parents):
            raise StoreError(
                f"expected no file of yours named {name} in {target}, got one: rename it, or "
                "choose another folder"
            )


def _mark(folder: Path, mark: str, written: Iterable[str]) -> None:
    (folder / mark).write_text(json.dumps({"files": sorted(written)}, indent=1) + "\n", "utf-8")


def _listed(folder: Path, mark: str) -> frozenset[str] | None:
    """The files that a folder lists as written by visxai, None where it has no such list."""
    try:
        names = json.loads((folder / mark).read_text("utf-8"))["files"]
        return frozenset(str(name) for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(folder: Path) -> list[str]:
    """The posix names of all files below a folder, links not followed."""
    found = []
    for place, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        paths = (Path(place, name) for name in names + links)
        found += [path.relative_to(folder).as_posix() for path in paths]
    return found


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _sync_if_there(path: Path) -> Path | None:
    """Syncs a file, and returns its folder; None where there is no such file."""
    try:
        _sync(path)
    except FileNotFoundError:
        return None
    return path.parent


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a folder can't be opened everywhere
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # nor synced
            raise
    finally:
        os.close(handle)
