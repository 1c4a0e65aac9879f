"""The figures of the dashboard, from what is on record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import func, select

from visxai.ledger import explanations
from visxai.ledger.canonical import timestamp
from visxai.record.pair import PARTS
from visxai.serve.tables import decisions, jobs

if TYPE_CHECKING:
    from visxai.ledger import Stored
    from visxai.serve.service import Service

_DAY = 86400.0
_MOST = 500  # explanations that are read for the figures of stages and quality
_QUALITIES = ("agreement", "stability", "faithful", "completeness")


def summarise(service: Service, tenant: str) -> dict[str, Any]:
    """Summarise a tenant's last day.

    Args:
        service: The service.
        tenant: Whose.

    Returns:
        What the dashboard's template takes: `tiles`, `stages`, `qualities` and `failures`.
    """
    with service.database.reading() as connection:
        now = service.database.now(connection)
        since = now - _DAY
        mine = (decisions.c.tenant == tenant, decisions.c.created >= since)
        items, flagged = (
            connection.execute(select(func.count()).where(*mine, *more)).scalar_one()
            for more in ((), (decisions.c.decision == "flag",))
        )
        explained = connection.execute(
            select(func.count())
            .select_from(decisions.join(jobs, jobs.c.id == decisions.c.job_id))
            .where(*mine, jobs.c.state == "done")
        ).scalar_one()
        own = (jobs.c.tenant == tenant, jobs.c.created >= since)
        failures = connection.execute(
            select(jobs.c.reason, func.count().label("n"))
            .where(*own, jobs.c.state == "failed")
            .group_by(jobs.c.reason)
            .order_by(func.count().desc())
            .limit(10)
        ).all()
        depths = service.queue.depths(connection, tenant)
        recent = explanations.latest(connection, tenant, timestamp(since), _MOST)
    reused = sum(one.envelope.cache.get("kind") != "none" for one in recent)
    tiles = [
        ("coverage", f"{explained / flagged:.0%}" if flagged else "–", f"{explained} of {flagged}"),
        ("flagged", f"{flagged / items:.1%}" if items else "–", f"{flagged} of {items} items"),
        ("reused", f"{reused / len(recent):.0%}" if recent else "–", f"of {len(recent)}"),
    ]
    for lane in ("fast", "precise"):
        depth = depths.get(lane)
        waiting, oldest = (depth.waiting, depth.oldest) if depth else (0, 0.0)
        tiles.append((f"waiting, {lane}", str(waiting), f"oldest {oldest:.0f} s"))
    return {
        "tiles": tiles,
        "stages": _stages(recent),
        "qualities": _qualities(recent),
        "failures": failures,
    }


def _stages(recent: list[Stored]) -> list[dict[str, Any]]:
    told: dict[tuple[str, str], list[float]] = {}
    for one in recent:
        for stage, seconds in one.envelope.timings.items():
            told.setdefault((one.envelope.tier, stage), []).append(float(seconds))
    return [
        {"tier": tier, "stage": stage, "n": len(v), "quantiles": np.quantile(v, (0.5, 0.95, 0.99))}
        for (tier, stage), v in sorted(told.items())
    ]


def _qualities(recent: list[Stored]) -> list[dict[str, Any]]:
    found = []
    for name in _QUALITIES:
        told = [part.get(name) for one in reversed(recent) for part in _parts(one)]
        values = [float(value) for value in told if isinstance(value, (bool, int, float))]
        if values:
            median = float(np.median(values))
            found.append(
                {"name": name, "n": len(values), "median": median, "points": _line(values)}
            )
    return found


def _parts(one: Stored) -> Iterator[Mapping[str, Any]]:
    """Yield the figures of an explanation's quality, and those of a post's two parts."""
    yield one.envelope.confidence
    for name in PARTS:
        part = one.envelope.confidence.get(name)
        if isinstance(part, dict):
            yield part


def _line(values: list[float]) -> str:
    """Place values in a box of 120 by 24 as the points of a polyline."""
    low, high = min(values), max(values)
    span = high - low or 1.0
    if len(values) == 1:
        return "0,12 120,12"
    step = 120 / (len(values) - 1)
    return " ".join(
        f"{i * step:.1f},{22 - 20 * (v - low) / span:.1f}" for i, v in enumerate(values)
    )
