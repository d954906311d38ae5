"""The certificate provisioning service as OPCP 1.0 speaks: ``/v1/cps/...`` and ``/cps/signer``.

A mobility operator with a PKI of its own has its contract data signed, and stored in the
contract pool where it names a car. One without says which contract it wants.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from cryptography import x509
from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from pki.names import common_name
from services.common import examples, opcp
from services.common.auth import AnyCaller, Caller, allow
from services.common.certificates import b64, fingerprint, unb64
from services.common.errors import Refusal
from services.cps.hosted import Order
from services.cps.service import ContractDataRequest, ProvisioningService

router = APIRouter(
    tags=["OPCP: certificate provisioning service"],
    responses={k: opcp.ERRORS[k] for k in (400, 401, 403, 413, 502, 503)},
)

Operator = Annotated[Caller, Depends(allow("mo"))]

NO_CAR = "The OEM provisioning certificate with the given PCID is not available."
WORDS: opcp.Words = {
    "unknown_pcid": (400, NO_CAR),
    "emaid_taken": (400, "Invalid Tupple - EMAID is already used by other PCID."),
    "ends_in_the_past": (400, "The given contractEnds date is in the past."),
}

ROOT_FIELD = Field(
    default=None,
    max_length=64,
    examples=[None],
    description="The V2G root under which it is to be signed, by UUID or by fingerprint; there "
    "is one here, and another one is refused.",
)


class ContractData(opcp.Body):
    """A contract certificate with its chain, and its key as only the car can read it."""

    contractCertificate: opcp.Certificate64 = Field(
        examples=[examples.CERTIFICATE], description="Its CN is the EMAID."
    )
    contractSubCa1Certificate: opcp.Certificate64 = Field(examples=[examples.SUB_CA_1])
    contractSubCa2Certificate: opcp.Certificate64 | None = Field(
        default=None, examples=[examples.SUB_CA_2]
    )
    contractSignatureEncryptedPrivateKey: opcp.Base64 = Field(
        examples=["A" * 64], description="IV and ciphertext, 48 bytes in base64."
    )
    dHpublickey: opcp.Base64 = Field(
        examples=["BA" + "A" * 86], description="An uncompressed point, 65 bytes in base64."
    )


class SignedContractDataRequest(opcp.Body):
    """Contract data to sign; with a PCID it is stored in the contract pool too."""

    contractData: ContractData
    pcid: opcp.Pcid | None = None
    xsdMsgDefNamespace: opcp.Namespace = opcp.ISO2
    cpsRootCertificateId: str | None = ROOT_FIELD
    cpsV2GRootCertificateFingerprint: str | None = ROOT_FIELD


class CertChain(opcp.Body):
    """A contract certificate and its sub-CAs, the lowest first."""

    contractSignatureCertChainCertificate: opcp.Certificate64
    contractSignatureCertChainSubCertificates: Annotated[
        list[opcp.Certificate64],
        Field(min_length=1, max_length=2, examples=[[examples.SUB_CA_2, examples.SUB_CA_1]]),
    ]


class OldContractData(opcp.Body):
    """Contract data in the deprecated shape."""

    contractSignatureCertChain: CertChain
    contractSignatureEncryptedPrivateKey: opcp.Base64 = Field(examples=["A" * 64])
    dHpublickey: opcp.Base64 = Field(examples=["BA" + "A" * 86])
    emaid: opcp.Emaid


class CreateSignedContractDataRequest(opcp.Body):
    """Contract data to sign, in the deprecated shape."""

    contractData: OldContractData
    emaid: opcp.Emaid
    pcid: opcp.Pcid
    xsdMsgDefNamespace: opcp.Namespace = opcp.ISO2
    cpsRootCertificateId: str | None = ROOT_FIELD
    cpsV2GRootCertificateFingerprint: str | None = ROOT_FIELD


class SignedContractDataAnswer(BaseModel):
    """Signed contract data."""

    pcid: str | None
    emaid: str
    xsdMsgDefNamespace: str
    signedData: str = Field(description="A CertificateInstallationRes as XML, in base64.")
    cpsRootCertificateId: str | None
    cpsV2GRootCertificateFingerprint: str | None
    cpsRootDistinguishedName: str | None


class GenerateSignedContractData(opcp.Body):
    """Which contract is wanted."""

    contractBegins: str = Field(
        max_length=64,
        examples=["2026-11-22T00:00:00Z"],
        description="ISO 8601; an instant that is past means now. Without a zone it is UTC.",
    )
    contractEnds: str = Field(max_length=64, examples=["2096-11-22T00:00:00Z"])
    emaid: opcp.Emaid
    pcid: opcp.Pcid
    xsdMsgDefNamespace: opcp.Namespace = opcp.ISO2
    subscriptionUrl: str | None = Field(
        default=None, max_length=500, examples=[None], description="Is not called."
    )
    cpsRootCertificateId: str | None = ROOT_FIELD
    cpsV2GRootCertificateFingerprint: str | None = ROOT_FIELD
    metaData: str | None = Field(default=None, max_length=2000, examples=[None])


class CpsSigner(BaseModel):
    """A certificate that signs contract data, with what vouches for it."""

    cpsDistinguishedName: str
    cpsCertificate: str
    validFrom: str
    validTo: str
    organizationName: str
    cpsRootCertificateId: str | None
    cpsV2GRootCertificateFingerprint: str | None
    cpsRootDistinguishedName: str | None
    cpsSubCa1Certificate: str
    cpsSubCa2Certificate: str | None
    cpsCa1Certificate: str = Field(description="The same under the name of an older version.")
    cpsCa2Certificate: str | None
    xsdMsgDefNamespace: str


class CpsSigners(BaseModel):
    """GET /cps/signer."""

    cpsCertificates: list[CpsSigner]


class Nothing(BaseModel):
    """An answer without content."""


def _service(request: Request) -> ProvisioningService:
    service: ProvisioningService = request.app.state.service
    return service


async def must_be_our_root(request: Request, *wanted: str | None) -> x509.Certificate | None:
    """Our V2G root. Refusal 400 where another one is asked for."""
    root = await _service(request).root()
    for one in wanted:
        if one and (root is None or not opcp.is_root(one, root)):
            raise Refusal(
                400,
                "other_root",
                f"cpsRootCertificateId : this service signs under no root {one[:64]!r}",
            )
    return root


def root_names(root: x509.Certificate | None) -> dict[str, str | None]:
    """How our V2G root is called."""
    mark = fingerprint(root) if root else None
    return {
        "cpsRootCertificateId": opcp.root_id(mark) if mark else None,
        "cpsV2GRootCertificateFingerprint": mark,
        "cpsRootDistinguishedName": opcp.distinguished_name(root.subject) if root else None,
    }


def wish(
    chain: tuple[x509.Certificate, ...], key: str, point: str, emaid: str | None, pcid: str | None
) -> ContractDataRequest:
    """What is to be signed; the EMAID is the certificate's where none is given."""
    return ContractDataRequest(
        emaid=(emaid or common_name(chain[0].subject)).replace("-", ""),
        pcid=pcid or "",
        contract_chain=chain,
        encrypted_private_key=_element(key, "contractSignatureEncryptedPrivateKey"),
        dh_public_key=_element(point, "dHpublickey"),
    )


