"""A PostgreSQL database of its own for a while."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

import sqlalchemy
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from services.common.problems import WrongUseError


@contextlib.contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """Create a database on the server that ``server`` (a SQLAlchemy URL) names; yields its URL.

    It is dropped when the block ends. WrongUseError where it cannot be created.
    """
    url = make_url(server)
    name = f"pnclab_{secrets.token_hex(6)}"
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=None)
    try:
        try:
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text(f'CREATE DATABASE "{name}"'))
        except SQLAlchemyError as error:
            raise WrongUseError(
                f"{url!r}: a database cannot be created there: {getattr(error, 'orig', error)}"
            ) from None
        try:
            yield url.set(database=name).render_as_string(hide_password=False)
        finally:
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text(f'DROP DATABASE "{name}" WITH (FORCE)'))
    finally:
        engine.dispose()
