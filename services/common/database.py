"""A party's database: SQL in threads, writes of many requests in one commit.

Handlers are async; only SQL runs in threads, and no thread is held while
another party is called. One writer thread takes whatever is queued, runs each
job inside a savepoint and commits once for all of them: a job that fails (a
duplicate key) is undone alone, and nobody is answered before the commit is on
disk. What the two engines need for that is in :mod:`.engines`.

When the database itself fails (a full disk, a locked file, a server that went
away), nothing of the batch is kept. A server is waited for a moment, and the
batch is run again; what a full disk refused is tried job by job, so that only
those fail that do not fit. A connection that breaks while it commits leaves
open what became of the batch: the server is asked for it.

The unit of work's events go into the same transaction as the write.
"""

from __future__ import annotations

import asyncio
import fcntl
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path
from typing import IO, Any, TypeVar

from anyio import CapacityLimiter, to_thread
from sqlalchemy import (
    Connection,
    DateTime,
    MetaData,
    String,
    TypeDecorator,
    event,
    text,
)
from sqlalchemy import inspect as inspected
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    NotSupportedError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import DeclarativeBase, Session, make_transient, make_transient_to_detached
from sqlalchemy.types import BigInteger, Integer

from .engines import READERS, engine_for, is_away, lock_key, shown
from .errors import DatabaseUnavailable, Refusal
from .event_log import START, EventLog, Wanted
from .events import Event, current_unit
from .glance import Glance

T = TypeVar("T")

