"""Webhooks: how far each has heard, and what is on its way to it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "serve_0004"
down_revision = "serve_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables of webhooks and deliveries."""
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("webhook", sa.String(length=32), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=64), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due", sa.Float(precision=53), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.Column("finished", sa.Float(precision=53), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    once = ["webhook", "sequence"]
    op.create_index("deliveries_once", "deliveries", once, unique=True)
    op.create_index("deliveries_due", "deliveries", ["state", "due"], unique=False)
