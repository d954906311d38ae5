"""The contract pool's own API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from services.ccp.service import ContractPool, UpdateData
from services.common.auth import Caller, allow
from services.common.certificates import b64, unb64
from services.common.errors import REFUSALS
from services.common.fields import Fingerprint, MessageText, Name

router = APIRouter(
    tags=["contracts"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)},
)


class UpdateDataBody(BaseModel):
    """The same contract as an EXI CertificateUpdateRes with an empty SessionID, which the key of
    the contract certificate of this fingerprint opens."""

    for_certificate: Fingerprint
    message: MessageText


class StoreBody(BaseModel):
    """Signed contract data: an EXI CertificateInstallationRes with an empty SessionID."""

    emaid: Name
    pcid: Name
    message: MessageText
    only_replace: bool = Field(
        default=False,
        description="Refuse where this contract certificate's data is not stored any more (404) "
        "or is another's meanwhile (409).",
    )
    recipient: Fingerprint | None = Field(
        default=None, description="The provisioning certificate whose key opens it."
    )
    update: UpdateDataBody | None = Field(default=None, examples=[None])


class StoredBody(BaseModel):
    """What is stored for a contract."""

    emaid: str
    pcid: str
    valid_from: str
    valid_to: str
    stored_at: str
    delivered_at: str | None
    update_for: str | None = Field(
        description="The contract certificate that may be updated to this one."
    )


class CarBody(BaseModel):
    """A car's contracts, in the order in which they are delivered."""

    pcid: str
    default: str | None
    contracts: list[StoredBody]


class DefaultBody(BaseModel):
    """Which contract is delivered first."""

    emaid: Name = Field(examples=["DESUNC12345678X"])


class WithdrawnBody(BaseModel):
    """The contracts that left the pool."""

    emaids: list[str]


class UpdateRequestBody(BaseModel):
    """A car's CertificateUpdateReq, the whole V2G message as base64 EXI."""

    certificate_update_req: MessageText


class UpdateAnswer(BaseModel):
    """The CertificateUpdateRes for the car: also a refusal is one (``code`` FAILED_...); then
    ``retry_counter`` says after how many days to ask again (-1: never)."""

    certificate_update_res: MessageText
    code: str = Field(examples=["OK"])
    emaid: str | None
    reason: str
    retry_counter: int | None


class InstallationBody(BaseModel):
    """A car's CertificateInstallationReq, the whole V2G message as base64 EXI."""

    certificate_installation_req: MessageText


class InstallationAnswer(BaseModel):
    """The CertificateInstallationRes for the car: also a refusal is one (``code`` FAILED_...)."""

    certificate_installation_res: MessageText
    code: str = Field(examples=["OK"])
    emaid: str | None
    reason: str


def _body(row: Any) -> StoredBody:
    return StoredBody(
        emaid=row.emaid,
        pcid=row.pcid,
        valid_from=row.valid_from.isoformat(),
        valid_to=row.valid_to.isoformat(),
        stored_at=row.stored_at.isoformat(),
        delivered_at=row.delivered_at.isoformat() if row.delivered_at else None,
        update_for=row.update_for,
    )


def _service(request: Request) -> ContractPool:
    service: ContractPool = request.app.state.service
    return service


@router.put(
    "/contracts", status_code=201, responses={200: {"description": "It replaced an older one."}}
)
async def store(
    request: Request,
    response: Response,
    body: StoreBody,
    caller: Annotated[Caller, Depends(allow("cps"))],
) -> StoredBody:
    """Store signed contract data for a car; only who stored it may replace it."""
    row, new = await _service(request).store(
        body.emaid,
        body.pcid,
        unb64(body.message, "message"),
        caller,
        only_replace=body.only_replace,
        recipient=body.recipient,
        update=UpdateData(body.update.for_certificate, unb64(body.update.message, "update.message"))
        if body.update
        else None,
    )
    response.status_code = 201 if new else 200
    return _body(row)


@router.get("/contracts/{emaid}")
async def get(
    request: Request,
    emaid: str,
    _caller: Annotated[Caller, Depends(allow("mo", "oem", "cpo"))],
) -> StoredBody:
    """What is stored for a contract."""
    return _body(await _service(request).get(emaid))


@router.delete("/contracts/{emaid}", status_code=204)
async def remove(
    request: Request, emaid: str, caller: Annotated[Caller, Depends(allow("mo"))]
) -> None:
    """Take a contract out of the pool."""
    await _service(request).remove(emaid, caller)


@router.post("/installations")
async def deliver(
    request: Request,
    body: InstallationBody,
    _caller: Annotated[Caller, Depends(allow("cpo", "oem"))],
) -> InstallationAnswer:
    """Answer a car's CertificateInstallationReq."""
    delivery = await _service(request).deliver(
        unb64(body.certificate_installation_req, "certificate_installation_req")
    )
    return InstallationAnswer(
        certificate_installation_res=b64(delivery.message),
        code=delivery.code,
        emaid=delivery.emaid,
        reason=delivery.reason,
    )


@router.post("/updates")
async def update(
    request: Request,
    body: UpdateRequestBody,
    _caller: Annotated[Caller, Depends(allow("cpo", "oem"))],
) -> UpdateAnswer:
    """Answer a car's CertificateUpdateReq; where its next certificate does not wait here, the
    contract's mobility operator is asked for it."""
    delivery = await _service(request).update(
        unb64(body.certificate_update_req, "certificate_update_req")
    )
    return UpdateAnswer(
        certificate_update_res=b64(delivery.message),
        code=delivery.code,
        emaid=delivery.emaid,
        reason=delivery.reason,
        retry_counter=delivery.retry_counter,
    )


@router.get("/cars/{pcid:path}")
async def car(
    request: Request,
    pcid: str,
    _caller: Annotated[Caller, Depends(allow("mo", "oem", "vehicle"))],
) -> CarBody:
    """A car's contracts in this pool. In -2 each installation delivers one: what was not
    delivered yet first, and within that the default."""
    rows, default = await _service(request).of_car(pcid)
    return CarBody(pcid=pcid, default=default, contracts=[_body(row) for row in rows])


@router.put("/cars/{pcid:path}/default", status_code=204)
async def set_default(
    request: Request,
    pcid: str,
    body: DefaultBody,
    caller: Annotated[Caller, Depends(allow("mo", "oem"))],
) -> None:
    """Say which of a car's contracts is delivered first."""
    await _service(request).set_default(pcid, body.emaid, caller)


@router.delete("/cars/{pcid:path}/contracts")
async def withdraw_of_car(
    request: Request, pcid: str, _caller: Annotated[Caller, Depends(allow("pcp"))]
) -> WithdrawnBody:
    """A car left the provisioning pool: each of its contracts is revoked by its issuer and
    leaves this pool."""
    return WithdrawnBody(emaids=await _service(request).withdraw_of_car(pcid))
