"""Images that look the same: the explanation of one serves the other, under narrow rules.

It is off unless the settings ask for it, and then only for flagged images in the fast tier. Both
images are the same tenant's, have PDQ hashes within ten bits and the same aspect, and the model has
scored both for the same target, within a tolerance. The forward is always paid, as hashes can be
forged. The envelope says {"kind": "similar", "source": id, "distance": bits}.

Two hashes of 256 bits that differ in ten at most have one of eleven bands of bits in common, so an
index on bands finds all candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import delete, insert, select

from visxai.images.pdq import CLEAR, NEAR, Hash
from visxai.ledger import Stored, explanations
from visxai.ledger.canonical import canonical, sha256
from visxai.ledger.database import insert_new
from visxai.serve.tables import bands, similar

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from visxai.serve.examine import Examined
    from visxai.serve.jobs import Job

_BANDS = NEAR + 1
_ASPECT = 0.01  # how far the ratio of the sides may differ: rounding to whole pixels
_CANDIDATES = 1000  # that are compared, the latest first


@dataclass(frozen=True)
class Found:
    """An explanation of an image that looks the same.

    Attributes:
        source: The explanation.
        distance: The bits in which the hashes differ.
    """

    source: Stored
    distance: int

    @property
    def cache(self) -> dict[str, Any]:
        """What the envelope says about it."""
        return {"kind": "similar", "source": self.source.id, "distance": self.distance}


def look_of(examined: Examined, score: float) -> dict[str, Any] | None:
    """Describe how an image looks, for the spec of its job; None where that says nothing.

    Args:
        examined: The image.
        score: The score that decided on it.
    """
    if examined.hash is None or examined.hash.quality < CLEAR:
        return None
    return {"pdq": str(examined.hash), "score": score, "input": examined.input.to_columns()}


def find(connection: Connection, job: Job, tolerance: float) -> Found | None:
    """Find the explanation of an image that looks like a job's, the nearest and latest of several.

    Args:
        connection: A connection of the service's database.
        job: The job.
        tolerance: How far the scores may be apart.

    Returns:
        The explanation, None where there is none or the job's image may not be compared.
    """
    look = job.spec.get("look")
    if look is None:
        return None
    hash, shape = _hash(look["pdq"]), look["input"]
    rows = connection.execute(
        select(similar)
        .where(
            similar.c.explanation_id.in_(
                select(bands.c.explanation_id).where(bands.c.band.in_(_bands_of(job, hash)))
            )
        )
        .order_by(similar.c.created.desc())
        .limit(_CANDIDATES)
    ).all()
    near = [
        (distance, row.explanation_id)
        for row in rows
        if (distance := hash.distance(_hash(row.pdq))) <= NEAR
        and abs(row.score - look["score"]) <= tolerance
        and _same_aspect((row.width, row.height), (shape["width"], shape["height"]))
    ]
    for distance, id in sorted(near, key=lambda one: one[0]):
        source = explanations.get(connection, id, job.tenant)
        if source is not None and source.record is not None:
            return Found(source, distance)
    return None


def record_for(job: Job, found: Found) -> dict[str, Any]:
    """Return the source's record with the job's own image as its input: there its map lies."""
    return {**(found.source.record or {}), **job.spec["look"]["input"]}


def remember(connection: Connection, job: Job, now: float) -> None:
    """Let later jobs find a job's explanation by how its image looks."""
    look: Mapping[str, Any] | None = job.spec.get("look")
    if look is None:
        return
    row = {
        "explanation_id": job.id,
        "pdq": look["pdq"],
        "width": look["input"]["width"],
        "height": look["input"]["height"],
        "score": look["score"],
        "created": now,
    }
    if insert_new(connection, similar, row):
        keys = _bands_of(job, _hash(look["pdq"]))
        connection.execute(insert(bands), [{"band": key, "explanation_id": job.id} for key in keys])


def forget(connection: Connection, ids: Sequence[str]) -> None:
    """Remove the hashes of explanations that are erased."""
    for table in (bands, similar):
        connection.execute(delete(table).where(table.c.explanation_id.in_(ids)))


def _bands_of(job: Job, hash: Hash) -> list[str]:
    """Return the keys of a hash's bands: every eleventh bit, within one tenant."""
    digits = f"{hash.bits:0256b}"
    told = [job.tenant, job.batch_key]
    return [sha256(canonical([*told, band, digits[band::_BANDS]]))[:32] for band in range(_BANDS)]


def _hash(digits: str) -> Hash:
    return Hash(int(digits, 16), 100)


def _same_aspect(first: tuple[int, int], second: tuple[int, int]) -> bool:
    one, other = first[0] * second[1], first[1] * second[0]
    return abs(one - other) <= _ASPECT * max(one, other)
