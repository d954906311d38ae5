"""What each party refuses for what it means: roles, identifiers, duplicates, dates, money.

A refused call has a code and changes nothing; beside it stands the good one that passes.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from pki.edition import ISO2
from pki.identifiers import EMAID
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from services.common.certificates import b64, fingerprint, read_certificate
from services.common.errors import Refusal
from v2g import exi
from v2g.certificate_installation import RootId, build_request, read_response
from v2g.messages import iso2

if TYPE_CHECKING:
    from conftest import World

REGISTER = ("provisioning-pool", "PUT", "/provisioning-certificates")
NOW = datetime.now(UTC)


def refused(world: World, call: tuple[str, str, str], body: Any, **more: Any) -> tuple[int, str]:
    """The status and code of a call that must be refused and change nothing anywhere."""
    with world.unchanged():
        answer = world.call(*call, body, **more)
    assert answer.is_error, answer.text
    said = answer.json()
    assert len(said["message"]) > 10
    return answer.status_code, said["code"]


def made(
    name: str,
    *,
    key: Any = None,
    issuer: tuple[x509.Certificate, Any] | None = None,
    ca: bool | None = None,
    since: timedelta = timedelta(days=-1),
    until: timedelta = timedelta(days=365),
    components: tuple[str, ...] = (),
) -> tuple[str, Any]:
    """A certificate by hand (base64 DER) and its key: self-signed, or by ``issuer``."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    attributes += [x509.NameAttribute(NameOID.DOMAIN_COMPONENT, one) for one in components]
    subject = x509.Name(attributes)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + since)
        .not_valid_after(NOW + until)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    certificate = builder.sign(issuer[1] if issuer else key, digest)
    return b64(certificate.public_bytes(serialization.Encoding.DER)), key


@pytest.fixture(scope="module")
def car(world: World) -> dict[str, Any]:
    return world.car()


@pytest.fixture(scope="module")
def contract(world: World, car: dict[str, Any]) -> dict[str, Any]:
    return world.contract(car["pcid"])


def new_pcid(prefix: str = "WNV") -> str:
    return prefix + "".join(secrets.choice("ABCDEFGHJKLMNPRSTUVWXYZ0123456789") for _ in range(15))


def new_emaid(provider: str = "SUN") -> str:
    return EMAID.with_check_digit("DE", provider, "C" + secrets.token_hex(4).upper()).wire


# ------------------------------------------------------------- certificates


def test_certificates_of_a_wrong_role_are_no_provisioning_certificates(
    world: World, car: dict[str, Any], contract: dict[str, Any]
) -> None:
    leaf, sub2, sub1 = car["chain"]
    signer = world.ok("provisioning-service", "GET", "/signer")["chain"]
    charger = world.ok("charger-1", "GET", "/status")["certificate"]
    root = world.ok("root-pool", "GET", "/roots?type=OEM")[0]["certificate"]
    for certificate, issuers in (
        (sub2, [sub1]),
        (root, [sub1]),
        (contract["chain"][0], contract["chain"][1:]),
        (signer[0], signer[1:]),
        (charger[0], charger[1:]),
    ):
        body = {"certificate": certificate, "issuers": issuers}
        status, code = refused(world, REGISTER, body)
        assert (status, code) in ((422, "not_a_pcid"), (422, "chain_refused"))
    # A name alone does not make the role: these carry a good PCID.
    for name, more in {
        "self-signed": {},
        "a CA": {"ca": True},
        "a CPS by its DC": {"components": ("CPS",)},
    }.items():
        certificate, _ = made(new_pcid(), **more)
        body = {"certificate": certificate, "issuers": [sub2, sub1]}
        assert refused(world, REGISTER, body) == (422, "chain_refused"), name
    assert world.ok(*REGISTER, {"certificate": leaf, "issuers": [sub2, sub1]})


def test_a_provisioning_chain_with_a_gap(world: World, car: dict[str, Any]) -> None:
    """The same certificate once more, after it has been taken out."""
    other = world.car()
    leaf, sub2, sub1 = other["chain"]
    world.ok("provisioning-pool", "DELETE", f"/provisioning-certificates/{other['pcid']}")
    for issuers in ([sub1], [sub2], [car["chain"][0]]):
        body = {"certificate": leaf, "issuers": issuers}
        assert refused(world, REGISTER, body) == (422, "chain_refused")
    assert refused(world, REGISTER, {"certificate": leaf, "issuers": []})[0] == 422
    assert refused(world, REGISTER, {"certificate": leaf, "issuers": [sub2] * 5})[0] == 422
    world.ok(*REGISTER, {"certificate": leaf, "issuers": [sub2, sub1]})


KEYS: dict[str, tuple[Callable[[], Any], set[str]]] = {
    "RSA": (lambda: rsa.generate_private_key(65537, 2048), {"wrong_key_type"}),
    "Ed25519": (ed25519.Ed25519PrivateKey.generate, {"wrong_key_type"}),
    "P-384": (lambda: ec.generate_private_key(ec.SECP384R1()), {"chain_refused"}),
    "P-521": (lambda: ec.generate_private_key(ec.SECP521R1()), {"chain_refused"}),
    "brainpool": (lambda: ec.generate_private_key(ec.BrainpoolP256R1()), {"chain_refused"}),
}


