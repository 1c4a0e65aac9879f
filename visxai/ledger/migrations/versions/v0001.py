"""The first tables: models, explanations, the audit chain with its head, checkpoints."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "ledger_0001"
down_revision = None
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_GUARDED = ("audit", "checkpoints")


def upgrade() -> None:
    """Make the tables, and let the database itself refuse to change what is append-only."""
    op.create_table(
        "models",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("weights_sha256", sa.String(64), nullable=False),
        sa.Column("preprocess", sa.Text, nullable=False),
        sa.Column("first_seen", sa.String(32), nullable=False),
    )
    op.create_table(
        "explanations",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("tier", sa.String(16), nullable=False),
        sa.Column("model_id", sa.String(32), sa.ForeignKey("models.id"), nullable=False),
        sa.Column("created", sa.String(32), nullable=False),
        sa.Column("item_id", sa.String(64)),
        sa.Column("decision_id", sa.String(64)),
        sa.Column("supersedes", sa.String(32)),
        sa.Column("method", sa.Text),
        sa.Column("label", sa.Text),
        sa.Column("score", sa.Float(53)),
        sa.Column("decision", sa.String(64)),
        sa.Column("content_sha256", sa.String(64)),
        sa.Column("pixel_sha256", sa.String(64)),
        sa.Column("retain_until", sa.String(32)),
        sa.Column("hold", sa.Text),
        sa.Column("erased", sa.String(32)),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("salt", sa.LargeBinary),
        sa.Column("data", sa.LargeBinary),
    )
    for name, columns in {
        "explanations_by_time": ["tenant", "created", "id"],
        "explanations_by_model": ["model_id", "created", "id"],
        "explanations_by_item": ["item_id"],
        "explanations_by_decision": ["decision_id"],
        "explanations_by_pixels": ["pixel_sha256"],
        "explanations_by_retention": ["retain_until"],
    }.items():
        op.create_index(name, "explanations", columns)
    op.create_table(
        "audit",
        sa.Column("sequence", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("event", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("payload_sha256", sa.String(64)),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_index("audit_by_subject", "audit", ["subject", "sequence"])
    op.create_index("audit_by_event", "audit", ["event", "sequence"])
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sequence", _NUMBER, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.bulk_insert(head, [{"id": 1, "sequence": 0, "hash": "0" * 64}])
    op.create_table(
        "checkpoints",
        sa.Column("sequence", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("signature", sa.String(128), nullable=False),
    )
    _guard()


def _guard() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for table in _GUARDED:
            for change in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
                )
        return
    op.execute(
        "CREATE FUNCTION visxai_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME; END $$"
    )
    for table in _GUARDED:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION visxai_append_only()"
        )
