"""The service's tables, for SQLite and Postgres alike; times are seconds since 1970."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from visxai.ledger.tables import ID, SHA256, TENANT

metadata = MetaData()

_TIME = Float(53)

keys = Table(
    "api_keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("role", String(16), nullable=False),
    Column("name", String(200), nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("created", _TIME, nullable=False),
    Column("revoked", _TIME),
)

sessions = Table(
    "sessions",
    metadata,
    Column("hash", SHA256, primary_key=True),
    Column("key_id", String(16), ForeignKey("api_keys.id"), nullable=False),
    Column("expires", _TIME, nullable=False),
)

items = Table(
    "items",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("created", _TIME, nullable=False),
    Column("kind", String(16), nullable=False, server_default="image"),
    Column("name", Text),
    Column("content_sha256", SHA256),
    Column("pixel_sha256", SHA256),
    Column("width", Integer),
    Column("height", Integer),
    Column("model_key", SHA256, nullable=False),
    Column("metadata", Text),
    Column("blob", String(200)),
    Column("erased", _TIME),
    Index("items_by_content", "tenant", "content_sha256", "model_key"),
    Index("items_by_blob", "blob"),
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("item_id", ID, ForeignKey("items.id"), nullable=False),
    Column("created", _TIME, nullable=False),
    Column("policy", String(200), nullable=False),
    Column("decision", String(16), nullable=False),
    Column("category", String(200), nullable=False),
    Column("score", _TIME, nullable=False),
    Column("threshold", _TIME, nullable=False),
    Column("scores", Text, nullable=False),
    Column("severity", Integer, nullable=False),
    Column("target", Text, nullable=False),
    Column("job_id", ID),
    # The review: lane is review, appeal or escalated; state none, open or closed.
    Column("lane", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("opened", _TIME),
    Column("reviewer", String(16)),
    Column("reviewer_until", _TIME),
    Column("action", String(16)),
    Column("closed", _TIME),
    Column("closed_by", String(16)),
    Column("shown", Text),
    Index("decisions_by_review", "tenant", "state", "lane", "severity", "opened"),
    Index("decisions_by_item", "item_id"),
    Index("decisions_by_time", "tenant", "created"),
)

appeals = Table(
    "appeals",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("decision_id", ID, ForeignKey("decisions.id"), nullable=False),
    Column("created", _TIME, nullable=False),
    Column("reason", Text, nullable=False),
    Column("job_id", ID),
    Column("outcome", String(16)),
    Column("closed", _TIME),
    Column("closed_by", String(16)),
    Index("appeals_by_decision", "decision_id"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("lane", String(16), nullable=False),
    Column("model_key", SHA256, nullable=False),
    Column("batch_key", SHA256, nullable=False),
    Column("content_key", SHA256, nullable=False),
    Column("item_id", ID),
    Column("leader", ID),
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("token", String(32)),
    Column("lease_until", _TIME),
    Column("created", _TIME, nullable=False),
    Column("started", _TIME),
    Column("finished", _TIME),
    Column("reason", Text),
    Column("spec", Text, nullable=False),
    Index("jobs_to_claim", "state", "lane", "model_key", "created"),
    Index("jobs_by_batch", "state", "batch_key", "created"),
    Index("jobs_by_lease", "state", "lease_until"),
    Index("jobs_by_leader", "leader"),
    Index("jobs_by_item", "item_id"),
    # One computation of one content at a time, whoever submits it.
    Index(
        "jobs_single_flight",
        "content_key",
        unique=True,
        sqlite_where=text("leader IS NULL AND state IN ('queued', 'running')"),
        postgresql_where=text("leader IS NULL AND state IN ('queued', 'running')"),
    ),
)

cache = Table(
    "cache",
    metadata,
    Column("content_key", SHA256, primary_key=True),
    Column("explanation_id", ID, nullable=False),
    Column("created", _TIME, nullable=False),
    Index("cache_by_explanation", "explanation_id"),
)

requests = Table(
    "idempotent_requests",
    metadata,
    Column("tenant", TENANT, primary_key=True),
    Column("key", String(200), primary_key=True),
    Column("fingerprint", SHA256, nullable=False),
    Column("answer", Text, nullable=False),
    Column("created", _TIME, nullable=False),
    Index("requests_by_time", "created"),
)

similar = Table(
    "similar",
    metadata,
    Column("explanation_id", ID, primary_key=True),
    Column("pdq", SHA256, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("score", _TIME, nullable=False),
    Column("created", _TIME, nullable=False),
)

bands = Table(
    "similar_bands",
    metadata,
    # The hash of tenant, batch key and some bits of a PDQ hash; see `visxai.serve.similar`.
    Column("band", String(32), primary_key=True),
    Column("explanation_id", ID, primary_key=True),
    Index("bands_by_explanation", "explanation_id"),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", ID, primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # of the last entry that it has heard of
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", ID, primary_key=True),
    Column("webhook", ID, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("event", String(64), nullable=False),
    Column("subject", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False),  # waiting, delivered or failed
    Column("attempts", Integer, nullable=False),
    Column("due", _TIME, nullable=False),
    Column("reason", Text),
    Column("created", _TIME, nullable=False),
    Column("finished", _TIME),
    Index("deliveries_once", "webhook", "sequence", unique=True),
    Index("deliveries_due", "state", "due"),
)