@pytest.mark.parametrize("name", KEYS)
def test_keys_of_other_kinds(world: World, car: dict[str, Any], name: str) -> None:
    generate, codes = KEYS[name]
    certificate, key = made(new_pcid(), key=generate())
    body = {"certificate": certificate, "issuers": car["chain"][1:]}
    status, code = refused(world, REGISTER, body)
    assert status == 422
    assert code in codes
    csr = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "DE*PLG*E0001*1")])
    )
    digest = None if name == "Ed25519" else hashes.SHA256()
    request = b64(csr.sign(key, digest).public_bytes(serialization.Encoding.DER))
    for call, body in (
        (("nova-cars", "POST", "/vehicles"), {"csr": request}),
        (("v2g-root", "POST", "/certificates"), {"role": "secc", "csr": request}),
        (("v2g-root", "POST", "/certificates"), {"role": "cps", "csr": request}),
    ):
        status, code = refused(world, call, body)
        assert status == 422
        assert code in ("not_a_request", "not_issued")


def test_requests_that_are_none(world: World) -> None:
    """Not base64, not PKCS#10, a certificate, a signature by another key, a byte changed."""
    key = SoftwareKey.generate(ISO2)
    good = certificate_request(Subject(common_name="a car"), key)
    calls: list[tuple[tuple[str, str, str], dict[str, str]]] = [
        (("nova-cars", "POST", "/vehicles"), {}),
        (("v2g-root", "POST", "/certificates"), {"role": "cps"}),
    ]
    flipped = bytearray(good)
    flipped[-1] ^= 1
    for call, more in calls:
        for csr, status in (
            ("?", 400),
            ("", 400),
            (b64(b"\x30\x00"), 422),
            (b64(good[:-1]), 422),
            (b64(bytes(flipped)), 422),
            (made("a car")[0], 422),
        ):
            assert refused(world, call, {"csr": csr, **more})[0] == status, (call, csr)


ROOTS = ("root-pool", "POST", "/roots")


def test_roots_that_are_none(world: World, car: dict[str, Any]) -> None:
    leaf, sub2, _ = car["chain"]
    plain, _ = made("a leaf that signs itself")
    no_ca, _ = made("basicConstraints says no", ca=False)
    expired, _ = made("an old root", ca=True, since=-timedelta(days=9), until=-timedelta(days=1))
    rsa_root, _ = made("an RSA root", ca=True, key=rsa.generate_private_key(65537, 2048))
    for certificate, code in (
        (leaf, "not_a_root"),
        (sub2, "not_a_root"),
        (plain, "not_a_root"),
        (no_ca, "not_a_root"),
        (expired, "expired"),
        (rsa_root, "wrong_key_type"),
        (b64(b"\x30\x00"), "not_a_certificate"),
        ("A" * 40_000, "wrong_shape"),
    ):
        body = {"type": "OEM", "certificate": certificate}
        assert refused(world, ROOTS, body) == (422, code)
    good, _ = made("a root of a stranger", ca=True)
    assert refused(world, ROOTS, {"type": "XYZ", "certificate": good}) == (422, "unknown_type")
    assert refused(world, ROOTS, {"type": "OEM", "certificate": "%"}) == (400, "not_base64")
    assert world.call(*ROOTS, {"type": "OEM", "certificate": good}).status_code == 201
    assert world.call(*ROOTS, {"type": "OEM", "certificate": good}).status_code == 200
    assert refused(world, ROOTS, {"type": "MO", "certificate": good}) == (409, "other_type")
    mark = fingerprint(read_certificate(good, "good"))
    world.ok("root-pool", "DELETE", f"/roots/{mark}")
    call = ("root-pool", "DELETE", f"/roots/{mark}")
    assert refused(world, call, None) == (404, "no_such_root")


@pytest.fixture(scope="module")
def foreign(world: World) -> Any:
    """A stranger's OEM root, known to the pool; issues cars of its own making."""
    encoded, key = made("a stranger's root", ca=True, components=("OEM",))
    root = read_certificate(encoded, "root")
    world.ok(*ROOTS, {"type": "OEM", "certificate": encoded})
    return encoded, (root, key)


@pytest.mark.parametrize(
    ("since", "until", "rule"),
    [
        (-timedelta(days=9), -timedelta(days=1), "expired"),
        (timedelta(days=1), timedelta(days=9), "not yet"),
    ],
    ids=["expired", "not yet valid"],
)
def test_certificates_outside_their_time(
    world: World, foreign: Any, since: timedelta, until: timedelta, rule: str
) -> None:
    encoded, issuer = foreign
    certificate, _ = made(new_pcid(), issuer=issuer, since=since, until=until)
    body = {"certificate": certificate, "issuers": [encoded]}
    with world.unchanged():
        answer = world.call(*REGISTER, body)
    assert answer.status_code == 422
    findings = answer.json()["details"]["verdict"]["findings"]
    assert any("valid" in one["rule"] or "expired" in one["rule"] for one in findings), findings


