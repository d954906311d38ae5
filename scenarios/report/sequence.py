"""A tree of hops as a sequence diagram: lanes, arrows, notes, all in pixels.

Time runs down, one row per arrow or note, so a diagram shows order, not duration. A hop
with nothing inside takes one row (the answer right under the question); one with others
inside is drawn around them, with a bar on its receiver's lane while that is at work.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from services.common.events import Event

from .hops import (
    OK_CODES,
    Hop,
    Item,
    Loop,
    Note,
    Parallel,
    Trigger,
    answer,
    denied,
    fault_of,
    meter_readings,
    sentence,
    walk,
)
from .text import BOLD, Names, duration, opening, size, width, wrapped

LANE_ORDER = (
    "vehicle", "charger", "cpo", "mo", "cps", "ccp", "pcp", "rcp", "oem", "v2g-root",
)  # fmt: skip
"""Kinds of parties from left to right: from the car to those who vouch for it."""

_ROOM = 1104.0
_MARGIN = 34.0
_SIDE = 84.0
_GAP = (124.0, 320.0)
_HEAD = 58.0
_FONT, _SMALL = 12.5, 11.5
_ROW, _LEAF, _NOTE_LINE = 34.0, 32.0, 15.0
_NOTE_WIDTH = 252.0
_BAR = 4.0


@dataclass(frozen=True)
class Lane:
    """A party's line: where, how it is called in up to two lines."""

    x: float
    title: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Arrow:
    """One direction of a hop, with its label at ``label_x`` above the line."""

    y: float
    x1: float
    x2: float
    style: str
    label: str = ""
    meta: str = ""
    label_x: float = 0.0

    @property
    def head(self) -> str:
        """The points of the arrow's head."""
        back = -8.0 if self.x2 > self.x1 else 8.0
        return (
            f"{self.x2:.1f},{self.y:.1f} {self.x2 + back:.1f},{self.y - 4:.1f} "
            f"{self.x2 + back:.1f},{self.y + 4:.1f}"
        )


@dataclass(frozen=True)
class Bar:
    """A party at work."""

    x: float
    y: float
    height: float
    style: str


@dataclass(frozen=True)
class Box:
    """A note on a lane, lines of text in a box."""

    x: float
    y: float
    width: float
    height: float
    style: str
    mark: str
    lines: tuple[str, ...]
    line_height: float = _NOTE_LINE


@dataclass(frozen=True)
class Frame:
    """A loop around rows, or a chapter's band (then without a frame)."""

    y: float
    height: float
    label: str
    meta: str = ""


@dataclass(frozen=True)
class Tag:
    """A number in the margin that leads to the hop's bytes."""

    y: float
    text: str
    target: str


@dataclass
class Diagram:
    """All shapes, with the size of the whole."""

    width: float = 0.0
    height: float = 0.0
    lanes: list[Lane] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    loops: list[Frame] = field(default_factory=list)
    bands: list[Frame] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)
    tall: bool = False
    says: str = ""

    head: float = _HEAD

    @property
    def faulty(self) -> bool:
        """Whether something in it happened under a fault."""
        styles = [arrow.style for arrow in self.arrows] + [box.style for box in self.boxes]
        return any("faulty" in style for style in styles)


def anchor(number: str) -> str:
    """The id of the hop ``number`` in the page."""
    return f"hop-{number.replace('.', '-')}"


def diagram(items: Sequence[Item], names: Names) -> Diagram | None:
    """The picture of ``items``; None where nobody talks to anybody."""
    happened = list(walk(items))
    if not any(isinstance(each, Hop) for each in happened):
        return None
    return _Pen(_lanes_of(happened, names), happened, names).draw(items)


def _lanes_of(happened: Iterable[Hop | Note], names: Names) -> list[str]:
    seen: dict[str, None] = {}
    for each in happened:
        if isinstance(each, Hop):
            seen[each.event.sender] = seen[each.event.receiver] = None
        elif each.party:
            seen[each.party] = None
    kinds = {kind: rank for rank, kind in enumerate(LANE_ORDER)}
    return sorted(seen, key=lambda name: kinds.get(names.kind(name), len(kinds)))


