"""The events of a step as a tree: who called whom while serving whom.

A hop is written down by whoever made it when it ends, so it began at ``real`` less its
milliseconds. A hop is the child of the hop whose receiver made it in the meantime; a note
(a verdict, a state, a posting) the child of the hop that its party was serving. Siblings
that ask the same at the same time become a :class:`Parallel`, and what repeats three
times or more a :class:`Loop`.

Left out: logging in (``token``), and the calls of the demonstration itself (sender
``outside``). The latter's POSTs are what set things going; :func:`triggers` makes
chapters of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from scenarios.story import Story
from services.common.events import Event

from .decoded import ocsp_status
from .text import plain

HOP_KINDS = frozenset({"http", "cable"})
OUTSIDE = "outside"
OK_CODES = re.compile(r"OK(_|$)")

# Instants are of the machine's clock to the microsecond, durations rounded to 10 us, and a
# hop ends a moment before it is written down.
_SLACK = 0.003
_STATUSES = frozenset(HTTPStatus)
_LONGEST_PERIOD = 6
_FEWEST_ROUNDS = 3


@dataclass
class Note:
    """Something that happened at one party: a verdict, a certificate issued, a posting."""

    event: Event
    at: float
    number: str = ""

    @property
    def party(self) -> str:
        return self.event.party or self.event.sender


@dataclass
class Hop:
    """A request and its answer, with all that happened in between."""

    event: Event
    start: float
    end: float
    inside: list[Item] = field(default_factory=list)
    number: str = ""


@dataclass
class Parallel:
    """The same question, asked several times at once."""

    hops: list[Hop]


@dataclass
class Loop:
    """What repeats, round by round."""

    rounds: list[list[Item]]


@dataclass(frozen=True)
class Trigger:
    """What somebody outside the ecosystem did, and what it is called here."""

    text: str
    name: str
    at: float


Item = Hop | Note | Parallel | Loop | Trigger


def tree(events: Iterable[Event], chapters: Sequence[Trigger] = ()) -> list[Item]:
    """The events as a tree, in the order in which things began."""
    hops: list[Hop] = []
    notes: list[Note] = []
    for event in events:
        if event.kind in HOP_KINDS:
            if event.name != "token" and event.sender != OUTSIDE:
                hops.append(Hop(event, _start(event), event.real))
        elif event.kind != "step":
            notes.append(Note(event, event.real))
    top: list[tuple[float, Item]] = [(chapter.at, chapter) for chapter in chapters]
    children: dict[int, list[tuple[float, Item]]] = {}
    for rank, hop in enumerate(hops):
        # Only a hop that took longer can be around this one; equals go by their order.
        longer = [
            other
            for position, other in enumerate(hops)
            if (other.end - other.start, -position) > (hop.end - hop.start, -rank)
        ]
        parent = _around(longer, hop.event.sender, hop.start, hop.end)
        (top if parent is None else children.setdefault(id(parent), [])).append((hop.start, hop))
    for note in notes:
        parent = _around(hops, note.party, note.at, note.at)
        (top if parent is None else children.setdefault(id(parent), [])).append((note.at, note))
    for hop in hops:
        hop.inside = _folded(children.get(id(hop), []))
    return _folded(top)


def _start(event: Event) -> float:
    return event.real - (event.milliseconds or 0.0) / 1000


def _around(hops: Iterable[Hop], party: str, start: float, end: float) -> Hop | None:
    """The hop that ``party`` was serving from ``start`` to ``end``: the tightest."""
    fitting = [
        (max(0.0, hop.start - start, end - hop.end), hop.end - hop.start, rank, hop)
        for rank, hop in enumerate(hops)
        if hop.event.receiver == party and hop.start - _SLACK <= start and end <= hop.end + _SLACK
    ]
    return min(fitting)[3] if fitting else None


# ----------------------------------------------------------------------------------- folding


def _folded(timed: list[tuple[float, Item]]) -> list[Item]:
    """In order of time, what is parallel and what repeats put together."""
    return _loops(_parallels([item for _, item in sorted(timed, key=lambda pair: pair[0])]))


def _parallels(items: Sequence[Item]) -> list[Item]:
    done: list[Item] = []
    group: list[Hop] = []

    def close() -> None:
        if group:
            done.append(Parallel(list(group)) if len(group) > 1 else group[0])
            group.clear()

    for item in items:
        if not isinstance(item, Hop) or item.inside:
            close()
            done.append(item)
            continue
        if group and not (
            _signature(group[0]) == _signature(item) and item.start < max(hop.end for hop in group)
        ):
            close()
        group.append(item)
    close()
    return done


def _loops(items: list[Item]) -> list[Item]:
    done: list[Item] = []
    at = 0
    while at < len(items):
        length, count = _repeats(items, at)
        if count:
            rounds = [items[at + i * length : at + (i + 1) * length] for i in range(count)]
            done.append(Loop(rounds))
            at += length * count
        else:
            done.append(items[at])
            at += 1
    return done


def _repeats(items: Sequence[Item], at: int) -> tuple[int, int]:
    """The shortest period from ``at`` that comes often enough, and how often; else (0, 0)."""
    marks = [_signature(item) for item in items[at:]]
    for length in range(1, _LONGEST_PERIOD + 1):
        count = 1
        while marks[count * length : (count + 1) * length] == marks[:length]:
            count += 1
        if count >= _FEWEST_ROUNDS and any(isinstance(i, Hop) for i in items[at : at + length]):
            return length, count
    return 0, 0


def _signature(item: Item) -> Any:
    if isinstance(item, Hop):
        event = item.event
        inside = tuple(_signature(child) for child in item.inside)
        return ("hop", event.kind, event.name, event.sender, event.receiver, event.outcome, inside)
    if isinstance(item, Note):
        return "note", item.event.kind, item.event.name, item.party, item.event.outcome
    if isinstance(item, Parallel):
        return "parallel", _signature(item.hops[0]), len(item.hops)
    return ("other", id(item))


# ---------------------------------------------------------------------------------- walking


def walk(items: Iterable[Item]) -> Iterable[Hop | Note]:
    """Every hop and note in the order in which it is drawn."""
    for item in items:
        if isinstance(item, Hop):
            yield item
            yield from walk(item.inside)
        elif isinstance(item, Note):
            yield item
        elif isinstance(item, Parallel):
            yield from walk(item.hops)
        elif isinstance(item, Loop):
            for each in item.rounds:
                yield from walk(each)


# ------------------------------------------------------------------------------ what they say


def answer(event: Event) -> str:
    """The answer of a hop in its protocol's own word: a response code, a status."""
    if event.kind == "cable":
        return str(event.data.get("code") or "")
    if event.name == "OCSP":
        return ocsp_status(event)
    response = event.data.get("response")
    if isinstance(response, Mapping):
        for name in ("ocpp", "ocpi", "allowed", "code", "status"):
            if isinstance(response.get(name), str):
                return str(response[name])
    status = event.data.get("status")
    if isinstance(status, int) and status in _STATUSES:
        return f"{status} {HTTPStatus(status).phrase}"
    return str(status or "") or ("no answer" if event.data.get("error") else "")


