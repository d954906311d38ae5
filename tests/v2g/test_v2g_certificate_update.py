"""CertificateUpdate as values: what is signed, what is refused, what a refusal carries."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pki.edition import ISO2
from pki.keys import SoftwareKey
from v2g import exi
from v2g.certificate_installation import (
    ContractData,
    RootId,
    WrongMessage,
    failed_response,
    read_response,
)
from v2g.certificate_update import (
    MOST_DAYS,
    NEVER,
    NEXT_TIME,
    build_update_request,
    failed_update,
    read_update_request,
    read_update_response,
    update_response,
)
from v2g.messages import iso2
from v2g.signature import SignatureError

SESSION = bytes.fromhex("A1B2C3D4E5F60718")
EMAID = "DESUNC12345678X"


def certificate(name: str) -> x509.Certificate:
    """Any certificate: its chain is nobody's concern here."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )


@pytest.fixture(scope="module")
def key() -> SoftwareKey:
    return SoftwareKey.generate(ISO2)


@pytest.fixture(scope="module")
def request_bytes(key: SoftwareKey) -> bytes:
    chain = [certificate(EMAID), certificate("sub 2"), certificate("sub 1")]
    roots = [RootId("CN=V2G", 1), RootId("CN=Other", 2**70)]
    return exi.encode(iso2.SCHEMA, build_update_request(SESSION, EMAID, chain, roots, key))


def test_a_request_says_what_it_was_built_from(key: SoftwareKey, request_bytes: bytes) -> None:
    request = read_update_request(request_bytes)
    assert request.session_id == SESSION
    assert request.emaid == EMAID
    assert len(request.contract_chain) == 3
    assert request.roots == (RootId("CN=V2G", 1), RootId("CN=Other", 2**70))
    request.verify(key.public_key)


@pytest.mark.parametrize(
    "change",
    [
        {"eMAID": "DESUNC87654321"},
        {"ListOfRootCertificateIDs": RootId.listed([RootId("CN=V2G", 2)])},
        {"ContractSignatureCertChain": iso2.CertificateChain(Certificate=b"\x30\x00")},
    ],
)
def test_every_part_of_a_request_is_signed(
    key: SoftwareKey, request_bytes: bytes, change: dict[str, object]
) -> None:
    request = read_update_request(request_bytes)
    values = {
        name: getattr(request.body, name)
        for name in ("Id", "ContractSignatureCertChain", "eMAID", "ListOfRootCertificateIDs")
    }
    spoilt = replace(request, body=iso2.CertificateUpdateReq(**{**values, **change}))
    with pytest.raises(SignatureError) as refused:
        spoilt.verify(key.public_key)
    assert refused.value.code == "digest"


def test_only_the_contracts_key_signs_a_request(request_bytes: bytes) -> None:
    with pytest.raises(SignatureError) as refused:
        read_update_request(request_bytes).verify(SoftwareKey.generate(ISO2).public_key)
    assert refused.value.code == "value"


def data() -> ContractData:
    return ContractData(
        (b"\x30\x01", b"\x30\x02"), bytes(48), b"\x04" + bytes(64), EMAID, (b"\x30",)
    )


def test_the_signature_is_the_same_in_both_answers(key: SoftwareKey) -> None:
    """It covers four elements that both have, so a pool may keep either."""
    signed = data().signed(key)
    update = read_update_response(exi.encode(iso2.SCHEMA, update_response(signed, SESSION)))
    update.verify(key.public_key)
    assert update.data == signed
    assert update.retry_counter is None
    installation = read_response(exi.encode(iso2.SCHEMA, signed.response(SESSION)))
    installation.verify(key.public_key)
    assert installation.data == update.data


@pytest.mark.parametrize("days", [NEVER, NEXT_TIME, 1, MOST_DAYS])
def test_a_refusal_says_when_to_ask_again(days: int) -> None:
    code = iso2.ResponseCode.FAILED_NoCertificateAvailable
    response = read_update_response(exi.encode(iso2.SCHEMA, failed_update(SESSION, code, days)))
    assert (response.code, response.retry_counter) == (code, days)
    assert response.message.Header.SessionID == SESSION
    assert response.message.Header.Signature is None


@pytest.mark.parametrize("days", [-32769, MOST_DAYS + 1])
def test_days_that_the_schema_has_no_room_for(days: int) -> None:
    with pytest.raises(exi.EXIError):
        exi.encode(iso2.SCHEMA, failed_update(SESSION, iso2.ResponseCode.FAILED, days))


def test_another_message_is_named(request_bytes: bytes) -> None:
    installation = exi.encode(iso2.SCHEMA, failed_response(SESSION, iso2.ResponseCode.FAILED))
    for read in (read_update_request, read_update_response):
        with pytest.raises(WrongMessage, match="this is CertificateInstallationRes"):
            read(installation)
    with pytest.raises(WrongMessage, match="a CertificateUpdateRes is wanted"):
        read_update_response(request_bytes)
    with pytest.raises(exi.EXIError):
        read_update_request(request_bytes[:-3])
