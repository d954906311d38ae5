"""Whatever fits a schema comes back as it was, through EXI and through XML text."""

from __future__ import annotations

import copy
import pickle
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from v2g import exi
from v2g.exi.grammar import clark, grammars
from v2g.messages import iso2, sap, xmldsig

CASES = [
    (schema.name, fragment, clark(root.uri, root.name))
    for schema in exi.SCHEMAS.values()
    for fragment, roots in (
        (False, grammars(schema).document_list),
        (True, grammars(schema).fragment_list),
    )
    for root in roots
    if not root.abstract
]


def _round_trip(maker: Any, case: tuple[str, bool, str], rng: random.Random) -> None:
    name, fragment, root_name = case
    schema = exi.SCHEMAS[name]
    compiled = grammars(schema)
    roots = compiled.fragments if fragment else compiled.documents
    uri, _, local = root_name.removeprefix("{").rpartition("}")
    value = maker(schema, rng).value(rng.choice(roots[uri, local].types))
    if fragment:
        data = exi.encode_fragment(schema, root_name, value)
        back = exi.decode_fragment(schema, data)
    else:
        data = exi.encode(schema, value, name=root_name)
        back = exi.decode_document(schema, data)
    assert back[0] in (local, root_name)
    assert back[1] == value
    text = exi.to_xml(schema, value, name=root_name)
    assert exi.from_xml(schema, text, fragment=fragment) == back
    indented = exi.to_xml(schema, value, name=root_name, indent=2)
    assert exi.from_xml(schema, indented, fragment=fragment) == back


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{case[2]}-{case[1]}")
def test_every_element_once(maker: Any, case: tuple[str, bool, str]) -> None:
    _round_trip(maker, case, random.Random(repr(case)))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=st.sampled_from(CASES), rng=st.randoms(use_true_random=False))
def test_any_value(maker: Any, case: tuple[str, bool, str], rng: random.Random) -> None:
    _round_trip(maker, case, rng)


# The messages as values -------------------------------------------------------------------------


def _authorization() -> iso2.V2G_Message:
    return iso2.V2G_Message(
        Header=iso2.MessageHeader(SessionID=bytes(8)),
        Body=iso2.Body(iso2.AuthorizationReq(GenChallenge=bytes(16), Id="id1")),
    )


def test_values_compare_and_hash_by_content() -> None:
    assert _authorization() == _authorization()
    assert hash(_authorization()) == hash(_authorization())
    assert _authorization() != _authorization().replace(Body=iso2.Body())
    assert iso2.AC_EVSEStatus(
        NotificationMaxDelay=1, EVSENotification=iso2.EVSENotification.None_, RCD=True
    ) != iso2.PMaxSchedule(PMaxScheduleEntry=[])


def test_values_are_immutable() -> None:
    message = _authorization()
    with pytest.raises(AttributeError, match="immutable"):
        message.Header = message.Header  # type: ignore[misc]
    with pytest.raises(AttributeError, match="immutable"):
        del message.Header


def test_values_travel() -> None:
    message = _authorization()
    assert pickle.loads(pickle.dumps(message)) == message
    assert copy.deepcopy(message) == message


def test_lists_become_tuples() -> None:
    chain = iso2.SubCertificates(Certificate=[b"a", b"b"])  # type: ignore[arg-type]
    assert chain.Certificate == (b"a", b"b")


def test_a_value_shows_what_is_in_it() -> None:
    assert repr(iso2.CertificateChain(Certificate=b"x" * 800, Id="id1")) == (
        "CertificateChain(Certificate=<800 bytes 7878787878787878...>, Id='id1')"
    )


def test_building_checks_names() -> None:
    with pytest.raises(TypeError, match="needs EVSEID"):
        iso2.SessionSetupRes(ResponseCode=iso2.ResponseCode.OK)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no field Id"):
        iso2.SessionStopReq(ChargingSession="Pause", Id="id1")  # type: ignore[arg-type,call-arg]
    with pytest.raises(TypeError, match="positional"):
        iso2.Body(None, None)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="twice"):
        iso2.Body(None, BodyElement=None)  # type: ignore[misc]


def test_message_names() -> None:
    assert exi.message_name(_authorization()) == "AuthorizationReq"
    assert (
        exi.message_name(
            iso2.V2G_Message(Header=iso2.MessageHeader(SessionID=b""), Body=iso2.Body())
        )
        == "V2G_Message"
    )
    assert (
        exi.message_name(
            sap.supportedAppProtocolRes(ResponseCode=sap.ResponseCode.Failed_NoNegotiation)
        )
        == "supportedAppProtocolRes"
    )
    assert exi.message_name(iso2.PhysicalValue(Multiplier=0, Unit=iso2.UnitSymbol.A, Value=1)) == (
        "PhysicalValue"
    )