def denied(event: Event) -> bool:
    """Whether the answer of a hop, or a note, is a no."""
    response = event.data.get("response")
    said_no = isinstance(response, Mapping) and response.get("accepted") is False
    return event.outcome != "ok" or said_no or (event.name == "OCSP" and answer(event) == "revoked")


def fault_of(event: Event) -> str:
    """The kind of the fault under which this happened; "" for none."""
    fault = event.data.get("fault")
    return str(fault.get("kind") or "") if isinstance(fault, Mapping) else ""


def sentence(event: Event) -> str:
    """What a note says, short enough to stand in a diagram."""
    verdict = event.data.get("verdict")
    if isinstance(verdict, Mapping):
        what = plain(str(event.data.get("what") or event.name))
        errors = [f for f in verdict.get("findings") or () if f.get("severity") == "error"]
        if verdict.get("accepted"):
            return f"{what}: accepted"
        return f"{what}: refused, {errors[0].get('rule')}" if errors else f"{what}: refused"
    if event.kind == "verdict" and event.data.get("code") and event.outcome != "ok":
        return f"answers {event.data['code']}"
    return plain(event.summary) or event.name


_METER = re.compile(r"MeterReading>(\d+)<")


def meter_readings(events: Iterable[Event]) -> list[int]:
    """The meter readings in Wh that cable messages carried, in their order."""
    return [
        int(reading)
        for event in events
        if event.kind == "cable"
        for half in ("request", "response")
        for reading in _METER.findall(str(event.data.get(half) or ""))
    ]


