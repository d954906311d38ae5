"""The page: all views of a story put together and handed to the templates."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import jinja2

from scenarios.story import Step, Story
from services.common.events import Event

from . import chains as drawn_chains
from .cast import Map, cast
from .decoded import Part, parts
from .hops import (
    OUTSIDE,
    Hop,
    Item,
    Loop,
    Note,
    Parallel,
    answer,
    denied,
    fault_of,
    tree,
    triggers,
    walk,
)
from .invoice import Invoice, invoices
from .sequence import Diagram, anchor, diagram
from .text import (
    OUTCOME_WORDS,
    Names,
    common_name,
    costs,
    duration,
    minute,
    opening,
    plain,
    plural,
    size,
)
from .visits import Comparison, Rung, comparison, ladder

MARKS = {"ok": "✓", "refused": "✕", "failed": "✕"}


@dataclass(frozen=True)
class Frame:
    """What a page says around its story where it belongs to others: the way back to them
    (a relative address and its words), how the story was declared to end and how it did."""

    back: str
    back_words: str
    endings: Sequence[Ended] = ()
    problems: Sequence[str] = ()
    policies: str = ""


@dataclass(frozen=True)
class Ended:
    """An ending as declared beside as seen; ``visit`` is empty where there is only one."""

    visit: str
    declared: str
    seen: str
    same: bool
    because: str = ""


@dataclass(frozen=True)
class Detail:
    """How much of what was sent a page shows; ``without`` says what is missing."""

    without: str = ""
    whole: bool = True
    dumps: frozenset[str] = frozenset({"cable", "http", "issued", "state", "ledger"})
    parts: frozenset[str] = frozenset({"cable", "http", "issued", "state", "ledger"})
    entries: bool = True


_CABLE = frozenset({"cable"})
_DETAILS = (
    Detail(),
    Detail("the whole of long messages in hex", whole=False),
    Detail("hex dumps of all but the cable's messages", whole=False, dumps=_CABLE),
    Detail("all hex dumps", dumps=frozenset()),
    Detail(
        "all hex dumps, and what was sent over HTTP and certificates, decoded",
        dumps=frozenset(),
        parts=_CABLE,
    ),
    Detail("everything that was sent, decoded and in hex", dumps=frozenset(), parts=frozenset()),
    Detail("the lists of all hops with what was sent", entries=False),
)
"""From everything to the pictures alone, each smaller than the one before."""


@dataclass(frozen=True)
class Entry:
    """A hop or a certificate in a step's list, with everything that it carried."""

    number: str
    id: str
    kind: str
    name: str
    route: str
    says: str
    size: str
    took: str
    refused: bool
    answer: str
    costs: str
    parts: tuple[Part, ...]
    fault: str = ""


@dataclass(frozen=True)
class Fold:
    """Entries of the rounds of a loop after the first, folded away together."""

    title: str
    entries: tuple[Entry, ...]


@dataclass
class Chapter:
    """A step as the page shows it."""

    step: Step
    mark: str
    word: str
    result: str
    diagram: Diagram | None
    entries: list[Entry | Fold]
    chains: list[drawn_chains.Chain]
    invoices: list[Invoice]
    comparison: Comparison | None = None
    hierarchy: list[drawn_chains.Branch] = field(default_factory=list)
    ladder: list[Rung] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"step-{self.step.number}"


@dataclass(frozen=True)
class Second:
    """Where time went: a bar of ``share`` (0 to 1) of the longest."""

    name: str
    seconds: str
    share: float


@dataclass(frozen=True)
class Page:
    """Everything that the page shows."""

    story: Story
    began: str
    facts: list[tuple[str, str, str]]
    map: Map
    chapters: list[Chapter]
    totals: list[tuple[str, str]]
    seconds: list[Second]
    total_seconds: str
    without: str = ""


def render(story: Story, *, frame: Frame | None = None, most: int | None = None) -> str:
    """``story`` as one self-contained HTML page, in a ``frame`` where it is one of many.

    A page of more than ``most`` bytes is made again with less of what was sent, until it fits
    or only its pictures are left, and says what it leaves out.
    """
    environment = templates()
    loader = environment.loader
    if loader is None:  # PackageLoader is given below; this tells the type checker
        raise RuntimeError("the report's templates have no loader")
    script = loader.get_source(environment, "enhance.js")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    everything = page(story)
    html = ""
    for detail in _DETAILS:
        html = environment.get_template("page.html").render(
            page=_with(everything, detail),
            frame=frame,
            script=script,
            script_hash=f"sha256-{digest}",
        )
        if most is None or len(html.encode()) <= most:
            break
    return html


def _with(everything: Page, detail: Detail) -> Page:
    """The page with no more than ``detail``."""
    if not detail.without:
        return everything
    return replace(
        everything,
        without=detail.without,
        chapters=[
            replace(
                chapter,
                entries=[_less(each, detail) for each in chapter.entries] if detail.entries else [],
                diagram=chapter.diagram
                if detail.entries or chapter.diagram is None
                else replace(chapter.diagram, tags=[]),
            )
            for chapter in everything.chapters
        ],
    )


def _less(each: Entry | Fold, detail: Detail) -> Entry | Fold:
    if isinstance(each, Fold):
        return replace(each, entries=tuple(_less_of(entry, detail) for entry in each.entries))
    return _less_of(each, detail)


def _less_of(entry: Entry, detail: Detail) -> Entry:
    if entry.kind not in detail.parts:
        return replace(entry, parts=())
    shown = entry.kind in detail.dumps
    return replace(
        entry,
        parts=tuple(
            replace(
                part,
                dump=replace(part.dump, whole=part.dump.whole if detail.whole else "")
                if shown and part.dump
                else None,
            )
            for part in entry.parts
        ),
    )


