"""Issuing: profiles are followed, requests that contradict them refused, both ways are one."""

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from pki.edition import EDITIONS, ISO2, edition
from pki.identifiers import EMAID, PCID
from pki.issuing import (
    Authority,
    CertificateRequestError,
    IssuingError,
    LeafTemplate,
    certificate_request,
    issue,
    new_serial,
    read_certificate_request,
    self_issue,
    validity_within,
)
from pki.keys import ECDSA_P521_SHA512, SoftwareKey
from pki.names import Subject, readable
from pki.profiles import DEVIATIONS, KeyUsage, Role, profile, profiles
from pki.trust import OPERATOR_ROOTS, SINGLE_ROOT, hierarchy

CONTRACT = profile(Role.CONTRACT, ISO2)


def test_editions_are_found_by_both_names() -> None:
    assert edition("iso2") is edition("iso15118-2") is ISO2 is EDITIONS["iso2"]
    with pytest.raises(KeyError, match=r"iso2 \(iso15118-2\)"):
        edition("iso30")


def test_every_role_has_every_row_with_source_and_evidence() -> None:
    assert {p.role for p in profiles(ISO2)} == set(Role)
    for rules in profiles(ISO2):
        fields = [row.field for row in rules.rows]
        assert len(fields) == len(set(fields)) == 12
        assert all(row.source and row.evidence for row in rules.rows)
        assert rules.key_usage.mandatory <= rules.key_usage.issued
        assert rules.basic_constraints.ca is rules.role.is_ca
        assert (KeyUsage.KEY_CERT_SIGN in rules.key_usage.issued) is rules.role.is_ca


@pytest.mark.parametrize("model", [OPERATOR_ROOTS, SINGLE_ROOT], ids=str)
def test_openssl_verifies_every_leaf_of_both_trust_models(
    make_world: Callable[..., Any], tmp_path: Path, model: Any
) -> None:
    world = make_world(model)
    for role in (Role.SECC, Role.CPS, Role.CONTRACT, Role.OEM_PROVISIONING):
        leaf = world.leaf(role)
        files = {
            "root.pem": [world.root(role)],
            "subs.pem": world.chain(role),
            "leaf.pem": [leaf],
        }
        for name, certificates in files.items():
            text = b"".join(c.public_bytes(Encoding.PEM) for c in certificates)
            (tmp_path / name).write_bytes(text)
        command = [
            *("openssl", "verify", "-x509_strict", "-attime", str(int(world.now.timestamp()))),
            *("-CAfile", "root.pem", "-untrusted", "subs.pem", "leaf.pem"),
        ]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        assert len(leaf.public_bytes(Encoding.DER)) <= 800


def test_pyca_policy_builder_agrees(world: Any) -> None:
    """An independent path validation, told that a missing SAN is no fault."""
    from cryptography.x509 import verification as v

    def allowed(policy: v.ExtensionPolicy) -> v.ExtensionPolicy:
        return policy.require_present(x509.BasicConstraints, v.Criticality.CRITICAL, None)

    builder = (
        v.PolicyBuilder()
        .time(world.now)
        .max_chain_depth(2)
        .extension_policies(
            ca_policy=allowed(v.ExtensionPolicy.permit_all()),
            ee_policy=v.ExtensionPolicy.permit_all(),
        )
    )
    for role in (Role.SECC, Role.CPS, Role.CONTRACT, Role.OEM_PROVISIONING):
        verifier = builder.store(v.Store([world.root(role)])).build_client_verifier()
        chain = verifier.verify(world.leaf(role), world.chain(role)).chain
        assert len(chain) == 4


def test_a_certificate_has_what_its_profile_says(world: Any) -> None:
    leaf = world.leaf(Role.CONTRACT)
    extensions = leaf.extensions
    assert [(e.oid._name, e.critical) for e in extensions] == [
        ("basicConstraints", True),
        ("keyUsage", True),
        ("subjectKeyIdentifier", False),
        ("authorityKeyIdentifier", False),
        ("authorityInfoAccess", False),
    ]
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.digital_signature, usage.content_commitment) == (True, True)
    assert (usage.key_encipherment, usage.key_agreement) == (True, True)
    assert not usage.key_cert_sign
    assert readable(leaf.subject) == "CN=DEABCC123456788, O=pnclab test, C=DE, DC=MO"
    issuer = world.authorities[Role.MO_SUB2].certificate
    own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    named = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert own == named
    assert leaf.not_valid_after_utc <= issuer.not_valid_after_utc


