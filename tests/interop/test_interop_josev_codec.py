"""Our EXI and our signatures at Josev, and Josev's at ours, live.

That our bytes are right is shown by the vectors without Josev. What needs the running stack is
the way that its vehicle and charger take on the wire (JSON, a Java object, XML, EXI), the edges
that are too large for a file of vectors, and signatures over values that are new each time.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from josev import JosevError, JosevPeer

from pki.edition import ISO2
from pki.keys import SoftwareKey
from v2g import exi, signature
from v2g.messages import iso2, xmldsig

VECTORS = {
    vector["name"]: vector
    for vector in json.loads(
        (Path(__file__).parents[1] / "vectors" / "exi.json").read_text(encoding="utf-8")
    )["vectors"]
}


def ours(name: str) -> bytes:
    """The bytes that our codec makes of a vector's text."""
    vector = VECTORS[name]
    _, value = exi.from_xml(iso2.SCHEMA, vector["xml"])
    return exi.encode(iso2.SCHEMA, value)


# One typical vector of each message; CertificateUpdateReq has a test of its own.
TYPICAL = {
    "SessionSetupReq": "SessionSetupReq_6",
    "SessionSetupRes": "SessionSetupRes_full",
    "ServiceDiscoveryReq": "ServiceDiscoveryReq_full",
    "ServiceDiscoveryRes": "ServiceDiscoveryRes_services_8",
    "ServiceDetailReq": "ServiceDetailReq_65535",
    "ServiceDetailRes": "ServiceDetailRes_parameters_15",
    "PaymentServiceSelectionReq": "PaymentServiceSelectionReq_15",
    "PaymentServiceSelectionRes": "PaymentServiceSelectionRes_OK",
    "PaymentDetailsReq": "PaymentDetailsReq_subs_2",
    "PaymentDetailsRes": "PaymentDetailsRes_OK",
    "AuthorizationReq": "AuthorizationReq_full",
    "AuthorizationRes": "AuthorizationRes_Ongoing_WaitingForCustomerInteraction",
    "ChargeParameterDiscoveryReq": "ChargeParameterDiscoveryReq_DC_full",
    "ChargeParameterDiscoveryRes": "ChargeParameterDiscoveryRes_tariff_costs_3",
    "PowerDeliveryReq": "PowerDeliveryReq_Start_full",
    "PowerDeliveryRes": "PowerDeliveryRes_AC_ReNegotiation_65535",
    "MeteringReceiptReq": "MeteringReceiptReq_meter_full",
    "MeteringReceiptRes": "MeteringReceiptRes_DC",
    "SessionStopReq": "SessionStopReq_Pause",
    "SessionStopRes": "SessionStopRes_FAILED_CertificateRevoked",
    "CertificateInstallationReq": "CertificateInstallationReq_roots_19",
    "CertificateInstallationRes": "CertificateInstallationRes_certificates_800",
    "CertificateUpdateRes": "CertificateUpdateRes_typical",
    "ChargingStatusReq": "ChargingStatusReq",
    "ChargingStatusRes": "ChargingStatusRes_full",
    "CableCheckReq": "CableCheckReq_NoData",
    "CableCheckRes": "CableCheckRes_Reserved_C",
    "PreChargeReq": "PreChargeReq_multiplier_-3",
    "PreChargeRes": "PreChargeRes_value_-32768",
    "CurrentDemandReq": "CurrentDemandReq_full",
    "CurrentDemandRes": "CurrentDemandRes_full",
    "WeldingDetectionReq": "WeldingDetectionReq_soc_100",
    "WeldingDetectionRes": "WeldingDetectionRes_No_IMD",
}


@pytest.mark.parametrize("message", TYPICAL)
def test_message_passes_through_its_stack(josev: JosevPeer, message: str) -> None:
    """Our bytes become Josev's message object, and that becomes our bytes again."""
    data = ours(f"iso2_{TYPICAL[message]}")
    text = josev.from_exi(data)
    assert f'"{message}"' in text
    assert josev.to_exi(text) == data


