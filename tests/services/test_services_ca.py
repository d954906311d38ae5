"""The CA component, judged by others: openssl verifies chains, OCSP answers and CRLs."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from sqlalchemy.exc import IntegrityError

from pki.edition import ISO2
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.profiles import Role
from services.ca import service as ca_service
from services.common.certificates import b64, read_certificate
from services.common.errors import Refusal

if TYPE_CHECKING:
    from conftest import World


def pem(folder: Path, name: str, *certificates: str) -> str:
    """Write base64 DER certificates as a PEM file; its path."""
    path = folder / f"{name}.pem"
    path.write_bytes(
        b"".join(read_certificate(one, name).public_bytes(Encoding.PEM) for one in certificates)
    )
    return str(path)


def openssl(*arguments: str) -> str:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def roots(world: World) -> dict[str, str]:
    # Other tests publish roots of strangers, as admin; the other maker has one too.
    return {
        one["type"]: one["certificate"]
        for one in world.ok("root-pool", "GET", "/roots")
        if one["published_by"] in ("v2g-root", "nova-cars", "sunmile")
    }


@pytest.fixture(scope="module")
def life(world: World) -> dict[str, list[str]]:
    """A chain of every kind, leaf first, without the root."""
    car = world.car()
    contract = world.contract(car["pcid"])
    return {
        "OEM": car["chain"],
        "MO": contract["chain"],
        "CPS": world.ok("provisioning-service", "GET", "/signer")["chain"],
        "SECC": world.ok("charger-1", "GET", "/status")["certificate"],
    }


ROOT_OF = {"OEM": "OEM", "MO": "MO", "CPS": "V2G", "SECC": "V2G"}


@pytest.mark.parametrize("kind", ROOT_OF)
def test_openssl_verifies_our_chains(
    tmp_path: Path, roots: dict[str, str], life: dict[str, list[str]], kind: str
) -> None:
    """With its strict checks, against our root; against another root it does not."""
    leaf, *above = life[kind]
    files = ["-untrusted", pem(tmp_path, "above", *above), pem(tmp_path, "leaf", leaf)]
    good = pem(tmp_path, "root", roots[ROOT_OF[kind]])
    said = openssl("verify", "-x509_strict", "-no-CApath", "-no-CAstore", "-CAfile", good, *files)
    assert said.strip().endswith(": OK")
    other = pem(tmp_path, "other", roots["MO" if ROOT_OF[kind] != "MO" else "V2G"])
    command = ["openssl", "verify", "-no-CApath", "-no-CAstore", "-CAfile", other, *files]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def status_by_openssl(world: World, folder: Path, roots: dict[str, str], chain: list[str]) -> str:
    """What `openssl ocsp` says about the first of ``chain``, the response verified."""
    url = x509_ocsp_url(chain[0])
    leaf, issuer, *above = chain
    issuer_file = pem(folder, "issuer", issuer)
    return openssl(
        *("ocsp", "-issuer", issuer_file, "-cert", pem(folder, "leaf", leaf), "-url", url),
        *("-CAfile", pem(folder, "anchors", *roots.values(), issuer, *above)),
        *("-no-CApath", "-no-CAstore"),
    )


def x509_ocsp_url(certificate: str) -> str:
    access = read_certificate(certificate, "c").extensions.get_extension_for_class(
        x509.AuthorityInformationAccess
    )
    return str(next(iter(access.value)).access_location.value)


@pytest.mark.parametrize("kind", ROOT_OF)
def test_openssl_asks_our_responders(
    world: World, tmp_path: Path, roots: dict[str, str], life: dict[str, list[str]], kind: str
) -> None:
    """Leaf, sub-CA 2 and sub-CA 1: each is good, and the answer verifies."""
    chain = [*life[kind], roots[ROOT_OF[kind]]]
    for position in range(len(chain) - 1):
        said = status_by_openssl(world, tmp_path, roots, chain[position:])
        assert "Response verify OK" in said
        assert ": good" in said


def test_revoked_and_unknown(
    world: World, tmp_path: Path, roots: dict[str, str], life: dict[str, list[str]]
) -> None:
    """A revoked certificate with its reason; one that was never issued is unknown; both in
    answers that verify. The revocation list says the same."""
    car = world.car()
    contract = world.contract(car["pcid"])
    chain = [*contract["chain"], roots["MO"]]
    mark = {"fingerprint": contract["fingerprint"], "reason": "keyCompromise"}
    assert ": good" in status_by_openssl(world, tmp_path, roots, chain)
    revoked = world.ok("sunmile", "POST", "/revocations", mark)
    said = status_by_openssl(world, tmp_path, roots, chain)
    assert "Response verify OK" in said
    assert ": revoked" in said
    assert "keyCompromise" in said
    said = openssl(
        *("ocsp", "-issuer", pem(tmp_path, "issuer", chain[1]), "-serial", "0x1234"),
        *("-url", x509_ocsp_url(chain[0]), "-CAfile", pem(tmp_path, "all", *chain[1:])),
    )
    assert "Response verify OK" in said
    assert "unknown" in said
    path = tmp_path / "list.crl"
    path.write_bytes(world.call("sunmile", "GET", "/crl/mo-sub2").content)
    issuer = pem(tmp_path, "issuer", chain[1])
    said = openssl("crl", "-inform", "DER", "-in", str(path), "-CAfile", issuer, "-noout", "-text")
    assert "verify OK" in said
    serial = read_certificate(chain[0], "c").serial_number
    assert f"Serial Number: {serial:X}" in said.replace("Serial Number: 0", "Serial Number: ")
    assert "Key Compromise" in said
    # openssl's own walker refuses the chain with this list and accepts the other contract.
    lists = tmp_path / "list.pem"
    openssl("crl", "-inform", "DER", "-in", str(path), "-out", str(lists))
    arguments = ["verify", "-crl_check", "-CRLfile", str(lists), "-CAfile"]
    arguments += [
        pem(tmp_path, "root", chain[-1]),
        "-untrusted",
        pem(tmp_path, "subs", *chain[1:3]),
    ]
    done = subprocess.run(
        ["openssl", *arguments, pem(tmp_path, "leaf", chain[0])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "certificate revoked" in done.stdout + done.stderr
    assert openssl(*arguments, pem(tmp_path, "other", life["MO"][0])).strip().endswith("OK")
    assert revoked["reason"] == "keyCompromise"


def test_lists_are_numbered_upwards(world: World) -> None:
    """A list is given out again while it says all there is; the next one has the next number."""

    def fetched() -> tuple[bytes, int, int]:
        raw = world.call("sunmile", "GET", "/crl/mo-sub2", client=None).content
        crl = x509.load_der_x509_crl(raw)
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        return raw, number, len(crl)

    world.ok("sunmile", "POST", "/jobs/run")  # what others left to do
    first, number, entries = fetched()
    with world.unchanged("sunmile"):
        assert fetched()[0] == first
    fingerprint = world.contract(world.car()["pcid"])["fingerprint"]
    world.ok("sunmile", "POST", "/revocations", {"fingerprint": fingerprint})
    assert fetched()[1:] == (number + 1, entries + 1)
    answer = world.call("sunmile", "GET", "/crl/nobody")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_such_authority")


def test_ocsp_by_get_and_what_is_no_request(world: World, life: dict[str, list[str]]) -> None:
    """GET and POST say the same; what is no request gets OCSP's own error, with status 200."""
    leaf, issuer = (read_certificate(one, "c") for one in life["MO"][:2])
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, hashes.SHA1())
    asked = builder.build().public_bytes(Encoding.DER)
    path = f"/ocsp/{quote(base64.b64encode(asked).decode(), safe='')}"
    for answer in (
        world.call("sunmile", "GET", path, client=None),
        world.call("sunmile", "POST", "/ocsp", content=asked, client=None),
    ):
        said = ocsp.load_der_ocsp_response(answer.content)
        assert said.certificate_status is ocsp.OCSPCertStatus.GOOD
    malformed = ocsp.OCSPResponseStatus.MALFORMED_REQUEST
    for junk in (b"", b"\x30\x00", asked[:-1], b"\xff" * 100, asked + b"\x00"):
        answer = world.call("sunmile", "POST", "/ocsp", content=junk, client=None)
        assert answer.status_code == 200
        assert ocsp.load_der_ocsp_response(answer.content).response_status is malformed, junk
    other, its_issuer = (read_certificate(one, "c") for one in life["OEM"][:2])
    builder = ocsp.OCSPRequestBuilder().add_certificate(other, its_issuer, hashes.SHA256())
    asked = builder.build().public_bytes(Encoding.DER)
    answer = world.call("sunmile", "POST", "/ocsp", content=asked, client=None)
    said = ocsp.load_der_ocsp_response(answer.content)
    assert said.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED


