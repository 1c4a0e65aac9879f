"""The cache: explanations that were computed before, for equal images and for similar ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from visxai.ledger import Stored, explanations
from visxai.ledger.database import insert_new
from visxai.serve import similar
from visxai.serve.tables import cache

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
    """

    record: Mapping[str, Any]
    cache: Mapping[str, Any]
    confidence: Mapping[str, Any] = field(default_factory=dict)


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
        return Reused(source.record or {}, told, source.envelope.confidence)
    if settings.similar and job.lane == "fast":
        found = similar.find(connection, job, settings.tolerance)
        if found is not None:
            return Reused(similar.record_for(job, found), found.cache)
    return None


def equal(connection: Connection, content_key: str) -> Stored | None:
    """Return the explanation that is there for a content key, None if there is none."""
    id = connection.execute(
        select(cache.c.explanation_id).where(cache.c.content_key == content_key)
    ).scalar_one_or_none()
    found = None if id is None else explanations.get(connection, id)
    return None if found is None or found.record is None else found


def remember(connection: Connection, job: Job, now: float, *, computed: bool = True) -> None:
    """Let later jobs of the same content, or of an image like it, take a job's explanation.

    Args:
        connection: A connection in a writing transaction.
        job: The job.
        now: The present time.
        computed: Whether it was computed for this very image: else only equal ones take it.
    """
    values = {"content_key": job.content_key, "explanation_id": job.id, "created": now}
    insert_new(connection, cache, values)
    if computed and job.lane == "fast":
        similar.remember(connection, job, now)
