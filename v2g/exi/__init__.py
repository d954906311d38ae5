"""EXI as ISO 15118 uses it: messages to bytes and back, XML text for people.

    from v2g import exi
    from v2g.messages import iso2
    message = exi.decode(iso2.SCHEMA, data)
    data = exi.encode(iso2.SCHEMA, message)
    hashed = exi.encode_fragment(iso2.SCHEMA, "AuthorizationReq", message.Body.BodyElement)

Anything that is wrong with bytes, text or values is an EXIError.

schema    how schemas are written down; the tables themselves are in v2g.messages
simple    simple types, their codings and facets
grammar   from a schema to states and event codes
codec     the walk over a stream
bits      the stream itself
tree, xmltext  XML text
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

from v2g.exi.api import (
    decode,
    decode_document,
    decode_fragment,
    encode,
    encode_fragment,
    from_xml,
    message_name,
    to_xml,
)
from v2g.exi.errors import CODES, EXIError
from v2g.exi.schema import ComplexType, Node, Schema, Untyped

__all__ = [
    "CODES",
    "SCHEMAS",
    "ComplexType",
    "EXIError",
    "Node",
    "Schema",
    "Untyped",
    "decode",
    "decode_document",
    "decode_fragment",
    "encode",
    "encode_fragment",
    "from_xml",
    "message_name",
    "to_xml",
]


class _Schemas(Mapping[str, Schema]):
    """Schemas by name; a table is imported when it is first asked for."""

    _modules = {
        "sap": "v2g.messages.sap",
        "iso2": "v2g.messages.iso2",
        "xmldsig": "v2g.messages.xmldsig",
    }

    def __getitem__(self, name: str) -> Schema:
        schema = import_module(self._modules[name]).SCHEMA
        assert isinstance(schema, Schema)
        return schema

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


#: All schemas by name: sap, iso2, xmldsig.
SCHEMAS: Mapping[str, Schema] = _Schemas()
