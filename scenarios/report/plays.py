"""A play of a scenario as a story for the page, and in few lines.

Theory of operation: the events of a play are split where somebody outside the ecosystem did
something (a car is ordered, a contract revoked, the clock moved; each is a call of the
scenario). ``POST /vehicles/{pcid}/charge`` is a visit and a step of its own, with all that
followed until the scenario went on, as a record may be settled later. What was done between
two visits is one step. The scenario names its endings, but not its visits; the last visits of
a play are those that it tells about, which holds only where their outcomes agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.common.events import Event
from services.ecosystem import Ecosystem

from ..playing import Result
from ..scenario import CHARGED, DISPUTED, IN_THE_CAR, SETTLED, Ending, Part
from ..story import PartyView, Step, Story
from .hops import OUTSIDE, deed
from .page import Ended
from .text import Names, opening, plain, plural

_CHARGE = re.compile(r"POST /vehicles/([^/]+)/charge$")
_CLEARS = re.compile(r"DELETE /faults(/|$)")


@dataclass(frozen=True)
class Finding:
    """Why somebody refused: the rule's code, and the sentence."""

    party: str
    rule: str
    sentence: str


@dataclass
class Chunk:
    """What happened in one go: a visit, or all that was done between two."""

    visit: Event | None
    deeds: list[Event] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


def play_label(part: Part) -> str:
    """How a play is called within its scenario: ``played``, ``fail-open``, ``twin`` ..."""
    words = [word for word in (part.play, "" if part.spoiling else "twin") if word]
    return ", ".join(words) or "played"


def compared(result: Result) -> list[Ended]:
    """The endings as declared beside those that were seen, and why."""
    declared, seen = result.part.declared.endings, result.seen
    visits = [chunk for chunk in chunks(result.events) if chunk.visit is not None]
    chunk_of = {name: visits[rank] for rank, (name, _) in _endings_of(result, visits).items()}
    rows = []
    for visit in dict.fromkeys((*declared, *seen)):
        wanted, found = declared.get(visit), seen.get(visit)
        because = plain(found.because) if found else ""
        if visit in chunk_of:
            because = _why(chunk_of[visit].events) or because
        same = wanted is not None and found is not None and not wanted.differences(found)
        rows.append(Ended(visit, str(wanted or ""), str(found or ""), same, opening(because)))
    return rows


def findings(events: Iterable[Event]) -> list[Finding]:
    """What was found wrong, by whom; not again what others only repeat."""
    found: list[Finding] = []
    for event in events:
        if event.kind != "verdict" or event.outcome == "ok":
            continue
        verdict = event.data.get("verdict")
        errors = [
            one
            for one in (verdict.get("findings") if isinstance(verdict, Mapping) else None) or ()
            if one.get("severity") == "error"
        ]
        said = [(str(one.get("rule")), str(one.get("sentence"))) for one in errors]
        for rule, sentence in said or [(event.name, event.summary)]:
            words = plain(sentence).removeprefix(f"{event.data.get('code')}: ")
            if not any(one.sentence in words or words in one.sentence for one in found):
                found.append(Finding(event.party, rule, words))
    return found


def _why(events: Iterable[Event]) -> str:
    return "; ".join(one.sentence for one in findings(events))


# ------------------------------------------------------------------------------- in steps


def chunks(events: Iterable[Event]) -> list[Chunk]:
    """The events in visits and what lies between them."""
    ordered = sorted(events, key=lambda event: event.began)
    calls = sorted((e for e in ordered if e.sender == OUTSIDE), key=lambda event: event.real)
    found: list[Chunk] = []
    until: list[float] = []
    for call in calls:
        visit = _CHARGE.match(call.name) is not None
        reads = call.name.startswith("GET ") or not deed(call)
        joins = found and (reads or (_CLEARS.match(call.name) and found[-1].visit is not None))
        if visit or not found or (found[-1].visit is not None and not joins):
            found.append(Chunk(call if visit else None))
            until.append(call.real)
        until[-1] = call.real
        if not visit and not reads:
            found[-1].deeds.append(call)
    rank = 0
    for event in ordered:
        # By when a call from outside ended, and by when anything else began.
        at = event.real if event.sender == OUTSIDE else event.began
        while rank < len(found) - 1 and at > until[rank]:
            rank += 1
        if not found:
            found.append(Chunk(None))
        found[rank].events.append(event)
    return found


