"""Make exi.json: EXI test vectors that a third-party codec encoded from XML that is written here.

    python tests/vectors/make_vectors.py            # writes tests/vectors/exi.json
    python tests/vectors/make_vectors.py --check    # compares with it, exit code 1 if different

Needs Josev's environment (tests/interop/make_env.sh). The XML below is ours, so are the values in
it; "certificates" are bytes that say that they are none. The EXI is what EXIficient, in the jar of
Josev, makes of it, and that twice: with the grammar that is compiled into the jar, and with the
grammar that the same jar derives from the schemas that lie beside it. Where the two differ, the
compiled grammar is wrong: the schema's bytes become the vector, and the compiled grammar's bytes
a vector of their own with `nonconformant` and the reason, which a decoder must refuse.

An empty value has two codings: no content at all, which ends the element by way of the escape (so
Canonical EXI wants it, and so EXIficient makes it of XML text), and characters of length zero, as
codecs may make that work on values. The first is the vector; the second stands beside it as an
`alternative`, where EXIficient can be brought to make it.

How the shapes are chosen: EXI codes *which* element comes next in as few bits as the schema
allows, so every path through every sequence counts. `variants` walks them for a sequence with
optional parts: none of them, each alone, each missing, all. Choices, substitution groups and
enumerations are walked value by value; repetitions at one, two, one less than the most and the
most; numbers, strings and binaries at the ends of their ranges and around the places where their
length field grows. Every message of ISO 15118-2 is there.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "interop")]

from josev import JosevPeer  # noqa: E402
from xml_equal import canonical  # noqa: E402

TARGET = HERE / "exi.json"

NAMESPACES = {
    "a": "urn:iso:15118:2:2010:AppProtocol",
    "d": "urn:iso:15118:2:2013:MsgDef",
    "h": "urn:iso:15118:2:2013:MsgHeader",
    "b": "urn:iso:15118:2:2013:MsgBody",
    "t": "urn:iso:15118:2:2013:MsgDataTypes",
    "x": "http://www.w3.org/2000/09/xmldsig#",
}

WHAT = (
    "EXI vectors of pnclab: XML text and the EXI bytes (hex) that a third-party codec makes of it. "
    "schema: sap | iso2 | xmldsig. fragment: coded with the schema's fragment grammar, as signed "
    "elements are. nonconformant: bytes that the codec's compiled grammar makes against the "
    "schema, or of values that the schema forbids; the reason is the value, and a codec must "
    "refuse them. alternative: another coding of the same value, which a codec reads, but does "
    "not make. xml is compared up to prefixes and white space between elements."
)
ORIGIN = (
    "XML written in tests/vectors/make_vectors.py, encoded by EXIficient in EXICodec.jar of PyPI "
    "iso15118 {iso15118} with the ISO 15118 profile (schema-informed, bit-packed, not strict, "
    "nothing preserved, no string table)."
)


# XML, written as nested calls: el("b:EVCCID", "0102") -> <b:EVCCID>0102</b:EVCCID>


def el(tag: str, *content: str, **attributes: str) -> str:
    """One element. Content is XML; an attribute `t_Id` becomes `t:Id`, `Id` stays unqualified."""
    text = "".join(
        f" {name.replace('_', ':', 1)}={quoteattr(value)}" for name, value in attributes.items()
    )
    return f"<{tag}{text}>{''.join(content)}</{tag}>"


# Stands for an empty value, while the XML is made: in XML text it cannot be told from no content.
EMPTY = "\ue000"


def text(value: str) -> str:
    """A string value."""
    return escape(value) or EMPTY


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode() or EMPTY


def hexadecimal(digits: str) -> str:
    return digits or EMPTY


def filler(label: str, length: int) -> str:
    """Base64 of `length` bytes that tell that they are for tests."""
    unit = f"pnclab test {label}. ".encode()
    return b64((unit * (length // len(unit) + 1))[:length])


def optional(name: str, xml: str) -> tuple[str, str]:
    """A part of a sequence that may be absent, named for `variants`."""
    return name, xml


def variants(*parts: str | tuple[str, str]) -> Iterator[tuple[str, str]]:
    """(name, content) for every way through a sequence that is worth its own vector.

    With n optional parts: none, each one alone, each one missing, all of them.
    """
    names = [part[0] for part in parts if isinstance(part, tuple)]

    def content(present: set[str]) -> str:
        return "".join(
            part if isinstance(part, str) else part[1] if part[0] in present else ""
            for part in parts
        )

    yield "min", content(set())
    if len(names) > 1:
        for name in names:
            yield f"only_{name}", content({name})
    if len(names) > 2:
        for name in names:
            yield f"without_{name}", content(set(names) - {name})
    if names:
        yield "full", content(set(names))


# Pieces of -2 messages

RESPONSE_CODES = [
    "OK",
    "OK_NewSessionEstablished",
    "OK_OldSessionJoined",
    "OK_CertificateExpiresSoon",
    "FAILED",
    "FAILED_SequenceError",
    "FAILED_ServiceIDInvalid",
    "FAILED_UnknownSession",
    "FAILED_ServiceSelectionInvalid",
    "FAILED_PaymentSelectionInvalid",
    "FAILED_CertificateExpired",
    "FAILED_SignatureError",
    "FAILED_NoCertificateAvailable",
    "FAILED_CertChainError",
    "FAILED_ChallengeInvalid",
    "FAILED_ContractCanceled",
    "FAILED_WrongChargeParameter",
    "FAILED_PowerDeliveryNotApplied",
    "FAILED_TariffSelectionInvalid",
    "FAILED_ChargingProfileInvalid",
    "FAILED_MeteringSignatureNotValid",
    "FAILED_NoChargeServiceSelected",
    "FAILED_WrongEnergyTransferMode",
    "FAILED_ContactorError",
    "FAILED_CertificateNotAllowedAtThisEVSE",
    "FAILED_CertificateRevoked",
]
ENERGY_TRANSFER_MODES = [
    "AC_single_phase_core",
    "AC_three_phase_core",
    "DC_core",
    "DC_extended",
    "DC_combo_core",
    "DC_unique",
]
EV_ERROR_CODES = [
    "NO_ERROR",
    "FAILED_RESSTemperatureInhibit",
    "FAILED_EVShiftPosition",
    "FAILED_ChargerConnectorLockFault",
    "FAILED_EVRESSMalfunction",
    "FAILED_ChargingCurrentdifferential",
    "FAILED_ChargingVoltageOutOfRange",
    "Reserved_A",
    "Reserved_B",
    "Reserved_C",
    "FAILED_ChargingSystemIncompatibility",
    "NoData",
]
EVSE_STATUS_CODES = [
    "EVSE_NotReady",
    "EVSE_Ready",
    "EVSE_Shutdown",
    "EVSE_UtilityInterruptEvent",
    "EVSE_IsolationMonitoringActive",
    "EVSE_EmergencyShutdown",
    "EVSE_Malfunction",
    "Reserved_8",
    "Reserved_9",
    "Reserved_A",
    "Reserved_B",
    "Reserved_C",
]
ISOLATION_LEVELS = ["Invalid", "Valid", "Warning", "Fault", "No_IMD"]
UNITS = ["h", "m", "s", "A", "V", "W", "Wh"]

C14N = "http://www.w3.org/TR/canonical-exi/"
SHA256 = "http://www.w3.org/2001/04/xmlenc#sha256"
ECDSA_SHA256 = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256"

SESSION_ID = "706E636C61620001"
CHALLENGE = filler("challenge", 16)
EMAID = "DEPNC0TEST00015"
EVSEID = "DE*PNC*E00001*1"


def physical_value(tag: str, multiplier: int = 0, unit: str = "A", value: int = 16) -> str:
    return el(
        tag,
        el("t:Multiplier", str(multiplier)),
        el("t:Unit", unit),
        el("t:Value", str(value)),
    )


def ac_evse_status(delay: int = 0, notification: str = "None", rcd: str = "false") -> str:
    return (
        el("t:NotificationMaxDelay", str(delay))
        + el("t:EVSENotification", notification)
        + el("t:RCD", rcd)
    )


def dc_evse_status(
    delay: int = 0,
    notification: str = "None",
    isolation: str | None = "Valid",
    code: str = "EVSE_Ready",
) -> str:
    return (
        el("t:NotificationMaxDelay", str(delay))
        + el("t:EVSENotification", notification)
        + (el("t:EVSEIsolationStatus", isolation) if isolation else "")
        + el("t:EVSEStatusCode", code)
    )


def dc_ev_status(ready: str = "true", error: str = "NO_ERROR", soc: int = 55) -> str:
    return el("t:EVReady", ready) + el("t:EVErrorCode", error) + el("t:EVRESSSOC", str(soc))


def meter_info(
    reading: int | None = 12345,
    signature: int | None = None,
    status: int | None = None,
    time: int | None = None,
    meter_id: str = "PNC-METER-1",
) -> str:
    return (
        el("t:MeterID", text(meter_id))
        + (el("t:MeterReading", str(reading)) if reading is not None else "")
        + (el("t:SigMeterReading", filler("meter", signature)) if signature is not None else "")
        + (el("t:MeterStatus", str(status)) if status is not None else "")
        + (el("t:TMeter", str(time)) if time is not None else "")
    )


def certificate_chain(
    label: str, subs: int | None = 2, length: int = 90, sub_length: int = 60
) -> str:
    return el("t:Certificate", filler(f"{label} leaf, no certificate", length)) + (
        el(
            "t:SubCertificates",
            *(
                el("t:Certificate", filler(f"{label} sub {i}, no certificate", sub_length))
                for i in range(1, subs + 1)
            ),
        )
        if subs
        else ""
    )


def root_ids(*serials: int) -> str:
    return el(
        "b:ListOfRootCertificateIDs",
        *(
            el(
                "t:RootCertificateID",
                el("x:X509IssuerName", text(f"CN=pnclab test root {i},O=pnclab,DC=V2G")),
                el("x:X509SerialNumber", str(serial)),
            )
            for i, serial in enumerate(serials)
        ),
    )


def interval(start: int, duration: int | None = None) -> str:
    return el(
        "t:RelativeTimeInterval",
        el("t:start", str(start)),
        el("t:duration", str(duration)) if duration is not None else "",
    )


def p_max_schedule(*entries: str) -> str:
    return el("t:PMaxSchedule", *entries)


def p_max_entry(start: int, duration: int | None = None, value: int = 11) -> str:
    return el(
        "t:PMaxScheduleEntry",
        interval(start, duration),
        physical_value("t:PMax", 3, "W", value),
    )


def cost(
    kind: str = "relativePricePercentage", amount: int = 30, multiplier: int | None = None
) -> str:
    return el(
        "t:Cost",
        el("t:costKind", kind),
        el("t:amount", str(amount)),
        el("t:amountMultiplier", str(multiplier)) if multiplier is not None else "",
    )


def consumption_cost(*costs: str) -> str:
    return el("t:ConsumptionCost", physical_value("t:startValue", 0, "W", 0), *costs)


def tariff_entry(start: int, price_level: int | None = None, *costs: str) -> str:
    return el(
        "t:SalesTariffEntry",
        interval(start),
        el("t:EPriceLevel", str(price_level)) if price_level is not None else "",
        *costs,
    )


def sales_tariff(*entries: str, **attributes: str) -> str:
    return el(
        "t:SalesTariff",
        el("t:SalesTariffID", "1"),
        el("t:SalesTariffDescription", "pnclab test tariff"),
        el("t:NumEPriceLevels", "2"),
        *entries,
        **attributes,
    )


def schedule_tuple(tuple_id: int, tariff: str = "", entries: str | None = None) -> str:
    return el(
        "t:SAScheduleTuple",
        el("t:SAScheduleTupleID", str(tuple_id)),
        p_max_schedule(entries or p_max_entry(0, 86400)),
        tariff,
    )


def reference(
    uri: str | None = "#id1",
    transforms: str | None = None,
    digest: str = SHA256,
    length: int = 32,
    **attributes: str,
) -> str:
    if uri is not None:
        attributes = {"URI": uri, **attributes}
    if transforms is None:
        transforms = el("x:Transforms", el("x:Transform", Algorithm=C14N))
    return el(
        "x:Reference",
        transforms,
        el("x:DigestMethod", Algorithm=digest),
        el("x:DigestValue", filler("digest", length)),
        **attributes,
    )


def signed_info(
    *references: str,
    canonicalization: str | None = None,
    method: str | None = None,
    **attributes: str,
) -> str:
    return el(
        "x:SignedInfo",
        canonicalization or el("x:CanonicalizationMethod", Algorithm=C14N),
        method or el("x:SignatureMethod", Algorithm=ECDSA_SHA256),
        *(references or (reference(),)),
        **attributes,
    )


def signature(
    *tail: str, info: str | None = None, value: str | None = None, **attributes: str
) -> str:
    return el(
        "x:Signature",
        info or signed_info(),
        value or el("x:SignatureValue", filler("signature", 64)),
        *tail,
        **attributes,
    )


def message(body: str, session_id: str = SESSION_ID, header: str = "") -> str:
    return el(
        "d:V2G_Message",
        el("d:Header", el("h:SessionID", hexadecimal(session_id)), header),
        el("d:Body", body),
    )


# The vectors, schema by schema: (name, XML content)


def sap() -> Iterator[tuple[str, str]]:
    """All of supportedAppProtocol. Its inner elements have no namespace."""

    def protocol(namespace: str, major: int, minor: int, schema_id: int, priority: int) -> str:
        return el(
            "AppProtocol",
            el("ProtocolNamespace", text(namespace)),
            el("VersionNumberMajor", str(major)),
            el("VersionNumberMinor", str(minor)),
            el("SchemaID", str(schema_id)),
            el("Priority", str(priority)),
        )

    iso2 = protocol("urn:iso:15118:2:2013:MsgDef", 2, 0, 1, 1)
    iso20 = protocol("urn:iso:std:iso:15118:-20:AC", 1, 0, 2, 2)
    requests = {
        "iso2": [iso2],
        "iso2_iso20": [iso2, iso20],
        "schema_id_0_priority_20": [protocol("urn:din:70121:2012:MsgDef", 2, 0, 0, 20)],
        "schema_id_255": [protocol("urn:din:70121:2012:MsgDef", 127, 128, 255, 10)],
        "version_max": [protocol("urn:test", 4294967295, 4294967295, 127, 16)],
        "version_16384": [protocol("urn:test", 16383, 16384, 128, 17)],
        "namespace_empty": [protocol("", 0, 0, 1, 1)],
        "namespace_100": [protocol("urn:test:" + "n" * 91, 1, 0, 1, 1)],
        "namespace_unicode": [protocol("urn:test:Ladesäule/充电", 1, 0, 1, 1)],
        "19": [protocol(f"urn:test:{i}", i, 0, i, i) for i in range(1, 20)],
        "20": [protocol(f"urn:test:{i}", i, 0, i, i) for i in range(1, 21)],
    }
    for name, protocols in requests.items():
        yield f"req_{name}", el("a:supportedAppProtocolReq", *protocols)
    for code in (
        "OK_SuccessfulNegotiation",
        "OK_SuccessfulNegotiationWithMinorDeviation",
        "Failed_NoNegotiation",
    ):
        for schema_id in (None, 0, 1, 127, 128, 255):
            yield (
                f"res_{code}_{'none' if schema_id is None else schema_id}",
                el(
                    "a:supportedAppProtocolRes",
                    el("ResponseCode", code),
                    el("SchemaID", str(schema_id)) if schema_id is not None else "",
                ),
            )


def headers() -> Iterator[tuple[str, str]]:
    """The message header: session id, notification, signature; and an empty body."""
    stop = el("b:SessionStopReq", el("b:ChargingSession", "Terminate"))
    yield "body_empty", message("")
    for length in range(9):
        yield f"session_id_{length}", message(stop, SESSION_ID[: 2 * length])
    yield "session_id_zero", message(stop, "0000000000000000")
    yield "session_id_ff", message(stop, "FFFFFFFFFFFFFFFF")
    for code in ("ParsingError", "NoTLSRootCertificatAvailable", "UnknownError"):
        yield (
            f"notification_{code}",
            message(stop, header=el("h:Notification", el("t:FaultCode", code))),
        )
    for name, fault in {
        "empty": "",
        "64": "f" * 64,
        "special": "<&>\"' \t.",
        "unicode": "Zähler ausgefallen, 5 € · 充电 · 🔌",
    }.items():
        yield (
            f"notification_message_{name}",
            message(
                stop,
                header=el(
                    "h:Notification",
                    el("t:FaultCode", "ParsingError"),
                    el("t:FaultMsg", text(fault)),
                ),
            ),
        )
    yield "signature", message(stop, header=signature())
    yield (
        "notification_and_signature",
        message(stop, header=el("h:Notification", el("t:FaultCode", "UnknownError")) + signature()),
    )
    yield "signature_id", message(stop, header=signature(Id="sig1"))
    yield (
        "signature_value_id",
        message(
            stop,
            header=signature(
                value=el("x:SignatureValue", filler("signature", 64), Id="v1"),
            ),
        ),
    )
    for length in (0, 1, 70, 127, 128):
        yield (
            f"signature_value_{length}",
            message(
                stop,
                header=signature(value=el("x:SignatureValue", filler("signature", length))),
            ),
        )
    yield (
        "signature_4_references",
        message(
            stop,
            header=signature(info=signed_info(*(reference(f"#id{i}") for i in range(1, 5)))),
        ),
    )
    yield (
        "signature_key_info",
        message(stop, header=signature(el("x:KeyInfo", el("x:KeyName", "pnclab test key")))),
    )
    yield "signature_object", message(stop, header=signature(el("x:Object", Id="o1")))
    yield (
        "signature_2_objects",
        message(
            stop,
            header=signature(
                el("x:Object"),
                el("x:Object", Encoding="urn:test", Id="o2", MimeType="text/plain"),
            ),
        ),
    )


def session_messages() -> Iterator[tuple[str, str]]:
    """SessionSetup, ServiceDiscovery, ServiceDetail, PaymentServiceSelection, SessionStop."""
    for length in (0, 1, 5, 6):
        yield (
            f"SessionSetupReq_{length}",
            el("b:SessionSetupReq", el("b:EVCCID", hexadecimal("AABBCCDDEEFF"[: 2 * length]))),
        )
    for name, content in variants(
        el("b:ResponseCode", "OK_NewSessionEstablished"),
        el("b:EVSEID", text(EVSEID)),
        optional("EVSETimeStamp", el("b:EVSETimeStamp", "1764547200")),
    ):
        yield f"SessionSetupRes_{name}", el("b:SessionSetupRes", content)
    for stamp in (0, -1, 1, 127, 128, 2**63 - 1, -(2**63)):
        yield (
            f"SessionSetupRes_time_{stamp}",
            el(
                "b:SessionSetupRes",
                el("b:ResponseCode", "OK"),
                el("b:EVSEID", "ZZ00000"),
                el("b:EVSETimeStamp", str(stamp)),
            ),
        )
    for length in (7, 36, 37):
        yield (
            f"SessionSetupRes_evseid_{length}",
            el(
                "b:SessionSetupRes",
                el("b:ResponseCode", "OK_OldSessionJoined"),
                el("b:EVSEID", ("DE*PNC*E" + "1" * 40)[:length]),
            ),
        )
    for code in RESPONSE_CODES:
        yield f"SessionStopRes_{code}", el("b:SessionStopRes", el("b:ResponseCode", code))
    for session in ("Terminate", "Pause"):
        yield f"SessionStopReq_{session}", el("b:SessionStopReq", el("b:ChargingSession", session))

    for name, content in variants(
        optional("ServiceScope", el("b:ServiceScope", "pnclab test scope")),
        optional("ServiceCategory", el("b:ServiceCategory", "EVCharging")),
    ):
        yield f"ServiceDiscoveryReq_{name}", el("b:ServiceDiscoveryReq", content)
    for category in ("Internet", "ContractCertificate", "OtherCustom"):
        yield (
            f"ServiceDiscoveryReq_{category}",
            el("b:ServiceDiscoveryReq", el("b:ServiceCategory", category)),
        )
    for name, scope in {"empty": "", "64": "s" * 64, "unicode": "Größe"}.items():
        yield (
            f"ServiceDiscoveryReq_scope_{name}",
            el("b:ServiceDiscoveryReq", el("b:ServiceScope", text(scope))),
        )

    def service(number: int, *optionals: str) -> str:
        names = {
            "ServiceName": el("t:ServiceName", f"service {number}"),
            "ServiceScope": el("t:ServiceScope", "pnclab test"),
        }
        return (
            el("t:ServiceID", str(number))
            + (names["ServiceName"] if "ServiceName" in optionals else "")
            + el("t:ServiceCategory", "ContractCertificate")
            + (names["ServiceScope"] if "ServiceScope" in optionals else "")
            + el("t:FreeService", "true" if number % 2 else "false")
        )

    def discovery(options: list[str], charge_service: str, services: list[str]) -> str:
        return el(
            "b:ServiceDiscoveryRes",
            el("b:ResponseCode", "OK"),
            el("b:PaymentOptionList", *(el("t:PaymentOption", option) for option in options)),
            el("b:ChargeService", charge_service),
            el("b:ServiceList", *(el("t:Service", s) for s in services)) if services else "",
        )

    def charge_service(modes: list[str]) -> str:
        return service(1) + el(
            "t:SupportedEnergyTransferMode", *(el("t:EnergyTransferMode", m) for m in modes)
        )

    contract, external = "Contract", "ExternalPayment"
    one_mode = charge_service(["AC_three_phase_core"])
    for options in ([contract], [external], [contract, external], [external, contract]):
        yield (
            "ServiceDiscoveryRes_payment_" + "_".join(options),
            discovery(options, one_mode, []),
        )
    for mode in ENERGY_TRANSFER_MODES:
        yield (
            f"ServiceDiscoveryRes_mode_{mode}",
            discovery([contract], charge_service([mode]), []),
        )
    for count in (2, 5, 6):
        yield (
            f"ServiceDiscoveryRes_modes_{count}",
            discovery([contract], charge_service(ENERGY_TRANSFER_MODES[:count]), []),
        )
    for name, optionals in {
        "name": ["ServiceName"],
        "scope": ["ServiceScope"],
        "name_scope": ["ServiceName", "ServiceScope"],
    }.items():
        yield (
            f"ServiceDiscoveryRes_service_{name}",
            discovery([contract], one_mode, [service(2, *optionals)]),
        )
    for count in (1, 2, 7, 8):
        yield (
            f"ServiceDiscoveryRes_services_{count}",
            discovery([contract], one_mode, [service(i) for i in range(count)]),
        )

    for number in (0, 1, 127, 128, 16383, 16384, 65535):
        yield (
            f"ServiceDetailReq_{number}",
            el("b:ServiceDetailReq", el("b:ServiceID", str(number))),
        )

    def parameter(name: str, kind: str, value: str) -> str:
        return el("t:Parameter", el(f"t:{kind}", value), t_Name=name)

    def detail(*sets: list[str]) -> str:
        return el(
            "b:ServiceDetailRes",
            el("b:ResponseCode", "OK"),
            el("b:ServiceID", "2"),
            el(
                "b:ServiceParameterList",
                *(
                    el("t:ParameterSet", el("t:ParameterSetID", str(i)), *parameters)
                    for i, parameters in enumerate(sets, 1)
                ),
            )
            if sets
            else "",
        )

    flag = parameter("flag", "boolValue", "true")
    yield "ServiceDetailRes_min", detail()
    for kind, values in {
        "boolValue": ["true", "false"],
        "byteValue": ["-128", "-1", "0", "127"],
        "shortValue": ["-32768", "0", "32767"],
        "intValue": ["-2147483648", "-1", "0", "2147483647"],
        "stringValue": ["", "Installation", "Übung €"],
    }.items():
        for value in values:
            yield (
                f"ServiceDetailRes_{kind}_{value or 'empty'}",
                detail([parameter("Service", kind, text(value))]),
            )
    yield (
        "ServiceDetailRes_physicalValue",
        detail([el("t:Parameter", physical_value("t:physicalValue", -3, "Wh", 7), t_Name="p")]),
    )
    for name, value in {"empty": "", "quotes": "a \"b\" 'c' <&>", "unicode": "Größe 充电"}.items():
        yield f"ServiceDetailRes_name_{name}", detail([parameter(value, "boolValue", "false")])
    for count in (2, 15, 16):
        yield (
            f"ServiceDetailRes_parameters_{count}",
            detail([parameter(f"p{i}", "byteValue", str(i)) for i in range(count)]),
        )
    for count in (2, 3):
        yield f"ServiceDetailRes_sets_{count}", detail(*([flag] for _ in range(count)))

    def selection(option: str, services: list[str]) -> str:
        return el(
            "b:PaymentServiceSelectionReq",
            el("b:SelectedPaymentOption", option),
            el("b:SelectedServiceList", *(el("t:SelectedService", s) for s in services)),
        )

    def selected(number: int, parameter_set: int | None = None) -> str:
        return el("t:ServiceID", str(number)) + (
            el("t:ParameterSetID", str(parameter_set)) if parameter_set is not None else ""
        )

    for option in (contract, external):
        yield f"PaymentServiceSelectionReq_{option}", selection(option, [selected(1)])
    for parameter_set in (-32768, -1, 0, 32767):
        yield (
            f"PaymentServiceSelectionReq_set_{parameter_set}",
            selection(contract, [selected(2, parameter_set)]),
        )
    for count in (2, 15, 16):
        yield (
            f"PaymentServiceSelectionReq_{count}",
            selection(contract, [selected(i, i if i % 2 else None) for i in range(count)]),
        )
    for code in ("OK", "FAILED_ServiceSelectionInvalid"):
        yield (
            f"PaymentServiceSelectionRes_{code}",
            el("b:PaymentServiceSelectionRes", el("b:ResponseCode", code)),
        )


def contract_messages() -> Iterator[tuple[str, str]]:
    """PaymentDetails, Authorization, MeteringReceipt, CertificateInstallation and -Update."""

    def payment_details(chain: str, emaid: str = EMAID, **attributes: str) -> str:
        return el(
            "b:PaymentDetailsReq",
            el("b:eMAID", emaid),
            el("b:ContractSignatureCertChain", chain, **attributes),
        )

    for subs in range(5):
        yield (
            f"PaymentDetailsReq_subs_{subs}",
            payment_details(certificate_chain("contract", subs)),
        )
    yield "PaymentDetailsReq_id", payment_details(certificate_chain("contract"), t_Id="id1")
    yield "PaymentDetailsReq_emaid_14", payment_details(certificate_chain("contract"), EMAID[:14])
    for length in (0, 1, 127, 128, 799, 800):
        yield (
            f"PaymentDetailsReq_certificate_{length}",
            payment_details(certificate_chain("contract", None, length)),
        )
    for code, stamp in (("OK", 1764547200), ("OK_CertificateExpiresSoon", 0), ("FAILED", -1)):
        yield (
            f"PaymentDetailsRes_{code}",
            el(
                "b:PaymentDetailsRes",
                el("b:ResponseCode", code),
                el("b:GenChallenge", CHALLENGE),
                el("b:EVSETimeStamp", str(stamp)),
            ),
        )

    challenge = el("b:GenChallenge", CHALLENGE)
    yield "AuthorizationReq_min", el("b:AuthorizationReq")
    yield "AuthorizationReq_id", el("b:AuthorizationReq", b_Id="id1")
    yield "AuthorizationReq_challenge", el("b:AuthorizationReq", challenge)
    yield "AuthorizationReq_full", el("b:AuthorizationReq", challenge, b_Id="id1")
    yield (
        "AuthorizationReq_zero_challenge",
        el("b:AuthorizationReq", el("b:GenChallenge", b64(bytes(16))), b_Id="a" * 50),
    )
    for processing in ("Finished", "Ongoing", "Ongoing_WaitingForCustomerInteraction"):
        yield (
            f"AuthorizationRes_{processing}",
            el(
                "b:AuthorizationRes",
                el("b:ResponseCode", "OK"),
                el("b:EVSEProcessing", processing),
            ),
        )

    for name, content in variants(
        el("t:MeterID", "PNC-METER-1"),
        optional("MeterReading", el("t:MeterReading", "12345")),
        optional("SigMeterReading", el("t:SigMeterReading", filler("meter", 64))),
        optional("MeterStatus", el("t:MeterStatus", "1")),
        optional("TMeter", el("t:TMeter", "1764547200")),
    ):
        yield (
            f"MeteringReceiptReq_meter_{name}",
            el(
                "b:MeteringReceiptReq",
                el("b:SessionID", SESSION_ID),
                el("b:SAScheduleTupleID", "1"),
                el("b:MeterInfo", content),
                b_Id="id1",
            ),
        )
    for attributes in ({}, {"b_Id": "id1"}):
        for tuple_id in (None, 1, 2, 255):
            yield (
                f"MeteringReceiptReq_{'id' if attributes else 'no_id'}_tuple_{tuple_id}",
                el(
                    "b:MeteringReceiptReq",
                    el("b:SessionID", "00"),
                    el("b:SAScheduleTupleID", str(tuple_id)) if tuple_id else "",
                    el("b:MeterInfo", meter_info()),
                    **attributes,
                ),
            )
    for name, info in {
        "reading_0": meter_info(0),
        "reading_max": meter_info(2**64 - 1),
        "reading_2_63": meter_info(2**63),
        "signature_0": meter_info(signature=0),
        "signature_1": meter_info(signature=1),
        "status_min": meter_info(status=-32768),
        "status_max": meter_info(status=32767),
        "time_min": meter_info(time=-(2**63)),
        "time_max": meter_info(time=2**63 - 1),
        "id_empty": meter_info(meter_id=""),
        "id_32": meter_info(meter_id="M" * 32),
        "id_unicode": meter_info(meter_id="Zähler №1"),
        "id_spaces": meter_info(meter_id="  two  spaces  "),
    }.items():
        yield (
            f"MeteringReceiptReq_{name}",
            el("b:MeteringReceiptReq", el("b:SessionID", SESSION_ID), el("b:MeterInfo", info)),
        )
    yield (
        "MeteringReceiptReq_session_id_0",
        el(
            "b:MeteringReceiptReq",
            el("b:SessionID", hexadecimal("")),
            el("b:MeterInfo", meter_info()),
        ),
    )
    for name, status in {
        "AC": el("t:AC_EVSEStatus", ac_evse_status()),
        "DC": el("t:DC_EVSEStatus", dc_evse_status()),
    }.items():
        for kind, code in (("MeteringReceiptRes", "OK"), ("PowerDeliveryRes", "OK")):
            yield f"{kind}_{name}", el(f"b:{kind}", el("b:ResponseCode", code), status)

    def installation_request(roots: str, length: int = 90, id: str = "id1") -> str:
        return el(
            "b:CertificateInstallationReq",
            el("b:OEMProvisioningCert", filler("OEM leaf, no certificate", length)),
            roots,
            b_Id=id,
        )

    def update_request(
        roots: str, subs: int | None = 2, emaid: str = EMAID, **attributes: str
    ) -> str:
        return el(
            "b:CertificateUpdateReq",
            el("b:ContractSignatureCertChain", certificate_chain("old", subs), **attributes),
            el("b:eMAID", emaid),
            roots,
            b_Id="id1",
        )

    for serial in (
        *(0, 1, 63, 64, 127, 128, 2**31, 2**63 - 1, 2**63, 2**64),
        *(2**159 - 1, 2**160 - 1, -1, -128, -(2**63) - 1),
    ):
        yield (
            f"CertificateInstallationReq_serial_{serial}",
            installation_request(root_ids(serial)),
        )
    for count in (2, 5, 6, 18, 19, 20):
        roots = root_ids(*(10**i for i in range(count)))
        yield f"CertificateInstallationReq_roots_{count}", installation_request(roots)
    for count in (1, 2, 19, 20):
        roots = root_ids(*(10**i for i in range(count)))
        yield f"CertificateUpdateReq_roots_{count}", update_request(roots)
    for length in (0, 800):
        yield (
            f"CertificateInstallationReq_certificate_{length}",
            installation_request(root_ids(1), length),
        )
    yield (
        "CertificateInstallationReq_id_unicode",
        installation_request(root_ids(1), id="idäöü"),
    )
    for subs in (None, 1, 3, 4):
        yield f"CertificateUpdateReq_subs_{subs}", update_request(root_ids(1), subs)
    yield "CertificateUpdateReq_chain_id", update_request(root_ids(1), t_Id="id2")
    yield "CertificateUpdateReq_emaid_14", update_request(root_ids(1), emaid=EMAID[:14])

    def provisioning(
        code: str = "OK",
        cps: str | None = None,
        contract: str | None = None,
        key: int = 48,
        dh: int = 65,
        emaid: str = EMAID,
        chain_id: bool = True,
    ) -> str:
        chain_attributes = {"t_Id": "id1"} if chain_id else {}
        return (
            el("b:ResponseCode", code)
            + el("b:SAProvisioningCertificateChain", cps or certificate_chain("CPS"))
            + el(
                "b:ContractSignatureCertChain",
                contract or certificate_chain("contract"),
                **chain_attributes,
            )
            + el("b:ContractSignatureEncryptedPrivateKey", filler("no key", key), t_Id="id2")
            + el("b:DHpublickey", filler("no public key", dh), t_Id="id3")
            + el("b:eMAID", emaid, t_Id="id4")
        )

    for name, content in {
        "typical": provisioning(),
        "chain_without_id": provisioning(chain_id=False),
        "no_subs": provisioning(
            cps=certificate_chain("CPS", None), contract=certificate_chain("contract", None)
        ),
        "4_subs": provisioning(
            cps=certificate_chain("CPS", 4), contract=certificate_chain("contract", 4)
        ),
        "certificates_800": provisioning(
            cps=certificate_chain("CPS", 2, 800, 800),
            contract=certificate_chain("contract", 2, 800, 800),
        ),
        "failed": provisioning(
            "FAILED_NoCertificateAvailable",
            cps=certificate_chain("CPS", None, 0),
            contract=certificate_chain("contract", None, 0),
            key=0,
            dh=0,
            emaid="ZZ000000000000",
        ),
        "emaid_14": provisioning(emaid=EMAID[:14]),
    }.items():
        yield f"CertificateInstallationRes_{name}", el("b:CertificateInstallationRes", content)
        yield f"CertificateUpdateRes_{name}", el("b:CertificateUpdateRes", content)
    for retry in (-1, 0, 1, 32767, -32768):
        yield (
            f"CertificateUpdateRes_retry_{retry}",
            el(
                "b:CertificateUpdateRes",
                provisioning("FAILED", key=16, dh=1),
                el("b:RetryCounter", str(retry)),
            ),
        )


def charging_messages() -> Iterator[tuple[str, str]]:
    """ChargeParameterDiscovery, PowerDelivery, ChargingStatus."""

    def discovery(parameter: str, entries: int | None = None, mode: str = "DC_extended") -> str:
        return el(
            "b:ChargeParameterDiscoveryReq",
            el("b:MaxEntriesSAScheduleTuple", str(entries)) if entries is not None else "",
            el("b:RequestedEnergyTransferMode", mode),
            parameter,
        )

    ac_values = (
        physical_value("t:EAmount", 3, "Wh", 22)
        + physical_value("t:EVMaxVoltage", 0, "V", 400)
        + physical_value("t:EVMaxCurrent", -3, "A", 32000)
        + physical_value("t:EVMinCurrent", 0, "A", -6)
    )
    departure = el("t:DepartureTime", "3600")
    for entries in (None, 0, 3, 65535):
        yield (
            f"ChargeParameterDiscoveryReq_AC_entries_{entries}",
            discovery(el("t:AC_EVChargeParameter", ac_values), entries, "AC_three_phase_core"),
        )
    for mode in ENERGY_TRANSFER_MODES:
        yield (
            f"ChargeParameterDiscoveryReq_mode_{mode}",
            discovery(el("t:AC_EVChargeParameter", departure, ac_values), None, mode),
        )
    for time in (0, 127, 128, 4294967295):
        yield (
            f"ChargeParameterDiscoveryReq_departure_{time}",
            discovery(
                el("t:AC_EVChargeParameter", el("t:DepartureTime", str(time)), ac_values),
                None,
                "AC_single_phase_core",
            ),
        )
    for name, content in variants(
        optional("DepartureTime", departure),
        el("t:DC_EVStatus", dc_ev_status()),
        physical_value("t:EVMaximumCurrentLimit", 0, "A", 400),
        optional("EVMaximumPowerLimit", physical_value("t:EVMaximumPowerLimit", 3, "W", 150)),
        physical_value("t:EVMaximumVoltageLimit", 0, "V", 800),
        optional("EVEnergyCapacity", physical_value("t:EVEnergyCapacity", 3, "Wh", 77)),
        optional("EVEnergyRequest", physical_value("t:EVEnergyRequest", 3, "Wh", 40)),
        optional("FullSOC", el("t:FullSOC", "100")),
        optional("BulkSOC", el("t:BulkSOC", "0")),
    ):
        yield (
            f"ChargeParameterDiscoveryReq_DC_{name}",
            discovery(el("t:DC_EVChargeParameter", content)),
        )

    ac_parameter = el(
        "t:AC_EVSEChargeParameter",
        el("t:AC_EVSEStatus", ac_evse_status()),
        physical_value("t:EVSENominalVoltage", 0, "V", 230),
        physical_value("t:EVSEMaxCurrent", 0, "A", 32),
    )

    def answer(parameter: str, schedules: str = "", processing: str = "Finished") -> str:
        return el(
            "b:ChargeParameterDiscoveryRes",
            el("b:ResponseCode", "OK"),
            el("b:EVSEProcessing", processing),
            schedules,
            parameter,
        )

    def schedules(*tuples: str) -> str:
        return el("t:SAScheduleList", *tuples)

    yield "ChargeParameterDiscoveryRes_AC_min", answer(ac_parameter, processing="Ongoing")
    for count in (1, 2, 3):
        yield (
            f"ChargeParameterDiscoveryRes_tuples_{count}",
            answer(ac_parameter, schedules(*(schedule_tuple(i + 1) for i in range(count)))),
        )
    for tuple_id in (1, 255):
        yield (
            f"ChargeParameterDiscoveryRes_tuple_id_{tuple_id}",
            answer(ac_parameter, schedules(schedule_tuple(tuple_id))),
        )
    for name, entries in {
        "2": p_max_entry(0) + p_max_entry(3600, 0),
        "24": "".join(p_max_entry(3600 * i, None, i) for i in range(24)),
        "start_max": p_max_entry(16777214, 86400),
        "value_min": p_max_entry(0, 1, -32768),
        "value_max": p_max_entry(128, 127, 32767),
    }.items():
        yield (
            f"ChargeParameterDiscoveryRes_p_max_{name}",
            answer(ac_parameter, schedules(schedule_tuple(1, "", entries))),
        )
    for name, content in variants(
        el("t:SalesTariffID", "1"),
        optional("Description", el("t:SalesTariffDescription", "pnclab test tariff")),
        optional("NumEPriceLevels", el("t:NumEPriceLevels", "255")),
        tariff_entry(0),
    ):
        yield (
            f"ChargeParameterDiscoveryRes_tariff_{name}",
            answer(ac_parameter, schedules(schedule_tuple(1, el("t:SalesTariff", content)))),
        )
    for name, tariff in {
        "id": sales_tariff(tariff_entry(0, 1), t_Id="id1"),
        "entries_2": sales_tariff(tariff_entry(0, 0), tariff_entry(3600, 255)),
        "cost": sales_tariff(tariff_entry(0, None, consumption_cost(cost()))),
        "level_and_cost": sales_tariff(tariff_entry(0, 1, consumption_cost(cost()))),
        "costs_2": sales_tariff(
            tariff_entry(0, 1, consumption_cost(cost(), cost("CarbonDioxideEmission", 0)))
        ),
        "costs_3": sales_tariff(
            tariff_entry(
                0,
                1,
                *(
                    consumption_cost(
                        cost("relativePricePercentage", 100, -3),
                        cost("RenewableGenerationPercentage", 128, 3),
                        cost("CarbonDioxideEmission", 4294967295, 0),
                    )
                    for _ in range(3)
                ),
            )
        ),
        "consumption_2": sales_tariff(
            tariff_entry(0, 1, consumption_cost(cost()), consumption_cost(cost()))
        ),
    }.items():
        yield (
            f"ChargeParameterDiscoveryRes_tariff_{name}",
            answer(ac_parameter, schedules(schedule_tuple(1, tariff), schedule_tuple(2))),
        )
    for name, content in variants(
        el("t:DC_EVSEStatus", dc_evse_status()),
        physical_value("t:EVSEMaximumCurrentLimit", 0, "A", 500),
        physical_value("t:EVSEMaximumPowerLimit", 3, "W", 350),
        physical_value("t:EVSEMaximumVoltageLimit", 0, "V", 920),
        physical_value("t:EVSEMinimumCurrentLimit", 0, "A", 1),
        physical_value("t:EVSEMinimumVoltageLimit", 0, "V", 150),
        optional(
            "EVSECurrentRegulationTolerance",
            physical_value("t:EVSECurrentRegulationTolerance", -1, "A", 5),
        ),
        physical_value("t:EVSEPeakCurrentRipple", 0, "A", 1),
        optional(
            "EVSEEnergyToBeDelivered", physical_value("t:EVSEEnergyToBeDelivered", 3, "Wh", 9)
        ),
    ):
        yield (
            f"ChargeParameterDiscoveryRes_DC_{name}",
            answer(el("t:DC_EVSEChargeParameter", content), schedules(schedule_tuple(1))),
        )
    for notification in ("None", "StopCharging", "ReNegotiation"):
        for delay, rcd in ((0, "false"), (65535, "true")):
            yield (
                f"PowerDeliveryRes_AC_{notification}_{delay}",
                el(
                    "b:PowerDeliveryRes",
                    el("b:ResponseCode", "FAILED_PowerDeliveryNotApplied"),
                    el("t:AC_EVSEStatus", ac_evse_status(delay, notification, rcd)),
                ),
            )

    def profile_entry(start: int, phases: int | None = None) -> str:
        return el(
            "t:ProfileEntry",
            el("t:ChargingProfileEntryStart", str(start)),
            physical_value("t:ChargingProfileEntryMaxPower", 3, "W", 11),
            el("t:ChargingProfileEntryMaxNumberOfPhasesInUse", str(phases)) if phases else "",
        )

    def dc_parameter(bulk: str | None, complete: str = "false") -> str:
        return el(
            "t:DC_EVPowerDeliveryParameter",
            el("t:DC_EVStatus", dc_ev_status()),
            el("t:BulkChargingComplete", bulk) if bulk else "",
            el("t:ChargingComplete", complete),
        )

    for progress in ("Start", "Stop", "Renegotiate"):
        for name, content in variants(
            el("b:ChargeProgress", progress),
            el("b:SAScheduleTupleID", "1"),
            optional("profile", el("b:ChargingProfile", profile_entry(0, 3))),
            optional("DC_EVPowerDeliveryParameter", dc_parameter("true")),
        ):
            yield f"PowerDeliveryReq_{progress}_{name}", el("b:PowerDeliveryReq", content)
    for count in (2, 23, 24):
        yield (
            f"PowerDeliveryReq_profile_{count}",
            el(
                "b:PowerDeliveryReq",
                el("b:ChargeProgress", "Start"),
                el("b:SAScheduleTupleID", "255"),
                el(
                    "b:ChargingProfile",
                    *(profile_entry(900 * i, (None, 1, 2, 3)[i % 4]) for i in range(count)),
                ),
            ),
        )
    yield (
        "PowerDeliveryReq_bulk_absent",
        el(
            "b:PowerDeliveryReq",
            el("b:ChargeProgress", "Stop"),
            el("b:SAScheduleTupleID", "1"),
            el("b:ChargingProfile", profile_entry(4294967295)),
            dc_parameter(None, "true"),
        ),
    )

    yield "ChargingStatusReq", el("b:ChargingStatusReq")
    for name, content in variants(
        el("b:ResponseCode", "OK"),
        el("b:EVSEID", text(EVSEID)),
        el("b:SAScheduleTupleID", "1"),
        optional("EVSEMaxCurrent", physical_value("b:EVSEMaxCurrent")),
        optional("MeterInfo", el("b:MeterInfo", meter_info())),
        optional("ReceiptRequired", el("b:ReceiptRequired", "true")),
        el("b:AC_EVSEStatus", ac_evse_status()),
    ):
        yield f"ChargingStatusRes_{name}", el("b:ChargingStatusRes", content)


def dc_messages() -> Iterator[tuple[str, str]]:
    """CableCheck, PreCharge, CurrentDemand, WeldingDetection, and all of the DC status."""
    for error in EV_ERROR_CODES:
        yield (
            f"CableCheckReq_{error}",
            el("b:CableCheckReq", el("b:DC_EVStatus", dc_ev_status("false", error, 100))),
        )
    for soc in (0, 1, 100):
        yield (
            f"WeldingDetectionReq_soc_{soc}",
            el("b:WeldingDetectionReq", el("b:DC_EVStatus", dc_ev_status(soc=soc))),
        )
    for code in EVSE_STATUS_CODES:
        yield (
            f"CableCheckRes_{code}",
            el(
                "b:CableCheckRes",
                el("b:ResponseCode", "OK"),
                el("b:DC_EVSEStatus", dc_evse_status(0, "None", None, code)),
                el("b:EVSEProcessing", "Ongoing"),
            ),
        )
    for level in ISOLATION_LEVELS:
        yield (
            f"WeldingDetectionRes_{level}",
            el(
                "b:WeldingDetectionRes",
                el("b:ResponseCode", "OK"),
                el("b:DC_EVSEStatus", dc_evse_status(1, "StopCharging", level)),
                physical_value("b:EVSEPresentVoltage", 0, "V", 0),
            ),
        )
    for multiplier in range(-3, 4):
        yield (
            f"PreChargeReq_multiplier_{multiplier}",
            el(
                "b:PreChargeReq",
                el("b:DC_EVStatus", dc_ev_status()),
                physical_value("b:EVTargetVoltage", multiplier, "V", 400),
                physical_value("b:EVTargetCurrent", 0, "A", 0),
            ),
        )
    for unit in UNITS:
        yield (
            f"PreChargeRes_unit_{unit}",
            el(
                "b:PreChargeRes",
                el("b:ResponseCode", "OK"),
                el("b:DC_EVSEStatus", dc_evse_status()),
                physical_value("b:EVSEPresentVoltage", 0, unit, 1),
            ),
        )
    for value in (-32768, -129, -128, -1, 0, 127, 128, 16383, 16384, 32767):
        yield (
            f"PreChargeRes_value_{value}",
            el(
                "b:PreChargeRes",
                el("b:ResponseCode", "OK"),
                el("b:DC_EVSEStatus", dc_evse_status()),
                physical_value("b:EVSEPresentVoltage", 0, "V", value),
            ),
        )
    for name, content in variants(
        el("b:DC_EVStatus", dc_ev_status()),
        physical_value("b:EVTargetCurrent"),
        optional("EVMaximumVoltageLimit", physical_value("b:EVMaximumVoltageLimit", 0, "V")),
        optional("EVMaximumCurrentLimit", physical_value("b:EVMaximumCurrentLimit")),
        optional("EVMaximumPowerLimit", physical_value("b:EVMaximumPowerLimit", 3, "W")),
        optional("BulkChargingComplete", el("b:BulkChargingComplete", "true")),
        el("b:ChargingComplete", "false"),
        optional("RemainingTimeToFullSoC", physical_value("b:RemainingTimeToFullSoC", 0, "s")),
        optional("RemainingTimeToBulkSoC", physical_value("b:RemainingTimeToBulkSoC", 0, "s")),
        physical_value("b:EVTargetVoltage", 0, "V", 400),
    ):
        yield f"CurrentDemandReq_{name}", el("b:CurrentDemandReq", content)
    for name, content in variants(
        el("b:ResponseCode", "OK"),
        el("b:DC_EVSEStatus", dc_evse_status()),
        physical_value("b:EVSEPresentVoltage", 0, "V", 400),
        physical_value("b:EVSEPresentCurrent"),
        el("b:EVSECurrentLimitAchieved", "true"),
        el("b:EVSEVoltageLimitAchieved", "false"),
        el("b:EVSEPowerLimitAchieved", "true"),
        optional("EVSEMaximumVoltageLimit", physical_value("b:EVSEMaximumVoltageLimit", 0, "V")),
        optional("EVSEMaximumCurrentLimit", physical_value("b:EVSEMaximumCurrentLimit")),
        optional("EVSEMaximumPowerLimit", physical_value("b:EVSEMaximumPowerLimit", 3, "W")),
        el("b:EVSEID", text(EVSEID)),
        el("b:SAScheduleTupleID", "1"),
        optional("MeterInfo", el("b:MeterInfo", meter_info(1, 64, 0, 1))),
        optional("ReceiptRequired", el("b:ReceiptRequired", "false")),
    ):
        yield f"CurrentDemandRes_{name}", el("b:CurrentDemandRes", content)


def iso2_documents() -> Iterator[tuple[str, str]]:
    yield from headers()
    for part in (session_messages, contract_messages, charging_messages, dc_messages):
        for name, body in part():
            yield name, message(body)


def iso2_fragments() -> Iterator[tuple[str, str]]:
    """Every element that is signed in -2, and others that take the same road."""
    yield from (
        (name, xml)
        for name, xml in contract_messages()
        if name
        in [
            "AuthorizationReq_min",
            "AuthorizationReq_id",
            "AuthorizationReq_challenge",
            "AuthorizationReq_full",
            "AuthorizationReq_zero_challenge",
            "MeteringReceiptReq_meter_min",
            "MeteringReceiptReq_meter_full",
            "MeteringReceiptReq_no_id_tuple_None",
            "MeteringReceiptReq_id_tuple_255",
            "CertificateInstallationReq_serial_1",
            "CertificateInstallationReq_roots_5",
            "CertificateInstallationReq_roots_20",
            "CertificateInstallationReq_certificate_800",
            "CertificateUpdateReq_roots_1",
            "CertificateUpdateReq_roots_20",
            "CertificateUpdateReq_subs_4",
            "PaymentDetailsReq_subs_2",
        ]
    )
    for tag in ("ContractSignatureCertChain", "SAProvisioningCertificateChain"):
        for subs in (None, 1, 2, 4):
            yield f"{tag}_subs_{subs}", el(f"b:{tag}", certificate_chain("chain", subs), t_Id="id1")
        yield f"{tag}_no_id", el(f"b:{tag}", certificate_chain("chain"))
    for length in (0, 32, 48):
        yield (
            f"ContractSignatureEncryptedPrivateKey_{length}",
            el("b:ContractSignatureEncryptedPrivateKey", filler("no key", length), t_Id="id2"),
        )
    for length in (0, 65):
        yield (
            f"DHpublickey_{length}",
            el("b:DHpublickey", filler("no public key", length), t_Id="id3"),
        )
    for length in (14, 15):
        yield f"eMAID_{length}", el("b:eMAID", EMAID[:length], t_Id="id4")
    # Two types bear the name eMAID, so as a fragment both are coded by the relaxed grammar.
    yield "eMAID_without_id", el("b:eMAID", EMAID)
    for name, tariff in {
        "min": el("t:SalesTariff", el("t:SalesTariffID", "1"), tariff_entry(0)),
        "full": sales_tariff(
            tariff_entry(0, 1, consumption_cost(cost("relativePricePercentage", 100, 0))),
            tariff_entry(3600, 2),
            t_Id="id1",
        ),
    }.items():
        yield f"SalesTariff_{name}", tariff
    yield "SignedInfo", signed_info()
    yield "Signature", signature()
    yield "MeterInfo", el("b:MeterInfo", meter_info(1, 64, 1, 1))
    yield "Header", el("d:Header", el("h:SessionID", SESSION_ID))
    yield "Body_empty", el("d:Body")
    yield "GenChallenge", el("b:GenChallenge", CHALLENGE)
    yield "V2G_Message", message(el("b:ChargingStatusReq"))
    yield "DC_EVSEStatus", el("t:DC_EVSEStatus", dc_evse_status())


def xmldsig_fragments() -> Iterator[tuple[str, str]]:
    """SignedInfo in all its shapes, and the rest of a signature."""
    yield "SignedInfo", signed_info()
    for count in (2, 3, 4, 5):
        yield (
            f"SignedInfo_references_{count}",
            signed_info(*(reference(f"#id{i}") for i in range(1, count + 1))),
        )
    yield "SignedInfo_id", signed_info(Id="si1")
    for name, digest, length in (
        ("sha1", "http://www.w3.org/2000/09/xmldsig#sha1", 20),
        ("sha384", "http://www.w3.org/2001/04/xmldsig-more#sha384", 48),
        ("sha512", "http://www.w3.org/2001/04/xmlenc#sha512", 64),
        ("empty", "", 0),
    ):
        yield (
            f"SignedInfo_{name}",
            signed_info(
                reference(digest=digest, length=length),
                method=el(
                    "x:SignatureMethod",
                    Algorithm=f"http://www.w3.org/2001/04/xmldsig-more#ecdsa-{name}",
                ),
            ),
        )
    uri, ref_id, kind = {"URI": "#id1"}, {"Id": "r1"}, {"Type": "urn:test"}
    for attributes in (
        {},
        uri,
        ref_id,
        kind,
        uri | ref_id,
        uri | kind,
        ref_id | kind,
        uri | ref_id | kind,
    ):
        yield (
            "Reference_" + ("_".join(sorted(attributes)) or "bare"),
            signed_info(reference(None, **attributes)),
        )
    yield "Reference_uri_empty", signed_info(reference(""))
    yield "Reference_uri_unicode", signed_info(reference("#größe"))
    transform = el("x:Transform", Algorithm=C14N)
    for name, transforms in {
        "none": "",
        "2": el("x:Transforms", transform, transform),
        "3": el("x:Transforms", transform, transform, transform),
        "xpath": el(
            "x:Transforms", el("x:Transform", el("x:XPath", "/test"), Algorithm="urn:test")
        ),
        "xpath_2": el(
            "x:Transforms",
            el("x:Transform", el("x:XPath", "/a"), el("x:XPath", text("")), Algorithm="urn:test"),
        ),
        "text": el("x:Transforms", el("x:Transform", "mixed text", Algorithm=C14N)),
    }.items():
        yield f"Transforms_{name}", signed_info(reference(transforms=transforms))
    for name, method in {
        "hmac_0": el("x:SignatureMethod", el("x:HMACOutputLength", "0"), Algorithm="urn:hmac"),
        "hmac_256": el("x:SignatureMethod", el("x:HMACOutputLength", "256"), Algorithm="urn:hmac"),
        "hmac_big": el(
            "x:SignatureMethod", el("x:HMACOutputLength", str(-(2**70))), Algorithm="urn:hmac"
        ),
        "text": el("x:SignatureMethod", "mixed text", Algorithm=ECDSA_SHA256),
        "text_hmac": el(
            "x:SignatureMethod", "before ", el("x:HMACOutputLength", "8"), Algorithm="urn:hmac"
        ),
    }.items():
        yield f"SignatureMethod_{name}", signed_info(method=method)
    yield (
        "CanonicalizationMethod_text",
        signed_info(canonicalization=el("x:CanonicalizationMethod", "mixed text", Algorithm=C14N)),
    )
    yield "Signature", signature()
    yield "Signature_id", signature(Id="s1")
    yield (
        "Signature_value_id",
        signature(value=el("x:SignatureValue", filler("signature", 64), Id="v1")),
    )
    issuer_serial = el(
        "x:X509IssuerSerial",
        el("x:X509IssuerName", "CN=pnclab test"),
        el("x:X509SerialNumber", "1"),
    )
    small = filler("number", 4)
    for name, content in {
        "KeyName": el("x:KeyName", "pnclab test key"),
        "MgmtData": el("x:MgmtData", text("")),
        "RSAKeyValue": el(
            "x:KeyValue", el("x:RSAKeyValue", el("x:Modulus", small), el("x:Exponent", "AQAB"))
        ),
        "DSAKeyValue_min": el("x:KeyValue", el("x:DSAKeyValue", el("x:Y", small))),
        "DSAKeyValue_full": el(
            "x:KeyValue",
            el(
                "x:DSAKeyValue",
                *(
                    el(f"x:{part}", small)
                    for part in ["P", "Q", "G", "Y", "J", "Seed", "PgenCounter"]
                ),
            ),
        ),
        "DSAKeyValue_PQY": el(
            "x:KeyValue", el("x:DSAKeyValue", *(el(f"x:{part}", small) for part in "PQY"))
        ),
        "DSAKeyValue_GYJ": el(
            "x:KeyValue", el("x:DSAKeyValue", *(el(f"x:{part}", small) for part in "GYJ"))
        ),
        "RetrievalMethod": el("x:RetrievalMethod"),
        "RetrievalMethod_full": el(
            "x:RetrievalMethod",
            el("x:Transforms", transform),
            Type="urn:test",
            URI="urn:test:key",
        ),
        "X509IssuerSerial": el("x:X509Data", issuer_serial),
        "X509SKI": el("x:X509Data", el("x:X509SKI", small)),
        "X509SubjectName": el("x:X509Data", el("x:X509SubjectName", "CN=pnclab test")),
        "X509Certificate": el("x:X509Data", el("x:X509Certificate", filler("no cert", 60))),
        "X509CRL": el("x:X509Data", el("x:X509CRL", filler("no CRL", 20))),
        "X509Data_mixture": el(
            "x:X509Data",
            issuer_serial,
            el("x:X509Certificate", small),
            el("x:X509Certificate", small),
            el("x:X509CRL", small),
        ),
        "PGPData_id": el("x:PGPData", el("x:PGPKeyID", small)),
        "PGPData_id_packet": el("x:PGPData", el("x:PGPKeyID", small), el("x:PGPKeyPacket", small)),
        "PGPData_packet": el("x:PGPData", el("x:PGPKeyPacket", small)),
        "SPKIData": el("x:SPKIData", el("x:SPKISexp", small)),
        "SPKIData_2": el("x:SPKIData", el("x:SPKISexp", small), el("x:SPKISexp", small)),
        "two_of_them": el("x:KeyName", "a") + el("x:KeyName", "b"),
    }.items():
        yield f"KeyInfo_{name}", signature(el("x:KeyInfo", content))
    yield (
        "KeyInfo_id",
        signature(el("x:KeyInfo", el("x:KeyName", "pnclab test key"), Id="k1")),
    )
    for name, attributes in {
        "bare": {},
        "id": {"Id": "o1"},
        "full": {"Encoding": "urn:test", "Id": "o1", "MimeType": "text/plain"},
    }.items():
        yield f"Object_{name}", signature(el("x:Object", **attributes))
    yield "Object_text", signature(el("x:Object", "pnclab test"))
    yield "Manifest", el("x:Manifest", reference(), reference("#id2"), Id="m1")
    yield "DigestValue", el("x:DigestValue", filler("digest", 32))
    yield "KeyName", el("x:KeyName", "pnclab test key")


def wildcards() -> Iterator[tuple[str, str]]:
    """Where xmldsig allows any element: ISO 15118 forbids it [V2G2-771], the grammar does not."""
    yield (
        "Object_Manifest",
        signature(el("x:Object", el("x:Manifest", reference()))),
    )
    yield (
        "Object_two_elements",
        signature(el("x:Object", el("x:KeyName", "a"), el("x:KeyName", "b"))),
    )


# (group, schema, fragment, vectors)
GROUPS = (
    ("sap", "sap", False, sap),
    ("iso2", "iso2", False, iso2_documents),
    ("iso2_fragment", "iso2", True, iso2_fragments),
    ("xmldsig_fragment", "xmldsig", True, xmldsig_fragments),
    ("xmldsig_wildcard", "xmldsig", True, wildcards),
)


def forbidden_values() -> Iterator[tuple[str, str, str]]:
    """(name, XML, reason): values that the schema forbids and that the third party still codes.

    It falls back to the escape of the non-strict grammar and writes them as untyped characters,
    which a codec for ISO 15118 must refuse, since it lets any text stand for any type.
    """

    def receipt(tuple_id: str) -> str:
        return message(
            el(
                "b:MeteringReceiptReq",
                el("b:SessionID", SESSION_ID),
                el("b:SAScheduleTupleID", tuple_id),
                el("b:MeterInfo", meter_info()),
            )
        )

    yield "tuple_id_0", receipt("0"), "SAScheduleTupleID 0: the least is 1 (SAIDType)"
    yield "tuple_id_256", receipt("256"), "SAScheduleTupleID 256: the most is 255 (SAIDType)"
    yield (
        "response_code_unknown",
        message(el("b:SessionStopRes", el("b:ResponseCode", "OK_Whatever"))),
        "ResponseCode OK_Whatever: not one of responseCodeType",
    )
    yield (
        "multiplier_4",
        message(
            el(
                "b:PreChargeReq",
                el("b:DC_EVStatus", dc_ev_status()),
                physical_value("b:EVTargetVoltage", 4, "V", 400),
                physical_value("b:EVTargetCurrent", 0, "A", 0),
            )
        ),
        "Multiplier 4: the most is 3 (unitMultiplierType)",
    )
    yield (
        "soc_101",
        message(el("b:WeldingDetectionReq", el("b:DC_EVStatus", dc_ev_status(soc=101)))),
        "EVRESSSOC 101: the most is 100 (percentValueType)",
    )
    yield (
        "boolean_text",
        message(el("b:WeldingDetectionReq", el("b:DC_EVStatus", dc_ev_status("maybe")))),
        "EVReady maybe: not a boolean",
    )


def overlong_values() -> Iterator[tuple[str, str, str]]:
    """(name, XML, reason): values whose length the schema bounds, but EXI's coding does not.

    They are coded like any other value, so only a codec that checks facets refuses them.
    """

    def payment(emaid: str, length: int) -> str:
        return message(
            el(
                "b:PaymentDetailsReq",
                el("b:eMAID", emaid),
                el("b:ContractSignatureCertChain", certificate_chain("contract", None, length)),
            )
        )

    def authorization(length: int) -> str:
        return message(el("b:AuthorizationReq", el("b:GenChallenge", filler("challenge", length))))

    yield "challenge_15", authorization(15), "GenChallenge of 15 bytes: exactly 16 are wanted"
    yield "challenge_17", authorization(17), "GenChallenge of 17 bytes: exactly 16 are wanted"
    yield "emaid_13", payment(EMAID[:13], 9), "eMAID of 13 characters: the least is 14"
    yield "emaid_16", payment(EMAID + "X", 9), "eMAID of 16 characters: the most is 15"
    yield "certificate_801", payment(EMAID, 801), "Certificate of 801 bytes: the most is 800"
    yield (
        "session_id_9",
        message(el("b:ChargingStatusReq"), SESSION_ID + "00"),
        "SessionID of 9 bytes: the most is 8",
    )
    yield (
        "fault_message_65",
        message(
            "",
            header=el(
                "h:Notification",
                el("t:FaultCode", "UnknownError"),
                el("t:FaultMsg", "f" * 65),
            ),
        ),
        "FaultMsg of 65 characters: the most is 64 (faultMsgType)",
    )


COMPILED_GRAMMAR = (
    "the codec's compiled grammar deviates from the schema: after the last allowed repetition it "
    "still codes as if one more could follow"
)

EMPTY_TEXT = (
    "an empty value coded as characters of length zero; Canonical EXI 4.3.2 wants no characters, "
    "and so the end of the element through the escape of the non-strict grammar"
)


def with_namespaces(xml: str) -> str:
    """Declare on the root the prefixes that the text uses."""
    end = next(i for i, c in enumerate(xml) if c in " >")
    used = [p for p in NAMESPACES if f"<{p}:" in xml or f" {p}:" in xml]
    declarations = "".join(f' xmlns:{p}="{NAMESPACES[p]}"' for p in used)
    return xml[:end] + declarations + xml[end:]


def make(josev: JosevPeer) -> dict[str, object]:
    """All vectors, in order. Each was decoded again by the third party and came back the same."""
    vectors: list[dict[str, object]] = []

    def add(name: str, xml: str, exi: bytes, **mark: str) -> None:
        vectors.append(
            {
                "name": name,
                "schema": schema,
                "fragment": fragment,
                "xml": xml.replace(EMPTY, ""),
                "exi": exi.hex(),
                **mark,
            }
        )

    for group, schema, fragment, source in GROUPS:
        for short, content in source():
            name, xml = f"{group}_{short}", with_namespaces(content)
            plain = xml.replace(EMPTY, "")
            exi = josev.encode(plain, schema, fragment, "xsd")
            if canonical(josev.decode(exi, schema, fragment, "xsd")) != canonical(plain):
                raise AssertionError(f"{name}: decoded differently from what was encoded")
            add(name, xml, exi)
            if EMPTY in xml:
                # Whether its body encoder takes empty characters depends on how its grammar knows
                # the type; for some types neither grammar does, and there is no alternative.
                for grammar in ("xsd", "jar"):
                    with_characters = josev.encode(xml, schema, fragment, grammar, EMPTY)
                    if with_characters != exi:
                        add(f"{name}_characters", xml, with_characters, alternative=EMPTY_TEXT)
                        break
                continue
            compiled = josev.encode(xml, schema, fragment, "jar")
            if compiled != exi:
                add(f"{name}_compiled", xml, compiled, nonconformant=COMPILED_GRAMMAR)
    schema, fragment = "iso2", False
    for kind, faulty in (("forbidden", forbidden_values), ("overlong", overlong_values)):
        for short, content, reason in faulty():
            xml = with_namespaces(content)
            add(f"iso2_{kind}_{short}", xml, josev.encode(xml, "iso2"), nonconformant=reason)
    names = [str(vector["name"]) for vector in vectors]
    if len(names) != len(set(names)):
        raise AssertionError("two vectors bear the same name")
    return {
        "what": WHAT,
        "origin": ORIGIN.format(**josev.versions()),
        "license": "Apache-2.0",
        "vectors": vectors,
    }


def as_text(document: dict[str, object]) -> str:
    """JSON with one vector per line, so that a change shows as the lines that changed."""
    head = {key: value for key, value in document.items() if key != "vectors"}
    lines = [json.dumps(head, indent=1, ensure_ascii=False)[:-2] + ',\n "vectors": [']
    vectors = document["vectors"]
    assert isinstance(vectors, list)
    lines.append(",\n".join("  " + json.dumps(v, ensure_ascii=False) for v in vectors))
    return "\n".join(lines) + "\n ]\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    arguments = parser.parse_args()
    with JosevPeer() as josev:
        made = as_text(make(josev))
    if arguments.check:
        same = TARGET.read_text(encoding="utf-8") == made
        print(f"{TARGET.name}: {'as made' if same else 'differs from what is made now'}")
        return 0 if same else 1
    TARGET.write_text(made, encoding="utf-8")
    count = len(json.loads(made)["vectors"])
    print(f"{TARGET.name}: {count} vectors, {len(made) // 1024} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
