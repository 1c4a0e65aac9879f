"""Atomic writing of files and folders: written aside, synced, and renamed into place.

Whatever kills the process, and whenever, a reader sees either the old content or the new. What a
killed process was still writing has a temporary name, by which the next run recognises and
removes it. Files get the permissions that the umask leaves.
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
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path, PurePosixPath

from visxai.errors import StoreError, Words

# A dot, a version 4 UUID without its dashes, and an ending. It doesn't contain the final name,
# which may already be as long as the file system allows.
_TEMPORARY = re.compile(r"\.[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}\.part")

_AT_ONCE = 8  # files that are synced at the same time


def temporary(path: Path) -> Path:
    """Return a new temporary path in the folder of `path`, so that a rename stays on one disk."""
    return path.with_name(f".{uuid.uuid4().hex}.part")


def is_temporary(name: str) -> bool:
    """Tell whether a file's or folder's name is one that only `temporary` makes."""
    return _TEMPORARY.fullmatch(name) is not None


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path, which replaces `path` when the block ends without an error.

    Args:
        path: The file to write; its folder must exist.
        durable: Whether to sync the file and its folder. Without it a crash of the machine (not of
            the process) may leave the file empty, until `sync` is called.

    Yields:
        The temporary path, in the same folder.

    Raises:
        OSError: The file can't be written. The old file stays, the temporary file is removed.
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
    """Replace a file's content by text (UTF-8, line ends unchanged) or bytes.

    Args:
        path: The file to write; its folder must exist.
        content: The new content.
        durable: As for `replacing`.

    Raises:
        OSError: The file can't be written; the old file stays.
    """
    data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
    with replacing(path, durable=durable) as partial, open(partial, "wb") as file:
        file.write(data)


def keep(path: Path, data: bytes) -> None:
    """Write a file that is never changed, in half the time of `write`, and sync it.

    File and folder are synced at the same time, after the file got its name: should the machine
    crash before that has ended, the name may have other content, which the reader has to notice.

    Args:
        path: The file to write; its folder must exist.
        data: The content.

    Raises:
        OSError: The file can't be written.
    """
    with ThreadPoolExecutor(2, "visxai-sync") as pool:
        for one in begin_to_keep(path, data, pool):
            one.result()


def begin_to_keep(path: Path, data: bytes, pool: Executor) -> list[Future[None]]:
    """Write a file as `keep` does, without waiting for the disk.

    Args:
        path: The file to write; its folder must exist.
        data: The content.
        pool: Syncs file and folder.

    Returns:
        The two syncs; both have ended once the file survives a crash of the machine.

    Raises:
        OSError: The file can't be written.
    """
    write(path, data, durable=False)
    return [pool.submit(_sync, path), pool.submit(_sync_folder, path.parent)]


def sync(paths: Iterable[Path]) -> None:
    """Flush files that were written without `durable`, and their folders, to the disk.

    Several files are synced at once: the disk then waits for all of them together, about ten times
    faster than for each in turn. Missing files are skipped.

    Raises:
        OSError: A file can't be synced.
    """
    with ThreadPoolExecutor(_AT_ONCE, "visxai-sync") as pool:
        folders = dict.fromkeys(pool.map(_sync_if_there, paths))
    for folder in folders:
        if folder is not None:
            _sync_folder(folder)


@contextlib.contextmanager
def one_sentence(what: str, remedy: Words) -> Iterator[None]:
    """Turn an OSError, as of a full disk or a forbidden folder, into a StoreError of one sentence.

    Args:
        what: What was expected, such as "to write /out/report.html".
        remedy: What to do, such as "make room there and run it again".

    Raises:
        StoreError: The block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        parts = (remedy,) if isinstance(remedy, str) else remedy
        raise StoreError(
            (f"expected {what}, got: {reason}; ", *parts), expected=what, got=reason, remedy=remedy
        ) from error


def sweep(folder: Path) -> None:
    """Remove what a killed process was still writing from a folder and all folders below it."""
    for place, folders, names in os.walk(folder):
        for name in filter(is_temporary, names):
            Path(place, name).unlink(missing_ok=True)
        for name in filter(is_temporary, folders):
            shutil.rmtree(Path(place, name), ignore_errors=True)
        folders[:] = [name for name in folders if not is_temporary(name)]


def lock(path: Path, taken: StoreError) -> int:
    """Open a file and lock it; the system frees the lock when the file or the process is closed.

    Args:
        path: The file; it is created where it is missing.
        taken: The error to raise where another process holds the lock.

    Returns:
        The file descriptor, for `os.close`.

    Raises:
        StoreError: Another process holds the lock.
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
        raise taken from None
    return handle


# ---- folders -------------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing_folder(target: Path, mark: str) -> Iterator[Path]:
    """Yield a new folder, which replaces `target` when the block ends without an error.

    The files written are listed in the file `mark` inside the folder. Only files on such a list are
    ever replaced; files that somebody else added to `target` are kept in the new folder.

    Args:
        target: The folder to write. It may exist if it is empty or has a list.
        mark: The name of the list.

    Yields:
        The folder to write into, beside `target`.

    Raises:
        StoreError: `target` holds files that no list names.
        OSError: The folder can't be written. The old folder is still there, or the next call
            restores it.
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
    """Remove the files that `folder` lists in `mark`, and the folder if nothing else is in it."""
    listed = _listed(folder, mark)
    if listed is None:
        return
    for name in _files(folder):
        if name in listed:
            (folder / name).unlink()
    (folder / mark).unlink()
    prune(folder)


def prune(folder: Path, keep: Callable[[Path], bool] = lambda _: False) -> None:
    """Remove `folder` and the folders below it that hold no file, except those that `keep` accepts.

    Args:
        folder: The top folder.
        keep: Takes a folder's path and tells whether it stays although it is empty.
    """
    for place, _, _ in os.walk(folder, topdown=False):
        if not keep(Path(place)):
            with contextlib.suppress(OSError):  # the folder isn't empty
                os.rmdir(place)


def _recover(target: Path, old: Path, mark: str) -> None:
    """Complete a folder's replacement that was interrupted, at whatever step."""
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
    """Return the path of a replaced folder while files added to it are moved: always the same."""
    return target.with_name(f".{sha256(os.fsencode(target.name)).hexdigest()[:32]}.old")


def _check_free(target: Path, mark: str, written: Iterable[str]) -> None:
    """Raise StoreError where a new file would replace a file that somebody added."""
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
    """Write the list of a folder's files."""
    (folder / mark).write_text(json.dumps({"files": sorted(written)}, indent=1) + "\n", "utf-8")


def _listed(folder: Path, mark: str) -> frozenset[str] | None:
    """Read the names of the files that visxai wrote in a folder; return None without a list."""
    try:
        names = json.loads((folder / mark).read_text("utf-8"))["files"]
        return frozenset(str(name) for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(folder: Path) -> list[str]:
    """List the posix names of all files below a folder; links are listed, not followed."""
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
    """Sync a file and return its folder; return None where the file is missing."""
    try:
        _sync(path)
    except FileNotFoundError:
        return None
    return path.parent


def _sync_folder(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # some systems can't open a folder
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems can't sync a folder
            raise
    finally:
        os.close(handle)
