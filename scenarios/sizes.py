"""How large what is sent gets, against the limits of those who carry it.

A CertificateInstallationRes holds two chains of three certificates and goes through OCPP as base64
in a field with a limit; certificates, chains and OCSP answers have limits too. What is measured
here was issued and answered by a running ecosystem.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.names import Subject
from pki.profiles import STYLES
from pki.revocation import ocsp_request
from pki.trust import TRUST_MODELS
from services.ecosystem import Ecosystem
from services.serve import running
from v2g import exi
from v2g.certificate_installation import NO_SESSION, RootId, read_response
from v2g.certificate_update import build_update_request, update_response
from v2g.messages import iso2

from .exporting import Bench, Wanted, certificate_signing_request, gather, private_signer
from .lab import Lab, LabError


@dataclass(frozen=True)
class Limit:
    """The most that a field takes, and whose field it is."""

    most: int
    who: str


@dataclass(frozen=True)
class Kind:
    """What is measured. Limits count characters of ``text`` (base64, PEM) or bytes of DER."""

    title: str
    text: str
    limits: tuple[Limit, ...]


_ANSWER = (
    Limit(5600, "exiResponse of OCPP 2.0.1; MaEVe, CitrineOS"),
    Limit(7500, "exiResponse of mobilityhouse/ocpp"),
    Limit(17000, "exiResponse of OCPP 2.1; EVerest"),
)
_QUESTION = (Limit(5600, "exiRequest of OCPP 2.0.1"), Limit(11000, "exiRequest of OCPP 2.1"))
_CERTIFICATE = (
    Limit(5500, "certificate of OCPP 2.0.1"),
    Limit(10000, "certificate of OCPP 2.1"),
)

KINDS: dict[str, Kind] = {
    "installation-response": Kind("CertificateInstallationRes", "base64", _ANSWER),
    "update-response": Kind("CertificateUpdateRes", "base64", _ANSWER),
    "installation-request": Kind("CertificateInstallationReq", "base64", _QUESTION),
    "update-request": Kind("CertificateUpdateReq", "base64", _QUESTION),
    "charger-chain": Kind(
        "the charger's chain",
        "PEM",
        (Limit(10000, "certificateChain of CertificateSigned"),),
    ),
    "charger-request": Kind("the charger's CSR", "PEM", (Limit(5500, "csr of SignCertificate"),)),
    "v2g-root": Kind("the V2G root, InstallCertificate", "PEM", _CERTIFICATE),
    "contract-chain": Kind("the contract chain, Authorize", "PEM", _CERTIFICATE),
    "ocsp-response": Kind(
        "an OCSP answer about the charger",
        "base64",
        (Limit(5500, "ocspResult of OCPP 2.0.1"), Limit(18000, "ocspResult of OCPP 2.1")),
    ),
    "largest-certificate": Kind(
        "the largest certificate but roots",
        "DER",
        (
            Limit(600, "800 characters of base64, OPCP"),
            Limit(800, "certificateType of ISO 15118-2, [V2G2-010]"),
        ),
    ),
}


@dataclass(frozen=True)
class Measure:
    """One of :data:`KINDS`: its bytes, and the characters or bytes that limits count."""

    kind: str
    size: int
    counted: int

    @property
    def too_large_for(self) -> tuple[Limit, ...]:
        return tuple(one for one in KINDS[self.kind].limits if self.counted > one.most)


@dataclass(frozen=True)
class Case:
    """One operator's contract under one trust model, with certificates of one style."""

    trust_model: str
    operator: str
    certificates: str
    measures: tuple[Measure, ...]

    def measure(self, kind: str) -> Measure:
        return next(one for one in self.measures if one.kind == kind)


def apart(ecosystem: Ecosystem, trust_model: str, style: str, folder: Path) -> Ecosystem:
    """``ecosystem`` under another model and style, beside it; certificates name what they would."""
    seen_at = {party.name: party.seen_at for party in ecosystem.parties.values()}
    placed = replace(
        ecosystem, trust_model=TRUST_MODELS[trust_model], certificates=style, cars=(), bring=()
    )
    placed = placed.in_folder(folder).on_free_ports()
    parties = {
        name: replace(party, public_url=seen_at[name]) for name, party in placed.parties.items()
    }
    return replace(placed, parties=parties)


async def all_cases(
    ecosystem: Ecosystem,
    on_step: Callable[[str], None],
    *,
    models: Iterable[str] = tuple(TRUST_MODELS),
    styles: Iterable[str] = tuple(STYLES),
) -> list[Case]:
    """Each trust model and style in a fresh ecosystem, each of its operators."""
    found = []
    for model in models:
        for style in styles:
            on_step(f"{model}, {style} certificates …")
            with tempfile.TemporaryDirectory(prefix="pnclab-sizes-") as folder:
                placed = apart(ecosystem, model, style, Path(folder))
                async with running(placed), Lab(placed) as lab:
                    found += await cases(lab)
    return found


