"""The ledger's tables, for SQLite and Postgres alike.

Times are text, ISO 8601 in UTC with microseconds, so that they sort as they follow each other.
"""

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
)

metadata = MetaData()

ID = String(32)
TIME = String(32)
SHA256 = String(64)
TENANT = String(64)
Number = BigInteger().with_variant(Integer, "sqlite")

models = Table(
    "models",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("weights_sha256", SHA256, nullable=False),
    Column("preprocess", Text, nullable=False),
    Column("first_seen", TIME, nullable=False),
)

# What is searched for has columns; the whole is `data`. An erased explanation keeps the columns
# that say that it was there: those up to `created`, and its number in the audit chain.
explanations = Table(
    "explanations",
    metadata,
    Column("id", ID, primary_key=True),
    Column("tenant", TENANT, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("tier", String(16), nullable=False),
    Column("model_id", ID, ForeignKey("models.id"), nullable=False),
    Column("created", TIME, nullable=False),
    Column("item_id", String(64)),
    Column("decision_id", String(64)),
    Column("supersedes", ID),
    Column("method", Text),
    Column("label", Text),
    Column("score", Float(53)),
    Column("decision", String(64)),
    Column("content_sha256", SHA256),
    Column("pixel_sha256", SHA256),
    Column("retain_until", TIME),
    Column("hold", Text),
    Column("erased", TIME),
    Column("digest", SHA256, nullable=False),
    Column("salt", LargeBinary),
    Column("data", LargeBinary),
    Index("explanations_by_time", "tenant", "created", "id"),
    Index("explanations_by_model", "model_id", "created", "id"),
    Index("explanations_by_item", "item_id"),
    Index("explanations_by_decision", "decision_id"),
    Index("explanations_by_pixels", "pixel_sha256"),
    Index("explanations_by_retention", "retain_until"),
)

audit = Table(
    "audit",
    metadata,
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("at", TIME, nullable=False),
    Column("event", String(64), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("tenant", TENANT, nullable=False),
    Column("subject", String(64), nullable=False),
    Column("body", Text, nullable=False),
    Column("payload_sha256", SHA256),
    Column("previous", SHA256, nullable=False),
    Column("hash", SHA256, nullable=False),
    Index("audit_by_subject", "subject", "sequence"),
    Index("audit_by_event", "event", "sequence"),
)

# The chain's last entry. Its row is locked by whoever appends, so entries never fork.
audit_head = Table(
    "audit_head",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("sequence", Number, nullable=False),
    Column("hash", SHA256, nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("sequence", Number, primary_key=True, autoincrement=False),
    Column("hash", SHA256, nullable=False),
    Column("at", TIME, nullable=False),
    Column("key_id", String(16), nullable=False),
    Column("signature", String(128), nullable=False),
)
