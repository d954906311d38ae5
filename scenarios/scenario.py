"""What a scenario is: a function with a declared ending, and for a refusal its accepted twin.

A scenario is a plain async function over a :class:`~.town.Town`; its docstring is its
documentation. It is declared with :func:`scenario`: where the story must be decided (the
stage), with which response code, and whether somebody pays. A story that spoils something
asks ``town.spoiling``: the same function is played a second time without the spoiling (the
*twin*) and must then end well, so that a refusal is known to come from the spoiled property
and from nothing else. Where a policy decides, the scenario has several *plays*, each with its
policies and its ending.
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
import pkgutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.common.problems import WrongUseError

if TYPE_CHECKING:
    from .town import Town

CHARGED, REFUSED, FAILED = "charged", "refused", "failed"
SETTLED, DISPUTED, UNPAID = "settled", "disputed", ""
IN_THE_CAR = "in the car"


@dataclass(frozen=True)
class Ending:
    """How a visit to a charger ends, declared or seen.

    ``stage`` is the message at which it is decided (``in the car`` where the car refuses),
    ``code`` the response code of ISO 15118-2, ``paid`` what became of the record: ``settled``,
    ``disputed``, or empty where nothing is to be paid. ``because`` is a part of the reason: the
    finding or the check (declared), or all that was said (seen).
    """

    outcome: str
    stage: str
    code: str
    paid: str = UNPAID
    because: str = ""

    def differences(self, seen: Ending) -> list[str]:
        """What ``seen`` has otherwise than this declaration; empty: it is as declared."""
        found = [
            f"{name}: {getattr(self, name)!r} is declared, {getattr(seen, name)!r} was seen"
            for name in ("outcome", "stage", "code", "paid")
            if getattr(self, name) != getattr(seen, name)
        ]
        if self.because and self.because.lower() not in seen.because.lower():
            found.append(f"because: {self.because!r} is not in {seen.because!r}")
        return found

    def __str__(self) -> str:
        paid = {SETTLED: "billed", DISPUTED: "disputed, not paid"}.get(self.paid, "")
        if self.stage == IN_THE_CAR:  # no message carries a code for it
            return f"{self.outcome} {IN_THE_CAR}"
        end = f"{self.outcome} at {self.stage}" if self.outcome != CHARGED else "charged"
        return ", ".join(part for part in (end, self.code, paid) if part)


Endings = Mapping[str, Ending]


def charged(code: str = "OK", *, paid: str = SETTLED) -> Ending:
    """The car charges; ``code`` is PaymentDetailsRes' response code."""
    return Ending(CHARGED, "SessionStopReq", code, paid)


def refused(stage: str, code: str, because: str = "") -> Ending:
    """The charger refuses with a response code."""
    return Ending(REFUSED, stage, code, UNPAID, because)


def refused_by_car(because: str) -> Ending:
    """The car itself refuses what it was given; nothing is stored."""
    return Ending(REFUSED, IN_THE_CAR, "refused by the car", UNPAID, because)


@dataclass(frozen=True)
class Play:
    """One way to play a scenario: under which policies, with which ending.

    An ending by the name of a visit, where the scenario has several visits.
    """

    ending: Ending | Endings
    policies: Mapping[str, str] = field(default_factory=dict)

    @property
    def endings(self) -> Endings:
        return {"": self.ending} if isinstance(self.ending, Ending) else self.ending


Story = Callable[["Town"], Awaitable[Ending | dict[str, Ending]]]


@dataclass(frozen=True)
class Scenario:
    """A scenario as declared."""

    name: str
    story: Story
    plays: Mapping[str, Play]
    twin: Play | None
    stage: str
    alone: bool
    lifetimes: Mapping[str, str]

    @property
    def title(self) -> str:
        """The first line of the docstring."""
        return self.text.partition("\n")[0]

    @property
    def text(self) -> str:
        return inspect.cleandoc(self.story.__doc__ or "")

    def __str__(self) -> str:
        return self.name


_known: dict[str, Scenario] = {}


