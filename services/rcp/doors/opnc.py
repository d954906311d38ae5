"""The root pool as OPNC speaks: ``/opnc/v1/rcp/rootcertificates``."""

from __future__ import annotations

from typing import Literal

from fastapi import Request, Response
from pydantic import BaseModel, Field

from services.common import examples, opcp, opnc
from services.common.auth import AdminCaller, AnyCaller
from services.rcp.service import RootPool
from services.rcp.store import RootRow

from .opcp import NOT_FOUND, RootId, facts, root_type

router = opnc.router("root certificate pool")

PATH = "/opnc/v1/rcp/rootcertificates"
_TYPES = {"MO": "eMSP"}


class RootCertificate(BaseModel):
    """A root. ``rootType`` is asked for by the specification and not described; it is the only
    one of ``rootTypeList``."""

    rootCertificateId: str
    distinguishedName: str
    rootCtlList: list[str]
    rootTypeList: list[str] = Field(examples=[["V2G"]], description="eMSP, V2G or OEM.")
    rootType: str
    caCertificate: str
    commonName: str
    rootAuthorityKeyIdentifier: str
    rootIssuerSerialNumber: str
    validFrom: str
    validTo: str
    organizationName: str
    fingerprint: str


class GetRootCertificates(BaseModel):
    """GET /rootcertificates."""

    rootCertificateCollection: list[RootCertificate]


class GetRootCertificate(BaseModel):
    """GET /rootcertificates/{id}; the specification spells the field in both ways."""

    rootCertificate: RootCertificate
    roootCertificate: RootCertificate


class PutRootCertificate(opcp.Body):
    """A root and whose it is."""

    caCertificate: opcp.Base64 = Field(examples=[examples.ROOT])
    rootType: Literal["MO", "eMSP", "V2G", "OEM", "PE"] = Field(examples=["OEM"])


def _root(row: RootRow) -> RootCertificate:
    kind = _TYPES.get(row.type, row.type)
    return RootCertificate(rootCtlList=["No CTL"], rootTypeList=[kind], rootType=kind, **facts(row))


def _one(row: RootRow) -> GetRootCertificate:
    return GetRootCertificate(rootCertificate=_root(row), roootCertificate=_root(row))


def _service(request: Request) -> RootPool:
    service: RootPool = request.app.state.service
    return service


@router.get(PATH)
async def get_root_certificates(
    request: Request,
    _caller: AnyCaller,
    pkiType: Literal["emsp", "mo", "v2g", "oem"] | None = None,
) -> GetRootCertificates:
    """All roots, or those of one kind of PKI."""
    rows = await _service(request).list(root_type(pkiType) if pkiType else None)
    return GetRootCertificates(rootCertificateCollection=[_root(row) for row in rows])


@router.get(f"{PATH}/{{rootCertificateId}}", responses={404: opcp.ERRORS[404]})
async def get_root_certificate(
    request: Request, rootCertificateId: RootId, _caller: AnyCaller
) -> GetRootCertificate:
    """One root."""
    with opcp.worded(NOT_FOUND):
        return _one(await _service(request).get(rootCertificateId))


@router.put(PATH)
async def put_root_certificate(
    request: Request, body: PutRootCertificate, caller: AdminCaller
) -> GetRootCertificate:
    """Put a root into the pool; the same one again changes nothing. For the pool's operator."""
    row, _ = await _service(request).publish(
        root_type(body.rootType), opcp.certificate_of(body.caCertificate, "caCertificate"), caller
    )
    return _one(row)


@router.delete(
    f"{PATH}/{{rootCertificateId}}", responses={404: opcp.ERRORS[404]}, response_class=Response
)
async def delete_root_certificate(
    request: Request, rootCertificateId: RootId, _caller: AdminCaller
) -> Response:
    """Take a root out of the pool. For the pool's operator."""
    with opcp.worded(NOT_FOUND):
        row = await _service(request).get(rootCertificateId)
        await _service(request).withdraw(row.fingerprint)
    return Response(status_code=200)