def test_certificate_update_request_is_beyond_it(josev: JosevPeer) -> None:
    """Its eMAID is modelled as the type with an Id: a limit of Josev, its jar reads our bytes."""
    data = ours("iso2_CertificateUpdateReq_roots_2")
    with pytest.raises(JosevError, match="eMAID"):
        josev.from_exi(data)
    assert "CertificateUpdateReq" in josev.decode(data, "iso2")


@pytest.mark.parametrize(
    "name",
    [
        "ServiceDetailRes_parameters_16",
        "PaymentServiceSelectionReq_16",
        "CertificateInstallationReq_roots_20",
        "PowerDeliveryReq_profile_24",
    ],
)
def test_full_lists_are_not_understood(josev: JosevPeer, name: str) -> None:
    """Its compiled grammar is wrong after the last repetition, see docs/interop.md."""
    data = ours(f"iso2_{name}")
    with pytest.raises(JosevError, match="Premature EOS"):
        josev.from_exi(data)
    with pytest.raises(exi.EXIError):
        exi.decode(iso2.SCHEMA, josev.encode(VECTORS[f"iso2_{name}"]["xml"], "iso2"))


@pytest.mark.parametrize("count", [1, 2, 1023, 1024])
def test_long_schedules(josev: JosevPeer, count: int) -> None:
    """PMaxSchedule and SalesTariff up to their 1024 entries, against the schemas' grammar."""
    watts = iso2.PhysicalValue(Multiplier=3, Unit=iso2.UnitSymbol.W, Value=11)
    intervals = [iso2.RelativeTimeInterval(start=60 * i) for i in range(count)]
    message = iso2.V2G_Message(
        Header=iso2.MessageHeader(SessionID=bytes(8)),
        Body=iso2.Body(
            iso2.ChargeParameterDiscoveryRes(
                ResponseCode=iso2.ResponseCode.OK,
                EVSEProcessing=iso2.EVSEProcessing.Finished,
                SASchedules=iso2.SAScheduleList(
                    SAScheduleTuple=(
                        iso2.SAScheduleTuple(
                            SAScheduleTupleID=1,
                            PMaxSchedule=iso2.PMaxSchedule(
                                PMaxScheduleEntry=tuple(
                                    iso2.PMaxScheduleEntry(TimeInterval=i, PMax=watts)
                                    for i in intervals
                                )
                            ),
                            SalesTariff=iso2.SalesTariff(
                                SalesTariffID=1,
                                SalesTariffEntry=tuple(
                                    iso2.SalesTariffEntry(TimeInterval=i) for i in intervals
                                ),
                            ),
                        ),
                    )
                ),
                EVSEChargeParameter=iso2.AC_EVSEChargeParameter(
                    AC_EVSEStatus=iso2.AC_EVSEStatus(
                        NotificationMaxDelay=0,
                        EVSENotification=iso2.EVSENotification.None_,
                        RCD=False,
                    ),
                    EVSENominalVoltage=watts,
                    EVSEMaxCurrent=watts,
                ),
            )
        ),
    )
    data = exi.encode(iso2.SCHEMA, message)
    assert josev.encode(exi.to_xml(iso2.SCHEMA, message), "iso2", grammar="xsd") == data
    assert exi.decode(iso2.SCHEMA, data) == message


# Signatures ---------------------------------------------------------------------------------------


def certificate(tmp_path: Path, key: SoftwareKey) -> bytes:
    """Any certificate of the key, since Josev verifies with certificates."""
    pem = tmp_path / "key.pem"
    pem.write_text(key.pem())
    return subprocess.run(
        ["openssl", "req", "-x509", "-key", str(pem), "-subj", "/CN=t", "-outform", "DER"],
        check=True,
        capture_output=True,
    ).stdout


