"""The contract pool's own API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from services.ccp.service import ContractPool
from services.common.auth import Caller, allow
from services.common.certificates import b64, unb64
from services.common.errors import REFUSALS
from services.common.fields import MessageText, Name

router = APIRouter(
    tags=["contracts"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)},
)


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


class StoredBody(BaseModel):
    """What is stored for a contract."""

    emaid: str
    pcid: str
    valid_from: str
    valid_to: str
    stored_at: str
    delivered_at: str | None


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
