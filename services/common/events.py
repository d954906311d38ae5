"""The event stream: what happened, told once, by whoever saw it.

Each hop (an HTTP call, a message pair on the cable), each certificate issued,
each verdict and each posting is one :class:`Event`. Events are collected in the
*unit of work* under way (a request, a cable session) and written in the same
transaction as the change that they tell about; :class:`~.database.Database`
does that. The caller writes a hop down, as it alone also knows when nobody
answers; the callee does so for callers that are not of this ecosystem (they
send no ``Pnclab-Hop`` header). That header is the identifier that the caller's event
will have, and the events of the work that a call set off carry it as their ``cause``: so
what happened in many processes comes together as one story.

Secrets do not reach an event: :func:`redacted` runs where an event is made, by the names
of fields and by the look of values.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from .clock import real_time
from .marks import MAX_MARKS, chain_marks, marks_of

RUN_HEADER = "Pnclab-Run"
HOP_HEADER = "Pnclab-Hop"

# Bytes beyond this are not kept; `cost` says how many there were.
MAX_PAYLOAD = 65_536
MAX_DEPTH = 32

# The kinds of events, and what each tells.
EVENT_KINDS: Mapping[str, str] = {
    "http": "a call over HTTP and its answer",
    "cable": "a message on the cable and its answer",
    "issued": "a certificate was issued",
    "revoked": "a certificate was revoked",
    "verdict": "something was checked, and accepted or refused",
    "state": "something has another state now",
    "ledger": "a posting, an invoice, a settlement",
    "step": "a step of a scenario",
    "fault": "a fault was set, cleared or did its work",
}
OUTCOMES = ("ok", "refused", "failed")

REDACTED = "(redacted)"
# Names of fields whose values are secrets, in lower case without "_", "-" and blanks.
# What is called encrypted_private_key is meant to travel.
SECRET_NAMES = frozenset(
    {
        "accesstoken",
        "apikey",
        "authorization",
        "clientsecret",
        "cookie",
        "passphrase",
        "passwd",
        "password",
        "privatekey",
        "proxyauthorization",
        "refreshtoken",
        "secret",
        "setcookie",
        "token",
        "xapikey",
    }
)
_SECRET_ENDINGS = ("secret", "password", "passphrase", "accesstoken", "refreshtoken")
# The private members of a JSON Web Key (RFC 7518 section 6).
_JWK_SECRETS = frozenset({"d", "p", "q", "dp", "dq", "qi", "k", "oth"})

# A text without one of these, in lower case, holds no secret that can be seen. They are looked
# for one by one: that takes a tenth of the time of one expression.
_HINTS = (
    *("eyj", "bearer", "private key", "authorization"),
    *("secret", "token", "passw", "passph", "api_key"),
)
_SECRET_TEXTS: tuple[tuple[re.Pattern[str], str], ...] = (
    # An encrypted private key says so in its first line.
    (
        re.compile(
            r"-----BEGIN (?!ENCRYPTED)[A-Z0-9 ]*PRIVATE KEY-----"
            r"(?:.*?-----END [A-Z0-9 ]*PRIVATE KEY-----\s*|.*)",
            re.DOTALL,
        ),
        REDACTED,
    ),
    (re.compile(r"(?<![\w-])eyJ[\w-]{6,}\.[\w-]{2,}(?:\.[\w-]*)*"), REDACTED),
    (re.compile(r"(?i)\b(bearer\s+)(?=\S*[\d.=_-])[\w.~+/=-]{8,}"), rf"\1{REDACTED}"),
    (re.compile(r"(?i)\b(authorization:\s*)\S+(?:[ \t]+\S+)?"), rf"\1{REDACTED}"),
    (
        re.compile(
            r"(?i)((?:client_secret|access_token|refresh_token|api_key|passw(?:or)?d|passphrase"
            r"|private_key|\bsecret|\btoken)[\"']?\s*(?:=|:|%3D)\s*[\"']?)[^\s&\"',;}]+"
        ),
        rf"\1{REDACTED}",
    ),
)
# DER in base64 begins with an M, as its first byte is that of a SEQUENCE.
_BASE64_DER = re.compile(r"(?<![A-Za-z0-9+/_-])M[A-Za-z0-9+/_-]{40}[A-Za-z0-9+/_\s-]*={0,2}")


@dataclass
class Cost:
    """What a unit of work cost in cryptography."""

    signatures: int = 0
    verifications: int = 0
    agreements: int = 0

    def as_dict(self) -> dict[str, int]:
        return {name: count for name, count in asdict(self).items() if count}


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    ``kind`` is one of :data:`EVENT_KINDS`; ``name`` the protocol's own word (a message,
    a path); ``outcome`` is ``ok``, ``refused`` or ``failed``; ``at`` is ecosystem
    time, ``real`` seconds since the epoch by the machine's clock. ``marks`` say what it is
    about (:mod:`.marks`); ``cause`` is the event of the call under which it happened.
    """

    kind: str
    name: str
    sender: str
    receiver: str
    summary: str = ""
    outcome: str = "ok"
    data: Mapping[str, Any] = field(default_factory=dict)
    request: bytes | None = None
    response: bytes | None = None
    cost: Mapping[str, int] = field(default_factory=dict)
    milliseconds: float | None = None
    id: str = ""
    party: str = ""
    run: str | None = None
    at: datetime | None = None
    real: float = 0.0
    marks: tuple[str, ...] = ()
    cause: str | None = None

    @property
    def began(self) -> float:
        """When what it tells began, seconds by the machine's clock."""
        return self.real - (self.milliseconds or 0.0) / 1000

    @property
    def began_at(self) -> datetime | None:
        """When what it tells began, ecosystem time; ``at`` is when it was over."""
        return self.at and self.at - timedelta(milliseconds=self.milliseconds or 0.0)

    def as_dict(self) -> dict[str, Any]:
        """JSON: bytes as base64, instants as ISO 8601."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["at"] = self.at.isoformat() if self.at else None
        for name in ("request", "response"):
            raw = values[name]
            values[name] = base64.b64encode(raw).decode() if raw is not None else None
        values["data"] = dict(self.data)
        values["cost"] = dict(self.cost)
        values["marks"] = list(self.marks)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Event:
        """The inverse of :meth:`as_dict`."""
        known = {name: values[name] for name in cls.__dataclass_fields__ if name in values}
        if known.get("at"):
            known["at"] = datetime.fromisoformat(known["at"])
        for name in ("request", "response"):
            if known.get(name) is not None:
                known[name] = base64.b64decode(known[name])
        known["marks"] = tuple(known.get("marks") or ())
        return cls(**known)


_counter = itertools.count()
_process = os.urandom(3).hex()


def _another_process() -> None:
    global _process
    _process = os.urandom(3).hex()


# Workers are forked from one process; their identifiers must not meet.
os.register_at_fork(after_in_child=_another_process)


def new_id(real: float | None = None) -> str:
    """An identifier that sorts by time within a process and is unique over processes."""
    micros = int((real_time() if real is None else real) * 1e6)
    return f"{micros:014x}{next(_counter) & 0xFFFFFF:06x}{_process}"


def redacted(value: Any, _depth: int = 0) -> Any:
    """``value`` (JSON) with everything that is named like a secret, or looks like one, blanked
    out.

    What comes out can be written as JSON everywhere, whatever somebody sent: numbers that
    JSON does not have become text, lone surrogates and NUL are escaped, depth is bounded.
    """
    if isinstance(value, str):
        return _without_secrets(value)
    if isinstance(value, bytes):
        return REDACTED.encode() if _secret_bytes(value) else value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping | list | tuple) and _depth == MAX_DEPTH:
        return "(deeper than an event tells)"
    if isinstance(value, Mapping):
        jwk = "kty" in value
        return {
            redacted(key): REDACTED
            if inner and (_secret_name(key[-64:]) or (jwk and key in _JWK_SECRETS))
            else redacted(inner, _depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(inner, _depth + 1) for inner in value]
    return value


@lru_cache(maxsize=2048)
def _secret_name(name: str) -> bool:
    plain = re.sub("[-_ ]", "", name.lower())
    return plain in SECRET_NAMES or plain.endswith(_SECRET_ENDINGS)


def _writable(text: str) -> str:
    if not text.isascii() or "\0" in text:
        return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    return text


def _without_secrets(text: str) -> str:
    text = _writable(text)
    if len(text) < 8:
        return text
    lower = text.lower()
    for hint in _HINTS:
        if hint in lower:
            for pattern, replacement in _SECRET_TEXTS:
                text = pattern.sub(replacement, text)
            break
    return _BASE64_DER.sub(_without_key, text) if len(text) > 40 and "M" in text else text


def _without_key(found: re.Match[str]) -> str:
    head = "".join(found[0][:64].split()).replace("-", "+").replace("_", "/")
    der = base64.b64decode(head[: len(head) // 4 * 4])
    return REDACTED if _is_private_key(der) else found[0]


def _is_private_key(der: bytes) -> bool:
    """Whether this begins like PrivateKeyInfo (RFC 5208), ECPrivateKey (RFC 5915), RSAPrivateKey
    (RFC 8017) or PFX (RFC 7292): a SEQUENCE that begins with a small INTEGER, the version.

    Certificates, requests, OCSP, CRLs and encrypted private keys begin with a SEQUENCE or OID.
    """
    if len(der) < 16 or der[0] != 0x30:
        return False
    start = 2 + (der[1] & 0x7F if der[1] & 0x80 else 0)
    inner = der[start : start + 4]
    return inner[:2] == b"\x02\x01" and inner[2:3] in b"\0\1\3" and inner[3:] in b"\x30\x04\x02"


def _secret_bytes(raw: bytes) -> bool:
    if _is_private_key(raw[:32]):
        return True
    text = raw.decode("latin-1")
    return _without_secrets(text) != _writable(text)


def readable(content: bytes | None) -> tuple[Any, bytes | None]:
    """A body as an event tells it: (JSON, None) where it is JSON, so that it can be redacted,
    else (None, bytes). JSON that is too long to keep is not cut: nobody could redact it."""
    if not content:
        return None, None
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return None, content
    if len(content) > MAX_PAYLOAD:
        return f"({len(content)} bytes of JSON, more than an event keeps)", None
    return value, None


@dataclass
class Unit:
    """A unit of work: its run and cause, its events that are not yet written, its cost."""

    run: str | None = None
    cause: str | None = None
    # Marks that every event from now on carries: what the work is about.
    about: tuple[str, ...] = ()
    events: list[Event] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    # The fault that this work met ({id, kind}): its events say so from then on.
    fault: Mapping[str, str] | None = None

    def take(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken


_unit: ContextVar[Unit | None] = ContextVar("pnclab_unit", default=None)


def current_unit() -> Unit:
    """The unit of work under way; one that nobody writes, where there is none."""
    return _unit.get() or Unit()


@contextmanager
def unit_of_work(run: str | None = None, cause: str | None = None) -> Iterator[Unit]:
    """Collect events and cost under ``run`` until the block ends; ``cause`` is the event of the
    call that set the work off.

    Whoever opens a unit flushes it (:meth:`~.database.Database.flush`).
    """
    unit = Unit(run, cause)
    token = _unit.set(unit)
    try:
        yield unit
    finally:
        _unit.reset(token)


def cost() -> Cost:
    """The counters of the unit of work under way."""
    return current_unit().cost


class Recorder:
    """A party's pen: completes events and puts them into the unit of work."""

    def __init__(self, party: str, clock: Any) -> None:
        self.party = party
        self._clock = clock

    def record(self, event: Event) -> Event:
        """Stamp ``event`` and queue it for the next transaction of this unit of work.

        For what has happened already (a hop, a verdict). What a write brings about is told
        by the write itself: :meth:`stamped`, then :meth:`~.database.Database.tell`.
        """
        done = self.stamped(event)
        current_unit().events.append(done)
        return done

    def stamped(self, event: Event) -> Event:
        """``event`` with its identifier, times, run and marks, without its secrets; not yet
        queued."""
        unit = current_unit()
        if unit.fault is not None and "fault" not in event.data:
            event = replace(event, data={**event.data, "fault": unit.fault})
        real = real_time()
        data = redacted(event.data)
        marks = (*event.marks, *unit.about, *marks_of(data))
        if event.response is not None and event.kind in ("issued", "verdict"):
            marks += chain_marks(event.response)
        return replace(
            event,
            id=event.id or new_id(real),
            party=self.party,
            run=event.run or unit.run,
            cause=event.cause or unit.cause,
            at=self._clock.now(),
            real=real,
            name=redacted(event.name)[:128],
            sender=redacted(event.sender)[:64],
            receiver=redacted(event.receiver)[:64],
            summary=redacted(event.summary)[:1024],
            data=data,
            request=_payload(event.request),
            response=_payload(event.response),
            marks=tuple(dict.fromkeys(marks))[:MAX_MARKS],
        )


def _payload(raw: bytes | None) -> bytes | None:
    # Before it is cut: a key that is cut is one still.
    return None if raw is None else redacted(raw)[:MAX_PAYLOAD]
