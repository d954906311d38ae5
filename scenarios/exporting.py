"""Bench identities: certificates for chargers and cars that are no part of the ecosystem.

A party's keys never leave it. So what is handed out is made for it: the export makes the keys of a
charger, a car and a provisioning service and has their owners certify them (PKCS#10), and the
contract key comes as a car gets it, out of a CertificateInstallationRes, opened with the car's key.
Everything is issued over the parties' APIs, as admin, and is in their books like anything else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

from pki.contract_key import EncryptedContractKey, decrypt_contract_key
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject, readable
from services.common.certificates import b64, public_key, read_der, unb64
from services.common.problems import NotAsExpectedError, WrongUseError
from services.common.tls import ca_file
from services.ecosystem import Ecosystem, PartyConfig
from v2g import exi
from v2g.certificate_installation import NO_SESSION, RootId, build_request, read_response
from v2g.messages import iso2

from .lab import Lab
from .layouts import PARTS, Layout, Written


@dataclass(frozen=True)
class Wanted:
    """What is to be exported: parts, and whose they are (None: the first one there is)."""

    parts: tuple[str, ...] = PARTS
    charger: str | None = None
    oem: str | None = None
    pcid: str | None = None
    operator: str | None = None


@dataclass
class Bench:
    """Certificates and keys by name: ``secc``, ``cpo-sub1``, ``v2g-root`` ... as roles are
    called, and ``tls-ca``. ``facts`` are what a person wants to know of them."""

    certificates: dict[str, x509.Certificate] = field(default_factory=dict)
    keys: dict[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    # The signed request and its answer: EXI.
    messages: dict[str, bytes] = field(default_factory=dict)

    def has(self, name: str, key: bool = False) -> bool:
        return name in (self.keys if key else self.certificates)

    def add(
        self, names: Sequence[str], chain: Sequence[x509.Certificate], key: SoftwareKey | None
    ) -> None:
        """A leaf with those above it, under ``names``, leaf first."""
        self.certificates |= dict(zip(names, chain, strict=True))
        if key is not None:
            private = load_der_private_key(key.pkcs8(), None)
            assert isinstance(private, ec.EllipticCurvePrivateKey)
            self.keys[names[0]] = private


async def gather(lab: Lab, wanted: Wanted) -> Bench:
    """Issue what is wanted, and collect the roots. WrongUseError for parties that there are not,
    LabError when a party refuses."""
    parts = set(wanted.parts)
    if "contract" in parts:
        parts.add("car")
    bench = Bench()
    if "charger" in parts:
        await _charger(lab, bench, _named(lab.ecosystem, "charger", wanted.charger))
    if "cps" in parts:
        await _provisioning_service(lab, bench)
    roots = await _roots(lab)
    if "car" in parts:
        maker = _named(lab.ecosystem, "oem", wanted.oem)
        key = await _car(lab, bench, maker, wanted.pcid)
        if "contract" in parts:
            operator = _named(lab.ecosystem, "mo", wanted.operator)
            await _contract(lab, bench, operator, key, roots)
    _roots_of(bench, roots)
    ca = ca_file(lab.ecosystem)
    if ca.exists():
        bench.certificates["tls-ca"] = x509.load_pem_x509_certificate(ca.read_bytes())
    return bench


def _named(ecosystem: Ecosystem, kind: str, name: str | None) -> PartyConfig:
    there_are = ecosystem.of_kind(kind)
    for party in there_are:
        if name is None or name == party.name:
            return party
    names = ", ".join(party.name for party in there_are) or "none"
    raise WrongUseError(f"{name or 'the export'}: is no {kind}; there are: {names}")


async def _charger(lab: Lab, bench: Bench, charger: PartyConfig) -> None:
    evse_id = charger.options["evse_id"]
    key, csr = _key_and_request(lab, evse_id)
    body = {"evse_id": evse_id, "csr": csr}
    answer = await lab.call(charger.uses["cpo"], "POST", "/charger-certificates", body)
    bench.add(("secc", "cpo-sub2", "cpo-sub1"), _chain(answer["chain"]), key)
    bench.facts["EVSEID"] = evse_id


async def _provisioning_service(lab: Lab, bench: Bench) -> None:
    root = _named(lab.ecosystem, "v2g-root", None)
    key, csr = _key_and_request(lab, "Bench provisioning service")
    answer = await lab.call(root.name, "POST", "/certificates", {"role": "cps", "csr": csr})
    bench.add(("cps", "cps-sub2", "cps-sub1"), _chain(answer["chain"]), key)


async def _car(lab: Lab, bench: Bench, maker: PartyConfig, pcid: str | None) -> SoftwareKey:
    key, csr = _key_and_request(lab, pcid or "new car")
    answer = await lab.call(maker.name, "POST", "/vehicles", {"csr": csr, "pcid": pcid})
    chain = _chain(answer["chain"])
    bench.add(("oem-provisioning", "oem-sub2", "oem-sub1"), chain, key)
    bench.facts["PCID"] = answer["pcid"]
    return key


async def _contract(
    lab: Lab, bench: Bench, operator: PartyConfig, car: SoftwareKey, roots: Roots
) -> None:
    pcid, edition = bench.facts["PCID"], lab.ecosystem.edition
    driver = await lab.call(
        operator.name, "POST", "/drivers", {"name": f"Driver of {pcid}", "deposit": "100.00"}
    )
    contract = await lab.call(
        operator.name, "POST", "/contracts", {"driver": driver["id"], "pcid": pcid}
    )
    known = [RootId.of(root) for kind, root in roots if kind == "V2G"][:20]
    leaf = bench.certificates["oem-provisioning"]
    request = exi.encode(iso2.SCHEMA, build_request(NO_SESSION, leaf, known, car, edition))
    answer = await lab.call(
        operator.uses["ccp"],
        "POST",
        "/installations",
        {"certificate_installation_req": b64(request)},
    )
    if not answer["code"].startswith("OK"):
        raise NotAsExpectedError(f"{pcid}: no contract: {answer['code']}: {answer['reason']}")
    response = unb64(answer["certificate_installation_res"], "certificate_installation_res")
    data = read_response(response).data
    chain = [read_der(der, "ContractSignatureCertChain") for der in data.contract_chain]
    key = decrypt_contract_key(
        EncryptedContractKey(data.encrypted_private_key, data.dh_public_key),
        car,
        edition,
        certificate_public_key=public_key(chain[0]),
    )
    bench.add(("contract", "mo-sub2", "mo-sub1"), chain, key)
    bench.messages |= {
        "CertificateInstallationReq.exi": request,
        "CertificateInstallationRes.exi": response,
    }
    bench.facts |= {"EMAID": contract["emaid"], "mobility operator": operator.title}


Roots = list[tuple[str, x509.Certificate]]


async def _roots(lab: Lab) -> Roots:
    pool = _named(lab.ecosystem, "rcp", None)
    listed = await lab.call(pool.name, "GET", "/roots")
    return [
        (one["type"], read_der(unb64(one["certificate"], "certificate"), "certificate"))
        for one in listed
    ]


def _roots_of(bench: Bench, roots: Roots) -> None:
    """The root of each chain that was issued, else the first of its type."""
    for name, kind, below in (
        ("v2g-root", "V2G", ("cpo-sub1", "cps-sub1")),
        ("oem-root", "OEM", ("oem-sub1",)),
        ("mo-root", "MO", ("mo-sub1",)),
    ):
        issuers = [bench.certificates[one].issuer for one in below if one in bench.certificates]
        found = [root for _, root in roots if root.subject in issuers]
        found += [root for type_, root in roots if type_ == kind]
        if found:
            bench.certificates[name] = found[0]


def private_signer(key: ec.EllipticCurvePrivateKey) -> SoftwareKey:
    """A key of the bench, to sign with."""
    return SoftwareKey(key)


def certificate_signing_request(subject: Subject, key: SoftwareKey) -> bytes:
    """PKCS#10 in PEM."""
    request = x509.load_der_x509_csr(certificate_request(subject, key))
    return request.public_bytes(Encoding.PEM)


