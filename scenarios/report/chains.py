"""Certificates as drawings: the hierarchy as a tree, a judged chain as a row of cards."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pki.profiles import Role
from scenarios.story import Story
from services.common.events import Event

from .text import Names, common_name, day, opening, plain, role_label

_ORGANISATION = re.compile(r", O=((?:[^,\\]|\\.)+)")

# ------------------------------------------------------------------------------ the hierarchy


@dataclass
class Branch:
    """A certificate with what stands under it; OCSP signers only as a line of their own."""

    name: str
    role: str
    owner: str
    valid: str
    tier: str
    later: int = 0
    below: list[Branch] = field(default_factory=list)
    signers: list[Branch] = field(default_factory=list)

    @property
    def columns(self) -> int:
        """How many leaves stand side by side under it."""
        return sum(branch.columns for branch in self.below) or 1


def hierarchy(story: Story) -> list[Branch]:
    """The trees of all certificates issued in the story, one per root.

    ``later`` is the number of the step that issued a certificate, 0 for those of step 1.
    """
    names = Names(story.parties)
    branches: dict[str, tuple[Branch, str, str]] = {}
    first = min((step.number for step in story.steps), default=1)
    for step in story.steps:
        for event in step.events:
            subject = str(event.data.get("subject") or "")
            if event.kind != "issued" or not subject:
                continue
            role = str(event.data.get("role") or event.name)
            branch = Branch(
                common_name(subject),
                opening(role_label(role)),
                _organisation(subject) or names.short(event.sender),
                f"{day(event.data.get('not_before'))} to {day(event.data.get('not_after'))}",
                _tier(role),
                0 if step.number == first else step.number,
            )
            branches[subject] = branch, str(event.data.get("issuer") or ""), role
    roots = []
    for subject, (branch, issuer, role) in branches.items():
        above = branches.get(issuer) if issuer != subject else None
        if above is None:
            roots.append(branch)
        elif role == Role.OCSP_SIGNER:
            above[0].signers.append(branch)
        else:
            above[0].below.append(branch)
    return sorted(roots, key=lambda root: (-len(root.below), root.name))


def _organisation(subject: str) -> str:
    found = _ORGANISATION.search(subject)
    return found[1] if found else ""


def _tier(role: str) -> str:
    try:
        return ("root", "sub", "sub", "leaf")[Role(role).tier]
    except ValueError:
        return "leaf"


# --------------------------------------------------------------------------- a judged chain


@dataclass(frozen=True)
class Remark:
    """One finding in words: the rule's code, what was wrong, seen and wanted, its source."""

    rule: str
    sentence: str
    seen: str
    wanted: str
    source: str
    severity: str


@dataclass(frozen=True)
class Card:
    """One certificate of a judged path, with the findings that concern it."""

    place: str
    name: str
    valid: str
    fingerprint: str
    remarks: tuple[Remark, ...] = ()

    @property
    def blamed(self) -> bool:
        return any(remark.severity == "error" for remark in self.remarks)


@dataclass
class Chain:
    """A verdict drawn: who judged what, the cards from leaf to anchor, how it came out."""

    what: str
    judge: str
    accepted: bool
    reason: str
    at: str
    verifications: int
    cards: list[Card]
    elsewhere: list[Remark] = field(default_factory=list)
    times: int = 1

    @property
    def word(self) -> str:
        return "accepted" if self.accepted else "refused"


def chains(events: Iterable[Event], names: Names) -> list[Chain]:
    """Each verdict on a chain; the same verdict of the same judge only once, with how often."""
    found: dict[Any, Chain] = {}
    for event in events:
        verdict = event.data.get("verdict")
        if event.kind != "verdict" or not isinstance(verdict, Mapping):
            continue
        chain = _chain(event, verdict, names)
        key = (
            chain.what,
            chain.judge,
            chain.accepted,
            tuple(card.fingerprint for card in chain.cards),
            chain.reason if not chain.accepted else "",
        )
        if key in found:
            found[key].times += 1
        else:
            found[key] = chain
    return list(found.values())


def _chain(event: Event, verdict: Mapping[str, Any], names: Names) -> Chain:
    path: Sequence[Mapping[str, Any]] = verdict.get("path") or ()
    findings: Sequence[Mapping[str, Any]] = verdict.get("findings") or ()
    fingerprints = [str(step.get("fingerprint", "")) for step in path]

    def concerned(finding: Mapping[str, Any]) -> str:
        return str((finding.get("certificate") or {}).get("fingerprint", ""))

    cards = [
        Card(
            opening(str(step.get("label", ""))),
            common_name(str(step.get("subject", ""))),
            f"{day(step.get('not_before'))} to {day(step.get('not_after'))}",
            fingerprint[:16],
            tuple(_remark(f) for f in findings if concerned(f) == fingerprint),
        )
        for step, fingerprint in zip(path, fingerprints, strict=True)
    ]
    return Chain(
        opening(plain(str(event.data.get("what") or event.name))),
        names.short(event.party or event.sender),
        bool(verdict.get("accepted")),
        plain(str(verdict.get("reason") or "")),
        str(verdict.get("at") or ""),
        int(verdict.get("verifications") or 0),
        cards,
        [_remark(f) for f in findings if concerned(f) not in fingerprints],
    )


def _remark(finding: Mapping[str, Any]) -> Remark:
    """A finding; of its sentence only what is wrong, as the rest stands beside it."""
    sentence = plain(str(finding.get("sentence") or ""))
    subject = finding.get("certificate") or {}
    head = f"the {subject.get('label', '')} ({common_name(str(subject.get('subject', '')))}): "
    middle = (
        sentence.removeprefix(head)
        .removeprefix("the chain: ")
        .partition(f"; {finding.get('field')} is ")[0]
    )
    middle = middle.partition(" [")[0]
    return Remark(
        str(finding.get("rule") or ""),
        opening(middle),
        plain(str(finding.get("seen") or "")),
        str(finding.get("wanted") or ""),
        str(finding.get("source") or ""),
        str(finding.get("severity") or ""),
    )
