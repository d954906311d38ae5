"""The provisioning certificate pool's own API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from services.common.auth import Caller, allow
from services.common.certificates import b64, b64_chain, from_pem, read_certificate, read_chain
from services.common.errors import REFUSALS
from services.common.fields import CertificateText, Chain, Fingerprint
from services.pcp.service import ProvisioningPool

router = APIRouter(
    prefix="/provisioning-certificates",
    tags=["provisioning certificates"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)},
)


class RegisterBody(BaseModel):
    """A provisioning certificate with its sub-CAs."""

    certificate: CertificateText = Field(description="base64 DER, or PEM; its CN is the PCID.")
    issuers: list[CertificateText] = Field(
        default_factory=list,
        description="The sub-CAs above it, lowest first; known ones may be left out "
        "(/intermediates).",
        max_length=4,
    )
    replaces: Fingerprint | None = Field(
        default=None,
        examples=[None],
        description="The certificate of this car in whose place it comes.",
    )


class EntryBody(BaseModel):
    """A registered car."""

    pcid: str
    wmi: str
    fingerprint: str
    certificate: CertificateText
    issuers: Chain
    registered_by: str
    registered_at: str


def _body(row: Any) -> EntryBody:
    return EntryBody(
        pcid=row.pcid,
        wmi=row.wmi,
        fingerprint=row.fingerprint,
        certificate=b64(row.certificate),
        issuers=b64_chain(from_pem(row.issuers)),
        registered_by=row.registered_by,
        registered_at=row.registered_at.isoformat(),
    )


def _service(request: Request) -> ProvisioningPool:
    service: ProvisioningPool = request.app.state.service
    return service


@router.put("", status_code=201, responses={200: {"description": "It was registered before."}})
async def register(
    request: Request,
    response: Response,
    body: RegisterBody,
    caller: Annotated[Caller, Depends(allow("oem"))],
) -> EntryBody:
    """Register a car. A vehicle maker registers cars of its own WMI."""
    row, new = await _service(request).register(
        read_certificate(body.certificate, "certificate"),
        read_chain(body.issuers, "issuers"),
        caller,
        replaces=body.replaces,
    )
    response.status_code = 201 if new else 200
    return _body(row)


@router.get("/{pcid:path}")
async def get(
    request: Request,
    pcid: str,
    _caller: Annotated[Caller, Depends(allow("oem", "mo", "cps", "ccp"))],
    judged: bool = False,
) -> EntryBody:
    """The provisioning certificate of a car; ``judged`` only while it is good (422)."""
    row = await _service(request).get(pcid)
    if judged:
        await _service(request).judged(row)
    return _body(row)


@router.delete("/{pcid:path}", status_code=204)
async def remove(
    request: Request, pcid: str, caller: Annotated[Caller, Depends(allow("oem"))]
) -> None:
    """Take a car out of the pool."""
    await _service(request).remove(pcid, caller)
