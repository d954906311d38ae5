"""The contract certificate pool as OPCP 1.0 speaks: ``/v1/ccp/...``.

A CertificateInstallationReq of ISO 15118-2 is answered with exactly one contract, the car's
default: clients differ in whether they read the first or the last of the list. What cannot be
answered with a contract is a 404 with the refusal that the car is to get, as EXI in the same
shape; with ``alwaysReturnEXI: false`` it has the protocol's error body instead.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from services.ccp.service import ContractPool, Delivery, Described
from services.common import examples, opcp
from services.common.auth import Caller, allow
from services.common.certificates import b64, fingerprint, unb64
from services.common.errors import Refusal

router = APIRouter(
    prefix="/v1/ccp",
    tags=["OPCP: contract certificate pool"],
    responses={k: opcp.ERRORS[k] for k in (400, 401, 403, 413, 502, 503)},
)

NO_CONTRACT = "The contract for the given EMAID not found."
NOT_FOUND: opcp.Words = {"unknown_emaid": (404, NO_CONTRACT), "other_car": (404, NO_CONTRACT)}
WRONG_EXI: opcp.Words = dict.fromkeys(
    ("wrong_exi", "wrong_message", "not_base64", "empty"), (400, "EXI format is invalid!")
)
TAKEN: opcp.Words = {"emaid_taken": (400, "Invalid Tupple - EMAID is already used by other PCID.")}
EXPIRED = "The validUntil date of contract certificate is in the past."
WRONG_SESSION = (
    "Invalid SessionID format, make sure the length is maximum 8 characters and it is "
    "represented in HEX binary"
)

PcidPath = Annotated[str, Path(pattern=opcp.PCID_PATTERN, examples=["WNV1A2B3C4D5E6F7G8"])]
EmaidPath = Annotated[
    str, Path(pattern=opcp.EMAID_PATTERN, max_length=18, examples=["DESUNC12345678L"])
]
Edition = Annotated[str | None, Query(alias="xsdMsgDefNamespace", max_length=128)]
Root = Annotated[
    str | None,
    Query(
        max_length=64,
        description="Only what was signed under this V2G root: its UUID or its fingerprint.",
    ),
]
Maker = Annotated[Caller, Depends(allow("oem"))]


class GetSignedContractData(opcp.Body):
    """A car's CertificateInstallationReq."""

    certificateInstallationReq: opcp.Base64 = Field(
        examples=[examples.MESSAGE], description="The whole V2G message, EXI in base64."
    )
    xsdMsgDefNamespace: opcp.Namespace


class MessageDef(BaseModel):
    """An answer for the car; without an EMAID it is a refusal."""

    certificateInstallationRes: str = Field(description="EXI in base64.")
    emaid: str | None = None
    metaData: str = Field(description="The ResponseCode inside.")
    cpsRootCertificateId: str | None = Field(default=None, description="UUID of the V2G root.")
    cpsV2GRootCertificateFingerprint: str | None = None


class EmaidContent(BaseModel):
    """One contract."""

    messageDef: MessageDef


class CCPResponse(BaseModel):
    """The contracts for a car: one, in ISO 15118-2."""

    emaidContent: list[EmaidContent]


class SignedContractDataAnswer(BaseModel):
    """POST /v1/ccp/signedContractData."""

    CCPResponse: CCPResponse
    xsdMsgDefNamespace: str = opcp.ISO2


class SignedContractData(opcp.Body):
    """Contract data that a provisioning service signed."""

    xsdMsgDefNamespace: opcp.Namespace
    emaid: opcp.Emaid
    pcid: opcp.Pcid
    signedContractDataXML: opcp.Base64 = Field(
        examples=["PFYyR19NZXNzYWdlLz4="],
        description="A CertificateInstallationRes as XML, in base64.",
    )


class Contract(BaseModel):
    """A contract of a car."""

    pcid: str
    emaid: str
    xsdMsgDefNamespace: str
    contractCertificate: str
    defaultContract: bool
    priority: int = Field(description="1 is the default.")
    certValidFrom: str
    certValidTo: str
    cpsRootCertificateId: str | None = None
    cpsRootDistinguishedName: str | None = None
    cpsV2GRootCertificateFingerprint: str | None = None


class Contracts(BaseModel):
    """Contracts, the default first."""

    XMLContracts: list[Contract]


class ProvidedContractData(BaseModel):
    """GET /v1/ccp/provideSignedContractData/{emaid}/{pcid}."""

    certificateInstallationRes: str
    xsdMsgDefNamespace: str
    cpsRootCertificateId: str | None = None
    cpsV2GRootCertificateFingerprint: str | None = None


def _service(request: Request) -> ContractPool:
    service: ContractPool = request.app.state.service
    return service


