"""The faults that any party has: what becomes of a request, and of its answer.

The :class:`~.app.Envelope` asks twice: before the work (``request``: error, hang, drop), and
when the answer is ready and not sent yet (``answer``: delay, garbage, oversize, lose-answer).
What a request is about is read from its path, its body and its token.

Never hit: the doors by which a party is watched and steered (:data:`STEERING`), so that a
fault can always be cleared. The token endpoint is hit only by a fault that names its path.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import unquote

from cryptography import x509
from starlette.types import Message, Receive, Scope

from pki.names import common_name
from v2g import exi
from v2g.certificate_installation import WrongMessage, read_request
from v2g.certificate_update import read_update_request

from .errors import Refusal
from .faults import About, Fault

if TYPE_CHECKING:
    from .party import Party

STEERING = (
    "/faults",
    "/fault-kinds",
    "/healthz",
    "/events",
    "/clock",
    "/reset",
    "/docs",
    "/openapi.json",
)
TOKEN_PATH = "/oauth/token"  # noqa: S105

_JSON = b"application/json"
# Kinds that are about one call: its method and the last part of its path.
_ONLY_AT: Mapping[str, Sequence[str]] = {
    "contract-not-found": ("POST signedcontractdata",),
    "root-list-broken": ("GET roots", "GET rootcerts", "GET rootcertificates"),
}
NOT_FOUND = {
    "errorMessages": ["Contract or Vehicle not found."],
    "traceId": "00000000-0000-4000-8000-000000000404",
}
GARBAGE = b"<\x00garbage, as this party was told\xff>"


class Exchange:
    """One request and its answer on their way through the faults."""

    def __init__(self, party: Party, scope: Scope, body: bytes, receive: Receive) -> None:
        self.party = party
        self.path: str = scope["path"]
        self._call = f"{scope['method']} {self.path.rstrip('/').rpartition('/')[2].lower()}"
        self._scope = scope
        self._body = body
        self._receive = receive
        self._about: Mapping[str, About] | None = None

    async def instead(self) -> list[Message] | None:
        """What happens instead of the work: an answer, or none at all (empty); None: the work."""
        try:
            return await self._instead()
        except Refusal as refusal:  # the database, when it should count a hit
            return _answer(refusal.status, json.dumps(refusal.as_dict()).encode(), _JSON)

    async def spoilt(self, answer: list[Message]) -> list[Message]:
        """The answer as it leaves; empty where none does. A streamed one is gone already."""
        try:
            return await self._spoilt(answer) if answer else answer
        except Refusal:  # the database, when it should count a hit: the answer stands
            return answer

    async def _instead(self) -> list[Message] | None:
        fault = await self._at("request")
        if fault is None:
            return None
        if fault.kind == "drop":
            return await self._hang_up()
        if fault.kind == "hang":
            return [] if await self._gone_within(fault["seconds"]) else None
        if fault.kind == "contract-not-found":
            return _answer(404, json.dumps(NOT_FOUND).encode(), _JSON)
        text = fault["body"]
        return _answer(fault["status"], text.encode(), _media_type(text))

    async def _spoilt(self, answer: list[Message]) -> list[Message]:
        delay = await self._at("answer", "delay")
        if delay is not None and await self._gone_within(delay["seconds"]):
            return []
        fault = await self._at("answer", "garbage", "oversize", "lose-answer", "root-list-broken")
        if fault is None:
            return answer
        if fault.kind == "garbage":
            return _answer(200, GARBAGE, _type_of(answer))
        if fault.kind == "root-list-broken":
            content = b"".join(message.get("body", b"") for message in answer[1:])
            broken = with_broken_root(content, fault["entry"], fault["how"])
            return _answer(answer[0]["status"], broken, _type_of(answer))
        if fault.kind == "oversize":
            content = b"".join(message.get("body", b"") for message in answer[1:])
            return _answer(
                answer[0]["status"], content.ljust(fault["bytes"], b" "), _type_of(answer)
            )
        if fault["status"] < 200:
            return await self._hang_up()
        return _answer(
            fault["status"],
            b'{"code": "answer_lost", "message": "the work was done, its answer was lost"}',
            _JSON,
        )

    async def _at(self, point: str, *kinds: str) -> Fault | None:
        faults = self.party.faults
        if not faults.enabled or _begins(self.path, STEERING) or not await faults.due(point):
            return None
        if self._about is None:
            self._about = about(self.party, self._scope, self._body)

        def can_act(fault: Fault) -> bool:
            named = self.path != TOKEN_PATH or "path" in fault.target
            here = self._call in _ONLY_AT.get(fault.kind, (self._call,))
            return named and here and (not kinds or fault.kind in kinds)

        return await faults.at(point, when=can_act, **self._about)

    async def _gone_within(self, seconds: float) -> bool:
        """Wait; whether the caller hung up meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            return False
        return True

    async def _hang_up(self) -> list[Message]:
        """Close the connection without an answer.

        ASGI has no word for this: the connection is that of uvicorn's request, whose method
        ``receive`` is. Under another server the caller gets an empty 502 instead.
        """
        transport = getattr(getattr(self._receive, "__self__", None), "transport", None)
        if transport is None:
            return _answer(502, b"", b"text/plain")
        transport.close()
        await self._gone_within(5.0)
        return []


