"""The contract certificate pool as OPNC speaks: ``/opnc/v1/ccp/...``."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from services.ccp.service import ContractPool, Described
from services.common import examples, opcp, opnc
from services.common.auth import Caller, allow
from services.common.certificates import b64, fingerprint, unb64

from .opcp import (
    NOT_FOUND,
    Contract,
    Edition,
    EmaidPath,
    GetSignedContractData,
    Maker,
    PcidPath,
    Root,
    asked,
    make_default,
    of_car,
    of_emaid,
    provided,
    stored,
)

router = opnc.router("contract certificate pool", 502)

PATH = "/opnc/v1/ccp"


class SignedContractData(BaseModel):
    """Signed contract data of a car; without an EMAID it is a refusal for the car."""

    certificateInstallationRes: str = Field(description="EXI in base64.")
    emaid: str | None = None
    pcid: str | None = None
    xsdMsgDefNamespace: str = opcp.ISO2
    metaData: str = Field(description="The ResponseCode inside.")
    cpsV2GRootCertificateFingerprint: str | None = None
    cpsRootDistinguishedName: str | None = None


class SignedContractDataAnswer(BaseModel):
    """Contract data for a car: one, in ISO 15118-2."""

    signedContractDataCollection: list[SignedContractData]


class RefusedAnswer(opcp.ErrorBody):
    """A refusal, and the refusal for the car as EXI."""

    signedContractDataCollection: list[SignedContractData] = Field(default_factory=list)


class AddSignedContractData(opcp.Body):
    """Contract data that a provisioning service signed."""

    certificateInstallationRes: opcp.Base64 = Field(
        examples=[examples.MESSAGE], description="EXI in base64."
    )
    emaid: opcp.Emaid
    pcid: opcp.Pcid
    xsdMsgDefNamespace: opcp.Namespace


class ContractData(BaseModel):
    """A contract of a car."""

    pcid: str
    emaid: str
    xsdMsgDefNamespace: str
    contractCertificate: str
    defaultContract: bool
    certValidFrom: str
    certValidTo: str
    cpsV2GRootDistinguishedName: str | None = None
    cpsV2GRootCertificateFingerprint: str | None = None


class ContractDataAnswer(BaseModel):
    """Contracts, the default first."""

    contractDataCollection: list[ContractData]


def _service(request: Request) -> ContractPool:
    service: ContractPool = request.app.state.service
    return service


def _told(found: list[Contract]) -> ContractDataAnswer:
    return ContractDataAnswer(
        contractDataCollection=[
            ContractData(
                pcid=one.pcid,
                emaid=one.emaid,
                xsdMsgDefNamespace=one.xsdMsgDefNamespace,
                contractCertificate=one.contractCertificate,
                defaultContract=one.defaultContract,
                certValidFrom=one.certValidFrom,
                certValidTo=one.certValidTo,
                cpsV2GRootDistinguishedName=one.cpsRootDistinguishedName,
                cpsV2GRootCertificateFingerprint=one.cpsV2GRootCertificateFingerprint,
            )
            for one in found
        ]
    )


def _signed(message: bytes, code: str, found: Described | None) -> SignedContractData:
    root = found.root if found else None
    return SignedContractData(
        certificateInstallationRes=b64(message),
        emaid=found.emaid if found else None,
        pcid=found.row.pcid if found else None,
        metaData=code,
        cpsV2GRootCertificateFingerprint=fingerprint(root) if root else None,
        cpsRootDistinguishedName=opcp.distinguished_name(root.subject) if root else None,
    )


@router.get(
    f"{PATH}/contractData/emaid/{{emaid}}",
    responses={404: opcp.ERRORS[404]},
    response_model_exclude_none=True,
)
async def get_contract_data_by_emaid(
    request: Request,
    emaid: EmaidPath,
    caller: Annotated[Caller, Depends(allow("oem", "cpo", "mo"))],
    xsd: Edition = None,
    cpsV2GRootCertificateFingerprint: Root = None,
) -> ContractDataAnswer:
    """A contract by its EMAID; hyphens and check digit do not matter."""
    opcp.must_be_iso2(xsd)
    with opcp.worded(NOT_FOUND):
        return _told(await of_emaid(request, emaid, caller, cpsV2GRootCertificateFingerprint))


@router.get(f"{PATH}/contractData/pcid/{{pcid}}", response_model_exclude_none=True)
async def get_contract_data_by_pcid(
    request: Request, pcid: PcidPath, caller: Maker, xsd: Edition = None
) -> ContractDataAnswer:
    """A car's contracts, the default first. For its maker."""
    opcp.must_be_iso2(xsd)
    return _told(await of_car(request, pcid, caller))