def story_of(result: Result, ecosystem: Ecosystem) -> Story:
    """The play as a story: its visits, and what was done before and between them."""
    parties = _involved(result.events, ecosystem)
    names = Names(parties)
    told = chunks(result.events)
    visits = [chunk for chunk in told if chunk.visit is not None]
    endings = _endings_of(result, visits)
    steps: list[Step] = []
    number = 0
    for rank, chunk in enumerate(told):
        if chunk.visit is None:
            step = _between(chunk, first=rank == 0, last=rank == len(told) - 1)
        else:
            number += 1
            step = _visit(chunk, number, endings.get(number - 1), names)
        step.number = rank + 1
        step.events = chunk.events
        step.seconds = round(
            max((event.real for event in chunk.events), default=0.0)
            - min((event.began for event in chunk.events), default=0.0),
            3,
        )
        steps.append(step)
    return Story(
        result.part.name,
        result.run,
        result.began_at,
        ecosystem.trust_model.title,
        ecosystem.trust_model.says,
        parties,
        steps,
        seconds={f"{step.number} {step.title}": step.seconds for step in steps},
        lead=result.part.scenario.text,
    )


def _involved(events: Sequence[Event], ecosystem: Ecosystem) -> list[PartyView]:
    seen = {name for event in events for name in (event.sender, event.receiver, event.party)}
    return [
        PartyView(party.name, party.kind, party.title, party.organisation)
        for party in ecosystem.parties.values()
        if party.name in seen
    ]


def _endings_of(result: Result, visits: Sequence[Chunk]) -> dict[int, tuple[str, Ending]]:
    """Visits by rank with the name and the ending that the scenario gave them."""
    seen = list(result.seen.items())
    first = len(visits) - len(seen)
    if first < 0 or not seen:
        return {}
    for (_, ending), chunk in zip(seen, visits[first:], strict=True):
        if chunk.visit is None or _said(chunk.visit).get("outcome") != ending.outcome:
            return {}
    return {first + rank: each for rank, each in enumerate(seen)}


def _said(charge: Event) -> Mapping[str, Any]:
    """What the car answered to the driver who plugged it in."""
    response = charge.data.get("response")
    return response if isinstance(response, Mapping) else {}


def _visit(chunk: Chunk, number: int, told: tuple[str, Ending] | None, names: Names) -> Step:
    charge = chunk.visit
    assert charge is not None, "only a visit is told as one"
    found = _CHARGE.match(charge.name)
    wish = charge.data.get("request")
    wish = wish if isinstance(wish, Mapping) else {}
    said = _said(charge)
    charger = names.short(str(wish.get("charger", "")))
    asks = {"never": " It asks for no contract.", "always": " It asks for a contract in any case."}
    text = (
        f"The car {found[1] if found else ''} is plugged in at {charger}."
        f"{asks.get(str(wish.get('installation')), '')}"
    )
    name = told[0] if told else ""
    outcome = str(said.get("outcome") or "failed")
    return Step(
        0,
        f"Visit {number}: {name}" if name else f"Visit {number}",
        text,
        _went(said, told[1] if told else None, _why(chunk.events)),
        "ok" if outcome == CHARGED else outcome,
    )


def _went(said: Mapping[str, Any], ending: Ending | None, why: str) -> str:
    """How a visit went, in one line; ``why`` is what somebody found wrong in it."""
    if not said:
        return "the car gave no answer"
    if said.get("outcome") != CHARGED:
        stage, code = str(said.get("stage")), str(said.get("code") or "")
        words = (
            f"{said.get('outcome')} {IN_THE_CAR}"
            if stage == IN_THE_CAR
            else f"{said.get('outcome')} at {stage}" + (f": {code}" if code else "")
        )
        reason = why or plain(str(said.get("reason") or ""))
        return f"{words}. {opening(reason)}" if reason else words
    words = f"charged {int(said.get('energy_wh') or 0) / 1000:g} kWh"
    if said.get("installed"):
        words += ", after a contract was installed"
    if said.get("updated"):
        words += ", after the contract was updated"
    if said.get("failed_before"):
        words += f"; at first it failed at {said['failed_before']}"
    if ending is not None and ending.paid:
        words += {SETTLED: "; billed", DISPUTED: "; disputed, not paid"}[ending.paid]
    return f"{words}. {opening(why)}" if why else words


def _between(chunk: Chunk, *, first: bool, last: bool) -> Step:
    title = "What was there before" if first else "Afterwards" if last else "In between"
    did = list(dict.fromkeys(deed(call) for call in chunk.deeds))
    refused = [call for call in chunk.deeds if call.outcome != "ok"]
    return Step(
        0,
        title,
        "",
        ". ".join(did) or "What happened without anybody asking for it",
        "refused" if refused else "ok",
    )


# ---------------------------------------------------------------------------- in few lines


def outline(result: Result) -> list[str]:
    """The play in few lines: what was done, how each visit went."""
    lines: list[str] = []
    number = 0
    told = chunks(result.events) if result.events else []
    endings = _endings_of(result, [chunk for chunk in told if chunk.visit is not None])
    for chunk in told:
        if chunk.visit is None:
            lines += dict.fromkeys(deed(call) for call in chunk.deeds)
            continue
        step = _visit(chunk, number + 1, endings.get(number), Names(()))
        number += 1
        lines.append(f"{step.title}: {step.result}")
    if result.run:
        lines.append(f"Run {result.run}, {plural(len(result.events), 'event')}")
    return lines
