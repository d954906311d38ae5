"""The event stream of a party, for its own client and for admins: asked for, or followed.

A stream (server-sent events) reads the party's table again and again, by the order of
:mod:`..event_log`: so it also tells what other workers of the party wrote, and whoever
comes back with the last identifier misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from .. import auth
from ..errors import REFUSALS, Refusal
from ..event_log import START, Place, UnknownEvent, Wanted
from ..events import EVENT_KINDS, OUTCOMES, Event
from ..marks import MARK_KINDS, MarkError, mark, parse_mark
from ..party import Party

log = logging.getLogger("pnclab")

router = APIRouter(tags=["events"])

MAX_PAGE = 1000
# Seconds between two looks into the table, and between two comments while nothing happens.
LOOK_EVERY = 0.25
KEEP_ALIVE = 15.0
# Events that a stream fetches at a time.
PORTION = 200

_REFUSED: dict[int | str, dict[str, Any]] = {k: REFUSALS[k] for k in (401, 403, 422)}
_EMAID = "DESUNC12345678"
_FINGERPRINT = "9b1c" * 16


class EventBody(BaseModel):
    """One thing that happened, as the party that saw it tells it."""

    id: str = Field(examples=["0644a1b2c3d4e500000a3f9c1e"])
    party: str = Field(description="Whose event it is.", examples=["charger-1"])
    run: str | None = Field(description="What the Pnclab-Run header said.", examples=["demo-1"])
    at: datetime = Field(description="Ecosystem time.")
    real: float = Field(description="The machine's time, seconds since 1970.")
    kind: str = Field(description=f"One of {', '.join(EVENT_KINDS)}.", examples=["cable"])
    name: str = Field(description="A message, a path, a role.", examples=["AuthorizationReq"])
    sender: str = Field(examples=["garage"])
    receiver: str = Field(examples=["charger-1"])
    outcome: str = Field(description=f"One of {', '.join(OUTCOMES)}.", examples=["ok"])
    summary: str = Field(examples=["AuthorizationRes: OK"])
    data: dict[str, Any] = Field(description="Depends on the kind; secrets are blanked out.")
    request: str | None = Field(description="Bytes that were asked with, base64.")
    response: str | None = Field(description="Bytes that were answered with, base64.")
    cost: dict[str, int] = Field(examples=[{"bytes": 512, "verifications": 1}])
    milliseconds: float | None = Field(description="How long it took.", examples=[58.8])
    marks: list[str] = Field(
        description="What it is about, in normal form.",
        examples=[[f"emaid:{_EMAID}", "session:7ac30ea7926f5b37"]],
    )
    cause: str | None = Field(description="The event of the call under which it happened.")


# ------------------------------------------------------------------------ what is asked for


async def _wanted(
    request: Request,
    run: Annotated[str | None, Query(description="What the Pnclab-Run header said.")] = None,
    kind: Annotated[
        str | None, Query(description=f"One of {', '.join(EVENT_KINDS)}.", examples=["cable"])
    ] = None,
    name: Annotated[
        str | None, Query(description="A message, a path, a role.", examples=["AuthorizationReq"])
    ] = None,
    outcome: Annotated[str | None, Query(description=f"One of {', '.join(OUTCOMES)}.")] = None,
    sender: Annotated[str | None, Query(examples=["garage"])] = None,
    receiver: Annotated[str | None, Query(examples=["charger-1"])] = None,
    mark_: Annotated[
        list[str] | None,
        Query(
            alias="mark",
            description=f"KIND:VALUE, all of them; kinds: {', '.join(MARK_KINDS)}.",
            examples=[[f"emaid:{_EMAID}"]],
        ),
    ] = None,
    certificate: Annotated[
        str | None,
        Query(description="SHA-256 of a certificate's DER, hex.", examples=[_FINGERPRINT]),
    ] = None,
    emaid: Annotated[str | None, Query(examples=[_EMAID])] = None,
    pcid: Annotated[str | None, Query(examples=["WNVV3E7SZX8ZNMJWAY"])] = None,
    session: Annotated[str | None, Query(examples=["7AC30EA7926F5B37"])] = None,
    since: Annotated[
        str | None, Query(description="From this instant of ecosystem time on (ISO 8601).")
    ] = None,
    until: Annotated[str | None, Query(description="Before this instant.")] = None,
    real_since: Annotated[
        str | None, Query(description="From this instant of the machine's time on.")
    ] = None,
    real_until: Annotated[str | None, Query(description="Before this instant.")] = None,
) -> Wanted:
    """The filters of a request. Refusal 422 names the one that makes no sense."""
    _no_others(request)
    texts = {"run": run, "name": name, "sender": sender, "receiver": receiver}
    for field, text in texts.items():
        if text is not None and not (0 < len(text) <= 128 and text.isprintable()):
            raise _wrong(field, "1 to 128 printable characters are wanted")
    for field, value, known in (("kind", kind, EVENT_KINDS), ("outcome", outcome, OUTCOMES)):
        if value is not None and value not in known:
            raise _wrong(field, f"{value[:32]!r} is none of {', '.join(known)}")
    shorthands = {"certificate": certificate, "emaid": emaid, "pcid": pcid, "session": session}
    if len(mark_ or ()) > 16:
        raise _wrong("mark", "at most 16 marks at a time")
    marks = [_mark("mark", parse_mark, text) for text in mark_ or ()]
    marks += [
        _mark(kind_, mark, kind_, text) for kind_, text in shorthands.items() if text is not None
    ]
    return Wanted(
        kind=kind,
        outcome=outcome,
        marks=tuple(dict.fromkeys(marks)),
        since=_instant("since", since),
        until=_instant("until", until),
        real_since=_seconds("real_since", real_since),
        real_until=_seconds("real_until", real_until),
        **texts,
    )


def _no_others(request: Request) -> None:
    # A filter that is misspelt would find everything.
    known = {parameter.alias for parameter in request.scope["route"].dependant.query_params}
    for dependant in request.scope["route"].dependant.dependencies:
        known |= {parameter.alias for parameter in dependant.query_params}
    for field in request.query_params:
        if field not in known:
            raise _wrong(
                field[:32], f"there is no such filter; there are {', '.join(sorted(known))}"
            )


def _wrong(field: str, reason: str) -> Refusal:
    return Refusal(422, "wrong_filter", f"{field}: {reason}")


def _mark(field: str, make: Callable[..., str], *arguments: str) -> str:
    try:
        return make(*arguments)
    except MarkError as error:
        raise _wrong(field, str(error)) from None


def _instant(field: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    # The "+" of a zone reads as a blank where nobody wrote it as %2B.
    text = re.sub(r"(?<=T)(.*) (?=\d\d:?\d\d$)", r"\1+", text)
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise _wrong(field, f"{text[:64]!r} is not an instant such as 2027-01-31T12:00Z") from None


def _seconds(field: str, text: str | None) -> float | None:
    found = _instant(field, text)
    return None if found is None else found.timestamp()


def _party(request: Request, caller: auth.Caller) -> Party:
    party: Party = request.app.state.party
    if not caller.is_admin and caller.client != party.config.name:
        raise Refusal(
            403,
            "not_yours",
            f"the events of {party.config.name} are for itself and admins; this is client "
            f"{caller.client}",
        )
    return party


@contextlib.contextmanager
def _known(field: str) -> Iterator[None]:
    try:
        yield
    except UnknownEvent:
        raise _wrong(field, "no event of this identifier is kept here") from None


# --------------------------------------------------------------------------------- the doors


@router.get(
    "/events",
    response_model=None,
    responses={200: {"model": list[EventBody]}, **_REFUSED},
)
async def events(
    request: Request,
    caller: auth.AnyCaller,
    wanted: Annotated[Wanted, Depends(_wanted)],
    after: Annotated[
        str, Query(max_length=40, description="The last event that was already seen.")
    ] = "",
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 500,
    newest_first: Annotated[bool, Query(description="The newest, going back.")] = False,
) -> JSONResponse:
    """This party's part of the event stream, in the order in which it was written. It holds
    what others sent in, so it is for this party's own client and for admins.

    All filters must hold. To read on, give the last identifier of a page as ``after``; with
    ``newest_first`` that goes back in time. To miss nothing while more is being written,
    follow ``/events/stream``.
    """
    party = _party(request, caller)

    def query(session: Session) -> list[Event]:
        place = party.database.log.place_of(session, after) if after else START
        return party.database.log.select(
            session, wanted, after=place, limit=limit, newest_first=newest_first
        )

    with _known("after"):
        found = await party.database.read(query)
    return JSONResponse([event.as_dict() for event in found])


@router.get(
    "/events/stream",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: the event's identifier, its kind, itself as JSON.",
            "content": {
                "text/event-stream": {
                    "example": 'id: 0644a1b2c3d4e500000a3f9c1e\nevent: cable\ndata: {"id": ...}\n\n'
                }
            },
        },
        429: {"model": REFUSALS[409]["model"], "description": "Too many streams at a time."},
        **_REFUSED,
    },
)
async def stream(
    request: Request,
    caller: auth.AnyCaller,
    wanted: Annotated[Wanted, Depends(_wanted)],
    last: Annotated[
        int, Query(ge=0, le=MAX_PAGE, description="Begin with that many that happened already.")
    ] = 0,
    after: Annotated[
        str, Query(max_length=40, description="Begin behind this event; goes before `last`.")
    ] = "",
    seconds: Annotated[
        float | None, Query(gt=0, le=86400, description="End after this time.")
    ] = None,
    last_event_id: Annotated[
        str, Header(max_length=40, description="Where a stream that broke goes on.")
    ] = "",
) -> StreamingResponse:
    """What happens from now on, as it happens, as server-sent events; the same filters.

    A stream that broke goes on where it was: browsers send the last identifier as
    ``Last-Event-ID``. While nothing happens, a comment comes every fifteen seconds. It ends
    when the party stops.
    """
    party = _party(request, caller)
    database = party.database

    def begin(session: Session) -> tuple[Place, list[Event]]:
        if seen := last_event_id or after:
            return database.log.place_of(session, seen), []
        here = database.log.settled(session)
        if not last or here == START:
            return here, []
        newest = database.log.select(session, wanted, until=here, limit=last, newest_first=True)
        return here, newest[::-1]

    with _known("Last-Event-ID" if last_event_id else "after"):
        place, first = await database.read(begin)
    if party.streams.locked():
        raise Refusal(
            429, "too_many_streams", f"{party.config.name} has as many streams open as it may"
        )
    until = None if seconds is None else time.monotonic() + seconds
    return StreamingResponse(
        _told(party, wanted, place, first, until),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _told(
    party: Party, wanted: Wanted, place: Place, first: list[Event], until: float | None
) -> AsyncIterator[str]:
    """The lines of a stream that begins with ``first`` and goes on behind ``place``."""
    events_log = party.database.log

    def next_portion(session: Session) -> tuple[Place, list[Event]]:
        here = events_log.settled(session)
        if here <= place:
            return place, []
        found = events_log.select(session, wanted, after=place, until=here, limit=PORTION)
        if len(found) < PORTION:
            return here, found
        return events_log.place_of(session, found[-1].id), found

    async with party.streams:
        yield f": the events of {party.config.name}\n\n"
        for event in first:
            yield _lines(event)
        # Without data it is no event, but where to go on: also what was passed over is behind.
        yield f"id: {place.id}\n\n"
        found: list[Event] = []
        spoke = time.monotonic()
        try:
            while True:
                for event in found:
                    yield _lines(event)
                    spoke = time.monotonic()
                if time.monotonic() - spoke > KEEP_ALIVE:
                    yield f": nothing happened\nid: {place.id}\n\n"
                    spoke = time.monotonic()
                if len(found) < PORTION and await _over(party, until):
                    return
                place, found = await party.database.read(next_portion)
        except Refusal as refusal:
            # The answer has begun, so that nothing else can be said; whoever follows comes back.
            log.warning("%s: a stream ended: %s", party.config.name, refusal.message)


async def _over(party: Party, until: float | None) -> bool:
    """Wait until it is time to look again; whether it is time to end."""
    left = LOOK_EVERY if until is None else min(LOOK_EVERY, until - time.monotonic())
    if left <= 0:
        return True
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(party.stopping.wait(), left)
    return party.stopping.is_set()


def _lines(event: Event) -> str:
    return f"id: {event.id}\nevent: {event.kind}\ndata: {json.dumps(event.as_dict())}\n\n"
