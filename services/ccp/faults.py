"""What the contract pool hands out when it was told to misbehave.

The pool's own checks passed; what leaves it is spoilt in one thing, and signed again where
only a good signature keeps it to that one. For this the pool has a key certified by the V2G
root operator, as an admin may: as another provisioning service, or as a charger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cryptography import x509

from pki.identifiers import EMAID
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.profiles import Role
from services.common import answers
from services.common.certificates import b64, der_of
from services.common.errors import Refusal
from services.common.faults import Fault
from services.common.party import Party
from v2g.certificate_installation import ContractData

# Contract data without the one who stored it; its provisioning service's V2G root signs ours.
Spoil = Callable[[Party, Fault, ContractData, str], Awaitable[ContractData]]


@dataclass(frozen=True)
class Signer:
    """A key that the V2G root operator certified; the chain leaf first, without the root."""

    key: SoftwareKey
    chain: tuple[x509.Certificate, ...]


async def spoilt(party: Party, data: ContractData, pcid: str, stored_by: str) -> ContractData:
    """``data`` as it leaves for the car ``pcid``; ``stored_by`` is its provisioning service."""
    fault = await party.faults.at("bundle", pcid=pcid, emaid=data.emaid)
    return data if fault is None else await _SPOILS[fault.kind](party, fault, data, stored_by)


async def _tampered(_party: Party, fault: Fault, data: ContractData, _by: str) -> ContractData:
    element = fault["element"]
    if element == "eMAID":
        return replace(data, emaid=_other_emaid(data.emaid))
    if element == "DHpublickey":
        return replace(data, dh_public_key=_flipped(data.dh_public_key))
    if element == "ContractSignatureCertChain":
        # The last bits are the issuer's signature: it still reads as a certificate.
        leaf, *issuers = data.contract_chain
        return replace(data, contract_chain=(_flipped(leaf), *issuers))
    return replace(data, encrypted_private_key=_flipped(data.encrypted_private_key))


async def _wrong_signature(
    party: Party, _fault: Fault, data: ContractData, _by: str
) -> ContractData:
    return data.signed(party.entropy.key("fault", party.edition), party.edition)


async def _wrong_role(party: Party, _fault: Fault, data: ContractData, by: str) -> ContractData:
    return _signed(party, data, await _certified(party, Role.SECC, by))


async def _wrong_emaid(party: Party, _fault: Fault, data: ContractData, by: str) -> ContractData:
    other = replace(data, emaid=_other_emaid(data.emaid))
    return _signed(party, other, await _certified(party, Role.CPS, by))


async def _reordered(_party: Party, fault: Fault, data: ContractData, _by: str) -> ContractData:
    leaf, *issuers = data.provisioning_chain
    if fault["order"] == "reversed":
        return replace(data, provisioning_chain=(*reversed(issuers), leaf))
    return replace(data, provisioning_chain=(leaf, *reversed(issuers)))


async def _oversize(_party: Party, _fault: Fault, data: ContractData, _by: str) -> ContractData:
    # The schema has room for four sub-CAs. Each once more: who walks the chain finds its way.
    leaf, *issuers = data.provisioning_chain
    return replace(data, provisioning_chain=(leaf, *issuers, *issuers)[:5])


_SPOILS: Mapping[str, Spoil] = {
    "bundle-tampered": _tampered,
    "bundle-wrong-signature": _wrong_signature,
    "bundle-wrong-role": _wrong_role,
    "bundle-wrong-emaid": _wrong_emaid,
    "chain-reordered": _reordered,
    "bundle-oversize": _oversize,
}


def _flipped(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


def _other_emaid(text: str) -> str:
    """Another one of the same operator, with a good check digit where ``text`` has one."""
    known = EMAID.parse(text, strict=False)
    last = "1" if known.normal[-1] == "0" else "0"
    other = EMAID.with_check_digit(known.normal[:2], known.normal[2:5], known.normal[5:-1] + last)
    return other.wire if known.check_digit else other.normal


def _signed(party: Party, data: ContractData, by: Signer) -> ContractData:
    vouched = replace(data, provisioning_chain=tuple(der_of(one) for one in by.chain))
    return vouched.signed(by.key, party.edition)


async def _certified(party: Party, role: Role, stored_by: str) -> Signer:
    """A key with a certificate of ``role`` from the V2G root that ``stored_by`` uses."""
    ecosystem = party.ecosystem
    known: Signer | None = party.faults.memory.get(role)
    now = party.clock.now()
    if known is not None:
        leaf = known.chain[0]
        if leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
            return known
    service = ecosystem.parties.get(stored_by)
    root = service.uses.get("v2g-root") if service else None
    root = root or next(one.name for one in ecosystem.of_kind("v2g-root"))
    name = f"{party.config.organisation} provisioning service"
    if role is Role.SECC:
        name = next(one.options["evse_id"] for one in ecosystem.of_kind("charger"))
    key = party.entropy.key("fault", party.edition)
    request = certificate_request(Subject(common_name=name), key)
    body = {"role": role.value, "csr": b64(request)}
    answer = await _as_admin(party, root, "/certificates", body)
    signer = Signer(key, answers.read(answers.Chain, root, answer).chain)
    party.faults.memory[role] = signer
    return signer


async def _as_admin(party: Party, target: str, path: str, body: Any) -> bytes:
    """The answer to an admin's POST; Refusal 502 where there is no admin or it is refused."""
    admin = next((one for one in party.ecosystem.clients if one.role == "admin"), None)
    if admin is None:
        raise Refusal(502, "no_admin", "this fault needs a client of role admin")
    url = party.ecosystem.party(target).url
    login = {
        "grant_type": "client_credentials",
        "client_id": admin.id,
        "client_secret": admin.secret,
    }
    status, content = await party.http.send(
        target, "POST", f"{url}/oauth/token", name="token", body=login
    )
    if status == 200:
        token = answers.read(answers.Token, target, content).access_token
        status, content = await party.http.send(
            target,
            "POST",
            url + path,
            name="certificate request",
            summary="A key is certified that the pool's fault signs with",
            body=body,
            headers={"Authorization": f"Bearer {token}"},
        )
    if status not in (200, 201):
        said = content[:200].decode(errors="replace")
        raise Refusal(502, "not_certified", f"{target} refused to certify the key: {said}")
    return content
