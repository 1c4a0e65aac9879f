"""The sources of a run: images of files, folders, lists, tables, tars and URLs, in order.

photos  owl.jpg        files, and folders with all images below them
-                      paths on standard input, separated by line ends or NUL: each is a source
labels.csv             a table of paths, perhaps with labels (`visxai.images.tables`); or Parquet
shard-000000.tar       images in a tar, perhaps with labels (`visxai.images.tars`)
s3://bucket/photos     the same on a file system that fsspec knows; * is expanded
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from visxai.errors import Argument, ArgumentError, Failure, ImageError
from visxai.foreign import shown
from visxai.images import tables, tars
from visxai.images.address import Origin, Stamp, file_system, local, look, remote, stamp, stamp_of
from visxai.images.folders import EXTENSIONS, READ, images_below, is_results, none_below

_TABLE = 2**31  # bytes of a table


@dataclass(frozen=True)
class Found:
    """An image of a run, or the reason why it can't be read.

    Attributes:
        path: The image's address (see `visxai.images.address`), absolute.
        root: The folder that the name of its output is relative to.
        failure: The reason why the image can't be read, None where none is known yet.
        label: The image's label in its table or tar, None without a label.
        expected: The class of that label, once a model has assigned it.
        stamp: The size and time of change, where the source's listing states them.
        id: The caller's own identifier of the image, from its table.
    """

    path: str
    root: str
    failure: Failure | None = None
    label: str | None = None
    expected: int | None = None
    stamp: Stamp | None = None
    id: str | None = None


@dataclass(frozen=True)
class Listing:
    """Sources named by a list: a missing path becomes a failure, and the others are explained.

    Attributes:
        paths: The paths, each a source of its own.
    """

    paths: tuple[str, ...]


Source = str | os.PathLike[str] | Listing


@dataclass(frozen=True)
class _Columns:
    """The names of the columns of paths and labels; None for a column that is found by its name."""

    path: str | None
    label: str | None

    @property
    def labelled(self) -> bool:
        return (self.label or "").casefold() != "none"

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of a JSON file beside a tar's member that may hold its label."""
        return (self.label,) if self.label else tables.LABELS


def from_input(sources: Sequence[str], stream: IO[bytes]) -> list[Source]:
    """Replace "-" among the sources by those that `stream` lists.

    Args:
        sources: The sources of the command line.
        stream: Standard input, opened for bytes.

    Raises:
        ArgumentError: The stream is a terminal, lists nothing, or isn't UTF-8 on Windows.
    """
    if "-" not in sources:
        return list(sources)
    if stream.isatty():
        raise ArgumentError(
            "expected paths on standard input, got a terminal: pipe them in, as in "
            "find photos -name '*.jpg' | visxai explain -"
        )
    data = stream.read().removeprefix(b"\xef\xbb\xbf")  # the byte order mark that PowerShell adds
    lines = data.split(b"\0") if b"\0" in data else data.splitlines()
    try:
        paths = tuple(os.fsdecode(line) for line in lines if line)
    except UnicodeDecodeError as error:  # on Windows, whose file names are characters, not bytes
        raise ArgumentError(
            f"expected paths in UTF-8 on standard input, got {error.object!r}: run chcp 65001 "
            "before the command in front of the pipe"
        ) from None
    if not paths:
        raise ArgumentError(
            "expected paths on standard input, got none: check the command before the pipe"
        )
    return [Listing(paths) if source == "-" else source for source in dict.fromkeys(sources)]


def check(
    sources: Iterable[Source],
    out: str | os.PathLike[str],
    *,
    path_column: str | None = None,
    label_column: str | None = None,
) -> None:
    """Raise the errors of `find`, as far as the first image of each source shows them.

    Args:
        sources: As for `find`.
        out: As for `find`.
        path_column: As for `find`.
        label_column: As for `find`.
    """
    for found in _each(sources, out, _Columns(path_column, label_column)):
        next(found, None)


