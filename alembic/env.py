"""Runs the migrations of one kind of party on the engine it is handed.

All in one transaction, in which nobody else writes: of several processes that start at once,
one migrates and the others find it done; one that is killed leaves nothing half done.
"""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import Connection, TypeDecorator, inspect, text

engine = context.config.attributes["engine"]
metadata = context.config.attributes["metadata"]
schema = context.config.attributes["schema"]
at_once = context.config.attributes.get("at_once", False)

sqlite = engine.dialect.name == "sqlite"


def render_item(kind: str, item: Any, _context: Any) -> str | bool:
    """Migrations stand alone: our own column types are written as what they store."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl!r}"
    return False


def enforce_references(connection: Connection, enforced: bool) -> None:
    """SQLite changes a table by writing it anew; references to it are checked at the end. To be
    said outside of a transaction."""
    if sqlite:
        driver: Any = connection.connection.dbapi_connection
        driver.execute(f"PRAGMA foreign_keys={'ON' if enforced else 'OFF'}")


with engine.connect() as plain:
    connection = plain.execution_options(writing=True)
    enforce_references(connection, False)
    try:
        with connection.begin():
            if not sqlite:
                quoted = engine.dialect.identifier_preparer.quote_identifier(schema)
                connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {quoted}"))
            context.configure(
                connection=connection,
                target_metadata=metadata,
                render_as_batch=sqlite,
                compare_type=True,
                render_item=render_item,
            )
            if at_once and not inspect(connection).get_table_names():
                # Where nothing is to be kept, the tables are made as the code describes them;
                # that the migrations lead to the same, the tests see to.
                metadata.create_all(connection)
                context.get_context().stamp(context.script, "head")
            else:
                context.run_migrations()
            if sqlite and (broken := connection.execute(text("PRAGMA foreign_key_check")).all()):
                raise RuntimeError(f"rows that refer to nothing after the migration: {broken[:5]}")
    finally:
        enforce_references(connection, True)
