"""The events of a party in its database: writing them, finding them, following them.

**Order.** Events are kept in the order in which they became visible: ``written``, then the
identifier. Identifiers alone do not do: the transaction of an earlier event may commit after
that of a later one, another worker's as well, and who reads on from the last identifier that
it saw would miss it. ``written`` is, on SQLite, one more than the largest there is (one
transaction writes at a time); on PostgreSQL the number of the transaction.

**Following.** A transaction of PostgreSQL may commit after one with a larger number. Who asks
for *settled* events therefore gets those of transactions below the oldest one that is under
way: nothing can come in before them any more. On SQLite all events are settled. So a reader
that goes on from the last event it was given misses none and gets none twice, whichever
process wrote them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, MetaData, and_, insert, literal_column, or_, select
from sqlalchemy.orm import Session

from .events import Event

_FIELDS = tuple(Event.__dataclass_fields__)

# Dialect -> what stands in `written`, and up to where (exclusively) events are settled.
_WRITTEN = {
    "sqlite": ("(SELECT coalesce(max(written), 0) + 1 FROM events)", None),
    "postgresql": (
        "pg_current_xact_id()::text::bigint",
        "pg_snapshot_xmin(pg_current_snapshot())::text::bigint",
    ),
}


class UnknownEvent(LookupError):
    """No event of this identifier is kept here."""


@dataclass(frozen=True, order=True)
class Place:
    """A place in the order of a party's events: behind the event that was written there."""

    written: int = -1
    id: str = ""


START = Place()


@dataclass(frozen=True)
class Wanted:
    """Which events are asked for; None asks for nothing. ``marks``: all of them.

    ``since`` and ``until`` are ecosystem time, ``real_since`` and ``real_until`` the machine's
    (seconds); the first is included, the second is not.
    """

    run: str | None = None
    kind: str | None = None
    name: str | None = None
    outcome: str | None = None
    sender: str | None = None
    receiver: str | None = None
    marks: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    real_since: float | None = None
    real_until: float | None = None

    def conditions(self, events: Any, marks: Any) -> list[ColumnElement[bool]]:
        """As conditions on the tables ``events`` and ``marks``."""
        equal = ("run", "kind", "name", "outcome", "sender", "receiver")
        found = [
            events.c[name] == getattr(self, name)
            for name in equal
            if getattr(self, name) is not None
        ]
        found += [
            events.c.id.in_(select(marks.c.event).where(marks.c.mark == mark))
            for mark in self.marks
        ]
        if self.since is not None:
            found.append(events.c.at >= self.since)
        if self.until is not None:
            found.append(events.c.at < self.until)
        if self.real_since is not None:
            found.append(events.c.real >= self.real_since)
        if self.real_until is not None:
            found.append(events.c.real < self.real_until)
        return found


class EventLog:
    """The events of one party, in the tables of its ``metadata``."""

    def __init__(self, metadata: MetaData) -> None:
        self._events = metadata.tables["events"]
        self._marks = metadata.tables["event_marks"]

    def insert(self, session: Session, events: Sequence[Event]) -> None:
        """Write ``events`` and their marks, in the transaction of ``session``."""
        if not events:
            return
        connection = session.connection()
        number: ColumnElement[int] = literal_column(_WRITTEN[connection.dialect.name][0])
        # On the tables, not the mapped classes: nobody needs these rows as objects.
        connection.execute(
            insert(self._events).values(written=number),
            [{name: getattr(found, name) for name in _FIELDS} for found in events],
        )
        marks = [{"mark": mark, "event": found.id} for found in events for mark in found.marks]
        if marks:
            connection.execute(insert(self._marks), marks)

    def select(
        self,
        session: Session,
        wanted: Wanted,
        *,
        after: Place = START,
        until: Place | None = None,
        limit: int | None = 1000,
        newest_first: bool = False,
    ) -> list[Event]:
        """At most ``limit`` events behind ``after`` and not behind ``until``, in their order;
        ``newest_first``: going back from ``after``, or from the newest."""
        order = (self._events.c.written, self._events.c.id)
        query = select(*(self._events.c[name] for name in _FIELDS)).where(
            *wanted.conditions(self._events, self._marks)
        )
        if after != START:
            query = query.where(self._before(after) if newest_first else self._behind(after))
        if until is not None:
            query = query.where(~self._behind(until))
        query = query.order_by(*((one.desc() for one in order) if newest_first else order))
        found = session.execute(query.limit(limit)).mappings()
        return [Event(**{**row, "marks": tuple(row["marks"] or ())}) for row in found]

    def place_of(self, session: Session, event_id: str) -> Place:
        """The place of an event. UnknownEvent."""
        found = session.execute(
            select(self._events.c.written).where(self._events.c.id == event_id)
        ).scalar()
        if found is None:
            raise UnknownEvent(event_id)
        return Place(found, event_id)

    def settled(self, session: Session) -> Place:
        """The place of the last event that is settled."""
        columns = (self._events.c.written, self._events.c.id)
        query = select(*columns).order_by(*(one.desc() for one in columns)).limit(1)
        below = _WRITTEN[session.get_bind().dialect.name][1]
        if below is not None:
            query = query.where(self._events.c.written < literal_column(below))
        found = session.execute(query).first()
        return START if found is None else Place(*found)

    def _behind(self, place: Place) -> ColumnElement[bool]:
        written, own = self._events.c.written, self._events.c.id
        # The first condition is what the index is good for.
        return and_(
            written >= place.written,
            or_(written > place.written, and_(written == place.written, own > place.id)),
        )

    def _before(self, place: Place) -> ColumnElement[bool]:
        written, own = self._events.c.written, self._events.c.id
        return and_(
            written <= place.written,
            or_(written < place.written, and_(written == place.written, own < place.id)),
        )
