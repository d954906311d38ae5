"""What a mobility operator does when it was told to misbehave."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import ec

from pki.keys import SoftwareKey
from services.common.faults import Fault

# The rule that a refusal names -> OCPI's word for it; NOT_ALLOWED for all others.
ALLOWED = {"account_blocked": "BLOCKED", "contract_ended": "EXPIRED", "no_credit": "NO_CREDIT"}


def misdirected(
    fault: Fault | None,
    contract_key: SoftwareKey,
    recipient: ec.EllipticCurvePublicKey,
    stranger: Callable[[], SoftwareKey],
) -> tuple[SoftwareKey, ec.EllipticCurvePublicKey]:
    """Which key is encrypted, and to whom: under a fault one of the two is a ``stranger``'s."""
    if fault is None:
        return contract_key, recipient
    if fault.kind == "key-does-not-match":
        return stranger(), recipient
    return contract_key, stranger().public_key
