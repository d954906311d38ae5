"""A car's contracts, its sale, its loss: what its owner does with it besides charging."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from services.common.auth import AdminCaller
from services.common.certificates import b64_chain, from_pem
from services.common.errors import REFUSALS
from services.common.fields import Chain, Name
from services.vehicle.life import Life
from services.vehicle.store import normal

router = APIRouter(
    prefix="/vehicles",
    tags=["life of a car"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)},
)


class CarContractBody(BaseModel):
    """One contract certificate in a car. Of one EMAID the newest is used; an older one stays
    until it expires."""

    emaid: str
    default: bool
    in_use: bool = Field(description="Whether it is the newest one of its EMAID.")
    not_after: str
    installed_at: str
    retry_at: str | None = Field(description="Not before this instant an update is asked for.")
    retry_never: bool
    chain: Chain


class DefaultContractBody(BaseModel):
    """Which contract pays where nobody says; null: the one that was installed last."""

    emaid: Name | None = Field(examples=["DESUNC12345678X"])


class RefreshBody(BaseModel):
    """What was dropped, and what waits to be installed."""

    dropped: list[str]
    waiting: list[str]


class SellBody(BaseModel):
    """How a car is sold."""

    keep_contract: bool = Field(
        default=False, description="Leave the seller's contracts in the car, and good."
    )
    new_provisioning_key: bool = Field(
        default=True, description="Replace the key that opens new contracts."
    )


class SaleBody(BaseModel):
    """A sale; ``todo`` is what is still to be done, by a later round."""

    pcid: str
    keep_contract: bool
    new_provisioning_key: bool
    emaids: list[str]
    todo: list[str]
    done_at: str | None


class KeyBody(BaseModel):
    """A car's provisioning certificate chain."""

    pcid: str
    chain: Chain
    lost_at: str | None


def _life(request: Request) -> Life:
    life: Life = request.app.state.service.life
    return life


def _car(row: Any) -> KeyBody:
    return KeyBody(
        pcid=row.pcid,
        chain=b64_chain(from_pem(row.chain)),
        lost_at=row.lost_at.isoformat() if row.lost_at else None,
    )


@router.get("/{pcid:path}/contracts")
async def contracts(request: Request, pcid: str, _caller: AdminCaller) -> list[CarContractBody]:
    """All contract certificates in a car, newest first."""
    car, rows = await _life(request).contracts(pcid)
    newest: set[str] = set()
    found = []
    for row in rows:
        chain = from_pem(row.chain)
        found.append(
            CarContractBody(
                emaid=row.emaid,
                default=normal(row.emaid) == car.default_emaid,
                in_use=normal(row.emaid) not in newest,
                not_after=chain[0].not_valid_after_utc.isoformat(),
                installed_at=row.installed_at.isoformat(),
                retry_at=row.retry_at.isoformat() if row.retry_at else None,
                retry_never=row.retry_never,
                chain=b64_chain(chain),
            )
        )
        newest.add(normal(row.emaid))
    return found


@router.put("/{pcid:path}/default-contract", status_code=204)
async def set_default(
    request: Request, pcid: str, body: DefaultContractBody, _caller: AdminCaller
) -> None:
    """Choose the contract that the car pays with."""
    await _life(request).set_default(pcid, body.emaid)


@router.delete("/{pcid:path}/contracts/{emaid}", status_code=204)
async def remove(request: Request, pcid: str, emaid: str, _caller: AdminCaller) -> None:
    """Remove a contract from the car, with its keys."""
    await _life(request).remove(pcid, emaid)


@router.post("/{pcid:path}/contracts/refresh")
async def refresh(request: Request, pcid: str, _caller: AdminCaller) -> RefreshBody:
    """Over the air: the car drops the contracts that no pool has for it any more and hears which
    ones wait; those come in at a charger."""
    found = await _life(request).refresh(pcid)
    return RefreshBody(dropped=found.dropped, waiting=found.waiting)


@router.post("/{pcid:path}/provisioning-key")
async def rekey(request: Request, pcid: str, _caller: AdminCaller) -> KeyBody:
    """Give the car a new provisioning key, certified by its maker."""
    return _car(await _life(request).rekey(pcid))


@router.post("/{pcid:path}/sell")
async def sell(request: Request, pcid: str, body: SellBody, _caller: AdminCaller) -> SaleBody:
    """Sell the car. What cannot be done now (somebody does not answer) stays in ``todo``."""
    sale = await _life(request).sell(
        pcid, keep_contract=body.keep_contract, new_provisioning_key=body.new_provisioning_key
    )
    return SaleBody(
        pcid=sale.pcid,
        keep_contract=sale.keep_contract,
        new_provisioning_key=sale.new_provisioning_key,
        emaids=sale.emaids,
        todo=sale.todo,
        done_at=sale.done_at.isoformat() if sale.done_at else None,
    )


@router.post("/{pcid:path}/lost")
async def lost(request: Request, pcid: str, _caller: AdminCaller) -> KeyBody:
    """The car is lost: its maker revokes its provisioning certificate. Its contracts are ended by
    their operators, told by the driver."""
    return _car(await _life(request).lost(pcid))
