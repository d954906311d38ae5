"""Counts from events: what each party computed, what went over each link, who was asked.

Counted are the events of the fleet's own runs (one for each car and step). Left out is what
does not depend on the trust model but on how fast the machine is or how long processes live:

- logging in (``token``, and calls that were answered 401): tokens are kept as long as a process
  and its tokens live;
- comparing trust stores with their source (``roots``, ``anchors``): that is due by elapsed time;
- plugging in and out, and calls from outside: that is our own hand;
- what a charger asked again while its operator took long to answer (``Ongoing``).

Some events say what they cost in cryptography; of the others :data:`COSTS` knows.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.common.problems import NotAsExpectedError
from services.ecosystem import Ecosystem

from .table import Row

NOT_COUNTED = frozenset({"token", "roots", "anchors", "plug in", "unplug"})

# Who bears it: of a hop the sender or the receiver, of other events the party that tells it.
SENDER, RECEIVER = "sender", "receiver"
# (kind, name) of an event that does not say its cost -> who bears how much of what.
COSTS: Mapping[tuple[str, str], Sequence[tuple[str, str]]] = {
    ("http", "build car"): ((SENDER, "signatures"), (RECEIVER, "verifications")),
    ("http", "OCSP"): ((RECEIVER, "signatures"),),
    ("http", "sign contract data"): ((SENDER, "key agreements"),),
    ("cable", "CertificateInstallationReq"): ((SENDER, "signatures"),),
    ("cable", "CertificateUpdateReq"): ((SENDER, "signatures"),),
    ("cable", "AuthorizationReq"): ((SENDER, "signatures"),),
    ("cable", "MeteringReceiptReq"): ((SENDER, "signatures"),),
    ("verdict", "contract key"): ((SENDER, "key agreements"),),
}
# The contract pool verifies what a car asks for with; its callers' hops bear that name.
_VERIFIED_BY = {"ccp": frozenset({"CertificateInstallationReq", "CertificateUpdateReq"})}
_STATED = ("signatures", "verifications")
CRYPTOGRAPHY = ("signatures", "verifications", "key agreements")


@dataclass(frozen=True)
class Told:
    """Of an event what counting needs."""

    kind: str
    name: str
    sender: str
    receiver: str
    outcome: str
    run: str
    cost: Mapping[str, int]
    status: int | None = None
    code: str = ""
    ongoing: bool = False


class TooSlow(NotAsExpectedError):
    """Something failed that only fails when a machine has no time."""


@dataclass
class Tally:
    """What was counted."""

    cost: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(party, measure)."""
    messages: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    """By link."""
    contacted: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By run: the parties at either end of a hop."""
    charged: Counter[str] = field(default_factory=Counter)
    """By charger: the sessions that came to their end."""
    refused: Counter[str] = field(default_factory=Counter)
    """By message and response code."""


def tally(ecosystem: Ecosystem, events: Iterable[Told]) -> Tally:
    """Count ``events``. TooSlow where one tells of a failure."""
    found, kinds = Tally(), {party.name: party.kind for party in ecosystem.parties.values()}
    events = list(events)
    again = Counter(event.run for event in events if event.ongoing)
    twice = Counter(again)
    for event in events:
        if event.outcome == "failed":
            raise TooSlow(
                f"{event.run}: {event.name} from {event.sender} to {event.receiver} failed; what "
                "was counted depends on how busy this machine is: try again when it is less so"
            )
        # Each time that a car had to ask again, one message and one verification is too much.
        if event.ongoing or _left_out(event):
            continue
        if event.name == "AuthorizationReq signature" and twice[event.run]:
            twice[event.run] -= 1
            continue
        _cost(found, event, kinds)
        if event.kind == "cable" and event.outcome == "refused":
            found.refused[f"{event.name}: {event.code}"] += 1
        elif event.kind == "cable" and event.name == "SessionStopReq":
            found.charged[event.receiver] += 1
        if event.kind in ("http", "cable"):
            link = _link(event, kinds)
            found.messages[link] += 1
            found.bytes[link] += event.cost.get("bytes", 0)
            found.contacted[event.run] |= {event.sender, event.receiver}
    return found


def _left_out(event: Told) -> bool:
    hop = event.kind == "http"
    return hop and (event.name in NOT_COUNTED or event.sender == "outside" or event.status == 401)


def _cost(found: Tally, event: Told, kinds: Mapping[str, str]) -> None:
    for measure in _STATED:
        found.cost[event.sender, measure] += event.cost.get(measure, 0)
    for end, measure in COSTS.get((event.kind, event.name), ()):
        found.cost[event.sender if end == SENDER else event.receiver, measure] += 1
    if event.kind == "http" and event.name in _VERIFIED_BY.get(kinds.get(event.receiver, ""), ()):
        found.cost[event.receiver, "verifications"] += 1


def _link(event: Told, kinds: Mapping[str, str]) -> str:
    ends = f"{kinds.get(event.sender, event.sender)}-{kinds.get(event.receiver, event.receiver)}"
    if event.kind == "cable":
        return f"{ends} (cable)"
    return f"{ends} (OCSP)" if event.name == "OCSP" else ends


def rows(model: str, ecosystem: Ecosystem, found: Tally, steps: Sequence[str]) -> list[Row]:
    """The tally as rows: sessions, cost by party and in all, links, parties contacted by step."""
    made = [Row(model, "sessions", "all", "charged", sum(found.charged.values()))]
    made += [
        Row(model, "sessions", charger, "charged", found.charged[charger])
        for charger in sorted(found.charged)
    ]
    made.append(Row(model, "sessions", "all", "refused", sum(found.refused.values())))
    made += [
        Row(model, "sessions", "all", f"refused at {why}", found.refused[why])
        for why in sorted(found.refused)
    ]
    for measure in CRYPTOGRAPHY:
        total = sum(number for (_who, what), number in found.cost.items() if what == measure)
        made.append(Row(model, "cost", "all", measure, total))
        made += [
            Row(model, "cost", name, measure, found.cost[name, measure])
            for name in ecosystem.parties
            if found.cost[name, measure]
        ]
    for links, measure in ((found.messages, "messages"), (found.bytes, "bytes")):
        made.append(Row(model, "link", "all", measure, sum(links.values())))
        made += [Row(model, "link", link, measure, links[link]) for link in sorted(links)]
    cars = {party.name for party in ecosystem.of_kind("vehicle")}
    for step in steps:
        numbers = [
            len(parties - cars)
            for run, parties in found.contacted.items()
            if run.rpartition("-")[2] == step
        ]
        if numbers:
            made += [
                Row(model, "contacts", step, "parties contacted, sum", sum(numbers)),
                Row(model, "contacts", step, "parties contacted, least", min(numbers)),
                Row(model, "contacts", step, "parties contacted, most", max(numbers)),
            ]
    return made


def told(row: Mapping[str, Any]) -> Told:
    """A row of a party's table of events."""
    data = row["data"] or {}
    return Told(
        row["kind"],
        row["name"],
        row["sender"],
        row["receiver"],
        row["outcome"],
        row["run"],
        row["cost"] or {},
        data.get("status") if row["kind"] == "http" else None,
        str(data.get("code", "")),
        row["name"] == "AuthorizationReq"
        and row["kind"] == "cable"
        and ">Ongoing<" in str(data.get("response", "")),
    )
