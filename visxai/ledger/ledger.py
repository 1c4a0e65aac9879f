"""The ledger as one object: explanations, holds, erasure, and the chain over all of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

from visxai.errors import ArgumentError, StoreError, require

require("sqlalchemy", "serve", "the ledger")

from sqlalchemy import func, select  # noqa: E402

from visxai.ledger import audit, explanations, tables  # noqa: E402
from visxai.ledger.audit import Entry  # noqa: E402
from visxai.ledger.canonical import canonical, timestamp  # noqa: E402
from visxai.ledger.database import Database, insert_new  # noqa: E402
from visxai.ledger.envelope import Envelope  # noqa: E402
from visxai.ledger.migrate import upgrade  # noqa: E402
from visxai.ledger.signing import Checkpoint, Signer  # noqa: E402
from visxai.ledger.verification import Verdict, verify_entries, verify_payloads  # noqa: E402

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from visxai.ledger.stored import Stored
    from visxai.record.base import Explanation


class Ledger:
    """Explanations on record, in an SQLite file or a Postgres database.

    Several threads and processes may use one database at the same time.

    Args:
        database: The database, or its address: "sqlite:///FILE", "postgresql://…", or a path.
        signer: What signs checkpoints; None signs none.
        every: The entries after which `add`, `append` and the like sign a checkpoint.

    Raises:
        ArgumentError: The address is of another kind of database.
        StoreError: The database can't be reached, or was written by a later version.
        MissingExtra: The extra `serve` isn't installed.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Ledger(f"{folder}/ledger.db") as ledger:
    ...     _ = ledger.append("policy.changed", "policy-1", actor="key-7", body={"version": 2})
    ...     ledger.verify().entries
    1
    """

    def __init__(
        self,
        database: Database | str | Path,
        *,
        signer: Signer | None = None,
        every: int = 1000,
    ) -> None:
        self._owned = not isinstance(database, Database)
        self.database = database if isinstance(database, Database) else Database(database)
        self.signer = signer
        self.every = every
        self._signed = 0  # the last checkpoint's entry, as far as this process has looked
        try:
            upgrade(self.database)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database, if this ledger opened it."""
        if self._owned:
            self.database.close()

    # ---- explanations -----------------------------------------------------------------------

    def add(
        self,
        explanation: Explanation | Mapping[str, Any],
        envelope: Envelope | None = None,
        *,
        id: str | None = None,
        actor: str = "system",
    ) -> str:
        """Put an explanation on record.

        Args:
            explanation: The explanation of any kind of input, or its `to_dict()`.
            envelope: What is recorded around it; None for the default tenant's.
            id: Its id; None makes one.
            actor: Who had it made.

        Returns:
            The id.

        Raises:
            ArgumentError: The record isn't one, or the id is taken.
            StoreError: The database can't be written.
        """
        with self.writing() as (connection, at):
            return explanations.add(
                connection, at, explanation, envelope or Envelope(), id=id, actor=actor
            )

    def get(self, id: str, tenant: str | None = None) -> Stored:
        """Read an explanation.

        Args:
            id: Its id.
            tenant: Whose it must be; None for anybody's.

        Raises:
            ArgumentError: There is none with this id, or it is another tenant's.
            StoreError: The database can't be read, or the record is damaged.
        """
        with self.database.reading() as connection:
            found = explanations.get(connection, id, tenant)
        if found is None:
            raise _unknown(id)
        return found

    def find(self, **conditions: Any) -> Iterator[Stored]:
        """Find explanations, oldest first.

        Args:
            **conditions: As for `visxai.ledger.explanations.find`: `since` and `until` (ISO 8601),
                `model` (a name or the SHA-256 of weights), `erased`, and columns that must have a
                value, such as `tenant`, `kind`, `tier`, `label` or `decision`.

        Yields:
            The explanations.

        Raises:
            ArgumentError: A condition is wrong.
            StoreError: The database can't be read, or a record is damaged.
        """
        with self.database.reading() as connection:
            yield from explanations.find(connection, **conditions)

    def history(self, subject: str) -> list[Entry]:
        """Return the audit entries about an id, in their order."""
        with self.database.reading() as connection:
            return list(audit.entries(connection, subject=subject))

    def hold(self, id: str, reason: str, *, actor: str = "system") -> None:
        """Put an explanation under legal hold: neither a request nor its age erases it.

        Args:
            id: The explanation.
            reason: Why it must stay. It is kept beside the explanation, not in the chain.
            actor: Who says so.

        Raises:
            ArgumentError: There is none with this id, or the reason is empty.
        """
        if not reason.strip():
            raise ArgumentError(
                expected="a reason for the hold", got="none", remedy="say why", field="reason"
            )
        self._set_hold(id, reason, actor)

    def release(self, id: str, *, actor: str = "system") -> None:
        """Lift the legal hold on an explanation.

        Args:
            id: The explanation.
            actor: Who says so.

        Raises:
            ArgumentError: There is none with this id.
        """
        self._set_hold(id, None, actor)

    def _set_hold(self, id: str, reason: str | None, actor: str) -> None:
        with self.writing() as (connection, at):
            if not explanations.set_hold(connection, at, id, reason, actor=actor):
                raise _unknown(id)

    def erase(self, id: str, reason: str = "request", *, actor: str = "system") -> bool:
        """Erase an explanation; a tombstone stays, and the chain still verifies.

        Args:
            id: The explanation.
            reason: Why, in a word that isn't personal.
            actor: Who says so.

        Returns:
            Whether it was there to be erased.

        Raises:
            ArgumentError: It is under legal hold.
        """
        with self.writing() as (connection, at):
            done = explanations.erase(connection, at, id, reason, actor=actor)
        if done:
            self._forget()
        return done

    def apply_retention(self) -> int:
        """Erase all explanations whose `retain_until` has passed and which aren't held.

        Returns:
            How many were erased.
        """
        count = 0
        while True:
            with self.writing() as (connection, at):
                ids = explanations.expired(connection, at)
                for id in ids:
                    count += explanations.erase(connection, at, id, "retention")
            if not ids:
                break
        if count:
            self._forget()
        return count

    def _forget(self) -> None:
        # The write-ahead log of SQLite still holds the erased pages until it is emptied.
        if self.database.sqlite:
            with contextlib.suppress(StoreError), self.database.engine.connect() as connection:
                driver = connection.connection.driver_connection
                assert driver is not None
                driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    # ---- the chain ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self) -> Iterator[tuple[Connection, str]]:
        """Yield a connection in a writing transaction, and the time as entries have it.

        When the block ends, a checkpoint is signed if one is due.

        Raises:
            StoreError: The database can't be written.
        """
        with self.database.writing() as connection:
            yield connection, timestamp(self.database.now(connection))
            head: Entry | None = connection.info.pop(audit.HEAD, None)
            if head is not None and self.signer is not None:
                self._sign(connection, self.every, head.sequence, head.hash)

    def append(
        self,
        event: str,
        subject: str,
        *,
        actor: str = "system",
        tenant: str = "",
        body: Mapping[str, Any] | None = None,
        payload_sha256: str | None = None,
    ) -> Entry:
        """Append an entry of any kind to the audit chain.

        Args:
            event: What happened, such as "policy.changed".
            subject: The id of what it happened to.
            actor: Who did it.
            tenant: Whose data it is about.
            body: Further facts, without anything personal.
            payload_sha256: The hash of what lies outside of the chain.

        Returns:
            The entry.

        Raises:
            ArgumentError: The body isn't plain values.
            StoreError: The database can't be written.
        """
        with self.writing() as (connection, at):
            return audit.append(
                connection,
                at,
                event,
                subject,
                actor=actor,
                tenant=tenant,
                body=body,
                payload_sha256=payload_sha256,
            )

    def checkpoint(self) -> Checkpoint | None:
        """Sign the present state of the chain.

        Returns:
            The checkpoint, which is worth keeping elsewhere; None for an empty chain.

        Raises:
            ArgumentError: The ledger has no signer.
        """
        if self.signer is None:
            raise ArgumentError(
                expected="a signer", got="none", remedy="pass signer=Signer.open(FILE)"
            )
        with self.database.writing() as connection:
            head = connection.execute(
                select(tables.audit_head.c.sequence, tables.audit_head.c.hash)
            ).one()
            return self._sign(connection, 0, head.sequence, head.hash)

    def _sign(
        self, connection: Connection, every: int, sequence: int, hash: str
    ) -> Checkpoint | None:
        assert self.signer is not None
        if sequence == 0 or sequence - self._signed < every:
            return None
        signed = connection.execute(select(func.max(tables.checkpoints.c.sequence))).scalar() or 0
        self._signed = signed
        if sequence - signed < every:
            return None
        made = self.signer.sign(sequence, hash, timestamp(self.database.now(connection)))
        insert_new(connection, tables.checkpoints, made.to_dict())
        return made

    def verify(
        self,
        *,
        keys: Sequence[bytes] = (),
        checkpoints: Sequence[Checkpoint] = (),
        payloads: bool = True,
    ) -> Verdict:
        """Verify the chain, its checkpoints and the explanations that it speaks of.

        Args:
            keys: Public keys whose signatures count, besides the signer's.
            checkpoints: Checkpoints that were kept elsewhere, besides the database's own.
            payloads: Whether to compare the explanations with their hashes.

        Returns:
            The verdict, true for an intact chain; its flaws say what is wrong and where.

        Raises:
            StoreError: The database can't be read.
        """
        trusted = [*keys, *([] if self.signer is None else [self.signer.public])]
        with self.database.reading() as connection:
            rows = connection.execute(select(tables.checkpoints)).all()
            own = [Checkpoint(**row._mapping) for row in rows]
            head = connection.execute(
                select(tables.audit_head.c.sequence, tables.audit_head.c.hash)
            ).one_or_none()
            verdict = verify_entries(
                audit.entries(connection),
                head=None if head is None else (head.sequence, head.hash),
                checkpoints=[*own, *checkpoints],
                keys=trusted,
            )
            if payloads:
                wrong = (*verdict.flaws, *verify_payloads(connection))
                verdict = replace(verdict, flaws=wrong)
        return verdict

    def export(self, file: IO[str]) -> int:
        """Write the chain and its checkpoints as lines of JSON, for auditors.

        Args:
            file: A text file; entries have `"type": "entry"`, checkpoints `"type": "checkpoint"`.

        Returns:
            How many entries were written.
        """
        count = 0
        with self.database.reading() as connection:
            for entry in audit.entries(connection):
                file.write(canonical({"type": "entry", **asdict(entry)}) + "\n")
                count += 1
            for row in connection.execute(select(tables.checkpoints)):
                file.write(canonical({"type": "checkpoint", **row._mapping}) + "\n")
        return count


def _unknown(id: str) -> ArgumentError:
    return ArgumentError(
        expected="the id of an explanation on record",
        got=repr(id)[:80],
        remedy="look it up with find()",
        field="id",
    )
