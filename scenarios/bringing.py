"""Bringing something of one's own into a running ecosystem: over the parties' APIs, as admin.

Each function does what its name says at every party that it concerns, and can be asked again:
what is there already stays as it is.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography import x509

from pki.chain import RevocationPolicy, judge
from pki.edition import ISO2
from pki.identifiers import PCID, IdentifierError
from pki.keys import SoftwareKey
from pki.names import common_name, readable
from pki.profiles import Role
from services.common.certificates import b64, b64_chain, public_key, read_der, unb64
from services.common.errors import Refusal
from services.common.material import Material, MaterialError, read_files
from services.common.problems import NotAsExpectedError, WrongUseError
from services.common.trust_stores import ROOT_ROLES
from services.ecosystem import SCOPE_FIELDS
from v2g import exi
from v2g.certificate_installation import (
    InstallationRequest,
    RootId,
    WrongMessage,
    build_request,
    read_request,
    read_response,
)
from v2g.messages import iso2
from v2g.signature import SignatureError

from .lab import Lab, LabError

# A file that holds a message is not longer.
MAX_MESSAGE = 64 * 1024
# ListOfRootCertificateIDs holds that many.
MAX_ROOTS = 20
_V2GTP = b"\x01\xfe"
_V2GTP_HEADER = 8


def read_file(file: Path, key_file: Path | None = None, password: str | None = None) -> Material:
    """Certificates and keys from files; WrongUseError names the file and the trouble."""
    try:
        return read_files(file, key_file, password)
    except MaterialError as error:
        raise WrongUseError(str(error)) from None


def _key_text(key: SoftwareKey | None) -> str | None:
    return key.pem() if key is not None else None


async def bring_root(lab: Lab, material: Material, root_type: str) -> list[dict[str, Any]]:
    """Into every root pool."""
    return [
        await lab.call(
            pool.name,
            "POST",
            "/roots",
            {"type": root_type, "certificate": b64_chain([certificate])[0]},
        )
        for pool in lab.ecosystem.of_kind("rcp")
        for certificate in material.certificates
    ]


async def bring_authority(lab: Lab, material: Material, party: str, role: str) -> dict[str, Any]:
    """A CA party issues below it from now on."""
    body = {
        "role": role,
        "certificates": b64_chain(material.certificates),
        "private_key": _key_text(material.keys[0] if material.keys else None),
    }
    found: dict[str, Any] = await lab.call(party, "POST", "/authorities/import", body)
    return found


async def bring_intermediates(lab: Lab, material: Material) -> list[str]:
    """Everybody who judges knows these sub-CAs. Returns the names of those that had not."""
    body = {"certificates": b64_chain(material.certificates)}
    return [
        party.name
        for party in lab.ecosystem.parties.values()
        if party.kind in ("pcp", "ccp", "cps", "cpo", "mo", "charger")
        and await lab.call(party.name, "POST", "/intermediates", body)
    ]


async def bring_party(
    lab: Lab,
    name: str,
    kind: str,
    identifier: str | None,
    organisation: str | None = None,
    secret: str | None = None,
) -> dict[str, Any]:
    """A party that runs elsewhere: registered, and a client of all others. Returns its id and
    secret."""
    body = {
        "party": name,
        "kind": kind,
        "organisation": organisation or name[:49],
        "identifiers": [identifier] if identifier else [],
    }
    for root in lab.ecosystem.of_kind("v2g-root"):
        await lab.call(root.name, "POST", "/registrations", body)
    scope = identifier if kind in SCOPE_FIELDS else None
    for party in lab.ecosystem.parties:
        client = {"id": name, "role": kind, "scope_id": scope, "secret": secret}
        secret = (await lab.call(party, "POST", "/clients", client))["secret"]
    return {"client_id": name, "client_secret": secret, "role": kind, "scope_id": scope}


async def bring_car(lab: Lab, material: Material, garage: str | None) -> dict[str, Any]:
    """Registered in the provisioning pools; with its key, into a garage as well."""
    leaf, *above = [one for one in material.certificates if one.issuer != one.subject]
    entry: dict[str, Any] = {}
    for pool in lab.ecosystem.of_kind("pcp"):
        entry = await lab.call(
            pool.name,
            "PUT",
            "/provisioning-certificates",
            {"certificate": b64_chain([leaf])[0], "issuers": b64_chain(above)},
        )
    found = {"pcid": entry.get("pcid"), "garage": None}
    if material.keys:
        into = garage or _only_garage(lab)
        body = {
            "certificates": b64_chain([leaf, *above]),
            "private_key": _key_text(material.keys[0]),
        }
        car = await lab.call(into, "POST", "/vehicles/import", body)
        found |= {"pcid": car["pcid"], "garage": into}
    return found


async def bring_key(
    lab: Lab, material: Material, oem: str | None, pcid: str | None, garage: str | None
) -> dict[str, Any]:
    """A car with this key, which its maker certifies."""
    into = garage or _only_garage(lab)
    body = {"private_key": _key_text(material.keys[0]), "oem": oem, "pcid": pcid}
    car = await lab.call(into, "POST", "/vehicles/import", body)
    return {"pcid": car["pcid"], "garage": into, "chain": car["chain"]}


def _only_garage(lab: Lab) -> str:
    garages = [party.name for party in lab.ecosystem.of_kind("vehicle")]
    if len(garages) != 1:
        raise WrongUseError(f"--garage: name one of {', '.join(garages) or '(none)'}")
    return garages[0]


# ------------------------------------------------------------------- golden requests


@dataclass
class Looked:
    """What is in a CertificateInstallationReq, and what is wrong or missing."""

    request: InstallationRequest
    raw: bytes
    facts: dict[str, Any]
    missing: list[str] = field(default_factory=list)


def read_golden(file: Path) -> tuple[bytes, InstallationRequest]:
    """A CertificateInstallationReq from a file: EXI, a V2GTP frame around it, or hex or base64 of
    these. WrongUseError names the file and the trouble."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise WrongUseError(f"{file}: {error.strerror}") from None
    if len(raw) > MAX_MESSAGE:
        raise WrongUseError(f"{file}: {len(raw)} bytes are too many for a message")
    message = _message(raw)
    if message is None:
        raise WrongUseError(f"{file}: neither EXI nor V2GTP nor hex or base64 of these")
    try:
        return message, read_request(message)
    except exi.EXIError as error:
        raise WrongUseError(f"{file}: no ISO 15118-2 message: {error}") from None
    except WrongMessage as error:
        raise WrongUseError(f"{file}: {error}") from None


