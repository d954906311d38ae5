"""What the owner of a CA may do to it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from services.common.auth import AdminCaller
from services.common.errors import REFUSALS

router = APIRouter(tags=["certificate authority"])


class RevocationBody(BaseModel):
    """Which certificate, and why (RFC 5280 section 5.3.1)."""

    fingerprint: Annotated[
        str, Field(pattern="^[0-9a-fA-F]{64}$", description="SHA-256 of the DER encoding, hex.")
    ]
    reason: str = Field(default="unspecified", examples=["keyCompromise"])


class RevokedBody(BaseModel):
    """A revoked certificate."""

    fingerprint: str
    subject: str
    revoked_at: str
    reason: str


@router.post("/revocations", responses={k: REFUSALS[k] for k in (401, 403, 404, 422)})
async def revoke(request: Request, body: RevocationBody, _caller: AdminCaller) -> RevokedBody:
    """Revoke a certificate, sub-CAs included; OCSP and CRL say so from now on."""
    row = await request.app.state.service.ca.revoke(body.fingerprint, body.reason)
    return RevokedBody(
        fingerprint=row.fingerprint,
        subject=row.subject,
        revoked_at=row.revoked_at.isoformat(),
        reason=row.reason,
    )
