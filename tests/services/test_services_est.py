"""EST (RFC 7030) by whoever speaks it: every path, every form of a request; openssl judges."""

from __future__ import annotations

import base64
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pki.edition import ISO2
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject, common_name
from pki.pkcs7 import certificates_in
from services.ca.doors.est import PATHS, PKCS7
from services.common.certificates import fingerprint
from services.ecosystem import load

if TYPE_CHECKING:
    from conftest import World

PKCS10 = {"Content-Type": "application/pkcs10"}
STATION, MAKER, OPERATOR, SERVICE = "plugpark", "nova-cars", "sunmile", "provisioning-service"
# Label -> who serves it, who asks, and a name that it may have there.
LABELS = {
    "cpo": ("v2g-root", STATION, "DEPLGE7300{:05d}"),
    "cps": ("v2g-root", SERVICE, "a service {:05d}"),
    "oem": (MAKER, MAKER, "WNVE5T0000000{:05d}"),
    "mo": (OPERATOR, OPERATOR, "DESUNCE57{:05d}"),
}
_names = iter(range(1, 10**5))


def name(label: str) -> str:
    return LABELS[label][2].format(next(_names))


def request_for(cn: str, key: SoftwareKey | None = None) -> bytes:
    return certificate_request(Subject(common_name=cn), key or SoftwareKey.generate(ISO2))


def path(shape: str, operation: str, ca: str) -> str:
    filled = shape.format(operation=operation, ca=ca, iso="ISO15118-2", algorithm="secp256r1")
    return filled + (f"?caDomain={ca}&iso15118Version=ISO15118-2" if "opnc" in shape else "")


def enroll(
    world: World,
    label: str,
    csr: bytes,
    *,
    operation: str = "simpleenroll",
    shape: str = "/.well-known/est/{ca}/{operation}/{iso}",
    **more: Any,
) -> httpx.Response:
    party, client, _ = LABELS[label]
    options = {"client": client, "headers": PKCS10, **more}
    body = base64.b64encode(csr)
    return world.call(party, "POST", path(shape, operation, label), content=body, **options)


def certificates(answer: httpx.Response) -> list[x509.Certificate]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == PKCS7
    assert answer.headers["content-transfer-encoding"] == "base64"
    assert max(map(len, answer.text.splitlines())) <= 76
    der = base64.b64decode(answer.text)
    return [x509.load_der_x509_certificate(one) for one in certificates_in(der)]