def signed_elements(body: Any) -> list[tuple[str, Any]]:
    if isinstance(body, iso2.CertificateInstallationRes):
        return [
            ("ContractSignatureCertChain", body.ContractSignatureCertChain),
            ("ContractSignatureEncryptedPrivateKey", body.ContractSignatureEncryptedPrivateKey),
            ("DHpublickey", body.DHpublickey),
            ("eMAID", body.eMAID),
        ]
    return [(type(body).__name__, body)]


def with_signature(message: iso2.V2G_Message, made: xmldsig.Signature | None) -> iso2.V2G_Message:
    header = iso2.MessageHeader(SessionID=message.Header.SessionID, Signature=made)
    return iso2.V2G_Message(Header=header, Body=message.Body)


SIGNED = [
    "AuthorizationReq_full",
    "MeteringReceiptReq_meter_full",
    "CertificateInstallationReq_roots_2",
    "CertificateInstallationRes_typical",
]


@pytest.mark.parametrize("name", SIGNED)
def test_our_signature_is_verified(josev: JosevPeer, tmp_path: Path, name: str) -> None:
    key = SoftwareKey.generate(ISO2)
    message = exi.decode(iso2.SCHEMA, ours(f"iso2_{name}"))
    elements = signed_elements(message.Body.BodyElement)
    made = signature.sign(iso2.SCHEMA, elements, key, ISO2)
    data = exi.encode(iso2.SCHEMA, with_signature(message, made))
    assert josev.verify(data, certificate(tmp_path, key))
    assert not josev.verify(data, certificate(tmp_path, SoftwareKey.generate(ISO2)))


@pytest.mark.parametrize("name", SIGNED)
def test_its_signature_is_verified(josev: JosevPeer, name: str) -> None:
    key = SoftwareKey.generate(ISO2)
    data = josev.sign(ours(f"iso2_{name}"), key.pem())
    message = exi.decode(iso2.SCHEMA, data)
    elements = signed_elements(message.Body.BodyElement)
    made = message.Header.Signature
    signature.verify(iso2.SCHEMA, made, elements, key.public_key, ISO2)
    other = SoftwareKey.generate(ISO2).public_key
    with pytest.raises(signature.SignatureError):
        signature.verify(iso2.SCHEMA, made, elements, other, ISO2)
    # and the bytes are ours too, signature included
    assert exi.encode(iso2.SCHEMA, message) == data


def test_tampered_message_is_refused_there(josev: JosevPeer, tmp_path: Path) -> None:
    key = SoftwareKey.generate(ISO2)
    signed = josev.sign(ours("iso2_AuthorizationReq_full"), key.pem())
    message = exi.decode(iso2.SCHEMA, signed)
    body = iso2.AuthorizationReq(GenChallenge=bytes(16), Id="id1")
    tampered = iso2.V2G_Message(Header=message.Header, Body=iso2.Body(body))
    assert josev.verify(signed, certificate(tmp_path, key))
    assert not josev.verify(exi.encode(iso2.SCHEMA, tampered), certificate(tmp_path, key))


def test_fresh_installation_request(josev: JosevPeer, tmp_path: Path) -> None:
    """A request that Josev's vehicle makes on the spot: read, verified, written again."""
    key = SoftwareKey.generate(ISO2)
    oem = certificate(tmp_path, key)
    data = josev.certificate_installation_request(oem, key.pem(), [oem], session_id="A1B2C3D4")
    message = exi.decode(iso2.SCHEMA, data)
    request = message.Body.BodyElement
    assert message.Header.SessionID == bytes.fromhex("A1B2C3D4")
    assert isinstance(request, iso2.CertificateInstallationReq)
    assert request.OEMProvisioningCert == oem
    [root] = request.ListOfRootCertificateIDs.RootCertificateID
    # It writes the issuer's name as Python prints it, which is no form of RFC 4514.
    assert re.fullmatch(r"<Name\(CN=t\)>", root.X509IssuerName)
    signature.verify(
        iso2.SCHEMA,
        message.Header.Signature,
        [("CertificateInstallationReq", request)],
        key.public_key,
        ISO2,
    )
    assert exi.encode(iso2.SCHEMA, message) == data