def own_request(
    material: Material, session_id: bytes, roots: Sequence[RootId], file: Path
) -> bytes:
    """A CertificateInstallationReq (EXI) by the first certificate of ``material``, signed with
    its key. WrongUseError names the file and the trouble."""
    if not material.certificates:
        raise WrongUseError(f"{file}: no certificate is in it")
    leaf = material.certificates[0]
    signer = next((key for key in material.keys if key.public_key == public_key(leaf)), None)
    if signer is None:
        raise WrongUseError(
            f"{file}: the private key of {readable(leaf.subject)} is not among the "
            f"{len(material.keys)} given"
        )
    if len(session_id) > 8:
        raise WrongUseError(f"the SessionID has {len(session_id)} bytes, at most 8 are wanted")
    if not ISO2.signature.fits(signer.public_key):
        raise WrongUseError(
            f"{file}: a key of {signer.public_key.curve.name}, wanted is one of "
            f"{ISO2.signature.curve.name} ({ISO2.title})"
        )
    if not 1 <= len(roots) <= MAX_ROOTS:
        raise WrongUseError(
            f"--root: a car lists 1 to {MAX_ROOTS} V2G roots, there are {len(roots)}"
        )
    return exi.encode(iso2.SCHEMA, build_request(session_id, leaf, roots, signer))


def _message(raw: bytes) -> bytes | None:
    for found in (raw, *_from_text(raw)):
        if found.startswith(_V2GTP):
            return found[_V2GTP_HEADER:]
        if found.startswith(b"\x80"):
            return found
    return None


def _from_text(raw: bytes) -> list[bytes]:
    found = []
    text = b"".join(raw.split())
    for decode in (bytes.fromhex, lambda one: base64.b64decode(one, validate=True)):
        try:
            found.append(decode(text.decode("ascii")))
        except (ValueError, binascii.Error):
            continue
    return found