def test_the_ocsp_signer_is_one(world: Any) -> None:
    signer = world.leaf(Role.OCSP_SIGNER, by=Role.CPO_SUB2)
    purposes = signer.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [p._name for p in purposes] == ["OCSPSigning"]
    assert signer.extensions.get_extension_for_class(x509.OCSPNoCheck)


def request_of(world: Any, **changes: Any) -> dict[str, Any]:
    authority = world.authorities[Role.MO_SUB2]
    start, end = validity_within(CONTRACT, authority, world.now)
    asked: dict[str, Any] = {
        "subject": CONTRACT.subject("DEABCC123456788", "pnclab test", "DE"),
        "public_key": world.key("somebody").public_key,
        "authority": authority,
        "not_before": start,
        "not_after": end,
        "serial": 77,
    }
    return asked | changes


def test_the_request_that_is_spoiled_below_is_granted(world: Any) -> None:
    assert issue(CONTRACT, **request_of(world)).serial_number == 77


@pytest.mark.parametrize("serial", [0, -1, 2**159])
def test_serial_numbers_are_positive_and_fit(world: Any, serial: int) -> None:
    with pytest.raises(IssuingError) as caught:
        issue(CONTRACT, **request_of(world, serial=serial))
    assert caught.value.field == "serialNumber"
    assert issue(CONTRACT, **request_of(world, serial=2**159 - 1))


def refused(world: Any, profile_: Any = CONTRACT, **changes: Any) -> IssuingError:
    with pytest.raises(IssuingError) as caught:
        issue(profile_, **request_of(world, **changes))
    return caught.value


def test_a_key_of_another_curve_is_refused(world: Any) -> None:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    error = refused(world, public_key=key)
    assert (error.field, error.seen, error.wanted) == (
        "subjectPublicKeyInfo",
        "a key of secp384r1",
        "a key of secp256r1",
    )


def test_validity_ends_with_the_issuers(world: Any) -> None:
    authority = world.authorities[Role.MO_SUB2]
    end = authority.certificate.not_valid_after_utc
    assert issue(CONTRACT, **request_of(world, not_after=end))
    assert refused(world, not_after=end + timedelta(seconds=1)).field == "validity"
    early = authority.certificate.not_valid_before_utc - timedelta(seconds=1)
    assert refused(world, not_before=early).field == "validity"
    assert refused(world, not_after=world.now).field == "validity"


def test_the_common_name_is_the_identifier(world: Any) -> None:
    error = refused(world, subject=CONTRACT.subject("a name", "pnclab test"))
    assert error.field == "subject.CN"
    assert error.wanted == "the EMAID"


@pytest.mark.parametrize("dc", [("CPO",), ("MO", "CPO")])
def test_another_domain_component_is_refused(world: Any, dc: tuple[str, ...]) -> None:
    subject = Subject("DEABCC123456788", "pnclab test", "DE", dc)
    assert refused(world, subject=subject).field == "subject.DC"


def test_an_optional_domain_component_may_be_left_out_and_a_required_one_not(world: Any) -> None:
    assert issue(CONTRACT, **request_of(world, subject=Subject("DEABCC123456788", "pnclab test")))
    secc = profile(Role.SECC, ISO2)
    authority = world.authorities[Role.CPO_SUB2]
    end = world.now + timedelta(days=30)
    error = refused(world, secc, subject=Subject("DEPNCE1"), authority=authority, not_after=end)
    assert error.field == "subject.DC"


def test_a_certificate_larger_than_the_edition_allows_is_refused(world: Any) -> None:
    url = "http://127.0.0.1/" + "x" * 300
    error = refused(world, ocsp_url=url)
    assert error.rule == "[V2G2-010]"
    assert error.wanted == "at most 800 bytes"


def test_no_leaf_by_a_root_and_no_ca_below_the_last(world: Any) -> None:
    root = world.authorities[Role.MO_ROOT]
    assert refused(world, authority=root).rule == "[V2G2-867]"
    sub2 = profile(Role.MO_SUB2, ISO2)
    error = refused(world, sub2, subject=sub2.subject("CA"), serial=5)
    assert error.field == "basicConstraints.pathLenConstraint"
    leaf = Authority(world.leaf(Role.CONTRACT), world.key("contract leaf"))
    assert refused(world, authority=leaf).field == "issuer"


def test_names_that_are_too_long_are_refused(world: Any) -> None:
    subject = CONTRACT.subject("DEABCC123456788", "x" * 65)
    assert refused(world, subject=subject).field == "subject"


def test_an_authority_needs_the_key_of_its_certificate(world: Any) -> None:
    certificate = world.authorities[Role.MO_SUB2].certificate
    with pytest.raises(IssuingError, match="holds another key"):
        Authority(certificate, world.key("somebody else"))


