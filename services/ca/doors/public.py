"""What anybody may ask a CA beside OCSP: CRLs (RFC 5280), CA certificates. No token."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from pki.names import readable
from pki.profiles import Role
from services.ca.doors.ocsp import conditional
from services.ca.service import CertificateAuthority, OpenAuthority
from services.common.certificates import b64, der_of, fingerprint
from services.common.errors import REFUSALS, Refusal
from services.common.fields import CertificateText

router = APIRouter(tags=["certificate authority"])


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


_LIST: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"content": {"application/pkix-crl": {}}, "description": "A DER CertificateList."},
        304: {"description": "The list that the caller has is still the one."},
        **{k: REFUSALS[k] for k in (404, 422, 503)},
    },
}


@router.get("/crl/{role}", **_LIST)
async def crl(
    request: Request, role: str, number: Annotated[int | None, Query(ge=1, le=10**6)] = None
) -> Response:
    """The revocation list of one authority, by its role (``mo-sub2``): of the one that issues
    now, or of an older one by its number."""
    return await _listed(request, role, number)


@router.get("/crl/{role}/{number}", **_LIST)
async def numbered_crl(
    request: Request, role: str, number: Annotated[int, Path(ge=1, le=10**6)]
) -> Response:
    """The same by the address that stands in certificates (CRL distribution point)."""
    return await _listed(request, role, number)


async def _listed(request: Request, role: str, number: int | None) -> Response:
    ca = _ca(request)
    found = await ca.crl(role_of(ca, role), number)
    headers = {name.lower(): value for name, value in request.scope["headers"]}
    kind = [
        (b"content-type", b"application/pkix-crl"),
        (b"content-length", str(len(found.encoded)).encode()),
    ]
    status, raw, content = conditional(headers, kind, found.encoded, found)
    response = Response(content, status)
    response.raw_headers = raw
    return response


def role_of(ca: CertificateAuthority, role: str) -> Role:
    """The role of this name, which this party has an authority of; Refusal 404."""
    if role not in {own.value for own in ca.roles}:
        raise Refusal(
            404,
            "no_such_authority",
            f"role: {role!r} is none of {', '.join(own.value for own in ca.roles)}",
        )
    return Role(role)
