"""XML text: what is taken, what is refused, and how it is written."""

from __future__ import annotations

from typing import Any

import pytest

from v2g import exi
from v2g.messages import iso2, sap, xmldsig

DSIG = 'xmlns:d="http://www.w3.org/2000/09/xmldsig#"'
BODY = 'xmlns:b="urn:iso:15118:2:2013:MsgBody" xmlns:t="urn:iso:15118:2:2013:MsgDataTypes"'


def _parse(text: str, schema: exi.Schema = iso2.SCHEMA) -> Any:
    return exi.from_xml(schema, text, fragment=True)[1]


def _refusal(text: str, schema: exi.Schema = iso2.SCHEMA) -> exi.EXIError:
    with pytest.raises(exi.EXIError) as caught:
        exi.from_xml(schema, text, fragment=True)
    assert caught.value.bit is None
    assert caught.value.code in str(caught.value)
    return caught.value


def test_written_text() -> None:
    value = iso2.V2G_Message(
        Header=iso2.MessageHeader(SessionID=bytes.fromhex("00ff")),
        Body=iso2.Body(iso2.AuthorizationReq(GenChallenge=bytes(16), Id="id1")),
    )
    assert exi.to_xml(iso2.SCHEMA, value) == (
        '<v2gci_d:V2G_Message xmlns:v2gci_d="urn:iso:15118:2:2013:MsgDef"'
        ' xmlns:v2gci_h="urn:iso:15118:2:2013:MsgHeader"'
        ' xmlns:v2gci_b="urn:iso:15118:2:2013:MsgBody">'
        "<v2gci_d:Header><v2gci_h:SessionID>00FF</v2gci_h:SessionID></v2gci_d:Header>"
        '<v2gci_d:Body><v2gci_b:AuthorizationReq v2gci_b:Id="id1">'
        "<v2gci_b:GenChallenge>AAAAAAAAAAAAAAAAAAAAAA==</v2gci_b:GenChallenge>"
        "</v2gci_b:AuthorizationReq></v2gci_d:Body></v2gci_d:V2G_Message>"
    )


def test_indented_text() -> None:
    value = sap.supportedAppProtocolRes(
        ResponseCode=sap.ResponseCode.OK_SuccessfulNegotiation, SchemaID=1
    )
    assert exi.to_xml(sap.SCHEMA, value, indent=2).splitlines() == [
        '<v2gci_p:supportedAppProtocolRes xmlns:v2gci_p="urn:iso:15118:2:2010:AppProtocol">',
        "  <ResponseCode>OK_SuccessfulNegotiation</ResponseCode>",
        "  <SchemaID>1</SchemaID>",
        "</v2gci_p:supportedAppProtocolRes>",
    ]


@pytest.mark.parametrize(
    ("literal", "value"),
    [("true", True), ("false", False), ("1", True), ("0", False), (" \n1\t", True)],
)
def test_booleans(literal: str, value: bool) -> None:
    assert _parse(f"<b:ReceiptRequired {BODY}>{literal}</b:ReceiptRequired>") is value


@pytest.mark.parametrize(
    ("literal", "value"), [("+5", 5), ("-0", 0), ("007", 7), (" 5 ", 5), ("-32768", -32768)]
)
def test_integers(literal: str, value: int) -> None:
    assert _parse(f"<t:Value {BODY}>{literal}</t:Value>") == value


@pytest.mark.parametrize("literal", ["", "5.0", "0x5", "1e3", "5 5", "٥", "--5", "true"])
def test_no_integers(literal: str) -> None:
    error = _refusal(f"<t:Value {BODY}>{literal}</t:Value>")
    assert (error.code, error.path) == ("text", "Value")


@pytest.mark.parametrize(("literal", "code"), [("32768", "range"), ("9" * 5000, "integer")])
def test_integers_out_of_bounds(literal: str, code: str) -> None:
    assert _refusal(f"<t:Value {BODY}>{literal}</t:Value>").code == code


