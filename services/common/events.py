"""The event stream: what happened, told once, by whoever saw it.

Each hop (an HTTP call, a message pair on the cable), each certificate issued,
each verdict and each posting is one :class:`Event`. Events are collected in the
*unit of work* under way (a request, a cable session) and written in the same
transaction as the change that they tell about; :class:`~.database.Database`
does that. The caller writes a hop down, as it alone also knows when nobody
answers; the callee does so for callers that are not of this ecosystem (they
send no ``Pnclab-Hop`` header).

Secrets do not reach an event: :func:`redacted` runs where an event is made.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from .clock import real_time

RUN_HEADER = "Pnclab-Run"
HOP_HEADER = "Pnclab-Hop"

# Bytes beyond this are not kept; `cost` says how many there were.
MAX_PAYLOAD = 65_536
MAX_DEPTH = 32

SECRET_NAMES = frozenset(
    {
        "access_token",
        "authorization",
        "client_secret",
        "password",
        "private_key",
        "secret",
        "token",
    }
)


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

    ``kind`` is one of ``http``, ``cable``, ``issued``, ``revoked``, ``verdict``,
    ``state``, ``ledger``, ``step``; ``name`` the protocol's own word (a message,
    a path); ``outcome`` is ``ok``, ``refused`` or ``failed``; ``at`` is ecosystem
    time, ``real`` seconds since the epoch by the machine's clock.
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

    def as_dict(self) -> dict[str, Any]:
        """JSON: bytes as base64, instants as ISO 8601."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["at"] = self.at.isoformat() if self.at else None
        for name in ("request", "response"):
            raw = values[name]
            values[name] = base64.b64encode(raw).decode() if raw is not None else None
        values["data"] = dict(self.data)
        values["cost"] = dict(self.cost)
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
        return cls(**known)


_counter = itertools.count()
_process = os.urandom(3).hex()


def new_id(real: float | None = None) -> str:
    """An identifier that sorts by time within a process and is unique over processes."""
    micros = int((real_time() if real is None else real) * 1e6)
    return f"{micros:014x}{next(_counter) & 0xFFFFFF:06x}{_process}"


def redacted(value: Any, _depth: int = 0) -> Any:
    """``value`` (JSON) with everything that is named like a secret blanked out.

    What comes out can be written as JSON everywhere, whatever somebody sent: numbers that
    JSON does not have become text, lone surrogates are escaped, depth is bounded.
    """
    if isinstance(value, str):
        # PostgreSQL keeps no NUL in a text.
        written = value if "\0" not in value else value.replace("\0", "\\x00")
        return written if written.isascii() else written.encode(errors="backslashreplace").decode()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping | list | tuple) and _depth == MAX_DEPTH:
        return "(deeper than an event tells)"
    if isinstance(value, Mapping):
        return {
            redacted(key): "(redacted)"
            if key.lower() in SECRET_NAMES
            else redacted(inner, _depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [redacted(inner, _depth + 1) for inner in value]
    return value


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
    """A unit of work: its run, its events that are not yet written, its cost so far."""

    run: str | None = None
    events: list[Event] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)

    def take(self) -> list[Event]:
        taken, self.events = self.events, []
        return taken


_unit: ContextVar[Unit | None] = ContextVar("pnclab_unit", default=None)


def current_unit() -> Unit:
    """The unit of work under way; one that nobody writes, where there is none."""
    return _unit.get() or Unit()


@contextmanager
def unit_of_work(run: str | None = None) -> Iterator[Unit]:
    """Collect events and cost under ``run`` until the block ends.

    Whoever opens a unit flushes it (:meth:`~.database.Database.flush`).
    """
    unit = Unit(run)
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
        """``event`` with its identifier, times and run, without its secrets; not yet queued."""
        unit = current_unit()
        real = real_time()
        return replace(
            event,
            id=new_id(real),
            party=self.party,
            run=event.run or unit.run,
            at=self._clock.now(),
            real=real,
            name=redacted(event.name)[:128],
            sender=redacted(event.sender)[:64],
            receiver=redacted(event.receiver)[:64],
            summary=redacted(event.summary)[:1024],
            data=redacted(event.data),
            request=event.request[:MAX_PAYLOAD] if event.request is not None else None,
            response=event.response[:MAX_PAYLOAD] if event.response is not None else None,
        )
