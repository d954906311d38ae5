"""The known state of a test instance: mark it, and go back to it in milliseconds.

**What is kept.** Marking copies every table of the party's database, but for the events and how
far others' were read, into tables beside them (``known_state_<table>``), with the setting of the
clock, in one transaction. The state outlives the process. Going back empties the tables and fills
them from the copies, in one transaction too: everything since is gone, keys, contracts,
revocations, faults and clients that were brought in. The events stay, in their order: what
happened was told, and who follows them loses no place. That the party went back is itself an
event.

**What is under way.** First the party *holds* (:class:`Gate`): every request and job that is
under way is ended, and each request is answered 503 ``reset``; what comes meanwhile is refused
likewise. A change that the database's writer has begun is finished first. Then the rows are put
back, and everything that the process knows by heart is forgotten; what does so is in
:attr:`Party.at_reset`. What must be ended first (sessions on a cable, records that are being
sent) is in :attr:`Party.at_hold`.

**Several parties** (:func:`reset_all`) hold all before the first of them goes back: what one of
them was doing at another would otherwise arrive there after that one went back.

A party that can go back runs in one process: others would not forget with it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, inspect, text
from sqlalchemy.orm import Session

from .clock import ClockError, Setting
from .engines import quoted
from .errors import Refusal
from .events import Event

if TYPE_CHECKING:
    from .jobs import Jobs
    from .party import Party

log = logging.getLogger("pnclab")

PREFIX = "known_state_"
ABOUT = f"{PREFIX}about"
# What happened stays told, and how far somebody has read of it too.
LEFT_OUT = ("events", "event_marks", "webhook_cursors")
# Seconds that what is under way may take to end, and for which a party holds at most.
ENDING_PATIENCE = 5.0
HOLD_PATIENCE = 30.0
# What is answered all the while: the call that puts back, and what its caller needs for it.
OPEN_PATHS = ("/reset", "/healthz", "/oauth/token", "/events")

HOW = (
    "`resettable = true` under [ecosystem], or the option --resettable of `pnclab up` and "
    "`pnclab serve`, makes this a test instance that can"
)


class Gate:
    """What every request passes; while it is held none does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = False
        self._under_way: set[asyncio.Task[Any]] = set()
        self._ended: set[asyncio.Task[Any]] = set()
        self._left = asyncio.Event()

    @contextmanager
    def passing(self, path: str) -> Iterator[None]:
        """A request passes. Refusal 503 while the gate is held, and when it closes meanwhile."""
        if path.startswith(OPEN_PATHS):
            yield
            return
        if self.held:
            raise self._refusal("nothing was begun")
        task = asyncio.current_task()
        assert task is not None
        self._under_way.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task not in self._ended:
                raise
            task.uncancel()
            raise self._refusal("nothing of this call remains") from None
        finally:
            self._under_way.discard(task)
            self._left.set()
            self._ended.discard(task)

    async def close(self) -> None:
        """Hold, and end what is under way."""
        self.held = True
        for task in self._under_way:
            self._ended.add(task)
            task.cancel()
        try:
            async with asyncio.timeout(ENDING_PATIENCE):
                while self._under_way:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            left = len(self._under_way)
            raise Refusal(
                503, "still_busy", f"{left} calls to {self.name} did not end; ask again"
            ) from None

    def _refusal(self, what: str) -> Refusal:
        return Refusal(503, "reset", f"{self.name} goes back to its known state; {what}")


@dataclass(frozen=True)
class About:
    """A state that was marked: when (ecosystem time), how the clock was set, which columns."""

    marked_at: datetime
    clock: Setting
    columns: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Restored:
    """How a party went back."""

    party: str
    marked_at: datetime
    rows: int
    milliseconds: float


