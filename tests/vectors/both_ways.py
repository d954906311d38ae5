"""A vector through our codec, both ways: bytes to XML text, and XML text to bytes."""

from __future__ import annotations

from typing import Any

from xml_equal import canonical

from v2g import exi
from v2g.exi import Schema
from v2g.messages import iso2, sap, xmldsig

SCHEMAS: dict[str, Schema] = {
    "sap": sap.SCHEMA,
    "iso2": iso2.SCHEMA,
    "xmldsig": xmldsig.SCHEMA,
}


def decoded(schema: str, fragment: bool, data: bytes) -> str:
    """EXI bytes -> XML text."""
    decode = exi.decode_fragment if fragment else exi.decode_document
    name, value = decode(SCHEMAS[schema], data)
    return exi.to_xml(SCHEMAS[schema], value, name=name)


def encoded(schema: str, fragment: bool, xml: str) -> bytes:
    """XML text -> EXI bytes."""
    name, value = exi.from_xml(SCHEMAS[schema], xml, fragment=fragment)
    if fragment:
        return exi.encode_fragment(SCHEMAS[schema], name, value)
    return exi.encode(SCHEMAS[schema], value, name=name)


def check(vector: dict[str, Any]) -> None:
    """The vector's bytes say what its text says, and its text becomes its bytes."""
    schema, fragment = vector["schema"], vector["fragment"]
    assert canonical(decoded(schema, fragment, bytes.fromhex(vector["exi"]))) == canonical(
        vector["xml"]
    )
    assert encoded(schema, fragment, vector["xml"]).hex() == vector["exi"]
