"""Bringing an authority of one's own: a sub-CA or a root, with its key."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from pki.profiles import Role
from services.ca.doors.public import AuthorityBody, described, role_of
from services.ca.importing import bring_authority
from services.ca.service import CertificateAuthority
from services.common.auth import AdminCaller
from services.common.errors import REFUSALS
from services.common.fields import CertificateTexts, KeyText, Name, Password
from services.common.material import read_texts

router = APIRouter(tags=["certificate authority"])


class ImportBody(BaseModel):
    """A CA certificate with the ones above it, and its private key."""

    role: Name = Field(examples=["mo-sub2"], description="As which of this party's authorities.")
    certificates: CertificateTexts
    private_key: KeyText | None = Field(
        default=None,
        examples=[None],
        description="PKCS#8 or SEC1, or PKCS#12, as PEM or base64. It never comes back out. A root "
        "may come without one.",
    )
    password: Password | None = Field(default=None, examples=[None])
    cascade: bool = Field(
        default=True, description="This party's authorities below are made anew under it."
    )


class ImportedBody(BaseModel):
    """The authority that was brought, and those that were made below it."""

    authority: AuthorityBody
    below: list[AuthorityBody]


@router.post(
    "/authorities/import",
    status_code=201,
    responses={
        200: {"description": "It was brought before."},
        **{k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 503, 504)},
    },
)
async def bring(
    request: Request, response: Response, body: ImportBody, _caller: AdminCaller
) -> ImportedBody:
    """Bring a sub-CA with its key, or a root: checked against its profile and up to a root that
    is known here. This party issues below it from now on."""
    ca: CertificateAuthority = request.app.state.service.ca
    role: Role = role_of(ca, body.role)
    material = read_texts(body.certificates, body.private_key, body.password)
    brought = await bring_authority(ca, role, material, cascade=body.cascade)
    response.status_code = 201 if brought.new else 200
    return ImportedBody(
        authority=described(ca, brought.authority),
        below=[described(ca, own) for own in brought.below],
    )