async def cases(lab: Lab) -> list[Case]:
    """The operators of a running ecosystem: a charger, a car and a contract are made for each."""
    found = []
    for operator in lab.ecosystem.of_kind("mo"):
        wanted = Wanted(("charger", "car", "contract"), operator=operator.name)
        bench = await gather(lab, wanted)
        found.append(
            Case(
                lab.ecosystem.trust_model.name,
                operator.name,
                lab.ecosystem.certificates,
                tuple(await _measures(lab, bench)),
            )
        )
    return found


async def _measures(lab: Lab, bench: Bench) -> list[Measure]:
    response = bench.messages["CertificateInstallationRes.exi"]
    # An update carries the same elements.
    update = exi.encode(iso2.SCHEMA, update_response(read_response(response).data, NO_SESSION))
    contract = [bench.certificates[name] for name in ("contract", "mo-sub2", "mo-sub1")]
    asked = build_update_request(
        NO_SESSION,
        bench.facts["EMAID"],
        contract,
        [RootId.of(bench.certificates["v2g-root"])],
        private_signer(bench.keys["contract"]),
        lab.ecosystem.edition,
    )
    charger = [bench.certificates[name] for name in ("secc", "cpo-sub2", "cpo-sub1")]
    csr = certificate_signing_request(
        Subject(bench.facts["EVSEID"]), private_signer(bench.keys["secc"])
    )
    sent = [one for name, one in bench.certificates.items() if not name.endswith("-root")]
    return [
        _base64("installation-response", response),
        _base64("update-response", update),
        _base64("installation-request", bench.messages["CertificateInstallationReq.exi"]),
        _base64("update-request", exi.encode(iso2.SCHEMA, asked)),
        _pem("charger-chain", charger),
        Measure("charger-request", len(csr), len(csr)),
        _pem("v2g-root", [bench.certificates["v2g-root"]]),
        _pem("contract-chain", contract),
        _base64("ocsp-response", await _status(lab, *charger[:2])),
        max((_der("largest-certificate", one) for one in sent), key=lambda one: one.size),
    ]


async def _status(lab: Lab, leaf: x509.Certificate, issuer: x509.Certificate) -> bytes:
    root = lab.ecosystem.of_kind("v2g-root")[0]
    headers = {"Content-Type": "application/ocsp-request"}
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{root.url}/ocsp", data=ocsp_request(leaf, issuer), headers=headers
            ) as answer,
        ):
            return await answer.read()
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise LabError(root.name, 0, "unreachable", f"no OCSP answer: {error}") from None


def _base64(kind: str, raw: bytes) -> Measure:
    return Measure(kind, len(raw), len(base64.b64encode(raw)))


def _pem(kind: str, chain: Sequence[x509.Certificate]) -> Measure:
    ders = sum(len(one.public_bytes(Encoding.DER)) for one in chain)
    return Measure(kind, ders, sum(len(one.public_bytes(Encoding.PEM)) for one in chain))


def _der(kind: str, certificate: x509.Certificate) -> Measure:
    size = len(certificate.public_bytes(Encoding.DER))
    return Measure(kind, size, size)


def as_json(found: Sequence[Case]) -> dict[str, object]:
    """The report for programs: sizes, limits, what does not fit, what compact ones save."""
    return {
        "cases": [
            {
                "trust_model": case.trust_model,
                "operator": case.operator,
                "certificates": case.certificates,
                "measures": {
                    one.kind: {
                        "bytes": one.size,
                        "counted": one.counted,
                        "counted_as": KINDS[one.kind].text,
                        "limits": [
                            {
                                "most": limit.most,
                                "who": limit.who,
                                "fits": limit not in one.too_large_for,
                            }
                            for limit in KINDS[one.kind].limits
                        ],
                    }
                    for one in case.measures
                },
            }
            for case in found
        ],
        "compact_saves": {
            f"{usual.trust_model}/{usual.operator}": {
                kind: usual.measure(kind).counted - compact.measure(kind).counted for kind in KINDS
            }
            for usual, compact in pairs(found)
        },
    }


def pairs(found: Sequence[Case]) -> list[tuple[Case, Case]]:
    """The same with usual and with compact certificates, where both were measured."""
    by = {(case.trust_model, case.operator, case.certificates): case for case in found}
    return [
        (case, by[model, operator, "compact"])
        for (model, operator, style), case in by.items()
        if style == "usual" and (model, operator, "compact") in by
    ]
