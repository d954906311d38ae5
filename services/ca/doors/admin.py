"""What the owner of a CA may do to it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from pki.names import readable
from services.ca.doors.public import AuthorityBody, described, role_of
from services.ca.service import CertificateAuthority
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


class RolloverBody(BaseModel):
    """How to roll over."""

    publish: bool = Field(
        default=True,
        description="A new root goes into the root pool beside the old one; without this nobody "
        "knows it until it is published.",
    )
    cascade: bool = Field(
        default=False, description="This party's authorities below follow at once."
    )


class RolledOverBody(BaseModel):
    """The authorities that were made, from the top down."""

    authorities: list[AuthorityBody]
    published: bool


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


def _ca(request: Request) -> CertificateAuthority:
    ca: CertificateAuthority = request.app.state.service.ca
    return ca


@router.post(
    "/authorities/{role}/rollover",
    status_code=201,
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 422, 502, 503, 504)},
)
async def roll_over(
    request: Request, role: str, body: RolloverBody, _caller: AdminCaller
) -> RolledOverBody:
    """A new key and certificate for the authority of this role, now. The old one issues no more;
    what it issued stays good, and it goes on answering for that."""
    ca = _ca(request)
    made = await ca.succession.roll_over(
        role_of(ca, role), publish=body.publish, cascade=body.cascade
    )
    return RolledOverBody(
        authorities=[described(ca, own) for own in made.authorities], published=made.published
    )


@router.post(
    "/authorities/{role}/publish",
    responses={k: REFUSALS[k] for k in (401, 403, 404, 422, 502, 503, 504)},
)
async def publish(request: Request, role: str, _caller: AdminCaller) -> AuthorityBody:
    """Bring the root that issues now to the root pool; one that is there changes nothing."""
    ca = _ca(request)
    await ca.look()
    own = ca.authority(role_of(ca, role))
    await ca.succession.publish(own)
    return described(ca, own)


@router.delete(
    "/authorities/{role}/key", responses={k: REFUSALS[k] for k in (401, 403, 404, 422, 503)}
)
async def lose_key(request: Request, role: str, _caller: AdminCaller) -> AuthorityBody:
    """The private key of the authority of this role is lost: it is destroyed. What needs it is
    refused (503 ``key_lost``) until somebody rolls over; what was issued lives on."""
    ca = _ca(request)
    return described(ca, await ca.succession.lose_key(role_of(ca, role)))
