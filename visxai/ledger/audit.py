"""The audit chain: an append-only list of entries, each of which holds its predecessor's hash.

    hash_n = sha256(canonical JSON of entry n, with previous = hash_(n-1))

Entries hold no payloads and nothing personal: an entry names its payload by a salted hash, so that
the payload can be erased and the chain still verifies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from visxai.errors import StoreError
from visxai.ledger.canonical import canonical, sha256
from visxai.ledger.tables import audit, audit_head

if TYPE_CHECKING:
    from sqlalchemy import Connection

GENESIS = "0" * 64  # what the first entry has for a predecessor
HEAD = "visxai_head"  # in a connection's `info`: the last entry that its transaction appended
_PAGE = 1000  # entries that are read at a time
_READ_HEAD = select(audit_head.c.sequence, audit_head.c.hash).with_for_update()
_MOVE_HEAD = update(audit_head).values(sequence=bindparam("to"), hash=bindparam("last"))
_APPEND = insert(audit)


@dataclass(frozen=True)
class Entry:
    """An entry of the chain.

    Attributes:
        sequence: Its number, from 1.
        at: When it was appended, ISO 8601 in UTC.
        event: What happened, such as "explanation.added".
        actor: Who did it: the id of an API key, "system", or a program's name.
        tenant: Whose data it is about, "" for the service itself.
        subject: The id of what it happened to.
        body: Further facts, as canonical JSON.
        payload_sha256: The salted SHA-256 of the payload that lies outside of the chain, if any.
        previous: The hash of the entry before.
        hash: The hash of this entry.
    """

    sequence: int
    at: str
    event: str
    actor: str
    tenant: str
    subject: str
    body: str
    payload_sha256: str | None
    previous: str
    hash: str

    def digest(self, sequence: int | None = None) -> str:
        """Compute the hash that the entry's content has.

        Args:
            sequence: Another number to compute it for; None for the entry's own.
        """
        content = {
            "sequence": self.sequence if sequence is None else sequence,
            "at": self.at,
            "event": self.event,
            "actor": self.actor,
            "tenant": self.tenant,
            "subject": self.subject,
            "body": self.body,
            "payload_sha256": self.payload_sha256,
            "previous": self.previous,
        }
        return sha256(canonical(content))


@dataclass(frozen=True)
class Event:
    """Something that happened, to be appended to the chain.

    Attributes:
        event: What happened, such as "explanation.added".
        subject: The id of what it happened to.
        actor: Who did it.
        tenant: Whose data it is about.
        body: Further facts, without anything personal.
        payload_sha256: The hash of a payload outside of the chain.
    """

    event: str
    subject: str
    actor: str = "system"
    tenant: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    payload_sha256: str | None = None


def append(
    connection: Connection,
    at: str,
    event: str,
    subject: str,
    *,
    actor: str = "system",
    tenant: str = "",
    body: Mapping[str, Any] | None = None,
    payload_sha256: str | None = None,
) -> Entry:
    """Append an entry within the connection's writing transaction.

    Args:
        connection: A connection in a writing transaction; other writers of the chain wait for it.
        at: The time, as `canonical.timestamp` writes it.
        event: What happened.
        subject: The id of what it happened to.
        actor: Who did it.
        tenant: Whose data it is about.
        body: Further facts, without anything personal.
        payload_sha256: The hash of a payload outside of the chain.

    Returns:
        The entry.

    Raises:
        ArgumentError: The body isn't plain values.
        StoreError: The database has no chain: its tables weren't made by visxai.
    """
    event_ = Event(event, subject, actor, tenant, body or {}, payload_sha256)
    return extend(connection, at, [event_])[0]


def extend(connection: Connection, at: str, events: Sequence[Event]) -> list[Entry]:
    """Append entries, in their order, within the connection's writing transaction.

    Args:
        connection: A connection in a writing transaction; other writers of the chain wait for it.
        at: The time, as `canonical.timestamp` writes it.
        events: What happened.

    Returns:
        The entries.

    Raises:
        ArgumentError: A body isn't plain values.
        StoreError: The database has no chain: its tables weren't made by visxai.
    """
    head = connection.execute(_READ_HEAD).one_or_none()
    if head is None:
        raise StoreError(
            expected="the audit chain's head",
            got="none",
            remedy="restore the database from a backup, its audit_head table is empty",
        )
    made: list[Entry] = []
    sequence, previous = head.sequence, head.hash
    for one in events:
        sequence += 1
        content: dict[str, Any] = {
            "sequence": sequence,
            "at": at,
            "event": one.event,
            "actor": one.actor,
            "tenant": one.tenant,
            "subject": one.subject,
            "body": canonical(dict(one.body)),
            "payload_sha256": one.payload_sha256,
            "previous": previous,
        }
        previous = sha256(canonical(content))
        made.append(Entry(**content, hash=previous))
    if made:
        connection.execute(_APPEND, [vars(one) for one in made])
        connection.execute(_MOVE_HEAD, {"to": sequence, "last": previous})
        connection.info[HEAD] = made[-1]
    return made


def entries(
    connection: Connection,
    *,
    after: int = 0,
    subject: str | None = None,
    event: str | None = None,
    tenant: str | None = None,
) -> Iterator[Entry]:
    """Read entries in the order of their numbers.

    Args:
        connection: A connection of `Database.reading` or `writing`.
        after: Only entries with a greater number.
        subject: Only entries about this id.
        event: Only entries of this event.
        tenant: Only entries about this tenant's data.

    Yields:
        The entries, read by the thousand.
    """
    while True:
        query = select(audit).where(audit.c.sequence > after)
        if subject is not None:
            query = query.where(audit.c.subject == subject)
        if event is not None:
            query = query.where(audit.c.event == event)
        if tenant is not None:
            query = query.where(audit.c.tenant == tenant)
        rows = connection.execute(query.order_by(audit.c.sequence).limit(_PAGE)).all()
        for row in rows:
            yield Entry(**row._mapping)
        if len(rows) < _PAGE:
            return
        after = rows[-1].sequence