class KnownState:
    """The known state of one party."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self.jobs: Jobs | None = None
        self._one_at_a_time = asyncio.Lock()
        # A platform has all go back, one time after the other: two would undo each other's holding.
        self.of_all = asyncio.Lock()
        self._let_go: asyncio.TimerHandle | None = None

    def must_be_allowed(self) -> None:
        """Refusal 403 where this is not a test instance that goes back."""
        if not self.party.ecosystem.resettable:
            raise Refusal(403, "not_resettable", f"{self.party.config.name} never goes back: {HOW}")

    # ------------------------------------------------------------------ marking

    async def mark(self, *, anew: bool = True) -> datetime:
        """Take the state that is now as the known one; when that was marked.

        Without ``anew``, one that was marked before stays: a restart does not make what tests
        left behind the known state.
        """
        if not anew and (known := await self._about()) is not None:
            return known.marked_at
        about = About(self.party.clock.now(), self.party.clock.setting, self._columns())
        async with self._one_at_a_time:
            await self.party.database.write(lambda session: self._copy(session, about))
        return about.marked_at

    def _copy(self, session: Session, about: About) -> None:
        connection = session.connection()
        for table in self._tables():
            copy = quoted(PREFIX + table.name)
            connection.execute(text(f"DROP TABLE IF EXISTS {copy}"))
            connection.execute(
                text(f"CREATE TABLE {copy} AS SELECT * FROM {quoted(table.name)}")  # noqa: S608
            )
        connection.execute(text(f"DROP TABLE IF EXISTS {quoted(ABOUT)}"))
        connection.execute(text(f"CREATE TABLE {quoted(ABOUT)} (about TEXT NOT NULL)"))
        content = {
            "marked_at": about.marked_at.isoformat(),
            "clock": about.clock.encoded().decode(),
            "columns": about.columns,
        }
        connection.execute(
            text(f"INSERT INTO {quoted(ABOUT)} (about) VALUES (:about)"),  # noqa: S608
            {"about": json.dumps(content)},
        )

    # --------------------------------------------------------------- going back

    async def hold(self) -> None:
        """End what is under way, and refuse what comes until :meth:`release`, or half a minute.

        Refusal 503 where something does not end."""
        party = self.party
        if self._let_go is not None:
            self._let_go.cancel()
        self._let_go = asyncio.get_running_loop().call_later(HOLD_PATIENCE, self.release)
        try:
            await party.gate.close()
            if self.jobs is not None:
                await self.jobs.stop()
            for end in party.at_hold:
                await end()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Go on."""
        if self._let_go is not None:
            self._let_go.cancel()
            self._let_go = None
        if self.jobs is not None:
            self.jobs.start()
        self.party.gate.held = False

    async def restore(self) -> Restored:
        """Go back to the known state. Refusal 409 where none is marked."""
        party, began = self.party, time.monotonic()
        async with self._one_at_a_time:
            about = await self._about()
            if about is None:
                self.release()
                raise Refusal(
                    409,
                    "no_known_state",
                    f"{party.config.name} has no state to go back to: `pnclab up` marks one when "
                    "all are ready, POST /reset?step=mark does at any time",
                )
            if not party.gate.held:
                await self.hold()
            try:
                self._set_clock(about.clock)
                told = party.recorder.stamped(
                    Event(
                        kind="state",
                        name="reset",
                        sender=party.config.name,
                        receiver=party.config.name,
                        summary=f"{party.config.title} goes back to its state of "
                        f"{about.marked_at:%F %T}Z",
                        data={"marked_at": about.marked_at.isoformat()},
                    )
                )

                def put_back(session: Session) -> int:
                    rows = self._put_back(session.connection())
                    party.database.tell(session, told)
                    return rows

                rows = await party.database.write(put_back)
                await party.forget()
            finally:
                self.release()
        spent = round((time.monotonic() - began) * 1000, 2)
        return Restored(party.config.name, about.marked_at, rows, spent)

    def _put_back(self, connection: Connection) -> int:
        tables = self._tables()
        for table in reversed(tables):  # what refers to others goes first, and comes last
            connection.execute(text(f"DELETE FROM {quoted(table.name)}"))  # noqa: S608
        rows = 0
        for table in tables:
            columns = ", ".join(quoted(column.name) for column in table.columns)
            rows += connection.execute(
                text(
                    f"INSERT INTO {quoted(table.name)} ({columns}) "  # noqa: S608
                    f"SELECT {columns} FROM {quoted(PREFIX + table.name)}"
                )
            ).rowcount
        return rows

    def _set_clock(self, known: Setting) -> None:
        try:
            self.party.clock.restore(known)
        except ClockError as error:
            raise Refusal(507, "clock_not_kept", f"{error}; nothing went back") from None

    # ------------------------------------------------------------------- inside

    def _tables(self) -> list[Table]:
        """The tables that are kept, those that others refer to first."""
        found = self.party.tables.metadata.sorted_tables
        return [table for table in found if table.name not in LEFT_OUT]

    def _columns(self) -> dict[str, list[str]]:
        return {
            table.name: sorted(column.name for column in table.columns) for table in self._tables()
        }

    async def _about(self) -> About | None:
        """The marked state; None where there is none, or one of other tables than today's."""

        def query(session: Session) -> str | None:
            if not inspect(session.connection()).has_table(ABOUT):
                return None
            found = session.execute(text(f"SELECT about FROM {quoted(ABOUT)}"))  # noqa: S608
            return str(found.scalar_one())

        content = await self.party.database.read(query)
        if content is None:
            return None
        values = json.loads(content)
        if values["columns"] != self._columns():
            return None
        marked_at = datetime.fromisoformat(values["marked_at"])
        return About(marked_at, Setting.decoded(values["clock"].encode()), values["columns"])


Step = Callable[[str, str], Awaitable[Any]]
"""Has a party (by name) take a step (hold, restore, release, mark); what it answers."""


async def reset_all(names: Sequence[str], step: Step) -> list[Any]:
    """Have all of ``names`` go back: none does before all hold. Refusal names who did not, and
    those that hold go on as they were."""
    await _all(names, step, "hold")
    return await _all(names, step, "restore")


async def _all(names: Sequence[str], step: Step, which: str) -> list[Any]:
    done = await asyncio.gather(*(step(name, which) for name in names), return_exceptions=True)
    failed = {name: one for name, one in zip(names, done, strict=True) if isinstance(one, Refusal)}
    for one in done:
        if isinstance(one, BaseException) and not isinstance(one, Refusal):
            raise one
    if failed:
        await asyncio.gather(*(step(name, "release") for name in names), return_exceptions=True)
        told = "; ".join(f"{name}: {one.message}" for name, one in failed.items())
        statuses = {one.status for one in failed.values()}
        status = statuses.pop() if len(statuses) == 1 else 502
        code = next(iter(failed.values())).code
        raise Refusal(status, code, f"not all could {which}: {told}")
    return done
