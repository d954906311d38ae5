"""The report of ``pnclab scenario run``: one page about all scenarios, and one for each play.

The page needs nothing but itself. The plays' pages lie in a folder beside it, as each shows
every message of its play; only what leads there is a relative link.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from services.ecosystem import Ecosystem

from ..playing import Result
from ..scenario import Scenario
from .page import Ended, Frame, render, templates
from .plays import compared, play_label, story_of
from .text import minute, opening, plural

MOST = 1_400_000
"""Bytes that a play's page may have."""

_UNSAFE = re.compile(r"[^A-Za-z0-9.]+")


@dataclass(frozen=True)
class Played:
    """A play as the page shows it; ``href`` leads to its own page, "" where there is none."""

    label: str
    twin: bool
    mark: str
    word: str
    endings: Sequence[Ended]
    problems: Sequence[str]
    skipped: str
    policies: str
    seconds: str
    events: str
    run: str
    href: str


@dataclass
class Told:
    """A scenario with its plays."""

    scenario: Scenario
    paragraphs: Sequence[str]
    plays: list[Played] = field(default_factory=list)

    @property
    def id(self) -> str:
        return f"scenario-{_slug(self.scenario.name)}"


@dataclass
class Group:
    """The scenarios of a module of the library, under the words of its docstring."""

    title: str
    text: str
    told: list[Told] = field(default_factory=list)


def plays_folder(file: Path) -> Path:
    """Where the plays' pages of the report ``file`` lie."""
    return file.with_name(f"{file.stem}-plays")


def write_report(results: Sequence[Result], ecosystem: Ecosystem, file: Path) -> None:
    """Write ``file`` about ``results``, and beside it a folder with a page for each play.

    OSError where something cannot be written. Pages of an earlier report are written over
    where they have the same name; nothing is deleted.
    """
    folder = plays_folder(file)
    groups: dict[str, Group] = {}
    told: dict[str, Told] = {}
    names: set[str] = set()
    for result in results:
        one = result.part.scenario
        if one.name not in told:
            told[one.name] = Told(one, one.text.split("\n\n"))
            module = one.story.__module__
            groups.setdefault(module, _group(module)).told.append(told[one.name])
        endings = compared(result)
        href = ""
        if result.events:
            folder.mkdir(exist_ok=True)
            name = _file_name(result, names)
            href = f"{quote(folder.name)}/{quote(name)}"
            back = Frame(
                f"../{quote(file.name)}#{told[one.name].id}",
                "all scenarios",
                endings,
                result.problems,
                _policies(result),
            )
            page = render(story_of(result, ecosystem), frame=back, most=MOST)
            (folder / name).write_text(page, encoding="utf-8")
        told[one.name].plays.append(_played(result, endings, href))
    html = (
        templates()
        .get_template("scenarios.html")
        .render(
            groups=list(groups.values()),
            bad=[(one, play) for one in told.values() for play in one.plays if play.problems],
            title=_title(results),
            facts=_facts(results, ecosystem),
        )
    )
    file.write_text(html, encoding="utf-8")


def _group(module: str) -> Group:
    """``What goes well: contracts ...`` has its title before the colon."""
    text = inspect.getdoc(importlib.import_module(module)) or module
    head = " ".join(text.partition("\n\n")[0].split()).rstrip(".")
    title, _, rest = head.partition(": ")
    return Group(title, opening(rest))


def _slug(text: str) -> str:
    return _UNSAFE.sub("-", text).strip("-.").lower()


def _file_name(result: Result, taken: set[str]) -> str:
    stem = _slug(f"{result.part.scenario.name} {play_label(result.part)}")
    name, count = f"{stem}.html", 1
    while name in taken:
        count += 1
        name = f"{stem}-{count}.html"
    taken.add(name)
    return name


def _policies(result: Result) -> str:
    return ", ".join(f"{k} = {v}" for k, v in result.part.declared.policies.items())


def _played(result: Result, endings: Sequence[Ended], href: str) -> Played:
    mark, word = (
        ("–", "skipped")
        if result.skipped
        else ("✕", "not as declared")
        if result.problems
        else ("✓", "as declared")
    )
    return Played(
        play_label(result.part),
        not result.part.spoiling,
        mark,
        word,
        endings,
        result.problems,
        result.skipped,
        _policies(result),
        f"{result.seconds:.1f} s",
        plural(len(result.events), "event"),
        result.run,
        href,
    )


def _title(results: Sequence[Result]) -> str:
    bad = sum(bool(result.problems) for result in results)
    skipped = sum(bool(result.skipped) for result in results)
    if bad:
        return f"{plural(bad, 'play')} did not end as declared"
    if skipped == len(results):
        return "Nothing was played"
    return "All ended as declared" if not skipped else "All that was played ended as declared"


def _facts(results: Sequence[Result], ecosystem: Ecosystem) -> list[tuple[str, str]]:
    bad = sum(bool(result.problems) for result in results)
    skipped = sum(bool(result.skipped) for result in results)
    refused = sum(
        ending.outcome != "charged" for result in results for ending in result.seen.values()
    )
    visits = sum(len(result.seen) for result in results)
    began = _first(results)
    rows = (
        ("Scenarios", str(len({result.part.scenario.name for result in results}))),
        ("Plays, with twins", str(len(results))),
        ("As declared", str(len(results) - bad - skipped)),
        ("Not as declared", str(bad)),
        ("Skipped", str(skipped or "")),
        ("Endings seen", f"{visits - refused} charged, {refused} refused"),
        ("Trust model", ecosystem.trust_model.title),
        ("Played", began),
        ("The plays took", f"{sum(result.seconds for result in results):.0f} s"),
    )
    return [(term, value) for term, value in rows if value]


def _first(results: Iterable[Result]) -> str:
    first = min((event.began for result in results for event in result.events), default=None)
    return minute(datetime.fromtimestamp(first, UTC).isoformat()) if first is not None else ""