def test_a_role_that_is_no_root_does_not_sign_itself(world: Any) -> None:
    with pytest.raises(IssuingError, match="signs itself"):
        self_issue(
            CONTRACT,
            subject=CONTRACT.subject("DEABCC123456788"),
            signer=world.key("x"),
            not_before=world.now,
            not_after=world.now + timedelta(days=1),
            serial=1,
        )


def test_a_deviation_is_issued_as_it_says(world: Any) -> None:
    root = profile(Role.V2G_ROOT, ISO2)
    certificate = self_issue(
        root,
        subject=root.subject("V2G root", "pnclab test"),
        signer=world.key("odd root"),
        not_before=world.now,
        not_after=world.now + timedelta(days=1),
        serial=1,
        deviations=[DEVIATIONS["root-with-ocsp-signing"]],
    )
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [p._name for p in purposes] == ["OCSPSigning"]


@given(st.binary(min_size=8, max_size=20))
def test_serial_numbers_are_as_long_as_their_entropy(entropy: bytes) -> None:
    serial = new_serial(entropy)
    assert 1 <= serial < 2**159
    assert (serial.bit_length() + 7) // 8 == len(entropy)


def test_too_little_entropy_makes_no_serial_number() -> None:
    with pytest.raises(ValueError, match="8 to 20 bytes"):
        new_serial(bytes(7))


# ------------------------------------------------------------------------------ the fast way


def template(world: Any, role: Role = Role.CONTRACT) -> LeafTemplate:
    return LeafTemplate(
        profile(role, ISO2),
        world.authorities[world.issuer(role)],
        "pnclab test",
        "DE",
        ocsp_url="http://127.0.0.1:8080/ocsp",
        crl_url="http://127.0.0.1:8080/crl",
    )


@given(
    rest=st.text("ABCXYZ019", min_size=12, max_size=12),
    digit=st.booleans(),
    seed=st.binary(min_size=1, max_size=4),
    entropy=st.binary(min_size=8, max_size=20),
    days=st.integers(0, 300),
    life=st.integers(1, 9000),
)
def test_both_ways_give_the_same_bytes(
    world: Any, rest: str, digit: bool, seed: bytes, entropy: bytes, days: int, life: int
) -> None:
    fast = template(world)
    first = EMAID.with_check_digit("DE", rest[:3], rest[3:])
    authority = fast.authority
    start = world.now + timedelta(days=days)
    end = min(start + timedelta(days=life), authority.certificate.not_valid_after_utc)
    serial = new_serial(entropy)
    for number in range(3):  # the first makes the template, the next ones use it
        key = SoftwareKey.derive(seed, str(number), ISO2).public_key
        name = first.wire if digit else first.normal
        slow = issue(
            CONTRACT,
            subject=CONTRACT.subject(name, "pnclab test", "DE"),
            public_key=key,
            authority=authority,
            not_before=start,
            not_after=end,
            serial=serial + number,
            ocsp_url=fast.ocsp_url,
            crl_url=fast.crl_url,
        )
        quick = fast.issue(
            name, public_key=key, not_before=start, not_after=end, serial=serial + number
        )
        assert quick.public_bytes(Encoding.DER) == slow.public_bytes(Encoding.DER)


def test_the_template_takes_names_of_every_length_and_years_after_2049(world: Any) -> None:
    fast = template(world, Role.OEM_PROVISIONING)
    rules = fast.profile
    key = world.key("car").public_key
    for name in ("X", "OEMProvCert", "WPNC1234567890123", "Ü" * 20):
        for serial in (1, 127, 128, 2**64, 2**159 - 1):
            asked = {"public_key": key, "not_before": world.now, "serial": serial}
            end = world.now + timedelta(days=100)
            slow = issue(
                rules,
                subject=rules.subject(name, "pnclab test", "DE"),
                authority=fast.authority,
                not_after=end,
                ocsp_url=fast.ocsp_url,
                crl_url=fast.crl_url,
                **asked,
            )
            assert fast.issue(name, not_after=end, **asked) == slow
            assert fast.issue(name, not_after=end, **asked) == slow


