"""Erasing items and what was made of them, on request or when they are too old."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, select, update

from visxai.errors import StoreError
from visxai.ledger import audit, explanations
from visxai.ledger.tables import explanations as recorded
from visxai.serve import similar, tables
from visxai.serve.errors import Conflict, Missing

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from visxai.serve.service import Service

DAY = 86400.0


def erase_item(service: Service, tenant: str, item_id: str, actor: str) -> None:
    """Erase an item: its bytes, explanations and hashes; the chain stays whole.

    Raises:
        Missing: The tenant has no such item.
        Conflict: One of its explanations is under legal hold.
    """
    items, jobs, cache = tables.items, tables.jobs, tables.cache
    with service.ledger.writing() as (connection, at):
        now = service.database.now(connection)
        row = connection.execute(
            select(items).where(items.c.id == item_id, items.c.tenant == tenant)
        ).one_or_none()
        if row is None:
            raise Missing("an item")
        if row.erased is not None:
            return
        made = made_of(connection, item_id)
        for id in made.explanations:
            if explanations.get(connection, id).hold is not None:  # type: ignore[union-attr]
                raise Conflict(
                    expected="an item without a legal hold",
                    got=f"the explanation {id}, which is held",
                    remedy="lift the hold first",
                )
        for id in made.jobs:
            service.queue.cancel(connection, id, now)
        for id in made.explanations:
            explanations.erase(connection, at, id, "request", actor=actor)
        connection.execute(delete(cache).where(cache.c.explanation_id.in_(made.explanations)))
        similar.forget(connection, made.explanations)
        connection.execute(update(jobs).where(jobs.c.id.in_(made.jobs)).values(spec="{}"))
        gone = ("name", "content_sha256", "pixel_sha256", "metadata", "blob")
        connection.execute(
            update(items)
            .where(items.c.id == item_id)
            .values({**dict.fromkeys(gone), "erased": now})
        )
        audit.append(connection, at, "item.erased", item_id, actor=actor, tenant=tenant)
        others = (
            row.blob
            and connection.execute(
                select(items.c.id).where(items.c.blob == row.blob).limit(1)
            ).first()
        )
    service.forget()
    if row.blob and not others:
        service.blobs.remove(row.blob)


def tidy(service: Service) -> int:
    """Erase what is too old, and take expired leases back; return how many were erased."""
    service.queue.reap()
    erased = service.ledger.apply_retention()
    items, requests = tables.items, tables.requests
    with service.database.writing() as connection:
        now = service.database.now(connection)
        connection.execute(delete(requests).where(requests.c.created < now - DAY))
        # Explanations that retention erased no longer answer anything.
        gone = select(recorded.c.id).where(recorded.c.erased.is_not(None))
        for table in (tables.cache, tables.bands, tables.similar):
            connection.execute(delete(table).where(table.c.explanation_id.in_(gone)))
        old = connection.execute(
            select(items.c.id, items.c.tenant)
            .where(
                items.c.erased.is_(None),
                items.c.created < now - service.config.retention.days * DAY,
            )
            .limit(1000)
        ).all()
    for row in old:
        try:
            erase_item(service, row.tenant, row.id, "retention")
        except (Conflict, StoreError):
            continue
    return erased + len(old)


@dataclass(frozen=True)
class Made:
    """What was made of an item.

    Attributes:
        jobs: The ids of its jobs.
        explanations: The ids of its explanations that are on record and not erased.
    """

    jobs: list[str]
    explanations: list[str]


def made_of(connection: Connection, item_id: str) -> Made:
    """List the jobs and explanations of an item."""
    jobs = tables.jobs
    told = connection.execute(select(jobs.c.id).where(jobs.c.item_id == item_id)).scalars()
    found = select(recorded.c.id).where(recorded.c.item_id == item_id, recorded.c.erased.is_(None))
    return Made(list(told), list(connection.execute(found).scalars()))
