"""The parties as a map: who talks to whom, how often, and who certifies whom.

Parties stand on an ellipse in an order that keeps those who talk close, so that no line
runs through a party. Lines and their counts are what was observed: HTTP calls and message
pairs on the cable; a dotted line is a certificate that one party issued for another.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from pki.profiles import Role
from scenarios.story import PartyView
from services.common.events import Event

from .hops import HOP_KINDS, OUTSIDE
from .text import BOLD, Names, common_name, plural, width, wrapped

AROUND = ("vehicle", "oem", "pcp", "v2g-root", "rcp", "ccp", "cps", "mo", "cpo", "charger")
"""Kinds of parties around the ellipse, clockwise from the left."""

ROLES: Mapping[str, str] = {
    "v2g-root": "Keeps the root key that chargers and the provisioning service hang under. "
    "Everybody who trusts it trusts what it certified.",
    "rcp": "A phone book of roots: who is a root, for what. Others ask it which anchors exist.",
    "oem": "Builds the car, gives it a name (the PCID) and a provisioning certificate.",
    "pcp": "Knows every car by its provisioning certificate, so that a contract can be "
    "encrypted for one car and no other.",
    "mo": "Sells the driver a contract (the EMAID), keeps the account, writes the invoice, and "
    "can revoke.",
    "cps": "Checks what an operator wants to put into a car, and signs it. The car believes "
    "this signature.",
    "ccp": "Keeps signed contracts until the car they are for asks.",
    "cpo": "Runs chargers. Follows the car's chain up to a root, asks the mobility operator, "
    "sends the bill.",
    "charger": "Talks to the car over the cable, measures energy, passes on what it must not read.",
    "vehicle": "The car: makes keys that never leave it, signs, and trusts nobody without proof.",
}
"""What a party is for, one sentence per kind."""

HOLDER_OF = {
    Role.SECC: "charger",
    Role.CPS: "cps",
    Role.CONTRACT: "vehicle",
    Role.OEM_PROVISIONING: "vehicle",
}
"""Leaf certificates with the kind of party that holds them."""

_WIDTH, _HEIGHT = 1104.0, 600.0
_BOX = (178.0, 54.0)
_PILL = 20.0
# Height of the map for each party on it.
_ROOM = 54.0


@dataclass(frozen=True)
class Node:
    """A party's box."""

    x: float
    y: float
    width: float
    height: float
    title: tuple[str, ...]
    kind: str


@dataclass
class Edge:
    """A curve between two boxes, with its count at ``at``."""

    path: str
    style: str
    weight: float
    label: str = ""
    says: str = ""
    at: tuple[float, float] = (0.0, 0.0)
    label_width: float = 0.0


@dataclass
class Map:
    """The picture, and the cards below it."""

    width: float = _WIDTH
    height: float = _HEIGHT
    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    cards: list[tuple[PartyView, str]] = field(default_factory=list)


def cast(parties: Sequence[PartyView], events: Iterable[Event]) -> Map:
    """The map of ``parties`` with what ``events`` tell about them."""
    names = Names(parties)
    order = {kind: rank for rank, kind in enumerate(AROUND)}
    lines = _lines(names, events)
    # Who had no part in it stands on a card below, not in the way of the lines.
    present = {name for _style, *ends in lines for name in ends} or {one.name for one in parties}
    around = sorted(
        (party for party in parties if party.name in present),
        key=lambda party: order.get(party.kind, len(order)),
    )
    height = max(_HEIGHT, len(around) * _ROOM)
    places = {
        party.name: place for party, place in zip(around, _places(len(around), height), strict=True)
    }
    drawn = Map(
        height=height,
        cards=[
            (party, ROLES.get(party.kind, ""))
            for party in sorted(parties, key=lambda party: _TELLING.get(party.kind, 99))
        ],
    )
    for party in around:
        x, y = places[party.name]
        title = tuple(wrapped(names.short(party.name), 13 * BOLD, _BOX[0] - 16, 2))
        drawn.nodes.append(Node(x - _BOX[0] / 2, y - _BOX[1] / 2, *_BOX, title, party.kind))
    taken = [(n.x, n.y, n.x + n.width, n.y + n.height) for n in drawn.nodes]
    for (style, one, other), count in sorted(lines.items()):
        drawn.edges.append(_edge(style, one, other, count, places, height, names, taken))
    return drawn


_TELLING = {
    kind: rank
    for rank, kind in enumerate(
        ("vehicle", "charger", "cpo", "mo", "oem", "cps", "ccp", "pcp", "rcp", "v2g-root")
    )
}


