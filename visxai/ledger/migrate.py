"""Migrations: a database's tables are made, and brought to this version's form, by Alembic.

Each part of visxai that has tables has a folder of versions and a table that says which of them the
database has. Processes that start together wait for the first of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from visxai.errors import StoreError, require

if TYPE_CHECKING:
    from visxai.ledger.database import Database

_HERE = Path(__file__).parent / "migrations"
_LOCK = 0x76697378  # the advisory lock of Postgres that is held meanwhile


def upgrade(
    database: Database, versions: Path = _HERE / "versions", table: str = "ledger_version"
) -> None:
    """Bring a part's tables to the newest version.

    Args:
        database: The database.
        versions: The folder of the part's versions.
        table: The table that holds the database's version of the part.

    Raises:
        StoreError: The database can't be written, or was written by a later version of visxai.
        MissingExtra: The extra `serve` isn't installed.
    """
    require("alembic", "serve", "the ledger")
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError
    from sqlalchemy import text

    config = Config()
    config.set_main_option("script_location", str(_HERE))
    config.set_main_option("version_locations", str(versions))
    config.set_main_option("path_separator", "newline")
    with database.writing() as connection:
        if not database.sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        attributes: dict[str, Any] = {"connection": connection, "table": table}
        config.attributes.update(attributes)
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StoreError(
                expected="a database of this version of visxai or an earlier one",
                got="one of a later version",
                remedy="install that version",
            ) from error
