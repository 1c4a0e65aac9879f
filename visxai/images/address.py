"""Addresses of images: where the bytes of an image are read from. Rows keep the address as `path`.

    photos/owl.jpg                    a file
    shards/shard-000000.tar/owl.jpg   a member of a tar
    s3://bucket/photos/owl.jpg        either of them on a file system that fsspec knows (extra
                                      `remote`); file:///photos/owl.jpg is /photos/owl.jpg

    Origin.of("photos/owl.jpg").read(limit)

Only regular files are read, and never more bytes than the caller allows.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import os
import re
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import IO, Any

from visxai.errors import ArgumentError, ImageError, MissingExtra, VisxaiError, require
from visxai.foreign import shown
from visxai.images import tars
from visxai.images.tables import LABELS

Stamp = tuple[int, int]  # size in bytes and time of change in nanoseconds
UNKNOWN: Stamp = (-1, 0)
UNASKED = "expected an original on this machine, got one that only another can give: ask for it"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")


class Unfetched(Exception):
    """The error for reading bytes that only another process can read."""


@dataclass(frozen=True)
class Origin:
    """The place that an image's bytes are read from.

    Attributes:
        text: The address as given.
        file: The path or URL of the file.
        member: The name of the member, where the file is a tar; else None.
        span: (offset, size) in bytes of the member in the tar, once known.
        fetched: The bytes, or the reason why they can't be read, once they were read for another
            process.
        away: Whether this process can't read the bytes.
    """

    text: str
    file: str
    member: str | None = None
    span: tuple[int, int] | None = None
    fetched: bytes | str | None = None
    away: bool = False

    @classmethod
    def of(cls, address: str | os.PathLike[str] | Origin) -> Origin:
        """Parse an address; a folder whose name ends in .tar isn't mistaken for a tar."""
        if isinstance(address, Origin):
            return address
        text = os.fspath(address)
        place = local(text)
        sought = place
        if sys.platform == "win32" and not remote(place):
            sought = place.replace("\\", "/")  # Windows separates folders by either
        start = 0
        while (end := sought.lower().find(f"{tars.ENDING}/", start)) >= 0:
            start = end + len(tars.ENDING)
            if remote(place) or os.path.isfile(place[:start]):
                return cls(text, place[:start], sought[start + 1 :])
        return cls(text, place)

    def __str__(self) -> str:
        return self.text

    @property
    def remote(self) -> bool:
        """Whether the file is a URL."""
        return remote(self.file)

    def read(self, limit: int) -> bytes:
        """Read the bytes.

        Args:
            limit: The most bytes allowed; one more is read, so that the caller notices a larger
                file.

        Returns:
            At most `limit` + 1 bytes.

        Raises:
            ImageError: The bytes can't be read.
            Unfetched: Only another process can read the bytes.
        """
        if isinstance(self.fetched, str):
            raise ImageError(self.fetched)
        if self.fetched is not None:
            return self.fetched
        if self.away:
            raise Unfetched
        if self.member is None:
            with opened(self.file) as stream:
                return stream.read(limit + 1) or b""
        offset, size = self.span or self._span()
        with opened(self.file) as stream:
            stream.seek(offset)
            data = stream.read(min(size, limit + 1)) or b""
        if len(data) < min(size, limit + 1):
            raise ImageError(
                f"expected {size} bytes of {shown(self.text)}, got {len(data)}, as the tar ends "
                "there: fetch it again"
            )
        return data

    def located(self) -> Origin:
        """Return the origin with its member's span, so that another process needn't look it up.

        Where the tar can't be read, the origin is returned unchanged: reading it raises the error
        again.
        """
        if self.member is None or self.span is not None or self.fetched is not None:
            return self
        try:
            return replace(self, span=self._span())
        except VisxaiError:  # reading raises it again
            return self

    def fetch(self, limit: int, seconds: float) -> Origin:
        """Return the origin with its bytes, or the reason for their absence, for another process.

        A file system may never answer. The thread that waits for it is abandoned after `seconds`,
        and ends with the process at the latest.

        Args:
            limit: As for `read`.
            seconds: The longest wait.
        """
        told: list[bytes | str] = []

        def read() -> None:
            try:
                told.append(self.read(limit))
            except VisxaiError as error:
                told.append(str(error))

        thread = threading.Thread(target=read, name="visxai-read", daemon=True)
        thread.start()
        thread.join(seconds)
        late = (
            f"expected {shown(self.text)} within {seconds:g} s, got no end of it: try again, or "
            "raise the time (explain's --timeout)"
        )
        return replace(self, fetched=told[0] if told else late, away=False)

    def barred(self) -> Origin:
        """Return an origin that is never read from another machine.

        Where reading would contact another machine (for a URL, or a network share on Windows), the
        result has UNASKED as `fetched`; any other origin is returned unchanged.
        """
        share = os.name == "nt" and self.file.startswith(("\\\\", "//"))
        return replace(self, fetched=UNASKED) if self.remote or share else self

    def exists(self) -> bool:
        """Tell whether the address exists, readable or not."""
        if self.fetched is not None:
            return not isinstance(self.fetched, str)
        try:
            if self.member is not None:
                return self.member in look(self.file).members
            return stamp(self.file) != UNKNOWN if self.remote else os.path.lexists(self.file)
        except VisxaiError:
            return False

    def _span(self) -> tuple[int, int]:
        """Look up the offset and size of the member; raise ImageError where the tar lacks it."""
        shard = look(self.file)
        found = shard.members.get(self.member or "")
        if found is None or found.flaw:
            raise ImageError(
                f"expected {shown(self.member or '')} in the tar {shown(self.file)}, got "
                f"{len(shard.members)} others: check the address"
            )
        return found.offset, found.size