@cache
def templates() -> jinja2.Environment:
    """The templates; what they are given is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scenarios.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["px"] = lambda value: f"{value:.1f}".removesuffix(".0")
    return environment


def page(story: Story) -> Page:
    """The views of ``story``."""
    names = Names(story.parties)
    events = [event for step in story.steps for event in step.events]
    compared = comparison(story)
    set_going = triggers(story)
    chapters = [
        _chapter(story, step, tree(step.events, set_going.get(step.number, ())), names, compared)
        for step in story.steps
    ]
    if chapters:
        chapters[0].hierarchy = _trees(story)
    whole = sum(story.seconds.values())
    longest = max(story.seconds.values(), default=0.0)
    return Page(
        story,
        minute(story.began_at),
        _facts(story),
        cast(story.parties, events),
        chapters,
        _totals(events),
        [
            Second(opening(name), f"{seconds:.2f} s", seconds / longest if longest else 0.0)
            for name, seconds in story.seconds.items()
        ],
        f"{whole:.1f}",
    )


def _trees(story: Story) -> list[drawn_chains.Branch]:
    """The trees of trust of a story that begins with them; else none, as only twigs are known."""
    found = drawn_chains.hierarchy(story)
    return found if any(root.tier == "root" and not root.later for root in found) else []


def _facts(story: Story) -> list[tuple[str, str, str]]:
    """Term, value and what the term means, for those that the story knows."""
    rows = (
        ("Car (PCID)", story.facts.get("pcid"), "the car's name in its provisioning certificate"),
        ("Contract (EMAID)", story.facts.get("emaid"), "who pays, in one identifier"),
        ("Driver", story.facts.get("driver"), ""),
        ("Trust model", story.trust_model, ""),
        ("Played", minute(story.began_at) if story.began_at else "", ""),
        ("Run", story.run, ""),
    )
    return [(term, str(value), note) for term, value, note in rows if value]


def _totals(events: Sequence[Event]) -> list[tuple[str, str]]:
    def spent(name: str) -> int:
        return sum(event.cost.get(name, 0) for event in events if event.sender != OUTSIDE)

    def count(kind: str) -> int:
        return sum(
            event.kind == kind and event.sender != OUTSIDE and event.name != "token"
            for event in events
        )

    signed = sum(
        event.kind == "cable" and "SignatureValue>" in str(event.data.get("request"))
        for event in events
    )
    return [
        (f"{count('cable')}", "message pairs over the cable"),
        (f"{count('http')}", "calls between parties"),
        (f"{count('issued')}", "certificates issued"),
        (f"{spent('signatures')}", "signatures on certificates and contract data"),
        (f"{signed}", "messages signed by cars"),
        (f"{spent('verifications')}", "signatures verified"),
        (size(spent("bytes")), "carried and issued"),
    ]


def _chapter(
    story: Story, step: Step, items: list[Item], names: Names, compared: Comparison | None
) -> Chapter:
    for rank, each in enumerate((e for e in walk(items) if _listed(e)), start=1):
        each.number = f"{step.number}.{rank}"
    here = compared if compared is not None and compared.step == step.number else None
    return Chapter(
        step,
        MARKS.get(step.outcome, "•"),
        OUTCOME_WORDS.get(step.outcome, step.outcome),
        opening(step.result),
        diagram(items, names),
        list(_entries(items, names)),
        drawn_chains.chains(step.events, names),
        invoices(story, step.number),
        here,
        ladder=ladder(step.events, names) if step.outcome != "ok" and here is None else [],
    )


def _listed(each: Hop | Note) -> bool:
    """Hops, and notes that carry bytes of their own: certificates, signed documents."""
    if isinstance(each, Hop):
        return True
    return each.event.response is not None and each.event.kind != "verdict"


def _entries(items: Iterable[Item], names: Names) -> Iterable[Entry | Fold]:
    for item in items:
        if isinstance(item, Loop):
            yield from _entries(item.rounds[0], names)
            more = [
                _entry(each, names)
                for part in item.rounds[1:]
                for each in walk(part)
                if _listed(each)
            ]
            yield Fold(
                f"{plural(len(item.rounds) - 1, 'more round')} of the same, "
                f"{plural(len(more), 'hop')}",
                tuple(more),
            )
        elif isinstance(item, Parallel):
            yield from (_entry(hop, names) for hop in item.hops)
        elif isinstance(item, Hop | Note):
            if _listed(item):
                yield _entry(item, names)
            if isinstance(item, Hop):
                yield from _entries(item.inside, names)


def _entry(each: Hop | Note, names: Names) -> Entry:
    event = each.event
    sender, receiver = names.short(event.sender), names.short(event.receiver)
    name = event.name
    if event.kind == "issued":
        name = common_name(str(event.data.get("subject") or event.name))
    said = answer(event) if isinstance(each, Hop) else ""
    return Entry(
        each.number,
        anchor(each.number),
        event.kind,
        name,
        f"{sender} → {receiver}" if isinstance(each, Hop) else names.short(event.party),
        opening(plain(event.summary)) if event.kind != "cable" else "",
        size(event.cost["bytes"]) if event.cost.get("bytes") else "",
        duration(event.milliseconds),
        denied(event) if isinstance(each, Hop) else event.outcome != "ok",
        said,
        costs(event.cost),
        tuple(parts(event)),
        fault_of(event),
    )
