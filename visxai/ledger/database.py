"""The database behind the ledger and the service: SQLite in WAL mode, or Postgres.

Both run the same statements. A writing transaction takes SQLite's write lock when it begins
(`BEGIN IMMEDIATE`), so that it never fails half way because another process wrote meanwhile;
Postgres locks the rows that the statements name. What is committed is on the disk in both.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import ArgumentError, StoreError, require
from visxai.ledger.turns import Turns

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table
    from sqlalchemy.engine import Engine
    from sqlalchemy.sql.dml import Insert

BUSY = 30.0  # seconds that a writer waits for SQLite's other writers
_PURPOSE = "a database of records"
# What is erased is overwritten in the file, and what is committed survives a loss of power. The log
# may grow to 16 MiB before a writer has to copy it into the file.
_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    "secure_delete=ON",
    "wal_autocheckpoint=4096",
)


def full_url(url: str | Path) -> str:
    """Complete the address of a database with its driver.

    Args:
        url: "sqlite:///FILE", "postgresql://USER@HOST/NAME", or the path of an SQLite file.

    Returns:
        The address as SQLAlchemy takes it.

    Raises:
        ArgumentError: It is the address of another kind of database.
    """
    text = str(url)
    scheme, found, rest = text.partition("://")
    if not found:
        return f"sqlite:///{text}"
    if scheme in ("postgresql", "postgres", "postgresql+psycopg"):
        return f"postgresql+psycopg://{rest}"
    if scheme == "sqlite":
        return text
    raise ArgumentError(
        expected="sqlite:///FILE or postgresql://USER@HOST/NAME",
        got=f"{scheme}://",
        remedy="choose one of these databases",
        field="database",
    )


class Database:
    """A database that several threads and processes use at the same time.

    Args:
        url: The address, as for `full_url`.
        clock: Returns the present time in seconds since 1970; None is the database's own clock,
            which all processes share.
        pool: The most connections that this process keeps open.

    Attributes:
        engine: SQLAlchemy's engine.
        sqlite: Whether it is SQLite.

    Raises:
        ArgumentError: The address is of another kind of database.
        MissingExtra: The extra `serve` isn't installed.
    """

    engine: Engine

    def __init__(
        self, url: str | Path, *, clock: Callable[[], float] | None = None, pool: int = 8
    ) -> None:
        sqlalchemy = require("sqlalchemy", "serve", _PURPOSE)
        self.url = full_url(url)
        self.sqlite = self.url.startswith("sqlite")
        self._clock = clock
        self._turns: Turns | None = None
        if self.sqlite:
            # SQLite's writers wait by looking again and again; threads of one process take turns.
            self._turns = Turns(self._writer)
            self.engine = sqlalchemy.create_engine(
                self.url,
                connect_args={"timeout": BUSY, "check_same_thread": False},
                pool_size=pool,
                max_overflow=pool,
            )
            sqlalchemy.event.listen(self.engine, "connect", _prepare_sqlite)
            sqlalchemy.event.listen(self.engine, "begin", _begin_sqlite)
        else:
            require("psycopg", "serve", "Postgres")
            self.engine = sqlalchemy.create_engine(
                self.url, pool_size=pool, max_overflow=pool, pool_pre_ping=True
            )

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection in a transaction that commits when the block ends without an error.

        Raises:
            StoreError: The database can't be reached, or refuses what is written.
        """
        with one_sentence():
            if self._turns is not None:
                with self._turns.writing() as connection:
                    yield connection
            else:
                with self.engine.begin() as connection:
                    yield connection

    def _writer(self) -> Connection:
        return self.engine.connect().execution_options(visxai_write=True)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """Yield a connection whose statements read one consistent state.

        Raises:
            StoreError: The database can't be reached.
        """
        with one_sentence(), self.engine.connect() as connection:
            if not self.sqlite:
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    def now(self, connection: Connection) -> float:
        """Return the present time in seconds since 1970, by the clock that all processes share."""
        if self._clock is not None:
            return self._clock()
        if self.sqlite:
            return time.time()  # every process that has the file open is on this machine
        from sqlalchemy import text

        told = connection.execute(text("SELECT extract(epoch FROM clock_timestamp())"))
        return float(told.scalar_one())

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def insert_new(connection: Connection, table: Table, values: Mapping[str, Any]) -> bool:
    """Insert a row unless one with the same key, or another unique value of it, is there.

    Args:
        connection: A connection in a writing transaction.
        table: The table.
        values: The row.

    Returns:
        Whether the row was inserted.
    """
    statement = _inserting(table, connection.dialect.name)
    key = statement.returning(*table.primary_key.columns)
    return connection.execute(key, dict(values)).first() is not None


def insert_all_new(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, except those with the key or another unique value of one that is there.

    Args:
        connection: A connection in a writing transaction.
        table: The table.
        rows: The rows.
    """
    if rows:
        connection.execute(_inserting(table, connection.dialect.name), list(map(dict, rows)))


# Writing an item takes a dozen statements, and making one costs as much as running it: those that
# every item needs are made once.
@functools.cache
def _inserting(table: Table, dialect: str) -> Insert:
    from sqlalchemy.dialects import postgresql, sqlite

    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    made: Insert = insert(table).on_conflict_do_nothing()
    return made


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Turn a failing database into a StoreError of one sentence.

    Raises:
        StoreError: The block raised an error of the database's driver.
    """
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        # The error's own text quotes the statement with its values, which may be personal.
        cause = error.orig if isinstance(error, DBAPIError) else None
        said = (str(cause or type(error).__name__).strip() or "nothing").splitlines()[0]
        raise StoreError(
            expected="a database that answers",
            got=said[:200],
            remedy="see that it runs, that its address is right, and that there is room",
        ) from error


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # transactions begin by `_begin_sqlite` alone
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("visxai_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