def root_names(found: Described) -> dict[str, str | None]:
    """How the V2G root behind a contract is called: by UUID and by fingerprint."""
    mark = fingerprint(found.root) if found.root else None
    return {
        "cpsRootCertificateId": opcp.root_id(mark) if mark else None,
        "cpsV2GRootCertificateFingerprint": mark,
    }


async def asked(request: Request, message: str) -> Delivery:
    """The pool's answer to a CertificateInstallationReq in base64."""
    with opcp.worded(WRONG_EXI):
        return await _service(request).deliver(
            unb64(message, "certificateInstallationReq"), default_first=True
        )


@router.post(
    "/signedContractData",
    responses={
        404: {
            "description": "No contract for this car, or no such car: with the refusal for the "
            "car as EXI, or without.",
            "model": SignedContractDataAnswer | opcp.ErrorBody,
        }
    },
    response_model=SignedContractDataAnswer,
    response_model_exclude_none=True,
)
async def get_signed_contract_data(
    request: Request,
    body: GetSignedContractData,
    _caller: Annotated[Caller, Depends(allow("cpo", "oem"))],
    always_return_exi: Annotated[bool, Header(alias="alwaysReturnEXI")] = True,
    _broadcast: Annotated[bool, Header(alias="broadcast")] = False,
) -> Any:
    """Answer a car's CertificateInstallationReq with its default contract. There is no other
    ecosystem to ask, so ``broadcast`` changes nothing."""
    opcp.must_be_iso2(body.xsdMsgDefNamespace)
    delivery = await asked(request, body.certificateInstallationReq)
    message = MessageDef(
        certificateInstallationRes=b64(delivery.message),
        emaid=delivery.emaid,
        metaData=delivery.code,
    )
    if delivery.emaid is not None:
        row = await _service(request).get(delivery.emaid)
        names = root_names(await _service(request).described(row))
        message = message.model_copy(update=names)
    elif not always_return_exi:
        raise opcp.refused(404, "Contract or Vehicle not found.", delivery.code)
    answer = SignedContractDataAnswer(
        CCPResponse=CCPResponse(emaidContent=[EmaidContent(messageDef=message)])
    )
    return JSONResponse(answer.model_dump(exclude_none=True), 200 if delivery.emaid else 404)


@router.put("/signedContractData", status_code=201, response_class=Response)
async def add_signed_contract_data(
    request: Request,
    body: SignedContractData,
    caller: Annotated[Caller, Depends(allow("cps"))],
) -> Response:
    """Store contract data that a provisioning service signed; it replaces what there is of the
    same EMAID."""
    opcp.must_be_iso2(body.xsdMsgDefNamespace)
    message = opcp.as_exi(body.signedContractDataXML, "signedContractDataXML")
    await stored(request, body.emaid, body.pcid, message, caller)
    return Response(status_code=201)


async def stored(request: Request, emaid: str, pcid: str, message: bytes, caller: Caller) -> None:
    """Store contract data, unless its contract certificate has expired."""
    service = _service(request)
    if service.ended(message):
        raise opcp.refused(400, EXPIRED, code="expired")
    with opcp.worded(TAKEN):
        await service.store(emaid, pcid, message, caller)


async def contracts(
    service: ContractPool, found: list[Described], default: str | None
) -> list[Contract]:
    """Contracts as both protocols tell of them, in the order of their delivery."""
    return [
        Contract(
            pcid=one.row.pcid,
            emaid=one.emaid,
            xsdMsgDefNamespace=opcp.ISO2,
            contractCertificate=opcp.one_line(one.certificate),
            defaultContract=one.row.emaid == default,
            priority=number,
            certValidFrom=opcp.instant(one.row.valid_from),
            certValidTo=opcp.instant(one.row.valid_to),
            cpsRootDistinguishedName=opcp.distinguished_name(one.root.subject)
            if one.root
            else None,
            **root_names(one),
        )
        for number, one in enumerate(found, 1)
    ]


async def of_car(request: Request, pcid: str, caller: Caller) -> list[Contract]:
    """A car's contracts, for its maker."""
    service = _service(request)
    service.must_own_car(pcid, caller)
    rows = await service.by_priority(pcid)
    found = [await service.described(row) for row in rows]
    return await contracts(service, found, rows[0].emaid if rows else None)


async def of_emaid(
    request: Request, emaid: str, caller: Caller, root: str | None
) -> list[Contract]:
    """A contract: for its operator, its car's maker and every charge point operator."""
    service = _service(request)
    row = await service.may_look_up(emaid, caller)
    described = await service.described(row)
    if described.root is not None and not opcp.is_root(root, described.root):
        raise opcp.refused(404, NO_CONTRACT)
    rows = await service.by_priority(row.pcid)
    default = rows[0].emaid if rows else None
    (found,) = await contracts(service, [described], default)
    places = [one.emaid for one in rows]
    return [found.model_copy(update={"priority": places.index(row.emaid) + 1})]


