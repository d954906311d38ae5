"""Bringing one's own: roots, sub-CAs, parties, cars, keys and requests; and what is refused."""

from __future__ import annotations

import base64
import json
import sqlite3
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from typer.testing import CliRunner

from pki.edition import ISO2
from pki.issuing import Authority, issue, self_issue
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.profiles import Role, profile
from scenarios.cli.app import app
from scenarios.lab import LabError
from services.common.auth import BROUGHT_REUSE
from services.common.certificates import b64, b64_chain, der_of, fingerprint
from services.common.material import MaterialError, read_material
from services.ecosystem import EcosystemError, default_text, from_text, load, to_document
from v2g import exi
from v2g.certificate_installation import RootId, build_request, read_response
from v2g.messages import iso2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import World
    from cryptography import x509

PCID = "WXY0123456789ABCD"


@dataclass
class Hierarchy:
    """A maker's root, sub-CAs and a car, made elsewhere, with their keys."""

    root: Authority
    sub1: Authority
    sub2: Authority
    car: Authority

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        return tuple(one.certificate for one in (self.car, self.sub2, self.sub1))


def key_of(authority: Authority) -> SoftwareKey:
    assert isinstance(authority.signer, SoftwareKey)
    return authority.signer


_serials = iter(range(1, 10_000))


def made(
    role: Role,
    name: str,
    above: Authority | None,
    now: datetime,
    days: int,
    ocsp_url: str | None = None,
) -> Authority:
    rules = profile(role, ISO2)
    domain = rules.domain_component.value
    values: dict[str, Any] = {
        "subject": Subject(
            common_name=name,
            organization="Elsewhere",
            country="DE",
            domain_components=(domain,) if domain else (),
        ),
        "not_before": now - timedelta(days=1),
        "not_after": now + timedelta(days=days),
        "serial": next(_serials),
    }
    key = SoftwareKey.generate(ISO2)
    if above is None:
        return Authority(self_issue(rules, signer=key, **values), key)
    certificate = issue(
        rules, public_key=key.public_key, authority=above, ocsp_url=ocsp_url, crl_url=None, **values
    )
    return Authority(certificate, key)


def hierarchy(now: datetime, pcid: str = PCID) -> Hierarchy:
    now = now.replace(microsecond=0)
    root = made(Role.OEM_ROOT, "Elsewhere OEM Root", None, now, 4000)
    sub1 = made(Role.OEM_SUB1, "Elsewhere OEM Sub 1", root, now, 2000)
    sub2 = made(Role.OEM_SUB2, "Elsewhere OEM Sub 2", sub1, now, 1000)
    return Hierarchy(root, sub1, sub2, made(Role.OEM_PROVISIONING, pcid, sub2, now, 500))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[World]:
    """An ecosystem of its own: what is brought stays."""
    folder = tmp_path_factory.mktemp("bring")
    with serve(load(data=folder / "data").on_free_ports()) as found:
        (folder / "ecosystem.toml").write_text(to_document(found.ecosystem))
        found.file = folder / "ecosystem.toml"
        yield found


@pytest.fixture(scope="module")
def elsewhere(own: World) -> Hierarchy:
    return hierarchy(own.party("v2g-root").clock.now())