# ----------------------------------------------------------------------- issuing


def contract_subject(world: World, name: str) -> Subject:
    return Subject(
        common_name=name,
        organization="x",
        country="DE",
        domain_components=ca_service.role_domain(Role.CONTRACT, world.party("sunmile")),
    )


def test_the_same_request_gets_the_same_certificate(world: World) -> None:
    """By its natural key: one answer for one key, whoever is first; 409 for another key."""
    ca = world.service("sunmile").ca
    subject = contract_subject(world, "DESUNCTESTCA0018")
    subject = Subject("DESUNCTESTCA00", subject.organization, "DE", subject.domain_components)
    key, other = SoftwareKey.generate(ISO2), SoftwareKey.generate(ISO2)

    async def issue(public_key: Any, request: str | None) -> Any:
        return await ca.issue(
            Role.CONTRACT, subject=subject, public_key=public_key, request_key=request
        )

    async def at_once() -> list[Any]:
        return await asyncio.gather(*(issue(key.public_key, "test:1") for _ in range(20)))

    issued = world.run(at_once())
    assert len({one.certificate for one in issued}) == 1
    assert sum(one.new for one in issued) == 1
    with world.unchanged("sunmile"), pytest.raises(Refusal) as refusal:
        world.run(issue(other.public_key, "test:1"))
    assert (refusal.value.status, refusal.value.code) == (409, "already_issued")
    # Without a natural key each request gets its own.
    serials = {world.run(issue(key.public_key, None)).certificate.serial_number for _ in range(9)}
    assert len(serials) == 9