def scenario(
    ending: Ending | Endings | None = None,
    *,
    name: str = "",
    plays: Mapping[str, Play] | None = None,
    policies: Mapping[str, str] | None = None,
    twin: Ending | Endings | None = None,
    stage: str = "",
    alone: bool = False,
    lifetimes: Mapping[str, str] | None = None,
) -> Callable[[Story], Story]:
    """Declare the decorated function as a scenario; without a ``name`` it has the function's,
    with hyphens for underscores.

    One ``ending`` (under ``policies``), or several named ``plays``. A scenario that does not end
    well has a ``twin``: the ending without the spoiling, by default charged and billed.
    ``alone`` is for stories that change what others share (the clock, roots, parties that are
    stopped): they get an ecosystem of their own, in which certificates may have other
    ``lifetimes``.
    """

    def declare(story: Story) -> Story:
        called = name or story.__name__.replace("_", "-")
        assert (ending is None) != (plays is None), f"{called}: one ending, or several plays"
        assert story.__doc__, f"{called} has no docstring"
        assert called not in _known, f"{called} is declared twice"
        assert alone or not lifetimes, f"{called}: other lifetimes need an ecosystem of its own"
        all_plays = dict(plays or {})
        if ending is not None:
            all_plays[""] = Play(ending, policies or {})
        endings = [one for play in all_plays.values() for one in play.endings.values()]
        spoiled = any(one.outcome != CHARGED or one.paid == DISPUTED for one in endings)
        second = Play(twin) if twin is not None else Play(charged()) if spoiled else None
        decided = stage or next(
            (one.stage for one in endings if one.outcome != CHARGED), endings[0].stage
        )
        _known[called] = Scenario(
            called, story, all_plays, second, decided, alone, dict(lifetimes or {})
        )
        return story

    return declare


def catalogue() -> Mapping[str, Scenario]:
    """All scenarios of the library by name, in the order in which they are declared."""
    from . import library

    for module in pkgutil.iter_modules(library.__path__):
        importlib.import_module(f"{library.__name__}.{module.name}")
    return dict(_known)


def chosen(names: list[str], everything: bool) -> list[Scenario]:
    """The scenarios of these names (or shell patterns), or all. WrongUseError names one that
    there is not."""
    known = catalogue()
    if everything:
        return list(known.values())
    found: dict[str, Scenario] = {}
    for pattern in names:
        matching = fnmatch.filter(known, pattern)
        if not matching:
            raise WrongUseError(
                f"there is no scenario {pattern!r}; `pnclab scenario list` says which there are"
            )
        found |= {name: known[name] for name in matching}
    return list(found.values())


@dataclass(frozen=True)
class Part:
    """One play of one scenario: the spoiled one, or its twin."""

    scenario: Scenario
    play: str
    spoiling: bool

    @property
    def declared(self) -> Play:
        play = self.scenario.plays[self.play]
        if self.spoiling or self.scenario.twin is None:
            return play
        return Play(self.scenario.twin.ending, play.policies)

    @property
    def name(self) -> str:
        """``operator-down (fail-open), twin``."""
        name = self.scenario.name
        if self.play:
            name += f" ({self.play})"
        return name if self.spoiling else f"{name}, twin"


def parts_of(scenarios: Iterable[Scenario]) -> list[Part]:
    """Everything that is to be played, scenario by scenario: each play, and its twin."""
    return [
        Part(one, play, spoiling)
        for one in scenarios
        for play in one.plays
        for spoiling in ((True, False) if one.twin is not None else (True,))
    ]


def described(one: Scenario) -> dict[str, Any]:
    """A scenario for programs."""

    def endings(play: Play) -> dict[str, Any]:
        return {name: vars(ending) for name, ending in play.endings.items()}

    return {
        "name": one.name,
        "title": one.title,
        "text": one.text,
        "stage": one.stage,
        "alone": one.alone,
        "plays": {
            name: {"policies": dict(play.policies), "endings": endings(play)}
            for name, play in one.plays.items()
        },
        "twin": endings(one.twin) if one.twin else None,
    }
