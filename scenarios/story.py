"""A run told as a story: its steps, each with what it is about and the events it caused.

A :class:`Story` is all that a report needs; :mod:`scenarios.report` draws it. Everything
that happened comes from the parties' event streams, the words around it from the
scenario.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from services.common.events import Event


@dataclass
class Step:
    """One step: number and title, an explanation for people, one sentence on how it went."""

    number: int
    title: str
    text: str
    result: str = ""
    outcome: str = "ok"
    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class PartyView:
    """A party as a picture shows it."""

    name: str
    kind: str
    title: str
    organisation: str
    known_as: str = ""
    """Its identifier in certificates: WMI, provider id, operator id or EVSEID."""


@dataclass
class Story:
    """A whole run. ``facts`` are a few values for its head (PCID, EMAID, balances), ``lead``
    what it is about."""

    title: str
    run: str
    began_at: str
    trust_model: str
    trust_says: str
    parties: Sequence[PartyView]
    steps: list[Step] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    lead: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON; events with their bytes as base64."""
        return {
            "title": self.title,
            "run": self.run,
            "began_at": self.began_at,
            "trust_model": self.trust_model,
            "trust_says": self.trust_says,
            "parties": [vars(party) for party in self.parties],
            "facts": self.facts,
            "seconds": self.seconds,
            "lead": self.lead,
            "steps": [
                {**vars(step), "events": [event.as_dict() for event in step.events]}
                for step in self.steps
            ],
        }

    def summary(self) -> dict[str, Any]:
        """The story without its events, for ``--json``."""
        whole = self.as_dict()
        for step in whole["steps"]:
            step["events"] = len(step["events"])
        return whole

    @classmethod
    def from_json(cls, text: str) -> Story:
        """The inverse of :meth:`as_dict` over JSON."""
        values = json.loads(text)
        steps = [
            Step(**{**step, "events": [Event.from_dict(event) for event in step["events"]]})
            for step in values.pop("steps")
        ]
        parties = [PartyView(**party) for party in values.pop("parties")]
        return cls(**values, steps=steps, parties=parties)
