"""Moving the clock of a running ecosystem, and what has to follow.

The clock is one for all parties that share a data folder; parties elsewhere are set to the same
instant. Then the jobs of all parties run, those first that others ask (an issuer before who
needs a new certificate), again and again until nothing more is done: what lives on renews
itself, also when years passed in one step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from .lab import Lab, LabError

# Whom others ask first, who asks last.
ORDER = ("v2g-root", "rcp", "oem", "mo", "pcp", "cps", "ccp", "cpo", "charger", "vehicle")
# Every link of the longest chain of those who wait for each other needs one turn.
MAX_TURNS = 12
# Clocks that were set one after the other differ by so much at most, seconds.
SAME = 1.0


@dataclass(frozen=True)
class Job:
    """Something that a party's job did, or (``why``) could not do yet."""

    party: str
    job: str
    what: str
    why: str = ""


@dataclass
class Settled:
    """What was done until nothing more was, and what still waits."""

    done: list[Job] = field(default_factory=list)
    waits: list[Job] = field(default_factory=list)
    turns: int = 0
    finished: bool = True

    def as_dict(self) -> dict[str, Any]:
        return {
            "done": [{"party": one.party, "job": one.job, "what": one.what} for one in self.done],
            "waits": [
                {"party": one.party, "job": one.job, "what": one.what, "why": one.why}
                for one in self.waits
            ],
            "turns": self.turns,
            "finished": self.finished,
        }


def in_order(lab: Lab, names: Sequence[str]) -> list[list[str]]:
    """``names`` in groups: whom others ask first."""
    kinds = {name: lab.ecosystem.party(name).kind for name in names}
    groups = [[name for name in names if kinds[name] == kind] for kind in ORDER]
    return [group for group in groups if group]


async def up_and_down(lab: Lab, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Which of ``names`` answer, and which do not."""

    async def answers(name: str) -> bool:
        try:
            await lab.healthy(name)
        except LabError as error:
            return error.status != 0
        return True

    found = await asyncio.gather(*(answers(name) for name in names))
    up = [name for name, is_up in zip(names, found, strict=True) if is_up]
    return up, [name for name in names if name not in up]


async def move(lab: Lab, body: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Move the clock (``body`` of ``PUT /clock``) of the running parties ``names``.

    The answer of the first one, with ``set``: the parties that had to be told, as they do not
    share its data folder. LabError where it is refused.
    """
    first = next(name for group in in_order(lab, names) for name in group)
    answer: dict[str, Any] = await lab.call(first, "PUT", "/clock", body)
    told = [first]
    for name in names:
        wanted, shown = await asyncio.gather(
            lab.call(first, "GET", "/clock"), lab.call(name, "GET", "/clock")
        )
        if not same(wanted, shown):
            again = {"instant": wanted["now"], "standing": wanted["standing"]}
            await lab.call(name, "PUT", "/clock", again)
            told.append(name)
    return {**answer, "set": told}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers of ``GET /clock`` are of clocks that show the same."""
    if one["standing"] or other["standing"]:
        return bool(one["standing"] == other["standing"] and one["now"] == other["now"])
    return bool(abs(one["offset_seconds"] - other["offset_seconds"]) < SAME)


async def settle(
    lab: Lab, names: Sequence[str], on_turn: Callable[[int, str], None] | None = None
) -> Settled:
    """Run the jobs of the running parties ``names`` until nothing more is done.

    ``on_turn`` is told the number of the turn and whose jobs run. LabError where a party stops
    answering.
    """
    settled = Settled()
    while settled.turns < MAX_TURNS:
        settled.turns += 1
        before, settled.waits = len(settled.done), []
        for group in in_order(lab, names):
            if on_turn is not None:
                on_turn(settled.turns, ", ".join(group))
            answers = await asyncio.gather(*(lab.call(name, "POST", "/jobs/run") for name in group))
            for name, answer in zip(group, answers, strict=True):
                for job in answer["jobs"]:
                    settled.done += [Job(name, job["job"], what) for what in job["done"]]
                    settled.waits += [
                        Job(name, job["job"], one["what"], one["why"]) for one in job["waits"]
                    ]
        if len(settled.done) == before:
            return settled
    settled.finished = False
    return settled