def _places(count: int, height: float) -> list[tuple[float, float]]:
    """Equally far apart along an ellipse, clockwise from its left end."""
    across, up = _WIDTH / 2 - _BOX[0] / 2 - 6, height / 2 - _BOX[1] / 2 - 6
    steps = 720
    outline = [
        (
            _WIDTH / 2 - across * math.cos(2 * math.pi * step / steps),
            height / 2 - up * math.sin(2 * math.pi * step / steps),
        )
        for step in range(steps + 1)
    ]
    # Boxes are wide: going down must count for more than going across.
    gone = [0.0]
    for (x, y), (next_x, next_y) in pairwise(outline):
        gone.append(gone[-1] + math.hypot(next_x - x, (next_y - y) * _BOX[0] / _BOX[1] * 0.75))
    found, at = [], 0
    for rank in range(count):
        while gone[at] < gone[-1] * rank / count:
            at += 1
        found.append(outline[at])
    return found


def _lines(names: Names, events: Iterable[Event]) -> Counter[tuple[str, str, str]]:
    """How often each pair of parties talked (in either direction), or one certified the other."""
    found: Counter[tuple[str, str, str]] = Counter()
    holders = {party.kind: party.name for party in reversed(names.all())}
    named = {party.known_as: party.name for party in names.all() if party.known_as}
    for event in events:
        if event.kind in HOP_KINDS and event.sender != OUTSIDE and event.name != "token":
            one, other = sorted((event.sender, event.receiver))
            style = event.kind
        elif event.kind == "issued":
            holder = next((k for r, k in HOLDER_OF.items() if r.value == event.name), "")
            subject = common_name(str(event.data.get("subject") or ""))
            other = named.get(subject, holders.get(holder, ""))
            one, style = event.sender, "issued"
        else:
            continue
        if one != other and one in names and other in names:
            found[style, one, other] += 1
    return found


_BENDS = {"cable": 0.16, "http": 0.24, "issued": 0.42}
_SAYS = {"cable": "message pair", "http": "call", "issued": "certificate"}


def _edge(
    style: str,
    one: str,
    other: str,
    count: int,
    places: Mapping[str, tuple[float, float]],
    height: float,
    names: Names,
    taken: list[tuple[float, float, float, float]],
) -> Edge:
    (x1, y1), (x2, y2) = places[one], places[other]
    bend = _BENDS[style]
    middle = ((x1 + x2) / 2, (y1 + y2) / 2)
    cx = middle[0] + (_WIDTH / 2 - middle[0]) * bend
    cy = middle[1] + (height / 2 - middle[1]) * bend
    label = str(count) if style != "cable" else f"{count} over the cable"
    wide = width(label, 11.5 * (BOLD if style == "cable" else 1)) + 14
    edge = Edge(
        f"M{x1:.1f},{y1:.1f} Q{cx:.1f},{cy:.1f} {x2:.1f},{y2:.1f}",
        style,
        1.2 + min(math.log2(count), 4) * 0.45,
        label if style != "issued" else "",
        f"{names.short(one)} and {names.short(other)}: {plural(count, _SAYS[style])}"
        if style != "issued"
        else f"{names.short(one)} certified {names.short(other)}: {plural(count, _SAYS[style])}",
        label_width=wide,
    )
    if edge.label:
        edge.at = _free(((x1, y1), (cx, cy), (x2, y2)), wide, taken)
    return edge


def _free(
    curve: tuple[tuple[float, float], tuple[float, float], tuple[float, float]],
    wide: float,
    taken: list[tuple[float, float, float, float]],
) -> tuple[float, float]:
    """A point of the curve where a label does not lie over another or over a box."""
    (x1, y1), (cx, cy), (x2, y2) = curve
    best: tuple[float, tuple[float, float]] | None = None
    for step in (0.5, 0.44, 0.56, 0.38, 0.62, 0.32, 0.68, 0.26, 0.74):
        x = (1 - step) ** 2 * x1 + 2 * step * (1 - step) * cx + step**2 * x2
        y = (1 - step) ** 2 * y1 + 2 * step * (1 - step) * cy + step**2 * y2
        box = (x - wide / 2, y - _PILL / 2, x + wide / 2, y + _PILL / 2)
        over = sum(
            max(0.0, min(box[2], t[2]) - max(box[0], t[0]))
            * max(0.0, min(box[3], t[3]) - max(box[1], t[1]))
            for t in taken
        )
        if best is None or over < best[0] - 1e-9:
            best = over, (x, y)
        if over == 0:
            break
    point = best[1] if best else ((x1 + x2) / 2, (y1 + y2) / 2)
    taken.append((point[0] - wide / 2 - 3, point[1] - 13, point[0] + wide / 2 + 3, point[1] + 13))
    return point
