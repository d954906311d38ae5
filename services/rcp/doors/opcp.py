"""The root pool as OPCP 1.0 speaks: ``/v1/root/...``.

Everything told of a root is computed from its certificate. Reading is for every role; a platform
wants a token for it, so this door does too (the pool's own API does not).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel, Field

from pki.names import common_name
from services.common import examples, opcp
from services.common.auth import AdminCaller, AnyCaller
from services.common.certificates import b64, load_der
from services.common.errors import Refusal
from services.rcp.service import TYPES, RootPool
from services.rcp.store import RootRow

router = APIRouter(
    prefix="/v1/root",
    tags=["OPCP: root certificate pool"],
    responses={k: opcp.ERRORS[k] for k in (400, 401, 403, 413, 503)},
)

NOT_FOUND = {"no_such_root": (404, "Root certificate with the given ID is not found")}

RootId = Annotated[
    str,
    Path(
        max_length=64,
        examples=["00000000-0000-0000-0000-000000000000"],
        description="The UUID that the list tells; the SHA-256 fingerprint does as well.",
    ),
]


class RootCert(BaseModel):
    """A root. All but the certificate itself is information."""

    rootCertificateId: str = Field(examples=["5e0e4b77-373b-aa82-5e0e-4b77373baa82"])
    distinguishedName: str = Field(
        examples=["CN=Rootline V2G Root CA, DC=V2G, O=Rootline (pnclab test), C=DE"]
    )
    rootType: str = Field(examples=["V2G"], description="MO, V2G or OEM.")
    caCertificate: str = Field(examples=[examples.ROOT], description="base64 of DER, one line.")
    commonName: str
    rootAuthorityKeyIdentifier: str = Field(
        examples=["F+XMBEWWzqcXS4CW1OyD41qV3IA="], description="The key identifier, base64."
    )
    rootIssuerSerialNumber: str = Field(examples=["100000000000001"], description="Lower-case hex.")
    validFrom: str = Field(examples=["2026-11-22T00:00:00Z"])
    validTo: str = Field(examples=["2066-11-22T00:00:00Z"])
    organizationName: str
    fingerprint: str = Field(examples=["5e0e4b77373baa82" * 4], description="SHA-256, hex.")


class RootList(BaseModel):
    """The roots."""

    rootCertificates: list[RootCert]


class GetAllRootCerts(BaseModel):
    """GET /v1/root/rootCerts."""

    RootCertificateCollection: RootList


class GetRootCert(BaseModel):
    """GET /v1/root/rootCerts/{id}."""

    RootResponse: RootCert


class SaveRootCa(opcp.Body):
    """A root and whose it is."""

    caCertificate: opcp.Base64 = Field(examples=[examples.ROOT])
    rootType: Literal["MO", "V2G", "OEM", "PE"] = Field(examples=["OEM"])


class TrustList(BaseModel):
    """A certificate trust list; what one looks like nobody has defined yet."""

    signerCertificate: str
    timeStamp: str
    CTL: dict[str, Any]


def facts(row: RootRow) -> dict[str, Any]:
    """What a root's certificate says of it, by the names that both protocols use."""
    certificate = load_der(row.certificate)
    return {
        "rootCertificateId": opcp.root_id(row.fingerprint),
        "distinguishedName": opcp.distinguished_name(certificate.subject),
        "caCertificate": b64(row.certificate),
        "commonName": common_name(certificate.subject),
        "rootAuthorityKeyIdentifier": b64(opcp.key_identifier(certificate)),
        "rootIssuerSerialNumber": opcp.serial(certificate),
        "validFrom": opcp.instant(certificate.not_valid_before_utc),
        "validTo": opcp.instant(certificate.not_valid_after_utc),
        "organizationName": opcp.organization(certificate.subject),
        "fingerprint": row.fingerprint,
    }


def root_type(text: str) -> str:
    """A type of root by any protocol's name for it; Refusal 400 for one that is not kept here."""
    name = text.upper().replace("EMSP", "MO")
    if name not in TYPES:
        raise Refusal(
            400, "unknown_type", f"rootType : {text!r} is none of {', '.join(TYPES)}, kept here"
        )
    return name


def _root(row: RootRow) -> RootCert:
    return RootCert(rootType=row.type, **facts(row))


def _service(request: Request) -> RootPool:
    service: RootPool = request.app.state.service
    return service


@router.get("/rootCerts")
async def get_all_root_certs(
    request: Request,
    _caller: AnyCaller,
    rootType: Literal["mo", "v2g", "oem", "MO", "V2G", "OEM"] | None = None,
) -> GetAllRootCerts:
    """All roots, or those of one type."""
    rows = await _service(request).list(root_type(rootType) if rootType else None)
    return GetAllRootCerts(
        RootCertificateCollection=RootList(rootCertificates=[_root(row) for row in rows])
    )


@router.get("/rootCerts/{rootCertificateId}", responses={404: opcp.ERRORS[404]})
async def get_root_cert(
    request: Request,
    rootCertificateId: RootId,
    _caller: AnyCaller,
) -> GetRootCert:
    """One root."""
    with opcp.worded(NOT_FOUND):
        return GetRootCert(RootResponse=_root(await _service(request).get(rootCertificateId)))


@router.put("/rootCerts")
async def save_root_ca(request: Request, body: SaveRootCa, caller: AdminCaller) -> GetRootCert:
    """Put a root into the pool; the same one again changes nothing. For the pool's operator."""
    row, _ = await _service(request).publish(
        root_type(body.rootType), opcp.certificate_of(body.caCertificate, "caCertificate"), caller
    )
    return GetRootCert(RootResponse=_root(row))


@router.delete(
    "/rootCerts/{rootCertificateId}", responses={404: opcp.ERRORS[404]}, response_class=Response
)
async def delete_root_ca(
    request: Request,
    rootCertificateId: RootId,
    _caller: AdminCaller,
) -> Response:
    """Take a root out of the pool. For the pool's operator."""
    with opcp.worded(NOT_FOUND):
        row = await _service(request).get(rootCertificateId)
        await _service(request).withdraw(row.fingerprint)
    return Response(status_code=200)


@router.get("/ctl")
async def get_certificate_trust_list(request: Request, _caller: AnyCaller) -> TrustList:
    """A trust list without entries and without a signer: a place for what is to be defined."""
    now = _service(request).party.clock.now()
    return TrustList(signerCertificate="", timeStamp=opcp.instant(now), CTL={})
