"""Run parties: one, or all of them in one process on one event loop; or one with workers.

Each listens at its own address, where the others call it, and at its port of the addresses where
the ecosystem is reached from outside (:mod:`.common.reach`).

Several workers of a party are processes that share its listening socket and its database.
What they must not do at the same time they do under the party's locks
(:meth:`~.common.database.Database.alone`). A charger and a garage have one process each: the
cables and the cars at them are connections of that process.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import importlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import ArgumentError, DBAPIError

from .common.addresses import remember
from .common.app import Preparation
from .common.engines import shown
from .common.entropy import WARNING
from .common.listening import BACKLOG, listening
from .common.migrations import SchemaError
from .common.problems import NotAsExpectedError, StartError, WrongUseError
from .common.tls import ServerTls
from .ecosystem import Ecosystem

log = logging.getLogger("pnclab")

# A party's kind -> the module that makes its application.
APPS = {
    "v2g-root": "services.v2g_root.app",
    "rcp": "services.rcp.app",
    "oem": "services.oem.app",
    "pcp": "services.pcp.app",
    "mo": "services.mo.app",
    "cps": "services.cps.app",
    "ccp": "services.ccp.app",
    "cpo": "services.cpo.app",
    "charger": "services.charger.app",
    "vehicle": "services.vehicle.app",
    "platform": "services.platform.app",
}

# Seconds; longer than callers keep an idle connection, so that they close it and not we.
KEEP_ALIVE = 75
# Connections that a worker takes at a time: with all that wait, the others would get none.
SHARED_BACKLOG = 4
# Seconds between two looks whether the certificate of the TLS listeners is to be renewed.
TLS_RENEWAL = 3600.0
# Seconds for which a worker must have lived to be replaced at once when it dies.
SHORT_LIFE = 1.0
MAX_WORKERS = 64
# What one process holds in its memory, and others could not see.
ALONE = {
    "charger": "the cars that are plugged in are connections of its one process",
    "vehicle": "the cars that are on a visit are connections of its one process",
}


class WorkersError(WrongUseError):
    """This party cannot have that many workers."""


def create_app(ecosystem: Ecosystem, name: str) -> FastAPI:
    """The application of the party ``name``."""
    module = importlib.import_module(APPS[ecosystem.party(name).kind])
    app: FastAPI = module.create(ecosystem, name)
    return app


@dataclass(frozen=True)
class _Listeners:
    """The sockets of a party: where HTTP is spoken, and where it is within TLS."""

    plain: Sequence[socket.socket]
    secure: Sequence[socket.socket]

    def listen(self) -> None:
        for one in (*self.plain, *self.secure):
            one.listen(BACKLOG)


class _Server(uvicorn.Server):
    """One of several servers of a process: signals are the process's, not the server's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def running(
    ecosystem: Ecosystem,
    names: Sequence[str] | None = None,
    *,
    ready_within: float | None = 60.0,
    on_ready: Callable[[str], None] | None = None,
) -> AsyncIterator[dict[str, FastAPI]]:
    """Serve ``names`` (default: all parties) until the block ends; yields the applications.

    With ``ready_within`` (seconds) the block begins when all of them are ready; ``on_ready``
    is called with each name as it gets there. Raises StartError when a port is taken, a
    database cannot be used, or a party is not ready in time.
    """
    chosen = list(names or ecosystem.parties)
    with contextlib.ExitStack() as held:
        for name in chosen:
            held.enter_context(_data_of(ecosystem, name, shared=names is not None))
        tls = _tls(ecosystem)
        _remember(ecosystem)
        listeners = [held.enter_context(_listen(ecosystem, name)) for name in chosen]
        apps = {name: _opened(ecosystem, name) for name in chosen}
        async with _served(apps, listeners, tls, BACKLOG):
            if ready_within is not None:
                await _until_ready(apps, ready_within, on_ready)
            yield apps


