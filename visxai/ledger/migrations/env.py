"""What Alembic runs to reach the database: it gets the connection from `migrate.upgrade`."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["table"],
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
