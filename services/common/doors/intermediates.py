"""The doors of the known sub-CAs (:mod:`services.common.intermediates`) of a party that judges."""

from __future__ import annotations

from cryptography import x509
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from pki.names import readable

from ..auth import OwnCaller
from ..certificates import b64, der_of, fingerprint
from ..errors import Refusal
from ..fields import CertificateText, CertificateTexts
from ..intermediates import Intermediates
from ..material import read_texts
from .trust import RESPONSES, Mark

router = APIRouter(prefix="/intermediates", tags=["trust store"], responses=RESPONSES)


class AddBody(BaseModel):
    """Sub-CAs to know."""

    certificates: CertificateTexts


class IntermediateBody(BaseModel):
    """A known sub-CA."""

    fingerprint: str = Field(description="SHA-256 of the DER encoding, hex.")
    subject: str
    issuer: str
    valid_to: str
    certificate: CertificateText


def _body(certificate: x509.Certificate) -> IntermediateBody:
    return IntermediateBody(
        fingerprint=fingerprint(certificate),
        subject=readable(certificate.subject),
        issuer=readable(certificate.issuer),
        valid_to=certificate.not_valid_after_utc.isoformat(),
        certificate=b64(der_of(certificate)),
    )


@router.get("")
async def intermediates(request: Request, _caller: OwnCaller) -> list[IntermediateBody]:
    """The sub-CAs that complete chains which come without them."""
    known = Intermediates(request.app.state.party)
    return [_body(one) for one in await known.all()]


@router.post("")
async def add(request: Request, body: AddBody, caller: OwnCaller) -> list[IntermediateBody]:
    """Bring sub-CAs, as certificates only. They vouch for nothing; answered are the new ones."""
    material = read_texts(body.certificates, None, None)
    if not material.certificates:
        raise Refusal(422, "no_certificate", "certificates: there is none")
    known = Intermediates(request.app.state.party)
    return [_body(one) for one in await known.add(material.certificates, caller.client)]


@router.delete("/{fingerprint}", status_code=204)
async def remove(request: Request, fingerprint: Mark, _caller: OwnCaller) -> None:
    """Know a sub-CA no more."""
    await Intermediates(request.app.state.party).remove(fingerprint)
