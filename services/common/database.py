"""A party's database: SQL in threads, writes of many requests in one commit.

Handlers are async; only SQL runs in threads, and no thread is held while
another party is called. On SQLite one writer thread takes whatever is queued,
runs each job inside a savepoint and commits once for all of them: a job that
fails (a duplicate key) is undone alone, and nobody is answered before the
commit is on disk (WAL, synchronous=FULL). On other engines a write is an
ordinary transaction in a worker thread.

The unit of work's events go into the same transaction as the write.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import UTC
from pathlib import Path
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy import (
    Connection,
    DateTime,
    Engine,
    MetaData,
    TypeDecorator,
    create_engine,
    event,
    insert,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Session

from .events import Event, current_unit

T = TypeVar("T")

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Instant(TypeDecorator[Any]):
    """An instant. SQLite keeps no zone: it goes in as UTC, and comes out as UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("an instant without a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


def declarative_base() -> Any:
    """A base class for the tables of one party (each party has a metadata of its own)."""

    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING)

    return Base


def _sqlite_engine(url: str) -> Engine:
    path = make_url(url).database
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, connect_args={"check_same_thread": False, "timeout": 30})

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


class Database:
    """Read and write one party's tables; ``url`` is a SQLAlchemy URL."""

    def __init__(self, url: str, metadata: MetaData, event_row: Any) -> None:
        self.url = url
        self.metadata = metadata
        self._event_row = event_row
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(url) if self.is_sqlite else create_engine(url)
        self._threads = CapacityLimiter(8)
        self._jobs: queue.SimpleQueue[tuple[Callable[[Session], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._writer: threading.Thread | None = None

    def open(self) -> None:
        """Start the writer (SQLite)."""
        if self.is_sqlite and self._writer is None:
            self._writer = threading.Thread(target=self._write_jobs, daemon=True)
            self._writer.start()

    def close(self) -> None:
        """Finish what is queued and give the connections back."""
        if self._writer is not None:
            self._jobs.put(None)
            self._writer.join(timeout=10)
            self._writer = None
        self.engine.dispose()

    async def read(self, query: Callable[[Session], T]) -> T:
        """Run ``query`` in a worker thread, in a transaction that changes nothing."""

        def run() -> T:
            with Session(self.engine, expire_on_commit=False) as session:
                return query(session)

        return await to_thread.run_sync(run, limiter=self._threads)

    async def write(self, change: Callable[[Session], T]) -> T:
        """Run ``change`` and commit it together with the unit of work's events.

        When ``change`` raises, all of it is undone, the error comes back to the
        caller, and the events stay with the unit of work.
        """
        unit = current_unit()
        events = unit.take()

        def with_events(session: Session) -> T:
            result = change(session)
            self._insert_events(session, events)
            return result

        try:
            if self._writer is None:
                return await to_thread.run_sync(self._write_one, with_events, limiter=self._threads)
            future: Future[T] = Future()
            self._jobs.put((with_events, future))
        except BaseException:
            unit.events[:0] = events
            raise
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            # A job that has begun goes on and takes its events with it.
            if future.cancel():
                unit.events[:0] = events
            raise
        except BaseException:
            unit.events[:0] = events
            raise

    def tell(self, session: Session, event: Event) -> None:
        """Write ``event`` (:meth:`~.events.Recorder.stamped`) within a change that it tells.

        When the change is undone, or finds that it was made before and does not call this,
        nothing is told.
        """
        self._insert_events(session, [event])

    async def flush(self) -> None:
        """Write the unit of work's events that no change has carried."""
        if current_unit().events:
            await self.write(lambda _session: None)

    async def events(
        self, *, run: str | None = None, kind: str | None = None, after: str = "", limit: int = 1000
    ) -> list[Event]:
        """Events in the order of their identifiers, after ``after``."""
        row = self._event_row

        def query(session: Session) -> list[Event]:
            wanted = select(row).where(row.id > after).order_by(row.id).limit(limit)
            if run is not None:
                wanted = wanted.where(row.run == run)
            if kind is not None:
                wanted = wanted.where(row.kind == kind)
            names = list(Event.__dataclass_fields__)
            return [
                Event(**{name: getattr(found, name) for name in names})
                for found in session.scalars(wanted)
            ]

        return await self.read(query)

    def _insert_events(self, session: Session, events: Sequence[Event]) -> None:
        if events:
            names = list(Event.__dataclass_fields__)
            # On the table, not the mapped class: nobody needs these rows as objects.
            session.connection().execute(
                insert(self._event_row.__table__),
                [{name: getattr(found, name) for name in names} for found in events],
            )

    def _write_one(self, change: Callable[[Session], T]) -> T:
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            return change(session)

    def _write_jobs(self) -> None:
        with self.engine.connect().execution_options(writing=True) as connection:
            going = True
            while going:
                batch = [self._jobs.get()]
                while not self._jobs.empty() and len(batch) < 256:
                    batch.append(self._jobs.get())
                if None in batch:
                    going = False
                self._commit([job for job in batch if job is not None], connection)

    def _commit(
        self,
        batch: list[tuple[Callable[[Session], Any], Future[Any]]],
        connection: Connection,
    ) -> None:
        # Whoever has gone away before we began is not served.
        begun = [job for job in batch if job[1].set_running_or_notify_cancel()]
        done: list[tuple[Future[Any], Any, Exception | None]] = []
        try:
            with connection.begin():
                for change, future in begun:
                    try:
                        with Session(
                            connection,
                            join_transaction_mode="create_savepoint",
                            expire_on_commit=False,
                        ) as session:
                            result = change(session)
                            session.commit()
                    except Exception as error:
                        done.append((future, None, error))
                    else:
                        done.append((future, result, None))
        except Exception as error:
            done = [(future, None, error) for _change, future in begun]
        # Nobody is told before the commit, failures neither: who lost against another job
        # of this batch must find that one's rows when it looks.
        for future, result, trouble in done:
            if trouble is None:
                future.set_result(result)
            else:
                future.set_exception(trouble)
