"""How long certificates live here, and when they are renewed.

A certificate lives as long as its profile says, or as the ecosystem's ``[lifetimes]`` say: a
deviation that has a name. With a ``backdate`` every certificate begins that much earlier than
it is issued. What a car gets (provisioning and contract certificates) then ends that much
earlier too, as if it had been issued then: partly used up, or entirely. What vouches for it,
and what renews itself, ends when it would anyhow, so that an ecosystem around used-up
certificates works.

Renewal is in time when what follows has room: a leaf is renewed when less than a third of its
usual life is left, an authority when what is left of its life no longer holds the life of what
it issues; where that would be more than half of its own life, at half.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509

from pki.profiles import STYLES, Deviation, Profile, Role, ValidityRule, profile
from services.common.party import Party

# Part of a leaf's life that must be left; below it the leaf is renewed.
RENEW_BELOW = 1 / 3
# An authority is renewed at half of its life at the earliest.
AUTHORITY_AT = 1 / 2
# What a car gets: used up by a backdate.
_USED_UP = frozenset({Role.CONTRACT, Role.OEM_PROVISIONING})


@dataclass(frozen=True)
class Validity:
    """From when to when a certificate is issued, and what is unusual about that."""

    first: datetime
    last: datetime
    deviations: tuple[Deviation, ...] = ()
    backdated: timedelta = timedelta()


def rules(party: Party, role: Role) -> Profile:
    """The profile of a role with the ecosystem's style and its own lifetime over it."""
    style = STYLES[party.ecosystem.certificates]
    found = profile(role, party.edition).deviating(*style.get(role, ()))
    wanted = party.ecosystem.lifetimes.get(role)
    if wanted is None:
        return found
    row = found.row("validity")
    deviation = Deviation(
        f"lifetime-{role.value}",
        replace(
            row,
            requirement=ValidityRule(wanted, found.validity.maximum),
            source=f"the ecosystem {party.ecosystem.name}, [lifetimes]",
            why="",
        ),
        who=party.ecosystem.name,
    )
    return found.deviating(deviation)


def life(party: Party, role: Role) -> timedelta:
    """How long a certificate of ``role`` usually lives in this ecosystem."""
    return rules(party, role).validity.default


def validity(
    party: Party,
    role: Role,
    issuer: x509.Certificate | None,
    not_before: datetime | None = None,
    not_after: datetime | None = None,
) -> Validity:
    """From when to when a certificate of ``role`` is issued now, never beyond its issuer's end.

    ``not_before`` and ``not_after`` are what was asked for; a life that is asked for is not
    made longer than the usual one.
    """
    now = party.clock.now().replace(microsecond=0)
    if not_before is not None:
        first = not_before.replace(microsecond=0)
        last = first + life(party, role)
    else:
        first = now - party.ecosystem.backdate
        # An issuer that was made without a backdate leaves less room.
        if issuer is not None and first < issuer.not_valid_before_utc <= now:
            first = issuer.not_valid_before_utc
        last = (first if role in _USED_UP else now) + life(party, role)
    if issuer is not None:
        last = min(last, issuer.not_valid_after_utc)
    if not_after is not None:
        last = min(last, not_after.replace(microsecond=0))
    return Validity(first, last, rules(party, role).deviations, max(now - first, timedelta()))


def needs_renewal(
    certificate: x509.Certificate, now: datetime, usual: timedelta | None = None
) -> bool:
    """Whether less than a third of the certificate's life is left, or it is not valid yet (the
    clock went backwards). ``usual`` is its role's life: a backdated one is longer."""
    first, due = in_use_until(certificate, usual)
    return now < first or now > due


def in_use_until(
    certificate: x509.Certificate, usual: timedelta | None = None
) -> tuple[datetime, datetime]:
    """From when until when a certificate is used; then it is due for renewal."""
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    whole = last - first if usual is None else min(last - first, usual)
    return first, last - whole * RENEW_BELOW


def renewed_below(party: Party, role: Role) -> timedelta:
    """What must be left of the life of an authority of ``role``."""
    issued = [Role.OCSP_SIGNER]
    for other in Role:
        try:
            if party.issuer(other) is role:
                issued.append(other)
        except KeyError:  # not of this trust model
            continue
    needed = max(life(party, one) for one in issued)
    return min(needed, life(party, role) * AUTHORITY_AT)