@pytest.mark.parametrize(
    "literal", ["AAECAw==", " AAEC\n  Aw== ", "A A E C A w = =", "<![CDATA[AAEC]]>Aw=<!-- -->="]
)
def test_base64(literal: str) -> None:
    assert _parse(f"<t:SigMeterReading {BODY}>{literal}</t:SigMeterReading>") == b"\0\1\2\3"


@pytest.mark.parametrize("literal", ["AAECAw", "AAEC*w==", "=", "ÄÄÄÄ"])
def test_no_base64(literal: str) -> None:
    assert _refusal(f"<t:SigMeterReading {BODY}>{literal}</t:SigMeterReading>").code == "text"


@pytest.mark.parametrize(
    ("literal", "value"), [("00ff", b"\0\xff"), (" 00Ff\n", b"\0\xff"), ("", b"")]
)
def test_hexadecimal(literal: str, value: bytes) -> None:
    assert _parse(f"<b:EVCCID {BODY}>{literal}</b:EVCCID>") == value


@pytest.mark.parametrize(("literal", "code"), [("0", "text"), ("0g", "text"), ("00" * 7, "length")])
def test_no_hexadecimal(literal: str, code: str) -> None:
    assert _refusal(f"<b:EVCCID {BODY}>{literal}</b:EVCCID>").code == code


def test_everything_that_xml_allows_around_the_values() -> None:
    text = """<?xml version="1.0" encoding="UTF-8"?>
    <!-- before --><?some instruction?>
    <b:AuthorizationReq xmlns:b="urn:iso:15118:2:2013:MsgBody"
        xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:unused="urn:x"
        xsi:schemaLocation="urn:iso:15118:2:2013:MsgBody V2G_CI_MsgBody.xsd" b:Id=" i&#100;1 ">
        <!-- inside -->
        <GenChallenge xmlns="urn:iso:15118:2:2013:MsgBody"><![CDATA[AAAAAAAAAAA]]>AAAAAAAAAAA=&#61;
        </GenChallenge>
    </b:AuthorizationReq>
    <!-- behind -->"""
    assert _parse(text) == iso2.AuthorizationReq(GenChallenge=bytes(16), Id="id1")


def test_attributes_in_any_order() -> None:
    text = f"""<d:Reference {DSIG} URI="#a" Type="t" Id="i">
        <d:DigestMethod Algorithm="x"/><d:DigestValue/></d:Reference>"""
    assert _parse(text, xmldsig.SCHEMA) == xmldsig.Reference(
        DigestMethod=xmldsig.DigestMethod(Algorithm="x"),
        DigestValue=b"",
        Id="i",
        URI="#a",
        Type="t",
    )


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "xml"),
        ("<a", "xml"),
        ("<a></b>", "xml"),
        ("<x:a/>", "xml"),
        ("<a>&undefined;</a>", "xml"),
        ("<a>\0</a>", "xml"),
        ("<a>\ud800</a>", "xml"),
        ("<!DOCTYPE a><a/>", "xml"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "xml"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "xml"),
        ("<a/>", "unknown"),
        (f"<b:Foo {BODY}/>", "unknown"),
        (f"<b:BodyElement {BODY}/>", "abstract"),
        (f"<b:AuthorizationReq {BODY} Id='id1'/>", "attribute"),
        (f"<b:AuthorizationReq {BODY}>text</b:AuthorizationReq>", "text"),
        (f"<b:AuthorizationReq {BODY}><b:Id/></b:AuthorizationReq>", "element"),
        (f"<b:SessionSetupReq {BODY}/>", "missing"),
        (f"<b:SessionSetupReq {BODY}><b:EVCCID/><b:EVCCID/></b:SessionSetupReq>", "element"),
        (f"<b:CertificateInstallationReq {BODY}/>", "missing"),
        (f"<b:EVCCID {BODY}><b:EVCCID/></b:EVCCID>", "element"),
        (f"<b:EVCCID {BODY} b:Id='x'/>", "attribute"),
        (f"<b:DHpublickey {BODY}>AA==</b:DHpublickey>", "missing"),
        (f"<b:DHpublickey {BODY} t:Id='i'><b:EVCCID/></b:DHpublickey>", "element"),
        (f"<b:Body {BODY}/>", "unknown"),
        (
            f"<b:EVCCID {BODY} xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance'"
            " xsi:nil='true'/>",
            "deviation",
        ),
        (
            f"<b:AuthorizationReq {BODY} xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance'"
            " xsi:type='b:SessionStopReqType'/>",
            "deviation",
        ),
    ],
)
def test_what_is_refused(text: str, code: str) -> None:
    assert _refusal(text).code == code