def refused(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    for word in words:
        assert word in answer.text


@pytest.mark.parametrize("label", LABELS)
def test_openssl_takes_what_it_gets(world: World, tmp_path: Path, label: str) -> None:
    """As somebody with curl and openssl would: the leaf verifies under what cacerts gave."""
    party = LABELS[label][0]
    key = ec.generate_private_key(ec.SECP256R1())
    csr = request_for(name(label), SoftwareKey(key))
    for file, answer in {
        "leaf": enroll(world, label, csr),
        "cas": world.call(party, "GET", f"/.well-known/est/{label}/cacerts", client=None),
    }.items():
        assert answer.status_code == 200, answer.text
        (tmp_path / f"{file}.b64").write_bytes(answer.content)
    run = ["sh", "-ec", "openssl base64 -d -in $0.b64 | openssl pkcs7 -inform DER -print_certs"]
    printed = {}
    for file in ("leaf", "cas"):
        done = subprocess.run([*run, file], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        printed[file] = x509.load_pem_x509_certificates(done.stdout)
    (leaf,) = printed["leaf"]
    assert leaf.public_key() == key.public_key()
    sub2, sub1, root = printed["cas"]
    assert (leaf.issuer, sub2.issuer, sub1.issuer) == (sub2.subject, sub1.subject, root.subject)
    assert root.issuer == root.subject
    for file, these in {"l": [leaf], "subs": [sub2, sub1], "root": [root]}.items():
        raw = b"".join(one.public_bytes(Encoding.PEM) for one in these)
        (tmp_path / f"{file}.pem").write_bytes(raw)
    command = "openssl verify -x509_strict -no-CApath -no-CAstore -CAfile root.pem"
    done = subprocess.run(
        [*command.split(), "-untrusted", "subs.pem", "l.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "l.pem: OK", done.stderr


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("shape", PATHS)
def test_every_path(world: World, shape: str, end: str) -> None:
    """The same three operations at every path that a specification or a client has, with and
    without a slash at its end; where no label is named, the caller's role says which."""
    shape = shape + end
    key = SoftwareKey.generate(ISO2)
    cn = name("cpo")
    first = enroll(world, "cpo", request_for(cn, key), shape=shape)
    assert common_name(certificates(first)[0].subject) == cn
    again = enroll(world, "cpo", request_for(cn, key), shape=shape, operation="simplereenroll")
    assert certificates(again)[0] != certificates(first)[0]
    answer = world.call("v2g-root", "GET", path(shape, "cacerts", "cpo"), client=STATION)
    assert len(certificates(answer)) == 3
    # In the place of a token: what everybody may have by the RFC, a platform asks one for.
    for operation in ("simpleenroll", "simplereenroll", "cacerts"):
        method = "GET" if operation == "cacerts" else "POST"
        answer = world.call("v2g-root", method, path(shape, operation, "cpo"), client=None)
        anybody = operation == "cacerts" and shape.startswith("/.well-known/est/")
        assert answer.status_code == (200 if anybody else 401), operation
        if not anybody:
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("operation", ["simpleenroll", "simplereenroll", "cacerts"])
def test_every_wrong_role(world: World, label: str, operation: str) -> None:
    party, own, _ = LABELS[label]
    kinds = {config.kind: one for one, config in world.ecosystem.parties.items()}
    right = world.ecosystem.party(own).kind
    method = "GET" if operation == "cacerts" else "POST"
    with world.unchanged(party):
        for kind, client in kinds.items():
            if kind == right:
                continue
            at = f"/{label}/{operation}/ISO15118-2"
            body = None if method == "GET" else base64.b64encode(request_for(name(label)))
            answer = world.call(party, method, at, content=body, client=client, headers=PKCS10)
            refused(answer, 403, f"has role {kind}", f"{label} is for {right}, admin")


def test_the_forms_of_a_request(world: World) -> None:
    """PEM, DER, base64 in one line, with line breaks, and of PEM's lines with CR."""
    key = SoftwareKey.generate(ISO2)
    csr = request_for(name("cpo"), key)
    pem = x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM)
    forms = {
        "DER": csr,
        "PEM": pem,
        "PEM with CR": b"\n" + pem.replace(b"\n", b"\r\n"),
        "PEM with a text before it": b"Certificate Request:\n    Data:\n" + pem,
        "base64": base64.b64encode(csr),
        "base64 in lines": base64.encodebytes(csr),
        "base64 with CR": base64.encodebytes(csr).replace(b"\n", b"\r\n"),
    }
    found = set()
    for form, body in forms.items():
        for kind in ("application/pkcs10", "application/pkcs10; charset=utf-8", "text/plain"):
            answer = world.call(
                *("v2g-root", "POST", "/cpo/simpleenroll/ISO15118-2"),
                content=body,
                client=STATION,
                headers={"Content-Type": kind},
            )
            assert answer.status_code == 200, (form, answer.text)
            found.update(certificates(answer))
    assert len(found) == 1  # the same request, the same certificate


def test_what_is_no_request(world: World) -> None:
    csr = request_for(name("cpo"))
    spoilt = csr[:-1] + bytes([csr[-1] ^ 1])
    wrong = {
        b"": "the body is empty",
        b"  \n": "the body is empty",
        b"\xff\xfe": "neither DER nor PEM nor base64",
        b'{"csr": "x"}': "neither DER nor PEM nor base64",
        b"AAAA": "cannot be read",
        csr[:-4]: "cannot be read",
        spoilt: "not made by the key that it carries",
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n": "cannot be read",
        b"A" * 20_000: "too long",
    }
    with world.unchanged("v2g-root"):
        for body, words in wrong.items():
            answer = world.call(
                *("v2g-root", "POST", "/.well-known/est/cpo/simpleenroll"),
                content=body,
                client=STATION,
                headers=PKCS10,
            )
            refused(answer, 400, words)
        answer = enroll(world, "cpo", csr, headers={"Content-Type": "application/json"})
        refused(answer, 415, "application/json", "application/pkcs10")
        p521 = x509.CertificateSigningRequestBuilder().subject_name(
            Subject(common_name=name("cpo")).name()
        )
        key = ec.generate_private_key(ec.SECP521R1())
        encoded = p521.sign(key, hashes.SHA512()).public_bytes(Encoding.DER)
        refused(enroll(world, "cpo", encoded), 400, "secp521r1")


def test_what_is_not_served(world: World) -> None:
    """Vehicle certificates, ISO 15118-20, other curves, labels of other parties."""
    for party, at, words in (
        (MAKER, "/.well-known/est/veh/cacerts", "ISO 15118-20, which is not served"),
        ("v2g-root", "/.well-known/est/cpo/cacerts/ISO15118-20", "only ISO15118-2 is served"),
        ("v2g-root", "/.well-known/est/cpo/cacerts/ISO15118-2/ed448/", "secp256r1"),
        ("v2g-root", "/.well-known/est/cpo/cacerts/nonsense", "is no version"),
        ("v2g-root", "/.well-known/est/mo/cacerts", "served by a party of kind mo"),
        (OPERATOR, "/.well-known/est/cpo/cacerts", "served by a party of kind v2g-root"),
        (MAKER, "/.well-known/est/nobody/cacerts", "'nobody' is no label"),
    ):
        refused(world.call(party, "GET", at, client=None), 400, words)
    # OPNC's names.
    query = "caDomain=qa-emsp&iso15118Version=ISO15118-2"
    answer = world.call(OPERATOR, "GET", f"/opnc/v1/pki/est/cacerts?{query}", client=OPERATOR)
    assert len(certificates(answer)) == 3


def test_a_refusal_as_the_caller_wants_it(world: World) -> None:
    """Plain text, or errorMessages with a traceId; OPNC's identifiers come back."""
    at = "/.well-known/est/cpo/simpleenroll"
    text = world.call("v2g-root", "POST", at, content=b"x", client=STATION, headers=PKCS10)
    refused(text, 400)
    headers = {**PKCS10, "Accept": "application/json"}
    answer = world.call("v2g-root", "POST", at, content=b"x", client=STATION, headers=headers)
    body = answer.json()
    assert set(body) == {"errorMessages", "traceId"}
    assert body["errorMessages"] == [text.text.strip()]
    assert uuid.UUID(body["traceId"]).version == 4
    headers = {**PKCS10, "OPNC-Correlation-ID": "c-1", "OPNC-Request-ID": "r-1"}
    query = "caDomain=cpo&iso15118Version=ISO15118-2"
    answer = world.call(
        *("v2g-root", "POST", f"/opnc/v1/pki/est/simpleenroll?{query}"),
        content=b"x",
        client=STATION,
        headers=headers,
    )
    assert (answer.status_code, set(answer.json())) == (400, {"errorMessages", "traceId"})
    assert answer.headers["opnc-correlation-id"] == "c-1"
    assert answer.headers["opnc-request-id"] == "r-1"


def test_what_is_somebody_elses(world: World) -> None:
    """Another operator's charger, another maker's car, another provider's contract."""
    foreign = {
        "cpo": ("NLVLTE7300001", STATION, 403),
        "oem": ("WTM00000000000001", MAKER, 400),
        "mo": ("NLGRDCE5700001", OPERATOR, 400),
    }
    for label, (cn, client, status) in foreign.items():
        party = LABELS[label][0]
        for operation in ("simpleenroll", "simplereenroll"):
            with world.unchanged(party):
                answer = enroll(world, label, request_for(cn), client=client, operation=operation)
                wanted = status if operation == "simpleenroll" else 400
                assert answer.status_code == wanted, answer.text
    with world.unchanged(MAKER, OPERATOR):
        refused(enroll(world, "oem", request_for(name("oem")), client="terra-motors"), 403, "WNV")
        refused(enroll(world, "mo", request_for(name("mo")), client="gridpass"), 403, "DESUN")
    # A certificate that another one has does not become mine by a renewal.
    cn = name("cpo")
    assert enroll(world, "cpo", request_for(cn)).status_code == 200
    others = [one.name for one in world.ecosystem.of_kind("cpo") if one.name != STATION]
    with world.unchanged("v2g-root"):
        answer = enroll(
            *(world, "cpo", request_for(cn)), client=others[0], operation="simplereenroll"
        )
        refused(answer, 403, "belongs to")


def test_renewal(world: World) -> None:
    """With the same key or another one; the same request again changes nothing; a revoked
    certificate is not renewed, and its key never comes back."""
    for label in LABELS:
        party = LABELS[label][0]
        cn, key, other = name(label), SoftwareKey.generate(ISO2), SoftwareKey.generate(ISO2)
        refused(
            enroll(world, label, request_for(cn), operation="simplereenroll"),
            400,
            "was issued here",
        )
        (first,) = certificates(enroll(world, label, request_for(cn, key)))
        with world.unchanged(party):
            assert certificates(enroll(world, label, request_for(cn, key))) == [first]
        if label in ("oem", "mo"):  # one at a time
            with world.unchanged(party):
                refused(enroll(world, label, request_for(cn)), 400, "simplereenroll")
        for with_key in (key, other):
            csr = request_for(cn, with_key)
            (newer,) = certificates(enroll(world, label, csr, operation="simplereenroll"))
            assert newer.subject == first.subject
            assert newer.serial_number != first.serial_number
            assert newer.public_key() == with_key.public_key
            with world.unchanged(party):
                once_more = enroll(world, label, csr, operation="simplereenroll")
                assert certificates(once_more) == [newer]
        mark = {"fingerprint": fingerprint(newer), "reason": "keyCompromise"}
        world.ok(party, "POST", "/revocations", mark)
        with world.unchanged(party):
            for operation in ("simpleenroll", "simplereenroll"):
                refused(
                    enroll(world, label, request_for(cn, other), operation=operation),
                    400,
                    "for another key"
                    if label in ("oem", "mo") and operation == "simpleenroll"
                    else "revoked",
                )


def test_what_an_operator_keeps_itself(world: World) -> None:
    """A contract of pnclab's own is not enrolled for beside it, nor a car's PCID."""
    car = world.car(oem=MAKER)
    emaid = world.contract(car["pcid"])["emaid"]
    for label, cn in (("mo", emaid), ("oem", car["pcid"])):
        party = LABELS[label][0]
        with world.unchanged(party):
            refused(enroll(world, label, request_for(cn)), 400, "csr: CN")


def test_names_of_chargers(world: World, tmp_path: Path, serve: Any) -> None:
    """An EVSEID by default, and the refusal says how to have it otherwise; any name then, and
    it is whose it was first."""
    with world.unchanged("v2g-root"):
        refused(enroll(world, "cpo", request_for("cp001")), 400, "EVSEID", "secc_names=free")
    free = load(data=tmp_path).on_free_ports().with_policies({"secc_names": "free"})
    with serve(free, "v2g-root", "root-pool") as other:
        (leaf,) = certificates(enroll(other, "cpo", request_for("cp001")))
        assert common_name(leaf.subject) == "cp001"
        others = [one.name for one in free.of_kind("cpo") if one.name != STATION]
        for operation in ("simpleenroll", "simplereenroll"):
            answer = enroll(
                *(other, "cpo", request_for("cp001")), client=others[0], operation=operation
            )
            refused(answer, 403, "'cp001' is the name of a certificate of")
        # One that is an EVSEID is its operator's all the same.
        refused(enroll(other, "cpo", request_for("NLVLTE7300001")), 403, "NLVLT")
        refused(enroll(other, "cpo", request_for("")), 400, "common name")


def test_by_the_platform(world: World) -> None:
    """At the one address that a backend knows: the same answers, from whoever serves a label."""
    for label in LABELS:
        cn = name(label)
        client = LABELS[label][1]
        for shape in (
            "/.well-known/est/{ca}/{operation}/{iso}",
            "/{ca}/{operation}/{iso}",
            PATHS[-1],
        ):
            at = path(shape, "simpleenroll", label)
            key = SoftwareKey.generate(ISO2)
            csr = base64.b64encode(request_for(name(label), key))
            answer = world.call("platform", "POST", at, content=csr, client=client, headers=PKCS10)
            (leaf,) = certificates(answer)
            assert leaf.public_key() == key.public_key
            at = path(shape, "cacerts", label)
            chain = certificates(world.call("platform", "GET", at, client=client))
            assert (leaf.issuer, len(chain)) == (chain[0].subject, 3)
        answer = world.call(
            *("platform", "POST", f"/{label}/simpleenroll/ISO15118-20"),
            content=base64.b64encode(request_for(cn)),
            client=client,
            headers=PKCS10,
        )
        assert (answer.status_code, "ISO15118-2" in answer.text) == (400, True)


def test_what_the_platform_refuses_itself(world: World) -> None:
    """It has the form of EST too; a label's prefix is none of the platform's business."""
    at = "/.well-known/est/cpo/simpleenroll"
    strange = {**PKCS10, "Authorization": "Bearer strange"}
    for headers, form in ((strange, "text/plain"), ({**strange, "Accept": "application/json"}, "")):
        answers = [
            world.call(party, "POST", at, content=b"x", client=None, headers=headers)
            for party in ("platform", "v2g-root")
        ]
        for answer in answers:
            assert answer.status_code == 401
            assert answer.headers["content-type"].startswith(form or "application/json")
            assert form or set(answer.json()) == {"errorMessages", "traceId"}
    foreign = world.call("platform", "GET", "/.well-known/est/oem/cacerts", client=STATION)
    refused(foreign, 403, "speaks for no oem")
    vehicle = world.call("platform", "GET", "/.well-known/est/veh/cacerts", client=STATION)
    refused(vehicle, 400, "ISO 15118-20, which is not served")
    for label, client in (("qa-oem", MAKER), ("qa-emsp", OPERATOR), ("qa-cpo", STATION)):
        at = f"/.well-known/est/{label}/cacerts"
        assert len(certificates(world.call("platform", "GET", at, client=client))) == 3


@pytest.mark.parametrize("shape", PATHS)
def test_a_token_for_other_services_is_refused_at_every_path(world: World, shape: str) -> None:
    login = world.http.post(
        f"{world.url('platform')}/oauth/token",
        json={
            "grant_type": "client_credentials",
            "client_id": STATION,
            "client_secret": f"{STATION}-test-secret",
            "scope": "rcpservice",
        },
    ).json()
    answer = world.call(
        *("platform", "GET", path(shape, "cacerts", "cpo")),
        client=None,
        headers={"Authorization": f"Bearer {login['access_token']}"},
    )
    assert (answer.status_code, "service pkigateway" in answer.text) == (403, True)