def test_times_from_2050_on_are_generalized(make_world: Callable[..., Any]) -> None:
    world = make_world(OPERATOR_ROOTS, now=datetime(2049, 6, 1, tzinfo=UTC))
    fast = template(world, Role.OEM_PROVISIONING)
    key = world.key("car").public_key
    for end in (datetime(2049, 12, 31, tzinfo=UTC), datetime(2051, 1, 1, tzinfo=UTC)):
        asked = {"public_key": key, "not_before": world.now, "not_after": end, "serial": 3}
        slow = issue(
            fast.profile,
            subject=fast.profile.subject("WPNC1234567890123", "pnclab test", "DE"),
            authority=fast.authority,
            ocsp_url=fast.ocsp_url,
            crl_url=fast.crl_url,
            **asked,
        )
        assert fast.issue("WPNC1234567890123", **asked) == slow
        assert fast.issue(PCID.parse("WPNC1234567890123"), **asked) == slow


def test_the_fast_way_refuses_what_the_slow_one_does(world: Any) -> None:
    fast = template(world)
    end = fast.authority.certificate.not_valid_after_utc
    good = {
        "public_key": world.key("driver").public_key,
        "not_before": world.now,
        "not_after": end,
        "serial": 9,
    }
    assert fast.issue("DEABCC123456788", **good)
    for name, changes in (
        ("somebody", {}),
        ("", {}),
        ("DEABCC123456788", {"serial": 0}),
        ("DEABCC123456788", {"not_after": end + timedelta(seconds=1)}),
        ("DEABCC123456788", {"not_after": world.now}),
        (
            "DEABCC123456788",
            {"public_key": ec.generate_private_key(ec.SECP384R1()).public_key()},
        ),
    ):
        with pytest.raises(IssuingError):
            fast.issue(name, **(good | changes))
    wide = LeafTemplate(CONTRACT, fast.authority, "pnclab test", ocsp_url="http://h/" + "x" * 300)
    with pytest.raises(IssuingError, match="bytes of DER"):
        wide.issue("DEABCC123456788", **good)


def test_the_fast_way_knows_how_long_a_name_may_be(world: Any) -> None:
    fast = template(world, Role.SECC)
    asked = {
        "public_key": world.key("station").public_key,
        "not_before": world.now,
        "not_after": world.now + timedelta(days=1),
        "serial": 9,
    }
    assert fast.issue("Ü" * 32, **asked)
    assert fast.issue("x" * 64, **asked)
    for name in ("Ü" * 33, "x" * 66, "\ud800" * 10):
        with pytest.raises(IssuingError):
            fast.issue(name, **asked)


# --------------------------------------------------------------------------------- requests


def test_a_request_is_read_back_and_openssl_accepts_it(world: Any, tmp_path: Path) -> None:
    key = world.key("applicant")
    encoded = certificate_request(Subject("DEPNCE0001", "pnclab test", "DE", ("CPO",)), key)
    read = read_certificate_request(encoded)
    assert read.subject == Subject("DEPNCE0001", "pnclab test", "DE", ("CPO",))
    assert read.public_key == key.public_key
    (tmp_path / "r.der").write_bytes(encoded)
    command = ["openssl", "req", "-inform", "DER", "-in", "r.der", "-verify", "-noout"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "OK" in result.stderr


def test_a_request_signed_by_another_key_is_refused(world: Any) -> None:
    encoded = certificate_request(Subject("x"), world.key("applicant"))
    with pytest.raises(CertificateRequestError, match="not made by the key"):
        read_certificate_request(encoded[:-1] + bytes([encoded[-1] ^ 1]))


def test_a_request_signed_over_sha1_is_refused_for_that(tmp_path: Path) -> None:
    command = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem"
    subprocess.run(
        [*command.split(), "-subj", "/CN=x", "-sha1", "-out", "r.pem"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    with pytest.raises(CertificateRequestError, match="over sha1"):
        read_certificate_request((tmp_path / "r.pem").read_bytes())


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reading_of_requests_raise_anything_else(encoded: bytes) -> None:
    with pytest.raises(CertificateRequestError):
        read_certificate_request(encoded)


def test_other_curves_are_a_value_away() -> None:
    key = SoftwareKey.derive(b"seed", "p521", ECDSA_P521_SHA512)
    assert len(key.scalar()) == 66
    assert key.algorithm.verifies(key.public_key, key.sign(b"data"), b"data")
    assert not key.algorithm.verifies(key.public_key, key.sign(b"data"), b"other")


@pytest.mark.parametrize("model", [OPERATOR_ROOTS, SINGLE_ROOT], ids=str)
def test_a_hierarchy_names_issuers_before_whom_they_issue(model: Any) -> None:
    order = hierarchy(model, ISO2)
    for role in order:
        issuer = model.issuer(role)
        assert issuer is None or order.index(issuer) < order.index(role)
    assert (Role.MO_ROOT in order) is (model is OPERATOR_ROOTS)
