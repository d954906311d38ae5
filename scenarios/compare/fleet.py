"""The fleet: which cars there are, with whom their drivers have contracts, where they charge.

Drawn from the seed and the parties that there are, and from nothing else: under each trust
model it is the same fleet.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from services.common.problems import WrongUseError
from services.ecosystem import Ecosystem, PartyConfig

# What becomes of a contract between the first and the second visit, and of how many in a
# hundred: the rest stays as it is.
FATES = (("revoked", 10), ("expired", 10))
KEPT = "kept"
# Fewer cars than this all keep their contracts.
FEW = 4
MOST = 2000


@dataclass(frozen=True)
class Vehicle:
    """A car and its story: built, contracted, a first visit, its contract's fate, a second."""

    number: int
    maker: str
    operator: str
    first: str
    second: str
    fate: str
    first_wh: int
    second_wh: int


def fleet(ecosystem: Ecosystem, size: int, seed: str) -> tuple[Vehicle, ...]:
    """``size`` vehicles. WrongUseError where the ecosystem has nobody to play a part."""
    if not 1 <= size <= MOST:
        raise WrongUseError(f"--vehicles: {size} is not within 1 and {MOST}")
    kinds = ("oem", "mo", "charger", "vehicle")
    parts: dict[str, Sequence[PartyConfig]] = {kind: ecosystem.of_kind(kind) for kind in kinds}
    for kind, found in parts.items():
        if not found:
            raise WrongUseError(f"the ecosystem has no party of kind {kind}: nobody can charge")
    draw = random.Random(f"pnclab fleet {seed}")  # noqa: S311 - a play, not a secret
    # Shares, not chances: of ten cars one has its contract revoked, and of a few cars one too.
    fates = [name for name, share in FATES for _ in range(-(-size * share // 100) * (size >= FEW))]
    fates += [KEPT] * (size - len(fates))
    draw.shuffle(fates)
    return tuple(_vehicle(number, fate, parts, draw) for number, fate in enumerate(fates, start=1))


def _vehicle(
    number: int, fate: str, parts: dict[str, Sequence[PartyConfig]], draw: random.Random
) -> Vehicle:
    chargers = parts["charger"]
    first = draw.choice(chargers)
    # The second visit is at another operator's charger, where there is one.
    elsewhere = [one for one in chargers if one.uses["cpo"] != first.uses["cpo"]]
    others = elsewhere or [one for one in chargers if one is not first] or [first]
    return Vehicle(
        number,
        draw.choice(parts["oem"]).name,
        draw.choice(parts["mo"]).name,
        first.name,
        draw.choice(others).name,
        fate,
        100 * draw.randint(10, 60),
        100 * draw.randint(10, 60),
    )
