"""What the owner of a CA may do to it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from pki.names import readable
from services.common.auth import AdminCaller
from services.common.certificates import fingerprint
from services.common.errors import REFUSALS
from services.common.fields import Name

router = APIRouter(tags=["certificate authority"])


class RevocationBody(BaseModel):
    """Which certificate, and why (RFC 5280 section 5.3.1)."""

    fingerprint: Annotated[
        str, Field(pattern="^[0-9a-fA-F]{64}$", description="SHA-256 of the DER encoding, hex.")
    ]
    reason: Name = Field(default="unspecified", examples=["keyCompromise"])


class IssuedBody(BaseModel):
    """A certificate that this party's authorities issued, or an authority's own."""

    role: str
    subject: str
    issuer: str
    fingerprint: str
    serial: str
    valid_from: str
    valid_to: str
    revoked_at: str | None
    reason: str | None


class RevokedBody(BaseModel):
    """A revoked certificate."""

    fingerprint: str
    subject: str
    revoked_at: str
    reason: str


@router.get("/certificates", responses={k: REFUSALS[k] for k in (401, 403)})
async def issued(
    request: Request, _caller: AdminCaller, role: str | None = None
) -> list[IssuedBody]:
    """All certificates of this CA, or those of one role, oldest first; its roots included."""
    return [
        IssuedBody(
            role=one.role,
            subject=readable(one.certificate.subject),
            issuer=readable(one.certificate.issuer),
            fingerprint=fingerprint(one.certificate),
            serial=f"{one.certificate.serial_number:x}",
            valid_from=one.certificate.not_valid_before_utc.isoformat(),
            valid_to=one.certificate.not_valid_after_utc.isoformat(),
            revoked_at=one.revoked_at.isoformat() if one.revoked_at else None,
            reason=one.reason,
        )
        for one in await request.app.state.service.ca.all_certificates(role)
    ]


@router.post("/revocations", responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 422)})
async def revoke(request: Request, body: RevocationBody, _caller: AdminCaller) -> RevokedBody:
    """Revoke a certificate, sub-CAs included; OCSP and CRL say so from now on."""
    row = await request.app.state.service.ca.revoke(body.fingerprint, body.reason)
    return RevokedBody(
        fingerprint=row.fingerprint,
        subject=row.subject,
        revoked_at=row.revoked_at.isoformat(),
        reason=row.reason,
    )