def _key_and_request(lab: Lab, name: str) -> tuple[SoftwareKey, str]:
    key = SoftwareKey.generate(lab.ecosystem.edition)
    return key, b64(certificate_request(Subject(common_name=name), key))


def _chain(texts: Sequence[str]) -> tuple[x509.Certificate, ...]:
    return tuple(read_der(unb64(text, "chain"), "chain") for text in texts)


# ------------------------------------------------------------------------------- the note


def note(
    bench: Bench, ecosystem: Ecosystem, layout: Layout, written: Sequence[Written], secret: str
) -> str:
    """README.md of the folder: what is where and why, what may be replaced."""
    lines = [
        f"# A bench of the ecosystem {ecosystem.name}, for {layout.title}",
        "",
        "Test certificates, made by `pnclab pki export`. " + layout.put,
        "",
        f"Private keys are under the password `{secret}`." if secret else "Keys have no password.",
        "",
        *(f"- {name}: {value}" for name, value in bench.facts.items()),
        "",
        "| certificate | subject | valid until | key |",
        "|---|---|---|---|",
    ]
    for name, one in bench.certificates.items():
        key = "here" if name in bench.keys else "with its owner"
        until = f"{one.not_valid_after_utc:%F}"
        lines.append(f"| {name} | {readable(one.subject)} | {until} | {key} |")
    lines += ["", "| file | what |", "|---|---|"]
    lines += [f"| {one.path} | {', '.join(one.what)} ({one.form}) |" for one in written]
    lines += ["", "## What this is", ""]
    lines += [f"- {text}" for names, text in _WHY if any(name in bench.keys for name in names)]
    lines += [f"- {text}" for text in _ALWAYS]
    responders = sorted(_responders(bench))
    lines += ["", "Revocation is asked at: " + (", ".join(responders) or "nowhere") + "."]
    if any("//127." in one or "//localhost" in one for one in responders):
        lines.append(
            "That is loopback: from another machine nobody answers there. Start `pnclab up` with "
            "`--listen` and `--public-url` in an empty data folder, and export again."
        )
    return "\n".join(lines) + "\n"


