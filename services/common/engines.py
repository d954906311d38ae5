"""The two database engines: how a connection to each is opened, and what makes them alike.

What services rely on is the same on both: a read sees one snapshot, and the writes of a party
are one after the other, over all of its processes, so that a change may look first and write
then. SQLite has one writer anyway (``BEGIN IMMEDIATE``); on PostgreSQL a write begins with
an advisory lock of the party's schema. Nothing of a party's then fails to serialize, and a
change that was committed is on disk (WAL with ``synchronous=FULL``; ``synchronous_commit``).

On PostgreSQL each party has a schema of its own, named after it, so that all of them may be
given one URL.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from .problems import NotAsExpectedError

# Seconds to wait for another process's write: less than callers wait for an answer (10 s).
LOCK_PATIENCE = 8
# Queries at a time. On PostgreSQL a party has two connections more, for its writer and its
# locks; fifteen parties stay below the hundred connections that a server allows by default.
READERS = {"sqlite": 8, "postgresql": 3}

# SQLSTATE: the server is shutting down, was killed, starts, or has no connection left.
_AWAY = {"57P01", "57P02", "57P03", "53300"}


class DatabaseError(NotAsExpectedError):
    """A database that this version cannot work with."""


def shown(url: str) -> str:
    """``url`` as messages may tell it: without password and parameters."""
    parsed = make_url(url)
    return parsed.set(query={}).render_as_string(hide_password=True)


def lock_key(text: str) -> int:
    """The 64 bits by which PostgreSQL knows an advisory lock."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=True)


def is_away(error: Exception) -> bool:
    """Whether the server is gone for now, so that the same may be asked again on another
    connection. Never so on SQLite."""
    if isinstance(error, DisconnectionError | PoolTimeoutError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", "")
    # None: the connection was not made, or broke before the server said why.
    return (
        state is None and isinstance(error, OperationalError | InterfaceError)
    ) or state in _AWAY


def engine_for(url: str, schema: str | None) -> Engine:
    """An engine for ``url``; ``schema`` is the party's, made by the migrations (PostgreSQL)."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    return _postgresql(parsed, schema or "public")


def _sqlite(url: URL) -> Engine:
    path = url.database
    if path and path != ":memory:" and not path.startswith("file:"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": LOCK_PATIENCE})

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        # The driver must not open transactions by itself: BEGIN is ours (below).
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


def _postgresql(url: URL, schema: str) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=READERS["postgresql"] + 2,
        max_overflow=0,
        pool_timeout=LOCK_PATIENCE,
        connect_args={
            "connect_timeout": 5,
            "client_encoding": "utf8",
            "application_name": f"pnclab {schema}"[:63],
        },
    )
    key = lock_key(f"pnclab write {schema}")

    @event.listens_for(engine, "connect")
    def _settings(connection: Any, _record: Any) -> None:
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":
            raise DatabaseError(
                f"{shown(str(url))} is encoded in {encoding}; a database in UTF8 is wanted"
            )
        connection.autocommit = True
        connection.execute(
            "SELECT set_config('search_path', %s, false), set_config('TimeZone', 'UTC', false),"
            " set_config('lock_timeout', %s, false)",
            (quoted(schema), f"{LOCK_PATIENCE}s"),
        )
        connection.autocommit = False

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("writing", False):
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (key,))

    return engine


def quoted(identifier: str) -> str:
    """An identifier as SQL writes it."""
    return '"' + identifier.replace('"', '""') + '"'
