"""What a CA says and issues when it was told to misbehave: right in all but one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pki.issuing import Authority
from pki.names import Subject
from pki.pkcs7 import certificates_only
from pki.profiles import Deviation, DomainComponentRule, Profile
from pki.revocation import (
    CertificateStatus,
    OcspAnswer,
    RevocationReason,
    Revoked,
    ocsp_error_response,
    ocsp_response,
)
from services.common.faults import Fault

# An answer that was renewed this long before it went out of date.
_LIFE = timedelta(hours=12)


def ocsp(
    fault: Fault,
    answers: Sequence[OcspAnswer],
    signer: Authority,
    *,
    produced_at: datetime,
    nonce: bytes | None,
) -> bytes:
    """The answer (DER) under ``fault``; the wrong ``signer`` is the caller's to choose."""
    if fault.kind == "ocsp-try-later":
        return ocsp_error_response("tryLater")
    if fault.kind == "ocsp-not-successful":
        return ocsp_error_response(fault["status"])
    if fault.kind == "ocsp-unknown":
        answers = [replace(one, status=CertificateStatus.UNKNOWN) for one in answers]
    elif fault.kind == "ocsp-revoked":
        revoked = Revoked(produced_at, RevocationReason(fault["reason"]))
        answers = [replace(one, status=revoked) for one in answers]
    elif fault.kind == "ocsp-no-nonce":
        # Another one: of the same length, so that nothing but the value differs.
        nonce = bytes(one ^ 0xFF for one in nonce or b"") if fault["nonce"] == "another" else None
    elif fault.kind == "ocsp-stale":
        over = (produced_at - timedelta(hours=fault["hours"])).replace(microsecond=0)
        produced_at = over - _LIFE
        answers = [replace(one, this_update=produced_at, next_update=over) for one in answers]
    return ocsp_response(answers, signer, produced_at=produced_at, nonce=nonce)


@dataclass(frozen=True)
class Wanted:
    """What a leaf is issued with."""

    subject: Subject
    ocsp_url: str | None
    crl_url: str | None
    deviations: tuple[Deviation, ...] = ()


def certificate(fault: Fault, wanted: Wanted, rules: Profile) -> Wanted:
    """``wanted`` under ``fault``."""
    if fault.kind == "certificate-without-aia":
        return replace(wanted, ocsp_url=None)
    dc = fault["dc"]
    row = replace(rules.row("subject.DC"), requirement=DomainComponentRule(dc or None, False))
    return replace(
        wanted,
        subject=replace(wanted.subject, domain_components=(dc,) if dc else ()),
        deviations=(Deviation("fault-wrong-dc", row, who="a fault"),),
    )


def pkcs7(fault: Fault, certificates: Sequence[bytes]) -> bytes:
    """A PKCS#7 with ``certificates`` (DER) under ``fault``."""
    if fault.kind == "est-truncated":
        encoded = certificates_only(certificates)
        return encoded[: max(1, len(encoded) - fault["bytes"])]
    orders: dict[str, Sequence[bytes]] = {
        "sorted": sorted(certificates),
        "reversed": certificates[::-1],
        "root-second": (*certificates[:1], *certificates[-1:], *certificates[1:-1]),
    }
    return certificates_only(orders[fault["order"]])
