"""The certificate provisioning service as OPNC speaks: ``/opnc/v1/cps/...``."""

from __future__ import annotations

from fastapi import Request, Response
from pydantic import BaseModel, Field

from services.common import opcp, opnc
from services.common.auth import AnyCaller
from services.common.certificates import b64
from services.cps.service import ProvisioningService

from .opcp import (
    ROOT_FIELD,
    GenerateSignedContractData,
    Operator,
    generated,
    must_be_our_root,
    root_names,
    signed,
    wish,
)

router = opnc.router("certificate provisioning service", 502)

PATH = "/opnc/v1/cps"


class ContractCertificateBundle(opcp.Body):
    """A contract certificate with its chain, and its key as only the car can read it."""

    pcid: opcp.Pcid
    emaid: opcp.Emaid
    contractCertificateChain: opnc.CertificateChain
    contractSignatureEncryptedPrivateKey: opcp.Base64 = Field(examples=["A" * 64])
    dHpublickey: opcp.Base64 = Field(examples=["BA" + "A" * 86])


class SignContractData(opcp.Body):
    """Contract data to sign and to store in the contract pool."""

    contractCertificateBundle: ContractCertificateBundle
    xsdMsgDefNamespace: opcp.Namespace
    cpsV2GRootCertificateFingerprint: str | None = ROOT_FIELD


class SignedContractData(BaseModel):
    """Signed contract data for a car."""

    certificateInstallationRes: str = Field(description="EXI in base64.")
    emaid: str
    pcid: str
    xsdMsgDefNamespace: str
    metaData: str
    cpsV2GRootCertificateFingerprint: str | None = None
    cpsRootDistinguishedName: str | None = None


class SignContractDataAnswer(BaseModel):
    """PUT /contractData/sign."""

    signedContractData: SignedContractData


class GenerateAndSign(GenerateSignedContractData):
    """Which contract is wanted."""

    moRootCertificateFingerprint: str | None = Field(
        default=None,
        max_length=64,
        examples=[None],
        description="Under which operator root; the operator decides that here.",
    )


class CpsCertificateData(BaseModel):
    """A certificate that signs contract data."""

    cpsDistinguishedName: str
    cpsCertificateChain: opnc.CertificateChain
    validFrom: str
    validTo: str
    organizationName: str
    cpsV2GRootCertificateFingerprint: str | None = None
    cpsV2GRootDistinguishedName: str | None = None
    cpsRootDistinguishedName: str | None = Field(
        default=None, description="The same under the name of an older version."
    )
    xsdMsgDefNamespace: str


class GetCpsCertificates(BaseModel):
    """GET /cpsCertificates."""

    cpsCertificateDataCollection: list[CpsCertificateData]


def _service(request: Request) -> ProvisioningService:
    service: ProvisioningService = request.app.state.service
    return service


@router.put(
    f"{PATH}/contractData/sign",
    status_code=201,
    responses={404: opcp.ERRORS[404]},
    response_model_exclude_none=True,
)
async def sign_contract_data(
    request: Request, body: SignContractData, caller: Operator
) -> SignContractDataAnswer:
    """Sign contract data and store it in the contract pool. An operator has contracts of its own
    provider id signed."""
    opcp.must_be_iso2(body.xsdMsgDefNamespace)
    root = await must_be_our_root(request, body.cpsV2GRootCertificateFingerprint)
    bundle = body.contractCertificateBundle
    wanted = wish(
        tuple(bundle.contractCertificateChain.certificates("contractCertificateChain")),
        bundle.contractSignatureEncryptedPrivateKey,
        bundle.dHpublickey,
        bundle.emaid,
        bundle.pcid,
    )
    message = await signed(request, wanted, caller, store=True)
    names = root_names(root)
    return SignContractDataAnswer(
        signedContractData=SignedContractData(
            certificateInstallationRes=b64(message),
            emaid=wanted.emaid,
            pcid=bundle.pcid,
            xsdMsgDefNamespace=opcp.ISO2,
            metaData="",
            cpsV2GRootCertificateFingerprint=names["cpsV2GRootCertificateFingerprint"],
            cpsRootDistinguishedName=names["cpsRootDistinguishedName"],
        )
    )


@router.put(f"{PATH}/contractData/generateandsign", status_code=201, response_class=Response)
async def generate_and_sign_contract_data(
    request: Request, body: GenerateAndSign, caller: Operator
) -> Response:
    """Make a contract for a car and store it in the contract pool, as in OPCP."""
    await generated(request, body, caller)
    return Response(status_code=201)


@router.get(f"{PATH}/cpsCertificates", response_model_exclude_none=True)
async def get_cps_certificates(request: Request, _caller: AnyCaller) -> GetCpsCertificates:
    """With what this service signs."""
    service = _service(request)
    signer, names = service.chain[0], root_names(await service.root())
    root = names["cpsRootDistinguishedName"]
    return GetCpsCertificates(
        cpsCertificateDataCollection=[
            CpsCertificateData(
                cpsDistinguishedName=opcp.distinguished_name(signer.subject),
                cpsCertificateChain=opnc.CertificateChain.of(service.chain),
                validFrom=opcp.instant(signer.not_valid_before_utc),
                validTo=opcp.instant(signer.not_valid_after_utc),
                organizationName=opcp.organization(signer.subject),
                cpsV2GRootCertificateFingerprint=names["cpsV2GRootCertificateFingerprint"],
                cpsV2GRootDistinguishedName=root,
                cpsRootDistinguishedName=root,
                xsdMsgDefNamespace=opcp.ISO2,
            )
        ]
    )