def test_a_bomb_of_entities_is_refused_before_it_is_read() -> None:
    text = '<!DOCTYPE a [<!ENTITY a0 "aaaaaaaaaa">'
    for i in range(1, 30):
        text += f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">'
    error = _refusal(text + "]><a>&a29;</a>")
    assert error.code == "xml"
    assert "document type" in error.reason


def test_nesting_is_bounded() -> None:
    text = f"<d:Object {DSIG}>" + "<a>" * 10000 + "</a>" * 10000 + "</d:Object>"
    assert _refusal(text, xmldsig.SCHEMA).code == "depth"


def test_the_path_of_an_error() -> None:
    text = f"""<b:PowerDeliveryReq {BODY}><b:ChargeProgress>Start</b:ChargeProgress>
        <b:SAScheduleTupleID>1</b:SAScheduleTupleID>
        <b:ChargingProfile><t:ProfileEntry><t:ChargingProfileEntryStart>-1</t:ChargingProfileEntryStart>
        </t:ProfileEntry></b:ChargingProfile></b:PowerDeliveryReq>"""
    error = _refusal(text)
    assert error.path == ("PowerDeliveryReq/ChargingProfile/ProfileEntry/ChargingProfileEntryStart")
    assert str(error) == error.path + ": -1 is outside 0 to 4294967295 [range]"


def test_white_space_between_children_of_open_content_is_layout() -> None:
    text = f"""<d:Transform {DSIG} Algorithm="x">
        <d:XPath> a </d:XPath>
        <x xmlns="urn:x">
            <y> </y>
        </x>
    </d:Transform>"""
    assert _parse(text, xmldsig.SCHEMA).content == (
        exi.Node(xmldsig.XMLDSIG.uri, "XPath", " a "),
        exi.Node(
            "urn:x",
            "x",
            exi.Untyped(content=(exi.Node("urn:x", "y", exi.Untyped(content=(" ",))),)),
        ),
    )


def test_open_content_as_another_codec_writes_it() -> None:
    """Bytes made by EXIficient 1.0 from these texts, with the stand-alone xmldsig schema."""
    transform = '<d:Transform %s Algorithm="x">'
    texts = {
        transform + "</d:Transform>": "808406f0ae",
        transform + "\n</d:Transform>": "808406f0c0c295c0",
        transform + "\n<d:XPath>a</d:XPath> </d:Transform>": "808406f0006c2570",
        transform + " t <d:XPath>a</d:XPath> </d:Transform>": "808406f0c1481d08000d84ae",
        "<d:G %s/>": "80162e",
        "<d:KeyName %s></d:KeyName>": "80262e",
    }
    for text, data in texts.items():
        name, value = exi.from_xml(xmldsig.SCHEMA, text % DSIG, fragment=True)
        assert exi.encode_fragment(xmldsig.SCHEMA, name, value).hex() == data
        assert exi.decode_fragment(xmldsig.SCHEMA, bytes.fromhex(data)) == (name, value)


def test_an_empty_text_is_taken_in_both_codings() -> None:
    """Canonical EXI leaves the text out; encoders without an escape write it."""
    left_out, written = bytes.fromhex("80162e"), bytes.fromhex("801400b8")
    assert exi.decode_fragment(xmldsig.SCHEMA, left_out) == ("G", b"")
    assert exi.decode_fragment(xmldsig.SCHEMA, written) == ("G", b"")
    assert exi.encode_fragment(xmldsig.SCHEMA, "G", b"") == left_out
