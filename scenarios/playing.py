"""Plays scenarios: each on a fresh ecosystem, or on one that is shared by those that allow it.

Every play is a run of its own in the event stream. What differs from the declaration is a
problem of the result, and so is a story that does not get through; what the ecosystem lacks
is a reason to skip.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from services.common.events import Event
from services.common.problems import NotAsExpectedError
from services.ecosystem import Ecosystem

from .databases import fresh_database
from .lab import Lab
from .parties import Parties
from .scenario import Ending, Endings, Part, Scenario, parts_of
from .town import NotPlayable, Town

log = logging.getLogger("pnclab")


@dataclass
class Result:
    """How a play went: as declared where there are no ``problems``."""

    part: Part
    run: str
    began_at: str = ""
    seen: Endings = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    skipped: str = ""
    seconds: float = 0.0
    events: list[Event] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.problems and not self.skipped

    def as_dict(self) -> dict[str, Any]:
        """The result for programs; the events are only counted."""

        def endings(given: Endings) -> dict[str, Any]:
            return {name: vars(ending) for name, ending in given.items()}

        return {
            "scenario": self.part.scenario.name,
            "play": self.part.play,
            "twin": not self.part.spoiling,
            "policies": dict(self.part.declared.policies),
            "declared": endings(self.part.declared.endings),
            "seen": endings(self.seen),
            "as_declared": self.good,
            "problems": self.problems,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 3),
            "run": self.run,
            "events": len(self.events),
        }


def not_played(part: Part) -> Result:
    """The result of a play to which it did not come."""
    return Result(part, "", skipped="was not played, as it did not go on")


async def play(
    ecosystem: Ecosystem, scenarios: Sequence[Scenario], *, database: str | None = None
) -> AsyncIterator[Result]:
    """Play scenarios on ecosystems made like ``ecosystem``; results as they come.

    ``database`` is the URL of a PostgreSQL server on which databases may be created; without
    it each party has a SQLite file. What is made for the plays is gone afterwards.
    """
    everything = parts_of(scenarios)
    together = [part for part in everything if not part.scenario.alone]
    together.sort(key=lambda part: _key(part.declared.policies))
    groups = [list(one) for _, one in groupby(together, lambda part: _key(part.declared.policies))]
    groups += [[part] for part in everything if part.scenario.alone]
    for members in groups:
        left = list(members)
        try:
            shaped = ecosystem.with_lifetimes(members[0].scenario.lifetimes)
            async with _session(shaped, members[0].declared.policies, database) as parties:
                while left:
                    yield await _play(left.pop(0), parties)
        except NotAsExpectedError as error:
            # Without its ecosystem nothing of this group can be played; the others go on.
            for part in left:
                yield Result(part, run="", problems=[f"the ecosystem did not start: {error}"])


def _key(policies: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(policies.items()))


@contextlib.asynccontextmanager
async def _session(
    ecosystem: Ecosystem, policies: Mapping[str, str], database: str | None
) -> AsyncIterator[Parties]:
    with (
        tempfile.TemporaryDirectory(prefix="pnclab-scenario-") as folder,
        _placed(ecosystem, Path(folder), database) as fresh,
    ):
        async with Parties(fresh.with_policies(policies)) as parties:
            yield parties


@contextlib.contextmanager
def _placed(ecosystem: Ecosystem, folder: Path, database: str | None) -> Iterator[Ecosystem]:
    fresh = ecosystem.in_folder(folder).on_free_ports().with_faults()
    if database is None:
        yield fresh
        return
    with fresh_database(database) as url:
        yield fresh.on_database(url)


async def _play(part: Part, parties: Parties) -> Result:
    run = f"{part.scenario.name}-{secrets.token_hex(3)}"
    result = Result(part, run)
    start = time.monotonic()
    async with Lab(parties.ecosystem, run) as lab:
        try:
            town = Town(
                parties.ecosystem,
                parties,
                lab,
                spoiling=part.spoiling,
                policies=dict(part.declared.policies),
            )
            seen = await part.scenario.story(town)
            result.seen = {"": seen} if isinstance(seen, Ending) else seen
        except NotPlayable as reason:
            result.skipped = str(reason)
        except NotAsExpectedError as error:
            result.problems.append(str(error))
        except Exception as error:
            log.exception("%s: a defect", part.name)
            result.problems.append(f"a defect: {type(error).__name__}: {error}")
        else:
            result.problems += _differences(part.declared.endings, result.seen)
        with contextlib.suppress(NotAsExpectedError):
            result.events = await lab.events(run)
    result.began_at = str(min((event.at for event in result.events if event.at), default=""))
    result.seconds = time.monotonic() - start
    return result


def _differences(declared: Endings, seen: Endings) -> list[str]:
    problems = [f"{name or 'the visit'}: was not seen" for name in declared if name not in seen]
    problems += [f"{name or 'the visit'}: is not declared" for name in seen if name not in declared]
    for name, ending in declared.items():
        if name in seen:
            prefix = f"{name}: " if name else ""
            problems += [prefix + found for found in ending.differences(seen[name])]
    return problems