def pnclab(own: Any, *arguments: object) -> Any:
    """Run the command on the running ecosystem; its JSON."""
    words = [str(one) for one in arguments] + ["-e", str(own.file), "--json"]
    result = CliRunner().invoke(app, words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


def write(folder: Path, name: str, *parts: bytes | str) -> Path:
    file = folder / name
    file.write_bytes(b"".join(one.encode() if isinstance(one, str) else one for one in parts))
    return file


def pem_of(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


# ------------------------------------------------------------------------- the reader


def forms(
    car: Authority, chain: tuple[x509.Certificate, ...]
) -> dict[str, tuple[bytes, bytes | None]]:
    """One certificate with its chain, and its key, in all forms: bytes and password."""
    key = key_of(car)
    private = key._private
    box = serialize_key_and_certificates(
        b"car", private, chain[0], chain[1:], BestAvailableEncryption(b"secret")
    )
    plain = serialize_key_and_certificates(b"car", private, chain[0], chain[1:], NoEncryption())
    return {
        "PEM": (pem_of(*chain) + key.pem().encode(), None),
        "PEM, another order": (key.pem().encode() + pem_of(*reversed(chain)), None),
        "PEM with words around it": (
            b"Subject: a car\r\n"
            + pem_of(*chain).replace(b"\n", b"\r\n")
            + b"\nbye\n"
            + key.pem().encode(),
            None,
        ),
        "PEM, SEC1": (
            pem_of(*chain)
            + private.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
            None,
        ),
        "PEM, encrypted": (pem_of(*chain) + key.pem(b"secret").encode(), b"secret"),
        "PKCS#12": (box, b"secret"),
        "PKCS#12, base64": (base64.encodebytes(box), b"secret"),
        "PKCS#12 without a password": (plain, None),
    }


def test_one_reader_for_all_forms(elsewhere: Hierarchy) -> None:
    for name, (raw, password) in forms(elsewhere.car, elsewhere.chain).items():
        found = read_material(raw, "a file", password)
        assert found.certificates == elsewhere.chain, name
        (key,) = found.keys
        assert key.public_key == key_of(elsewhere.car).public_key, name
    leaf = elsewhere.car.certificate
    for raw in (der_of(leaf), base64.b64encode(der_of(leaf)), pem_of(leaf, leaf)):
        assert read_material(raw, "a file").certificates == (leaf,)
    for raw in (key_of(elsewhere.car).pkcs8(), base64.b64encode(key_of(elsewhere.car).pkcs8())):
        assert read_material(raw, "a file").keys[0].scalar() == key_of(elsewhere.car).scalar()


def hostile() -> dict[str, tuple[bytes, bytes | None, str]]:
    rsa_key = rsa.generate_private_key(65537, 2048)
    odd = ec.generate_private_key(ec.SECP192R1())
    pkcs8 = (Encoding.PEM, PrivateFormat.PKCS8)
    good = SoftwareKey.generate(ISO2)
    return {
        "nothing": (b" \n", None, "is empty"),
        "text": (b"hello", None, "neither PEM nor DER"),
        "NUL bytes": (bytes(99), None, "neither PEM nor DER"),
        "JSON": (b"{}", None, "neither PEM nor DER"),
        "a DER of something": (b"\x30\x03\x02\x01\x05", None, "no X.509 certificate"),
        "cut off": (b"\x30\x82\x01\x00\x02", None, "no X.509 certificate"),
        "too long": (b"A" * 300_000, None, "too many"),
        "a block that does not end": (b"-----BEGIN CERTIFICATE-----\nAAAA", None, "does not end"),
        "an empty block": (
            b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            None,
            "cannot be read",
        ),
        "a request": (
            b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
            None,
            "'CERTIFICATE REQUEST'",
        ),
        "RSA": (rsa_key.private_bytes(*pkcs8, NoEncryption()), None, "RSAPrivateKey"),
        "Ed25519": (
            ed25519.Ed25519PrivateKey.generate().private_bytes(*pkcs8, NoEncryption()),
            None,
            "Ed25519PrivateKey",
        ),
        "another curve": (odd.private_bytes(*pkcs8, NoEncryption()), None, "secp192r1"),
        "no password": (good.pem(b"secret").encode(), None, "no password was given"),
        "another password": (good.pem(b"secret").encode(), b"other", "does not open"),
        "a PKCS#12 and another password": (
            serialize_key_and_certificates(
                b"x", good._private, None, None, BestAvailableEncryption(b"secret")
            ),
            b"other",
            "does not open",
        ),
    }


@pytest.mark.parametrize("name", hostile())
def test_what_cannot_be_read_is_said_by_name(name: str) -> None:
    raw, password, words = hostile()[name]
    with pytest.raises(MaterialError) as error:
        read_material(raw, "their-file.pem", password)
    assert str(error.value).startswith("their-file.pem: ")
    assert words in str(error.value), str(error.value)
    assert "secret" not in str(error.value)


# ------------------------------------------------------------------- over a running one


def test_a_car_of_a_maker_elsewhere_charges(
    own: World, elsewhere: Hierarchy, tmp_path: Path
) -> None:
    """A root, a party, a car with its key; then a contract and a visit, as for any other."""
    own.ok("root-pool", "GET", "/roots")
    root = write(tmp_path, "root.der", der_of(elsewhere.root.certificate))
    car = write(tmp_path, "car.p12", forms(elsewhere.car, elsewhere.chain)["PKCS#12"][0])
    # Before its root is known, nobody takes it.
    unchanged = own.unchanged("provisioning-pool", "garage")
    with unchanged, pytest.raises(LabError, match="chain_refused"):
        pnclab(own, "bring", "car", car, "--password", "secret")
    (published,) = pnclab(own, "bring", "root", root, "--type", "OEM")
    assert published["fingerprint"] == fingerprint(elsewhere.root.certificate)
    client = pnclab(own, "bring", "party", "elsewhere", "--kind", "oem", "--wmi", "WXY")
    again = pnclab(own, "bring", "party", "elsewhere", "--kind", "oem", "--wmi", "WXY")
    assert client == again
    found = pnclab(own, "bring", "car", car, "--password", "secret")
    assert found == {"pcid": PCID, "garage": "garage"}
    assert pnclab(own, "bring", "car", car, "--password", "secret") == found
    own.contract(PCID)
    outcome = own.charge(PCID)
    assert (outcome["outcome"], outcome["installed"]) == ("charged", True), outcome
    # Its maker speaks for its cars, at the pool for instance, and for no others.
    for party in own.ecosystem.parties:
        token = own.ok(
            party,
            "POST",
            "/oauth/token",
            {"grant_type": "client_credentials", **{k: client[k] for k in CREDENTIALS}},
            client=None,
        )
        own._tokens[party, "elsewhere"] = token["access_token"]
    path = f"/provisioning-certificates/{PCID}"
    assert own.call("provisioning-pool", "GET", path, client="elsewhere").is_success
    other = own.car()["pcid"]
    path = f"/provisioning-certificates/{other}"
    answer = own.call("provisioning-pool", "DELETE", path, client="elsewhere")
    assert (answer.status_code, answer.json()["code"]) == (403, "not_yours")


CREDENTIALS = ("client_id", "client_secret")


def test_a_car_without_its_key_is_only_registered(
    own: World, elsewhere: Hierarchy, tmp_path: Path
) -> None:
    own.ok("root-pool", "GET", "/roots")
    body = {"type": "OEM", "certificate": b64(der_of(elsewhere.root.certificate))}
    own.ok("root-pool", "POST", "/roots", body)
    now = own.party("v2g-root").clock.now().replace(microsecond=0)
    car = made(Role.OEM_PROVISIONING, "WXY0123456789ABCE", elsewhere.sub2, now, 100)
    file = write(tmp_path, "car.pem", pem_of(car.certificate, *elsewhere.chain[1:]))
    found = pnclab(own, "bring", "car", file)
    assert found == {"pcid": "WXY0123456789ABCE", "garage": None}
    assert "WXY0123456789ABCE" not in own.ok("garage", "GET", "/vehicles")
    # A leaf alone is completed by sub-CAs that somebody brought.
    lone = made(Role.OEM_PROVISIONING, "WXY0123456789ABCF", elsewhere.sub2, now, 100)
    alone = write(tmp_path, "lone.pem", pem_of(lone.certificate))
    with pytest.raises(LabError, match="chain_refused"):
        pnclab(own, "bring", "car", alone)
    subs = write(tmp_path, "subs.pem", pem_of(*elsewhere.chain[1:]))
    known_to = pnclab(own, "bring", "sub-ca", subs)["known_to"]
    assert {"provisioning-pool", "contract-pool", "plugpark", "charger-1"} <= set(known_to)
    assert pnclab(own, "bring", "sub-ca", subs) == {"known_to": []}
    assert pnclab(own, "bring", "car", alone)["pcid"] == "WXY0123456789ABCF"
    entry = own.ok("provisioning-pool", "GET", "/provisioning-certificates/WXY0123456789ABCF")
    assert entry["issuers"] == b64_chain(elsewhere.chain[1:])
    own.contract("WXY0123456789ABCF")


def test_a_key_of_ones_own(own: World, tmp_path: Path) -> None:
    key = SoftwareKey.generate(ISO2)
    file = write(tmp_path, "key.pem", key.pem(b"opens it"))
    found = pnclab(own, "bring", "key", file, "--password", "opens it", "--oem", "terra-motors")
    assert found["pcid"].startswith("WTM")
    held = own.run(own.service("garage")._car(found["pcid"])).key
    assert held.public_key == key.public_key
    again = pnclab(own, "bring", "key", file, "--password", "opens it", "--oem", "terra-motors")
    assert again == found
    body = {"private_key": key.pem(), "pcid": "WTM0123456789ABCD"}
    with own.unchanged("garage", "terra-motors"):
        answer = own.call("garage", "POST", "/vehicles/import", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "key_taken")


def test_cars_that_do_not_hold_together(own: World, elsewhere: Hierarchy) -> None:
    key, chain = key_of(elsewhere.car).pem(), b64_chain(elsewhere.chain)
    stranger = SoftwareKey.generate(ISO2).pem()
    other_curve = ec.generate_private_key(ec.SECP521R1())
    p521 = SoftwareKey(other_curve).pem()
    wrong = made(Role.OEM_PROVISIONING, PCID, elsewhere.sub2, own.party("garage").clock.now(), 100)
    for body, code in (
        ({"certificates": chain, "private_key": stranger}, "wrong_key"),
        ({"certificates": chain, "private_key": p521}, "wrong_key"),
        ({"certificates": chain, "private_key": key + stranger}, "wrong_key"),
        ({"certificates": chain, "private_key": pem_of(wrong.certificate).decode()}, "wrong_key"),
        ({"certificates": [chain[0], chain[2]], "private_key": key}, "wrong_chain"),
        ({"certificates": [*chain, key], "private_key": key}, "key_in_certificates"),
        ({"certificates": ["AAAA"], "private_key": key}, "not_readable"),
        ({"private_key": "hello"}, "not_readable"),
        ({"private_key": key_of(elsewhere.car).pem(b"secret")}, "not_readable"),
        (
            {
                "certificates": b64_chain([elsewhere.sub2.certificate]),
                "private_key": key_of(elsewhere.sub2).pem(),
            },
            "not_a_pcid",
        ),
    ):
        with own.unchanged("garage"):
            answer = own.call("garage", "POST", "/vehicles/import", body)
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    # The twin; then another certificate under the same PCID.
    good = {"certificates": chain, "private_key": key}
    assert own.call("garage", "POST", "/vehicles/import", good).is_success
    body = {"certificates": b64_chain([wrong.certificate]), "private_key": key_of(wrong).pem()}
    with own.unchanged("garage"):
        answer = own.call("garage", "POST", "/vehicles/import", body)
    assert (answer.status_code, answer.json()["code"]) == (409, "pcid_taken")


# -------------------------------------------------------------------------- authorities


def test_an_operator_issues_below_a_sub_ca_that_was_brought(own: World, tmp_path: Path) -> None:
    """A root and its sub-CAs, that say that sunmile answers for them (OCSP)."""
    now = own.party("sunmile").clock.now().replace(microsecond=0)
    url = f"{own.url('sunmile')}/ocsp"
    root = made(Role.MO_ROOT, "Brought MO Root", None, now, 4000)
    sub1 = made(Role.MO_SUB1, "Brought MO Sub 1", root, now, 2000, url)
    sub2 = made(Role.MO_SUB2, "Brought MO Sub 2", sub1, now, 1000, url)
    files = {
        name: write(tmp_path, f"{name}.pem", pem_of(one.certificate), key_of(one).pem(b"x"))
        for name, one in (("sub1", sub1), ("sub2", sub2))
    }
    sub = ("--party", "sunmile", "--password", "x", "--role")
    # In the wrong order nothing comes in.
    for name, role, words in (
        ("sub2", "mo-sub2", "chain_refused"),
        ("sub1", "mo-sub2", "chain_refused"),
        ("sub1", "mo-sub1", "chain_refused"),
        ("sub1", "oem-sub1", "no_such_authority"),
        ("sub1", "king", "no_such_authority"),
    ):
        with own.unchanged("sunmile"), pytest.raises(LabError, match=words):
            pnclab(own, "bring", "sub-ca", files[name], *sub, role)
    file = write(tmp_path, "root.pem", pem_of(root.certificate), key_of(root).pem())
    pnclab(own, "bring", "sub-ca", file, "--party", "sunmile", "--role", "mo-root")
    found = pnclab(own, "bring", "sub-ca", files["sub1"], *sub, "mo-sub1")
    assert found["authority"]["fingerprint"] == fingerprint(sub1.certificate)
    assert [one["role"] for one in found["below"]] == ["mo-sub2"]
    found = pnclab(own, "bring", "sub-ca", files["sub2"], *sub, "mo-sub2")
    assert found["below"] == []
    again = pnclab(own, "bring", "sub-ca", files["sub2"], *sub, "mo-sub2")
    assert again["authority"] == found["authority"]
    # A contract below it, and a car that charges with it: the charger's operator asks sunmile's
    # responder about it, which answers for the CA that was brought.
    pcid = own.car()["pcid"]
    contract = own.contract(pcid)
    issued = own.ok("sunmile", "GET", "/certificates?role=contract")[-1]
    assert issued["issuer"].startswith("CN=Brought MO Sub 2")
    outcome = own.charge(pcid)
    assert outcome["outcome"] == "charged", outcome
    assert outcome["emaid"] == contract["emaid"]
    # The key never comes back out, and lies sealed.
    scalar = key_of(sub2).scalar()
    for row in sqlite3.connect(own.database("sunmile")).iterdump():
        assert scalar.hex() not in row.lower()
        assert "PRIVATE KEY" not in row
    told = own.ok("sunmile", "GET", "/events?limit=1000")
    assert "PRIVATE KEY" not in json.dumps(told)


def test_a_root_whose_key_stays_elsewhere(own: World) -> None:
    """A maker issues below a sub-CA of a root of which it has the certificate only."""
    now = own.party("terra-motors").clock.now().replace(microsecond=0)
    root = made(Role.OEM_ROOT, "Offline root", None, now, 4000)
    sub1 = made(Role.OEM_SUB1, "Sub-CA of the offline root", root, now, 2000)
    path = "/authorities/import"
    body = {"role": "oem-root", "certificates": b64_chain([root.certificate])}
    found = own.ok("terra-motors", "POST", path, body)
    assert (found["authority"]["key"], found["below"]) == ("lost", [])
    body = {
        "role": "oem-sub1",
        "certificates": b64_chain([sub1.certificate]),
        "private_key": key_of(sub1).pem(),
    }
    found = own.ok("terra-motors", "POST", path, body)
    assert found["authority"]["key"] == "held"
    car = own.ok("garage", "POST", "/vehicles", {"oem": "terra-motors"})
    own.contract(car["pcid"])
    assert own.charge(car["pcid"])["outcome"] == "charged"
    answer = own.call("terra-motors", "POST", "/authorities/oem-sub1/rollover", {})
    assert (answer.status_code, answer.json()["code"]) == (503, "key_lost")


def test_authorities_that_are_refused(own: World) -> None:
    now = own.party("nova-cars").clock.now().replace(microsecond=0)
    root = made(Role.OEM_ROOT, "Another root", None, now, 4000)
    sub1 = made(Role.OEM_SUB1, "Another sub-CA", root, now, 2000)
    old = made(Role.OEM_ROOT, "An old root", None, now - timedelta(days=200), 100)
    good = {"certificates": b64_chain([root.certificate]), "private_key": key_of(root).pem()}
    stranger = SoftwareKey.generate(ISO2).pem()
    below = b64_chain([sub1.certificate])
    for body, code in (
        ({**good, "role": "oem-root", "private_key": stranger}, "wrong_key"),
        ({**good, "role": "oem-root", "private_key": good["private_key"] + stranger}, "many_keys"),
        ({**good, "role": "oem-root", "certificates": []}, "no_certificate"),
        ({**good, "role": "oem-sub1"}, "chain_refused"),
        ({"role": "oem-sub1", "certificates": below}, "no_key"),
        (
            {"role": "oem-sub1", "certificates": below, "private_key": key_of(sub1).pem()},
            "chain_refused",
        ),
        (
            {
                "role": "oem-root",
                "certificates": b64_chain([old.certificate]),
                "private_key": key_of(old).pem(),
            },
            "chain_refused",
        ),
        ({**good, "role": "oem-root", "private_key": "x"}, "not_readable"),
        ({**good, "role": "oem-root", "password": "x", "private_key": "AAAA"}, "not_readable"),
    ):
        with own.unchanged("nova-cars", "root-pool"):
            answer = own.call("nova-cars", "POST", "/authorities/import", body)
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    # The twin: the root with its key; then the maker's cars hang below it.
    found = own.ok("nova-cars", "POST", "/authorities/import", {**good, "role": "oem-root"})
    assert [one["role"] for one in found["below"]] == ["oem-sub1", "oem-sub2"]
    pcid = own.car()["pcid"]
    own.contract(pcid)
    assert own.charge(pcid)["outcome"] == "charged"
    with own.unchanged("nova-cars"):
        answer = own.call("nova-cars", "POST", "/authorities/import", {**good, "role": "oem-sub1"})
    assert (answer.status_code, answer.json()["code"]) == (409, "other_role")


def test_known_sub_cas(own: World, elsewhere: Hierarchy) -> None:
    for certificates, code in (
        ([], "no_certificate"),
        (b64_chain([elsewhere.car.certificate]), "not_a_ca"),
        (b64_chain([elsewhere.root.certificate]), "is_a_root"),
        (["AAAA"], "not_readable"),
        ([key_of(elsewhere.car).pem()], "key_in_certificates"),
    ):
        before = own.ok("plugpark", "GET", "/intermediates")
        answer = own.call("plugpark", "POST", "/intermediates", {"certificates": certificates})
        assert own.ok("plugpark", "GET", "/intermediates") == before
        assert (answer.status_code, answer.json()["code"]) == (422, code)
    body = {"certificates": b64_chain([elsewhere.sub2.certificate])}
    own.ok("plugpark", "POST", "/intermediates", body)
    mark = fingerprint(elsewhere.sub2.certificate)
    assert mark in {one["fingerprint"] for one in own.ok("plugpark", "GET", "/intermediates")}
    assert own.call("plugpark", "DELETE", f"/intermediates/{mark}").status_code == 204
    gone = own.call("plugpark", "DELETE", f"/intermediates/{mark}")
    assert (gone.status_code, gone.json()["code"]) == (404, "no_such_intermediate")


# ------------------------------------------------------------------------------ clients


def test_clients_that_are_refused(own: World) -> None:
    for body, status, code in (
        ({"id": "sunmile", "role": "mo"}, 409, "client_taken"),
        ({"id": "admin", "role": "admin"}, 409, "client_taken"),
        ({"id": "x", "role": "king"}, 422, "unknown_role"),
        ({"id": "x", "role": "oem", "scope_id": "WIO"}, 422, "not_a_wmi"),
        ({"id": "x", "role": "mo"}, 422, "scope_missing"),
        ({"id": "x", "role": "cps", "scope_id": "WXX"}, 422, "no_scope"),
        ({"id": "x", "role": "cps", "secret": "short"}, 422, "wrong_shape"),
        ({"id": "x\u202e", "role": "cps"}, 422, "wrong_shape"),
    ):
        with own.unchanged("plugpark"):
            answer = own.call("plugpark", "POST", "/clients", body)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
    body = {"id": "pool-2", "role": "ccp", "secret": "a-long-secret"}
    assert own.ok("plugpark", "POST", "/clients", body)["secret"] == "a-long-secret"
    other = own.call("plugpark", "POST", "/clients", {**body, "secret": "another-secret"})
    assert (other.status_code, other.json()["code"]) == (409, "client_taken")
    listed = own.ok("plugpark", "GET", "/clients")
    assert {"id": "pool-2", "role": "ccp", "scope_id": None, "brought": True} in listed
    assert "a-long-secret" not in json.dumps(listed)
    login = {
        "grant_type": "client_credentials",
        "client_id": "pool-2",
        "client_secret": "a-long-secret",
    }
    token = own.ok("plugpark", "POST", "/oauth/token", login, client=None)
    assert token["scope"] == "ccp"
    bearer = {"Authorization": f"Bearer {token['access_token']}"}
    as_client = {"client": None, "headers": bearer}
    # It is let in: what it may not do is another matter.
    assert own.call("plugpark", "GET", "/clients", **as_client).status_code == 403
    wrong = own.call(
        "plugpark", "POST", "/oauth/token", {**login, "client_secret": "x"}, client=None
    )
    assert wrong.status_code == 401
    assert own.call("plugpark", "DELETE", "/clients/pool-2").status_code == 204
    assert own.call("plugpark", "POST", "/oauth/token", login, client=None).status_code == 401
    assert own.call("plugpark", "DELETE", "/clients/pool-2").status_code == 404
    # Its tokens went with it; another client of that name does not bring them back.
    for _ in range(2):
        answer = own.call("plugpark", "GET", "/clients", **as_client)
        assert (answer.status_code, answer.json()["code"]) == (401, "client_gone")
        own.ok("plugpark", "POST", "/clients", {**body, "secret": "another-secret"})
    assert own.call("plugpark", "DELETE", "/clients/pool-2").status_code == 204


def test_another_worker_notices_that_a_client_has_gone(own: World) -> None:
    from services.common.errors import Refusal
    from services.serve import create_app

    other = create_app(own.ecosystem, "plugpark").state.party
    body = {"id": "pool-3", "role": "ccp", "secret": "a-long-secret"}
    own.ok("plugpark", "POST", "/clients", body)
    login = {"grant_type": "client_credentials", "client_id": "pool-3"}
    login["client_secret"] = "a-long-secret"
    token = own.ok("plugpark", "POST", "/oauth/token", login, client=None)["access_token"]

    async def admitted() -> str:
        return (await other.tokens.admit(token)).client

    assert own.run(admitted()) == "pool-3", "it came this very moment"
    own.ok("plugpark", "DELETE", "/clients/pool-3")
    time.sleep(BROUGHT_REUSE)
    with pytest.raises(Refusal, match="pool-3 is let in no more"):
        own.run(admitted())
    own.run(other.close())


# ------------------------------------------------------------------------------ requests


def golden(own: World, pcid: str, *, spoiled: bool = False) -> bytes:
    car = own.run(own.service("garage")._car(pcid))
    key = SoftwareKey.generate(ISO2) if spoiled else car.key
    roots = [RootId.of(root) for root in car.v2g_roots]
    return exi.encode(iso2.SCHEMA, build_request(bytes(8), car.chain[0], roots, key))


def test_a_golden_request_is_answered(own: World, tmp_path: Path) -> None:
    pcid = own.car()["pcid"]
    raw = golden(own, pcid)
    frame = b"\x01\xfe\x80\x01" + len(raw).to_bytes(4, "big") + raw
    for name, content in (
        ("plain.exi", raw),
        ("frame.bin", frame),
        ("hex.txt", raw.hex(" ").upper()),
        ("base64.txt", base64.encodebytes(frame)),
    ):
        found = pnclab(own, "bring", "request", write(tmp_path, name, content))
        assert found["missing"] == [], name
        assert found["request"]["pcid"] == pcid
        assert found["request"]["signature"] == "by the key of the provisioning certificate"
    out = tmp_path / "answer.exi"
    found = pnclab(
        own, "bring", "request", tmp_path / "hex.txt", "--contract", "gridpass", "--out", out
    )
    assert found["answer"]["code"] == "OK"
    assert found["answer"]["emaid"].startswith("NLGRD")
    response = read_response(out.read_bytes())
    assert response.data.emaid == found["answer"]["delivered_emaid"]
    assert found["answer"]["contract_chain"][0].startswith("CN=NLGRD")


def test_golden_requests_that_are_none(own: World, elsewhere: Hierarchy, tmp_path: Path) -> None:
    from services.common.problems import NotAsExpectedError, WrongUseError

    pcid = own.car()["pcid"]
    for name, content, words in (
        ("empty", b"", "neither EXI nor V2GTP"),
        ("words", b"hello", "neither EXI nor V2GTP"),
        ("cut", golden(own, pcid)[:200], "no ISO 15118-2 message"),
        ("long", bytes(70_000), "too many"),
    ):
        file = write(tmp_path, name, content)
        with own.unchanged(), pytest.raises(WrongUseError, match=words) as error:
            pnclab(own, "bring", "request", file)
        assert str(file) in str(error.value)
    with pytest.raises(WrongUseError, match="No such file"):
        pnclab(own, "bring", "request", tmp_path / "nowhere")
    file = write(tmp_path, "spoiled", golden(own, pcid, spoiled=True))
    with own.unchanged("sunmile"), pytest.raises(NotAsExpectedError, match="signature"):
        pnclab(own, "bring", "request", file, "--contract", "sunmile")
    # A car that nobody has registered: it is said, and nothing is issued.
    now = own.party("garage").clock.now()
    car = made(Role.OEM_PROVISIONING, "WXY0123456789ABCZ", elsewhere.sub2, now, 100)
    message = build_request(bytes(8), car.certificate, [RootId("CN=X", 1)], car.signer)
    file = write(tmp_path, "stranger", exi.encode(iso2.SCHEMA, message))
    with own.unchanged("sunmile"), pytest.raises(NotAsExpectedError, match="unknown_pcid"):
        pnclab(own, "bring", "request", file, "--contract", "sunmile")


# --------------------------------------------------------------------------- by the file


def test_the_ecosystem_file_brings(tmp_path: Path, serve: Any) -> None:
    from datetime import UTC

    mine = hierarchy(datetime.now(UTC))
    write(tmp_path, "root.pem", pem_of(mine.root.certificate))
    write(tmp_path, "car.pem", pem_of(*mine.chain))
    write(tmp_path, "car.key", key_of(mine.car).pem(b"pw"))
    write(tmp_path, "subs.pem", pem_of(*mine.chain[1:]))
    text = default_text() + BROUGHT
    file = write(tmp_path, "ecosystem.toml", text)
    ecosystem = load(file, data=tmp_path / "data").on_free_ports()
    # What other processes get says the same.
    copied = write(
        tmp_path / "data" if (tmp_path / "data").mkdir() else tmp_path,
        "copy.toml",
        to_document(ecosystem),
    )
    assert load(copied) == ecosystem
    for _start in range(2):
        with serve(ecosystem) as world:
            roots = {one["fingerprint"] for one in world.ok("root-pool", "GET", "/roots")}
            assert fingerprint(mine.root.certificate) in roots
            assert PCID in world.ok("garage", "GET", "/vehicles")
            assert world.ok("provisioning-pool", "GET", f"/provisioning-certificates/{PCID}")
            known = {one["party"] for one in world.ok("v2g-root", "GET", "/registrations")}
            assert "my-cars" in known
            assert world.token("sunmile", "my-cars")
            assert len(world.ok("plugpark", "GET", "/intermediates")) == 2


BROUGHT = """
[[bring]]
kind = "root"
type = "OEM"
file = "root.pem"

[[bring]]
kind = "sub-ca"
file = "subs.pem"

[[bring]]
kind = "party"
name = "my-cars"
role = "oem"
identifier = "WXY"

[[bring]]
kind = "car"
file = "car.pem"
key_file = "car.key"
password = "pw"
"""


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('kind = "rot"', "kind: 'rot' is none of root, sub-ca, party, car (did you mean root?)"),
        ('kind = "root"', "file: is missing"),
        ('kind = "root"\nfile = "nowhere.pem"\ntype = "OEM"', "nowhere.pem: No such file"),
        ('kind = "root"\nfile = "words.pem"\ntype = "OEM"', "words.pem: neither PEM nor DER"),
        ('kind = "root"\nfile = "key.pem"\ntype = "OEM"', "key.pem: no certificate is in it"),
        ('kind = "root"\nfile = "root.pem"\ntype = "BANK"', "type: 'BANK' is none of V2G"),
        ('kind = "root"\nfile = "root.pem"\ntyp = "OEM"', "typ: no such key (did you mean type?)"),
        (
            'kind = "car"\nfile = "root.pem"\nkey_file = "key.pem"',
            "key.pem: no key of these certificates",
        ),
        (
            'kind = "sub-ca"\nfile = "root.pem"\nkey_file = "root.key"\nparty = "plugpark"\n'
            'role = "mo-sub1"',
            "party: 'plugpark' has no CA",
        ),
        (
            'kind = "sub-ca"\nfile = "root.pem"\nkey_file = "root.key"\nparty = "sunmile"\n'
            'role = "contract"',
            "role: 'contract' is none of",
        ),
        ('kind = "party"\nname = "sunmile"\nrole = "mo"\nidentifier = "FRXXX"', "is a party of"),
        ('kind = "party"\nname = "x"\nrole = "mo"\nidentifier = "DESUN"', "belongs to sunmile"),
        ('kind = "party"\nname = "x"\nrole = "mo"\nidentifier = "DE"', "identifier: 'DE'"),
        ('kind = "party"\nname = "x"\nrole = "mo"', "identifier: is missing"),
        ('kind = "party"\nname = "x"\nrole = "cps"\nidentifier = "DE"', "a cps has none"),
        ('kind = "car"\nfile = "root.pem"\ngarage = "plugpark"', "'plugpark' is no vehicle party"),
    ],
)
def test_the_ecosystem_file_brings_what_is_not_right(
    tmp_path: Path, entry: str, words: str
) -> None:
    from datetime import UTC

    root = made(Role.OEM_ROOT, "A root", None, datetime.now(UTC).replace(microsecond=0), 100)
    write(tmp_path, "root.pem", pem_of(root.certificate))
    write(tmp_path, "root.key", key_of(root).pem())
    write(tmp_path, "key.pem", SoftwareKey.generate(ISO2).pem())
    write(tmp_path, "words.pem", "hello")
    text = f"{default_text()}\n[[bring]]\n{entry}\n"
    line = text.splitlines().index("[[bring]]") + 1
    with pytest.raises(EcosystemError) as error:
        from_text(text, "ecosystem.toml", folder=tmp_path)
    (problem,) = error.value.problems
    assert problem.startswith("ecosystem.toml:"), problem
    assert words in problem
    number = int(problem.split(":")[1])
    assert line <= number <= line + entry.count("\n") + 1
