"""Drivers and contracts: what a driver's app or a clerk asks of a mobility operator."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field, StringConstraints

from services.common.auth import AdminCaller, Caller, allow
from services.common.certificates import b64_chain, from_pem
from services.common.errors import REFUSALS
from services.common.fields import Chain, Currency, Fingerprint, Instant, Name, PersonName
from services.common.money import cents, decimal
from services.common.statements import StatementBody
from services.mo.accounts import Driver
from services.mo.service import MobilityOperator

router = APIRouter(
    tags=["drivers and contracts"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)},
)


class NewDriverBody(BaseModel):
    """Who wants to charge, and what is paid in first."""

    name: PersonName
    deposit: Decimal = Field(
        default=Decimal(0), ge=0, le=1_000_000, decimal_places=2, examples=["50.00"]
    )
    currency: Currency = "EUR"


class DriverBody(BaseModel):
    """A driver; ``balance`` below zero is owed."""

    id: str
    name: str
    blocked: bool
    balance: str


class NewContractBody(BaseModel):
    """A contract for one car. Without an EMAID one is made up, with a right check digit."""

    driver: Name = Field(examples=["D0123456789"])
    pcid: Name = Field(examples=["WNV1A2B3C4D5E6F7G8"])
    emaid: Name | None = Field(default=None, examples=[None])
    ends: Instant | None = Field(default=None, examples=[None])
    valid_from: Instant | None = Field(
        default=None,
        examples=[None],
        description="The certificate's notBefore where it is not now: past or to come. It cannot "
        "lie before the operator's sub-CA begins (start the ecosystem with --backdate for that).",
    )
    valid_to: Instant | None = Field(
        default=None, examples=[None], description="The certificate's notAfter, past too."
    )
    replaces: Name | None = Field(
        default=None,
        examples=[None],
        description="A contract of another operator, released to this one, that ends once the "
        "car charges with this one.",
    )


class ContractBody(BaseModel):
    """A contract; ``chain`` is its certificate, sub-CA 2, sub-CA 1."""

    emaid: str
    driver: str
    pcid: str
    edition: str
    status: str
    in_pool: bool
    generation: int
    released_to: str | None
    replaces: str | None
    replaced: bool = Field(description="Whether the contract that it replaces has ended.")
    fingerprint: str | None
    chain: Chain


class GenerationBody(BaseModel):
    """One certificate of a contract. ``certified``: not in the pool yet; ``active``: the one in
    use; ``superseded``: good until it expires; ``revoked``."""

    number: int
    fingerprint: str
    status: str
    not_after: str
    update_for: str | None = Field(
        description="The certificate whose key opens the update to this one."
    )
    chain: Chain


class RenewalWish(BaseModel):
    """Who wants a new certificate: a car that showed one, or has a new provisioning key; with
    neither, this operator itself."""

    certificate_fingerprint: Fingerprint | None = Field(default=None, examples=[None])
    provisioning_fingerprint: Fingerprint | None = Field(default=None, examples=[None])


class RenewalBody(BaseModel):
    """What became of it; ``retry_days`` as RetryCounter: -1 never, 0 next time, n days."""

    renewed: bool
    code: str = Field(examples=["renewed"])
    reason: str
    retry_days: int
    generation: int | None


class ReleaseBody(BaseModel):
    """To which operator the driver moves (its provider id); null takes that back."""

    provider_id: Annotated[str, StringConstraints(pattern="^[A-Za-z]{2}[A-Za-z0-9]{3}$")] | None = (
        Field(examples=["NLGRD"])
    )


class TransferBody(BaseModel):
    """Which contract has taken the place of this one, in the same car."""

    to_emaid: Name = Field(examples=["NLGRDC12345678X"])
    pcid: Name = Field(examples=["WNV1A2B3C4D5E6F7G8"])


class SoldBody(BaseModel):
    """That a car was sold."""

    statement: StatementBody | None = Field(
        description="By the car's provisioning key, as it is in the provisioning pool: sold. "
        "Admins need none."
    )


class PlatformOrderBody(BaseModel):
    """A contract ordered over the platform; ``begins`` and ``ends`` are its certificate's."""

    emaid: Name = Field(examples=["DESUNC12345678L"])
    pcid: Name = Field(examples=["WNV1A2B3C4D5E6F7G8"])
    begins: Instant | None = None
    ends: Instant | None = None


