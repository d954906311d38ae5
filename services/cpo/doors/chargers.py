"""What chargers ask of their operator, and what its owner looks at."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field

from services.common.auth import AdminCaller, Caller, allow
from services.common.certificates import b64, b64_chain, read_chain, unb64
from services.common.errors import REFUSALS
from services.common.events import current_unit
from services.common.fields import (
    CertificateText,
    Chain,
    Fingerprint,
    MessageText,
    Name,
    ReceiptTexts,
    RequestText,
    SessionId,
    Wh,
)
from services.common.money import decimal
from services.cpo.service import ChargePointOperator

router = APIRouter(
    tags=["chargers"], responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422, 502, 504)}
)

ChargerCaller = Annotated[Caller, Depends(allow("charger"))]


class ChargerCertificateBody(BaseModel):
    """A charger's certificate request; its CN is the EVSEID."""

    evse_id: Name
    csr: RequestText


class ChainBody(BaseModel):
    """A certificate and those above it, leaf first."""

    chain: Chain


class InstallationBody(BaseModel):
    """A car's CertificateInstallationReq as base64 EXI."""

    certificate_installation_req: MessageText


class InstallationAnswer(BaseModel):
    """The CertificateInstallationRes for the car; also a refusal is one."""

    certificate_installation_res: MessageText
    code: str
    emaid: str | None
    reason: str


class UpdateBody(BaseModel):
    """A car's CertificateUpdateReq as base64 EXI."""

    certificate_update_req: MessageText


class UpdateAnswer(BaseModel):
    """The CertificateUpdateRes for the car; also a refusal is one, with ``retry_counter``."""

    certificate_update_res: MessageText
    code: str
    emaid: str | None
    reason: str
    retry_counter: int | None


class ContractBody(BaseModel):
    """What a car showed in PaymentDetailsReq: eMAID and chain, leaf first (base64 DER)."""

    emaid: Name
    chain: list[CertificateText] = Field(min_length=1, max_length=5)


class ContractCheckBody(BaseModel):
    """Whether the contract certificate is good, in the words of each protocol."""

    accepted: bool
    iso15118_2: str = Field(examples=["FAILED_CertificateRevoked"])
    ocpp: str = Field(examples=["CertificateRevoked"])
    reason: str
    verdict: dict[str, Any]


class AuthorizeBody(BaseModel):
    """Who wants to charge where, and with which contract certificate."""

    emaid: Name
    evse_id: Name
    certificate_fingerprint: Fingerprint


class AuthorizationBody(BaseModel):
    """The mobility operator's word, in the charger's and in OCPI's."""

    accepted: bool
    iso15118_2: str
    ocpi: str
    reason: str
    authorization_reference: str | None


class StartBody(BaseModel):
    """A session that begins to charge."""

    evse_id: Name
    session_id: SessionId
    emaid: Name
    authorization_reference: Name
    meter_start_wh: Wh


class StopBody(BaseModel):
    """A session that ended, with the receipts that the car signed (base64 EXI)."""

    meter_stop_wh: Wh
    receipts: ReceiptTexts


class SessionBody(BaseModel):
    """A charging session."""

    id: str
    charger: str
    evse_id: str
    emaid: str
    operator: str
    status: str
    reason: str
    energy_wh: int | None
    total_cost: str | None
    currency: str


def _service(request: Request) -> ChargePointOperator:
    service: ChargePointOperator = request.app.state.service
    return service


def _session(row: Any) -> SessionBody:
    return SessionBody(
        id=row.id,
        charger=row.charger,
        evse_id=row.evse_id,
        emaid=row.emaid,
        operator=row.operator,
        status=row.status,
        reason=row.reason,
        energy_wh=None if row.meter_stop_wh is None else row.meter_stop_wh - row.meter_start_wh,
        total_cost=None if row.cost_cents is None else decimal(row.cost_cents),
        currency=row.tariff["currency"],
    )