def find(
    sources: Iterable[Source],
    out: str | os.PathLike[str],
    *,
    path_column: str | None = None,
    label_column: str | None = None,
) -> Iterator[Found]:
    """Yield the images of sources in order; those of a folder by posix relative path.

    Results of visxai that lie below a folder aren't explained again.

    Args:
        sources: Files, folders, tables, tars, URLs and listings.
        out: The folder for the run's results.
        path_column: The column of the paths in tables; None finds it by its name.
        label_column: The column of the labels in tables, or the field of a JSON file in a tar; None
            finds it by its name, "none" leaves the labels out.

    Yields:
        Each image; one that can't be read has a failure.

    Raises:
        ArgumentError: A source doesn't exist or holds no image, or a column doesn't exist.
    """
    for found in _each(sources, out, _Columns(path_column, label_column)):
        yield from found


def _each(
    sources: Iterable[Source], out: str | os.PathLike[str], columns: _Columns
) -> Iterator[Iterator[Found]]:
    """Yield the images of each source as an iterator of its own."""
    given: list[tuple[str, bool]] = []
    for source in sources:
        listed = isinstance(source, Listing)
        paths = source.paths if isinstance(source, Listing) else (os.fspath(source),)
        given += [(_absolute(path), listed) for path in paths]
    if not given:
        raise ArgumentError("expected at least one file or folder, got none: try '.'")
    if columns.path is not None and not any(p.lower().endswith(tables.ENDINGS) for p, _ in given):
        raise ArgumentError(
            expected=("a table (.csv or .parquet) for ", Argument("path_column")),
            got="none",
            remedy="leave it out",
            field="path_column",
        )
    tops = [_top(path) for path, _ in given]
    try:
        common = os.path.commonpath({top for top in tops if not remote(top)})
    except ValueError:  # the paths are on several drives, or there are only URLs
        common = ""
    results = {Path(os.path.abspath(out)): True}
    for (path, listed), top in zip(given, tops, strict=True):
        root = top if remote(top) else common or top
        found = _images(path, root, results, columns)
        yield _forgiven(found, path, root) if listed else found


def _forgiven(found: Iterator[Found], path: str, root: str) -> Iterator[Found]:
    """Yield the images of a listed source, or a failure where the source can't be used."""
    try:
        yield from found
    except (ArgumentError, ImageError) as error:
        yield Found(path, root, Failure(path, str(error), type(error).__name__))


def _absolute(source: str) -> str:
    return source if remote(source) else os.path.abspath(local(source))


def _top(path: str) -> str:
    """Return the folder that the names of a source's outputs are relative to."""
    if remote(path):
        plain, star, _ = path.partition("*")
        ends = plain.lower().endswith((*EXTENSIONS, *tables.ENDINGS, tars.ENDING))
        return plain.rpartition("/")[0] if star or ends else plain.rstrip("/")
    return path if os.path.isdir(path) else os.path.dirname(path)


def _images(path: str, root: str, results: dict[Path, bool], columns: _Columns) -> Iterator[Found]:
    """Yield the images of one source."""
    lower = path.lower()
    folder = not remote(path) and os.path.isdir(path)
    if remote(path) and "*" in path:
        yield from _of_url(path, root, columns)
    elif lower.endswith((".jsonl", ".ndjson")) and not folder:
        raise ArgumentError(
            expected="images, or a table of their paths (.csv, .parquet)",
            got=shown(path),
            remedy=(
                *("explain its texts with ", Argument("text_column", "text"), " and "),
                *(Argument("model", "toxicity"), " or hf:FOLDER"),
            ),
        )
    elif lower.endswith(tars.PACKED) and not folder:
        raise ArgumentError(
            f"expected a plain tar, got the compressed {shown(path)}: unpack it to a .tar first, "
            "images hardly get smaller"
        )
    elif lower.endswith(tables.ENDINGS) and not folder:
        yield from _of_table(path, root, columns)
    elif lower.endswith(tars.ENDING) and not folder:
        yield from _of_tar(path, root, columns)
    elif remote(path):
        yield from _of_url(path, root, columns)
    else:
        yield from _of_folder(path, root, results)