def about(party: Party, scope: Scope, body: bytes) -> dict[str, About]:
    """What a request is about, as far as one can see from outside, by the names of targets."""
    segments = [unquote(part) for part in scope["path"].split("/") if part]
    found = _fields(body)
    chargers = {one.options["evse_id"]: one.name for one in party.ecosystem.of_kind("charger")}
    caller = _caller(party, scope)
    return {
        "path": f"{scope['method']} {scope['path']}",
        "caller": caller,
        "pcid": [*segments, *found.get("pcid", ()), *_car(found)],
        "emaid": [*segments, *found.get("emaid", ()), *_contract(found)],
        "charger": [
            *segments,
            *found.get("charger", ()),
            *(chargers[one] for one in found.get("evse_id", ()) if one in chargers),
            *([caller] if caller else []),
        ],
    }


def _fields(body: bytes) -> dict[str, list[str]]:
    """The texts of a JSON object by their names; empty for any other body."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {key: [text] for key, text in value.items() if isinstance(text, str)}


def _car(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Whose CertificateInstallationReq a body carries: the CN of the provisioning certificate."""
    for text in found.get("certificate_installation_req", ()):
        try:
            request = read_request(base64.b64decode(text))
            certificate = x509.load_der_x509_certificate(request.provisioning_certificate)
            return [common_name(certificate.subject)]
        except (ValueError, exi.EXIError, WrongMessage):
            return []
    return []


def _contract(found: Mapping[str, Sequence[str]]) -> list[str]:
    """Of which contract a CertificateUpdateReq in a body is."""
    for text in found.get("certificate_update_req", ()):
        try:
            return [read_update_request(base64.b64decode(text)).emaid]
        except (ValueError, exi.EXIError, WrongMessage):
            return []
    return []


def with_broken_root(content: bytes, entry: str, how: str) -> bytes:
    """A list of roots (JSON) in which one certificate cannot be read."""
    document = json.loads(content)
    found = _certificates(document)
    if found:
        holder, key = found[0 if entry == "first" else -1]
        good = holder[key]
        holder[key] = {"cut-off": good[: len(good) // 8 * 4], "not-base64": f"*{good}*"}.get(
            how, ""
        )
    return json.dumps(document).encode()


def _certificates(value: object) -> list[tuple[dict[str, str], str]]:
    """Where certificates stand in JSON, whatever the door calls them."""
    if isinstance(value, list):
        return [found for one in value for found in _certificates(one)]
    if not isinstance(value, dict):
        return []
    named = [key for key in value if key.lower() in ("certificate", "cacertificate")]
    here = [(value, key) for key in named if isinstance(value[key], str)]
    return here + [found for one in value.values() for found in _certificates(one)]


def _caller(party: Party, scope: Scope) -> str | None:
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    scheme, _, token = headers.get(b"authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    try:
        return party.tokens.check(token.strip()).client
    except Refusal:
        return None


def _begins(path: str, prefixes: Sequence[str]) -> bool:
    return any(path == prefix or path.startswith(prefix + "/") for prefix in prefixes)


def _answer(status: int, content: bytes, media_type: bytes) -> list[Message]:
    headers = [(b"content-type", media_type), (b"content-length", str(len(content)).encode())]
    if status == 204:
        headers, content = [], b""
    return [
        {"type": "http.response.start", "status": status, "headers": headers},
        {"type": "http.response.body", "body": content, "more_body": False},
    ]


def _type_of(answer: Sequence[Message]) -> bytes:
    headers: dict[bytes, bytes] = {
        name.lower(): value for name, value in answer[0].get("headers", ())
    }
    return headers.get(b"content-type", _JSON)


def _media_type(text: str) -> bytes:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return b"text/plain; charset=utf-8"
    return _JSON
