"""A bag of certificates in their order, by other implementations' word."""

from __future__ import annotations

import itertools
import subprocess
import warnings
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import (
    load_der_pkcs7_certificates,
    serialize_certificates,
)
from cryptography.x509.oid import NameOID

from pki import der
from pki.edition import ISO2
from pki.issuing import self_issue, validity_within
from pki.keys import SoftwareKey
from pki.pkcs7 import certificates_in, certificates_only
from pki.profiles import Role, profile


@pytest.fixture(scope="module")
def roots() -> list[x509.Certificate]:
    rules = profile(Role.MO_ROOT, ISO2)
    begin, end = validity_within(rules, None, datetime(2026, 11, 22, tzinfo=UTC))
    return [
        self_issue(
            rules,
            subject=rules.subject(f"root {number}"),
            signer=SoftwareKey.generate(ISO2),
            not_before=begin,
            not_after=end,
            serial=number,
        )
        for number in (1, 2, 3)
    ]


def names(certificates: object) -> list[str]:
    return [
        str(one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        for one in certificates  # type: ignore[attr-defined]
    ]


def test_openssl_and_pyca_read_the_order_that_was_given(roots: list[x509.Certificate]) -> None:
    for order in itertools.permutations(roots):
        raw = [one.public_bytes(Encoding.DER) for one in order]
        encoded = certificates_only(raw)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it is BER, which it is
            assert names(load_der_pkcs7_certificates(encoded)) == names(order)
        assert certificates_in(encoded) == tuple(raw)
        command = ["openssl", "pkcs7", "-inform", "DER", "-print_certs"]
        done = subprocess.run(command, input=encoded, capture_output=True, check=True)
        assert x509.load_pem_x509_certificates(done.stdout) == list(order)


def test_what_pyca_writes_is_read(roots: list[x509.Certificate]) -> None:
    """It sorts, as DER wants, and leaves nothing out."""
    found = certificates_in(serialize_certificates(roots, Encoding.DER))
    assert set(found) == {one.public_bytes(Encoding.DER) for one in roots}


def test_none_at_all_and_what_is_no_such_message(roots: list[x509.Certificate]) -> None:
    assert certificates_in(certificates_only([])) == ()
    encoded = certificates_only([roots[0].public_bytes(Encoding.DER)])
    for wrong in (
        b"",
        encoded[:-1],
        encoded + b"\x00",
        der.sequence(der.oid("1.2.840.113549.1.7.1")),
        roots[0].public_bytes(Encoding.DER),
    ):
        with pytest.raises(der.DerError):
            certificates_in(wrong)
