"""The bytes of items: files named by their hash, in a folder or in any store that fsspec knows."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from visxai.errors import StoreError, require
from visxai.files import begin_to_keep, one_sentence
from visxai.ledger.canonical import sha256

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}/[0-9a-f]{2}/[0-9a-f]{64}")
_AT_ONCE = 16  # syncs of files and folders


class Blobs:
    """A store of bytes.

    Args:
        place: A folder, or a URL such as s3://bucket/items, whose package must be installed.

    Raises:
        StoreError: The folder can't be made.
        MissingExtra: The place is a URL, and fsspec isn't installed.
    """

    def __init__(self, place: str | Path) -> None:
        self.place = str(place).rstrip("/")
        self._remote: Any = None
        self._lock = threading.Lock()
        self._begun: dict[str, Future[list[Future[None]]]] = {}  # so that equal bytes wait as well
        self._pool = ThreadPoolExecutor(_AT_ONCE, "visxai-sync")
        if "://" in self.place:
            fsspec = require("fsspec", "serve", "an object store")
            self._remote, self.place = fsspec.core.url_to_fs(self.place)
        else:
            with one_sentence(f"to make the folder {place}", "choose another folder"):
                Path(self.place).mkdir(parents=True, exist_ok=True)

    def put(self, tenant: str, data: bytes) -> str:
        """Store bytes so that they survive a loss of power; return their name."""
        with self.putting(tenant, data) as name:
            return name

    @contextlib.contextmanager
    def putting(self, tenant: str, data: bytes, digest: str | None = None) -> Iterator[str]:
        """Store bytes, while the block does something else that has to wait for the disk.

        Args:
            tenant: Whose they are.
            data: The bytes.
            digest: Their SHA-256, None to compute it.

        Yields:
            Their name, by which they can be read already; they survive a loss of power once the
            block has ended.

        Raises:
            StoreError: There is no room.
        """
        digest = digest or sha256(data)
        name = f"{tenant}/{digest[:2]}/{digest}"
        if self._remote is not None:
            path = f"{self.place}/{name}"
            self._remote.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._remote.pipe_file(path, data)
            yield name
            return
        target = Path(self.place, name)
        with self._lock:
            begun = self._begun.get(name)
            if mine := begun is None:
                begun = self._begun[name] = Future()
        try:
            if mine:
                try:
                    begun.set_result(self._begin(target, data))
                except BaseException as error:
                    begun.set_exception(error)
            with one_sentence("to store an item", "make room there"):
                synced = begun.result()
            yield name
            with one_sentence("to store an item", "make room there"):
                for one in synced:
                    one.result()
        finally:
            if mine:
                with self._lock:
                    del self._begun[name]

    def _begin(self, target: Path, data: bytes) -> list[Future[None]]:
        """Write a file where it isn't there, and begin to sync it."""
        target.parent.mkdir(parents=True, exist_ok=True)
        # After a loss of power a name may have other bytes than its hash says.
        if target.exists() and target.read_bytes() == data:
            return []
        return begin_to_keep(target, data, self._pool)

    def close(self) -> None:
        """End the threads that sync files."""
        self._pool.shutdown()

    def get(self, name: str) -> bytes:
        """Read the bytes of a name.

        Raises:
            StoreError: There are none, or others than were stored.
        """
        if not _NAME.fullmatch(name):
            raise StoreError(expected="the name of stored bytes", got="another", remedy="none")
        try:
            data = (
                bytes(self._remote.cat_file(f"{self.place}/{name}"))
                if self._remote is not None
                else Path(self.place, name).read_bytes()
            )
        except OSError as error:
            raise StoreError(
                expected="the bytes of an item", got="none", remedy="they were erased"
            ) from error
        if sha256(data) != name.rpartition("/")[2]:
            raise StoreError(
                expected="the bytes of an item as they were stored",
                got="others",
                remedy="restore the store from a backup",
            )
        return data

    def remove(self, name: str) -> None:
        """Remove the bytes of a name, if they are there."""
        if not _NAME.fullmatch(name):
            return
        if self._remote is not None:
            if self._remote.exists(f"{self.place}/{name}"):
                self._remote.rm_file(f"{self.place}/{name}")
            return
        Path(self.place, name).unlink(missing_ok=True)