_WHY = (
    (
        ("secc",),
        "The charger's key was made for this export and certified by its operator. The charger of "
        "the ecosystem with the same EVSEID has another one; both are valid.",
    ),
    (
        ("oem-provisioning",),
        "The car is a new one: its maker certified it and registered it in the provisioning pool.",
    ),
    (
        ("contract",),
        "The contract was issued for that car and fetched with a CertificateInstallationReq, as a "
        "car does; request and answer lie in `messages` (EXI). Remove the contract's files to see "
        "the car ask for it.",
    ),
    (
        ("cps",),
        "The provisioning service's key is one of its own too: for stacks whose charger plays that "
        "service. The ecosystem's service goes on with its own.",
    ),
)
_ALWAYS = (
    "Keys of CAs stay with their owners. A stack that signs tariffs by itself (moSubCA2) must do "
    "without, or with a sub-CA of yours: `pnclab bring sub-ca`.",
    "What may be replaced: any leaf with its key and chain by one from the same sub-CA. Roots are "
    "what the other side must know: replace them only together.",
    "Files called .jks are PKCS#12, which Java reads under that name since 8u60.",
)


def _responders(bench: Bench) -> set[str]:
    found = set()
    for one in bench.certificates.values():
        try:
            access = one.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
        except x509.ExtensionNotFound:
            continue
        found |= {entry.access_location.value for entry in access}
    return found


def write_messages(bench: Bench, folder: Path) -> list[Written]:
    """The messages that brought the contract, beside the layout."""
    if bench.messages:
        (folder / "messages").mkdir(parents=True, exist_ok=True)
    for name, content in bench.messages.items():
        (folder / "messages" / name).write_bytes(content)
    return [
        Written(f"messages/{name}", (name.partition(".")[0],), "exi") for name in bench.messages
    ]
