"""OCSP and revocation lists as others use them: openssl's client, caches, and those who get it
wrong; what was said is never said again once it is not true."""

from __future__ import annotations

import base64
import itertools
import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from pki.edition import ISO2
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.revocation import CertId, ocsp_request, ocsp_request_of, ocsp_url
from services.ca import service as ca_service
from services.ca.doors.ocsp import MAX_AGE, TOLD
from services.common.certificates import b64, der_of, fingerprint, read_certificate
from services.common.errors import DatabaseUnavailable
from services.ecosystem import load

if TYPE_CHECKING:
    from conftest import World

CA = "v2g-root"
REQUEST = {"Content-Type": "application/ocsp-request"}
GOOD, REVOKED, UNKNOWN = (
    ocsp.OCSPCertStatus.GOOD,
    ocsp.OCSPCertStatus.REVOKED,
    ocsp.OCSPCertStatus.UNKNOWN,
)
Chain = list[x509.Certificate]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[World]:
    """A V2G root operator and the root pool."""
    ecosystem = load(data=tmp_path_factory.mktemp("ocsp")).on_free_ports()
    with serve(ecosystem.with_faults(), CA, "root-pool") as found:
        yield found


_names = iter(range(10**5))


def issued(world: World) -> Chain:
    """A new leaf and all above it, the root at the end."""
    csr = certificate_request(Subject(f"DEPLGE0C59{next(_names):05d}"), SoftwareKey.generate(ISO2))
    body = {"role": "secc", "csr": b64(csr)}
    chain = world.ok(CA, "POST", "/certificates", body, client="plugpark")["chain"]
    root = world.ok(CA, "GET", "/authorities")[0]["certificate"]
    return [read_certificate(one, "c") for one in (*chain, root)]


def post(world: World, content: bytes, **headers: str) -> httpx.Response:
    sent = {**REQUEST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    answer = world.call(CA, "POST", "/ocsp", content=content, client=None, headers=sent)
    assert answer.status_code == 200
    return answer


def get(world: World, content: bytes, **headers: str) -> httpx.Response:
    path = f"/ocsp/{quote(base64.b64encode(content).decode(), safe='')}"
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return world.call(CA, "GET", path, client=None, headers=sent)


def status(answer: httpx.Response) -> ocsp.OCSPCertStatus:
    said = ocsp.load_der_ocsp_response(answer.content)
    assert said.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL, said.response_status
    return next(iter(said.responses)).certificate_status


def write(folder: Path, name: str, *certificates: x509.Certificate) -> str:
    path = folder / f"{name}.pem"
    path.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in certificates))
    return str(path)


