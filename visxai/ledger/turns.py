"""Turns of threads that write to SQLite: those that wait share one transaction and its commit.

A commit waits for the disk, several milliseconds on many, and SQLite lets one writer in at a time.
Threads that wait for their turn therefore write into the transaction that is open already, each
behind a savepoint, and all of them return when its one commit has reached the disk. A thread whose
block fails undoes its own part alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING

from visxai.errors import StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection

_TOGETHER = 32  # threads that share a commit, so that the first of them needn't wait for ever


class Turns:
    """The turns of one process's threads.

    Args:
        connect: Opens a connection whose transactions take SQLite's write lock when they begin.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._turn, self._count = threading.Lock(), threading.Lock()
        self._waiting = 0
        self._open: _Open | None = None

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection to write with; what the block wrote is on the disk once it has ended.

        Raises:
            StoreError: The database undid the transaction, as when the disk is full.
            SQLAlchemyError: The database can't be written.
        """
        with self._count:
            self._waiting += 1
        with self._turn:
            with self._count:
                self._waiting -= 1
            mine = self._open = self._open or _Open(self._connect())
            try:
                with mine.connection.begin_nested():
                    yield mine.connection
            finally:
                mine.blocks += 1
                if not self._waiting or mine.blocks == _TOGETHER or mine.undone():
                    self._open = None
                    mine.end()
        mine.ended.result()


class _Open:
    """A transaction that blocks of several threads write in, one after the other."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.blocks = 0
        self.ended: Future[None] = Future()
        try:
            self._transaction = connection.begin()
        except BaseException:
            connection.close()
            raise

    def undone(self) -> bool:
        """Tell whether SQLite has undone all of it, as it does when it can't write."""
        return not self.connection.connection.dbapi_connection.in_transaction  # type: ignore[union-attr]

    def end(self) -> None:
        """Commit, and let the threads of all blocks go on."""
        try:
            if self.undone():
                raise StoreError(
                    expected="a database that keeps what is written",
                    got="one that undid it",
                    remedy="see that there is room, and try again",
                )
            self._transaction.commit()
        except BaseException as error:
            self.connection.invalidate()  # which undoes whatever is left of it
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)
        finally:
            self.connection.close()
