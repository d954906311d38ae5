"""A party's jobs: work that is due again and again.

What an unreachable party or a crash left unfinished is taken up, and what time uses up is
renewed: a job looks what is due *now* and does that, so it may run at any time, any number of
times. It runs every few seconds of elapsed time, at once when the ecosystem's clock was moved
(by whichever process), and when somebody asks (``POST /jobs/run``); never twice at a time.

What a job did and what still waits it says itself (:func:`did`, :func:`waits`); who asked for
the run gets it as a report.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import DatabaseUnavailable, Refusal

if TYPE_CHECKING:
    from .party import Party

log = logging.getLogger("pnclab")

Work = Callable[[], Awaitable[None]]

# Seconds between two runs of a job, and between two looks at the clock.
RUN_EVERY = 5.0
LOOK_EVERY = 1.0
MAX_UNTOLD = 100
# Seconds that a job under way gets to end by itself.
ENDING_PATIENCE = 3.0


@dataclass(frozen=True)
class Waiting:
    """Something that could not be done yet, and why."""

    what: str
    why: str


@dataclass
class Report:
    """What one run of a job came to."""

    job: str
    does: str
    done: list[str] = field(default_factory=list)
    waits: list[Waiting] = field(default_factory=list)


_report: ContextVar[Report | None] = ContextVar("pnclab_report", default=None)


def did(what: str) -> None:
    """The job under way did ``what``; outside of a job nobody is told."""
    if (report := _report.get()) is not None:
        report.done.append(what)


def waits(what: str, why: str) -> None:
    """The job under way could not do ``what`` yet."""
    if (report := _report.get()) is not None:
        report.waits.append(Waiting(what, why))


class _Job:
    def __init__(self, party: Party, number: int, work: Work) -> None:
        self.party = party
        self.work = work
        self.name = getattr(work, "__name__", "job").strip("_").replace("_", "-")
        text = (inspect.getdoc(work) or "").split("\n\n")[0].replace("\n", " ")
        self.does = text.removeprefix("A round: ")
        self.due = asyncio.Event()
        # What was done in the background and nobody has heard of yet, each with the clock's
        # count of moves: what was done in another time is of no interest.
        self._untold: list[tuple[int, str]] = []
        self._lock = f"job-{number}-{self.name}"
        self._one_at_a_time = asyncio.Lock()

    async def run(self, *, wait: bool) -> Report:
        """Run it once. Of several workers of the party one runs a job at a time; who does not
        ``wait`` for the other leaves it at that, and is not told: the next one who waits hears
        what was done meanwhile."""
        report = Report(self.name, self.does)
        async with (
            self._one_at_a_time,
            self.party.database.alone(self._lock, wait=wait) as mine,
        ):
            if not mine:
                return report
            token = _report.set(report)
            try:
                async with self.party.unit():
                    await self.work()
            except Refusal as reason:
                waits(self.name, reason.message)
            except Exception as error:
                if isinstance(error, DatabaseUnavailable):
                    log.error("%s: %s failed: %s", self.party.config.name, self.name, error)
                else:
                    log.exception("%s: %s failed", self.party.config.name, self.name)
                # The next run may have more luck.
                waits(self.name, f"it failed: {error or type(error).__name__}")
            finally:
                _report.reset(token)
        moves = self.party.clock.moves
        self._untold += [(moves, what) for what in report.done]
        if wait:
            report.done = [what for moved, what in self._untold if moved == moves]
            self._untold = []
        del self._untold[:-MAX_UNTOLD]
        return report

    def forget(self) -> None:
        """Nobody is to hear of what was done."""
        self._untold = []


class Jobs:
    """The jobs of one party, in the order in which they are run when somebody asks."""

    def __init__(self, party: Party, work: Sequence[Work], ready: asyncio.Event) -> None:
        self.party = party
        self._ready = ready
        self._jobs = [_Job(party, number, one) for number, one in enumerate(work, 1)]
        self._seen = party.clock.moves
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    def start(self) -> None:
        """Let them go on in the background until :meth:`stop`; a second time changes nothing."""
        if not self._tasks:
            self._stopping = False
            self._tasks = [
                asyncio.create_task(self._watch_clock()),
                *(asyncio.create_task(self._again_and_again(job)) for job in self._jobs),
            ]

    async def stop(self, patience: float = ENDING_PATIENCE) -> None:
        """End what goes on in the background; a job under way gets ``patience`` seconds."""
        tasks, self._tasks, self._stopping = self._tasks, [], True
        running = tasks[1:]
        for watching in tasks[:1]:
            watching.cancel()
        if not self._ready.is_set():
            patience = 0.0
        for job in self._jobs:
            job.due.set()
        if running:
            _done, late = await asyncio.wait(running, timeout=patience)
            for task in late:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self) -> None:
        """What was done is of no interest any more."""
        for job in self._jobs:
            job.forget()

    async def run(self) -> list[Report]:
        """Run every job once, now; Refusal 503 while the party is still starting."""
        if not self._ready.is_set():
            raise Refusal(
                503, "not_ready", f"{self.party.config.name} is still starting; see /healthz"
            )
        self._moved()
        return [await job.run(wait=True) for job in self._jobs]

    def _moved(self) -> bool:
        """Whether the clock was moved since the last look."""
        self.party.clock.now()
        seen, self._seen = self._seen, self.party.clock.moves
        return seen != self._seen

    async def _watch_clock(self) -> None:
        await self._ready.wait()
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._moved():
                for job in self._jobs:
                    job.due.set()

    async def _again_and_again(self, job: _Job) -> None:
        await self._ready.wait()
        while not self._stopping:
            job.due.clear()
            try:
                await job.run(wait=False)
            except Exception:  # the lock could not be taken
                log.exception("%s: %s could not run", self.party.config.name, job.name)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(job.due.wait(), RUN_EVERY)