def _element(text: str, field: str) -> bytes:
    sentence = f'contractData.{field} : must match "{opcp.BASE64_PATTERN}"'
    with opcp.worded({"not_base64": (400, sentence), "empty": (400, sentence)}):
        return unb64(text, field)


async def signed(
    request: Request, wanted: ContractDataRequest, caller: Caller, *, store: bool
) -> bytes:
    """The signed message, stored in the contract pool or not."""
    with opcp.worded(WORDS):
        if not store:
            return await _service(request).sign_only(wanted, caller)
        row, _ = await _service(request).sign(wanted, caller, bring_again=True)
        return row.message


def _answer(
    wanted: ContractDataRequest, message: bytes, root: x509.Certificate | None, pcid: str | None
) -> SignedContractDataAnswer:
    return SignedContractDataAnswer(
        pcid=pcid,
        emaid=wanted.emaid,
        xsdMsgDefNamespace=opcp.ISO2,
        signedData=b64(opcp.as_xml(message)),
        **root_names(root),
    )


@router.put(
    "/v1/cps/contractData/signed",
    status_code=201,
    responses={404: opcp.ERRORS[404]},
)
async def sign_contract_data(
    request: Request, body: SignedContractDataRequest, caller: Operator
) -> SignedContractDataAnswer:
    """Sign contract data; with a PCID it is stored in the contract pool as well. A mobility
    operator has contracts of its own provider id signed."""
    opcp.must_be_iso2(body.xsdMsgDefNamespace)
    root = await must_be_our_root(
        request, body.cpsRootCertificateId, body.cpsV2GRootCertificateFingerprint
    )
    data = body.contractData
    chain = [opcp.certificate_of(data.contractCertificate, "contractCertificate")]
    if data.contractSubCa2Certificate:
        chain.append(
            opcp.certificate_of(data.contractSubCa2Certificate, "contractSubCa2Certificate")
        )
    chain.append(opcp.certificate_of(data.contractSubCa1Certificate, "contractSubCa1Certificate"))
    wanted = wish(
        tuple(chain),
        data.contractSignatureEncryptedPrivateKey,
        data.dHpublickey,
        None,
        body.pcid,
    )
    message = await signed(request, wanted, caller, store=body.pcid is not None)
    return _answer(wanted, message, root, body.pcid)


