"""Threads that write to SQLite at the same time share a commit, and nothing else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event, text

from visxai.errors import StoreError
from visxai.ledger import Database
from visxai.serve.blobs import Blobs


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "a.db")
    with made.writing() as connection:
        connection.execute(text("CREATE TABLE t (n INTEGER UNIQUE)"))
    yield made
    made.close()


def numbers(database: Database) -> list[int]:
    with database.reading() as connection:
        return list(connection.execute(text("SELECT n FROM t ORDER BY n")).scalars())


def write_together(database: Database, wanted: list[int]) -> dict[int, BaseException | None]:
    """Write each number in a thread of its own, all of which wait for the first one's turn."""
    told: dict[int, BaseException | None] = {}

    def write(number: int) -> None:
        try:
            with database.writing() as connection:
                connection.execute(text("INSERT INTO t VALUES (:n)"), {"n": abs(number)})
                if number < 0:
                    raise KeyError(number)
            told[number] = None
            assert abs(number) in numbers(database)  # it is there once the block has ended
        except (KeyError, StoreError) as error:
            told[number] = error

    threads = [threading.Thread(target=write, args=(number,)) for number in wanted]
    with database.writing() as connection:
        connection.execute(text("INSERT INTO t VALUES (100)"))
        for thread in threads:
            thread.start()
        turns = database._turns
        assert turns is not None
        while turns._waiting < len(wanted):
            threading.Event().wait(0.001)
    for thread in threads:
        thread.join()
    return told


def test_threads_that_wait_share_one_commit_and_fail_alone(database: Database) -> None:
    commits: list[object] = []
    event.listen(database.engine, "commit", commits.append)
    told = write_together(database, [1, 2, -3, 100, 4])
    assert len(commits) == 1 + 3  # the one for all, and those of the three that look afterwards
    assert isinstance(told.pop(-3), KeyError)
    assert isinstance(told.pop(100), StoreError)  # as this number was there
    assert told == {1: None, 2: None, 4: None}
    assert numbers(database) == [1, 2, 4, 100]


def test_a_commit_that_fails_fails_for_all(database: Database) -> None:
    def refuse(_: object) -> None:
        event.remove(database.engine, "commit", refuse)
        raise StoreError("expected room, got a full disk: make room")

    event.listen(database.engine, "commit", refuse)
    with pytest.raises(StoreError, match="full disk"):
        write_together(database, [1, 2])
    assert numbers(database) == []


def test_a_transaction_that_the_database_undid_is_an_error_for_all(database: Database) -> None:
    def lose() -> None:
        with database.writing() as connection:
            connection.execute(text("INSERT INTO t VALUES (1)"))
            connection.exec_driver_sql("ROLLBACK")

    with pytest.raises(StoreError, match="savepoint"):
        lose()
    assert numbers(database) == []
    assert write_together(database, [2]) == {2: None}


def test_bytes_under_a_name_that_says_others_are_stored_again(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path)
    name = blobs.put("acme", b"an image")
    (tmp_path / name).write_bytes(b"")  # as a loss of power may leave it
    with pytest.raises(StoreError, match="others"):
        blobs.get(name)
    assert blobs.put("acme", b"an image") == name
    assert blobs.get(name) == b"an image"
