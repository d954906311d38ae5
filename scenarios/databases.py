"""A PostgreSQL database of its own for a while."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import psycopg
from psycopg import sql
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from services.common.problems import WrongUseError


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """Create a database on the server that ``server`` (a PostgreSQL URL) names; yields its URL.

    It is dropped when the block ends. WrongUseError where it cannot be created.
    """
    try:
        url = make_url(server)
    except ArgumentError:
        raise WrongUseError("--database: a PostgreSQL URL is wanted") from None
    if url.get_backend_name() != "postgresql":
        raise WrongUseError(f"--database: {url.get_backend_name()}:// is not a PostgreSQL URL")
    name = f"pnclab_{secrets.token_hex(6)}"
    where = url.set(drivername="postgresql").render_as_string(hide_password=False)
    create = sql.SQL("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0")
    drop = sql.SQL("DROP DATABASE {} WITH (FORCE)")
    try:
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(create.format(sql.Identifier(name)))
    except psycopg.Error as error:
        raise WrongUseError(f"{url!r}: no database can be created there: {error}") from None
    try:
        yield url.set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(where, autocommit=True) as connection:
            connection.execute(drop.format(sql.Identifier(name)))