def test_serials_are_unique_whatever_happens(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should chance give the same serial twice, the database says no and nothing is issued."""
    ca = world.service("sunmile").ca
    monkeypatch.setattr(ca_service, "new_serial", lambda entropy: 0x4242424242)
    subject = contract_subject(world, "DESUNCTESTCA01")

    async def issue() -> Any:
        key = SoftwareKey.generate(ISO2).public_key
        return await ca.issue(Role.CONTRACT, subject=subject, public_key=key)

    world.run(issue())
    with world.unchanged("sunmile"), pytest.raises(IntegrityError):
        world.run(issue())


def test_all_serials_of_a_run(world: World) -> None:
    for party in ("v2g-root", "nova-cars", "sunmile"):
        issued = world.ok(party, "GET", "/certificates")
        marks = [(one["issuer"], one["serial"]) for one in issued]
        assert len(set(marks)) == len(marks) >= 3
        # RFC 5280 4.1.2.2 and the CA/B forum's 64 bits of chance, but for what we set ourselves.
        lengths = [len(serial) for _, serial in marks if serial != "4242424242"]
        assert all(14 <= length <= 40 for length in lengths)


def test_what_the_v2g_root_certifies_is_its_to_name(world: World) -> None:
    """O, C and DC are the issuer's choice; a request cannot smuggle them in."""
    key = SoftwareKey.generate(ISO2)
    wish = Subject("a service", "Somebody Else", "FR", ("CPO",))
    body = {"role": "cps", "csr": b64(certificate_request(wish, key))}
    first = world.ok("v2g-root", "POST", "/certificates", body, client="provisioning-service")
    again = world.ok("v2g-root", "POST", "/certificates", body, client="provisioning-service")
    assert first == again
    subject = Subject.of(read_certificate(first["chain"][0], "c").subject)
    assert subject == Subject("a service", "Rootline (pnclab test)", "DE", ("CPS",))
    assert len(first["chain"]) == 3


def test_the_books_of_a_ca(world: World, life: dict[str, list[str]]) -> None:
    """Everything it issued is there with its dates; a role picks."""
    everything = world.ok("nova-cars", "GET", "/certificates")
    roles = {one["role"] for one in everything}
    assert {"oem-root", "oem-sub1", "oem-sub2", "oem-provisioning", "ocsp-signer"} == roles
    cars = world.ok("nova-cars", "GET", "/certificates?role=oem-provisioning")
    assert [one for one in everything if one["role"] == "oem-provisioning"] == cars
    assert world.ok("nova-cars", "GET", "/certificates?role=nothing") == []
    authorities = world.ok("nova-cars", "GET", "/authorities")
    assert [one["role"] for one in authorities] == ["oem-root", "oem-sub1", "oem-sub2"]


def test_a_revoked_sub_ca_takes_its_leaves_with_it(tmp_path: Path, serve: Any) -> None:
    """The maker's sub-CA 2 is revoked: its cars register and install no more."""
    from services.ecosystem import load

    with serve(load(data=tmp_path).on_free_ports()) as world:
        car = world.car()
        world.contract(car["pcid"])
        sub2 = world.ok("nova-cars", "GET", "/authorities")[2]
        mark = {"fingerprint": sub2["fingerprint"], "reason": "cACompromise"}
        world.ok("nova-cars", "POST", "/revocations", mark)
        # Answers about CAs are used again for some seconds: forget them.
        for name in ("provisioning-pool", "contract-pool"):
            world.service(name).judge._recent.clear()
        outcome = world.charge(car["pcid"])
        assert (outcome["outcome"], outcome["stage"]) == ("refused", "CertificateInstallationReq")
        assert outcome["code"] == "FAILED_CertificateRevoked"
        answer = world.call("garage", "POST", "/vehicles", {})
        assert (answer.status_code, answer.json()["code"]) == (422, "chain_refused")
