"""Runs the migrations of one kind of party on the engine it is handed."""

from __future__ import annotations

from typing import Any

from alembic import context
from sqlalchemy import TypeDecorator

engine = context.config.attributes["engine"]
metadata = context.config.attributes["metadata"]


def render_item(kind: str, item: Any, _context: Any) -> str | bool:
    """Migrations stand alone: our own column types are written as what they store."""
    if kind == "type" and isinstance(item, TypeDecorator):
        return f"sa.{item.impl!r}"
    return False


with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        # SQLite changes a table by writing it anew.
        render_as_batch=engine.dialect.name == "sqlite",
        compare_type=True,
        render_item=render_item,
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
