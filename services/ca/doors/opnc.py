"""A CA as OPNC speaks: revoking a leaf. (Enrolling is EST, :mod:`.est`.)

Who got a certificate may have it revoked: a charge point operator those of its chargers (by the
operator id in the EVSEID), a vehicle maker those of its cars (by the WMI), a mobility operator
its contracts (by the provider id), a provisioning service its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from cryptography import x509
from fastapi import Request, Response
from pydantic import Field

from pki.identifiers import EMAID, EVSEID, PCID, IdentifierError
from pki.names import common_name
from pki.profiles import Role
from services.ca import store
from services.ca.service import CertificateAuthority
from services.common import opcp, opnc
from services.common.auth import AnyCaller, Caller
from services.common.certificates import fingerprint
from services.common.errors import Refusal

router = opnc.router("PKI", 404)

PATH = "/opnc/v1/pki/revokeCertificate"
DOUBLED = "/opnc/v1/pki/pki/revokeCertificate"


class RevokeCertificate(opcp.Body):
    """Which certificate, and why."""

    certificate: opcp.Certificate64
    revocationReason: Literal[
        "privilegeWithdrawn",
        "affiliationChanged",
        "superseded",
        "unspecified",
        "keyCompromise",
        "aACompromise",
        "cessationOfOperation",
    ] = Field(examples=["cessationOfOperation"])


# A role -> whose its certificates are: kind of client, and its identifier in the CN.
_WHOSE: dict[str, tuple[str, Callable[[str], str]]] = {
    Role.SECC.value: ("cpo", lambda name: EVSEID.parse(name, strict=False).operator_id),
    Role.OEM_PROVISIONING.value: ("oem", lambda name: PCID.parse(name, strict=False).wmi),
    Role.CONTRACT.value: ("mo", lambda name: EMAID.parse(name, strict=False).provider_id),
}


def _must_be_its(role: str, certificate: x509.Certificate, caller: Caller) -> None:
    """Refusal 403 unless a certificate was issued for the client that asks."""
    if caller.is_admin:
        return
    kind, whose = _WHOSE.get(role, ("", lambda _name: ""))
    if role == Role.CPS.value and caller.role == "cps":
        return
    try:
        holder = whose(common_name(certificate.subject))
    except IdentifierError:
        holder = ""
    if not holder or (caller.role, caller.scope_id) != (kind, holder):
        raise Refusal(
            403, "not_yours", f"this certificate was not issued for client {caller.client}"
        )


async def _revoke(request: Request, body: RevokeCertificate, caller: Caller) -> None:
    ca: CertificateAuthority = request.app.state.service.ca
    certificate = opcp.certificate_of(body.certificate, "certificate")
    mark = fingerprint(certificate)
    found = await ca.party.database.read(
        lambda session: store.by_fingerprint(ca.tables, session, mark)
    )
    if found is None or Role(found.role).is_ca:
        raise Refusal(404, "no_such_certificate", "certificate : was not issued by this CA")
    _must_be_its(found.role, certificate, caller)
    await ca.revoke(mark, body.revocationReason)


@router.post(PATH, response_class=Response)
async def revoke_certificate(
    request: Request, body: RevokeCertificate, caller: AnyCaller
) -> Response:
    """Revoke a leaf certificate of one's own; a second time changes nothing. OCSP and CRL say so
    from now on. 404 where another CA has issued it."""
    await _revoke(request, body, caller)
    return Response(status_code=200)


@router.post(DOUBLED, response_class=Response)
async def revoke_certificate_doubled(
    request: Request, body: RevokeCertificate, caller: AnyCaller
) -> Response:
    """The same at the path that the specification's server address and path give together."""
    await _revoke(request, body, caller)
    return Response(status_code=200)
