"""The cache: explanations that were computed before, for equal images and for similar ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, select

from visxai.ledger import Stored, stored
from visxai.ledger.database import insert_all_new
from visxai.ledger.tables import explanations
from visxai.serve import similar
from visxai.serve.tables import cache

_EQUAL = (
    select(explanations)
    .join(cache, cache.c.explanation_id == explanations.c.id)
    .where(cache.c.content_key == bindparam("key"))
)

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from visxai.serve.config import Cache
    from visxai.serve.jobs import Job


@dataclass(frozen=True)
class Reused:
    """What a job is answered with instead of being computed.

    Attributes:
        record: The explanation's fields.
        cache: Where they came from, as the envelope says it.
        confidence: What was found on the explanation's quality, for the same item only.
        equal: Whether it was found as an equal item's, so that the next one will find it too.
    """

    record: Mapping[str, Any]
    cache: Mapping[str, Any]
    confidence: Mapping[str, Any] = field(default_factory=dict)
    equal: bool = False


def find(connection: Connection, job: Job, settings: Cache) -> Reused | None:
    """Find an explanation that a job can be answered with.

    Args:
        connection: A connection of the service's database.
        job: The job.
        settings: What may be reused.

    Returns:
        The explanation, None where the job must be computed.
    """
    if settings.exact and (source := equal(connection, job.content_key)) is not None:
        told: Mapping[str, Any] = {"kind": "exact", "source": source.id}
        # What was taken over from an image that looks the same stays that.
        if source.envelope.cache.get("kind") == "similar":
            told = source.envelope.cache
        return Reused(source.record or {}, told, source.envelope.confidence, equal=True)
    if settings.similar and job.lane == "fast":
        found = similar.find(connection, job, settings.tolerance)
        if found is not None:
            return Reused(similar.record_for(job, found), found.cache)
    return None


def equal(connection: Connection, content_key: str) -> Stored | None:
    """Return the explanation that is there for a content key, None if there is none."""
    row = connection.execute(_EQUAL, {"key": content_key}).one_or_none()
    return None if row is None or row.data is None else stored.of_row(row)


def remember(
    connection: Connection, ended: Sequence[Job], now: float, *, computed: bool = True
) -> None:
    """Let later jobs of the same content, or of images like it, take the explanations of jobs.

    Args:
        connection: A connection in a writing transaction.
        ended: The jobs.
        now: The present time.
        computed: Whether they were computed for these very images: else only equal ones take them.
    """
    rows = [
        {"content_key": job.content_key, "explanation_id": job.id, "created": now} for job in ended
    ]
    insert_all_new(connection, cache, rows)
    for job in ended if computed else ():
        if job.lane == "fast":
            similar.remember(connection, job, now)
