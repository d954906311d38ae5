"""What a responder says when it was told to misbehave: right in all but one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pki.issuing import Authority
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
    elif fault.kind == "ocsp-stale":
        over = (produced_at - timedelta(hours=fault["hours"])).replace(microsecond=0)
        produced_at = over - _LIFE
        answers = [replace(one, this_update=produced_at, next_update=over) for one in answers]
    return ocsp_response(answers, signer, produced_at=produced_at, nonce=nonce)
