"""The service's database: the ledger's tables and the service's own, brought up to date."""

from __future__ import annotations

from pathlib import Path

from visxai.ledger.database import Database
from visxai.ledger.migrate import upgrade


def prepare(database: Database) -> None:
    """Bring the tables of the ledger and of the service to this version.

    Raises:
        StoreError: The database can't be written, or was written by a later version.
    """
    upgrade(database)
    upgrade(database, Path(__file__).parent / "migrations" / "versions", "serve_version")
