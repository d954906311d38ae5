"""Words and figures for people: names, sizes, durations, lines that fit a width.

What several views need lives here once. Nothing in this module knows HTML; escaping is
the templates' business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from pki.profiles import Role
from scenarios.story import PartyView

OUTCOME_WORDS = {"ok": "ok", "refused": "refused", "failed": "failed"}
"""The word beside each outcome's colour; an outcome that is not listed is its own word."""

_COMMON_NAME = re.compile(r"CN=((?:[^,\\]|\\.)+)")
_DISTINGUISHED_NAME = re.compile(
    r"CN=((?:[^,\\]|\\.)+)"
    r"(?:, (?:(?:O|OU)=[\w .&'-]+(?:\([^)]*\))?|(?:C|DC)=[\w-]+))+"
)
_RANDOM = re.compile(r"\b([0-9A-Fa-f]{4})[0-9A-Fa-f]{12,}\b")
# Ems of a wide system sans (DejaVu, Verdana): a text that fits there fits anywhere.
_EMS = (
    (frozenset("iljI.,:;'|!()[] -"), 0.36),
    (frozenset("ftr/"), 0.42),
    (frozenset("mwMW@%"), 0.92),
    (frozenset("ABCDEFGHKLNOPQRSTUVXYZ+<>=→×✓✕"), 0.70),
)
_OTHER_EM = 0.615
BOLD = 1.12


def common_name(subject: str) -> str:
    """The CN of a readable name; the whole where it has none."""
    found = _COMMON_NAME.search(subject)
    return found[1] if found else subject


def plain(text: str) -> str:
    """A sentence with each distinguished name shortened to its CN, and without long ids."""
    return brief(_DISTINGUISHED_NAME.sub(lambda found: found[1], text))


def brief(text: str) -> str:
    """``text`` with each long random identifier cut to its first four digits."""
    return _RANDOM.sub(lambda found: f"{found[1]}\u2026", text)


def opening(text: str) -> str:
    """``text`` with a capital first letter."""
    return text[:1].upper() + text[1:]


def plural(count: int, one: str, many: str = "") -> str:
    """ "1 signature", "3 signatures"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}".replace(",", "\u202f")


def size(count: int) -> str:
    """A number of bytes: "36 B", "3.8 kB"."""
    return f"{count} B" if count < 1000 else f"{count / 1000:.1f} kB"


def duration(milliseconds: float | None) -> str:
    """ "0.3 ms", "85 ms", "1.2 s"; "" where nobody measured."""
    if milliseconds is None:
        return ""
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.1f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.1f} ms"


def day(text: object) -> str:
    """The date of an ISO 8601 instant; the text itself where it is none."""
    try:
        return datetime.fromisoformat(str(text)).date().isoformat()
    except ValueError:
        return str(text)


def minute(text: object) -> str:
    """Date and time of an ISO 8601 instant to the second; the text where it is none."""
    try:
        return datetime.fromisoformat(str(text)).strftime("%Y-%m-%d, %H:%M:%S UTC")
    except ValueError:
        return str(text)


def costs(cost: Mapping[str, int]) -> str:
    """What a hop cost in cryptography: "1 signature, 10 verifications"; "" for nothing."""
    words = (
        ("signatures", "signature"),
        ("verifications", "verification"),
        ("agreements", "key agreement"),
    )
    return ", ".join(plural(cost[name], one) for name, one in words if cost.get(name))


def role_label(role: str) -> str:
    """A certificate role's words; the role itself where it is not of the profile."""
    try:
        return Role(role).label
    except ValueError:
        return role


def width(text: str, pixels: float) -> float:
    """About how wide ``text`` runs at ``pixels`` font size; times :data:`BOLD` if it is."""
    return pixels * sum(
        next((ems for letters, ems in _EMS if letter in letters), _OTHER_EM) for letter in text
    )


def wrapped(text: str, pixels: float, room: float, lines: int) -> list[str]:
    """``text`` in at most ``lines`` lines of ``room`` pixels, with an ellipsis where cut."""
    done: list[str] = []
    line = ""
    for word in text.split():
        candidate = f"{line} {word}".strip()
        if line and width(candidate, pixels) > room:
            done.append(line)
            line = word
        else:
            line = candidate
    done.append(line)
    if len(done) > lines:
        done = [*done[: lines - 1], done[lines - 1] + "\u2026"]
    return [_clipped(each, pixels, room) for each in done]


def _clipped(line: str, pixels: float, room: float) -> str:
    if width(line, pixels) <= room:
        return line
    while line and width(line + "\u2026", pixels) > room:
        line = line[:-1]
    return line.rstrip(" ,;:\u2026") + "\u2026"


class Names:
    """Parties by name: their titles, short and whole."""

    def __init__(self, parties: Iterable[PartyView]) -> None:
        self._parties = {party.name: party for party in parties}

    def __contains__(self, name: str) -> bool:
        return name in self._parties

    def short(self, name: str) -> str:
        """The title up to its comma: "Sunmile" of "Sunmile, a mobility operator"."""
        party = self._parties.get(name)
        return party.title.split(",")[0] if party else name

    def kind(self, name: str) -> str:
        party = self._parties.get(name)
        return party.kind if party else ""

    def all(self) -> list[PartyView]:
        return list(self._parties.values())
