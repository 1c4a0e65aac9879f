"""Explanations on record: put down, read, found, held and erased.

The whole record and its envelope are one canonical JSON text, compressed with zstd. The audit chain
holds the SHA-256 of a random salt and that text. Erasing removes text and salt: what stays proves
that there was something, and nobody can guess what from the hash.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, or_, select, update

from visxai.errors import ArgumentError, StoreError, require
from visxai.ledger import audit
from visxai.ledger.canonical import canonical, parse_time, sha256
from visxai.ledger.database import insert_new
from visxai.ledger.envelope import Envelope
from visxai.ledger.tables import explanations, models
from visxai.record.base import Explanation

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

MAX_PAYLOAD = 256 * 2**20  # bytes of a record's JSON, as a database may be a stranger's
_LEVEL = 3  # of zstd
_PAGE = 200  # records that are read at a time

# The columns that say the same as the payload, and where it says it.
_OF_ENVELOPE = (
    "tenant",
    "tier",
    "item_id",
    "decision_id",
    "supersedes",
    "decision",
    "content_sha256",
    "pixel_sha256",
    "retain_until",
)
_OF_RECORD = ("kind", "method", "label", "score")
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


@dataclass(frozen=True)
class Stored:
    """An explanation on record.

    Attributes:
        id: Its id.
        created: When it was put on record, ISO 8601 in UTC.
        envelope: What is recorded around it; of an erased one only tenant and tier.
        record: The explanation's fields, as `Explanation.to_dict` gives them; None once erased.
        hold: The reason of a legal hold, None without one.
        erased: When it was erased, None while it is there.
    """

    id: str
    created: str
    envelope: Envelope
    record: dict[str, Any] | None
    hold: str | None = None
    erased: str | None = None

    @property
    def explanation(self) -> Explanation:
        """The explanation itself, with its map.

        Raises:
            ArgumentError: It was erased, or the record is damaged.
        """
        if self.record is None:
            raise ArgumentError(
                expected="an explanation that is still on record",
                got=f"{self.id}, erased at {self.erased}",
                remedy="explain the item again",
            )
        return Explanation.from_dict(self.record)


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
    record = explanation.to_dict() if isinstance(explanation, Explanation) else dict(explanation)
    Explanation.from_dict(record)
    id = id or uuid.uuid4().hex
    text = canonical({"envelope": envelope.to_dict(), "record": record}).encode("utf-8")
    salt = secrets.token_bytes(16)
    digest = sha256(salt + text)
    row = {
        **_columns(envelope.to_dict(), record),
        "id": id,
        "model_id": _model(connection, at, record),
        "created": at,
        "digest": digest,
        "salt": salt,
        "data": _zstd().ZstdCompressor(level=_LEVEL).compress(text),
    }
    if not insert_new(connection, explanations, row):
        raise ArgumentError(
            expected="an id that isn't taken",
            got=id,
            remedy="leave the id out to have one made",
            field="id",
        )
    audit.append(
        connection,
        at,
        "explanation.added",
        id,
        actor=actor,
        tenant=envelope.tenant,
        body={"tier": envelope.tier, "weights_sha256": record["weights_sha256"]},
        payload_sha256=digest,
    )
    return id


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
    query = select(explanations).where(explanations.c.id == id)
    if tenant is not None:
        query = query.where(explanations.c.tenant == tenant)
    row = connection.execute(query).one_or_none()
    return None if row is None else _stored(row)


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
        if name not in (*_OF_ENVELOPE, "kind", "method", "label"):
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
            yield _stored(row)
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
    return [_stored(row) for row in connection.execute(query.order_by(order).limit(most))]


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


def payload(data: bytes) -> bytes:
    """Decompress a payload; raise StoreError where it is damaged or larger than 256 MiB."""
    zstd = _zstd()
    try:
        size = zstd.frame_content_size(data)
        if 0 <= size <= MAX_PAYLOAD:
            return bytes(zstd.ZstdDecompressor().decompress(data))
    except zstd.ZstdError:
        pass
    raise StoreError(
        expected=f"a compressed record of at most {MAX_PAYLOAD} bytes",
        got=f"{len(data)} other bytes",
        remedy="run `visxai audit verify` and restore the database from a backup",
    )


def misfit(row: Row[Any], text: bytes) -> str | None:
    """Return the first column of a row that doesn't say what its payload says, None if all do."""
    whole = json.loads(text)
    told = _columns(whole["envelope"], whole["record"])
    return next((name for name, value in told.items() if getattr(row, name) != value), None)


def _columns(envelope: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that repeat parts of the payload."""
    found = {name: envelope[name] for name in _OF_ENVELOPE}
    # Postgres has no text with NUL, which labels of strangers may hold.
    found.update({name: record.get(name) for name in _OF_RECORD})
    for name in ("method", "label"):
        found[name] = None if found[name] is None else str(found[name]).replace("\0", "\ufffd")
    return found


def _model(connection: Connection, at: str, record: Mapping[str, Any]) -> str:
    """Return the id of a record's model, which is put down when it is first seen."""
    told = {name: str(record[name]) for name in ("model", "weights_sha256", "preprocess")}
    id = sha256(canonical(told))[:32]
    if connection.execute(select(models.c.id).where(models.c.id == id)).one_or_none() is None:
        name = told.pop("model").replace("\0", "\ufffd")
        insert_new(connection, models, {**told, "id": id, "name": name, "first_seen": at})
    return id


def _stored(row: Row[Any]) -> Stored:
    if row.data is None:
        envelope = Envelope(tenant=row.tenant, tier=row.tier)
        return Stored(row.id, row.created, envelope, None, row.hold, row.erased)
    whole = json.loads(payload(row.data))
    envelope = Envelope.from_dict(whole["envelope"])
    return Stored(row.id, row.created, envelope, whole["record"], row.hold, row.erased)


def _zstd() -> Any:
    return require("zstandard", "serve", "the ledger")
