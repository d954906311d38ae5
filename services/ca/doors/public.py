"""What anybody may ask a CA: OCSP (RFC 6960), CRLs (RFC 5280), CA certificates. No token."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from pki.names import readable
from pki.profiles import Role
from pki.revocation import ocsp_error_response
from services.ca.service import CertificateAuthority, OpenAuthority
from services.common.certificates import b64, der_of, fingerprint
from services.common.errors import REFUSALS, Refusal
from services.common.fields import CertificateText

router = APIRouter(tags=["certificate authority"])

OCSP_ANSWER = "application/ocsp-response"
_OCSP: dict[int | str, dict[str, Any]] = {
    200: {"content": {OCSP_ANSWER: {}}, "description": "A DER OCSPResponse, errors included."}
}


class AuthorityBody(BaseModel):
    """A CA certificate of this party; ``number`` counts those of its role from 1."""

    role: str
    number: int
    issues: bool = Field(description="Whether it is the one of its role that issues now.")
    key: Literal["held", "lost"]
    subject: str
    issuer: str
    fingerprint: str
    valid_from: str
    valid_to: str
    certificate: CertificateText


def _ca(request: Request) -> CertificateAuthority:
    ca: CertificateAuthority = request.app.state.service.ca
    return ca


def described(ca: CertificateAuthority, own: OpenAuthority) -> AuthorityBody:
    """An authority as the API tells of it."""
    return AuthorityBody(
        role=own.role.value,
        number=own.number,
        issues=ca.authority(own.role).id == own.id,
        key="lost" if own.lost else "held",
        subject=readable(own.certificate.subject),
        issuer=readable(own.certificate.issuer),
        fingerprint=fingerprint(own.certificate),
        valid_from=own.certificate.not_valid_before_utc.isoformat(),
        valid_to=own.certificate.not_valid_after_utc.isoformat(),
        certificate=b64(der_of(own.certificate)),
    )


@router.get("/authorities", responses={k: REFUSALS[k] for k in (422, 503)})
async def authorities(request: Request, all: bool = False) -> list[AuthorityBody]:
    """The authorities that issue now, from the top down; with ``all`` the older ones too, which
    go on answering for what they issued."""
    ca = _ca(request)
    await ca.look()
    return [
        described(ca, own)
        for role in ca.roles
        for own in (
            [o for o in ca.authorities() if o.role is role] if all else [ca.authority(role)]
        )
    ]


@router.post(
    "/ocsp",
    responses=_OCSP,
    response_class=Response,
    openapi_extra={"requestBody": {"content": {"application/ocsp-request": {}}, "required": True}},
)
async def ocsp(request: Request) -> Response:
    """The status of a certificate: a DER OCSPRequest in, a DER OCSPResponse out."""
    return Response(await _ca(request).ocsp(await request.body()), media_type=OCSP_ANSWER)


@router.get("/ocsp/{encoded:path}", responses=_OCSP, response_class=Response)
async def ocsp_get(request: Request, encoded: str) -> Response:
    """The same by GET: the request as base64 in the path (RFC 6960 appendix A.1)."""
    try:
        asked = base64.b64decode(unquote(encoded), validate=True)
    except (binascii.Error, ValueError):
        return Response(ocsp_error_response("malformedRequest"), media_type=OCSP_ANSWER)
    return Response(await _ca(request).ocsp(asked), media_type=OCSP_ANSWER)


@router.get(
    "/crl/{role}",
    response_class=Response,
    responses={
        200: {"content": {"application/pkix-crl": {}}, "description": "A DER CertificateList."},
        **{k: REFUSALS[k] for k in (404, 422, 503)},
    },
)
async def crl(
    request: Request, role: str, number: Annotated[int | None, Query(ge=1, le=10**6)] = None
) -> Response:
    """The revocation list of one authority, by its role (``mo-sub2``): of the one that issues
    now, or of an older one by its number."""
    ca = _ca(request)
    return Response(await ca.crl(role_of(ca, role), number), media_type="application/pkix-crl")


def role_of(ca: CertificateAuthority, role: str) -> Role:
    """The role of this name, which this party has an authority of; Refusal 404."""
    if role not in {own.value for own in ca.roles}:
        raise Refusal(
            404,
            "no_such_authority",
            f"role: {role!r} is none of {', '.join(own.value for own in ca.roles)}",
        )
    return Role(role)
