"""The last visit that went well beside the one that was refused, message by message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from scenarios.story import Story
from services.common.events import Event

from .chains import Chain, chains
from .decoded import ocsp_status
from .hops import Hop, Loop, meter_readings, tree
from .text import Names, plain

FIRST_MESSAGE = "supportedAppProtocolReq"
_CHARGING = frozenset({"ChargingStatusReq", "CurrentDemandReq"})


@dataclass(frozen=True)
class Rung:
    """A message of the ladder: its answer's code; "" codes were never sent."""

    name: str
    code: str
    refused: bool = False
    times: int = 1


@dataclass
class Visit:
    """One visit's ladder, what each protocol said, and how the chain was judged."""

    title: str
    accepted: bool
    rungs: list[Rung] = field(default_factory=list)
    words: dict[tuple[str, str], str] = field(default_factory=dict)
    reason: str = ""
    energy_wh: int = 0
    chains: list[Chain] = field(default_factory=list)


@dataclass(frozen=True)
class Comparison:
    """Two visits, their ladders side by side: (accepted, refused) per row, None where absent."""

    step: int
    accepted: Visit
    refused: Visit
    rows: list[tuple[Rung | None, Rung | None]]
    words: list[tuple[str, str, str, str]]
    """Protocol, field, and its value on either side; "" where it was not asked."""


_OCSP, _CHAIN = "OCSP", "Chain of certificates"
_OCPP, _ISO, _OCPI = "OCPP 2.0.1", "ISO 15118-2", "OCPI 2.2.1"
_PROTOCOLS = (_OCSP, _CHAIN, _OCPP, _ISO, _OCPI)
"""In the order in which a visit hears of them."""

_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth")


def comparison(story: Story) -> Comparison | None:
    """The last refused visit beside the last accepted one before it; None without both."""
    names = Names(story.parties)
    visits = _visits(story)
    refused = next((v for v in reversed(visits) if _refused(v[1])), None)
    if refused is None:
        return None
    accepted = next((v for v in reversed(visits[: visits.index(refused)]) if _charged(v[1])), None)
    if accepted is None:
        return None
    left = _visit(visits.index(accepted), accepted[1], names)
    right = _visit(visits.index(refused), refused[1], names)
    judged = {chain.cards[0].place for chain in right.chains if chain.cards}
    left.chains = [
        chain for chain in left.chains if not judged or {c.place for c in chain.cards[:1]} & judged
    ]
    fields = sorted({**left.words, **right.words}, key=lambda each: _PROTOCOLS.index(each[0]))
    return Comparison(
        refused[0],
        left,
        right,
        _aligned(left.rungs, right.rungs),
        [(*each, left.words.get(each, ""), right.words.get(each, "")) for each in fields],
    )


def _visits(story: Story) -> list[tuple[int, list[Event]]]:
    """The number of the step and the events of each visit, from one first message to the next."""
    told = sorted(
        ((event.real, step.number, event) for step in story.steps for event in step.events),
        key=lambda each: each[:2],
    )
    visits: list[tuple[int, list[Event]]] = []
    for _, number, event in told:
        if event.kind == "cable" and event.name == FIRST_MESSAGE:
            visits.append((number, []))
        if visits:
            visits[-1][1].append(event)
    return visits


def _refused(events: Sequence[Event]) -> bool:
    return any(event.kind == "cable" and event.outcome != "ok" for event in events)


def _charged(events: Sequence[Event]) -> bool:
    # A car that refuses what it is given ends a visit in which every message was answered well.
    return not _refused(events) and any(
        event.kind == "cable" and event.name in _CHARGING for event in events
    )


def _visit(rank: int, events: Sequence[Event], names: Names) -> Visit:
    title = _ORDINALS[rank] if rank < len(_ORDINALS) else f"{rank + 1}th"
    visit = Visit(f"{title} visit", not _refused(events))
    for item in tree(event for event in events if event.kind == "cable"):
        rounds = item.rounds if isinstance(item, Loop) else [[item]]
        for each in rounds[0]:
            if isinstance(each, Hop):
                code = str(each.event.data.get("code") or "")
                refused = each.event.outcome != "ok"
                visit.rungs.append(Rung(each.event.name, code, refused, len(rounds)))
    readings = meter_readings(events)
    visit.energy_wh = readings[-1] - readings[0] if readings else 0
    visit.chains = chains(events, names)
    visit.words = _words(events)
    refusal = next((e for e in events if e.kind == "cable" and e.outcome != "ok"), None)
    visit.reason = plain(str(refusal.data.get("reason") or "")) if refusal else ""
    return visit


def ladder(events: Sequence[Event], names: Names) -> list[Rung]:
    """The messages of a visit up to where it ended; the last rung is the car's own refusal
    where it was the car that refused."""
    visit = _visit(0, events, names)
    if visit.accepted and visit.rungs:
        own = [
            event
            for event in events
            if event.kind == "verdict"
            and event.outcome != "ok"
            and names.kind(event.party) == "vehicle"
        ]
        visit.rungs += [Rung("in the car", event.name, refused=True) for event in own[-1:]]
    return visit.rungs


def _words(events: Sequence[Event]) -> dict[tuple[str, str], str]:
    """Values by protocol and field: how the visit's outcome is called in each."""
    found: dict[tuple[str, str], str] = {}
    for event in events:
        if event.kind == "verdict" and isinstance(event.data.get("verdict"), dict):
            findings = event.data["verdict"].get("findings") or ()
            rules = [str(f.get("rule")) for f in findings if f.get("severity") == "error"]
            found[_CHAIN, "verdict"] = ", ".join(rules) or "accepted"
        response = event.data.get("response")
        if event.kind == "http" and isinstance(response, dict):
            if "ocpp" in response:
                found[_OCPP, "certificateStatus"] = str(response["ocpp"])
            if "ocpi" in response:
                found[_OCPI, "allowed"] = str(response["ocpi"])
        if event.kind == "cable" and event.name in ("PaymentDetailsReq", "AuthorizationReq"):
            name = str(event.data.get("response_name") or event.name)
            found[_ISO, f"ResponseCode of {name}"] = str(event.data.get("code") or "")
    for event in events:
        if event.kind == "http" and event.name == "OCSP":
            said = ocsp_status(event)
            key = _OCSP, "certStatus of the contract"
            if said and (key not in found or said == "revoked"):
                found[key] = said
    return found


def _aligned(left: Sequence[Rung], right: Sequence[Rung]) -> list[tuple[Rung | None, Rung | None]]:
    """Row by row; a message that only one side sent stands alone in its row."""
    rows: list[tuple[Rung | None, Rung | None]] = []
    rest = list(right)
    for rung in left:
        same = next((k for k, other in enumerate(rest) if other.name == rung.name), None)
        if same is None:
            rows.append((rung, None))
            continue
        rows.extend((None, other) for other in rest[:same])
        rows.append((rung, rest[same]))
        rest = rest[same + 1 :]
    rows.extend((None, other) for other in rest)
    return rows
