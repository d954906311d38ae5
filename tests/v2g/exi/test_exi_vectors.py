"""Bytes that another codec made, both ways: EXIficient's, by way of the shared vectors."""

from __future__ import annotations

from typing import Any

import pytest

from v2g import exi


def _decode(vector: dict[str, Any]) -> tuple[str, Any]:
    call = exi.decode_fragment if vector["fragment"] else exi.decode_document
    return call(exi.SCHEMAS[vector["schema"]], bytes.fromhex(vector["exi"]))


def _encode(vector: dict[str, Any], name: str, value: Any) -> str:
    schema = exi.SCHEMAS[vector["schema"]]
    if vector["fragment"]:
        return exi.encode_fragment(schema, name, value).hex()
    return exi.encode(schema, value, name=name).hex()


def _parse(vector: dict[str, Any]) -> tuple[str, Any]:
    schema = exi.SCHEMAS[vector["schema"]]
    return exi.from_xml(schema, vector["xml"], fragment=vector["fragment"])


def test_the_text_becomes_the_bytes(conformant: dict[str, Any]) -> None:
    assert _encode(conformant, *_parse(conformant)) == conformant["exi"]


def test_the_bytes_become_the_text(conformant: dict[str, Any]) -> None:
    name, value = _decode(conformant)
    assert (name, value) == _parse(conformant)
    schema = exi.SCHEMAS[conformant["schema"]]
    again = exi.to_xml(schema, value, name=name)
    assert exi.from_xml(schema, again, fragment=conformant["fragment"]) == (name, value)


def test_decoding_and_encoding_gives_the_same_bytes(conformant: dict[str, Any]) -> None:
    assert _encode(conformant, *_decode(conformant)) == conformant["exi"]


def test_nonconformant_bytes_are_refused(nonconformant: dict[str, Any]) -> None:
    """Each of the three holds what the schema does not foresee, behind the escape.

    Two have the SAScheduleTupleID 0, which is out of range, so that it is coded as text; the
    third ends a full list of 20 RootCertificateID with the code that only a list with room left
    would have (the grammar compiled into that jar leaves room where there is none).
    """
    with pytest.raises(exi.EXIError) as caught:
        _decode(nonconformant)
    assert caught.value.code == "deviation"
    place = {
        "v2_metering_receipt_req_status": "MeteringReceiptReq/SAScheduleTupleID",
        "v2_metering_receipt_req_min": "MeteringReceiptReq/SAScheduleTupleID",
        "v2_cert_install_req_20roots_nosig": "CertificateInstallationReq",
    }[nonconformant["name"]]
    assert caught.value.path == "V2G_Message/Body/" + place


def test_every_bit_counts(conformant: dict[str, Any]) -> None:
    """No bit of a message is ignored: flipping any one is an error or another message."""
    data = bytes.fromhex(conformant["exi"])
    name, value = _decode(conformant)
    call = exi.decode_fragment if conformant["fragment"] else exi.decode_document
    schema = exi.SCHEMAS[conformant["schema"]]
    for bit in range(0, 8 * len(data), 1 + len(data) // 40):
        flipped = bytearray(data)
        flipped[bit >> 3] ^= 0x80 >> (bit & 7)
        try:
            other = call(schema, bytes(flipped))
        except exi.EXIError:
            continue
        assert other != (name, value)
