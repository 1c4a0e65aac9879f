"""The versions of governance's tables, as Alembic runs them."""
