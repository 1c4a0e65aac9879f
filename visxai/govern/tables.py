"""Governance's tables, beside those of the ledger in the same database.

`measures` has a row for each explanation on record and a column for each feature, for SQL and
DuckDB; `daily` holds the sums that trends are drawn from, so that a page over a million rows reads
some thousand. Each row is a tenant's own; only cards are of all who use a model. Times are text as
in the ledger.
"""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

from visxai.govern.features.base import FIXED
from visxai.ledger.tables import ID, TENANT, TIME

metadata = MetaData()

measures = Table(
    "govern_measures",
    metadata,
    Column("explanation_id", ID, primary_key=True),
    Column("model_id", ID, nullable=False),
    Column("tenant", TENANT, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("at", TIME, nullable=False),
    Column("source", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("truth", Text),
    Column("score", Float(53), nullable=False),
    Column("logit", Float(53), nullable=False),
    *(Column(name, Float(53)) for name in FIXED),
    Column("others", Text, nullable=False),
    Column("inputs", Text, nullable=False),
    Column("groups", Text, nullable=False),
    Index("govern_measures_by_time", "model_id", "at", "explanation_id"),
    Index("govern_measures_by_tenant", "model_id", "tenant", "at", "explanation_id"),
)

daily = Table(
    "govern_daily",
    metadata,
    Column("model_id", ID, primary_key=True),
    Column("tenant", TENANT, primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("label", Text, primary_key=True),
    Column("figure", String(128), primary_key=True),
    Column("n", Integer, nullable=False),
    Column("total", Float(53), nullable=False),
    Column("squares", Float(53), nullable=False),
)

# How many items a model judged, and how many of these were explained.
coverage = Table(
    "govern_coverage",
    metadata,
    Column("model_id", ID, primary_key=True),
    Column("tenant", TENANT, primary_key=True),
    Column("day", String(10), primary_key=True),
    Column("seen", Integer, nullable=False),
    Column("explained", Integer, nullable=False),
)

cards = Table(
    "govern_cards",
    metadata,
    Column("model_id", ID, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("risk", String(32), nullable=False),
    Column("threshold", Float(53)),
    Column("reference_since", TIME),
    Column("reference_until", TIME),
    Column("at", TIME, nullable=False),
)

windows = Table(
    "govern_windows",
    metadata,
    Column("id", ID, primary_key=True),
    Column("model_id", ID, nullable=False),
    Column("tenant", TENANT, nullable=False),
    Column("first", TIME, nullable=False),
    Column("last", TIME, nullable=False),
    Column("last_id", ID, nullable=False),
    Column("n", Integer, nullable=False),
    Column("alarms", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("at", TIME, nullable=False),
    Index("govern_windows_by_model", "model_id", "last"),
)

alerts = Table(
    "govern_alerts",
    metadata,
    Column("id", ID, primary_key=True),
    Column("model_id", ID, nullable=False),
    Column("tenant", TENANT, nullable=False),
    Column("window_id", ID, nullable=False),
    Column("at", TIME, nullable=False),
    Column("state", String(16), nullable=False),
    Column("body", Text, nullable=False),
    Column("delivered", Text, nullable=False),
    Index("govern_alerts_by_time", "at"),
)

notes = Table(
    "govern_notes",
    metadata,
    Column("id", ID, primary_key=True),
    Column("alert_id", ID, nullable=False),
    Column("at", TIME, nullable=False),
    Column("actor", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Index("govern_notes_by_alert", "alert_id", "at"),
)

gaps = Table(
    "govern_gaps",
    metadata,
    Column("model_id", ID, primary_key=True),
    Column("tenant", TENANT, primary_key=True),
    Column("attribute", String(128), primary_key=True),
    Column("at", TIME, nullable=False),
    Column("n", Integer, nullable=False),
    Column("result", Text, nullable=False),
)
