"""The provisioning certificate pool as OPCP 1.0 speaks: ``/v1/oem/provCerts``.

A vehicle maker publishes, replaces and deletes the certificates of its own cars; every mobility
operator may read any. What is read was judged a moment ago: a certificate that is revoked or
expired is refused and not handed out.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import AliasChoices, BaseModel, Field

from services.common import examples, opcp
from services.common.auth import Caller, allow
from services.pcp.service import ProvisioningPool, Published

router = APIRouter(
    tags=["OPCP: provisioning certificate pool"],
    responses={k: opcp.ERRORS[k] for k in (400, 401, 403, 413, 502, 503)},
)

PATH = "/v1/oem/provCerts"
LEGACY = "/HubjectWS/webresources/v1/oem/provCerts"

NOT_FOUND: opcp.Words = {
    "unknown_pcid": (404, "The OEM provisioning certificate with given PCID is not found.")
}

Maker = Annotated[Caller, Depends(allow("oem"))]
Reader = Annotated[Caller, Depends(allow("mo", "oem"))]
PcidPath = Annotated[str, Path(pattern=opcp.PCID_PATTERN, examples=["WNV1A2B3C4D5E6F7G8"])]


class ProvisioningCertificate(opcp.Body):
    """A car's certificate and those above it. The names that a later version announces
    (``subCa1Certificate``, ``provisioningCertificate``) are understood as well."""

    subCA1Certificate: opcp.Certificate64 = Field(
        validation_alias=AliasChoices("subCA1Certificate", "subCa1Certificate"),
        examples=[examples.SUB_CA_1],
    )
    subCA2Certificate: opcp.Certificate64 | None = Field(
        default=None,
        validation_alias=AliasChoices("subCA2Certificate", "subCa2Certificate"),
        examples=[examples.SUB_CA_2],
        description="May be left out where there is one sub-CA only.",
    )
    vehicleCertificate: opcp.Certificate64 = Field(
        validation_alias=AliasChoices("vehicleCertificate", "provisioningCertificate"),
        examples=[examples.CERTIFICATE],
        description="Its CN is the PCID.",
    )
    xsdMsgDefNamespace: opcp.Namespace = opcp.ISO2
    v2gRootAuthorityKeyIdentifiers: opcp.KeyIdentifiers | None = Field(
        default=None, description="The V2G roots that are in the car: hex with colons."
    )
    previousPcid: opcp.Pcid | None = Field(
        default=None, examples=[None], description="What the car was called before."
    )


class ProvisioningCertificateData(BaseModel):
    """A car's certificate as the pool has it; about the root it tells what it found."""

    subCA1Certificate: str
    subCA2Certificate: str | None = None
    vehicleCertificate: str
    xsdMsgDefNamespace: str
    rootIssuerDistinguishedName: str
    rootIssuerSerialNumber: str
    rootAuthorityKeyIdentifier: str
    v2gRootAuthorityKeyIdentifiers: list[str] | None = None
    fingerprint: str
    previousPcid: str | None = None


class GetProvisioningCertificate(BaseModel):
    """GET /v1/oem/provCerts/{pcid}."""

    OEMMessage: ProvisioningCertificateData


def _data(found: Published) -> ProvisioningCertificateData:
    # Where nothing stands between car and root, the root is what there is to tell.
    lowest, *above = found.issuers or (found.root,)
    return ProvisioningCertificateData(
        subCA1Certificate=opcp.one_line(above[-1] if above else lowest),
        subCA2Certificate=opcp.one_line(lowest) if above else None,
        vehicleCertificate=opcp.one_line(found.certificate),
        xsdMsgDefNamespace=opcp.ISO2,
        rootIssuerDistinguishedName=opcp.distinguished_name(found.root.subject),
        rootIssuerSerialNumber=opcp.serial(found.root),
        rootAuthorityKeyIdentifier=opcp.colons(opcp.key_identifier(found.root)),
        v2gRootAuthorityKeyIdentifiers=list(found.v2g_roots) or None,
        fingerprint=found.fingerprint,
        previousPcid=found.previous_pcid,
    )


def _service(request: Request) -> ProvisioningPool:
    service: ProvisioningPool = request.app.state.service
    return service


async def _publish(request: Request, body: ProvisioningCertificate, caller: Caller) -> Any:
    opcp.must_be_iso2(body.xsdMsgDefNamespace)
    issuers = [opcp.certificate_of(body.subCA1Certificate, "subCa1Certificate")]
    if body.subCA2Certificate:
        issuers.insert(0, opcp.certificate_of(body.subCA2Certificate, "subCa2Certificate"))
    found = await _service(request).publish(
        opcp.certificate_of(body.vehicleCertificate, "vehicleCertificate"),
        issuers,
        caller,
        v2g_roots=body.v2gRootAuthorityKeyIdentifiers or (),
        previous_pcid=body.previousPcid,
    )
    return _data(found)


@router.put(PATH, response_model_exclude_none=True)
async def add_oem_prov_cert(
    request: Request, body: ProvisioningCertificate, caller: Maker
) -> ProvisioningCertificateData:
    """Publish a car's certificate, or replace the one there is. A maker publishes cars of its
    own WMI. Asked in this order, and the first that fails is the answer: the WMI, the validity
    of each certificate, the chain up to a root of a maker, the revocation of all of it."""
    found: ProvisioningCertificateData = await _publish(request, body, caller)
    return found


@router.put(LEGACY, status_code=201, deprecated=True, response_model_exclude_none=True)
async def add_oem_prov_cert_legacy(
    request: Request, body: ProvisioningCertificate, caller: Maker
) -> ProvisioningCertificateData:
    """The same under the path, and with the status, of the interface before OPCP."""
    found: ProvisioningCertificateData = await _publish(request, body, caller)
    return found


@router.get(
    f"{PATH}/lookupVehicle/{{pcid}}", responses={404: opcp.ERRORS[404]}, response_class=Response
)
async def lookup_vehicle(request: Request, pcid: PcidPath, caller: Reader) -> Response:
    """Whether a car's certificate is in the pool."""
    with opcp.worded(NOT_FOUND):
        await _service(request).may_read(pcid, caller)
    return Response(status_code=200)


@router.get(f"{PATH}/{{pcid}}", responses={404: opcp.ERRORS[404]}, response_model_exclude_none=True)
@router.get(
    f"{LEGACY}/{{pcid}}",
    responses={404: opcp.ERRORS[404]},
    response_model_exclude_none=True,
    deprecated=True,
)
async def get_oem_prov_cert(
    request: Request, pcid: PcidPath, caller: Reader
) -> GetProvisioningCertificate:
    """A car's certificate, judged now."""
    with opcp.worded(NOT_FOUND):
        row = await _service(request).may_read(pcid, caller)
        return GetProvisioningCertificate(OEMMessage=_data(await _service(request).judged(row)))


@router.delete(f"{PATH}/{{pcid}}", responses={404: opcp.ERRORS[404]}, response_class=Response)
@router.delete(
    f"{LEGACY}/{{pcid}}",
    responses={404: opcp.ERRORS[404]},
    deprecated=True,
    response_class=Response,
)
async def delete_oem_prov_cert(request: Request, pcid: PcidPath, caller: Maker) -> Response:
    """Take a car out of the pool. Its contracts are revoked at their issuers and leave the
    contract pool first; where that fails the car stays, and asking again goes on."""
    with opcp.worded(NOT_FOUND):
        await _service(request).remove_with_contracts(pcid, caller)
    return Response(status_code=200)
