"""The vehicle maker's own API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from services.common.auth import Caller, allow
from services.common.certificates import unb64
from services.common.errors import REFUSALS
from services.common.fields import Chain, Name, RequestText
from services.common.statements import StatementBody
from services.oem.service import VehicleMaker, chain_of

router = APIRouter(
    prefix="/vehicles",
    tags=["vehicles"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)},
)


class BuildBody(BaseModel):
    """A car to build."""

    csr: RequestText = Field(description="PKCS#10 by the car's key, base64 DER.")
    pcid: Name | None = Field(default=None, examples=[None], description="The PCID to give it.")


class RekeyBody(BaseModel):
    """A car's new provisioning key."""

    csr: RequestText = Field(description="PKCS#10 by the car's new key, base64 DER.")
    statement: StatementBody | None = Field(
        default=None,
        examples=[None],
        description="By its present key, where another client had the car built: new "
        "provisioning key, a blank, and the short name of the new one (16 bytes of SHA-256 over "
        "its SubjectPublicKeyInfo, hex).",
    )


class LostBody(BaseModel):
    """That a car is lost."""

    statement: StatementBody | None = Field(
        default=None,
        examples=[None],
        description="By its provisioning key, where another client had the car built: lost.",
    )


class VehicleBody(BaseModel):
    """A car."""

    pcid: str
    status: str
    chain: Chain = Field(description="Provisioning certificate, sub-CA 2, sub-CA 1.")


def _body(row: Any) -> VehicleBody:
    return VehicleBody(pcid=row.pcid, status=row.status, chain=chain_of(row))


def _service(request: Request) -> VehicleMaker:
    service: VehicleMaker = request.app.state.service
    return service


@router.post("", status_code=201, responses={200: {"description": "It was built before."}})
async def build(
    request: Request,
    response: Response,
    body: BuildBody,
    caller: Annotated[Caller, Depends(allow("vehicle"))],
) -> VehicleBody:
    """Build a car: certify its key and register it with the provisioning certificate pool."""
    row, new = await _service(request).build(unb64(body.csr, "csr"), body.pcid, caller)
    response.status_code = 201 if new else 200
    return _body(row)


@router.put("/{pcid:path}/provisioning-key")
async def rekey(
    request: Request,
    pcid: str,
    body: RekeyBody,
    caller: Annotated[Caller, Depends(allow("vehicle"))],
) -> VehicleBody:
    """Give a car a new provisioning key: its certificate takes the old one's place in the pool,
    the old one is revoked. The PCID stays. For the client that had the car built, or who has its
    present key."""
    csr = unb64(body.csr, "csr")
    return _body(await _service(request).rekey(pcid, csr, body.statement, caller))


@router.post("/{pcid:path}/lost")
async def lost(
    request: Request,
    pcid: str,
    caller: Annotated[Caller, Depends(allow("vehicle"))],
    body: LostBody | None = None,
) -> VehicleBody:
    """A car is lost: its provisioning certificate is revoked and leaves the pool. What may be
    paid with it, its driver tells the mobility operators. For the client that had the car built,
    or who has its key."""
    statement = body.statement if body else None
    return _body(await _service(request).lost(pcid, statement, caller))


@router.get("/{pcid:path}")
async def get(
    request: Request, pcid: str, _caller: Annotated[Caller, Depends(allow("vehicle", "mo"))]
) -> VehicleBody:
    """A car that this maker built."""
    return _body(await _service(request).get(pcid))
