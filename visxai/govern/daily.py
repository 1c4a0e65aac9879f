"""Daily sums: what trends are drawn from without reading every explanation.

For each model, tenant, day, class ("" is all classes) and figure: n, sum and sum of squares, from
which

    mean = sum / n,    interval = mean ± 1.96 sqrt( (squares / n - mean²) / n )
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select

from visxai.govern import tables
from visxai.govern.features.base import FIXED
from visxai.govern.observations import DECISIONS
from visxai.govern.stored import plain

if TYPE_CHECKING:
    from sqlalchemy import Connection

_OTHERS = 100  # figures without a column of their own that an item adds to
_LONGEST = 128  # characters of a figure's name
_SURE = 1.959964  # standard errors on either side of a mean in a 95 % interval


@dataclass(frozen=True)
class Point:
    """A day of a trend.

    Attributes:
        day: The day, as YYYY-MM-DD.
        n: The number of items.
        mean: Their mean.
        low: The lower end of the mean's 95 % interval.
        high: The upper end; both are the mean itself for a single item.
    """

    day: str
    n: int
    mean: float
    low: float
    high: float


def add_sums(connection: Connection, rows: Sequence[Mapping[str, Any]], unexplained: int) -> None:
    """Add measured rows to the daily sums, in the connection's transaction.

    Args:
        connection: A connection in a writing transaction.
        rows: Rows of the table of measures.
        unexplained: Items that the last row's model judged besides for its tenant and that weren't
            explained.
    """
    sums: dict[tuple[str, str, str, str, str], list[float]] = {}
    for row in rows:
        figures = {"score": row["score"]}
        figures |= {name: row[name] for name in FIXED if row[name] is not None}
        told = json.loads(row["others"])
        figures |= {name: told.pop(name) for name in DECISIONS if name in told}
        others = ((plain(n), v) for n, v in told.items())
        figures |= dict(islice((one for one in others if len(one[0]) <= _LONGEST), _OTHERS))
        for label in ("", row["label"]):
            for figure, value in figures.items():
                if not math.isfinite(value):
                    continue
                whose = (row["model_id"], row["tenant"], row["at"][:10])
                one = sums.setdefault((*whose, label, figure), [0, 0, 0])
                one[0] += 1
                one[1] += value
                one[2] += value * value
    table = tables.daily
    values = [
        dict(zip(table.columns.keys(), (*key, *one), strict=True)) for key, one in sums.items()
    ]
    _add(connection, table, values, ("n", "total", "squares"))
    explained = Counter((row["model_id"], row["tenant"], row["at"][:10]) for row in rows)
    last = (rows[-1]["model_id"], rows[-1]["tenant"], rows[-1]["at"][:10])
    values = [
        {
            **dict(zip(("model_id", "tenant", "day"), whose, strict=True)),
            "seen": count + (unexplained if whose == last else 0),
            "explained": count,
        }
        for whose, count in explained.items()
    ]
    _add(connection, tables.coverage, values, ("seen", "explained"))


def add_unexplained(connection: Connection, model: str, tenant: str, day: str, count: int) -> None:
    """Count items of a tenant that a model judged on a day and that weren't explained."""
    value = {"model_id": model, "tenant": tenant, "day": day, "seen": count, "explained": 0}
    _add(connection, tables.coverage, [value], ("seen", "explained"))


def trend(
    connection: Connection,
    model: str,
    figures: Iterable[str],
    label: str = "",
    since: str | None = None,
    tenant: str | None = None,
) -> dict[str, list[Point]]:
    """Read the trends of figures.

    Args:
        connection: A connection.
        model: The model's id.
        figures: The figures.
        label: The class; "" is all classes.
        since: The first day, as YYYY-MM-DD; None for all days.
        tenant: Whose items count; None for everybody's.

    Returns:
        For each figure that has values its days in order.
    """
    return trends(connection, model, figures, [label], since, tenant)[label]


def trends(
    connection: Connection,
    model: str,
    figures: Iterable[str],
    labels: Sequence[str],
    since: str | None = None,
    tenant: str | None = None,
) -> dict[str, dict[str, list[Point]]]:
    """Read the trends of figures for several classes in one pass over the days.

    Args:
        connection: A connection.
        model: The model's id.
        figures: The figures.
        labels: The classes; "" is all classes.
        since: The first day, as YYYY-MM-DD; None for all days.
        tenant: Whose items count; None for everybody's.

    Returns:
        For each class and each figure that has values its days in order.
    """
    table = tables.daily
    sums = (func.sum(table.c.n), func.sum(table.c.total), func.sum(table.c.squares))
    columns = (table.c.label, table.c.figure, table.c.day)
    query = (
        select(*columns, *sums)
        .where(*_of(model, tenant), table.c.label.in_(list(labels)))
        .where(table.c.figure.in_(list(figures)))
        .group_by(*columns)
        .order_by(table.c.day)
    )
    if since is not None:
        query = query.where(table.c.day >= since)
    found: dict[str, dict[str, list[Point]]] = {label: {} for label in labels}
    for label, figure, day, n, total, squares in connection.execute(query):
        n, mean = int(n), total / n
        spread = math.sqrt(max(0.0, squares / n - mean * mean) / n) * _SURE
        point = Point(day, n, mean, mean - spread, mean + spread)
        found[label].setdefault(figure, []).append(point)
    return found


def means(
    connection: Connection, model: str, since: str | None = None, tenant: str | None = None
) -> dict[str, tuple[int, float]]:
    """Compute each figure's number of items and mean, over all classes and days.

    Args:
        connection: A connection.
        model: The model's id.
        since: The first day, as YYYY-MM-DD; None for all days.
        tenant: Whose items count; None for everybody's.
    """
    table = tables.daily
    query = (
        select(table.c.figure, func.sum(table.c.n), func.sum(table.c.total))
        .where(*_of(model, tenant), table.c.label == "")
        .group_by(table.c.figure)
    )
    if since is not None:
        query = query.where(table.c.day >= since)
    return {str(name): (int(n), total / n) for name, n, total in connection.execute(query)}


def labels(
    connection: Connection, model: str, most: int = 12, tenant: str | None = None
) -> list[tuple[str, int]]:
    """List a model's classes with their counts, the most frequent first."""
    table = tables.daily
    count = func.sum(table.c.n)
    query = (
        select(table.c.label, count)
        .where(*_of(model, tenant), table.c.figure == "score", table.c.label != "")
        .group_by(table.c.label)
        .order_by(count.desc(), table.c.label)
        .limit(most)
    )
    return [(str(row[0]), int(row[1])) for row in connection.execute(query)]


def _of(model: str, tenant: str | None) -> list[Any]:
    """Make the conditions that choose a model's sums, of one tenant or of all."""
    columns = tables.daily.c
    chosen = [columns.model_id == model]
    return chosen if tenant is None else [*chosen, columns.tenant == tenant]


def _add(
    connection: Connection,
    table: Any,
    values: Sequence[Mapping[str, Any]],
    summed: Sequence[str],
) -> None:
    """Insert rows, and add to those that are there."""
    from sqlalchemy.dialects import postgresql, sqlite

    if not values:
        return
    dialect: Any = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table)
    statement = statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={name: table.c[name] + statement.excluded[name] for name in summed},
    )
    # In one order everywhere, so that two writers never wait for each other's rows.
    key = [one.name for one in table.primary_key.columns]
    connection.execute(statement, sorted(values, key=lambda one: tuple(one[name] for name in key)))