# --------------------------------------------------------------------------------- chapters


def _asked(event: Event) -> Mapping[str, Any]:
    request = event.data.get("request")
    return request if isinstance(request, Mapping) else {}


def _charge(event: Event) -> str:
    energy = _asked(event).get("energy_wh")
    wish = f" and wants {energy / 1000:g} kWh" if isinstance(energy, int) else ""
    return f"The driver plugs the car in{wish}"


def _clock(event: Event) -> str:
    asked = _asked(event)
    if "advance" in asked:
        return f"The ecosystem's clock goes on by {asked['advance']}"
    return "The ecosystem's clock is set"


def _fault(event: Event) -> str:
    return f"The fault {_asked(event).get('kind', '')} is set at {event.receiver}"


def _rollover(event: Event) -> str:
    return f"{event.receiver} follows its {event.name.split('/')[-2]} with a new one"


_DEEDS: Sequence[tuple[re.Pattern[str], Callable[[Event], str]]] = (
    (re.compile(r"POST /vehicles$"), lambda _: "A new car is ordered"),
    (re.compile(r"POST /drivers$"), lambda _: "A driver signs up and pays a deposit"),
    (re.compile(r"POST /contracts$"), lambda _: "The driver takes out a contract for the car"),
    (re.compile(r"POST /vehicles/.+/charge$"), _charge),
    (re.compile(r"POST /contracts/.+/revoke$"), lambda _: "The contract is ended"),
    (re.compile(r"POST /contracts/.+/cancel$"), lambda _: "The contract is cancelled"),
    (re.compile(r"PUT /drivers/.+/blocked$"), lambda _: "The driver's account is blocked"),
    (
        re.compile(r"PUT /vehicles/.+/default-contract$"),
        lambda _: "The car gets a default contract",
    ),
    (re.compile(r"POST /vehicles/.+/sell$"), lambda _: "The car is sold"),
    (
        re.compile(r"POST /vehicles/.+/over-the-air$"),
        lambda _: "The car takes over its maker's roots",
    ),
    (
        re.compile(r"DELETE /trust-store/anchors/"),
        lambda event: f"{event.receiver} no longer trusts a root",
    ),
    (re.compile(r"POST /revocations$"), lambda event: f"{event.receiver} revokes a certificate"),
    (re.compile(r"POST /authorities/.+/rollover$"), _rollover),
    (
        re.compile(r"DELETE /authorities/.+/key$"),
        lambda event: f"{event.receiver} loses a private key",
    ),
    (re.compile(r"PUT /clock$"), _clock),
    (re.compile(r"POST /jobs/run$"), lambda _: ""),  # goes with the clock
    (re.compile(r"POST /faults$"), _fault),
    (re.compile(r"DELETE /faults"), lambda event: f"The fault at {event.receiver} is cleared"),
)


def deed(event: Event) -> str:
    """What somebody did with this call from outside, in words; "" for what is nobody's wish."""
    say = next((say for pattern, say in _DEEDS if pattern.match(event.name)), None)
    return say(event) if say else f"From outside: {event.name}"


def triggers(story: Story) -> dict[int, list[Trigger]]:
    """Step numbers with what was set going in them from outside.

    A call from outside is written down at its end. It began after the one before it had
    ended, and is shown with the first thing that it caused, in whichever step that is.
    """
    outside = sorted(
        ((e, step.number) for step in story.steps for e in step.events if e.sender == OUTSIDE),
        key=lambda each: each[0].real,
    )
    caused = sorted(
        (_start(event), step.number)
        for step in story.steps
        for event in step.events
        if event.sender != OUTSIDE and event.name != "token"
    )
    found: dict[int, list[Trigger]] = {}
    before = 0.0
    for event, told_in in outside:
        # Nothing bounds the first call from below but the step that tells it.
        first = next(
            (
                (at, number)
                for at, number in caused
                if before <= at <= event.real and (before or number == told_in)
            ),
            None,
        )
        before = event.real
        text = deed(event)
        if first is None or event.name.startswith("GET ") or not text:
            continue
        found.setdefault(first[1], []).append(Trigger(text, event.name, first[0] - 1e-6))
    return found