def test_every_byte_of_a_certificate_changed(world: World, car: dict[str, Any]) -> None:
    """Whatever a certificate has been turned into, it is refused, never a defect."""
    der = base64.b64decode(car["chain"][0])
    wanted = []
    for position in range(0, len(der), 2):
        spoiled = bytearray(der)
        spoiled[position] ^= 0x55
        body = {"certificate": b64(bytes(spoiled)), "issuers": car["chain"][1:]}
        wanted.append(body)
    calls = [
        (
            "/provisioning-certificates",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        for body in wanted
    ]
    with world.unchanged():
        for answer in world.all("provisioning-pool", "PUT", calls):
            assert answer.status_code in (409, 422), answer.text


# ------------------------------------------------------- cars and registrations


def test_a_foreign_wmi(world: World, foreign: Any) -> None:
    """A maker builds and registers its own cars only."""
    key = SoftwareKey.generate(ISO2)
    csr = b64(certificate_request(Subject(common_name="x"), key))
    body = {"csr": csr, "pcid": new_pcid("WBA")}
    assert refused(world, ("nova-cars", "POST", "/vehicles"), body) == (422, "foreign_wmi")
    build = ("garage", "POST", "/vehicles")
    assert refused(world, build, {"pcid": new_pcid("WBA")}) == (422, "foreign_wmi")
    encoded, issuer = foreign
    certificate, _ = made(new_pcid("WBA"), issuer=issuer)
    body = {"certificate": certificate, "issuers": [encoded]}
    assert refused(world, REGISTER, body, client="nova-cars") == (403, "not_yours")


def test_pcids_that_are_none(world: World) -> None:
    for pcid in (
        "WNV",
        "W" * 19,
        "WNV-2345678901234",
        "WNV\u00e42345678901234",
        "ION45678901234567",
    ):
        call = ("garage", "POST", "/vehicles")
        assert refused(world, call, {"pcid": pcid}) == (422, "not_a_pcid"), pcid
    assert refused(world, ("garage", "POST", "/vehicles"), {"oem": "nobody"})[1] == "unknown_oem"
    assert refused(world, ("garage", "POST", "/vehicles"), {"oem": "sunmile"})[1] == "not_an_oem"


def test_a_car_twice(world: World) -> None:
    """The same key asks again: the same car. Another key for the PCID, another PCID: 409."""
    key, other = SoftwareKey.generate(ISO2), SoftwareKey.generate(ISO2)
    call = ("nova-cars", "POST", "/vehicles")
    pcid = new_pcid()
    body = {"csr": b64(certificate_request(Subject(common_name="x"), key)), "pcid": pcid}
    first = world.call(*call, body)
    again = world.call(*call, body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    taken = {"csr": b64(certificate_request(Subject(common_name="x"), other)), "pcid": pcid}
    assert refused(world, call, taken) == (409, "pcid_taken")
    assert refused(world, call, {**body, "pcid": new_pcid()}) == (409, "key_taken")


def test_a_registration_twice(world: World, foreign: Any) -> None:
    encoded, issuer = foreign
    pcid = new_pcid("WXY")
    # The strict pool's walker wants more of a chain than this one has: so the maker's own car.
    car = world.car()
    body = {"certificate": car["chain"][0], "issuers": car["chain"][1:]}
    with world.unchanged():
        assert world.call(*REGISTER, body).status_code == 200
    certificate, _ = made(car["pcid"], issuer=issuer)
    other = {"certificate": certificate, "issuers": [encoded]}
    assert refused(world, REGISTER, other) == (409, "pcid_taken")
    unknown = ("provisioning-pool", "GET", f"/provisioning-certificates/{pcid}")
    assert refused(world, unknown, None) == (404, "unknown_pcid")
    gone = ("provisioning-pool", "DELETE", f"/provisioning-certificates/{pcid}")
    assert refused(world, gone, None) == (404, "unknown_pcid")


# -------------------------------------------------------------------- contracts

SIGN = ("sunmile", "POST", "/contracts")


def test_contracts_that_cannot_be(world: World, car: dict[str, Any]) -> None:
    driver, pcid = world.driver(), car["pcid"]
    good = {"driver": driver, "pcid": pcid}
    emaid = new_emaid()
    wrong_digit = emaid[:-1] + ("A" if emaid[-1] != "A" else "B")
    past = (NOW - timedelta(days=1)).isoformat()
    for changed, status, code in (
        ({"driver": "D000"}, 404, "unknown_driver"),
        ({"pcid": new_pcid()}, 404, "unknown_pcid"),
        ({"pcid": "W"}, 422, "not_a_pcid"),
        ({"emaid": wrong_digit}, 422, "not_an_emaid"),
        ({"emaid": "UKSUNC123456789"[:15]}, 422, "not_an_emaid"),
        ({"emaid": new_emaid("XYZ")}, 422, "foreign_provider"),
        ({"ends": past}, 422, "ends_in_the_past"),
        ({"ends": "0001-01-01T00:00:00+12:00"}, 422, "wrong_shape"),
        ({"ends": "9999-12-31T23:59:59-12:00"}, 422, "wrong_shape"),
        ({"ends": "2030-01-01T00:00:00"}, 422, "wrong_shape"),
        ({"ends": "tomorrow"}, 422, "wrong_shape"),
    ):
        assert refused(world, SIGN, {**good, **changed}) == (status, code), changed
    for call in (
        ("sunmile", "GET", f"/contracts/{emaid}"),
        ("sunmile", "POST", f"/contracts/{emaid}/cancel"),
    ):
        assert refused(world, call, None) == (404, "unknown_emaid")
    call = ("sunmile", "POST", f"/contracts/{emaid}/revoke")
    assert refused(world, call, {}) == (404, "unknown_emaid")


def test_a_contract_twice(world: World, car: dict[str, Any]) -> None:
    driver, emaid = world.driver(), new_emaid()
    body = {"driver": driver, "pcid": car["pcid"], "emaid": emaid}
    first = world.call(*SIGN, body)
    with world.unchanged():
        again = world.call(*SIGN, body)
        hyphens = f"{emaid[:2]}-{emaid[2:5]}-{emaid[5:14]}-{emaid[14:]}".lower()
        differently = world.call(*SIGN, {**body, "emaid": hyphens})
    assert [first.status_code, again.status_code, differently.status_code] == [201, 200, 200]
    assert first.json() == again.json() == differently.json()
    other_car, other_driver = world.car()["pcid"], world.driver()
    assert refused(world, SIGN, {**body, "pcid": other_car}) == (409, "emaid_taken")
    assert refused(world, SIGN, {**body, "driver": other_driver}) == (409, "emaid_taken")


def test_the_same_contract_many_times_at_once(world: World, car: dict[str, Any]) -> None:
    """All get the same answer; one certificate is issued."""
    body = {"driver": world.driver(), "pcid": car["pcid"], "emaid": new_emaid()}
    headers = {"Content-Type": "application/json"}
    call = ("/contracts", json.dumps(body).encode(), headers)
    answers = world.all("sunmile", "POST", [call] * 8)
    assert {answer.status_code for answer in answers} <= {200, 201}, answers[0].text
    assert len({answer.json()["fingerprint"] for answer in answers}) == 1
    issued = world.ok("sunmile", "GET", "/certificates?role=contract")
    assert sum(body["emaid"] in one["subject"] for one in issued) == 1


def test_hyphens_do_not_reach_the_certificate(world: World) -> None:
    """The schema of ISO 15118-2 has no room for them; the car charges with the contract."""
    car, emaid = world.car(), new_emaid()
    hyphens = f"{emaid[:2]}-{emaid[2:5]}-{emaid[5:14]}-{emaid[14:]}".lower()
    assert world.contract(car["pcid"], emaid=hyphens)["emaid"] == emaid
    assert world.charge(car["pcid"], 100)["outcome"] == "charged"


def test_when_a_contract_ends(world: World, car: dict[str, Any]) -> None:
    """The end may be given in any zone; the certificate ends with the contract."""
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    zone = ends.astimezone(tz=datetime.strptime("+0530", "%z").tzinfo)
    found = world.contract(car["pcid"], ends=zone.isoformat())
    certificate = read_certificate(found["chain"][0], "contract")
    assert certificate.not_valid_after_utc == ends
    row = world.run(world.service("sunmile").contracts.get(found["emaid"]))
    assert row.ends == ends


def test_a_contract_that_ends_at_once(world: World, car: dict[str, Any]) -> None:
    """Moments before its end it is either issued or refused; never a defect."""
    soon = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
    body = {"driver": world.driver(), "pcid": car["pcid"], "ends": soon}
    answer = world.call(*SIGN, body)
    assert answer.status_code in (201, 422), answer.text
    if answer.status_code == 201:
        # It would leave the pool by itself, while another test looks.
        world.ok("sunmile", "POST", f"/contracts/{answer.json()['emaid']}/cancel")


def test_revoking(world: World) -> None:
    """Twice is once; a reason must be one of RFC 5280; certificates are found by fingerprint."""
    car = world.car()
    contract = world.contract(car["pcid"])
    revoke = ("sunmile", "POST", f"/contracts/{contract['emaid']}/revoke")
    assert refused(world, revoke, {"reason": "because"}) == (422, "unknown_reason")
    assert refused(world, revoke, {"reason": "removeFromCRL"})[1] == "unknown_reason"
    assert refused(world, revoke, {"reason": "keyCompromise\n"})[1] == "wrong_shape"
    first = world.ok(*revoke, {"reason": "keyCompromise"})
    with world.unchanged():
        assert world.ok(*revoke, {"reason": "superseded"}) == first
        world.ok("sunmile", "POST", f"/contracts/{contract['emaid']}/cancel")
    assert first["status"] == "revoked"
    by_mark = ("sunmile", "POST", "/revocations")
    body = {"fingerprint": "0" * 64, "reason": "keyCompromise"}
    assert refused(world, by_mark, body) == (404, "no_such_certificate")
    assert refused(world, by_mark, {**body, "fingerprint": "x"}) == (422, "wrong_shape")
    body = {"fingerprint": first["fingerprint"], "reason": "superseded"}
    with world.unchanged():
        assert world.ok(*by_mark, body)["reason"] == "keyCompromise"
    other = ("nova-cars", "POST", "/revocations")
    assert refused(world, other, body) == (404, "no_such_certificate")


# ------------------------------------------------- contract data and the pools


def contract_data(world: World, emaid: str) -> dict[str, Any]:
    """What the operator had signed for a contract."""
    row = world.run(world.service("sunmile").contracts.get(emaid))
    found = world.ok("sunmile", "GET", f"/contracts/{emaid}")
    return {
        "emaid": found["emaid"],
        "pcid": found["pcid"],
        "contract_chain": found["chain"],
        "encrypted_private_key": b64(row.encrypted_key),
        "dh_public_key": b64(row.dh_public_key),
    }


DATA = ("provisioning-service", "POST", "/contract-data")


def test_contract_data_that_is_none(
    world: World, car: dict[str, Any], contract: dict[str, Any]
) -> None:
    good = contract_data(world, contract["emaid"])
    with world.unchanged():
        assert world.call(*DATA, good).status_code == 200
    fresh = {**good, "contract_chain": world.car()["chain"]}
    for changed, status, code in (
        ({"contract_chain": ["?"]}, 400, "not_base64"),
        ({"contract_chain": [b64(b"\x30\x00")]}, 422, "not_a_certificate"),
        ({"encrypted_private_key": "?"}, 400, "not_base64"),
        ({"encrypted_private_key": ""}, 400, "empty"),
        ({"emaid": "X"}, 422, "not_an_emaid"),
        ({"pcid": "X"}, 422, "not_a_pcid"),
        ({"pcid": world.car()["pcid"]}, 409, "emaid_taken"),
        ({"contract_chain": fresh["contract_chain"]}, 422, "chain_refused"),
        ({"contract_chain": contract["chain"][1:]}, 422, "chain_refused"),
        ({"contract_chain": car["chain"]}, 422, "chain_refused"),
    ):
        assert refused(world, DATA, {**good, **changed}) == (status, code), changed
    other = {**good, "emaid": new_emaid("XYZ")}
    assert refused(world, DATA, other, client="sunmile") == (403, "not_yours")


STORE = ("contract-pool", "PUT", "/contracts")


def test_messages_that_are_no_contract_data(
    world: World, car: dict[str, Any], contract: dict[str, Any]
) -> None:
    data = world.ok(*DATA, contract_data(world, contract["emaid"]))
    good = {name: data[name] for name in ("emaid", "pcid", "message")}
    raw = base64.b64decode(good["message"])
    response = read_response(raw)
    nobody = SoftwareKey.generate(ISO2)
    unsigned = exi.encode(iso2.SCHEMA, replace(response.data, signature=None).response(bytes(8)))
    by_another = exi.encode(iso2.SCHEMA, response.data.signed(nobody, ISO2).response(bytes(8)))
    other = exi.encode(iso2.SCHEMA, replace(response.data, emaid=new_emaid()).response(bytes(8)))
    no_certificate = exi.encode(
        iso2.SCHEMA, replace(response.data, provisioning_chain=(b"\x30\x00",)).response(bytes(8))
    )
    not_it = exi.encode(
        iso2.SCHEMA,
        iso2.V2G_Message(
            Header=iso2.MessageHeader(SessionID=bytes(8)),
            Body=iso2.Body(iso2.ServiceDiscoveryReq()),
        ),
    )
    for message, status, code in (
        (b"\xff" * 40, 400, "wrong_exi"),
        (raw[:-9], 400, "wrong_exi"),
        (not_it, 400, "wrong_message"),
        (unsigned, 422, "not_signed"),
        (by_another, 422, "not_signed"),
        (other, 422, "not_signed"),
        (no_certificate, 422, "not_a_certificate"),
    ):
        body = {**good, "message": b64(message)}
        assert refused(world, STORE, body) == (status, code)
    assert refused(world, STORE, {**good, "message": "?"}) == (400, "not_base64")
    assert refused(world, STORE, {**good, "emaid": new_emaid()}) == (422, "other_emaid")
    pcid = world.car()["pcid"]
    assert refused(world, STORE, {**good, "pcid": pcid}) == (409, "emaid_taken")
    foreign = ("contract-pool", "DELETE", f"/contracts/{new_emaid()}")
    assert refused(world, foreign, None) == (404, "unknown_emaid")


INSTALL = ("contract-pool", "POST", "/installations")


def test_installation_requests(world: World, contract: dict[str, Any]) -> None:
    """What is no message gets a 4xx; a message gets an answer for the car, good or not."""
    garage = world.service("garage")
    car = world.run(garage._car(contract["pcid"]))
    roots = [RootId.of(root) for root in car.v2g_roots]
    good = exi.encode(iso2.SCHEMA, build_request(bytes(8), car.chain[0], roots, car.key))
    not_it = exi.encode(
        iso2.SCHEMA,
        iso2.V2G_Message(
            Header=iso2.MessageHeader(SessionID=bytes(8)),
            Body=iso2.Body(iso2.SessionSetupReq(EVCCID=bytes(6))),
        ),
    )
    for call in (INSTALL, ("plugpark", "POST", "/installations")):
        for text, status, code in (
            ("?", 400, "not_base64"),
            ("", 400, "empty"),
            (b64(b"\xff" * 50), 400, "wrong_exi"),
            (b64(good[:-9]), 400, "wrong_exi"),
            (b64(not_it), 400, "wrong_message"),
            ("A" * 40_000, 422, "wrong_shape"),
        ):
            body = {"certificate_installation_req": text}
            assert refused(world, call, body) == (status, code), text[:50]

    def code(request: iso2.V2G_Message) -> str:
        body = {"certificate_installation_req": b64(exi.encode(iso2.SCHEMA, request))}
        said = world.ok(*INSTALL, body)
        answer = read_response(base64.b64decode(said["certificate_installation_res"]))
        assert answer.code.value == said["code"]
        assert bool(said["reason"]) == (said["code"] != "OK")
        return str(said["code"])

    assert code(build_request(bytes(8), car.chain[0], roots, car.key)) == "OK"
    stranger = SoftwareKey.generate(ISO2)
    with world.unchanged():
        spoiled = build_request(bytes(8), car.chain[0], roots, stranger)
        assert code(spoiled) == "FAILED_SignatureError"
        # A self-made certificate with this car's PCID: its holder is not the car.
        encoded, key = made(car.pcid)
        fake = read_certificate(encoded, "fake")
        holder = SoftwareKey.from_pkcs8(
            key.private_bytes(
                serialization.Encoding.DER,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        assert code(build_request(bytes(8), fake, roots, holder)) == "FAILED_CertChainError"
    empty = world.run(garage._car(world.car()["pcid"]))
    with world.unchanged():
        request = build_request(bytes(8), empty.chain[0], roots, empty.key)
        assert code(request) == "FAILED_NoCertificateAvailable"
    world.ok("provisioning-pool", "DELETE", f"/provisioning-certificates/{empty.pcid}")
    with world.unchanged():
        assert code(request) == "FAILED_CertChainError"


# ------------------------------------------------------------ chargers and money


def test_a_charger_of_another_operator(world: World) -> None:
    """Its EVSEID, its client, its certificate: none of them is this operator's."""
    key = SoftwareKey.generate(ISO2)
    csr = b64(certificate_request(Subject(common_name="DE*XYZ*E0001"), key))
    certify = ("plugpark", "POST", "/charger-certificates")
    body = {"evse_id": "DE*XYZ*E0001", "csr": csr}
    assert refused(world, certify, body) == (422, "foreign_evse")
    body = {"evse_id": "DE*PLG*E0001*1", "csr": csr}
    assert refused(world, certify, body, client="charger-1")[0] in (403, 422, 502)
    body = {"role": "secc", "csr": csr}
    direct = ("v2g-root", "POST", "/certificates")
    assert refused(world, direct, body, client="plugpark") == (403, "not_yours")
    may = ("plugpark", "POST", "/authorizations")
    asked = {"emaid": new_emaid(), "certificate_fingerprint": "0" * 64}
    assert refused(world, may, {**asked, "evse_id": "DE*XYZ*E0001"}) == (422, "foreign_evse")
    assert refused(world, may, {**asked, "evse_id": "garbage"}) == (422, "not_an_evseid")
    assert refused(world, may, {"emaid": new_emaid(), "evse_id": "x"}) == (422, "wrong_shape")
    tariff = {"id": "t", "currency": "EUR", "per_kwh": "0.49", "per_session": "0.35"}
    body = {"emaid": new_emaid(), "evse_id": "DE*XYZ*E0001", "tariff": tariff}
    ask = ("sunmile", "POST", "/authorizations")
    assert refused(world, ask, body, client="plugpark") == (403, "not_yours")


def test_sessions_that_are_none(world: World) -> None:
    body = {
        "evse_id": "DE*PLG*E0001*1",
        "session_id": "00",
        "emaid": new_emaid(),
        "authorization_reference": "x",
        "meter_start_wh": 100,
    }
    start = ("plugpark", "POST", "/sessions")
    for changed, status, code in (
        ({"evse_id": "DE*XYZ*E1"}, 422, "foreign_evse"),
        ({"emaid": "X"}, 422, "not_an_emaid"),
        ({"emaid": new_emaid("XYZ")}, 422, "unknown_operator"),
        ({"session_id": "zz"}, 422, "wrong_shape"),
        ({"meter_start_wh": 10**13}, 422, "wrong_shape"),
    ):
        assert refused(world, start, {**body, **changed}) == (status, code), changed
    session = world.ok(*start, body, client="charger-1")
    stop = ("plugpark", "POST", f"/sessions/{session['id']}/stop")
    backwards = {"meter_stop_wh": 99, "receipts": []}
    assert refused(world, stop, backwards, client="charger-1") == (422, "meter_backwards")
    # Of another charger: it has no such session.
    assert refused(world, stop, {**backwards, "meter_stop_wh": 100}) == (404, "unknown_session")
    junk = {"meter_stop_wh": 100, "receipts": ["?"]}
    assert refused(world, stop, junk, client="charger-1") == (400, "not_base64")
    # Ended under an authorization that nobody gave: disputed, and not sent again.
    ended = world.ok(*stop, {"meter_stop_wh": 100, "receipts": []}, client="charger-1")
    assert ended["status"] == "disputed"
    with world.unchanged():
        again = world.ok(*stop, {"meter_stop_wh": 900, "receipts": []}, client="charger-1")
    assert again == ended


@pytest.fixture
def session(world: World) -> dict[str, Any]:
    """A session that was charged and settled, as its operator and the mobility operator know it."""
    car = world.car()
    contract = world.contract(car["pcid"])
    assert world.charge(car["pcid"], 1000)["outcome"] == "charged"
    rows = world.run(world.service("plugpark").sessions())
    row = next(one for one in rows if one.emaid == contract["emaid"])
    assert row.status == "settled"
    tariff = {"id": "t", "currency": "EUR", "per_kwh": "0.49", "per_session": "0.35"}
    owner = world.run(world.service("garage")._car(car["pcid"]))
    return {
        "contract": contract,
        "receipts": lambda session_id, *readings: world.receipts(owner, session_id, *readings),
        "tariff": tariff,
        "cdr": {
            "id": row.id,
            "authorization_reference": row.authorization,
            "emaid": row.emaid,
            "evse_id": row.evse_id,
            "session_id": row.session_id,
            "started_at": row.started_at.isoformat(),
            "ended_at": row.ended_at.isoformat(),
            "meter_start_wh": row.meter_start_wh,
            "meter_stop_wh": row.meter_stop_wh,
            "currency": "EUR",
            "total_cost": f"{row.cost_cents / 100:.2f}",
            "receipts": row.receipts,
        },
    }


CDRS = ("sunmile", "POST", "/cdrs")


def authorization(world: World, session: dict[str, Any], **changed: Any) -> str:
    body = {
        "emaid": session["contract"]["emaid"],
        "evse_id": "DE*PLG*E0001*1",
        "tariff": session["tariff"],
        **changed,
    }
    said = world.ok("sunmile", "POST", "/authorizations", body, client="plugpark")
    assert said["allowed"] == "ALLOWED"
    return str(said["authorization_reference"])


def test_a_record_twice(world: World, session: dict[str, Any]) -> None:
    """The same one again is answered again; another one in its place is refused."""
    cdr = session["cdr"]
    as_cpo = {"client": "plugpark"}
    with world.unchanged():
        assert world.ok(*CDRS, cdr, **as_cpo)["status"] == "settled"
    for changed, status, code in (
        ({"total_cost": "0.01"}, 409, "cdr_taken"),
        ({"id": "another"}, 409, "already_settled"),
        ({"id": "another", "authorization_reference": "x"}, 404, "unknown_authorization"),
    ):
        assert refused(world, CDRS, {**cdr, **changed}, **as_cpo) == (status, code), changed
    # A new authorization does not make an old session new.
    again = {**cdr, "id": "another", "authorization_reference": authorization(world, session)}
    assert refused(world, CDRS, again, **as_cpo) == (409, "already_settled")
    # Somebody else's authorization is none.
    elsewhere = {**cdr, "session_id": "01"}
    assert refused(world, CDRS, elsewhere) == (404, "unknown_authorization")


# What is wrong with a record: changes to a good one, and a word of the objection.
DISPUTED: dict[str, tuple[Callable[[dict[str, Any], bytes], dict[str, Any]], str]] = {
    "more than the tariff makes": (lambda s, i: {"total_cost": "1.00"}, "tariff makes"),
    "less than the tariff makes": (lambda s, i: {"total_cost": "0.00"}, "tariff makes"),
    "another currency": (lambda s, i: {"currency": "CHF"}, "CHF"),
    "another charging point": (lambda s, i: {"evse_id": "DE*PLG*E0002"}, "E0002"),
    "no receipt": (lambda s, i: {"receipts": []}, "no receipt"),
    "a receipt that is none": (lambda s, i: {"receipts": ["AAAA"]}, "not an EXI message"),
    "of another session": (lambda s, i: {"receipts": s["cdr"]["receipts"]}, "is of session"),
    "fewer readings": (lambda s, i: {"receipts": s["receipts"](i, 0)}, "vouch for"),
    "more energy": (
        lambda s, i: {"meter_stop_wh": 2000, "total_cost": "1.33"},
        "vouch for 0 to 1000",
    ),
    "backwards": (lambda s, i: {"meter_start_wh": 2000}, "backwards"),
    "ended before it began": (lambda s, i: {"ended_at": "2020-01-01T00:00:00Z"}, "before it began"),
}


def test_records_that_are_disputed(world: World, session: dict[str, Any]) -> None:
    """Kept with the reason, and nothing is booked; the good one beside them is settled."""

    def send(changed: Callable[[dict[str, Any], bytes], dict[str, Any]]) -> dict[str, Any]:
        session_id = secrets.token_bytes(8)
        record = {
            **session["cdr"],
            "id": secrets.token_hex(8),
            "authorization_reference": authorization(world, session),
            "session_id": session_id.hex(),
            "meter_start_wh": 0,
            "meter_stop_wh": 1000,
            "total_cost": "0.84",
            "receipts": session["receipts"](session_id, 0, 1000),
        }
        state: dict[str, Any] = world.ok(
            *CDRS, {**record, **changed(session, session_id)}, client="plugpark"
        )
        return state

    before = world.ok("sunmile", "GET", "/ledger")
    for name, (changed, word) in DISPUTED.items():
        said = send(changed)
        assert said["status"] == "disputed", name
        assert word in said["reason"], name
    assert world.ok("sunmile", "GET", "/ledger") == before
    assert send(lambda s, i: {})["status"] == "settled"
    after = world.ok("sunmile", "GET", "/ledger")
    assert after["total_cents"] == 0
    assert after["accounts"]["cpo:plugpark"] == before["accounts"]["cpo:plugpark"] - 84


def test_a_receipt_by_another_contract(world: World, session: dict[str, Any]) -> None:
    stranger = world.car()
    world.contract(stranger["pcid"])
    assert world.charge(stranger["pcid"], 100)["outcome"] == "charged"
    other = world.run(world.service("garage")._car(stranger["pcid"]))
    session_id = secrets.token_bytes(8)
    record = {
        **session["cdr"],
        "id": secrets.token_hex(8),
        "authorization_reference": authorization(world, session),
        "session_id": session_id.hex(),
        "meter_start_wh": 0,
        "meter_stop_wh": 1000,
        "total_cost": "0.84",
        "receipts": world.receipts(other, session_id, 0, 1000),
    }
    said = world.ok(*CDRS, record, client="plugpark")
    assert (said["status"], "signature" in said["reason"]) == ("disputed", True)


def test_what_the_mobility_operator_says_no_to(world: World) -> None:
    """Each refusal of an authorization, in its words and in the cable's; the contract is good."""
    car = world.car()
    driver = world.driver()
    contract = world.contract(car["pcid"], driver)
    block = ("sunmile", "PUT", f"/drivers/{driver}/blocked")
    world.ok(*block, {"blocked": True})
    outcome = world.charge(car["pcid"], 100)
    assert (outcome["outcome"], outcome["stage"], outcome["code"]) == (
        "refused",
        "AuthorizationReq",
        "FAILED",
    )
    world.ok(*block, {"blocked": False})
    assert world.charge(car["pcid"], 100)["outcome"] == "charged"
    assert refused(world, ("sunmile", "PUT", "/drivers/D0/blocked"), {"blocked": True}) == (
        404,
        "unknown_driver",
    )
    world.ok("sunmile", "POST", f"/contracts/{contract['emaid']}/cancel")
    outcome = world.charge(car["pcid"], 100)
    assert (outcome["outcome"], outcome["code"]) == ("refused", "FAILED_ContractCanceled")


def test_visits_that_cannot_be(world: World, car: dict[str, Any]) -> None:
    call = ("garage", "POST", f"/vehicles/{car['pcid']}/charge")
    assert refused(world, call, {"charger": "nobody"}) == (422, "unknown_charger")
    assert refused(world, call, {"charger": "sunmile"}) == (422, "not_a_charger")
    assert refused(world, call, {"charger": "charger-1", "energy_wh": -1})[1] == "wrong_shape"
    call = ("garage", "POST", "/vehicles/NOBODY/charge")
    assert refused(world, call, {"charger": "charger-1"}) == (404, "unknown_pcid")
    assert refused(world, ("charger-1", "POST", "/plugs"), {"evccid": "0g"})[1] == "wrong_shape"


def test_a_car_without_a_contract(world: World) -> None:
    car = world.car()
    outcome = world.charge(car["pcid"], 100)
    assert (outcome["outcome"], outcome["code"]) == ("refused", "FAILED_NoCertificateAvailable")
    outcome = world.charge(car["pcid"], 100, installation="never")
    assert (outcome["outcome"], outcome["code"]) == ("refused", "refused by the car")


def test_an_end_within_this_second(world: World, car: dict[str, Any]) -> None:
    """Certificates know whole seconds: one that would end as it begins is refused."""
    driver, contracts = world.driver(), world.service("sunmile").contracts
    ends = world.party("sunmile").clock.now().replace(microsecond=999_999)
    with world.unchanged("sunmile"), pytest.raises(Refusal) as refusal:
        world.run(contracts.sign(driver, car["pcid"], new_emaid(), ends))
    assert refusal.value.code == "ends_in_the_past"


@pytest.mark.parametrize("name", ["Ada\u202eDriver", "Ada\x00", "Ada\nDriver"])
def test_names_that_cannot_be_shown(world: World, name: str) -> None:
    body = {"name": name, "deposit": "1.00"}
    assert refused(world, ("sunmile", "POST", "/drivers"), body)[0] in (400, 422)