# What may not be written ------------------------------------------------------------------------


def _refusal(value: Any, name: str, schema: exi.Schema = iso2.SCHEMA) -> exi.EXIError:
    with pytest.raises(exi.EXIError) as caught:
        exi.encode_fragment(schema, name, value)
    with pytest.raises(exi.EXIError) as in_text:
        exi.to_xml(schema, value, name=name)
    assert in_text.value.code == caught.value.code
    assert in_text.value.path == caught.value.path
    return caught.value


AMPS = iso2.PhysicalValue(Multiplier=0, Unit=iso2.UnitSymbol.A, Value=16)
STATUS = iso2.DC_EVStatus(EVReady=True, EVErrorCode=iso2.DC_EVErrorCode.NO_ERROR, EVRESSSOC=5)


@pytest.mark.parametrize(
    ("name", "value", "code", "path"),
    [
        ("PhysicalValue", 3, "unknown", ""),
        ("EVTargetCurrent", 3, "type", "EVTargetCurrent"),
        ("EVTargetCurrent", STATUS, "type", "EVTargetCurrent"),
        ("EVTargetCurrent", AMPS.replace(Value=32768), "range", "EVTargetCurrent/Value"),
        ("EVTargetCurrent", AMPS.replace(Value=True), "type", "EVTargetCurrent/Value"),
        ("EVTargetCurrent", AMPS.replace(Value=1.0), "type", "EVTargetCurrent/Value"),
        ("EVTargetCurrent", AMPS.replace(Multiplier=-4), "range", "EVTargetCurrent/Multiplier"),
        ("EVTargetCurrent", AMPS.replace(Unit="kW"), "enumeration", "EVTargetCurrent/Unit"),
        ("EVTargetCurrent", AMPS.replace(Unit=3), "type", "EVTargetCurrent/Unit"),
        ("EVTargetCurrent", AMPS.replace(Unit=None), "missing", "EVTargetCurrent"),
        ("EVTargetCurrent", AMPS.replace(Value=None), "missing", "EVTargetCurrent"),
        (
            "CableCheckReq",
            iso2.CableCheckReq(DC_EVStatus=STATUS.replace(EVReady=1)),
            "type",
            "CableCheckReq/DC_EVStatus/EVReady",
        ),
        ("GenChallenge", bytes(15), "length", "GenChallenge"),
        ("GenChallenge", bytes(17), "length", "GenChallenge"),
        ("GenChallenge", "0" * 16, "type", "GenChallenge"),
        ("GenChallenge", b"", "length", "GenChallenge"),
        ("GenChallenge", None, "type", "GenChallenge"),
        ("OEMProvisioningCert", bytes(801), "length", "OEMProvisioningCert"),
        ("eMAID", "DE123", "ambiguous", "eMAID"),
        ("EVSEID", "DE*1", "length", "EVSEID"),
        ("EVSEID", "DE*12345\0", "character", "EVSEID"),
        ("EVSEID", "DE*12345\ud800", "character", "EVSEID"),
        ("BodyElement", iso2.SessionStopReq(ChargingSession="Pause"), "abstract", "BodyElement"),
        ("SubCertificates", iso2.SubCertificates(Certificate=()), "missing", "SubCertificates"),
        (
            "SubCertificates",
            iso2.SubCertificates(Certificate=(b"",) * 5),
            "length",
            "SubCertificates",
        ),
        (
            "SubCertificates",
            iso2.SubCertificates(Certificate=(None,)),
            "type",
            "SubCertificates/Certificate",
        ),
        (
            "AuthorizationReq",
            iso2.AuthorizationReq(Id=" id1"),
            "text",
            "AuthorizationReq/@Id",
        ),
        ("SubCertificates", iso2.SubCertificates(Certificate=b"x"), "type", "SubCertificates"),
        ("AuthorizationReq", iso2.AuthorizationReq(Id=7), "type", "AuthorizationReq/@Id"),
        ("Parameter", iso2.Parameter(Name="x"), "missing", "Parameter"),
        ("Parameter", iso2.Parameter(Name=None, intValue=1), "missing", "Parameter"),
        ("Parameter", iso2.Parameter(Name="x", intValue=1, boolValue=True), "element", "Parameter"),
        (
            "PowerDeliveryRes",
            iso2.PowerDeliveryRes(ResponseCode="OK", EVSEStatus=STATUS),
            "type",
            "PowerDeliveryRes",
        ),
        (
            "PowerDeliveryRes",
            iso2.PowerDeliveryRes(
                ResponseCode="OK",
                EVSEStatus=iso2.EVSEStatus(NotificationMaxDelay=1, EVSENotification="None"),
            ),
            "abstract",
            "PowerDeliveryRes",
        ),
        (
            "DHpublickey",
            iso2.DiffieHellmanPublickey(value=None, Id="i"),
            "type",
            "DHpublickey/text()",
        ),
        ("DHpublickey", iso2.DiffieHellmanPublickey(value=b"x", Id=None), "missing", "DHpublickey"),
        ("X509SerialNumber", 2**2000, "integer", "X509SerialNumber"),
    ],
)
def test_what_does_not_fit_is_not_written(name: str, value: Any, code: str, path: str) -> None:
    error = _refusal(value, name)
    assert (error.code, error.path, error.bit) == (code, path, None)
    assert error.code in str(error)
    assert error.code in exi.CODES