@router.get("/signedContractData/{pcid}", response_model_exclude_none=True)
async def get_contracts(
    request: Request, pcid: PcidPath, caller: Maker, xsd: Edition = None
) -> Contracts:
    """A car's contracts, the default first. For its maker."""
    opcp.must_be_iso2(xsd)
    return Contracts(XMLContracts=await of_car(request, pcid, caller))


@router.get(
    "/lookupContract/{emaid}",
    responses={404: opcp.ERRORS[404]},
    response_model_exclude_none=True,
)
async def lookup_contract(
    request: Request,
    emaid: EmaidPath,
    caller: Annotated[Caller, Depends(allow("oem", "cpo", "mo"))],
    xsd: Edition = None,
    cpsRootCertificateId: Root = None,
    cpsV2GRootCertificateFingerprint: Root = None,
) -> Contracts:
    """A contract by its EMAID; hyphens and check digit do not matter."""
    opcp.must_be_iso2(xsd)
    root = cpsRootCertificateId or cpsV2GRootCertificateFingerprint
    with opcp.worded(NOT_FOUND):
        return Contracts(XMLContracts=await of_emaid(request, emaid, caller, root))


@router.get(
    "/provideSignedContractData/{emaid}/{pcid}",
    responses={404: opcp.ERRORS[404]},
    response_model_exclude_none=True,
)
async def provide_signed_contract_data(
    request: Request,
    emaid: EmaidPath,
    pcid: PcidPath,
    caller: Maker,
    sessionID: Annotated[str, Query(examples=["00"])] = "",
    xsd: Edition = None,
    cpsRootCertificateId: Root = None,
    cpsV2GRootCertificateFingerprint: Root = None,
) -> ProvidedContractData:
    """A contract for a maker that installs it in its car itself. Nothing is checked but that it
    is a contract of this car."""
    opcp.must_be_iso2(xsd)
    root = cpsRootCertificateId or cpsV2GRootCertificateFingerprint
    found = await provided(request, emaid, pcid, caller, sessionID, root)
    return ProvidedContractData(
        certificateInstallationRes=b64(found.message),
        xsdMsgDefNamespace=opcp.ISO2,
        **root_names(found),
    )


async def provided(
    request: Request, emaid: str, pcid: str, caller: Caller, session: str, root: str | None
) -> Described:
    """A contract's message for a session (hex, up to eight bytes)."""
    if not re.fullmatch(r"([0-9a-fA-F]{2}){0,8}", session):
        raise opcp.refused(400, WRONG_SESSION, code="wrong_session")
    service = _service(request)
    service.must_own_car(pcid, caller)
    with opcp.worded(NOT_FOUND):
        found = await service.for_session(emaid, pcid, bytes.fromhex(session) or bytes(8))
    if found.root is not None and not opcp.is_root(root, found.root):
        raise opcp.refused(404, NO_CONTRACT)
    return found


@router.put(
    "/signedContractData/{pcid}/{emaid}/default",
    responses={404: opcp.ERRORS[404]},
    response_class=Response,
)
@router.post(
    "/signedContractData/{pcid}/{emaid}/default",
    responses={404: opcp.ERRORS[404]},
    response_class=Response,
)
async def set_default_contract(
    request: Request,
    pcid: PcidPath,
    emaid: EmaidPath,
    caller: Maker,
    priority: Annotated[int, Query(ge=1, le=100)] = 1,
) -> Response:
    """Make a contract its car's default. A ``priority`` beside 1 is not kept."""
    await make_default(request, pcid, emaid, caller, priority)
    return Response(status_code=200)


async def make_default(
    request: Request, pcid: str, emaid: str, caller: Caller, priority: int = 1
) -> None:
    service = _service(request)
    service.must_own_car(pcid, caller)
    if priority != 1:
        raise Refusal(
            400,
            "priority_not_served",
            f"priority : is {priority}; a car has a default contract (1) and no further order here",
        )
    with opcp.worded(NOT_FOUND):
        await service.set_default(pcid, emaid, caller)


@router.delete(
    "/signedContractData/{emaid}", responses={404: opcp.ERRORS[404]}, response_class=Response
)
async def delete_signed_contract_data(
    request: Request,
    emaid: EmaidPath,
    caller: Annotated[Caller, Depends(allow("mo"))],
    skip: Annotated[bool, Header(alias="X-Skip-Revocation")] = False,
) -> Response:
    """Take a contract out of the pool; its certificate is revoked by whoever issued it, unless
    ``X-Skip-Revocation`` says not to. Where that fails the contract stays."""
    with opcp.worded(NOT_FOUND):
        await _service(request).withdraw(emaid, caller, revoke=not skip)
    return Response(status_code=200)