def _gaps(parties: Sequence[str], happened: Sequence[Hop | Note]) -> list[float]:
    """The distances between lanes: what the words between neighbours need, then equally more."""
    least, most = _GAP
    gaps = [least] * (len(parties) - 1)
    rank = {name: position for position, name in enumerate(parties)}
    for each in happened:
        one, other = sorted((rank.get(each.event.sender, 0), rank.get(each.event.receiver, 0)))
        if isinstance(each, Hop) and other == one + 1:
            font = _FONT * (BOLD if each.event.kind == "cable" else 1)
            gaps[one] = max(gaps[one], min(width(each.event.name, font) + 24, most))
    room = max(_ROOM - _MARGIN - 2 * _SIDE, least * len(gaps))
    wanted = sum(gap - least for gap in gaps)
    spare = room - least * len(gaps)
    if wanted > spare:
        return [least + (gap - least) * spare / wanted for gap in gaps]
    even = room / max(len(gaps), 1)
    above = sum(max(even - gap, 0.0) for gap in gaps) or 1.0
    return [min(gap + max(even - gap, 0.0) * (room - sum(gaps)) / above, most) for gap in gaps]


def _styled(style: str, event: Event) -> str:
    """``style``, and that of a fault where the event happened under one."""
    return f"{style} faulty" if fault_of(event) else style


