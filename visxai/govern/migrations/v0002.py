"""Sums, windows, alerts and gaps become each tenant's own.

Sums and coverage are made again from the measures, and gaps by the next round of watching. Windows
and alerts of a model with several tenants can't be divided: they go to the one with most items, and
alerts no longer name records. What was judged and not explained is counted for that tenant too.
"""

from __future__ import annotations

import json
import math
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "govern_0002"
down_revision = "govern_0001"
branch_labels = None
depends_on = None

_FIXED = (
    *("concentration", "entropy", "half_area", "centre_x", "centre_y", "border", "against"),
    *(f"cell_{row}{column}" for row in range(4) for column in range(4)),
    *("completeness", "faithfulness", "flat", "miss"),
)
_OTHERS = 100  # figures without a column that an item adds to
_LONGEST = 128  # characters of a figure's name


def upgrade() -> None:
    """Divide what was summed over all tenants."""
    connection = op.get_bind()
    seen = connection.execute(sa.text("SELECT * FROM govern_coverage")).mappings().all()
    for table in ("govern_daily", "govern_coverage", "govern_gaps"):
        op.drop_table(table)
    daily, coverage = _made()
    whose = _owners(connection)
    for table in ("govern_windows", "govern_alerts"):
        column = sa.Column("tenant", sa.String(64), nullable=False, server_default="default")
        op.add_column(table, column)
        for model, (tenant, several) in whose.items():
            values = {"tenant": tenant, "model": model}
            connection.execute(
                sa.text(f"UPDATE {table} SET tenant = :tenant WHERE model_id = :model"), values
            )
            if several and table == "govern_alerts":
                _forget_records(connection, model)
    _sum(connection, daily, coverage, seen, whose)


def _made() -> tuple[sa.Table, sa.Table]:
    """Make the tables anew, with the tenant among the keys."""

    def keys(*more: sa.Column[Any]) -> list[sa.Column[Any]]:
        first = (sa.Column("model_id", sa.String(32)), sa.Column("tenant", sa.String(64)))
        return [*first, *more]

    daily = op.create_table(
        "govern_daily",
        *keys(sa.Column("day", sa.String(10)), sa.Column("label", sa.Text)),
        sa.Column("figure", sa.String(128)),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("total", sa.Float(53), nullable=False),
        sa.Column("squares", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("model_id", "tenant", "day", "label", "figure"),
    )
    coverage = op.create_table(
        "govern_coverage",
        *keys(sa.Column("day", sa.String(10))),
        sa.Column("seen", sa.Integer, nullable=False),
        sa.Column("explained", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("model_id", "tenant", "day"),
    )
    op.create_table(
        "govern_gaps",
        *keys(sa.Column("attribute", sa.String(128))),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("model_id", "tenant", "attribute"),
    )
    op.create_index(
        "govern_measures_by_tenant",
        "govern_measures",
        ["model_id", "tenant", "at", "explanation_id"],
    )
    return daily, coverage


def _owners(connection: sa.Connection) -> dict[str, tuple[str, bool]]:
    """Find each model's tenant with most items, and whether there are others."""
    counted = connection.execute(
        sa.text(
            "SELECT model_id, tenant, count(*) FROM govern_measures "
            "GROUP BY model_id, tenant ORDER BY 3 DESC, 2"
        )
    ).all()
    found: dict[str, tuple[str, bool]] = {}
    for model, tenant, _ in counted:
        found[model] = (found[model][0], True) if model in found else (tenant, False)
    return found


def _forget_records(connection: sa.Connection, model: str) -> None:
    query = sa.text("SELECT id, body FROM govern_alerts WHERE model_id = :model")
    for id, body in connection.execute(query, {"model": model}).all():
        told = json.dumps({**json.loads(body), "records": []})
        connection.execute(
            sa.text("UPDATE govern_alerts SET body = :body WHERE id = :id"),
            {"body": told, "id": id},
        )


def _sum(
    connection: sa.Connection,
    daily: sa.Table,
    coverage: sa.Table,
    seen: Any,
    whose: dict[str, tuple[str, bool]],
) -> None:
    """Add up the measures again."""
    sums: dict[tuple[str, ...], list[float]] = {}
    explained: dict[tuple[str, ...], int] = {}
    corrected: list[dict[str, Any]] = []
    query = sa.text("SELECT * FROM govern_measures").execution_options(stream_results=True)
    rows = connection.execute(query)
    for row in rows.mappings():
        key = (row["model_id"], row["tenant"], row["at"][:10])
        explained[key] = explained.get(key, 0) + 1
        others = json.loads(row["others"])
        figures = {"score": row["score"]}
        figures |= {name: row[name] for name in _FIXED if row[name] is not None}
        if row["truth"] is not None and (row["kind"] != "table" or "favourable" in others):
            others = {"error": float(row["truth"] != row["label"]), **others}
            corrected.append({"id": row["explanation_id"], "others": json.dumps(others)})
        kept = [(name, value) for name, value in others.items() if len(name) <= _LONGEST]
        figures |= dict(kept[:_OTHERS])
        for label in ("", row["label"]):
            for name, value in figures.items():
                if math.isfinite(value):
                    one = sums.setdefault((*key, label, name), [0, 0, 0])
                    one[0] += 1
                    one[1] += value
                    one[2] += value * value
    names = [column.name for column in daily.columns]
    _insert(connection, daily, [dict(zip(names, (*k, *v), strict=True)) for k, v in sums.items()])
    if corrected:
        connection.execute(
            sa.text("UPDATE govern_measures SET others = :others WHERE explanation_id = :id"),
            corrected,
        )
    counts = {key: [number, number] for key, number in explained.items()}
    for row in seen:
        if row["model_id"] in whose and (more := row["seen"] - row["explained"]):
            key = (row["model_id"], whose[row["model_id"]][0], row["day"])
            counts.setdefault(key, [0, 0])[0] += more
    names = [column.name for column in coverage.columns]
    _insert(
        connection, coverage, [dict(zip(names, (*k, *v), strict=True)) for k, v in counts.items()]
    )


def _insert(connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if rows:
        connection.execute(sa.insert(table), rows)