def remote(address: str) -> bool:
    """Tell whether an address is a URL of a file system other than this machine's own."""
    return _SCHEME.match(address) is not None and local(address) == address


def local(address: str) -> str:
    """Convert a file:// URL to a plain path; return any other address unchanged."""
    if not address.lower().startswith("file://"):
        return address
    from urllib.parse import unquote

    path = unquote(address[7:]).removeprefix("localhost/")
    if sys.platform == "win32" and re.match(r"/?[A-Za-z]:", path):
        return path.removeprefix("/")  # file:///C:/photos/owl.jpg is on a drive
    return path if path.startswith("/") or address[7:] == path else f"/{path}"


def look(file: str, fields: tuple[str, ...] = LABELS) -> tars.Shard:
    """Read the list of a tar's members; it is cached until the tar changes.

    Args:
        file: The tar's path or URL.
        fields: The fields of a JSON file beside an image that may hold its label.

    Raises:
        ImageError: The tar can't be read.
    """
    return _looked(file, stamp(file), fields)


@functools.lru_cache(maxsize=16)
def _looked(file: str, _: Stamp, fields: tuple[str, ...]) -> tars.Shard:
    with opened(file) as stream:
        return tars.index(stream, fields)


def stamp(file: str) -> Stamp:
    """Return a file's size and time of change; return UNKNOWN where they can't be determined."""
    if remote(file):
        system, path = file_system(file)
        try:
            return stamp_of(system.info(path))
        except Exception:  # each file system has errors of its own
            return UNKNOWN
    try:
        found = os.stat(file)
    except (OSError, ValueError):
        return UNKNOWN
    return found.st_size, found.st_mtime_ns


def stamp_of(info: dict[str, Any]) -> Stamp:
    """Make a stamp of fsspec's information about a file; an ETag stands in for a missing time."""
    size = info.get("size")
    for name in ("mtime", "LastModified", "last_modified", "updated", "created", "ETag", "etag"):
        value = info.get(name)
        if isinstance(value, datetime.datetime):
            value = value.timestamp()
        if isinstance(value, (int, float)):
            return -1 if size is None else int(size), int(value * 1e9)
        if isinstance(value, str) and value:
            digest = hashlib.sha256(value.encode("utf-8", "replace")).digest()
            return -1 if size is None else int(size), int.from_bytes(digest[:7], "big")
    return (-1 if size is None else int(size)), 0


def file_system(url: str) -> tuple[Any, str]:
    """Return fsspec's file system of a URL, and the path on it.

    Raises:
        MissingExtra: fsspec, or its package for this scheme, isn't installed.
        ArgumentError: The URL chains several, or its scheme is unknown.
    """
    scheme = url.partition("://")[0]
    fsspec = require("fsspec", "remote", f"reading {scheme}:// addresses")
    if "::" in url:
        raise ArgumentError(
            f"expected a plain URL such as s3://bucket/folder, got {shown(url)}, which chains "
            "several: name the place itself"
        )
    try:
        system, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        # fsspec's message names the package: "Install s3fs to access S3".
        needed = re.findall(r'nstall ([A-Za-z][\w-]*)|"([\w-]+)"', str(error))
        pip = " ".join(sorted({first or second for first, second in needed}))
        pip = "'visxai[remote]'" if scheme in ("http", "https") or not pip else pip
        raise MissingExtra(
            f"reading {scheme}:// addresses needs a package that isn't installed "
            f"({shown(str(error)).rstrip('.')}): pip install {pip}"
        ) from error
    except ValueError as error:
        raise ArgumentError(
            f"expected a URL of a file system that fsspec knows, such as s3://bucket/folder, got "
            f"{shown(url)} ({error}): check its beginning"
        ) from None
    return system, path


@contextlib.contextmanager
def opened(file: str) -> Iterator[IO[bytes]]:
    """Open a regular file or a URL for reading bytes; raise ImageError where it can't be read."""
    try:
        with _remote(file) if remote(file) else _regular(file) as stream:
            yield stream
    except VisxaiError:
        raise
    except IsADirectoryError:
        raise ImageError(_folder(file)) from None
    except FileNotFoundError:
        raise ImageError(
            f"expected a readable file, got {shown(file)} (no such file or directory): check the "
            "path and its permissions"
        ) from None
    except Exception as error:
        if isinstance(error, PermissionError) and os.path.isdir(file):  # Windows, for a folder
            raise ImageError(_folder(file)) from None
        # A disk raises OSError and an invalid name ValueError; other file systems raise anything.
        if not remote(file) and not isinstance(error, (OSError, ValueError)):
            raise
        said = getattr(error, "strerror", None)
        reason = said.lower() if said else str(error).rstrip(".") or type(error).__name__
        raise ImageError(
            f"expected a readable file, got {shown(file)} ({shown(reason)}): check the path and "
            "its permissions"
        ) from error


def _folder(file: str) -> str:
    return (
        f"expected an image file, got the folder {shown(file)}: name the folder itself to "
        "`visxai explain`"
    )


def _remote(url: str) -> IO[bytes]:
    system, path = file_system(url)
    if getattr(system, "local_file", False):  # the URL leads to this machine's own disk
        return _regular(path)
    stream: IO[bytes] = system.open(path, "rb")
    return stream


def _regular(path: str) -> IO[bytes]:
    # Without O_NONBLOCK, opening a FIFO would wait for a writer. The type is checked after opening,
    # as the file could be swapped between a check and the opening.
    flags = os.O_RDONLY
    for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, name, 0)
    stream = open(path, "rb", opener=lambda name, _: os.open(name, flags))  # noqa: SIM115
    if stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        return stream
    stream.close()
    raise ImageError(
        f"expected a regular file, got {shown(path)}, which is a device, pipe or socket: copy its "
        "content to a file"
    )
