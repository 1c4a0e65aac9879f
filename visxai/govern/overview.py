"""What the governance page says of a model: trends, flagged explanations, gaps, windows, alerts."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from visxai.govern import daily, tables
from visxai.govern.cards import card_of
from visxai.govern.features.base import FIXED
from visxai.govern.features.tables import PREFIX as ATTRIBUTION
from visxai.govern.features.tables import SHARE
from visxai.govern.log import Log, Model
from visxai.govern.pictures import mean_map, parts, small_map
from visxai.govern.regions import PREFIX as REGION
from visxai.ledger import explanations
from visxai.record.pair import PARTS

if TYPE_CHECKING:
    from sqlalchemy import Connection, Select, Table

ITEMS = 200  # explanations on the page
_CLASSES = 6  # classes with trends
_DAYS = 92  # days of a trend, up to the last with an item
_WINDOWS = 400  # windows on the page, the latest
_SHARES = 6  # features of rows, and regions of images, with a trend
_SKIPPED = ("map", "map_shape", "map_scale", "versions", "transform", "data", "features", "spans")


def summarise(
    log: Log, model: Model, told: list[dict[str, Any]], tenant: str | None
) -> dict[str, Any]:
    """Gather what the page says of a model.

    Args:
        log: The log.
        model: The model.
        told: All alerts.
        tenant: Whose explanations, sums, windows and gaps; None for everybody's.

    Raises:
        StoreError: The database can't be read.
    """
    card = card_of(log, model.id)
    last = datetime.date.fromisoformat(model.last)
    since = (last - datetime.timedelta(days=_DAYS - 1)).isoformat()
    with log.ledger.database.reading() as connection:
        labels = ["", *(name for name, _ in daily.labels(connection, model.id, _CLASSES, tenant))]
        figures = _figures(daily.means(connection, model.id, since, tenant))
        points = daily.trends(connection, model.id, figures, labels, since, tenant)
        covered = connection.execute(_rows(tables.coverage, model, tenant)).all()
        windows = connection.execute(
            _rows(tables.windows, model, tenant)
            .order_by(tables.windows.c.last.desc())
            .limit(_WINDOWS)
        ).all()
        gaps = connection.execute(
            _rows(tables.gaps, model, tenant).order_by(
                tables.gaps.c.attribute, tables.gaps.c.tenant
            )
        ).all()
        items = _items(connection, model.id, card.threshold if card else None, tenant)
    return {
        **asdict(model),
        "card": None if card is None else asdict(card),
        "trends": {
            label: {
                name: [[p.day, p.n, *(round(v, 6) for v in (p.mean, p.low, p.high))] for p in days]
                for name, days in found.items()
            }
            for label, found in points.items()
        },
        "mean": {label: made for label, found in points.items() if (made := _maps(found))},
        "coverage": [
            sum(row.seen for row in covered),
            sum(row.explained for row in covered),
        ],
        "windows": [_window(row) for row in reversed(windows)],
        "gaps": [
            {**json.loads(row.result), "n": row.n, "at": row.at, "tenant": row.tenant}
            for row in gaps
        ],
        "alerts": [one for one in told if one["model_id"] == model.id],
        "items": items,
    }


def _rows(table: Table, model: Model, tenant: str | None) -> Select[Any]:
    """Select a model's rows, of one tenant or of all."""
    query = select(table).where(table.c.model_id == model.id)
    return query if tenant is None else query.where(table.c.tenant == tenant)


def _figures(means: Mapping[str, tuple[int, float]]) -> list[str]:
    """Choose the figures with a trend: of many features of rows those with the most evidence."""
    shares = sorted((one for one in means if one.startswith(SHARE)), key=lambda n: -means[n][1])
    regions = sorted((one for one in means if one.startswith(REGION)), key=lambda n: -means[n][0])
    strongest = shares[:_SHARES]
    attributions = [ATTRIBUTION + one.removeprefix(SHARE) for one in strongest]
    apart = ("score", "error", *FIXED)
    others = [
        one
        for one in means
        if one not in apart and not one.startswith((SHARE, ATTRIBUTION, REGION))
    ]
    return [*apart, *strongest, *attributions, *regions[:_SHARES], *others]


def _maps(found: Mapping[str, list[daily.Point]]) -> list[dict[str, Any]]:
    """Draw the mean map of all days, and those of the earlier and the later half."""
    count = max((len(days) for name, days in found.items() if name.startswith("cell_")), default=0)
    halves = [slice(0, count // 2), slice(count // 2, None)] if count > 1 else []
    made = (mean_map(found, days) for days in [slice(None), *halves])
    return [one for one in made if one is not None]


def _window(row: Any) -> dict[str, Any]:
    result = json.loads(row.result)
    moved = [
        {name: column[name] for name in ("name", "before", "after", "statistic", "q")}
        for side in result["alarms"]
        for column in result["sides"][side]["columns"][:2]
    ]
    kept = {name: result[name] for name in ("first", "last", "n", "q", "alarms", "missing")}
    outliers = [
        {"id": one["id"], "side": one["side"], "distance": one["distance"]}
        for one in result["outliers"][:5]
    ]
    count = len(result["outliers"])
    return {
        **kept,
        "id": row.id,
        "tenant": row.tenant,
        "moved": moved,
        "outliers": outliers,
        "unlike": count,
    }


def _items(
    connection: Connection, model: str, threshold: float | None, tenant: str | None
) -> dict[str, Any]:
    """Read flagged and high-risk explanations: by the threshold, or else of the highest scores."""
    table = tables.measures
    # Of the latest, so that the index on time bounds what is read.
    latest = (
        select(table)
        .where(table.c.model_id == model)
        .order_by(table.c.at.desc(), table.c.explanation_id.desc())
        .limit(25 * ITEMS)
        .subquery()
    )
    query = select(latest).order_by(latest.c.score.desc()).limit(ITEMS)
    rule = f"the highest scores of the latest {25 * ITEMS:,}"
    if threshold is not None:
        query = query.where(latest.c.score >= threshold)
        rule = f"scores from {threshold:g} on, of the latest {25 * ITEMS:,}"
    if tenant is not None:
        query = query.where(latest.c.tenant == tenant)
    rows = connection.execute(query).all()
    found = explanations.get_all(connection, [row.explanation_id for row in rows])
    stored = (found.get(row.explanation_id) for row in rows)
    records = [(one.record if one is not None else None) or {} for one in stored]
    return {"rule": rule, "rows": list(map(_item, rows, records))}


def _item(row: Any, record: dict[str, Any]) -> dict[str, Any]:
    features = {one: getattr(row, one) for one in FIXED if getattr(row, one) is not None}
    return {
        "id": row.explanation_id,
        "at": row.at,
        "source": row.source,
        "label": row.label,
        "truth": row.truth,
        "score": row.score,
        "groups": json.loads(row.groups),
        "features": {**features, **json.loads(row.others)},
        "record": _shown(record),
        "map": small_map(record) if record else None,
        "parts": parts(record),
    }


def _shown(record: dict[str, Any]) -> dict[str, Any]:
    """Return what of a record's fields, and of the records in it, people read."""
    return {
        name: _shown(value) if name in PARTS and isinstance(value, dict) else value
        for name, value in record.items()
        if name not in _SKIPPED
    }
