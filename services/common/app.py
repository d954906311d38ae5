"""Puts a party's application together: its doors, and what stands before every door.

Before every door stands the :class:`Envelope`: it bounds the body, opens the unit of
work, writes down calls that come from outside the ecosystem, flushes the events, and
turns what nobody foresaw into an answer.

A party *prepares* after it has started to listen (keys, certificates, publishing its
roots); since that may need other parties which start at the same time, it is tried
until it succeeds, and ``/healthz`` says what it waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from . import auth, opcp, openapi
from .doors import clients, clock, events, faults, intermediates, reset, trust
from .errors import Refusal
from .events import HOP_HEADER, RUN_HEADER, Event, readable, unit_of_work
from .http_faults import Exchange
from .jobs import Jobs
from .party import Party
from .problems import NotAsExpectedError, WrongUseError

if TYPE_CHECKING:
    from services.ecosystem import PartyConfig

log = logging.getLogger("pnclab")

MAX_BODY = 1024 * 1024
# How much of an oversize body is read and thrown away, so that the caller sees
# the answer instead of a broken pipe.
MAX_DRAIN = 64 * 1024 * 1024

_RUN = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HOP = re.compile(r"[0-9a-f]{20,40}")
_QUIET_PATHS = ("/healthz", "/events", "/oauth/token", "/docs", "/openapi.json")


class Envelope:
    """What every request to a party passes through (ASGI middleware)."""

    def __init__(self, app: ASGIApp, party: Party) -> None:
        self.app = app
        self.party = party

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value for name, value in scope["headers"]}
        run = headers.get(RUN_HEADER.lower(), b"").decode("latin-1")
        try:
            body = await _whole_body(receive)
        except _GoneAway:
            return  # half a request is none: nothing is done, and nobody waits for an answer
        if body is None:
            await self._shaped(scope, _too_large())(scope, receive, send)
            return
        hop = headers.get(HOP_HEADER.lower(), b"").decode("latin-1")
        with unit_of_work(
            run if _RUN.fullmatch(run) else None, hop if _HOP.fullmatch(hop) else None
        ):
            outside = HOP_HEADER.lower() not in headers and not scope["path"].startswith(
                _QUIET_PATHS
            )
            await self._handle(scope, body, receive, send, outside)

    async def _handle(
        self, scope: Scope, body: bytes, receive: Receive, send: Send, outside: bool
    ) -> None:
        started = False
        kept: list[Message] = []

        async def replay() -> Message:
            nonlocal body
            if body is not None:
                message = {"type": "http.request", "body": body, "more_body": False}
                body = None  # type: ignore[assignment]
                return message
            return await receive()

        async def keep(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start" and _streams(message):
                started = True
            if started:
                await send(message)
            else:
                kept.append(message)

        asked = body
        exchange = Exchange(self.party, scope, asked, receive)
        try:
            with self.party.gate.passing(exchange.path):
                instead = await exchange.instead()
                if instead is None:
                    await self.app(scope, replay, keep)
                else:
                    kept = instead
                kept = await exchange.spoilt(kept)
        except Refusal as refusal:  # the gate is, or was, closed
            if started:
                raise
            kept = await _rendered(scope, JSONResponse(refusal.as_dict(), refusal.status))
        except Exception:
            if started:
                raise
            log.exception("%s: %s %s", self.party.config.name, scope["method"], scope["path"])
            kept = await _rendered(
                scope,
                self._shaped(
                    scope,
                    JSONResponse({"code": "internal_error", "message": "this is a defect"}, 500),
                ),
            )
        if outside and kept:
            self._record_outsider(scope, asked, kept)
        try:
            await self.party.database.flush()
        except Exception as error:  # an answer is not lost because its telling is
            log.error("%s: events were not written: %s", self.party.config.name, error)
        for message in kept:
            await send(message)

    def _shaped(self, scope: Scope, answer: JSONResponse) -> JSONResponse:
        """An answer from outside the doors, in the shape of the door that was meant."""
        return opcp.translated(self.party, answer) if opcp.speaks(scope["path"]) else answer

    def _record_outsider(self, scope: Scope, asked: bytes, kept: list[Message]) -> None:
        status = kept[0]["status"]
        answered = b"".join(message.get("body", b"") for message in kept[1:])
        request, request_raw = readable(asked)
        response, response_raw = readable(answered)
        self.party.recorder.record(
            Event(
                kind="http",
                name=f"{scope['method']} {scope['path']}",
                sender="outside",
                receiver=self.party.config.name,
                outcome="ok" if status < 400 else "refused" if status < 500 else "failed",
                data={
                    "method": scope["method"],
                    "url": scope["path"],
                    "status": status,
                    "request": request,
                    "response": response,
                    **_diagnosis(kept[0]),
                },
                request=request_raw,
                response=response_raw,
                cost={"bytes": len(asked) + len(answered)},
            )
        )


def _diagnosis(start: Message) -> dict[str, str]:
    """What a door says in a header of a request that its protocol has no words for."""
    for name, value in start["headers"]:
        if name == b"pnclab-diagnosis":
            return {"diagnosis": value.decode("latin-1")}
    return {}


def _streams(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start["headers"]
    )


class _GoneAway(Exception):
    """The caller hung up before its request was complete."""


async def _whole_body(receive: Receive) -> bytes | None:
    """The request's body; None when it is larger than a party reads. _GoneAway."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _GoneAway
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY:
            parts.append(part)
        elif size > MAX_DRAIN:
            return None
        if not message.get("more_body", False):
            return b"".join(parts) if size <= MAX_BODY else None


