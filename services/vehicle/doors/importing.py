"""Bringing a car of one's own into the garage."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from services.common.auth import AdminCaller
from services.common.certificates import b64_chain, from_pem
from services.common.errors import REFUSALS, Refusal
from services.common.fields import CertificateTexts, Chain, KeyText, Name, Password
from services.common.material import read_texts
from services.vehicle.importing import bring_car, bring_key
from services.vehicle.service import Garage

router = APIRouter(prefix="/vehicles", tags=["vehicles"])


class ImportBody(BaseModel):
    """A car: its key, and its provisioning certificate where it has one."""

    certificates: CertificateTexts = Field(
        default_factory=list,
        description="The provisioning certificate and the sub-CAs above it. None: the maker "
        "certifies the key.",
    )
    private_key: KeyText = Field(
        examples=["MC4CAQAwBQYDK2VwBCIEIA=="],
        description="PKCS#8 or SEC1, or PKCS#12 with the certificates, as PEM or base64. It never "
        "comes back out.",
    )
    password: Password | None = Field(default=None, examples=[None])
    oem: Name | None = Field(
        default=None, examples=[None], description="Who certifies a key that has no certificate."
    )
    pcid: Name | None = Field(default=None, examples=[None], description="Under which PCID.")


class ImportedBody(BaseModel):
    """The car that is in the garage now."""

    pcid: str
    evccid: str
    chain: Chain


@router.post(
    "/import",
    status_code=201,
    responses={
        200: {"description": "It was brought before."},
        **{k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)},
    },
)
async def bring(
    request: Request, response: Response, body: ImportBody, _caller: AdminCaller
) -> ImportedBody:
    """Bring a car with its provisioning certificate and key, or a key that its maker certifies.
    The provisioning pool hears of a certificate by PUT /provisioning-certificates there."""
    garage: Garage = request.app.state.service
    material = read_texts(body.certificates, body.private_key, body.password)
    if material.certificates:
        row, new = await bring_car(garage, material)
    elif len(material.keys) != 1:
        raise Refusal(
            422, "wrong_key", f"private_key: one key is wanted, there are {len(material.keys)}"
        )
    else:
        row, new = await bring_key(garage, material.keys[0], body.oem, body.pcid)
    response.status_code = 201 if new else 200
    return ImportedBody(pcid=row.pcid, evccid=row.evccid, chain=b64_chain(from_pem(row.chain)))
