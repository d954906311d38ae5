"""What charge point operators ask of a mobility operator: may it charge, please pay."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, StringConstraints

from services.common.auth import AdminCaller, Caller, allow
from services.common.certificates import unb64
from services.common.errors import REFUSALS
from services.common.fields import (
    Currency,
    Fingerprint,
    Instant,
    Name,
    Price,
    ReceiptTexts,
    SessionId,
    Wh,
)
from services.common.money import cents, decimal
from services.ecosystem import Tariff
from services.mo.service import MobilityOperator
from services.mo.settlement import ChargeDetailRecord

router = APIRouter(
    tags=["authorization and settlement"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422)},
)

CpoCaller = Annotated[Caller, Depends(allow("cpo"))]


class TariffBody(BaseModel):
    """What the charge point operator asks."""

    id: Name = Field(examples=["plugpark-standard"])
    currency: Currency = Field(examples=["EUR"])
    per_kwh: Price = Field(examples=["0.49"])
    per_session: Price = Field(examples=["0.35"])


class AuthorizeBody(BaseModel):
    """Which contract wants to charge where, under which tariff.

    With the fingerprint of the certificate that was shown, one that names this EMAID but is
    not this contract's is refused; without it, who asks answers for that.
    """

    emaid: Name = Field(examples=["DESUNC12345678X"])
    certificate_fingerprint: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = (
        Field(default=None, examples=[None], description="SHA-256 of its DER encoding, hex.")
    )
    evse_id: Name = Field(examples=["DE*PLG*E0001*1"])
    tariff: TariffBody


class DecisionBody(BaseModel):
    """``allowed`` is ALLOWED, BLOCKED, EXPIRED, NO_CREDIT or NOT_ALLOWED (OCPI's words)."""

    allowed: str
    code: str
    reason: str
    authorization_reference: str | None


class CdrBody(BaseModel):
    """A charge detail record with the receipts that the car signed (base64 of V2G messages)."""

    id: Name
    authorization_reference: Name
    emaid: Name
    evse_id: Name
    session_id: SessionId
    started_at: Instant
    ended_at: Instant
    meter_start_wh: Wh
    meter_stop_wh: Wh
    currency: Currency
    total_cost: Annotated[Decimal, Field(ge=0, le=10**9, decimal_places=2)]
    receipts: ReceiptTexts
    country_code: Annotated[str, StringConstraints(pattern="^[A-Za-z]{2}$")] | None = Field(
        default=None, examples=["DE"], description="With party_id: whose record it is (OCPI)."
    )
    party_id: Annotated[str, StringConstraints(pattern="^[A-Za-z0-9]{3}$")] | None = Field(
        default=None, examples=["PLG"]
    )
    offline: bool = Field(
        default=False,
        description="It was begun without this operator's word, which did not answer; then the "
        "tariff and the certificate that was shown are told here.",
    )
    tariff: TariffBody | None = Field(default=None, examples=[None])
    certificate_fingerprint: Fingerprint | None = Field(default=None, examples=[None])


class CdrStateBody(BaseModel):
    """``settled`` (it will be paid) or ``disputed`` (it will not, for this reason)."""

    id: str
    status: str
    reason: str
    total_cost: str
    currency: str


class InvoiceBody(BaseModel):
    """What a driver pays for one session."""

    number: int
    driver: str
    emaid: str
    cpo: str
    cdr: str
    energy_wh: int
    charging: str
    service: str
    total: str
    currency: str
    issued_at: str


def _service(request: Request) -> MobilityOperator:
    service: MobilityOperator = request.app.state.service
    return service


@router.post("/authorizations")
async def authorize(request: Request, body: AuthorizeBody, caller: CpoCaller) -> DecisionBody:
    """May this contract charge here? A refusal is an answer too (status 200)."""
    decision = await _service(request).settlement.authorize(
        body.emaid,
        body.certificate_fingerprint,
        body.evse_id,
        Tariff.from_dict(body.tariff.model_dump()),
        caller,
    )
    return DecisionBody(
        allowed=decision.allowed,
        code=decision.code,
        reason=decision.reason,
        authorization_reference=decision.reference,
    )


@router.post("/cdrs", status_code=201)
async def receive(request: Request, body: CdrBody, caller: CpoCaller) -> CdrStateBody:
    """Settle a session. The same record again gets the same answer; a record that does not
    agree with its receipts or its tariff is kept as disputed."""
    row = await _service(request).settlement.receive(
        ChargeDetailRecord(
            id=body.id,
            authorization=body.authorization_reference,
            emaid=body.emaid,
            evse_id=body.evse_id,
            session_id=body.session_id,
            started_at=body.started_at,
            ended_at=body.ended_at,
            meter_start_wh=body.meter_start_wh,
            meter_stop_wh=body.meter_stop_wh,
            currency=body.currency,
            cost_cents=cents(body.total_cost),
            receipts=tuple(unb64(text, f"receipts[{i}]") for i, text in enumerate(body.receipts)),
            party=f"{body.country_code or ''}{body.party_id or ''}".upper(),
            offline=body.offline,
            tariff=Tariff.from_dict(body.tariff.model_dump()) if body.tariff else None,
            certificate=body.certificate_fingerprint,
        ),
        body.model_dump(mode="json", exclude_defaults=True),
        caller,
    )
    return _state(row)


def _state(row: Any) -> CdrStateBody:
    return CdrStateBody(
        id=row.id,
        status=row.status,
        reason=row.reason,
        total_cost=decimal(row.cost_cents),
        currency=row.currency,
    )


@router.get("/invoices")
async def invoices(
    request: Request, _caller: AdminCaller, driver: str | None = None
) -> list[InvoiceBody]:
    """All invoices, or one driver's."""
    return [
        InvoiceBody(
            number=row.number,
            driver=row.driver,
            emaid=row.emaid,
            cpo=row.cpo,
            cdr=row.cdr,
            energy_wh=row.energy_wh,
            charging=decimal(row.charging_cents),
            service=decimal(row.service_cents),
            total=decimal(row.total_cents),
            currency=row.currency,
            issued_at=row.issued_at.isoformat(),
        )
        for row in await _service(request).accounts.invoices(driver)
    ]


@router.get("/ledger")
async def ledger(request: Request, _caller: AdminCaller) -> dict[str, Any]:
    """The double-entry ledger: every posting, every account; ``total_cents`` is always 0."""
    return await _service(request).accounts.ledger()