NAMING = {
    "ix": "ix_%(column_0_label)s",
    "uq": "uq_%(table_name)s_%(column_0_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}

# Seconds for which a server that went away is waited for; the caller waits for 10 s.
AWAY_PATIENCE = 4.0
AWAY_PAUSE = 0.1
# Seconds for which it is asked what became of a transaction, once that is open.
ANSWER_PATIENCE = 8.0
MAX_BATCH = 256


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
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def declarative_base() -> Any:
    """A base class for the tables of one party (each party has a metadata of its own)."""

    class Base(DeclarativeBase):
        metadata = MetaData(naming_convention=NAMING)
        # Watt-hours and cents outgrow 32 bits. SQLite's INTEGER has 64 as it is.
        type_annotation_map = {int: BigInteger().with_variant(Integer, "sqlite")}

    return Base


class _Session(Session):
    """A session that refuses what a column has no room for, on every engine alike."""


@event.listens_for(_Session, "before_flush")
def _must_fit(session: Session, _context: Any, _instances: Any) -> None:
    for row in (*session.new, *session.dirty):
        for name, length in _texts(type(row)):
            value = row.__dict__.get(name)
            if isinstance(value, str):
                _must_be_storable(value, length, f"{row.__tablename__}.{name}")


_known_texts: dict[type, list[tuple[str, int | None]]] = {}


def _texts(kind: type) -> list[tuple[str, int | None]]:
    """A mapped class's text columns, with their lengths."""
    if kind not in _known_texts:
        columns: Any = inspected(kind).columns
        _known_texts[kind] = [
            (column.key, column.type.length)
            for column in columns
            if isinstance(column.type, String)
        ]
    return _known_texts[kind]


def _must_be_storable(value: str, length: int | None, where: str) -> None:
    if length is not None and len(value) > length:
        raise Refusal(
            422, "does_not_fit", f"{where}: {len(value)} characters, and {length} have room"
        )
    if value.isascii():
        if "\0" in value:
            raise Refusal(422, "does_not_fit", f"{where}: a text holds no NUL character")
        return
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        raise Refusal(422, "does_not_fit", f"{where}: a text holds no lone surrogate") from None
    if b"\0" in encoded:
        raise Refusal(422, "does_not_fit", f"{where}: a text holds no NUL character")


@dataclass
class _Job:
    """A change that waits for the writer."""

    change: Callable[[Session], Any]
    future: Future[Any]
    made: list[Any] = field(default_factory=list)
    gone: list[Any] = field(default_factory=list)
    """Rows that it added and deleted: when it is run again, this is done again."""

    def run(self, connection: Connection) -> Any:
        with _Session(
            connection, join_transaction_mode="create_savepoint", expire_on_commit=False
        ) as session:
            event.listen(session, "before_flush", self._keep)
            try:
                result = self.change(session)
                session.commit()
            except Exception as error:
                # Leaving may fail as well, when the database undid everything by itself;
                # the first error is the one that says why.
                with suppress(SQLAlchemyError):
                    session.rollback()
                raise error
            return result

    def _keep(self, session: Session, _context: Any, _instances: Any) -> None:
        self.made += session.new
        self.gone += session.deleted

    def undone(self) -> None:
        """The whole transaction was undone: what was added is new again, what was deleted is
        there again."""
        for row in self.made:
            make_transient(row)
        for row in self.gone:
            make_transient(row)
            make_transient_to_detached(row)
        self.made.clear()
        self.gone.clear()


_Outcome = tuple[_Job, Any, Exception | None]


class Database:
    """Read and write one party's tables.

    ``url`` is a SQLAlchemy URL; ``schema`` names the party's schema on PostgreSQL.
    """

    def __init__(self, url: str, metadata: MetaData, schema: str | None = None) -> None:
        self.url = url
        self.schema = schema or "public"
        self.metadata = metadata
        self.log = EventLog(metadata)
        self.backend = make_url(url).get_backend_name()
        self.is_sqlite = self.backend == "sqlite"
        self.engine = engine_for(url, schema)
        self._reading = (
            self.engine
            if self.is_sqlite  # a transaction sees one snapshot there anyway
            else self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        )
        self._threads = CapacityLimiter(READERS[self.backend])
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer: threading.Thread | None = None
        self._locks = _Locks(self)
        # Rows by key without a thread; None where the database is a server.
        path = make_url(url).database
        self.glance = Glance(path) if self.is_sqlite and path else None

    def __str__(self) -> str:
        return shown(self.url)

    def open(self) -> None:
        """Start the writer."""
        if self._writer is None:
            self._writer = threading.Thread(target=self._write_jobs, daemon=True)
            self._writer.start()

    def close(self) -> None:
        """Finish what is queued and give the connections back."""
        if self._writer is not None:
            self._jobs.put(None)
            self._writer.join(timeout=10)
            self._writer = None
        self._locks.close()
        if self.glance is not None:
            self.glance.close()
        self.engine.dispose()

    async def read(self, query: Callable[[Session], T]) -> T:
        """Run ``query`` in a worker thread, in a transaction that changes nothing."""

        def run() -> T:
            until = time.monotonic() + AWAY_PATIENCE
            while True:
                try:
                    with Session(self._reading, expire_on_commit=False) as session:
                        return query(session)
                except Exception as error:
                    if not is_away(error) or time.monotonic() > until:
                        raise _told(error) from error
                time.sleep(AWAY_PAUSE)

        return await to_thread.run_sync(run, limiter=self._threads)

    async def write(self, change: Callable[[Session], T]) -> T:
        """Run ``change`` and commit it together with the unit of work's events.

        When ``change`` raises, all of it is undone, the error comes back to the
        caller, and the events stay with the unit of work. It may be run twice, when the
        database failed the first time; so it changes nothing but the database.
        """
        unit = current_unit()
        events = unit.take()

        def with_events(session: Session) -> T:
            result = change(session)
            self._insert_events(session, events)
            return result

        job = _Job(with_events, Future())
        try:
            if self._writer is None:
                await to_thread.run_sync(self._write_one, job, limiter=self._threads)
            else:
                self._jobs.put(job)
        except BaseException:
            unit.events[:0] = events
            raise
        try:
            return await asyncio.shield(asyncio.wrap_future(job.future))
        except asyncio.CancelledError:
            # A job that has begun goes on and takes its events with it.
            if job.future.cancel():
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

    @asynccontextmanager
    async def alone(self, purpose: str, *, wait: bool = False) -> AsyncIterator[bool]:
        """Hold the party's lock for ``purpose`` until the block ends: no other of its
        processes has it meanwhile. Yields whether it is held; with ``wait`` it always is.

        A process that dies gives its locks back. So does one that loses its connection to a
        PostgreSQL server, which it does not notice: what is done under a lock is to save
        work, and must be right without.
        """
        held = await self._taken(purpose)
        while wait and not held:
            await asyncio.sleep(0.02)
            held = await self._taken(purpose)
        try:
            yield held
        finally:
            if held:
                await asyncio.shield(to_thread.run_sync(self._locks.give_back, purpose))

    async def _taken(self, purpose: str) -> bool:
        taking = asyncio.ensure_future(to_thread.run_sync(self._locks.take, purpose))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            if await taking:  # nobody is left to give it back
                await asyncio.shield(to_thread.run_sync(self._locks.give_back, purpose))
            raise

    async def events(
        self,
        *,
        after: str = "",
        limit: int = 1000,
        newest_first: bool = False,
        **wanted: Any,
    ) -> list[Event]:
        """Events in the order in which they were written, behind that with the identifier
        ``after``; ``wanted`` are the fields of :class:`.event_log.Wanted`."""
        return await self.read(
            lambda session: self.log.select(
                session,
                Wanted(**wanted),
                after=self.log.place_of(session, after) if after else START,
                limit=limit,
                newest_first=newest_first,
            )
        )

    def _insert_events(self, session: Session, events: Sequence[Event]) -> None:
        self.log.insert(session, events)

    # ------------------------------------------------------------- the writer

    def _write_one(self, job: _Job) -> None:
        writer = _Writer(self)
        try:
            writer.commit([job])
        finally:
            writer.close()

    def _write_jobs(self) -> None:
        writer = _Writer(self)
        going = True
        while going:
            batch = [self._jobs.get()]
            while not self._jobs.empty() and len(batch) < MAX_BATCH:
                batch.append(self._jobs.get())
            if None in batch:
                going = False
            writer.commit([job for job in batch if job is not None])
        writer.close()


class _Writer:
    """Commits batches of jobs over a connection that it keeps."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._connection: Connection | None = None

    def close(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):
                self._connection.close()
            self._connection = None

    def commit(self, batch: list[_Job]) -> None:
        """Run the jobs, commit, and tell everybody how it went."""
        # Whoever has gone away before we began is not served.
        begun = [job for job in batch if job.future.set_running_or_notify_cancel()]
        # Nobody is told before the commit, failures neither: who lost against another job
        # of this batch must find that one's rows when it looks.
        for job, result, trouble in self._outcomes(begun):
            if trouble is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(trouble)

    def _outcomes(self, jobs: list[_Job]) -> list[_Outcome]:
        until = time.monotonic() + AWAY_PATIENCE
        while True:
            began = False
            try:
                connection = self._connected()
                transaction = connection.begin()
                began = True
                return self._transaction(jobs, connection, transaction)
            except _Unknown as unknown:  # to run them again might do it twice
                return [(job, None, unknown) for job in jobs]
            except Exception as error:
                for job in jobs:
                    job.undone()
                self.close()
                away = is_away(error)
                if away and time.monotonic() < until:
                    time.sleep(AWAY_PAUSE)
                elif began and len(jobs) > 1 and not away:
                    # It may be one of them that the database cannot do.
                    return [outcome for job in jobs for outcome in self._outcomes([job])]
                else:
                    return [(job, None, _told(error)) for job in jobs]

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = self.database.engine.connect().execution_options(writing=True)
        return self._connection

    def _transaction(
        self, jobs: list[_Job], connection: Connection, transaction: Any
    ) -> list[_Outcome]:
        """What became of each job; raises where nothing was kept because the database failed."""
        try:
            number = self._number(connection)
            outcomes = [self._outcome(job, connection) for job in jobs]
        except BaseException:
            with suppress(SQLAlchemyError):
                transaction.rollback()
            raise
        try:
            transaction.commit()
        except Exception as error:
            with suppress(SQLAlchemyError):
                transaction.rollback()
            if is_away(error) and self._was_committed(number):
                return outcomes
            raise
        return outcomes

    def _outcome(self, job: _Job, connection: Connection) -> _Outcome:
        try:
            return job, job.run(connection), None
        except Exception as error:
            if _is_failure(error):
                raise
            return job, None, _told(error)

    def _number(self, connection: Connection) -> int | None:
        """The transaction's number, by which a PostgreSQL server knows what became of it."""
        if self.database.is_sqlite:
            return None
        return int(connection.execute(text("SELECT txid_current()")).scalar_one())

    def _was_committed(self, number: int | None) -> bool:
        """What became of a transaction whose connection broke; _Unknown where the server does
        not say in time."""
        self.close()
        until = time.monotonic() + ANSWER_PATIENCE
        while True:
            try:
                with self.database.engine.connect() as connection:
                    status = connection.execute(
                        text("SELECT txid_status(:number)"), {"number": number}
                    ).scalar()
                if status in ("committed", "aborted"):
                    return bool(status == "committed")
            except SQLAlchemyError as error:
                if not is_away(error):
                    raise _Unknown from error
            if time.monotonic() > until:
                raise _Unknown
            time.sleep(AWAY_PAUSE)


class _Unknown(DatabaseUnavailable):
    def __init__(self) -> None:
        super().__init__(
            "the connection to the database broke while a change was committed: whether it was "
            "kept is not known; ask again"
        )


def _is_failure(error: Exception) -> bool:
    """Whether the database failed, rather than refused what it was asked to do."""
    refusals = (IntegrityError, DataError, ProgrammingError, NotSupportedError)
    return isinstance(error, PoolTimeoutError) or (
        isinstance(error, DBAPIError)
        and (error.connection_invalidated or not isinstance(error, refusals))
    )


def _told(error: Exception) -> Exception:
    """``error`` in the words of this module, where it is the database's."""
    if isinstance(error, DatabaseUnavailable):
        return error
    if _is_failure(error):
        reason = " ".join(str(getattr(error, "orig", error)).split())
        return DatabaseUnavailable(
            f"the database did not do its part: {reason}; nothing was changed"
        )
    if isinstance(error, DataError):
        reason = " ".join(str(error.orig).split())
        return Refusal(422, "does_not_fit", f"a value has no room in the database: {reason}")
    if isinstance(error, UnicodeEncodeError):
        return Refusal(422, "does_not_fit", "a text holds no lone surrogate")
    return error


class _Locks:
    """What a party's processes tell each other: a file on SQLite, an advisory lock else."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = threading.Lock()
        self._held: dict[str, IO[bytes] | int] = {}
        self._connection: Connection | None = None

    def take(self, purpose: str) -> bool:
        with self._guard:
            if purpose in self._held:
                return False
            try:
                taken = self._file(purpose) if self._database.is_sqlite else self._row(purpose)
            except (OSError, SQLAlchemyError):
                self._drop()
                return False
            if taken is None:
                return False
            self._held[purpose] = taken
            return True

    def give_back(self, purpose: str) -> None:
        with self._guard:
            held = self._held.pop(purpose, None)
            if isinstance(held, int):
                try:
                    if self._connection is not None:
                        self._connection.execute(
                            text("SELECT pg_advisory_unlock(:key)"), {"key": held}
                        )
                except SQLAlchemyError:
                    self._drop()
            elif held is not None:
                held.close()

    def close(self) -> None:
        for purpose in list(self._held):
            self.give_back(purpose)
        self._drop()

    def _file(self, purpose: str) -> IO[bytes] | None:
        path = Path(make_url(self._database.url).database or "").absolute()
        lock = path.with_name(f"{path.name}.{purpose}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def _row(self, purpose: str) -> int | None:
        if self._connection is None:
            self._connection = self._database.engine.connect().execution_options(
                isolation_level="AUTOCOMMIT"
            )
        key = lock_key(f"pnclab {purpose} {self._database.schema}")
        query = text("SELECT pg_try_advisory_lock(:key)")
        return key if self._connection.execute(query, {"key": key}).scalar() else None

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(SQLAlchemyError):
                # Closed, not given back: the locks go with it.
                self._connection.invalidate()
                self._connection.close()
            self._connection = None
            self._held = {
                purpose: held for purpose, held in self._held.items() if not isinstance(held, int)
            }
