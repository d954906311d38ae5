"""OCSP and CRLs, both sides: against openssl and pyca, and each way to spoil an answer."""

import contextlib
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from pki import codes, der
from pki.chain import RevocationPolicy, certificates_to_check, judge
from pki.edition import ISO2
from pki.findings import RULES, Verdict
from pki.issuing import Authority, sealed
from pki.profiles import Role
from pki.revocation import (
    CertId,
    CertificateStatus,
    OcspAnswer,
    OcspRequestError,
    RevocationReason,
    Revoked,
    RevokedCertificate,
    certificate_revocation_list,
    check_crl,
    check_ocsp_response,
    ocsp_error_response,
    ocsp_request,
    ocsp_request_of,
    ocsp_response,
    ocsp_url,
    read_ocsp_request,
)

NONCE = bytes(range(16))
WEEK = timedelta(days=7)


class Case:
    """A leaf, its issuer, and a responder that answers for the issuer."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.issuer = world.authorities[Role.MO_SUB2]
        self.leaf = world.leaf(Role.CONTRACT)
        self.now = world.now + timedelta(days=1)
        self.signer = Authority(
            world.leaf(Role.OCSP_SIGNER, by=Role.MO_SUB2), world.key("ocsp-signer leaf")
        )

    def answer(self, status: Any = CertificateStatus.GOOD, **changes: Any) -> OcspAnswer:
        arguments = {
            "cert_id": CertId.of(self.leaf, self.issuer.certificate),
            "status": status,
            "this_update": self.now,
            "next_update": self.now + WEEK,
        } | changes
        return OcspAnswer(**arguments)

    def response(
        self,
        *answers: OcspAnswer,
        responder: Authority | None = None,
        nonce: bytes | None = None,
    ) -> bytes:
        return ocsp_response(answers or (self.answer(),), responder or self.signer, self.now, nonce)

    def check(self, response: bytes, at: datetime | None = None, **more: Any) -> Any:
        return check_ocsp_response(
            response, self.leaf, self.issuer.certificate, at=at or self.now, **more
        )


@pytest.fixture
def case(world: Any) -> Case:
    return Case(world)


def rules(outcome: Any) -> list[str]:
    return [f.rule for f in outcome.findings]


# --------------------------------------------------------------------------------- requests


@pytest.mark.parametrize("hash_", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384()])
def test_a_request_is_the_one_that_pyca_builds(case: Case, hash_: Any) -> None:
    issuer = case.issuer.certificate
    theirs = (
        ocsp.OCSPRequestBuilder()
        .add_certificate(case.leaf, issuer, hash_)
        .add_extension(x509.OCSPNonce(NONCE), critical=False)
        .build()
    )
    ours = ocsp_request(case.leaf, issuer, hash=hash_, nonce=NONCE)
    assert ours == theirs.public_bytes(Encoding.DER)
    read = read_ocsp_request(ours)
    assert read.nonce == NONCE
    (cert_id,) = read.cert_ids
    assert cert_id == CertId.of(case.leaf, issuer, hash_)
    assert cert_id.matches(issuer)
    assert not cert_id.matches(case.world.authorities[Role.MO_SUB1].certificate)


def test_a_request_about_a_whole_chain_is_read(case: Case, world: Any, tmp_path: Path) -> None:
    path = [case.leaf, *world.chain(Role.CONTRACT), world.root(Role.CONTRACT)]
    wanted = tuple(CertId.of(c, i) for c, i, _ in certificates_to_check(path))
    encoded = ocsp_request_of(wanted, nonce=NONCE)
    read = read_ocsp_request(encoded)
    assert read.cert_ids == wanted
    assert read.nonce == NONCE
    (tmp_path / "req.der").write_bytes(encoded)
    text = openssl(tmp_path, "ocsp", "-reqin", "req.der", "-req_text", "-noverify")
    assert text.count("Issuer Key Hash") == 3


def test_what_others_write_into_requests_is_read(case: Case) -> None:
    """A version that is the default, a requestor's name, a signature, extensions of a single
    request, and a nonce without its inner OCTET STRING.
    """
    cert_id = CertId.of(case.leaf, case.issuer.certificate)
    nonce = der.sequence(der.oid("1.3.6.1.5.5.7.48.1.2"), der.octet_string(b"\x99raw"))
    locator = der.context(0, der.sequence())
    tbs = der.sequence(
        der.context(0, der.integer(0)),
        der.context(1, der.context(4, case.leaf.subject.public_bytes())),
        der.sequence(der.sequence(cert_id.encoded(), locator)),
        der.context(2, der.sequence(nonce)),
    )
    read = read_ocsp_request(der.sequence(tbs, der.context(0, der.sequence())))
    assert read.cert_ids == (cert_id,)
    assert read.nonce == b"\x99raw"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda r: b"", "cannot be read"),
        (lambda r: r[:-1], "cannot be read"),
        (lambda r: r + b"\x00", "after the last element"),
        (lambda r: b"\x31" + r[1:], "0x30 was wanted"),
        (lambda r: ocsp_request_of([]), "no certificate"),
        (
            lambda r: r.replace(
                der.oid("2.16.840.1.101.3.4.2.1"), der.oid("2.16.840.1.101.3.4.2.9")
            ),
            "2.16.840.1.101.3.4.2.9 is not known",
        ),
    ],
)
def test_a_request_that_is_none_is_refused(case: Case, spoil: Any, says: str) -> None:
    request = ocsp_request(case.leaf, case.issuer.certificate)
    assert read_ocsp_request(request)
    with pytest.raises(OcspRequestError, match=says):
        read_ocsp_request(spoil(request))


def test_a_request_about_too_many_is_refused(case: Case) -> None:
    cert_id = CertId.of(case.leaf, case.issuer.certificate)
    assert len(read_ocsp_request(ocsp_request_of([cert_id] * 64)).cert_ids) == 64
    with pytest.raises(OcspRequestError, match="more than 64"):
        read_ocsp_request(ocsp_request_of([cert_id] * 65))


def asked_with(extension: bytes, cert_id: CertId) -> bytes:
    """A request whose nonce extension holds these bytes."""
    nonce = der.sequence(der.oid("1.3.6.1.5.5.7.48.1.2"), der.octet_string(extension))
    requests = der.sequence(der.sequence(cert_id.encoded()))
    return der.sequence(der.sequence(requests, der.context(2, der.sequence(nonce))))


@pytest.mark.parametrize("inner", [True, False])
@pytest.mark.parametrize(("size", "good"), [(0, False), (1, True), (128, True), (129, False)])
def test_a_nonce_has_a_length(case: Case, size: int, good: bool, inner: bool) -> None:
    nonce = b"\x99" * size
    cert_id = CertId.of(case.leaf, case.issuer.certificate)
    request = asked_with(der.octet_string(nonce) if inner else nonce, cert_id)
    if good:
        assert read_ocsp_request(request).nonce == nonce
    else:
        with pytest.raises(OcspRequestError, match=f"{size} bytes, wanted are 1 to 128"):
            read_ocsp_request(request)


@given(st.data())
def test_what_is_read_can_be_answered(world: Any, data: Any) -> None:
    """Whatever the reader takes, an answer about it is built and can be parsed."""
    issuer = world.authorities[Role.MO_SUB1]
    cert_id = CertId.of(world.chain(Role.CONTRACT)[0], issuer.certificate)
    cert_id = replace(cert_id, serial=data.draw(st.integers(-(2**70), 2**170)))
    encoded = bytearray(asked_with(data.draw(st.binary(max_size=140)), cert_id))
    for _ in range(data.draw(st.integers(0, 2))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        asked = read_ocsp_request(bytes(encoded))
    except OcspRequestError:
        return
    answers = [
        OcspAnswer(one, CertificateStatus.UNKNOWN, world.now, world.now) for one in asked.cert_ids
    ]
    assert ocsp.load_der_ocsp_response(ocsp_response(answers, issuer, world.now, asked.nonce))


@given(st.data())
def test_no_request_makes_the_reader_raise_anything_else(world: Any, data: Any) -> None:
    sub2, sub1 = world.chain(Role.CONTRACT)
    encoded = bytearray(ocsp_request(sub2, sub1, nonce=NONCE))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(OcspRequestError):
        assert read_ocsp_request(bytes(encoded)).cert_ids


@given(st.binary(max_size=80))
def test_no_bytes_make_the_reader_raise_anything_else(encoded: bytes) -> None:
    with pytest.raises(OcspRequestError):
        read_ocsp_request(encoded)


# ---------------------------------------------------------------------- answers, and openssl


def openssl(folder: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["openssl", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


def write_chain(case: Case, folder: Path) -> None:
    world = case.world
    for name, certificates in {
        "leaf.pem": [case.leaf],
        "issuer.pem": [case.issuer.certificate],
        "cas.pem": [*world.chain(Role.CONTRACT), world.root(Role.CONTRACT)],
    }.items():
        text = b"".join(c.public_bytes(Encoding.PEM) for c in certificates)
        (folder / name).write_bytes(text)


@pytest.mark.parametrize("delegated", [True, False], ids=["signer", "issuer"])
@pytest.mark.parametrize("hash_", ["sha1", "sha256"])
@pytest.mark.parametrize(
    ("status", "word"),
    [
        (CertificateStatus.GOOD, "good"),
        (CertificateStatus.UNKNOWN, "unknown"),
        (None, "revoked"),
    ],
)
def test_openssl_verifies_our_answers(
    case: Case, tmp_path: Path, status: Any, word: str, hash_: str, delegated: bool
) -> None:
    if status is None:
        status = Revoked(case.now - timedelta(hours=1), RevocationReason.KEY_COMPROMISE)
    known = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}
    cert_id = CertId.of(case.leaf, case.issuer.certificate, known[hash_])
    # openssl compares thisUpdate with the machine's clock, whatever -attime says.
    answer = case.answer(status, cert_id=cert_id)
    response = case.response(
        answer, responder=case.signer if delegated else case.issuer, nonce=NONCE
    )
    write_chain(case, tmp_path)
    (tmp_path / "resp.der").write_bytes(response)
    (tmp_path / "req.der").write_bytes(
        ocsp_request(case.leaf, case.issuer.certificate, hash=known[hash_], nonce=NONCE)
    )
    common = [
        *("ocsp", "-respin", "resp.der", "-issuer", "issuer.pem", "-CAfile", "cas.pem"),
        *("-attime", str(int(case.now.timestamp())), "-validity_period", "999999999"),
    ]
    # Once for the nonce of a request that it reads, once for the status of the certificate.
    said = openssl(tmp_path, *common, "-reqin", "req.der")
    assert "Response verify OK" in said
    assert "no nonce" not in said
    said = openssl(tmp_path, *common, f"-{hash_}", "-cert", "leaf.pem", "-no_nonce")
    assert "Response verify OK" in said
    assert f"leaf.pem: {word}" in said
    if word == "revoked":
        assert "keyCompromise" in said


def test_pyca_reads_an_answer_about_several(case: Case, world: Any) -> None:
    path = [case.leaf, *world.chain(Role.CONTRACT), world.root(Role.CONTRACT)]
    answers = [case.answer(cert_id=CertId.of(c, i)) for c, i, _ in certificates_to_check(path)]
    read = ocsp.load_der_ocsp_response(case.response(*answers))
    assert [s.serial_number for s in read.responses] == [c.serial_number for c in path[:-1]]
    assert read.produced_at_utc == case.now
    assert case.check(case.response(*answers)).good


def test_answers_are_the_same_bytes_each_time(case: Case) -> None:
    """Keys of a seed sign deterministically, and nothing else varies."""
    assert case.response(nonce=NONCE) == case.response(nonce=NONCE)


@pytest.mark.parametrize(
    "status", ["malformedRequest", "internalError", "tryLater", "sigRequired", "unauthorized"]
)
def test_error_responses_are_what_they_are_called(case: Case, status: str) -> None:
    outcome = case.check(ocsp_error_response(status))
    assert outcome.status is CertificateStatus.UNAVAILABLE
    assert rules(outcome) == ["ocsp.not-successful"]
    assert outcome.findings[0].seen == status
    with pytest.raises(ValueError, match="none of"):
        ocsp_error_response("later")


# --------------------------------------------------------------------------- answers judged


def test_the_twin_is_good(case: Case) -> None:
    for responder in (case.signer, case.issuer):
        outcome = case.check(case.response(responder=responder, nonce=NONCE), nonce=NONCE)
        assert outcome.good
        assert outcome.findings == ()
        assert outcome.next_update == case.now + WEEK
        assert outcome.responder


@pytest.mark.parametrize("hash_", [hashes.SHA1(), hashes.SHA256(), hashes.SHA512()])
def test_every_hash_of_a_cert_id_is_understood(case: Case, hash_: Any) -> None:
    cert_id = CertId.of(case.leaf, case.issuer.certificate, hash_)
    assert case.check(case.response(case.answer(cert_id=cert_id))).good


def test_revoked_and_unknown_are_told(case: Case) -> None:
    at = case.now - timedelta(days=3)
    outcome = case.check(case.response(case.answer(Revoked(at, RevocationReason.SUPERSEDED))))
    assert outcome.status is CertificateStatus.REVOKED
    assert (outcome.revoked_at, outcome.reason) == (at, "superseded")
    assert rules(outcome) == ["revocation.revoked"]
    outcome = case.check(case.response(case.answer(CertificateStatus.UNKNOWN)))
    assert outcome.status is CertificateStatus.UNKNOWN
    assert rules(outcome) == ["revocation.unknown"]


def delegate(case: Case, **changes: Any) -> Authority:
    certificate = case.world.spoiled(case.signer.certificate, case.issuer, **changes)
    return Authority(certificate, case.signer.signer)


SPOILED_ANSWERS: list[tuple[str, str, Callable[[Case], bytes]]] = []


def breaks(rule: str) -> Callable[[Any], Any]:
    def register(make: Callable[[Case], bytes]) -> Any:
        SPOILED_ANSWERS.append((rule, make.__name__, make))
        return make

    return register


@breaks("ocsp.unreadable")
def no_answer(case: Case) -> bytes:
    return b"HTTP/1.1 502 Bad Gateway"


@breaks("ocsp.unreadable")
def cut_off(case: Case) -> bytes:
    return case.response()[:-3]


@breaks("ocsp.not-successful")
def try_later(case: Case) -> bytes:
    return ocsp_error_response("tryLater")


@breaks("ocsp.other-certificate")
def about_another_serial(case: Case) -> bytes:
    other = case.world.leaf(Role.CONTRACT)
    return case.response(case.answer(cert_id=CertId.of(other, case.issuer.certificate)))


@breaks("ocsp.other-certificate")
def about_the_serial_of_another_issuer(case: Case) -> bytes:
    other = case.world.authorities[Role.CPO_SUB2].certificate
    return case.response(case.answer(cert_id=CertId.of(case.leaf, other)))


@breaks("ocsp.unauthorised-responder")
def signed_by_a_sibling_ca(case: Case) -> bytes:
    return case.response(responder=case.world.authorities[Role.CPO_SUB2])


@breaks("ocsp.unauthorised-responder")
def signed_by_a_signer_of_another_ca(case: Case) -> bytes:
    certificate = case.world.leaf(Role.OCSP_SIGNER, by=Role.CPO_SUB2)
    return case.response(responder=Authority(certificate, case.signer.signer))


@breaks("ocsp.unauthorised-responder")
def signed_by_a_leaf_without_ocsp_signing(case: Case) -> bytes:
    """A contract certificate of the same issuer answers; it is put into the answer by hand."""
    plain = delegate(case, without=(x509.ExtendedKeyUsage,))
    with_it = case.response(responder=case.signer)
    ours = case.signer.certificate.public_bytes(Encoding.DER)
    theirs = plain.certificate.public_bytes(Encoding.DER)
    return with_certificate(with_it, ours, theirs)


def with_certificate(response: bytes, old: bytes, new: bytes) -> bytes:
    """An answer in which the certificate that came along is another one."""
    _, wrapped = der.Reader(response).next(der.SEQUENCE).children()
    _, octets = wrapped.children().next(der.SEQUENCE).children()
    tbs, algorithm, signature, certificates = octets.inside().next(der.SEQUENCE).children()
    assert certificates.content.endswith(old)
    basic = der.sequence(
        tbs.encoded, algorithm.encoded, signature.encoded, der.context(0, der.sequence(new))
    )
    inner = der.sequence(der.oid("1.3.6.1.5.5.7.48.1.1"), der.octet_string(basic))
    return der.sequence(der.enumerated(0), der.context(0, inner))


@breaks("ocsp.responder-validity")
def signer_has_expired(case: Case) -> bytes:
    return case.response(responder=delegate(case, not_after=case.now - timedelta(hours=1)))


@breaks("ocsp.responder-validity")
def signer_is_not_valid_yet(case: Case) -> bytes:
    return case.response(responder=delegate(case, not_before=case.now + timedelta(hours=1)))


@breaks("ocsp.signature")
def changed_after_signing(case: Case) -> bytes:
    """A "revoked" made "good": [1] with a time becomes unreadable, so a time is changed."""
    response = case.response()
    time = der.generalized_time(case.now + WEEK)
    later = der.generalized_time(case.now + 2 * WEEK)
    assert response.count(time) == 1
    return response.replace(time, later)


@breaks("ocsp.signature")
def changed_after_the_issuer_signed(case: Case) -> bytes:
    response = case.response(responder=case.issuer)
    return response.replace(
        der.generalized_time(case.now + WEEK), der.generalized_time(case.now + 2 * WEEK)
    )


@breaks("ocsp.stale")
def out_of_date(case: Case) -> bytes:
    return case.response(
        case.answer(this_update=case.now - WEEK, next_update=case.now - timedelta(seconds=1))
    )


@breaks("ocsp.stale")
def old_and_without_next_update(case: Case) -> bytes:
    return case.response(
        case.answer(this_update=case.now - timedelta(days=7, seconds=1), next_update=None)
    )


@breaks("ocsp.future")
def of_tomorrow(case: Case) -> bytes:
    return case.response(case.answer(this_update=case.now + timedelta(seconds=1)))


@breaks("ocsp.nonce")
def without_the_nonce(case: Case) -> bytes:
    return case.response()


@breaks("ocsp.nonce")
def with_another_nonce(case: Case) -> bytes:
    return case.response(nonce=NONCE[::-1])


@pytest.mark.parametrize(
    ("rule", "name", "make"), SPOILED_ANSWERS, ids=[n for _, n, _ in SPOILED_ANSWERS]
)
def test_each_rule_makes_an_answer_worthless(
    case: Case, rule: str, name: str, make: Callable[[Case], bytes]
) -> None:
    nonce = NONCE if rule == "ocsp.nonce" else None
    outcome = case.check(make(case), nonce=nonce)
    assert outcome.status is CertificateStatus.UNAVAILABLE
    assert rules(outcome) == [rule]
    assert outcome.as_dict()["findings"][0]["sentence"]


def test_every_rule_about_answers_has_a_case_here() -> None:
    of_ocsp = {code for code in RULES if code.startswith("ocsp.")}
    assert of_ocsp == {rule for rule, _, _ in SPOILED_ANSWERS}


def test_an_answer_without_next_update_holds_a_week(case: Case) -> None:
    answer = case.answer(this_update=case.now - WEEK, next_update=None)
    assert case.check(case.response(answer)).good


def test_that_it_was_revoked_does_not_go_out_of_date(case: Case) -> None:
    answer = case.answer(
        Revoked(case.now - 2 * WEEK),
        this_update=case.now - 2 * WEEK,
        next_update=case.now - WEEK,
    )
    outcome = case.check(case.response(answer))
    assert outcome.status is CertificateStatus.REVOKED
    assert rules(outcome) == ["revocation.revoked", "ocsp.stale"]


def test_of_two_answers_about_it_a_revocation_counts(case: Case) -> None:
    old = case.answer(Revoked(case.now - WEEK), this_update=case.now - timedelta(hours=2))
    assert case.check(case.response(case.answer(), old)).status is CertificateStatus.REVOKED


@given(st.data())
def test_no_change_of_an_answer_makes_it_good_or_raises(world: Any, data: Any) -> None:
    issuer = world.authorities[Role.MO_SUB1]
    certificate = world.authorities[Role.MO_SUB2].certificate
    answer = OcspAnswer(
        CertId.of(certificate, issuer.certificate),
        Revoked(world.now),
        world.now,
        world.now + WEEK,
    )
    response = bytearray(ocsp_response([answer], issuer, world.now, NONCE))
    at = data.draw(st.integers(0, len(response) - 1))
    response[at] ^= data.draw(st.integers(1, 255))
    outcome = check_ocsp_response(bytes(response), certificate, issuer.certificate, at=world.now)
    assert outcome.status is CertificateStatus.UNAVAILABLE


def test_where_to_ask_is_read_from_the_certificate(case: Case, world: Any) -> None:
    assert ocsp_url(case.leaf) == "http://127.0.0.1:8080/ocsp"
    assert ocsp_url(world.root(Role.CONTRACT)) is None


# ------------------------------------------------------------------------------------- CRLs


def crl_of(case: Case, *revoked: RevokedCertificate, **changes: Any) -> bytes:
    arguments = {
        "authority": case.issuer,
        "number": 7,
        "this_update": case.now,
        "next_update": case.now + WEEK,
    } | changes
    return certificate_revocation_list(revoked, **arguments)


def entry(case: Case) -> RevokedCertificate:
    at = case.now - timedelta(days=2)
    return RevokedCertificate(case.leaf.serial_number, at, RevocationReason.KEY_COMPROMISE)


def check(case: Case, crl: bytes, issuer: Any = None) -> Any:
    issuer = issuer or case.issuer.certificate
    return check_crl(crl, case.leaf, issuer, at=case.now)


def test_a_list_says_good_and_revoked(case: Case) -> None:
    other = RevokedCertificate(4711, case.now)
    outcome = check(case, crl_of(case, other))
    assert outcome.good
    assert outcome.findings == ()
    outcome = check(case, crl_of(case, other, entry(case)))
    assert outcome.status is CertificateStatus.REVOKED
    assert outcome.revoked_at == case.now - timedelta(days=2)
    assert outcome.reason == "keyCompromise"
    plain = RevokedCertificate(case.leaf.serial_number, case.now)
    assert check(case, crl_of(case, plain)).reason is None


@pytest.mark.parametrize("revoked", [False, True])
def test_openssl_verifies_our_lists(case: Case, tmp_path: Path, revoked: bool) -> None:
    write_chain(case, tmp_path)
    crl = crl_of(case, *([entry(case)] if revoked else [RevokedCertificate(5, case.now)]))
    loaded = x509.load_der_x509_crl(crl)
    (tmp_path / "crl.pem").write_bytes(loaded.public_bytes(Encoding.PEM))
    said = openssl(tmp_path, "crl", "-in", "crl.pem", "-noout", "-text", "-CAfile", "cas.pem")
    assert "verify OK" in said
    result = subprocess.run(
        [
            *("openssl", "verify", "-crl_check", "-CRLfile", "crl.pem", "-CAfile", "cas.pem"),
            *("-attime", str(int(case.now.timestamp())), "leaf.pem"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (result.returncode == 0) is not revoked
    assert ("certificate revoked" in result.stderr) is revoked


def list_with(case: Case, extension: x509.ExtensionType, critical: bool) -> bytes:
    algorithm = case.issuer.signer.algorithm
    built = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(case.issuer.certificate.subject)
        .last_update(case.now)
        .next_update(case.now + WEEK)
        .add_extension(extension, critical)
        .sign(algorithm.generate(), algorithm.hash)
    )
    return sealed(built.tbs_certlist_bytes, case.issuer.signer)


PARTIAL = x509.IssuingDistributionPoint(
    full_name=None,
    relative_name=None,
    only_contains_user_certs=False,
    only_contains_ca_certs=True,
    only_some_reasons=None,
    indirect_crl=False,
    only_contains_attribute_certs=False,
)


@pytest.mark.parametrize(
    ("rule", "make"),
    [
        ("crl.unreadable", lambda c: b"nothing"),
        ("crl.unreadable", lambda c: crl_of(c)[:-1]),
        ("crl.other-issuer", lambda c: crl_of(c, authority=c.world.authorities[Role.CPO_SUB2])),
        ("crl.signature", lambda c: flipped(crl_of(c))),
        ("crl.extension", lambda c: list_with(c, PARTIAL, True)),
        ("crl.stale", lambda c: crl_of(c, this_update=c.now - WEEK, next_update=c.now - WEEK / 2)),
        ("crl.future", lambda c: crl_of(c, this_update=c.now + WEEK / 2)),
    ],
)
def test_each_rule_makes_a_list_worthless(
    case: Case, rule: str, make: Callable[[Case], bytes]
) -> None:
    outcome = check(case, make(case))
    assert outcome.status is CertificateStatus.UNAVAILABLE
    assert rules(outcome) == [rule]


def flipped(crl: bytes) -> bytes:
    return crl[:-1] + bytes([crl[-1] ^ 1])


def test_an_issuer_without_crl_sign_may_not_sign_lists(case: Case) -> None:
    from pki.issuing import key_usage
    from pki.profiles import KeyUsage

    usage = (key_usage(frozenset({KeyUsage.KEY_CERT_SIGN})), True)
    above = case.world.authorities[Role.MO_SUB1]
    plain = case.world.spoiled(case.issuer.certificate, above, extensions=(usage,))
    assert rules(check(case, crl_of(case), plain)) == ["crl.unauthorised-issuer"]
    without = case.world.spoiled(case.issuer.certificate, above, without=(x509.KeyUsage,))
    assert check(case, crl_of(case), without).good


@given(st.binary(max_size=100))
def test_no_bytes_make_the_checks_raise(world: Any, content: bytes) -> None:
    sub2, sub1 = world.chain(Role.CONTRACT)
    for check_ in (check_crl, check_ocsp_response):
        outcome = check_(content, sub2, sub1, at=world.now)
        assert outcome.status is CertificateStatus.UNAVAILABLE


# ------------------------------------------------------------------- as the walker uses them


def answers_for(case: Case, statuses: dict[Role | None, Any] | None = None) -> list[bytes]:
    """One answer per certificate of the contract's chain, each signed by its issuer; None is
    the leaf."""
    world, statuses = case.world, statuses or {}
    found = []
    for role, certificate, issuing in (
        (None, case.leaf, Role.MO_SUB2),
        (Role.MO_SUB2, world.authorities[Role.MO_SUB2].certificate, Role.MO_SUB1),
        (Role.MO_SUB1, world.authorities[Role.MO_SUB1].certificate, Role.MO_ROOT),
    ):
        issuer = world.authorities[issuing]
        status = statuses.get(role, CertificateStatus.GOOD)
        if status is not None:
            cert_id = CertId.of(certificate, issuer.certificate)
            answer = OcspAnswer(cert_id, status, case.now, case.now + WEEK)
            found.append(ocsp_response([answer], issuer, case.now))
    return found


def walk(
    case: Case,
    evidence: Any,
    policy: RevocationPolicy = RevocationPolicy.REQUIRE,
) -> Verdict:
    world = case.world
    return judge(
        case.leaf,
        world.chain(Role.CONTRACT),
        [world.root(Role.CONTRACT)],
        role=Role.CONTRACT,
        edition=ISO2,
        at=case.now,
        revocation=evidence,
        revocation_policy=policy,
    )


def walked(verdict: Verdict) -> list[tuple[str, str, str]]:
    return [
        (f.rule, f.certificate.label if f.certificate else "", f.severity.value)
        for f in verdict.findings
    ]


LEAF = "contract certificate"


def test_with_every_answer_the_chain_is_accepted(case: Case) -> None:
    verdict = walk(case, answers_for(case))
    assert verdict.accepted
    assert walked(verdict) == []
    assert verdict.verifications == 6


def test_evidence_may_come_by_fingerprint(case: Case, world: Any) -> None:
    path = [case.leaf, *world.chain(Role.CONTRACT)]
    by_fingerprint = {
        c.fingerprint(hashes.SHA256()).hex(): answer
        for c, answer in zip(path, answers_for(case), strict=True)
    }
    assert walk(case, by_fingerprint).accepted
    by_fingerprint.popitem()
    assert not walk(case, by_fingerprint).accepted


@pytest.mark.parametrize("policy", [RevocationPolicy.REQUIRE, RevocationPolicy.IF_AVAILABLE])
@pytest.mark.parametrize(
    ("role", "label"), [(None, LEAF), (Role.MO_SUB2, "sub-CA 2"), (Role.MO_SUB1, "sub-CA 1")]
)
def test_revoked_refuses_wherever_it_stands(
    case: Case, policy: RevocationPolicy, role: Any, label: str
) -> None:
    evidence = answers_for(case, {role: Revoked(case.now)})
    verdict = walk(case, evidence, policy)
    assert walked(verdict) == [("revocation.revoked", label, "error")]
    assert codes.iso2_code(verdict) == "FAILED_CertificateRevoked"
    assert codes.ocpp_status(verdict) == "CertificateRevoked"
    assert walk(case, evidence, RevocationPolicy.IGNORE).accepted


def test_unknown_refuses(case: Case) -> None:
    evidence = answers_for(case, {None: CertificateStatus.UNKNOWN})
    for policy in (RevocationPolicy.REQUIRE, RevocationPolicy.IF_AVAILABLE):
        assert walked(walk(case, evidence, policy)) == [("revocation.unknown", LEAF, "error")]


def test_no_answer_refuses_where_one_is_required(case: Case) -> None:
    evidence = answers_for(case, {Role.MO_SUB2: None})
    verdict = walk(case, evidence)
    assert walked(verdict) == [("revocation.unavailable", "sub-CA 2", "error")]
    assert codes.ocpp_status(verdict) == "CertChainError"
    assert walk(case, evidence, RevocationPolicy.IF_AVAILABLE).accepted
    assert walk(case, (), RevocationPolicy.IF_AVAILABLE).findings == ()


def test_a_worthless_answer_is_told_and_refuses_only_where_one_is_required(case: Case) -> None:
    stale = case.response(
        case.answer(this_update=case.now - WEEK, next_update=case.now - WEEK / 2),
        responder=case.issuer,
    )
    evidence = [stale, *answers_for(case, {None: None})]
    assert walked(walk(case, evidence)) == [
        ("ocsp.stale", LEAF, "error"),
        ("revocation.unavailable", LEAF, "error"),
    ]
    verdict = walk(case, evidence, RevocationPolicy.IF_AVAILABLE)
    assert verdict.accepted
    assert walked(verdict) == [("ocsp.stale", LEAF, "warning")]


def test_a_list_that_says_revoked_outweighs_an_answer_that_says_good(case: Case) -> None:
    evidence: Sequence[bytes] = [*answers_for(case), crl_of(case, entry(case))]
    assert walked(walk(case, evidence)) == [("revocation.revoked", LEAF, "error")]
    assert walk(case, [*answers_for(case), crl_of(case)]).accepted


def test_lists_alone_do(case: Case, world: Any) -> None:
    lists = [
        crl_of(case, authority=world.authorities[role])
        for role in (Role.MO_ROOT, Role.MO_SUB1, Role.MO_SUB2)
    ]
    assert walk(case, lists).accepted
    assert not walk(case, lists[:-1]).accepted
