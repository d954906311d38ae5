"""The vehicles' control API: build one, look at it, plug it in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from cryptography import x509
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from services.common.auth import AdminCaller
from services.common.certificates import b64, b64_chain, from_pem
from services.common.errors import REFUSALS
from services.common.fields import Chain, MessageText, Name
from services.vehicle.charging import Outcome
from services.vehicle.service import Garage

router = APIRouter(
    prefix="/vehicles",
    tags=["vehicles"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)},
)


class BuildBody(BaseModel):
    """Which car: whose, and with which PCID; both may be left to the ecosystem."""

    oem: Name | None = Field(default=None, examples=[None])
    pcid: Name | None = Field(default=None, examples=[None])


class InstalledBody(BaseModel):
    """A contract in a car."""

    emaid: str
    chain: Chain
    installed_at: str


class CarBody(BaseModel):
    """A car; its keys stay in it."""

    pcid: str
    evccid: str
    chain: Chain = Field(description="Provisioning certificate, sub-CA 2, sub-CA 1.")
    v2g_roots: list[str]
    contract: InstalledBody | None


class ChargeBody(BaseModel):
    """A visit to a charger."""

    charger: Name = Field(examples=["charger-1"])
    energy_wh: Annotated[int, Field(ge=0, le=200_000)] = Field(default=8000, examples=[8000])
    installation: Literal["auto", "always", "never", "update"] = "auto"
    emaid: Name | None = Field(
        default=None, examples=[None], description="Which of the car's contracts pays."
    )


class OutcomeBody(BaseModel):
    """How it went: ``charged``, ``refused`` (by whom and why), ``failed`` (nobody answered)."""

    outcome: str = Field(examples=["charged"])
    stage: str
    code: str
    reason: str
    emaid: str | None
    installed: bool
    updated: bool
    energy_wh: int
    stages: list[str]
    failed_before: str = Field(
        description="What an installation or update failed at, where the car went on without."
    )


class SayInstallationBody(BaseModel):
    """In which session a car would ask."""

    session_id: Annotated[str, Field(pattern="^([0-9a-fA-F]{2}){1,8}$")] = Field(
        default="0000000000000001", examples=["0000000000000001"], description="Hex."
    )


class InstallationRequestBody(BaseModel):
    """A car's CertificateInstallationReq, as base64 EXI."""

    pcid: str
    certificate_installation_req: MessageText


def _service(request: Request) -> Garage:
    service: Garage = request.app.state.service
    return service


def _car(row: Any, installed: Any, roots: Iterable[x509.Certificate]) -> CarBody:
    return CarBody(
        pcid=row.pcid,
        evccid=row.evccid,
        chain=b64_chain(from_pem(row.chain)),
        v2g_roots=b64_chain(roots),
        contract=InstalledBody(
            emaid=installed.emaid,
            chain=b64_chain(from_pem(installed.chain)),
            installed_at=installed.installed_at.isoformat(),
        )
        if installed
        else None,
    )


@router.post("", status_code=201)
async def build(request: Request, body: BuildBody, _caller: AdminCaller) -> CarBody:
    """Build a car: key in the car, provisioning certificate from its maker."""
    garage = _service(request)
    row = await garage.build(body.oem, body.pcid)
    return _car(row, None, await garage.stores.roots(row.pcid))


@router.get("")
async def cars(request: Request, _caller: AdminCaller) -> list[str]:
    """The PCIDs of all cars, oldest first."""
    return [row.pcid for row in await _service(request).list()]


@router.get("/{pcid:path}")
async def car(request: Request, pcid: str, _caller: AdminCaller) -> CarBody:
    """A car and the contract in it."""
    garage = _service(request)
    row, installed = await garage.get(pcid)
    return _car(row, installed, await garage.stores.roots(row.pcid))


@router.post("/{pcid:path}/installation-request")
async def installation_request(
    request: Request, pcid: str, body: SayInstallationBody, _caller: AdminCaller
) -> InstallationRequestBody:
    """What the car would send to have a contract installed, signed by its key: to be sent by
    somebody else's charger or backend. The car itself does nothing with the answer."""
    garage = _service(request)
    message = await garage.installation_request(pcid, bytes.fromhex(body.session_id))
    return InstallationRequestBody(pcid=pcid, certificate_installation_req=b64(message))


@router.post("/{pcid:path}/charge")
async def charge(
    request: Request, pcid: str, body: ChargeBody, _caller: AdminCaller
) -> OutcomeBody:
    """Plug a car in at a charger. ``installation``: ``auto`` installs a contract when the car
    has none that is still good and updates the one that ends within ``update_before_days``,
    ``always`` asks for an installation, ``update`` for an update, ``never`` for nothing. Without
    ``emaid`` the default contract pays, or else the one that was installed last. A refusal is an
    answer (status 200)."""
    outcome: Outcome = await _service(request).charge(
        pcid, body.charger, body.energy_wh, body.installation, body.emaid
    )
    return OutcomeBody(**vars(outcome))
