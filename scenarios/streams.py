"""Many parties' events as one story: put in order, and read where no party answers.

A party keeps its part of the stream in its database, so that what happened stays readable
when nothing runs: :func:`kept` reads it without changing anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Engine, create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from services.common.database import declarative_base
from services.common.engines import engine_for
from services.common.event_log import EventLog, Wanted
from services.common.events import Event
from services.common.problems import NotAsExpectedError
from services.common.tables import common_tables
from services.ecosystem import PartyConfig


def in_order(events: Iterable[Event]) -> list[Event]:
    """Events of many parties in the order in which what they tell began, each behind its cause.

    The parties' clocks are the machine's, so the instants alone nearly do; where a clock was
    set meanwhile, the cause decides.
    """
    waiting = sorted(events, key=lambda event: (event.began, event.id))
    known = {event.id: event for event in waiting}
    told: dict[str, Event] = {}
    for event in waiting:
        # What stands above it and was not told yet, from the outermost inwards.
        line = [event]
        on_it = {event.id}
        while (cause := known.get(line[-1].cause or "")) is not None:
            if cause.id in told or cause.id in on_it:
                break
            line.append(cause)
            on_it.add(cause.id)
        for one in reversed(line):
            told.setdefault(one.id, one)
    return list(told.values())


def kept(party: PartyConfig, wanted: Wanted, *, newest: int | None = None) -> list[Event]:
    """The events in a party's database, oldest first; ``newest``: at most so many, the newest.

    Reads only. NotAsExpectedError where there is no such database, or it cannot be read.
    """
    engine = _read_only(party)
    log = EventLog(common_tables(declarative_base()).metadata)
    try:
        with engine.connect() as connection, Session(connection) as session:
            found = log.select(session, wanted, limit=newest, newest_first=newest is not None)
            return found[::-1] if newest is not None else found
    except DBAPIError as error:
        raise NotAsExpectedError(
            f"{party.name} does not answer at {party.url}, and its database cannot be read: "
            f"{' '.join(str(error.orig).split())}"
        ) from None
    finally:
        engine.dispose()


def _read_only(party: PartyConfig) -> Engine:
    url = make_url(party.database)
    if url.get_backend_name() != "sqlite":
        return engine_for(party.database, party.name)
    path = Path(url.database or "").absolute()
    if not path.is_file():
        raise NotAsExpectedError(
            f"{party.name} does not answer at {party.url}, and there is no database {path}"
        )

    def connect() -> Any:
        name = f"file:{quote(str(path))}?mode=ro"
        connection = sqlite3.connect(name, uri=True)
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        except sqlite3.OperationalError:
            # A folder where nothing can be written: then nobody else writes there either.
            connection.close()
            return sqlite3.connect(f"{name}&immutable=1", uri=True)
        return connection

    return create_engine("sqlite://", creator=connect)