@contextlib.asynccontextmanager
async def _served(
    apps: dict[str, FastAPI],
    listeners: Sequence[_Listeners],
    tls: ServerTls | None,
    backlog: int,
) -> AsyncIterator[None]:
    servers = {
        name: (_server(app, backlog), one.plain)
        for (name, app), one in zip(apps.items(), listeners, strict=True)
    }
    tasks = _started(servers)
    try:
        await _until_started(servers, tasks)
        if tls is not None:
            # The same applications once more: they begin and end with the servers above.
            secure = {
                f"{name} (TLS)": (_server(app, backlog, tls), one.secure)
                for (name, app), one in zip(apps.items(), listeners, strict=True)
            }
            servers |= secure
            tasks |= _started(secure)
            await _until_started(servers, tasks)
            tasks["renewal"] = asyncio.create_task(_renewing(tls))
        for one in listeners:
            one.listen()
        yield
    finally:
        for app in apps.values():
            app.state.party.stopping.set()
        for server, _ in servers.values():
            server.should_exit = True
        if "renewal" in tasks:
            tasks["renewal"].cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)


def _server(app: FastAPI, backlog: int, tls: ServerTls | None = None) -> _Server:
    config = uvicorn.Config(
        # What stands before the framework, where a party has something there.
        getattr(app.state, "front", app),
        log_config=None,
        access_log=False,
        lifespan="on" if tls is None else "off",
        timeout_graceful_shutdown=3,
        timeout_keep_alive=KEEP_ALIVE,
        backlog=backlog,
    )
    if tls is not None:
        config.load()
        config.ssl = tls.context
    return _Server(config)


def _started(
    servers: Mapping[str, tuple[_Server, Sequence[socket.socket]]],
) -> dict[str, asyncio.Task[None]]:
    return {
        name: asyncio.create_task(server.serve(sockets=list(sockets)))
        for name, (server, sockets) in servers.items()
    }


async def _renewing(tls: ServerTls) -> None:
    while True:
        await asyncio.sleep(TLS_RENEWAL)
        try:
            if tls.renew():
                log.info("the certificate of the TLS listeners is a new one")
        except (NotAsExpectedError, WrongUseError) as error:
            log.error("the certificate of the TLS listeners was not renewed: %s", error)