async def _signed_old(
    request: Request, body: CreateSignedContractDataRequest, caller: Caller, *, store: bool
) -> SignedContractDataAnswer:
    opcp.must_be_iso2(body.xsdMsgDefNamespace)
    root = await must_be_our_root(
        request, body.cpsRootCertificateId, body.cpsV2GRootCertificateFingerprint
    )
    data, chain = body.contractData, body.contractData.contractSignatureCertChain
    certificates = (
        opcp.certificate_of(
            chain.contractSignatureCertChainCertificate, "contractSignatureCertChainCertificate"
        ),
        *(
            opcp.certificate_of(one, "contractSignatureCertChainSubCertificates list")
            for one in chain.contractSignatureCertChainSubCertificates
        ),
    )
    wanted = wish(
        certificates,
        data.contractSignatureEncryptedPrivateKey,
        data.dHpublickey,
        body.emaid,
        body.pcid,
    )
    message = await signed(request, wanted, caller, store=store)
    return _answer(wanted, message, root, body.pcid)


@router.put("/v1/cps/signedContractData", deprecated=True)
async def create_signed_contract_data(
    request: Request, body: CreateSignedContractDataRequest, caller: Operator
) -> SignedContractDataAnswer:
    """Sign contract data and store it nowhere."""
    return await _signed_old(request, body, caller, store=False)


@router.put("/v1/cps/forward/signedContractData", status_code=201, deprecated=True)
async def create_and_forward_signed_contract_data(
    request: Request, body: CreateSignedContractDataRequest, caller: Operator
) -> Nothing:
    """Sign contract data and store it in the contract pool."""
    await _signed_old(request, body, caller, store=True)
    return Nothing()


def instant_of(text: str, field: str) -> datetime:
    """An instant of ISO 8601, in UTC where it has no zone. Refusal 400 names the field."""
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise opcp.refused(
            400,
            f"The {field} does not match the specification",
            f"{field} : {text[:40]!r} is no date and time of ISO 8601",
            code="not_an_instant",
        ) from None


@router.put("/v1/cps/generate/signedContractData", status_code=201, response_class=Response)
async def generate_signed_contract_data(
    request: Request, body: GenerateSignedContractData, caller: Operator
) -> Response:
    """Make a contract for a car and store it in the contract pool. The operator of the EMAID's
    provider id makes it; for one that is a client and no party it is issued here, under the V2G
    root, in its name. With other dates it replaces the contract that there is."""
    await generated(request, body, caller)
    return Response(status_code=201)


async def generated(request: Request, body: GenerateSignedContractData, caller: Caller) -> None:
    opcp.must_be_iso2(body.xsdMsgDefNamespace)
    await must_be_our_root(
        request, body.cpsRootCertificateId, body.cpsV2GRootCertificateFingerprint
    )
    order = Order(
        body.emaid,
        body.pcid,
        instant_of(body.contractBegins, "contractBegins"),
        instant_of(body.contractEnds, "contractEnds"),
    )
    with opcp.worded(WORDS):
        await _service(request).hosted.generate(order, caller)


@router.get("/cps/signer")
@router.get("/v1/cps/signer")
async def get_all_cps_signers(request: Request, _caller: AnyCaller) -> CpsSigners:
    """With what this service signs."""
    signer, *above = _service(request).chain
    sub_1 = opcp.one_line(above[-1])
    sub_2 = opcp.one_line(above[0]) if len(above) > 1 else None
    return CpsSigners(
        cpsCertificates=[
            CpsSigner(
                cpsDistinguishedName=opcp.distinguished_name(signer.subject),
                cpsCertificate=opcp.one_line(signer),
                validFrom=opcp.instant(signer.not_valid_before_utc),
                validTo=opcp.instant(signer.not_valid_after_utc),
                organizationName=opcp.organization(signer.subject),
                cpsSubCa1Certificate=sub_1,
                cpsSubCa2Certificate=sub_2,
                cpsCa1Certificate=sub_1,
                cpsCa2Certificate=sub_2,
                xsdMsgDefNamespace=opcp.ISO2,
                **root_names(await _service(request).root()),
            )
        ]
    )
