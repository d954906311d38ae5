"""OCSP over HTTP (RFC 6960 appendix A, RFC 5019): POST and GET, for anybody.

What is said is the :class:`~services.ca.responder.Responder`'s; here it gets its headers. An
answer that does not depend on a nonce may be kept by others for :data:`MAX_AGE` seconds, since a
revocation should show; its ``Last-Modified``, ``Expires`` and ``ETag`` are those of RFC 5019.

Requests come by the thousand, and a framework costs five times what an answer does. So they are
answered before it (:class:`FastPath`) wherever there is nothing else to do: no fault to look out
for, and nothing to write down. Requests from outside the ecosystem are events, but for those
beyond :data:`TOLD` a second, which one event counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping
from email.utils import format_datetime, parsedate_to_datetime
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pki.revocation import ocsp_error_response
from services.ca.responder import OCSP_REQUEST, Responder, Said
from services.common.app import MAX_BODY
from services.common.events import HOP_HEADER, RUN_HEADER, Event, unit_of_work
from services.common.party import Party

log = logging.getLogger("pnclab")

router = APIRouter(tags=["certificate authority"])

OCSP_ANSWER = "application/ocsp-response"
DIAGNOSIS = "pnclab-diagnosis"
# Seconds for which others may keep an answer.
MAX_AGE = 60
# Requests from outside that are events of their own, in a second.
TOLD = 10
_DOCUMENTED: dict[int | str, dict[str, Any]] = {
    200: {"content": {OCSP_ANSWER: {}}, "description": "A DER OCSPResponse, errors included."}
}
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "The answer that the caller has is still the one."}
}

_ANSWER = OCSP_ANSWER.encode()
_KIND = OCSP_REQUEST.encode()
_HOP, _RUN = HOP_HEADER.lower().encode(), RUN_HEADER.lower().encode()

Headers = list[tuple[bytes, bytes]]
Answer = tuple[int, Headers, bytes]


@router.post(
    "/ocsp",
    responses=_DOCUMENTED,
    response_class=Response,
    openapi_extra={"requestBody": {"content": {OCSP_REQUEST: {}}, "required": True}},
)
async def by_post(request: Request) -> Response:
    """The status of certificates: a DER OCSPRequest in, a DER OCSPResponse out. What is no
    request gets ``malformedRequest``, and the header ``pnclab-diagnosis`` says why."""
    return await _response(request, await request.body())


@router.get(
    "/ocsp/{encoded:path}", responses={**_DOCUMENTED, **_NOT_MODIFIED}, response_class=Response
)
async def by_get(request: Request, encoded: str) -> Response:
    """The same by GET: the request as base64 in the path (RFC 6960 appendix A.1)."""
    return await _response(request, b"")


async def _response(request: Request, body: bytes) -> Response:
    headers = {name.lower(): value for name, value in request.scope["headers"]}
    path: str = request.scope["path"]
    status, found, content = await answered(
        request.app.state.service.responder, request.method, path, headers, body
    )
    response = Response(content, status)
    response.raw_headers = found
    return response


async def answered(
    responder: Responder, method: str, path: str, headers: Mapping[bytes, bytes], body: bytes
) -> Answer:
    """The answer to a request at ``/ocsp``: status, headers, body."""
    in_hex, wrong = False, ""
    if method == "POST":
        kind = headers.get(b"content-type", b"").decode("latin-1")
        asked, wrong, in_hex = responder.read_post(kind, body)
    else:
        asked, wrong = responder.read_get(unquote(path[len("/ocsp/") :]))
    if wrong:
        said = Said(ocsp_error_response("malformedRequest"), wrong)
    else:
        said = await responder.answer(asked)
    if in_hex:
        content = said.encoded.hex().encode()
        return 200, _headers(said, content, b"text/plain; charset=us-ascii"), content
    content = said.encoded
    found = _headers(said, content, _ANSWER)
    if method == "POST":
        return 200, found, content
    if said.this_update is None:
        return 200, [*found, (b"cache-control", b"no-store")], content
    return conditional(headers, found, content, said)


def conditional(
    headers: Mapping[bytes, bytes], found: Headers, content: bytes, said: Any
) -> Answer:
    """``content`` with what caches want to know, or 304 where the caller has it already.

    ``said`` has ``this_update`` and ``next_update``.
    """
    tag = b'"%s"' % hashlib.sha256(content).hexdigest()[:32].encode()
    since = said.this_update
    caching = [
        (b"etag", tag),
        (b"last-modified", format_datetime(since, usegmt=True).encode()),
        (b"expires", format_datetime(said.next_update, usegmt=True).encode()),
        (b"cache-control", b"max-age=%d, public, no-transform, must-revalidate" % MAX_AGE),
    ]
    matches = headers.get(b"if-none-match")
    if matches is not None:
        # Compared weakly (RFC 9110, 13.1.2): what compresses on the way marks tags so.
        tags = {one.strip().removeprefix(b"W/") for one in matches.split(b",")}
        same = matches.strip() == b"*" or tag in tags
    else:
        same = _not_before(headers.get(b"if-modified-since", b""), since)
    if same:
        return 304, caching, b""
    return 200, [*found, *caching], content


def _not_before(text: bytes, since: Any) -> bool:
    try:
        return bool(parsedate_to_datetime(text.decode("latin-1")) >= since)
    except (ValueError, TypeError):  # none, no date, or one without a zone
        return False


def _headers(said: Said, content: bytes, kind: bytes) -> Headers:
    found = [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    if said.diagnosis:
        found.append((DIAGNOSIS.encode(), _printable(said.diagnosis)))
    return found


def _printable(text: str) -> bytes:
    clean = "".join(one if " " <= one <= "~" else "?" for one in text)
    return clean[:400].encode()


def _is_answered(scope: Scope) -> bool:
    method, path = str(scope["method"]), str(scope["path"])
    return path == "/ocsp" if method == "POST" else method == "GET" and path.startswith("/ocsp/")


class FastPath:
    """Answers OCSP requests before the framework does; an ASGI application around a party's."""

    def __init__(self, app: ASGIApp, responder: Responder) -> None:
        self.app = app
        self.responder = responder
        self.party: Party = responder.party
        self._second, self._told, self._more = 0, 0, 0
        # When the count of a burst is told; nothing that a stopping party would wait for.
        self._due: asyncio.TimerHandle | None = None
        self._telling: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/ocsp"):
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not _is_answered(scope) or (
            (_HOP not in headers and self._is_told())
            or (self.party.faults.enabled and await self._is_faulty())
        ):
            await self.app(scope, receive, send)
            return
        body = b""
        if scope["method"] == "POST":
            message = await receive()
            body = message.get("body", b"")
            while message.get("more_body", False) and len(body) <= MAX_BODY:
                message = await receive()
                body += message.get("body", b"")
            if message["type"] == "http.disconnect":
                return
        # What was said before and holds brings nothing about; whatever else may (a signer is
        # renewed) is told like any other work.
        said = self.responder.said_before(body) if headers.get(b"content-type") == _KIND else None
        if said is not None:
            status, found, content = 200, _headers(said, said.encoded, _ANSWER), said.encoded
        else:
            run = headers.get(_RUN)
            with unit_of_work(run.decode("latin-1")[:64] if run else None):
                status, found, content = await answered(
                    self.responder, scope["method"], scope["path"], headers, body
                )
        await send({"type": "http.response.start", "status": status, "headers": found})
        await send({"type": "http.response.body", "body": content})

    async def _is_faulty(self) -> bool:
        faults = self.party.faults
        for point in ("request", "answer", "ocsp"):
            if await faults.due(point):
                return True
        return False

    def _is_told(self) -> bool:
        """Whether a request from outside is an event of its own; others are counted."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._told = second, 0
        self._told += 1
        if self._told <= TOLD:
            return True
        self._more += 1
        if self._due is None:
            self._due = asyncio.get_running_loop().call_later(1.0, self._begin_to_tell)
        return False

    def _begin_to_tell(self) -> None:
        self._due = None
        if not self.party.stopping.is_set():
            self._telling = asyncio.create_task(self._tell())

    async def _tell(self) -> None:
        count, self._more = self._more, 0
        try:
            with unit_of_work():
                self.party.recorder.record(
                    Event(
                        kind="http",
                        name="OCSP",
                        sender="outside",
                        receiver=self.party.config.name,
                        summary=f"{count} OCSP requests more than are told one by one",
                        data={"count": count},
                    )
                )
                await self.party.database.flush()
        except Exception as error:  # nobody waits for it
            log.error("%s: events were not written: %s", self.party.config.name, error)
