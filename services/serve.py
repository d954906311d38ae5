"""Run parties: one, or all of them in one process on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError

from .common.app import Preparation
from .common.problems import NotAsExpectedError
from .ecosystem import Ecosystem

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
}

BACKLOG = 2048
# Seconds; longer than callers keep an idle connection, so that they close it and not we.
KEEP_ALIVE = 75


class StartError(NotAsExpectedError):
    """A party could not start; the message says which and why."""


def create_app(ecosystem: Ecosystem, name: str) -> FastAPI:
    """The application of the party ``name``."""
    module = importlib.import_module(APPS[ecosystem.party(name).kind])
    app: FastAPI = module.create(ecosystem, name)
    return app


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
        sockets = [held.enter_context(_listen(ecosystem, name)) for name in chosen]
        apps = {name: _opened(ecosystem, name) for name in chosen}
        async with _served(apps, sockets):
            if ready_within is not None:
                await _until_ready(apps, ready_within, on_ready)
            yield apps


@contextlib.asynccontextmanager
async def _served(
    apps: dict[str, FastAPI], sockets: Sequence[socket.socket]
) -> AsyncIterator[None]:
    servers = [
        _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="on",
                timeout_graceful_shutdown=3,
                timeout_keep_alive=KEEP_ALIVE,
                backlog=BACKLOG,
            )
        )
        for app in apps.values()
    ]
    tasks = [
        asyncio.create_task(server.serve(sockets=[listener]))
        for server, listener in zip(servers, sockets, strict=True)
    ]
    try:
        await _until_started(list(apps), servers, tasks)
        yield
    finally:
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)


async def serve(
    ecosystem: Ecosystem,
    names: Sequence[str] | None = None,
    *,
    on_ready: Callable[[str], None] | None = None,
    on_all_ready: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, also while starting.

    A single party may wait for others for ever; what goes wrong in its own house ends it
    (StartError).
    """
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
    except DBAPIError as error:
        raise StartError(
            f"{name}: its database {ecosystem.party(name).database} cannot be used: {error.orig}"
        ) from None
    except OSError as error:
        raise StartError(f"{name}: {error.filename}: {error.strerror}") from None
    return app


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


def _listen(ecosystem: Ecosystem, name: str) -> socket.socket:
    host, port = ecosystem.party(name).address
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise StartError(
            f"{name} cannot listen on {host}:{port}: {error.strerror or error}"
        ) from None


async def _until_started(
    names: Sequence[str], servers: Sequence[uvicorn.Server], tasks: Sequence[asyncio.Task[None]]
) -> None:
    while not all(server.started for server in servers):
        for name, server, task in zip(names, servers, tasks, strict=True):
            if task.done() and not server.started:
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