def _object(*content: Any) -> xmldsig.Object:
    return xmldsig.Object(content=content)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (_object("a", "b"), "text"),
        (_object(""), "text"),
        (_object(3), "type"),
        (xmldsig.Object(content=None), "type"),  # type: ignore[arg-type]
        (xmldsig.Object(content="text"), "type"),  # type: ignore[arg-type]
        (_object(exi.Node(None, "a", exi.Untyped())), "type"),  # type: ignore[arg-type]
        (_object(exi.Node("urn:x", "a b", exi.Untyped())), "character"),
        (_object(exi.Node("urn:x", "a", "text")), "type"),
        (_object(exi.Node("urn:x", "a", exi.Untyped(content=(3,)))), "type"),  # type: ignore[arg-type]
        (_object(exi.Node("urn:x", "a", exi.Untyped(content=("", "")))), "text"),
        (_object(exi.Node(xmldsig.XMLDSIG.uri, "KeyName", exi.Untyped())), "type"),
    ],
)
def test_open_content_that_does_not_fit(value: xmldsig.Object, code: str) -> None:
    assert _refusal(value, "Object", xmldsig.SCHEMA).code == code


def test_a_wildcard_for_others_takes_no_element_of_its_own() -> None:
    method = xmldsig.DigestMethod(
        Algorithm="x", content=(exi.Node(xmldsig.XMLDSIG.uri, "KeyName", "k"),)
    )
    assert _refusal(method, "DigestMethod", xmldsig.SCHEMA).code == "element"
    method = method.replace(content=(exi.Node("", "KeyName", exi.Untyped()),))
    assert _refusal(method, "DigestMethod", xmldsig.SCHEMA).code == "element"


def test_nesting_is_bounded() -> None:
    node = exi.Node("urn:x", "a", exi.Untyped())
    for _ in range(100):
        node = exi.Node("urn:x", "a", exi.Untyped(content=(node,)))
    error = _refusal(_object(node), "Object", xmldsig.SCHEMA)
    assert error.code == "depth"
    assert error.path.startswith("Object/a/a/")


# Names ------------------------------------------------------------------------------------------


def test_a_value_finds_its_element() -> None:
    data = exi.encode(iso2.SCHEMA, _authorization())
    assert data.startswith(b"\x80\x98")
    assert exi.decode(iso2.SCHEMA, data) == _authorization()
    with pytest.raises(exi.EXIError) as caught:
        exi.encode(iso2.SCHEMA, AMPS)
    assert caught.value.code == "unknown"
    with pytest.raises(exi.EXIError) as caught:
        exi.encode(sap.SCHEMA, _authorization())
    assert caught.value.code == "unknown"


def test_values_of_simple_types_need_a_name() -> None:
    assert exi.decode_document(
        xmldsig.SCHEMA, exi.encode(xmldsig.SCHEMA, b"abc", name="DigestValue")
    ) == ("DigestValue", b"abc")
    with pytest.raises(exi.EXIError):
        exi.encode(xmldsig.SCHEMA, b"abc")


def test_a_name_in_two_namespaces_is_told_apart() -> None:
    with pytest.raises(exi.EXIError) as caught:
        exi.encode_fragment(iso2.SCHEMA, "SessionID", b"")
    assert caught.value.code == "ambiguous"
    name = "{urn:iso:15118:2:2013:MsgHeader}SessionID"
    assert exi.decode_fragment(iso2.SCHEMA, exi.encode_fragment(iso2.SCHEMA, name, b"1")) == (
        name,
        b"1",
    )