class IssuedBody(BaseModel):
    """A contract certificate."""

    fingerprint: Fingerprint


class EndBody(BaseModel):
    """Why a certificate is revoked (RFC 5280 section 5.3.1)."""

    reason: Name = Field(default="cessationOfOperation", examples=["keyCompromise"])


class BlockBody(BaseModel):
    """Whether the account is blocked."""

    blocked: bool


def _driver(found: Driver) -> DriverBody:
    return DriverBody(
        id=found.id, name=found.name, blocked=found.blocked, balance=decimal(found.balance_cents)
    )


def _contract(row: Any) -> ContractBody:
    return ContractBody(
        emaid=row.wire,
        driver=row.driver,
        pcid=row.pcid,
        edition=row.edition,
        status=row.status,
        in_pool=row.in_pool,
        generation=row.generation,
        released_to=row.released_to,
        replaces=row.replaces,
        replaced=row.replaced_at is not None,
        fingerprint=row.fingerprint,
        chain=b64_chain(from_pem(row.chain)),
    )


def _service(request: Request) -> MobilityOperator:
    service: MobilityOperator = request.app.state.service
    return service


@router.post("/drivers", status_code=201)
async def open_account(request: Request, body: NewDriverBody, _caller: AdminCaller) -> DriverBody:
    """Open a driver's account."""
    return _driver(
        await _service(request).accounts.open(body.name, cents(body.deposit), body.currency)
    )


@router.get("/drivers/{driver}")
async def driver(request: Request, driver: str, _caller: AdminCaller) -> DriverBody:
    """A driver and the account's balance."""
    return _driver(await _service(request).accounts.get(driver))


@router.put("/drivers/{driver}/blocked")
async def block(request: Request, driver: str, body: BlockBody, _caller: AdminCaller) -> DriverBody:
    """Block or unblock a driver's account; certificates are not touched."""
    return _driver(await _service(request).accounts.set_blocked(driver, body.blocked))


@router.post(
    "/contracts", status_code=201, responses={200: {"description": "It was signed before."}}
)
async def sign(
    request: Request, response: Response, body: NewContractBody, _caller: AdminCaller
) -> ContractBody:
    """Sign a contract: certificate, key encrypted for the car, bundle in the contract pool.

    Asked again with the same EMAID, it is the contract that there is; who may lose an answer
    sends the EMAID along instead of having one made up.
    """
    service = _service(request)
    row, new = await service.contracts.sign(
        body.driver,
        body.pcid,
        body.emaid,
        body.ends,
        body.valid_from,
        body.valid_to,
        service.transfers.replaced(body.replaces) if body.replaces else None,
    )
    response.status_code = 201 if new else 200
    return _contract(row)


@router.get("/contracts")
async def contracts(
    request: Request, _caller: AdminCaller, driver: str | None = None
) -> list[ContractBody]:
    """All contracts, or one driver's."""
    return [_contract(row) for row in await _service(request).contracts.of_driver(driver)]


@router.get("/contracts/{emaid}")
async def contract(request: Request, emaid: str, _caller: AdminCaller) -> ContractBody:
    """One contract; hyphens and check digit do not matter."""
    return _contract(await _service(request).contracts.get(emaid))


@router.post("/contracts/{emaid}/revoke")
async def revoke(request: Request, emaid: str, body: EndBody, _caller: AdminCaller) -> ContractBody:
    """Revoke the contract's certificate and take the bundle out of the pool."""
    return _contract(await _service(request).contracts.revoke(emaid, body.reason))


@router.post("/contracts/{emaid}/cancel")
async def cancel(request: Request, emaid: str, _caller: AdminCaller) -> ContractBody:
    """End the contract without revoking its certificate."""
    return _contract(await _service(request).contracts.cancel(emaid))


