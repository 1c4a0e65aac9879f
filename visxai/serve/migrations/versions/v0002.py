"""Items have a kind: images, and texts as well."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "serve_0002"
down_revision = "serve_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the kind; what is there are images."""
    kind = sa.Column("kind", sa.String(length=16), nullable=False, server_default="image")
    op.add_column("items", kind)