def _too_large() -> JSONResponse:
    return JSONResponse(
        Refusal(413, "body_too_large", f"a request's body has at most {MAX_BODY} bytes").as_dict(),
        413,
        {"Connection": "close"},
    )


async def _rendered(scope: Scope, response: JSONResponse) -> list[Message]:
    messages: list[Message] = []

    async def collect(message: Message) -> None:
        messages.append(message)

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    await response(scope, nothing, collect)
    return messages


class Health(BaseModel):
    """Whether a party is ready, and what it waits for when it is not."""

    name: str
    kind: str
    status: str
    waiting_for: str | None = None


class Preparation:
    """Tries a party's ``prepare`` until it succeeds.

    What another party refuses, or does not answer, may be there a moment later; any other
    trouble is the party's own and ends its start: ``ended`` is set, ``trouble`` says why.
    """

    def __init__(self, party: Party, prepare: Callable[[], Awaitable[None]]) -> None:
        self.party = party
        self._prepare = prepare
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()
        self.trouble: str | None = None
        self.waiting_for: str | None = "its own start"

    async def run(self) -> None:
        pause = 0.05
        while True:
            with unit_of_work("start"):
                try:
                    # One worker makes what is missing, the others find it there.
                    async with self.party.database.alone("prepare", wait=True):
                        await self._prepare()
                        await self.party.database.flush()
                except Refusal as reason:
                    self.waiting_for = reason.message
                except Exception as error:
                    self._end(error)
                    return
                else:
                    self.waiting_for = None
                    self.ready.set()
                    self.ended.set()
                    return
                # The failed attempts of a start are not part of anybody's story.
            await asyncio.sleep(pause)
            pause = min(pause * 1.6, 2.0)

    def _end(self, error: Exception) -> None:
        foreseen = isinstance(error, WrongUseError | NotAsExpectedError | DBAPIError | OSError)
        if not foreseen:
            log.exception("%s could not prepare", self.party.config.name)
        self.trouble = self.waiting_for = _sentence(error)
        self.ended.set()


_common = APIRouter()


def _sentence(error: Exception) -> str:
    """What went wrong, in a line; the database's own words where it was the database."""
    if isinstance(error, DBAPIError):
        return f"its database failed: {error.orig}"
    return str(error) or type(error).__name__


@_common.get("/healthz", tags=["party"], response_model=Health, responses={503: {"model": Health}})
async def healthz(request: Request) -> Any:
    """Ready (200) or still starting (503), and what it waits for."""
    preparation: Preparation = request.app.state.preparation
    config = preparation.party.config
    ready = preparation.ready.is_set()
    health = Health(
        name=config.name,
        kind=config.kind,
        status="ready" if ready else "starting",
        waiting_for=preparation.waiting_for,
    )
    return JSONResponse(health.model_dump(), 200 if ready else 503)


# The doors of every party; each is a file of its own in `doors/`.
COMMON_DOORS: tuple[APIRouter, ...] = (
    auth.router,
    _common,
    events.router,
    clock.router,
    faults.router,
    clients.router,
    reset.router,
)


def _servers(config: PartyConfig) -> list[dict[str, str]] | None:
    """The addresses that the OpenAPI description names, where there is more than its own."""
    if config.seen_at == config.url:
        return None
    return [
        {"url": config.seen_at, "description": "where others reach it"},
        {"url": config.url, "description": "where the other parties call it"},
    ]


def build_app(
    party: Party,
    *,
    description: str,
    service: Any,
    doors: Sequence[APIRouter],
    prepare: Callable[[], Awaitable[None]],
    rounds: Sequence[Callable[[], Awaitable[None]]] = (),
    stop: Callable[[], Awaitable[None]] | None = None,
) -> FastAPI:
    """The application of ``party``: its doors over ``service``, its preparation, its rounds.

    A round is one of the party's jobs (:mod:`.jobs`): work that is due again and again once the
    party is ready; what an unreachable party or a crash left unfinished is taken up there.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        party.open()
        preparation: Preparation = app.state.preparation
        preparing = asyncio.create_task(preparation.run())
        app.state.jobs.start()
        try:
            yield
        finally:
            preparing.cancel()
            await asyncio.gather(preparing, return_exceptions=True)
            await app.state.jobs.stop(patience=0.0)
            if stop is not None:
                await stop()
            await party.close()

    app = FastAPI(
        title=party.config.title,
        description=description,
        version=version("pnclab"),
        lifespan=lifespan,
        exception_handlers=opcp.HANDLERS,  # type: ignore[arg-type]
        separate_input_output_schemas=False,
        servers=_servers(party.config),
    )
    app.state.party = party
    app.state.service = service
    app.state.preparation = Preparation(party, prepare)
    due = (*rounds, *(keeper.renew_daily for keeper in party.keepers.values()))
    app.state.jobs = party.known_state.jobs = Jobs(party, due, app.state.preparation.ready)
    stores = (trust.router_of(name, keeper.readers) for name, keeper in party.keepers.items())
    judges = (intermediates.router,) if "trust-store" in party.keepers else ()
    for door in (*doors, *stores, *judges, *COMMON_DOORS):
        # As they are: to include a router would build each of its routes anew for each party.
        app.router.routes.extend(door.routes)
    app.add_middleware(Envelope, party=party)
    described = app.openapi

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi.completed(described(), app.routes)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
    return app
