"""Explanations can be found by how their images look."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "serve_0003"
down_revision = "serve_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables of PDQ hashes."""
    op.create_table(
        "similar",
        sa.Column("explanation_id", sa.String(length=32), nullable=False),
        sa.Column("pdq", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("score", sa.Float(precision=53), nullable=False),
        sa.Column("created", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("explanation_id"),
    )
    op.create_table(
        "similar_bands",
        sa.Column("band", sa.String(length=32), nullable=False),
        sa.Column("explanation_id", sa.String(length=32), nullable=False),
        sa.PrimaryKeyConstraint("band", "explanation_id"),
    )
    op.create_index("bands_by_explanation", "similar_bands", ["explanation_id"], unique=False)
