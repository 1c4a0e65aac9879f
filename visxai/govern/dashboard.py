"""The governance page of a log, as one file that opens from disk or that a service hands out.

    govern.report(log, "report.html")       a file; the audit chain is verified for it
    govern.page(log)                        the HTML, for a service's /governance

Everything on the page was computed before: daily sums, tested windows, compared groups. Of the
explanations it reads only those it shows, so it is as quick for a million as for a thousand.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
import os
import time
import zlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import func, select

from visxai import files
from visxai.errors import VisxaiError
from visxai.govern import daily, tables
from visxai.govern.cards import card_of
from visxai.govern.features.base import FIXED
from visxai.govern.log import Log, Model
from visxai.govern.watching import alerts
from visxai.govern.windows import LEVEL
from visxai.ledger import explanations
from visxai.ledger import tables as ledger
from visxai.ledger.canonical import timestamp
from visxai.record.columns import unpack
from visxai.web import page as web

if TYPE_CHECKING:
    from sqlalchemy import Connection

_HERE = Path(__file__).parent / "assets"
_ITEMS = 200  # explanations on the page
_CLASSES = 6  # classes with trends
_DAYS = 92  # days of a trend, up to the last with an item
_WINDOWS = 400  # windows on the page, the latest
_MAP = 48  # pixels a side of a small map
_MODELS = 20
_SKIPPED = ("map", "map_shape", "map_scale", "versions", "transform", "data", "features", "spans")


def report(log: Log, out: str | os.PathLike[str], *, verify: bool = True) -> Path:
    """Write the page as one file.

    Args:
        log: The log.
        out: The file.
        verify: Whether to verify the whole audit chain for it.

    Returns:
        The file's path.

    Raises:
        StoreError: The database can't be read, or the file can't be written.
    """
    target = Path(os.path.abspath(out))
    text = page(log, verify=verify)
    with files.one_sentence(f"to write {os.fspath(out)}", "name another file"):
        files.write(target, text)
    return target


def page(log: Log, *, verify: bool = False) -> str:
    """Make the page's HTML.

    Args:
        log: The log.
        verify: Whether to verify the whole audit chain, which reads all entries and payloads.

    Raises:
        StoreError: The database can't be read.
    """
    told = alerts(log)
    models = [_model(log, one, told) for one in log.models()[:_MODELS]]
    data = {"models": models, "audit": _audit(log, verify), "level": LEVEL}
    style = Path(web.__file__).parent
    return web.filled(
        "Governance",
        data,
        template=_HERE / "dashboard.html",
        styles=(style / "page.css", _HERE / "dashboard.css"),
        scripts=(style / "plots.js", _HERE / "charts.js", _HERE / "dashboard.js"),
    )


def _model(log: Log, model: Model, told: list[dict[str, Any]]) -> dict[str, Any]:
    card = card_of(log, model.id)
    with log.ledger.database.reading() as connection:
        labels = ["", *(name for name, _ in daily.labels(connection, model.id, _CLASSES))]
        figures = ("score", "error", *FIXED)
        last = datetime.date.fromisoformat(model.last)
        since = (last - datetime.timedelta(days=_DAYS - 1)).isoformat()
        points = daily.trends(connection, model.id, figures, labels, since)
        covered = connection.execute(
            select(tables.coverage).where(tables.coverage.c.model_id == model.id)
        ).all()
        windows = connection.execute(
            select(tables.windows)
            .where(tables.windows.c.model_id == model.id)
            .order_by(tables.windows.c.last.desc())
            .limit(_WINDOWS)
        ).all()
        gaps = connection.execute(
            select(tables.gaps)
            .where(tables.gaps.c.model_id == model.id)
            .order_by(tables.gaps.c.attribute)
        ).all()
        items = _items(connection, model.id, card.threshold if card else None)
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
        "mean": {
            label: _picture(grid)
            for label, found in points.items()
            if (grid := _mean_grid(found)) is not None
        },
        "coverage": {row.day: [row.seen, row.explained] for row in covered},
        "windows": [_window(row) for row in reversed(windows)],
        "gaps": [{**json.loads(row.result), "n": row.n, "at": row.at} for row in gaps],
        "alerts": [one for one in told if one["model_id"] == model.id],
        "items": items,
    }


def _window(row: Any) -> dict[str, Any]:
    result = json.loads(row.result)
    moved = [
        {name: column[name] for name in ("name", "before", "after")}
        for side in result["alarms"]
        for column in result["sides"][side]["columns"][:3]
    ]
    kept = {name: result[name] for name in ("first", "last", "n", "q", "alarms", "missing")}
    return {**kept, "id": row.id, "moved": moved}


def _items(connection: Connection, model: str, threshold: float | None) -> dict[str, Any]:
    """Read flagged and high-risk explanations: by the threshold, or else of the highest scores."""
    table = tables.measures
    # Of the latest, so that the index on time bounds what is read.
    latest = (
        select(table)
        .where(table.c.model_id == model)
        .order_by(table.c.at.desc(), table.c.explanation_id.desc())
        .limit(25 * _ITEMS)
        .subquery()
    )
    query = select(latest).order_by(latest.c.score.desc()).limit(_ITEMS)
    rule = f"the highest scores of the latest {25 * _ITEMS:,}"
    if threshold is not None:
        query = query.where(latest.c.score >= threshold)
        rule = f"scores from {threshold:g} on, of the latest {25 * _ITEMS:,}"
    rows = connection.execute(query).all()
    found = (explanations.get(connection, row.explanation_id) for row in rows)
    records = [(one.record if one is not None else None) or {} for one in found]
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
        "record": {name: value for name, value in record.items() if name not in _SKIPPED},
        "map": _small_map(record),
    }


def _small_map(record: dict[str, Any]) -> str | None:
    """Draw an image's native map small; None for other kinds and damaged records."""
    if record.get("kind", "image") != "image" or not record:
        return None
    try:
        packed = base64.b64decode(record["map"])
        return _picture(unpack(packed, record["map_shape"], record["map_scale"]))
    except (VisxaiError, KeyError, ValueError, TypeError, zlib.error):
        return None