def openssl(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


# ---------------------------------------------------------------------------- openssl asks


@pytest.mark.parametrize("nonce", ["-nonce", "-no_nonce"])
@pytest.mark.parametrize("digest", ["-sha1", "-sha256"])
def test_openssl_asks(asked: World, tmp_path: Path, digest: str, nonce: str) -> None:
    """About leaf, sub-CA 2 and sub-CA 1, by POST and by GET; every answer verifies."""
    chain = issued(asked)
    for certificate, issuer in itertools.pairwise(chain):
        common = ["ocsp", "-issuer", write(tmp_path, "issuer", issuer), digest]
        common += ["-cert", write(tmp_path, "asked", certificate), nonce]
        trusted = ["-CAfile", write(tmp_path, "all", *chain[1:]), "-no-CApath", "-no-CAstore"]
        url = ocsp_url(certificate)
        assert url == f"{asked.url(CA)}/ocsp"
        code, said = openssl(*common, "-url", url, *trusted)
        assert (code, "Response verify OK" in said, ": good" in said) == (0, True, True), said
        # openssl has no GET of its own: its request by GET, and it judges the answer.
        request, response = tmp_path / "request.der", tmp_path / "response.der"
        openssl(*common, "-reqout", str(request))
        answer = get(asked, request.read_bytes())
        response.write_bytes(answer.content)
        code, said = openssl(
            *("ocsp", "-respin", str(response), "-reqin", str(request), *trusted),
            *common[1:6],
            "-no_nonce",  # that of the request that was read counts
        )
        assert (code, "Response verify OK" in said, ": good" in said) == (0, True, True), said
        for words in ("nonce in response", "Nonce Verify"):
            assert words not in said


def test_several_in_one_request(asked: World, tmp_path: Path) -> None:
    one, other = issued(asked), issued(asked)
    asked.ok(CA, "POST", "/revocations", {"fingerprint": fingerprint(other[0])})
    arguments = ["-issuer", write(tmp_path, "issuer", one[1])]
    arguments += ["-cert", write(tmp_path, "one", one[0])]
    arguments += ["-cert", write(tmp_path, "other", other[0]), "-serial", "0x4711"]
    url = f"{asked.url(CA)}/ocsp"
    code, said = openssl(
        *("ocsp", *arguments, "-url", url, "-CAfile", write(tmp_path, "all", *one[1:]))
    )
    assert (code, "Response verify OK" in said) == (0, True), said
    assert "one.pem: good" in said
    assert "other.pem: revoked" in said
    assert "0x4711: unknown" in said
    # Of two issuers at once nobody can speak.
    ids = [CertId.of(one[0], one[1]), CertId.of(one[1], one[2])]
    answer = post(asked, ocsp_request_of(ids))
    said_status = ocsp.load_der_ocsp_response(answer.content).response_status
    assert said_status is ocsp.OCSPResponseStatus.UNAUTHORIZED
    assert "several issuers" in answer.headers["pnclab-diagnosis"]


# ------------------------------------------------------------------- said again, or not


def test_an_answer_is_given_again_until_a_revocation(asked: World) -> None:
    """The same bytes for the same request; a nonce has its own. Revoked in this process, and by
    somebody else who has the database."""
    for by_another_process in (False, True):
        leaf, issuer, *_ = issued(asked)
        request = ocsp_request(leaf, issuer)
        first = post(asked, request)
        assert status(first) is GOOD
        for _ in range(3):
            assert post(asked, request).content == first.content
            assert get(asked, request).content == first.content
        fresh = {post(asked, ocsp_request(leaf, issuer, nonce=b"n" * 8)).content for _ in "12"}
        assert len(fresh) == 2  # signed for each time
        issued(asked)  # something else changes: it is true still
        assert post(asked, request).content == first.content
        if by_another_process:
            with sqlite3.connect(asked.database(CA)) as other:
                other.execute(
                    "UPDATE certificates SET revoked_at = ?, reason = ? WHERE fingerprint = ?",
                    ("2026-01-01 00:00:00.000000", "superseded", fingerprint(leaf)),
                )
            other.close()
        else:
            asked.ok(CA, "POST", "/revocations", {"fingerprint": fingerprint(leaf)})
        for nonce in (b"m" * 8, b"o" * 8):
            assert status(post(asked, ocsp_request(leaf, issuer, nonce=nonce))) is REVOKED
        assert status(post(asked, request)) is REVOKED
        assert status(get(asked, request)) is REVOKED


def test_who_was_unknown_may_be_issued(asked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    _, issuer, *_ = issued(asked)
    serial = 0x70_1234_5678_9ABC
    cert_id = CertId.of(issued(asked)[0], issuer)
    request = ocsp_request_of([CertId(*list(vars(cert_id).values())[:3], serial)])
    assert status(post(asked, request)) is UNKNOWN
    assert status(post(asked, request)) is UNKNOWN
    monkeypatch.setattr(ca_service, "new_serial", lambda _entropy: serial)
    assert issued(asked)[0].serial_number == serial
    assert status(post(asked, request)) is GOOD


def test_the_signer_that_was_revoked_speaks_no_more(asked: World) -> None:
    leaf, issuer, *_ = issued(asked)
    request = ocsp_request(leaf, issuer)
    first = ocsp.load_der_ocsp_response(post(asked, request).content)
    (signer,) = first.certificates
    asked.ok(CA, "POST", "/revocations", {"fingerprint": fingerprint(signer)})
    (other,) = ocsp.load_der_ocsp_response(post(asked, request).content).certificates
    assert other != signer


def test_the_clock_ends_what_is_kept(asked: World) -> None:
    """Half of its life later, and when the clock goes backwards."""
    leaf, issuer, *_ = issued(asked)
    request = ocsp_request(leaf, issuer)
    clock = asked.party(CA).clock
    first = ocsp.load_der_ocsp_response(post(asked, request).content)
    try:
        clock.advance(timedelta(hours=7))
        later = ocsp.load_der_ocsp_response(post(asked, request).content)
        between = later.this_update_utc - first.this_update_utc
        assert timedelta(hours=6) < between < timedelta(hours=8)
        clock.show_real()
        again = ocsp.load_der_ocsp_response(post(asked, request).content)
        assert again.this_update_utc < later.this_update_utc
    finally:
        clock.show_real()


# ------------------------------------------------------------------------------- caches


def test_what_caches_are_told(asked: World) -> None:
    leaf, issuer, *_ = issued(asked)
    request = ocsp_request(leaf, issuer)
    answer = get(asked, request)
    said = ocsp.load_der_ocsp_response(answer.content)
    headers = answer.headers
    assert parsedate_to_datetime(headers["last-modified"]) == said.this_update_utc
    assert parsedate_to_datetime(headers["expires"]) == said.next_update_utc
    assert f"max-age={MAX_AGE}," in headers["cache-control"]
    for known in (
        {"If_None_Match": headers["etag"]},
        {"If_None_Match": f'"other", {headers["etag"]}'},
        {"If_None_Match": "*"},
        {"If_Modified_Since": headers["last-modified"]},
    ):
        unchanged = get(asked, request, **known)
        assert (unchanged.status_code, unchanged.content) == (304, b""), known
        assert unchanged.headers["etag"] == headers["etag"]
    for other in (
        {"If_None_Match": '"other"'},
        {"If_None_Match": '"other"', "If_Modified_Since": headers["last-modified"]},
        {"If_Modified_Since": "Mon, 01 Jan 2001 00:00:00 GMT"},
        {"If_Modified_Since": "yesterday"},
    ):
        assert get(asked, request, **other).status_code == 200, other
    asked.ok(CA, "POST", "/revocations", {"fingerprint": fingerprint(leaf)})
    assert get(asked, request, If_None_Match=headers["etag"]).status_code == 200
    # What was signed for one caller is nobody else's, and POST is not cached.
    nonce = get(asked, ocsp_request(leaf, issuer, nonce=b"12345678"))
    assert nonce.headers["cache-control"] == "no-store"
    assert "etag" not in post(asked, request).headers


# ---------------------------------------------------------------------------- diagnosis

MALFORMED = bytes.fromhex("30030a0101")


def forms(world: World) -> dict[str, tuple[bytes, str, str]]:
    """What one may send instead of a request, its content type, and what is said of it."""
    leaf, issuer, *_ = issued(world)
    der = ocsp_request(leaf, issuer)
    usual = REQUEST["Content-Type"]
    pem = b"-----BEGIN OCSP REQUEST-----\n" + base64.encodebytes(der)
    return {
        "hex": (der.hex().encode(), usual, "hex text"),
        "hex in capitals": (der.hex().upper().encode() + b"\n", usual, "hex text"),
        "base64": (base64.b64encode(der), usual, "base64 text"),
        "PEM": (pem, usual, "PEM"),
        "JSON": (json.dumps({"serial": 1}).encode(), "application/json", "JSON"),
        "another content type": (der, "text/html; charset=utf-8", "'text/html'"),
        "a form": (der, "application/x-www-form-urlencoded", "wanted is application/ocsp-request"),
        "nothing": (b"", usual, "empty"),
        "a certificate": (der_of(leaf), usual, "a certificate;"),
        "a certificate request": (
            certificate_request(Subject("x"), SoftwareKey.generate(ISO2)),
            usual,
            "a certificate request",
        ),
        "an answer": (post(world, der).content, usual, "an OCSPResponse"),
        "a CertID": (CertId.of(leaf, issuer).encoded(), usual, "OCSPRequest around it"),
        "cut off": (der[:-1], usual, "cannot be read"),
        "too much": (der + b"\x00", usual, "cannot be read"),
        "nonsense": (b"\xff" * 40, usual, "cannot be read"),
    }


def test_what_is_no_request_is_diagnosed(asked: World) -> None:
    """The answer is OCSP's own; the reason stands in a header and in the event."""
    wrong = forms(asked)
    time.sleep(1.1)  # of more in a second than are told, some are only counted
    for name, (body, kind, words) in wrong.items():
        time.sleep(1.2 / TOLD)
        sent = {"Content-Type": kind, "Pnclab-Run": f"wrong-{name.replace(' ', '-')}"}
        answer = asked.call(CA, "POST", "/ocsp", content=body, client=None, headers=sent)
        assert (answer.status_code, answer.content) == (200, MALFORMED), name
        assert answer.headers["content-type"] == "application/ocsp-response"
        diagnosis = answer.headers["pnclab-diagnosis"]
        assert words in diagnosis, (name, diagnosis)
        (event,) = asked.ok(CA, "GET", f"/events?run={sent['Pnclab-Run']}&limit=5")
        assert event["data"]["diagnosis"] == diagnosis
    for path, words in (("@@", "not base64"), ("ab-_", "URL alphabet"), ("AAAA", "cannot be")):
        answer = asked.call(CA, "GET", f"/ocsp/{path}", client=None)
        assert answer.content == MALFORMED
        assert words in answer.headers["pnclab-diagnosis"], path


def test_a_lenient_responder(tmp_path: Path, serve: Any) -> None:
    """Hex is answered in hex, base64 is read; what is neither is malformed still."""
    lenient = load(data=tmp_path).on_free_ports().with_policies({"ocsp_input": "lenient"})
    with serve(lenient, CA, "root-pool") as world:
        for name, (body, kind, _) in forms(world).items():
            sent = {"Content-Type": kind}
            answer = world.call(CA, "POST", "/ocsp", content=body, client=None, headers=sent)
            if name.startswith("hex"):
                assert answer.headers["content-type"].startswith("text/plain")
                assert answer.text == answer.text.lower()
                answer = httpx.Response(200, content=bytes.fromhex(answer.text))
            if name.startswith(("hex", "base64", "another", "a form")):
                assert status(answer) is GOOD, name
            else:
                assert answer.content == MALFORMED, name


def test_try_later(asked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database does not answer, and before there is any authority."""
    leaf, issuer, *_ = issued(asked)
    request = ocsp_request(leaf, issuer, nonce=b"12345678")
    responder = asked.service(CA).responder

    async def away(_seen: Any) -> None:
        raise DatabaseUnavailable("it is away")

    def said() -> ocsp.OCSPResponseStatus:
        return ocsp.load_der_ocsp_response(post(asked, request).content).response_status

    with monkeypatch.context() as patched:
        patched.setattr(responder, "_look", away)
        assert said() is ocsp.OCSPResponseStatus.TRY_LATER
    with monkeypatch.context() as patched:
        patched.setattr(responder.ca, "_authorities", ())
        patched.setattr(responder, "_looked", responder._state())
        assert said() is ocsp.OCSPResponseStatus.TRY_LATER
    assert said() is ocsp.OCSPResponseStatus.SUCCESSFUL


def test_many_are_counted(asked: World) -> None:
    """A burst from outside is told by its first ones and a count."""
    leaf, issuer, *_ = issued(asked)
    request = ocsp_request(leaf, issuer)
    post(asked, request)
    time.sleep(1.6)  # what came before is told by now
    before = len(told(asked))
    total = 6 * TOLD
    answers = asked.all(CA, "POST", [("/ocsp", request, REQUEST)] * total, client=None)
    assert {one.content for one in answers} == {answers[0].content}
    assert status(answers[0]) is GOOD
    time.sleep(1.6)
    new = told(asked)[before:]
    single = [one for one in new if one["name"] == "POST /ocsp"]
    counted = sum(one["data"]["count"] for one in new if one["name"] == "OCSP")
    assert len(single) + counted == total
    assert counted > 0


def told(world: World) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while page := world.ok(
        CA, "GET", "/events?kind=http&limit=1000" + (f"&after={found[-1]['id']}" if found else "")
    ):
        found += page
    return [one for one in found if "OCSP" in one["name"].upper()]


# ----------------------------------------------------- what certificates say, and the lists


def points(certificate: x509.Certificate) -> str | None:
    """The address of the revocation list that a certificate names."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    except x509.ExtensionNotFound:
        return None
    (point,) = found.value
    assert point.full_name is not None
    return str(point.full_name[0].value)


def test_openssl_checks_all_of_a_chain(asked: World, tmp_path: Path) -> None:
    """With the lists that the certificates name, before and after a rollover; the one who was
    revoked is refused, and so is all below a sub-CA that was."""
    old = issued(asked)
    asked.ok(CA, "POST", "/authorities/cpo-sub1/rollover", {"cascade": True})
    new = issued(asked)
    assert old[1] != new[1]
    assert {points(one) for one in old[:-1]}.isdisjoint(points(one) for one in new[:-2])

    def judged(chain: Chain) -> tuple[int, str]:
        lists = tmp_path / "lists.pem"
        lists.write_bytes(b"")
        for certificate in chain[:-1]:
            url = points(certificate)
            assert url is not None
            raw = tmp_path / "list.der"
            raw.write_bytes(asked.http.get(url).content)
            code, pem = openssl("crl", "-inform", "DER", "-in", str(raw))
            assert code == 0
            lists.write_bytes(lists.read_bytes() + pem.encode())
        return openssl(
            *("verify", "-crl_check_all", "-CRLfile", str(lists), "-no-CApath", "-no-CAstore"),
            *("-CAfile", write(tmp_path, "root", chain[-1])),
            *("-untrusted", write(tmp_path, "subs", *chain[1:-1])),
            write(tmp_path, "leaf", chain[0]),
        )

    for chain in (old, new):
        assert judged(chain)[0] == 0, judged(chain)
        assert ocsp_url(chain[0]) == ocsp_url(chain[1]) == ocsp_url(chain[2])
    asked.ok(CA, "POST", "/revocations", {"fingerprint": fingerprint(old[0])})
    code, said = judged(old)
    assert (code != 0, "certificate revoked" in said) == (True, True), said
    assert judged(new)[0] == 0
    asked.ok(CA, "POST", "/revocations", {"fingerprint": fingerprint(new[1])})
    code, said = judged(new)
    assert (code != 0, "error 23 at 1 depth" in said) == (True, True), said


def test_a_list_and_caches(asked: World) -> None:
    url = points(issued(asked)[0])
    assert url is not None
    answer = asked.http.get(url)
    crl = x509.load_der_x509_crl(answer.content)
    assert parsedate_to_datetime(answer.headers["last-modified"]) == crl.last_update_utc
    assert parsedate_to_datetime(answer.headers["expires"]) == crl.next_update_utc
    known = {"If-None-Match": answer.headers["etag"]}
    assert asked.http.get(url, headers=known).status_code == 304
    weak = {"If-None-Match": f'"other", W/{answer.headers["etag"]}'}
    assert asked.http.get(url, headers=weak).status_code == 304
    asked.ok(CA, "POST", "/revocations", {"fingerprint": fingerprint(issued(asked)[0])})
    assert asked.http.get(url, headers=known).status_code == 200
    missing = asked.http.get(url.rpartition("/")[0] + "/99")
    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_authority")


@pytest.mark.parametrize("policy", ["ocsp", "crl", "none", "ocsp-and-crl"])
def test_pointers_are_a_choice(tmp_path: Path, serve: Any, policy: str) -> None:
    chosen = load(data=tmp_path).on_free_ports().with_policies({"pointers": policy})
    with serve(chosen, CA, "root-pool") as world:
        for certificate in issued(world)[:-1]:
            assert (ocsp_url(certificate) is not None) == ("ocsp" in policy)
            assert (points(certificate) is not None) == ("crl" in policy)


def test_where_there_is_no_room_for_both(asked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """800 bytes [V2G2-010]: the list is left out, OCSP stays."""
    party = asked.party(CA)
    far = replace(party.config, public_url=f"http://{'a' * 60}.{'b' * 60}.test:7100")
    monkeypatch.setattr(party, "config", far)
    leaf = issued(asked)[0]
    assert ocsp_url(leaf) == f"{far.public_url}/ocsp"
    assert points(leaf) is None
    assert len(der_of(leaf)) <= 800


# ------------------------------------------------------------------- hashes of requests


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384()])
def test_hashes_of_a_request(asked: World, algorithm: hashes.HashAlgorithm) -> None:
    leaf, issuer, *_ = issued(asked)
    builder = ocsp.OCSPRequestBuilder().add_certificate(leaf, issuer, algorithm)
    answer = post(asked, builder.build().public_bytes(Encoding.DER))
    assert status(answer) is GOOD
    said = ocsp.load_der_ocsp_response(answer.content)
    assert said.hash_algorithm.name == algorithm.name
