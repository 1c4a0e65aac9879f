"""Explanations on record: put down, read, found, held and erased.

Erasing removes an explanation's text and salt: what stays proves that there was something, and
nobody can guess what from the hash in the audit chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, bindparam, insert, or_, select, update

from visxai.errors import ArgumentError
from visxai.ledger import audit, stored
from visxai.ledger.audit import Event
from visxai.ledger.canonical import canonical, parse_time, sha256
from visxai.ledger.database import insert_new
from visxai.ledger.envelope import Envelope
from visxai.ledger.stored import Stored
from visxai.ledger.tables import explanations, models
from visxai.record.base import Explanation

if TYPE_CHECKING:
    from sqlalchemy import Connection

_PAGE = 200  # records that are read at a time
_ADD = insert(explanations)
_READ = select(explanations).where(explanations.c.id == bindparam("id"))
_SEEN = select(models.c.id).where(models.c.id == bindparam("id"))

_MODEL = ("model", "weights_sha256", "preprocess")  # what tells a model from others
# What a tombstone no longer says.
_ERASED = (
    "item_id",
    "decision_id",
    "supersedes",
    "method",
    "label",
    "score",
    "decision",
    "content_sha256",
    "pixel_sha256",
    "retain_until",
    "salt",
    "data",
)


def add(
    connection: Connection,
    at: str,
    explanation: Explanation | Mapping[str, Any],
    envelope: Envelope,
    *,
    id: str | None = None,
    actor: str = "system",
) -> str:
    """Put an explanation on record, and an entry about it into the audit chain.

    Args:
        connection: A connection in a writing transaction.
        at: The time, as `canonical.timestamp` writes it.
        explanation: The explanation of any kind of input, or its `to_dict()`.
        envelope: What is recorded around it.
        id: Its id; None makes one.
        actor: Who had it made.

    Returns:
        The id.

    Raises:
        ArgumentError: The record isn't one, or the id is taken.
    """
    if isinstance(explanation, Explanation):
        record = explanation.to_dict()
    else:
        record = dict(explanation)
        Explanation.from_dict(record)  # which says what is wrong with it
    id = id or stored.new_id()
    model = _model(connection, at, record)
    row = {**stored.row_of(record, envelope), "id": id, "model_id": model, "created": at}
    if not insert_new(connection, explanations, row):
        raise ArgumentError(
            expected="an id that isn't taken",
            got=id,
            remedy="leave the id out to have one made",
            field="id",
        )
    audit.extend(connection, at, [_added(row, record, actor)])
    return id


def add_all(
    connection: Connection,
    at: str,
    items: Sequence[tuple[Mapping[str, Any], Envelope]],
    *,
    actor: str | Sequence[str] = "system",
    ids: Sequence[str] | None = None,
    more: Sequence[Event] = (),
) -> list[tuple[str, str]]:
    """Put many explanations on record, each with its own entry in the audit chain.

    Args:
        connection: A connection in a writing transaction.
        at: The time, as `canonical.timestamp` writes it.
        items: Records that `Explanation.to_dict` gave or `from_dict` read, and what is recorded
            around each.
        actor: Who had them made, or who had each made.
        ids: The id of each, none of which is taken; None makes them.
        more: What else happened, for the entries behind theirs.

    Returns:
        For each its id and that of its model.

    Raises:
        ArgumentError: A record holds a value that JSON hasn't.
        StoreError: An id is taken.
    """
    known: dict[tuple[str, ...], str] = {}
    rows, events = [], []
    actors = [actor] * len(items) if isinstance(actor, str) else actor
    wanted = [stored.new_id() for _ in items] if ids is None else ids
    for (record, envelope), who, id in zip(items, actors, wanted, strict=True):
        told = _identity(record)
        if told not in known:
            known[told] = _model(connection, at, record)
        row = {
            **stored.row_of(record, envelope),
            "id": id,
            "model_id": known[told],
            "created": at,
        }
        rows.append(row)
        events.append(_added(row, record, who))
    if rows:
        connection.execute(_ADD, rows)
    if rows or more:
        audit.extend(connection, at, [*events, *more])
    return [(row["id"], row["model_id"]) for row in rows]


def get(connection: Connection, id: str, tenant: str | None = None) -> Stored | None:
    """Read an explanation.

    Args:
        connection: A connection.
        id: Its id.
        tenant: Whose it must be; None for anybody's.

    Returns:
        The explanation, None where this tenant has none with this id.

    Raises:
        StoreError: Its payload is damaged.
    """
    row = connection.execute(_READ, {"id": id}).one_or_none()
    return None if row is None or tenant not in (None, row.tenant) else stored.of_row(row)


def get_all(connection: Connection, ids: Sequence[str]) -> dict[str, Stored]:
    """Read explanations by their ids; those that aren't there are left out.

    Args:
        connection: A connection.
        ids: Their ids, some hundred at most.

    Raises:
        StoreError: A payload is damaged.
    """
    query = select(explanations).where(explanations.c.id.in_(list(ids)))
    return {row.id: stored.of_row(row) for row in connection.execute(query)}


def find(
    connection: Connection,
    *,
    since: str | None = None,
    until: str | None = None,
    model: str | None = None,
    erased: bool = False,
    **equal: str | None,
) -> Iterator[Stored]:
    """Find explanations, in the order in which they were put on record.

    Args:
        connection: A connection; it is used while the results are read.
        since: Only those put on record at this time (ISO 8601) or later.
        until: Only those before this time.
        model: Only those of the model with this name or this SHA-256 of its weights.
        erased: Whether to yield the tombstones of erased ones too.
        **equal: Only those whose column of this name (tenant, kind, tier, item_id, decision_id,
            method, label, decision, content_sha256, pixel_sha256) has this value; None is any.

    Yields:
        The explanations, read by the hundred.

    Raises:
        ArgumentError: A time can't be read, or there is no such column.
        StoreError: A payload is damaged.
    """
    query = select(explanations)
    for name, value in equal.items():
        if name not in (*stored.OF_ENVELOPE, "kind", "method", "label"):
            raise ArgumentError(
                expected="a column that explanations are found by",
                got=name,
                remedy="use tenant, kind, tier, label, method, decision or an id",
            )
        if value is not None:
            query = query.where(explanations.c[name] == value)
    if since is not None:
        query = query.where(explanations.c.created >= parse_time(since))
    if until is not None:
        query = query.where(explanations.c.created < parse_time(until))
    if model is not None:
        ids = select(models.c.id).where(
            or_(models.c.name == model, models.c.weights_sha256 == model)
        )
        query = query.where(explanations.c.model_id.in_(ids))
    if not erased:
        query = query.where(explanations.c.erased.is_(None))
    created, key = explanations.c.created, explanations.c.id
    query = query.order_by(created, key).limit(_PAGE)
    page = query
    while rows := connection.execute(page).all():
        for row in rows:
            yield stored.of_row(row)
        last = rows[-1]
        page = query.where(
            or_(created > last.created, and_(created == last.created, key > last.id))
        )


def latest(connection: Connection, tenant: str, since: str, most: int) -> list[Stored]:
    """Read a tenant's newest explanations, newest first.

    Args:
        connection: A connection.
        tenant: Whose.
        since: Only those put on record at this time or later, as `canonical.timestamp` writes it.
        most: The most.

    Raises:
        StoreError: A payload is damaged.
    """
    query = select(explanations).where(
        explanations.c.tenant == tenant,
        explanations.c.created >= since,
        explanations.c.erased.is_(None),
    )
    order = explanations.c.created.desc()
    return [stored.of_row(row) for row in connection.execute(query.order_by(order).limit(most))]


def set_hold(
    connection: Connection, at: str, id: str, reason: str | None, *, actor: str = "system"
) -> bool:
    """Put an explanation under legal hold, or lift the hold.

    Args:
        connection: A connection in a writing transaction.
        at: The time.
        id: The explanation.
        reason: Why it must stay; None lifts the hold.
        actor: Who says so.

    Returns:
        Whether there is such an explanation, not yet erased.
    """
    row = connection.execute(
        update(explanations)
        .where(explanations.c.id == id, explanations.c.erased.is_(None))
        .values(hold=reason)
        .returning(explanations.c.tenant)
    ).one_or_none()
    if row is None:
        return False
    event = "explanation.released" if reason is None else "explanation.held"
    audit.append(connection, at, event, id, actor=actor, tenant=row.tenant)
    return True


def erase(connection: Connection, at: str, id: str, reason: str, *, actor: str = "system") -> bool:
    """Erase an explanation; a tombstone and the audit chain stay.

    Args:
        connection: A connection in a writing transaction.
        at: The time.
        id: The explanation.
        reason: Why, in a word that isn't personal, such as "request" or "retention".
        actor: Who says so.

    Returns:
        Whether it was there to be erased.

    Raises:
        ArgumentError: It is under legal hold.
    """
    row = connection.execute(
        select(explanations.c.hold, explanations.c.tenant)
        .where(explanations.c.id == id, explanations.c.erased.is_(None))
        .with_for_update()
    ).one_or_none()
    if row is None:
        return False
    if row.hold is not None:
        raise ArgumentError(
            expected="an explanation without a legal hold",
            got=f"{id}, which is held",
            remedy="lift the hold first",
            field="id",
        )
    connection.execute(
        update(explanations)
        .where(explanations.c.id == id)
        .values({**dict.fromkeys(_ERASED), "erased": at})
    )
    audit.append(
        connection,
        at,
        "explanation.erased",
        id,
        actor=actor,
        tenant=row.tenant,
        body={"reason": reason},
    )
    return True


def expired(connection: Connection, at: str, limit: int = _PAGE) -> list[str]:
    """List explanations whose time is over and which aren't held.

    Args:
        connection: A connection.
        at: The present time.
        limit: The most ids.
    """
    query = select(explanations.c.id).where(
        explanations.c.retain_until <= at,
        explanations.c.hold.is_(None),
        explanations.c.erased.is_(None),
    )
    return list(
        connection.execute(query.order_by(explanations.c.retain_until).limit(limit)).scalars()
    )


def _added(row: Mapping[str, Any], record: Mapping[str, Any], actor: str) -> Event:
    """Make the entry about an explanation's row."""
    return Event(
        "explanation.added",
        row["id"],
        actor=actor,
        tenant=row["tenant"],
        body={"tier": row["tier"], "weights_sha256": record["weights_sha256"]},
        payload_sha256=row["digest"],
    )


def _identity(record: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(record[name]) for name in _MODEL)


def _model(connection: Connection, at: str, record: Mapping[str, Any]) -> str:
    """Return the id of a record's model, which is put down when it is first seen."""
    told = dict(zip(_MODEL, _identity(record), strict=True))
    id = sha256(canonical(told))[:32]
    if connection.execute(_SEEN, {"id": id}).one_or_none() is None:
        name = told.pop("model").replace("\0", "\ufffd")
        insert_new(connection, models, {**told, "id": id, "name": name, "first_seen": at})
    return id
