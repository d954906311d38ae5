"""The provisioning service's own API."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from services.common.auth import Caller, allow
from services.common.certificates import b64, b64_chain, read_chain, unb64
from services.common.errors import REFUSALS
from services.common.fields import CertificateText, Chain, Fingerprint, MessageText, Name
from services.cps.service import ContractDataRequest, ProvisioningService, UpdateElements

router = APIRouter(tags=["contract data"])


class UpdateBody(BaseModel):
    """The contract key once more, for a CertificateUpdateRes: encrypted to the key of the older
    contract certificate of this fingerprint."""

    for_certificate: Fingerprint
    encrypted_private_key: str = Field(max_length=1000)
    dh_public_key: str = Field(max_length=1000)


class ContractDataBody(BaseModel):
    """Contract data to sign: chain (certificate, sub-CA 2, sub-CA 1), encrypted key (IV and
    ciphertext, 48 bytes), ephemeral DH public key (65 bytes); all base64."""

    emaid: Name
    pcid: Name
    contract_chain: list[CertificateText] = Field(min_length=1, max_length=5)
    encrypted_private_key: str = Field(max_length=1000)
    dh_public_key: str = Field(max_length=1000)
    any_time: bool = Field(
        default=False,
        description="Sign also a certificate that is expired or not valid yet: it is judged at an "
        "instant of its validity instead of now.",
    )
    recipient: Fingerprint | None = Field(
        default=None,
        description="The provisioning certificate whose key the contract key is encrypted to.",
    )
    update: UpdateBody | None = Field(default=None, examples=[None])


class SignedBody(BaseModel):
    """Signed contract data: an EXI CertificateInstallationRes with an empty SessionID."""

    emaid: str
    pcid: str
    message: MessageText
    stored: bool = Field(description="Whether the contract pool has it.")


class SignerBody(BaseModel):
    """With what this service signs, leaf first, base64 DER."""

    chain: Chain


def _service(request: Request) -> ProvisioningService:
    service: ProvisioningService = request.app.state.service
    return service


@router.post(
    "/contract-data",
    status_code=201,
    responses={
        200: {"description": "It was signed before."},
        **{k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)},
    },
)
async def sign(
    request: Request,
    response: Response,
    body: ContractDataBody,
    caller: Annotated[Caller, Depends(allow("mo"))],
) -> SignedBody:
    """Sign contract data and store it in the contract pool. A mobility operator has its own
    contracts signed."""
    row, new = await _service(request).sign(
        ContractDataRequest(
            emaid=body.emaid,
            pcid=body.pcid,
            contract_chain=read_chain(body.contract_chain, "contract_chain"),
            encrypted_private_key=unb64(body.encrypted_private_key, "encrypted_private_key"),
            dh_public_key=unb64(body.dh_public_key, "dh_public_key"),
            any_time=body.any_time,
            recipient=body.recipient,
            update=UpdateElements(
                body.update.for_certificate,
                unb64(body.update.encrypted_private_key, "update.encrypted_private_key"),
                unb64(body.update.dh_public_key, "update.dh_public_key"),
            )
            if body.update
            else None,
        ),
        caller,
    )
    response.status_code = 201 if new else 200
    return SignedBody(emaid=row.emaid, pcid=row.pcid, message=b64(row.message), stored=row.stored)


@router.get("/signer")
async def signer(request: Request) -> SignerBody:
    """The chain that vouches for this service's signatures. No token is needed."""
    return SignerBody(chain=b64_chain(_service(request).chain))
