"""A glance at a SQLite database: single rows, read where the event loop runs.

A query in a worker thread costs most of a millisecond, all of it waiting; one row by its key is
read in microseconds over a connection that is kept for that. Readers of a database in WAL mode
wait for nobody. Whether anything was committed since, by any process, is one number
(``PRAGMA data_version``).
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any


class Glance:
    """Reads rows by key from the database file at ``path``."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def state(self) -> int | None:
        """A number that another commit changes; None where it cannot be told."""
        found = self.row("PRAGMA data_version")
        return found[0] if found else None

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of ``query``, None where there is none. sqlite3.Error where the database
        cannot be read this way."""
        if self._connection is None:
            self._connection = sqlite3.connect(
                f"{Path(self._path).absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=0.0,
                isolation_level=None,
                check_same_thread=False,
            )
        row: tuple[Any, ...] | None = self._connection.execute(query, values).fetchone()
        return row

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