def _picture(values: Any) -> str:
    """Draw a map (u, v) from zero up as a PNG data URI, each cell a block."""
    from PIL import Image

    from visxai.drawing.colours import DEFAULT, lut

    positive = np.nan_to_num(np.asarray(values, np.float64)).clip(min=0)
    scaled = positive / (float(positive.max(initial=0)) or 1.0)
    colours = lut(DEFAULT)[(scaled * 255).astype(int)].astype(np.uint8)
    image = Image.fromarray(colours)
    if max(image.size) > _MAP:
        image.thumbnail((_MAP, _MAP))
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _mean_grid(found: dict[str, list[daily.Point]]) -> Any:
    """Compute the mean share (4, 4) of the evidence by cell over all days; None without any."""
    grid = np.zeros((4, 4))
    for row in range(4):
        for column in range(4):
            days = found.get(f"cell_{row}{column}")
            if not days:
                return None
            grid[row, column] = sum(p.n * p.mean for p in days) / sum(p.n for p in days)
    return grid


def _audit(log: Log, verify: bool) -> dict[str, Any]:
    verdict = log.ledger.verify() if verify else None
    with log.ledger.database.reading() as connection:
        head = connection.execute(select(ledger.audit_head.c.sequence)).scalar() or 0
        checkpoint = connection.execute(
            select(ledger.checkpoints).order_by(ledger.checkpoints.c.sequence.desc()).limit(1)
        ).one_or_none()
        latest = connection.execute(
            select(ledger.audit).order_by(ledger.audit.c.sequence.desc()).limit(100)
        ).all()
        tables_of = func.count(ledger.checkpoints.c.sequence)
        signed = connection.execute(select(tables_of)).scalar() or 0
    return {
        "entries": head,
        "verified": None if verdict is None else bool(verdict),
        "flaws": [] if verdict is None else [one.sentence for one in verdict.flaws[:20]],
        "at": timestamp(time.time()),
        "checkpoints": signed,
        "checkpoint": None
        if checkpoint is None
        else {"sequence": checkpoint.sequence, "at": checkpoint.at, "key": checkpoint.key_id},
        "latest": [
            {"at": row.at, "event": row.event, "actor": row.actor, "subject": row.subject}
            for row in latest
        ],
    }