@router.post("/charger-certificates", status_code=201)
async def certify(
    request: Request, body: ChargerCertificateBody, caller: ChargerCaller
) -> ChainBody:
    """A V2G certificate for a charger of this operator."""
    _service(request).must_be_ours(caller)
    chain = await _service(request).certify_charger(body.csr, body.evse_id)
    return ChainBody(chain=b64_chain(chain))


@router.post("/installations")
async def install(
    request: Request, body: InstallationBody, caller: ChargerCaller
) -> InstallationAnswer:
    """Pass a car's CertificateInstallationReq on to the contract pool."""
    _service(request).must_be_ours(caller)
    answer = await _service(request).install(
        unb64(body.certificate_installation_req, "certificate_installation_req")
    )
    return InstallationAnswer(
        certificate_installation_res=b64(answer.certificate_installation_res),
        code=answer.code,
        emaid=answer.emaid,
        reason=answer.reason,
    )


@router.post("/updates")
async def update(request: Request, body: UpdateBody, caller: ChargerCaller) -> UpdateAnswer:
    """Pass a car's CertificateUpdateReq on to the contract pool."""
    _service(request).must_be_ours(caller)
    answer = await _service(request).update(
        unb64(body.certificate_update_req, "certificate_update_req")
    )
    return UpdateAnswer(
        certificate_update_res=b64(answer.certificate_update_res),
        code=answer.code,
        emaid=answer.emaid,
        reason=answer.reason,
        retry_counter=answer.retry_counter,
    )


@router.post("/contract-checks")
async def check(request: Request, body: ContractBody, caller: ChargerCaller) -> ContractCheckBody:
    """Is this contract certificate good? A refusal is an answer too (status 200)."""
    _service(request).must_be_ours(caller)
    found = await _service(request).check_contract(body.emaid, read_chain(body.chain, "chain"))
    return ContractCheckBody(
        accepted=found.accepted,
        iso15118_2=found.iso15118_2,
        ocpp=found.ocpp,
        reason=found.reason,
        verdict=dict(found.verdict),
    )


@router.post("/authorizations")
async def authorize(
    request: Request, body: AuthorizeBody, caller: ChargerCaller
) -> AuthorizationBody:
    """May this contract charge here under our tariff? Its mobility operator is asked."""
    _service(request).must_be_ours(caller)
    said = await _service(request).authorize(body.emaid, body.evse_id, body.certificate_fingerprint)
    return AuthorizationBody(
        accepted=said.accepted,
        iso15118_2=said.iso15118_2,
        ocpi=said.ocpi,
        reason=said.reason,
        authorization_reference=said.reference,
    )


@router.post("/sessions", status_code=201)
async def start(request: Request, body: StartBody, caller: ChargerCaller) -> SessionBody:
    """A session begins to charge."""
    _service(request).must_be_ours(caller)
    return _session(
        await _service(request).start(
            caller.client,
            body.evse_id,
            body.session_id,
            body.emaid,
            body.authorization_reference,
            body.meter_start_wh,
            current_unit().run,
        )
    )


@router.post("/sessions/{session}/stop")
async def stop(
    request: Request, session: str, body: StopBody, caller: ChargerCaller
) -> SessionBody:
    """A session ended; its charge detail record goes to the mobility operator."""
    _service(request).must_be_ours(caller)
    receipts = [unb64(text, f"receipts[{i}]") for i, text in enumerate(body.receipts)]
    return _session(
        await _service(request).stop(session, caller.client, body.meter_stop_wh, receipts)
    )


@router.get("/sessions")
async def sessions(request: Request, _caller: AdminCaller) -> list[SessionBody]:
    """All sessions, oldest first."""
    return [_session(row) for row in await _service(request).sessions()]


@router.get("/receivables")
async def receivables(request: Request, _caller: AdminCaller) -> dict[str, str]:
    """What each mobility operator owes for settled sessions."""
    found = await _service(request).receivables()
    return {operator: decimal(total) for operator, total in found.items()}


@router.get("/tariff")
async def tariff(request: Request) -> dict[str, str]:
    """What charging costs here. No token is needed."""
    return _service(request).tariff.as_dict()
