"""The provisioning certificate pool as OPNC speaks: ``/opnc/v1/pcp/...``."""

from __future__ import annotations

from fastapi import Request, Response
from pydantic import AliasChoices, BaseModel, Field

from services.common import examples, opcp, opnc
from services.pcp.service import ProvisioningPool, Published

from .opcp import NOT_FOUND, Maker, PcidPath, Reader

router = opnc.router("provisioning certificate pool", 502)

PATH = "/opnc/v1/pcp"


class ProvisioningChain(opnc.CertificateChain):
    """A provisioning certificate and its sub-CAs; the examples of the specification spell the
    sub-CAs in another way, which is understood as well."""

    subCa1Certificate: opcp.Certificate64 | None = Field(
        default=None,
        validation_alias=AliasChoices("subCa1Certificate", "subCA1Certificate"),
        examples=[examples.SUB_CA_1],
    )
    subCa2Certificate: opcp.Certificate64 | None = Field(
        default=None,
        validation_alias=AliasChoices("subCa2Certificate", "subCA2Certificate"),
        examples=[examples.SUB_CA_2],
    )


class AddProvisioningCertificate(opcp.Body):
    """A car's certificate; its CN is the PCID."""

    provisioningCertificateChain: ProvisioningChain
    xsdMsgDefNamespace: opcp.Namespace = opcp.ISO2
    v2gRootAuthorityKeyIdentifiers: opcp.KeyIdentifiers | None = Field(
        default=None, description="The V2G roots that are in the car: hex with colons."
    )
    previousPcid: opcp.Pcid | None = Field(default=None, examples=[None])


class ProvisioningCertificate(BaseModel):
    """A car's certificate as the pool has it; about the root it tells what it found."""

    provisioningCertificateChain: opnc.CertificateChain
    xsdMsgDefNamespace: str
    rootIssuerSerialNumber: str
    rootAuthorityKeyIdentifier: str
    v2gRootAuthorityKeyIdentifiers: list[str] | None = None
    fingerprint: str
    previousPcid: str | None = None


class GetProvisioningCertificate(BaseModel):
    """GET /provisioningcertificates/{pcid}."""

    provisioningCertificate: ProvisioningCertificate


def _data(found: Published) -> ProvisioningCertificate:
    return ProvisioningCertificate(
        provisioningCertificateChain=opnc.CertificateChain.of((found.certificate, *found.issuers)),
        xsdMsgDefNamespace=opcp.ISO2,
        rootIssuerSerialNumber=opcp.serial(found.root),
        rootAuthorityKeyIdentifier=opcp.colons(opcp.key_identifier(found.root)),
        v2gRootAuthorityKeyIdentifiers=list(found.v2g_roots) or None,
        fingerprint=found.fingerprint,
        previousPcid=found.previous_pcid,
    )


def _service(request: Request) -> ProvisioningPool:
    service: ProvisioningPool = request.app.state.service
    return service


@router.put(f"{PATH}/provisioningcertificates", response_class=Response)
async def add_provisioning_certificate(
    request: Request, body: AddProvisioningCertificate, caller: Maker
) -> Response:
    """Publish a car's certificate, or replace the one there is. A maker publishes cars of its
    own WMI; what is asked, and in which order, is as in OPCP."""
    opcp.must_be_iso2(body.xsdMsgDefNamespace)
    leaf, *issuers = body.provisioningCertificateChain.certificates("provisioningCertificateChain")
    await _service(request).publish(
        leaf,
        issuers,
        caller,
        v2g_roots=body.v2gRootAuthorityKeyIdentifiers or (),
        previous_pcid=body.previousPcid,
    )
    return Response(status_code=200)


@router.get(
    f"{PATH}/provisioningcertificates/{{pcid}}",
    responses={404: opcp.ERRORS[404]},
    response_model_exclude_none=True,
)
async def get_provisioning_certificate(
    request: Request, pcid: PcidPath, caller: Reader
) -> GetProvisioningCertificate:
    """A car's certificate, judged now."""
    with opcp.worded(NOT_FOUND):
        row = await _service(request).may_read(pcid, caller)
        return GetProvisioningCertificate(
            provisioningCertificate=_data(await _service(request).judged(row))
        )


@router.delete(
    f"{PATH}/provisioningcertificates/{{pcid}}",
    responses={404: opcp.ERRORS[404]},
    response_class=Response,
)
async def delete_provisioning_certificate(
    request: Request, pcid: PcidPath, caller: Maker
) -> Response:
    """Take a car out of the pool, after its contracts were revoked and taken out of theirs."""
    with opcp.worded(NOT_FOUND):
        await _service(request).remove_with_contracts(pcid, caller)
    return Response(status_code=200)


@router.get(
    f"{PATH}/lookupvehicle/{{pcid}}", responses={404: opcp.ERRORS[404]}, response_class=Response
)
async def lookup_vehicle(request: Request, pcid: PcidPath, caller: Reader) -> Response:
    """Whether a car's certificate is in the pool."""
    with opcp.worded(NOT_FOUND):
        await _service(request).may_read(pcid, caller)
    return Response(status_code=200)