@router.put(
    "/platform-contracts",
    status_code=201,
    responses={200: {"description": "It was there: as it is, or renewed."}},
)
async def order(
    request: Request,
    response: Response,
    body: PlatformOrderBody,
    _caller: Annotated[Caller, Depends(allow("cps"))],
) -> ContractBody:
    """A contract that somebody who speaks for this operator orders over the platform. The same
    order again is the contract there is; with another end it is renewed."""
    row, new = await _service(request).platform.order(body.emaid, body.pcid, body.begins, body.ends)
    response.status_code = 201 if new else 200
    return _contract(row)


@router.post("/contracts/{emaid}/revocation")
async def revoke_issued(
    request: Request,
    emaid: str,
    body: IssuedBody,
    _caller: Annotated[Caller, Depends(allow("ccp"))],
) -> ContractBody:
    """A contract was taken out of the contract pool over the platform: it is revoked, where its
    certificate was issued here (404 where not)."""
    return _contract(await _service(request).platform.revoke(emaid, body.fingerprint))


@router.get("/contracts/{emaid}/generations")
async def generations(request: Request, emaid: str, _caller: AdminCaller) -> list[GenerationBody]:
    """All certificates of a contract, oldest first."""
    contracts = _service(request).contracts
    return [
        GenerationBody(
            number=found.number,
            fingerprint=found.fingerprint,
            status=found.status,
            not_after=found.not_after.isoformat(),
            update_for=found.update_for,
            chain=b64_chain(from_pem(found.chain)),
        )
        for found in await contracts.generations(await contracts.get(emaid))
    ]


@router.post("/contracts/{emaid}/renewals")
async def renew(
    request: Request,
    emaid: str,
    body: RenewalWish,
    caller: Annotated[Caller, Depends(allow("ccp"))],
) -> RenewalBody:
    """A new certificate for a contract, where its state and this operator's policy allow it; a
    refusal is an answer too (status 200). An admin's own wish goes before the policy."""
    found = await _service(request).renewals.ask(
        emaid,
        body.certificate_fingerprint,
        body.provisioning_fingerprint,
        forced=caller.is_admin
        and body.certificate_fingerprint is None
        and body.provisioning_fingerprint is None,
    )
    return RenewalBody(
        renewed=found.renewed,
        code=found.code,
        reason=found.reason,
        retry_days=found.retry_days,
        generation=found.generation,
    )


@router.put("/contracts/{emaid}/release")
async def release(
    request: Request, emaid: str, body: ReleaseBody, _caller: AdminCaller
) -> ContractBody:
    """Let another operator end this contract once the car charges with its own: the driver
    moves there. Until then this contract charges."""
    return _contract(await _service(request).transfers.release(emaid, body.provider_id))


@router.post("/contracts/{emaid}/transfer")
async def transfer(
    request: Request,
    emaid: str,
    body: TransferBody,
    caller: Annotated[Caller, Depends(allow("mo"))],
) -> ContractBody:
    """The operator to which this contract was released has taken over: it is cancelled."""
    return _contract(
        await _service(request).transfers.hand_over(emaid, body.to_emaid, body.pcid, caller)
    )


@router.get("/cars/{pcid:path}/contracts")
async def contracts_of_car(request: Request, pcid: str, _caller: AdminCaller) -> list[ContractBody]:
    """This operator's contracts for a car, oldest first."""
    return [_contract(row) for row in await _service(request).transfers.of_car(pcid)]


@router.post("/cars/{pcid:path}/sold")
async def sold(
    request: Request,
    pcid: str,
    body: SoldBody,
    caller: Annotated[Caller, Depends(allow("vehicle"))],
) -> list[ContractBody]:
    """The car was sold without its contracts: all of this operator's that were ordered until
    then are revoked. What was revoked is the answer; a second time it is nothing."""
    ended = await _service(request).transfers.sold(pcid, body.statement, caller)
    return [_contract(row) for row in ended]


@router.post("/cars/{pcid:path}/lost")
async def lost(request: Request, pcid: str, _caller: AdminCaller) -> list[ContractBody]:
    """The driver says that the car is lost: all of this operator's contracts for it are revoked
    (keyCompromise)."""
    ended = await _service(request).transfers.end_of_car(pcid, "keyCompromise", "lost")
    return [_contract(row) for row in ended]