@router.post(
    f"{PATH}/signedcontractdata",
    responses={404: {"model": RefusedAnswer, "description": "No contract, or no such car."}},
    response_model_exclude_none=True,
)
async def get_signed_contract_data(
    request: Request,
    body: GetSignedContractData,
    _caller: Annotated[Caller, Depends(allow("cpo", "oem"))],
    always_return_exi: Annotated[bool, Header(alias="alwaysReturnEXI")] = True,
    _broadcast: Annotated[bool, Header(alias="broadcast")] = False,
) -> SignedContractDataAnswer | Any:
    """Answer a car's CertificateInstallationReq with its default contract; a refusal carries
    the one for the car beside the error, unless ``alwaysReturnEXI`` is false."""
    opcp.must_be_iso2(body.xsdMsgDefNamespace)
    delivery = await asked(request, body.certificateInstallationReq)
    service = _service(request)
    if delivery.emaid is not None:
        found = await service.described(await service.get(delivery.emaid))
        answer = _signed(delivery.message, delivery.code, found)
        return SignedContractDataAnswer(signedContractDataCollection=[answer])
    refused = RefusedAnswer(
        errorMessages=["Contract or Vehicle not found.", delivery.code],
        traceId=opcp.trace_id(service.party),
        signedContractDataCollection=[_signed(delivery.message, delivery.code, None)],
    ).model_dump(exclude_none=True)
    if not always_return_exi:
        del refused["signedContractDataCollection"]
    return JSONResponse(refused, 404)


@router.put(f"{PATH}/signedcontractdata", status_code=201, response_class=Response)
async def add_signed_contract_data(
    request: Request,
    body: AddSignedContractData,
    caller: Annotated[Caller, Depends(allow("cps"))],
) -> Response:
    """Store contract data that a provisioning service signed; it replaces what there is of the
    same EMAID."""
    opcp.must_be_iso2(body.xsdMsgDefNamespace)
    message = unb64(body.certificateInstallationRes, "certificateInstallationRes")
    await stored(request, body.emaid, body.pcid, message, caller)
    return Response(status_code=201)


@router.delete(
    f"{PATH}/signedcontractdata/{{emaid}}",
    responses={404: opcp.ERRORS[404]},
    response_class=Response,
)
async def delete_signed_contract_data(
    request: Request,
    emaid: EmaidPath,
    caller: Annotated[Caller, Depends(allow("mo"))],
    skip: Annotated[bool, Header(alias="X-Skip-Revocation")] = False,
) -> Response:
    """Take a contract out of the pool; its certificate is revoked by whoever issued it, unless
    ``X-Skip-Revocation`` says not to."""
    with opcp.worded(NOT_FOUND):
        await _service(request).withdraw(emaid, caller, revoke=not skip)
    return Response(status_code=200)


@router.get(
    f"{PATH}/signedcontractdata/{{emaid}}/{{pcid}}",
    responses={404: opcp.ERRORS[404]},
    response_model_exclude_none=True,
)
async def get_signed_contract_data_by_emaid_and_pcid(
    request: Request,
    emaid: EmaidPath,
    pcid: PcidPath,
    caller: Maker,
    sessionID: Annotated[str, Query(examples=["00"])] = "",
    xsd: Edition = None,
    cpsV2GRootCertificateFingerprint: Root = None,
) -> SignedContractDataAnswer:
    """A contract for a maker that installs it in its car itself."""
    opcp.must_be_iso2(xsd)
    found = await provided(
        request, emaid, pcid, caller, sessionID, cpsV2GRootCertificateFingerprint
    )
    return SignedContractDataAnswer(
        signedContractDataCollection=[_signed(found.message, "OK", found)]
    )


@router.post(
    f"{PATH}/signedcontractdata/{{emaid}}/{{pcid}}/setdefault",
    responses={404: opcp.ERRORS[404]},
    response_class=Response,
)
async def set_signed_contract_data_as_default(
    request: Request, emaid: EmaidPath, pcid: PcidPath, caller: Maker
) -> Response:
    """Make a contract its car's default."""
    await make_default(request, pcid, emaid, caller)
    return Response(status_code=200)