def _of_table(path: str, root: str, columns: _Columns) -> Iterator[Found]:
    try:
        table = tables.read(path, Origin(path, path).read(_TABLE))
    except ImageError as error:
        raise ArgumentError(str(error)) from error
    paths = table.paths(columns.path)
    labels = (table.labels(columns.label) if columns.labelled else None) or [""] * len(paths)
    ids = table.ids() or [""] * len(paths)
    if not any(paths):
        raise ArgumentError(f"expected paths in {shown(path)}, got a table without any")
    folder = path.rpartition("/")[0] if remote(path) else os.path.dirname(path)
    for name, label, own in zip(paths, labels, ids, strict=True):
        if not name:
            continue
        if remote(path) and not remote(name):
            address = name if name.startswith("/") else f"{folder}/{name}"
        else:
            address = _absolute(name if remote(name) else _joined(folder, name))
        yield Found(address, root, None, label or None, id=own or None)


def _joined(folder: str, name: str) -> str:
    return os.path.join(folder, local(name))


def _of_tar(path: str, root: str, columns: _Columns) -> Iterator[Found]:
    try:
        shard = look(path, columns.fields)
    except ImageError as error:
        raise ArgumentError(str(error)) from error
    modified, count = stamp(path)[1], 0
    for name, member in shard.members.items():
        hidden = name.rpartition("/")[2].startswith(".")
        if hidden or not name.lower().endswith(EXTENSIONS):
            continue
        count += 1
        address = f"{path}/{name}"
        flaw = member.flaw and f"{shown(address)} can't be read: {member.flaw}"
        yield Found(
            address,
            root,
            Failure(address, flaw) if flaw else None,
            member.label if columns.labelled else None,
            stamp=(member.size, modified),
        )
    if shard.flaw:
        reason = (
            f"expected a whole tar, got {shown(path)}, of which {count} images can be read "
            f"({shown(shard.flaw)}): fetch it again"
        )
        yield Found(path, root, Failure(path, reason))
    elif not count:
        raise ArgumentError(
            f"expected images ({' '.join(READ)}), got none in the tar {shown(path)}: check "
            "what is in it"
        )


def _of_url(url: str, root: str, columns: _Columns) -> Iterator[Found]:
    system, path = file_system(url)
    try:
        if "*" in path:
            listed = system.glob(path, detail=True)
        elif url.lower().endswith(EXTENSIONS):
            listed = {path: system.info(path)}
        else:
            info = system.info(path)
            single = info.get("type") != "directory"
            listed = {path: info} if single else system.find(path, detail=True)
    except Exception as error:  # each file system has errors of its own
        said = "there is none" if isinstance(error, FileNotFoundError) else str(error)
        raise ArgumentError(
            f"expected an existing file or folder, got {shown(url)} ({shown(said)}): check the "
            "address and what may be read there"
        ) from error
    count, base = 0, file_system(root)[1].rstrip("/")
    for place, info in sorted(listed.items()):
        below = place.removeprefix(base).strip("/")
        address = url if place == path else f"{root}/{below}"
        if info.get("type") == "directory" or any(p.startswith(".") for p in below.split("/")):
            continue
        if "*" in url and address.lower().endswith(tars.ENDING):
            count += 1
            yield from _of_tar(address, root, columns)
        elif address == url or address.lower().endswith(EXTENSIONS):
            count += 1
            yield Found(address, root, stamp=stamp_of(info))
    if not count:
        raise none_below(url)


def _of_folder(source: str, root: str, results: dict[Path, bool]) -> Iterator[Found]:
    path, count = Path(source), 0
    if results.get(path):
        raise ArgumentError(
            expected="the results apart from the images",
            got=(f"{shown(source)} as source and ", Argument("out")),
            remedy=("choose another ", Argument("out"), f", such as {shown(path / 'results')}"),
            field="out",
        )
    for item in images_below(path):
        where = str(item.path if isinstance(item, Failure) else item)
        if where != source and _within_results(Path(where).parent, path, results):
            continue
        count += 1
        yield Found(where, root, item if isinstance(item, Failure) else None)
    if not count:
        raise ArgumentError(
            f"expected images of your own, got only results of visxai below {shown(source)}: "
            "name the folder of the photographs"
        )


def _within_results(folder: Path, top: Path, known: dict[Path, bool]) -> bool:
    if folder not in known:
        above = folder != top and _within_results(folder.parent, top, known)
        known[folder] = above or (folder != top and is_results(folder))
    return known[folder]
