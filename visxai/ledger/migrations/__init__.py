"""The environment of Alembic, and the versions of the ledger's tables."""