async def look_at(lab: Lab, raw: bytes, request: InstallationRequest) -> Looked:
    """What the request says, whether it is signed, and what it needs here to be answered."""
    looked = Looked(request, raw, {"bytes": len(raw), "session": request.session_id.hex()})
    facts, missing = looked.facts, looked.missing
    facts["roots"] = [f"{root.issuer} ({root.serial:x})" for root in request.roots]
    try:
        leaf = read_der(request.provisioning_certificate, "OEMProvisioningCert")
    except Refusal as refusal:
        missing.append(refusal.message)
        return looked
    facts["provisioning_certificate"] = readable(leaf.subject)
    facts["issuer"] = readable(leaf.issuer)
    facts["valid"] = f"{leaf.not_valid_before_utc:%F} to {leaf.not_valid_after_utc:%F}"
    try:
        request.verify(public_key(leaf), lab.ecosystem.edition)
        facts["signature"] = "by the key of the provisioning certificate"
    except SignatureError as error:
        facts["signature"] = f"wrong: {error.reason}"
        missing.append(f"a signature by the key of the provisioning certificate: {error.reason}")
    try:
        pcid = PCID.parse(common_name(leaf.subject), strict=False)
    except IdentifierError as error:
        missing.append(f"a PCID as CN of the provisioning certificate: {error}")
        return looked
    facts["pcid"] = pcid.normal
    await _registered(lab, leaf, pcid, looked)
    return looked


async def _registered(lab: Lab, leaf: x509.Certificate, pcid: PCID, looked: Looked) -> None:
    """Whether the pool has the car, and whether a root of ours stands above it."""
    for pool in lab.ecosystem.of_kind("pcp"):
        path = f"/provisioning-certificates/{quote(pcid.wire, safe='')}"
        try:
            entry = await lab.call(pool.name, "GET", path)
        except LabError as error:
            if error.status not in (404, 422):
                raise
            looked.missing.append(
                f"the car in {pool.name}: {error}; `pnclab bring car` registers its certificate "
                "with the sub-CAs above it"
            )
            continue
        known = read_der(unb64(entry["certificate"], "certificate"), "certificate")
        if known != leaf:
            looked.missing.append(f"{pool.name} has another certificate for {pcid}")
            continue
        roots = await lab.call(pool.uses["rcp"], "GET", "/roots")
        verdict = judge(
            leaf,
            [read_der(unb64(one, "issuers"), "issuers") for one in entry["issuers"]],
            [
                read_der(unb64(one["certificate"], "certificate"), "certificate")
                for one in roots
                if ROOT_ROLES.get(one["type"]) is Role.OEM_ROOT
            ],
            role=Role.OEM_PROVISIONING,
            edition=lab.ecosystem.edition,
            at=leaf.not_valid_before_utc,
            revocation_policy=RevocationPolicy.IGNORE,
            identifiers_strict=False,
        )
        looked.facts["chain"] = verdict.reason
        if not verdict.accepted:
            looked.missing.append(f"a chain of the car that holds: {verdict.reason}")


async def answer_to(lab: Lab, looked: Looked, operator: str) -> dict[str, Any]:
    """Have a contract issued for the request's car, and ask the contract pool what it answers.

    Returns the message (base64 EXI) and what is in it.
    """
    if lab.ecosystem.party(operator).kind != "mo":
        raise WrongUseError(f"--contract: {operator} is no mobility operator")
    pcid = looked.facts.get("pcid")
    if pcid is None or looked.missing:
        raise NotAsExpectedError(f"no contract for it: missing is {'; '.join(looked.missing)}")
    driver = await lab.call(
        operator, "POST", "/drivers", {"name": f"Driver of {pcid}", "deposit": "100.00"}
    )
    contract = await lab.call(
        operator, "POST", "/contracts", {"driver": driver["id"], "pcid": pcid}
    )
    pool = lab.ecosystem.party(operator).uses["ccp"]
    answer = await lab.call(
        pool, "POST", "/installations", {"certificate_installation_req": b64(looked.raw)}
    )
    found = {"emaid": contract["emaid"], "code": answer["code"], "reason": answer["reason"]}
    message = unb64(answer["certificate_installation_res"], "certificate_installation_res")
    found |= {"bytes": len(message), "message": answer["certificate_installation_res"]}
    if answer["code"].startswith("OK"):
        data = read_response(message).data
        found |= {
            "delivered_emaid": data.emaid,
            "contract_chain": _names(data.contract_chain),
            "provisioning_chain": _names(data.provisioning_chain),
            "encrypted_private_key": len(data.encrypted_private_key),
            "dh_public_key": len(data.dh_public_key),
        }
    return found


def _names(chain: tuple[bytes, ...]) -> list[str]:
    return [readable(read_der(der, "chain").subject) for der in chain]
