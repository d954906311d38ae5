"""What anybody may ask a CA: OCSP (RFC 6960), CRLs (RFC 5280), CA certificates. No token."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from pki.names import readable
from pki.profiles import Role
from pki.revocation import ocsp_error_response
from services.ca.service import CertificateAuthority
from services.common.certificates import b64, der_of, fingerprint
from services.common.errors import REFUSALS, Refusal
from services.common.fields import CertificateText

router = APIRouter(tags=["certificate authority"])

OCSP_ANSWER = "application/ocsp-response"
_OCSP: dict[int | str, dict[str, Any]] = {
    200: {"content": {OCSP_ANSWER: {}}, "description": "A DER OCSPResponse, errors included."}
}


class AuthorityBody(BaseModel):
    """A CA certificate of this party."""

    role: str
    subject: str
    issuer: str
    fingerprint: str
    valid_from: str
    valid_to: str
    certificate: CertificateText


def _ca(request: Request) -> CertificateAuthority:
    ca: CertificateAuthority = request.app.state.service.ca
    return ca


@router.get("/authorities")
async def authorities(request: Request) -> list[AuthorityBody]:
    """The authorities that issue now, from the top down."""
    ca = _ca(request)
    return [
        AuthorityBody(
            role=role.value,
            subject=readable(own.certificate.subject),
            issuer=readable(own.certificate.issuer),
            fingerprint=fingerprint(own.certificate),
            valid_from=own.certificate.not_valid_before_utc.isoformat(),
            valid_to=own.certificate.not_valid_after_utc.isoformat(),
            certificate=b64(der_of(own.certificate)),
        )
        for role in ca.roles
        for own in [ca.authority(role)]
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
        404: REFUSALS[404],
    },
)
async def crl(request: Request, role: str) -> Response:
    """The revocation list of one authority, by its role (``mo-sub2``)."""
    ca = _ca(request)
    if role not in {own.value for own in ca.roles}:
        raise Refusal(
            404,
            "no_such_authority",
            f"role: {role!r} is none of {', '.join(own.value for own in ca.roles)}",
        )
    return Response(await ca.crl(Role(role)), media_type="application/pkix-crl")
