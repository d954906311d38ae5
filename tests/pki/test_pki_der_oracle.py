"""What we assemble is DER by another implementation's word: pyasn1's strict codec.

pki.der puts tag, length and value together where no library can (signing through a Signer,
several certificates in one OCSP message). pyasn1 takes it apart by the ASN.1 of the RFCs, as
far as it is written down here, and puts the very same bytes together again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from pyasn1.codec.der import decoder, encoder
from pyasn1.type import namedtype, tag, univ, useful

from pki import der
from pki.issuing import Authority, certificate_request
from pki.names import Subject
from pki.profiles import Role
from pki.revocation import (
    CertId,
    CertificateStatus,
    OcspAnswer,
    RevocationReason,
    Revoked,
    RevokedCertificate,
    certificate_revocation_list,
    ocsp_request_of,
    ocsp_response,
)


def explicit(number: int) -> tag.Tag:
    return tag.Tag(tag.tagClassContext, tag.tagFormatConstructed, number)


class AnySequence(univ.SequenceOf):
    componentType = univ.Any()


class CertIDs(univ.Sequence):
    """CertID of RFC 6960 section 4.1.1."""

    componentType = namedtype.NamedTypes(
        namedtype.NamedType("hashAlgorithm", AnySequence()),
        namedtype.NamedType("issuerNameHash", univ.OctetString()),
        namedtype.NamedType("issuerKeyHash", univ.OctetString()),
        namedtype.NamedType("serialNumber", univ.Integer()),
    )


class OneRequest(univ.Sequence):
    componentType = namedtype.NamedTypes(namedtype.NamedType("reqCert", CertIDs()))


class Requests(univ.SequenceOf):
    componentType = OneRequest()


class TBSRequest(univ.Sequence):
    componentType = namedtype.NamedTypes(
        namedtype.NamedType("requestList", Requests()),
        namedtype.OptionalNamedType(
            "requestExtensions", AnySequence().subtype(explicitTag=explicit(2))
        ),
    )


class OCSPRequest(univ.Sequence):
    componentType = namedtype.NamedTypes(namedtype.NamedType("tbsRequest", TBSRequest()))


class Signed(univ.Sequence):
    """The frame of certificates, requests, lists and OCSP answers."""

    componentType = namedtype.NamedTypes(
        namedtype.NamedType("tbs", AnySequence()),
        namedtype.NamedType("signatureAlgorithm", AnySequence()),
        namedtype.NamedType("signature", univ.BitString()),
        namedtype.OptionalNamedType("certificates", AnySequence().subtype(explicitTag=explicit(0))),
    )


def taken_apart(encoded: bytes, spec: Any) -> Any:
    """The value by pyasn1, which must make the same bytes of it and leave nothing over."""
    value, rest = decoder.decode(encoded, asn1Spec=spec)
    assert rest == b""
    assert encoder.encode(value) == encoded
    return value


@pytest.fixture
def issuer(world: Any) -> Authority:
    authority: Authority = world.authorities[Role.MO_SUB2]
    return authority


def test_certificates_and_requests(world: Any) -> None:
    for role in (Role.CONTRACT, Role.SECC, Role.CPS, Role.OEM_PROVISIONING):
        certificate = world.leaf(role).public_bytes(Encoding.DER)
        assert len(taken_apart(certificate, Signed())["tbs"]) == 8
    request = certificate_request(Subject("DEABCC123456788", "pnclab test"), world.key("a key"))
    assert len(taken_apart(request, Signed())["tbs"]) == 4


def test_an_ocsp_request_for_three_with_a_nonce(world: Any, issuer: Authority) -> None:
    wanted = [CertId.of(world.leaf(Role.CONTRACT), issuer.certificate) for _ in range(3)]
    value = taken_apart(ocsp_request_of(wanted, nonce=bytes(16)), OCSPRequest())
    serials = [int(one["reqCert"]["serialNumber"]) for one in value["tbsRequest"]["requestList"]]
    assert serials == [one.serial for one in wanted]


def test_ocsp_answers_and_lists(world: Any, issuer: Authority) -> None:
    leaf = world.leaf(Role.CONTRACT)
    signer = Authority(world.leaf(Role.OCSP_SIGNER, by=Role.MO_SUB2), world.key("ocsp-signer leaf"))
    until = world.now + timedelta(days=1)
    for status in (
        CertificateStatus.GOOD,
        CertificateStatus.UNKNOWN,
        Revoked(world.now, RevocationReason.KEY_COMPROMISE),
    ):
        answer = OcspAnswer(CertId.of(leaf, issuer.certificate), status, world.now, until)
        response = ocsp_response([answer], signer, world.now, nonce=bytes(16))
        outer = der.Reader(response).next(der.SEQUENCE).children()
        outer.next(der.ENUMERATED)
        inner = outer.next(0xA0).children().next(der.SEQUENCE).children()
        inner.next(der.OBJECT_IDENTIFIER)
        taken_apart(inner.next(der.OCTET_STRING).content, Signed())
    revoked = [RevokedCertificate(leaf.serial_number, world.now, RevocationReason.SUPERSEDED)]
    crl = certificate_revocation_list(revoked, issuer, 7, world.now, until)
    assert len(taken_apart(crl, Signed())["tbs"]) == 7


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, 2**159 - 1, 2**64])
def test_integers(number: int) -> None:
    assert int(taken_apart(der.integer(number), univ.Integer())) == number


@pytest.mark.parametrize("dotted", ["1.2.840.10045.4.3.2", "2.5.29.15", "1.3.6.1.5.5.7.48.1.5"])
def test_object_identifiers(dotted: str) -> None:
    assert str(taken_apart(der.oid(dotted), univ.ObjectIdentifier())) == dotted


def test_generalized_time(world: Any) -> None:
    value = taken_apart(der.generalized_time(world.now), useful.GeneralizedTime())
    assert value.asDateTime == world.now