class _Pen:
    """Draws row by row; ``y`` is where the next row begins."""

    def __init__(
        self, parties: Sequence[str], happened: Sequence[Hop | Note], names: Names
    ) -> None:
        self.names = names
        self.done = Diagram()
        gaps = _gaps(parties, happened)
        places = [_MARGIN + _SIDE + sum(gaps[:rank]) for rank in range(len(parties))]
        self.x = dict(zip(parties, places, strict=True))
        self.done.width = _MARGIN + 2 * _SIDE + sum(gaps)
        sides = [2 * _SIDE, *gaps, 2 * _SIDE]
        self.done.lanes = [
            Lane(
                self.x[name],
                tuple(wrapped(names.short(name), _FONT * BOLD, min(left, right) - 8, 2)),
                names.kind(name),
            )
            for name, left, right in zip(parties, sides, sides[1:], strict=False)
        ]
        self.busy = dict.fromkeys(parties, 0)
        self.y = _HEAD + 10

    def draw(self, items: Sequence[Item]) -> Diagram:
        self._items(items)
        self.y += 14
        self.done.bars.sort(key=lambda bar: -bar.height)  # who waits lies under who is asked
        self.done.tall = self.y > 900
        self.done.height = self.y + (_HEAD if self.done.tall else 0)
        talk = ", ".join(" ".join(lane.title) for lane in self.done.lanes)
        self.done.says = f"Sequence diagram between {talk}; every hop is also in the list below."
        return self.done

    def _items(self, items: Sequence[Item]) -> None:
        for item in items:
            if isinstance(item, Hop):
                self._hop(item)
            elif isinstance(item, Note):
                self._note(item)
            elif isinstance(item, Parallel):
                self._parallel(item)
            elif isinstance(item, Loop):
                self._loop(item)
            else:
                self._band(item)

    # ----------------------------------------------------------------------- rows

    def _hop(self, hop: Hop) -> None:
        event = hop.event
        if event.sender == event.receiver:
            self._note(Note(event, hop.start, hop.number))
            self._items(hop.inside)
            return
        refused = denied(event)
        self.y += _ROW if hop.inside else _LEAF
        top = self.y
        self._tag(hop.number)
        meta = f"{size(event.cost['bytes'])}" if event.cost.get("bytes") else ""
        if event.milliseconds is not None:
            meta = f"{meta} · {duration(event.milliseconds)}".strip(" ·")
        self._arrow(event, _styled(event.kind, event), event.name, meta)
        self.busy[event.receiver] += 1
        self._items(hop.inside)
        said = answer(event)
        back = f"{event.kind} back" + (" refused" if refused else "")
        if hop.inside:
            self.y += 30
        elif refused or (event.kind == "cable" and not OK_CODES.match(said)):
            self.y += 28
        else:
            said, self.y = "", self.y + 9
        label = f"✕ {said}" if refused and said else said
        if said and event.kind == "cable" and not refused:
            label = f"{event.data.get('response_name', '')}: {said}"
        self.busy[event.receiver] -= 1
        self._arrow(event, _styled(back, event), label, "", backwards=True)
        self._bar(event, top)

    def _parallel(self, group: Parallel) -> None:
        event = group.hops[0].event
        said = [answer(hop.event) for hop in group.hops]
        refused = any(denied(hop.event) for hop in group.hops)
        self.y += _LEAF
        top = self.y
        first, last = group.hops[0].number, group.hops[-1].number
        span = first if first == last else f"{first}–{last.rpartition('.')[2]}"
        self._tag(first, span)
        longest = max((hop.event.milliseconds or 0.0) for hop in group.hops)
        self._arrow(event, event.kind, f"{event.name} × {len(group.hops)}", duration(longest))
        self.y += 22
        words = f"{said[0]} × {len(said)}" if len(set(said)) == 1 else ", ".join(said)
        label = f"✕ {words}" if refused else words
        back = f"{event.kind} back" + (" refused" if refused else "")
        self._arrow(event, back, label, "", backwards=True)
        self._bar(event, top)

    def _note(self, note: Note) -> None:
        event = note.event
        style = "refused" if event.outcome != "ok" and event.kind != "fault" else event.kind
        lines = tuple(wrapped(opening(sentence(event)), _SMALL, _NOTE_WIDTH - 34, 3))
        height = len(lines) * _NOTE_LINE + 11
        wide = max(width(line, _SMALL) for line in lines) + 36
        x = self.x.get(note.party, self.done.width / 2) - wide / 2
        x = min(max(x, _MARGIN + 4), self.done.width - wide - 4)
        self.y += 12
        if note.number:
            self._tag(note.number, at=self.y + height / 2)
        mark = {"verdict": "✓", "issued": "◆", "ledger": "€", "revoked": "✕", "fault": "!"}.get(
            style, "•"
        )
        mark = "✕" if style == "refused" else mark
        self.done.boxes.append(Box(x, self.y, wide, height, _styled(style, event), mark, lines))
        self.y += height

    def _loop(self, loop: Loop) -> None:
        self.y += 26
        top = self.y
        self.y += 12
        self._items(loop.rounds[0])
        self.y += 12
        readings = meter_readings(each.event for part in loop.rounds for each in walk(part))
        meta = "first round drawn"
        if readings:
            meta = f"meter from {readings[0]:,} to {readings[-1]:,} Wh; {meta}".replace(
                ",", "\u202f"
            )
        self.done.loops.append(Frame(top, self.y - top, f"{len(loop.rounds)} times", meta))
        self.y += 4

    def _band(self, chapter: Trigger) -> None:
        self.y += 14 if self.y > _HEAD + 10 else 4
        self.done.bands.append(Frame(self.y, 28, chapter.text, chapter.name))
        self.y += 30

    # -------------------------------------------------------------------- strokes

    def _tag(self, number: str, text: str = "", at: float | None = None) -> None:
        if number:
            self.done.tags.append(Tag(self.y if at is None else at, text or number, anchor(number)))

    def _edge(self, party: str, towards: float) -> float:
        """Where an arrow meets the lane: beside its bar, if it is at work."""
        depth = self.busy[party]
        middle = self.x[party] + max(depth - 1, 0) * _BAR
        if not depth:
            return middle
        return middle + (_BAR if towards > middle else -_BAR)

    def _arrow(
        self, event: Event, style: str, label: str, meta: str, backwards: bool = False
    ) -> None:
        ends = (event.receiver, event.sender) if backwards else (event.sender, event.receiver)
        x1 = self._edge(ends[0], self.x[ends[1]])
        x2 = self._edge(ends[1], self.x[ends[0]])
        if backwards:
            x1 += _BAR if x2 > x1 else -_BAR
        else:
            x2 += -_BAR if x2 > x1 else _BAR
        room = abs(x2 - x1) - 16
        bold = style in ("cable", "cable faulty") or "refused" in style
        font = _FONT * (BOLD if bold else 1)
        if width(label, font) + width(meta, _SMALL) + 10 > room:
            meta = ""
        half = (width(label, font) + (width(meta, _SMALL) + 8 if meta else 0)) / 2
        middle = (x1 + x2) / 2
        middle = min(max(middle, _MARGIN + 6 + half), self.done.width - half - 2)
        self.done.arrows.append(Arrow(self.y, x1, x2, style, label, meta, middle))

    def _bar(self, event: Event, top: float) -> None:
        x = self.x[event.receiver] + self.busy[event.receiver] * _BAR
        self.done.bars.append(Bar(x - _BAR, top, max(self.y - top, 6), event.kind))
