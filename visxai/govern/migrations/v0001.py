"""The first tables: measures, daily sums, coverage, cards, windows, alerts, notes and gaps."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "govern_0001"
down_revision = None
branch_labels = None
depends_on = None

# The features that had columns in this version.
_FEATURES = (
    *("concentration", "entropy", "half_area", "centre_x", "centre_y", "border", "against"),
    *(f"cell_{row}{column}" for row in range(4) for column in range(4)),
    *("completeness", "faithfulness", "flat", "miss"),
)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "govern_measures",
        sa.Column("explanation_id", sa.String(32), primary_key=True),
        sa.Column("model_id", sa.String(32), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("truth", sa.Text),
        sa.Column("score", sa.Float(53), nullable=False),
        sa.Column("logit", sa.Float(53), nullable=False),
        *(sa.Column(name, sa.Float(53)) for name in _FEATURES),
        sa.Column("others", sa.Text, nullable=False),
        sa.Column("inputs", sa.Text, nullable=False),
        sa.Column("groups", sa.Text, nullable=False),
    )
    op.create_index(
        "govern_measures_by_time", "govern_measures", ["model_id", "at", "explanation_id"]
    )
    op.create_table(
        "govern_daily",
        sa.Column("model_id", sa.String(32), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("figure", sa.String(128), primary_key=True),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("total", sa.Float(53), nullable=False),
        sa.Column("squares", sa.Float(53), nullable=False),
    )
    op.create_table(
        "govern_coverage",
        sa.Column("model_id", sa.String(32), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("seen", sa.Integer, nullable=False),
        sa.Column("explained", sa.Integer, nullable=False),
    )
    op.create_table(
        "govern_cards",
        sa.Column("model_id", sa.String(32), primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("risk", sa.String(32), nullable=False),
        sa.Column("threshold", sa.Float(53)),
        sa.Column("reference_since", sa.String(32)),
        sa.Column("reference_until", sa.String(32)),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_table(
        "govern_windows",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("model_id", sa.String(32), nullable=False),
        sa.Column("first", sa.String(32), nullable=False),
        sa.Column("last", sa.String(32), nullable=False),
        sa.Column("last_id", sa.String(32), nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("alarms", sa.Text, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
    )
    op.create_index("govern_windows_by_model", "govern_windows", ["model_id", "last"])
    op.create_table(
        "govern_alerts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("model_id", sa.String(32), nullable=False),
        sa.Column("window_id", sa.String(32), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("delivered", sa.Text, nullable=False),
    )
    op.create_index("govern_alerts_by_time", "govern_alerts", ["at"])
    op.create_table(
        "govern_notes",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("alert_id", sa.String(32), nullable=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(64), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
    )
    op.create_index("govern_notes_by_alert", "govern_notes", ["alert_id", "at"])
    op.create_table(
        "govern_gaps",
        sa.Column("model_id", sa.String(32), primary_key=True),
        sa.Column("attribute", sa.String(128), primary_key=True),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("n", sa.Integer, nullable=False),
        sa.Column("result", sa.Text, nullable=False),
    )