async def serve(
    ecosystem: Ecosystem,
    names: Sequence[str] | None = None,
    *,
    on_ready: Callable[[str], None] | None = None,
    furnish: Callable[[], Coroutine[Any, Any, None]] | None = None,
    on_all_ready: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, also while starting.

    When all are ready they are furnished: what ``furnish`` brings belongs to the known state.

    A single party may wait for others for ever; what goes wrong in its own house ends it
    (StartError).
    """
    _warn_of_seed(ecosystem)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    alone = names is not None
    stopping = asyncio.create_task(stop.wait())
    async with contextlib.AsyncExitStack() as stack:
        context = running(ecosystem, names, ready_within=None if alone else 60.0, on_ready=on_ready)
        starting = asyncio.create_task(stack.enter_async_context(context))
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            return
        apps = starting.result()
        if furnish is not None:
            furnishing = asyncio.create_task(furnish())
            await asyncio.wait({furnishing, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not furnishing.done():
                furnishing.cancel()
                await asyncio.gather(furnishing, return_exceptions=True)
                return
            furnishing.result()
        if ecosystem.resettable:
            await mark(ecosystem, apps, alone=alone)
        if on_all_ready is not None:
            on_all_ready()
        troubles = [asyncio.create_task(_trouble(name, app)) for name, app in apps.items()]
        done, pending = await asyncio.wait(
            {stopping, *troubles}, return_when=asyncio.FIRST_COMPLETED
        )
        for task in pending:
            task.cancel()
        for task in done - {stopping}:
            task.result()


def _warn_of_seed(ecosystem: Ecosystem) -> None:
    if ecosystem.seed is not None:
        log.warning("%s: %s", ecosystem.name, WARNING)


def serve_with_workers(ecosystem: Ecosystem, name: str, workers: int) -> None:
    """Serve ``name`` in ``workers`` processes until SIGINT or SIGTERM; one that dies is replaced.

    To be called in a process without threads and event loop: the workers are its forks.
    Raises WorkersError for a party that has one process only, StartError when a worker ends
    because its party cannot start.
    """
    kind = ecosystem.party(name).kind
    if ecosystem.seed is not None and workers > 1:
        raise WorkersError(
            f"--workers: under a seed a party has one process: {workers} would draw the same keys "
            "and identifiers"
        )
    if ecosystem.resettable and workers > 1:
        raise WorkersError(
            "--workers: a party that goes back to a known state has one process: others would not "
            "forget with it"
        )
    if not 1 <= workers <= MAX_WORKERS:
        raise WorkersError(f"--workers: {workers} is not within 1 and {MAX_WORKERS}")
    if kind in ALONE and workers > 1:
        raise WorkersError(f"--workers: a {kind} has one process: {ALONE[kind]}")
    _warn_of_seed(ecosystem)
    with _data_of(ecosystem, name, shared=True), _listen(ecosystem, name) as listeners:
        _remember(ecosystem)
        _tls(ecosystem)  # each worker has one of its own; what is wrong with it is said once
        importlib.import_module(APPS[kind])  # once for all of them
        gc.freeze()
        _Supervisor(ecosystem, name, listeners, workers).run()


async def mark(ecosystem: Ecosystem, apps: dict[str, FastAPI], *, alone: bool = False) -> None:
    """Take what the parties have now as the state that they go back to, those that have one
    already excepted; a party that starts ``alone`` does it when it is ready."""

    async def one(app: FastAPI) -> None:
        await app.state.preparation.ready.wait()
        await app.state.party.known_state.mark(anew=False)

    marking = asyncio.gather(*(one(app) for app in apps.values()))
    if not alone:
        await marking


class _Supervisor:
    """Starts the workers, replaces those that die, ends them all."""

    def __init__(
        self, ecosystem: Ecosystem, name: str, listeners: _Listeners, workers: int
    ) -> None:
        self.ecosystem = ecosystem
        self.name = name
        self.listeners = listeners
        self.workers = workers
        self.born: dict[int, float] = {}
        # Workers see the end of this pipe when we are gone, however that came about.
        self.alive, self._hold = os.pipe()
        self.ending = False

    def run(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._end)
        trouble = False
        try:
            while not self.ending:
                while len(self.born) < self.workers and not self.ending:
                    self._fork()
                trouble = self._replace_one()
                if trouble:
                    break
        finally:
            self._end()
            for pid in list(self.born):
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)
        if trouble:
            raise StartError(f"{self.name}: a worker could not start; it says why above")

    def _end(self, *_signal: object) -> None:
        self.ending = True
        for pid in list(self.born):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def _fork(self) -> None:
        # No signal between the fork and the entry in the books: it would miss this worker.
        signals = {signal.SIGINT, signal.SIGTERM}
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        try:
            pid = os.fork()
            if pid == 0:
                self._work(signals)
            self.born[pid] = time.monotonic()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    def _work(self, signals: set[signal.Signals]) -> NoReturn:
        code = 1
        try:
            os.close(self._hold)
            for number in signals:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
            asyncio.run(_work(self.ecosystem, self.name, self.listeners, self.alive))
            code = 0
        except (NotAsExpectedError, WrongUseError) as error:
            sys.stderr.write(f"error: {error}\n")
        except BaseException:
            log.exception("%s: a worker died", self.name)
            code = 70
        finally:
            with contextlib.suppress(OSError):
                sys.stderr.flush()
            os._exit(code)

    def _replace_one(self) -> bool:
        """Wait until a worker ends; whether that is because its party cannot start."""
        try:
            pid, status = os.wait()
        except (InterruptedError, ChildProcessError):
            return False
        born = self.born.pop(pid, 0.0)
        if self.ending:
            return False
        code = os.waitstatus_to_exitcode(status)
        log.error("%s: worker %s ended (%s); another one takes its place", self.name, pid, code)
        if time.monotonic() - born < SHORT_LIFE:
            time.sleep(SHORT_LIFE)
        return code == 1


async def _work(ecosystem: Ecosystem, name: str, listeners: _Listeners, alive: int) -> None:
    """One of several workers; ends at SIGINT, SIGTERM, or when its supervisor is gone."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(alive, stop.set)
    app = _opened(ecosystem, name)
    async with _served({name: app}, [listeners], _tls(ecosystem), SHARED_BACKLOG):
        trouble = asyncio.create_task(_trouble(name, app))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({trouble, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not trouble.cancel():
            trouble.result()


async def _trouble(name: str, app: FastAPI) -> None:
    """StartError when the party's start ends in trouble; waits for ever when it does not."""
    preparation: Preparation = app.state.preparation
    await preparation.ended.wait()
    if preparation.trouble is not None:
        raise StartError(f"{name}: {preparation.trouble}")
    await asyncio.Event().wait()


def _opened(ecosystem: Ecosystem, name: str) -> FastAPI:
    """The application of a party whose database and secret are there and fit."""
    try:
        app = create_app(ecosystem, name)
        app.state.party.open()
    except (DBAPIError, ArgumentError) as error:
        reason = " ".join(str(getattr(error, "orig", error)).split())
        database = _shown(ecosystem.party(name).database)
        raise StartError(f"{name}: its database {database} cannot be used: {reason}") from None
    except SchemaError as error:
        raise StartError(f"{name}: {error}") from None
    except OSError as error:
        raise StartError(f"{name}: {error.filename}: {error.strerror}") from None
    return app


def _shown(database: str) -> str:
    try:
        return shown(database)
    except ArgumentError:
        return "(its URL cannot be read)"


@contextlib.contextmanager
def _data_of(ecosystem: Ecosystem, name: str, *, shared: bool) -> Iterator[None]:
    """Hold the party's data: alone (``up``), or together with workers of the same party."""
    path = ecosystem.party(name).secret_file.with_suffix(".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("ab")
    except OSError as error:
        raise StartError(f"{name}: {error.filename}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"{name}: its data in {path.parent} is in use by another process"
            ) from None
        yield


@contextlib.contextmanager
def _listen(ecosystem: Ecosystem, name: str) -> Iterator[_Listeners]:
    reach, own = ecosystem.reach, ecosystem.party(name).address
    with listening(name, own, reach.listen, tls=reach.https) as (listener, others):
        if reach.https:
            yield _Listeners([listener], others)
        else:
            yield _Listeners([listener, *others], [])


def _tls(ecosystem: Ecosystem) -> ServerTls | None:
    if not ecosystem.reach.https:
        return None
    try:
        return ServerTls(ecosystem)
    except OSError as error:
        raise StartError(f"TLS: {error.filename}: {error.strerror}") from None


def _remember(ecosystem: Ecosystem) -> None:
    try:
        remember(ecosystem)
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}") from None


async def _until_started(
    servers: Mapping[str, tuple[_Server, Sequence[socket.socket]]],
    tasks: Mapping[str, asyncio.Task[None]],
) -> None:
    while not all(server.started for server, _ in servers.values()):
        for name, (server, _) in servers.items():
            if tasks[name].done() and not server.started:
                raise StartError(f"{name} did not start; its log says why")
        await asyncio.sleep(0.01)


async def _until_ready(
    apps: dict[str, FastAPI], within: float, on_ready: Callable[[str], None] | None
) -> None:
    async def wait(name: str, preparation: Preparation) -> None:
        try:
            await asyncio.wait_for(preparation.ended.wait(), within)
        except TimeoutError:
            raise StartError(
                f"{name} was not ready within {within:g} s: {preparation.waiting_for}"
            ) from None
        if preparation.trouble is not None:
            raise StartError(f"{name}: {preparation.trouble}")
        if on_ready is not None:
            on_ready(name)

    await asyncio.gather(*(wait(name, app.state.preparation) for name, app in apps.items()))
