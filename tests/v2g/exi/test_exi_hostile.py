"""Bytes that nobody should send: always one EXIError, with its place, in bounded time."""

from __future__ import annotations

import random
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from v2g import exi
from v2g.exi.bits import BitReader, BitWriter
from v2g.exi.grammar import clark, grammars
from v2g.messages import iso2, sap, xmldsig

RELAXED = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def _well_placed(error: exi.EXIError, data: bytes) -> None:
    assert error.code in exi.CODES
    assert error.bit is not None
    assert 0 <= error.bit <= 8 * len(data)
    assert error.reason in str(error)


def _both(schema: exi.Schema, data: bytes) -> None:
    """Decode as either kind of stream; what is accepted encodes to the same bytes."""
    for fragment in (False, True):
        try:
            if fragment:
                name, value = exi.decode_fragment(schema, data)
                again = exi.encode_fragment(schema, name, value)
            else:
                name, value = exi.decode_document(schema, data)
                again = exi.encode(schema, value, name=name)
        except exi.EXIError as error:
            _well_placed(error, data)
        else:
            # Only an empty text has two codings.
            assert again == data or "''" in repr(value)
            text = exi.to_xml(schema, value, name=name)
            assert exi.from_xml(schema, text, fragment=fragment) == (name, value)


@RELAXED
@given(schema=st.sampled_from(list(exi.SCHEMAS.values())), data=st.binary(max_size=80))
def test_random_bytes(schema: exi.Schema, data: bytes) -> None:
    _both(schema, data)
    _both(schema, b"\x80" + data)


@RELAXED
@given(rng=st.randoms(use_true_random=False), schema=st.sampled_from(list(exi.SCHEMAS.values())))
def test_damaged_messages(maker: Any, rng: random.Random, schema: exi.Schema) -> None:
    compiled = grammars(schema)
    root = rng.choice([one for one in compiled.fragment_list if not one.abstract])
    value = maker(schema, rng).value(rng.choice(root.types))
    data = bytearray(exi.encode_fragment(schema, clark(root.uri, root.name), value))
    for _ in range(rng.choice([1, 1, 2, 4])):
        kind = rng.randrange(3)
        at = rng.randrange(len(data))
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:at] = rng.randbytes(rng.randrange(3))
        else:
            del data[at : at + rng.randrange(3)]
        if not data:
            return
    _both(schema, bytes(data))


def test_every_truncation(conformant: dict[str, Any]) -> None:
    """A message that ends early is refused wherever it ends."""
    schema = exi.SCHEMAS[conformant["schema"]]
    call = exi.decode_fragment if conformant["fragment"] else exi.decode
    data = bytes.fromhex(conformant["exi"])
    for length in range(0, len(data), 1 + len(data) // 200):
        with pytest.raises(exi.EXIError) as caught:
            call(schema, data[:length])
        assert caught.value.code == "truncated"
        assert caught.value.bit <= 8 * length


def _message(*, body: iso2.BodyBase | None = None) -> bytes:
    return exi.encode(
        iso2.SCHEMA,
        iso2.V2G_Message(Header=iso2.MessageHeader(SessionID=b"\1"), Body=iso2.Body(body)),
    )


def _refusal(data: bytes, schema: exi.Schema = iso2.SCHEMA) -> exi.EXIError:
    with pytest.raises(exi.EXIError) as caught:
        exi.decode(schema, data)
    return caught.value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"$EXI\x80", "cookie"),
        (b"\xa0\x00", "options"),
        (b"\x90\x00", "version"),
        (b"\x81\x00", "version"),
        (b"<?xml version='1.0'?>", "no EXI header"),
        (b"\x00", "no EXI header"),
    ],
)
def test_other_headers(data: bytes, words: str) -> None:
    error = _refusal(data)
    assert (error.code, error.path) == ("header", "")
    assert words in str(error)


def test_no_bytes_at_all() -> None:
    assert _refusal(b"").code == "truncated"


def test_what_follows_the_end() -> None:
    data = _message()
    assert _refusal(data + b"\0").code == "trailing"
    last = data[:-1] + bytes([data[-1] | 1])
    error = _refusal(last)
    assert error.code == "padding"
    assert error.bit is not None
    assert 0 < 8 * len(data) - error.bit < 8


def test_two_elements_in_a_fragment() -> None:
    writer = BitWriter()
    writer.bits(0x80, 8)
    for _ in range(2):
        writer.bits(grammars(xmldsig.SCHEMA).fragments[xmldsig.XMLDSIG.uri, "KeyName"].code, 6)
        writer.bits(0, 1)
        writer.unsigned(3)
        writer.characters("k")
        writer.bits(0, 1)
    writer.bits(46, 6)
    with pytest.raises(exi.EXIError) as caught:
        exi.decode_fragment(xmldsig.SCHEMA, writer.finish())
    assert caught.value.code == "trailing"


def _sap(octets: bytes, *, bits: int = 0) -> bytes:
    """A request whose first ProtocolNamespace starts with these octets."""
    writer = BitWriter()
    writer.bits(0x80, 8)
    writer.bits(0, 2)  # supportedAppProtocolReq
    writer.bits(0, 1)  # AppProtocol
    writer.bits(0, 1)  # ProtocolNamespace
    writer.bits(0, 1)  # its text
    writer.octets(octets)
    return writer.finish() + bytes(bits)


@pytest.mark.parametrize(
    ("octets", "code"),
    [
        (b"\x00", "string-table"),
        (b"\x01", "string-table"),
        (b"\x67", "length"),  # 101 characters
        (b"\xff\xff\xff\xff\x0f", "length"),  # four billion
        (b"\xff" * 40, "integer"),
        (b"\x82\x00", "integer"),  # 2, in two octets
        (b"\x66", "truncated"),  # 100 characters, which are not there
        (b"\x03\x00", "character"),
        (b"\x03\x80\xb0\x03", "character"),  # a surrogate
        (b"\x03\x80\x80\x80\x01", "integer"),  # a code point in four octets
        (b"\x03\xff\xff\xff", "integer"),
        (b"\x03\xff\xff\x7f", "character"),  # beyond U+10FFFF
        (b"\x03 ", "text"),  # a URI of one space
    ],
)
def test_lengths_and_characters(octets: bytes, code: str) -> None:
    error = _refusal(_sap(octets), sap.SCHEMA)
    assert error.code == code
    assert error.path == "supportedAppProtocolReq/AppProtocol/ProtocolNamespace"
    assert 13 <= (error.bit or 0) <= 13 + 8 * len(octets)


def test_a_hit_in_the_string_table_is_named() -> None:
    assert "string table" in str(_refusal(_sap(b"\x00"), sap.SCHEMA))


def test_announced_lengths_allocate_nothing() -> None:
    """A string without a facet that claims to be huge costs no memory."""
    writer = BitWriter()
    writer.bits(0x80, 8)
    writer.bits(grammars(xmldsig.SCHEMA).documents[xmldsig.XMLDSIG.uri, "KeyName"].code, 5)
    writer.bits(0, 1)
    writer.unsigned(2**31)
    data = writer.finish() + bytes(1000)
    tracemalloc.start()
    assert _refusal(data, xmldsig.SCHEMA).code == "truncated"
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_an_enumeration_and_a_number_out_of_range() -> None:
    data = bytearray(_message(body=iso2.SessionStopRes(ResponseCode=iso2.ResponseCode.OK)))
    reader = BitReader(bytes(data))
    # header, root, Header, SessionID with length and octet, end of both, Body, message, code
    reader.bits(8 + 7 + 1 + 1 + 1)
    assert reader.unsigned() == 1
    reader.bits(8)
    reader.bits(1 + 2 + 1 + 6 + 1 + 1)
    bit = reader.pos
    value = int.from_bytes(data, "big") | 0b11111 << (8 * len(data) - bit - 5)
    error = _refusal(value.to_bytes(len(data), "big"))
    assert (error.code, error.bit) == ("enumeration", bit)
    assert error.path == "V2G_Message/Body/SessionStopRes/ResponseCode"

    amps = iso2.PhysicalValue(Multiplier=3, Unit=iso2.UnitSymbol.A, Value=16)
    fragment = bytearray(exi.encode_fragment(iso2.SCHEMA, "PMax", amps))
    fragment[2] |= 0b00111000  # Multiplier 3 is 6 of 3 bits; make it 7
    with pytest.raises(exi.EXIError) as caught:
        exi.decode_fragment(iso2.SCHEMA, bytes(fragment))
    assert (caught.value.code, caught.value.path) == ("range", "PMax/Multiplier")


def test_the_abstract_element_is_not_accepted() -> None:
    empty = bytearray(_message())
    whole = int.from_bytes(empty, "big")
    # The empty Body's six bits hold 35, the end; the abstract BodyElement is 2 of them.
    for shift in range(40):
        if (whole >> shift) & 0b111111 == 35:
            spoiled = (whole & ~(0b111111 << shift) | 2 << shift).to_bytes(len(empty), "big")
            error = _refusal(spoiled)
            assert error.code == "abstract"
            assert error.path == "V2G_Message/Body/BodyElement"
            return
    pytest.fail("the empty body was not found")


def test_unknown_roots_are_named() -> None:
    writer = BitWriter()
    writer.bits(0x80, 8)
    writer.bits(2, 2)  # SE(*)
    writer.bits(0, 3)  # a URI that is not in the table of five
    writer.unsigned(5)
    writer.characters("urn:x")
    writer.unsigned(4)
    writer.characters("Foo")
    error = _refusal(writer.finish(), sap.SCHEMA)
    assert error.code == "unknown"
    assert "{urn:x}Foo" in str(error)


def _nested(depth: int) -> bytes:
    node = exi.Node("urn:x", "a", exi.Untyped())
    for _ in range(depth):
        node = exi.Node("urn:x", "a", exi.Untyped(content=(node,)))
    return exi.encode(xmldsig.SCHEMA, xmldsig.Object(content=(node,)))


def test_nesting_is_bounded() -> None:
    data = _nested(60)
    assert exi.encode(xmldsig.SCHEMA, exi.decode(xmldsig.SCHEMA, data)) == data
    # Behind the learnt names a level costs one bit: zeros nest for ever.
    error = _refusal(data[:14] + bytes(1000), xmldsig.SCHEMA)
    assert error.code == "depth"
    assert error.path.startswith("Object/a/a/")


def _seconds(data: bytes, schema: exi.Schema) -> float:
    start = time.perf_counter()
    try:
        exi.decode(schema, data)
    except exi.EXIError:
        pass
    return time.perf_counter() - start


@pytest.mark.parametrize(
    "kind", ["many names", "many children", "many attributes", "zeros", "ones"]
)
def test_time_grows_with_the_input_only(kind: str) -> None:
    """Ten times the input takes about ten times the time, not a hundred times."""

    def hostile(n: int) -> bytes:
        if kind == "zeros":
            return b"\x80" + bytes(20 * n)
        if kind == "ones":
            return b"\x80" + b"\xff" * (20 * n)
        if kind == "many attributes":
            names = tuple((("", f"a{i}"), "v") for i in range(n))
            node = exi.Node("urn:x", "a", exi.Untyped(attributes=names))
            return exi.encode(xmldsig.SCHEMA, xmldsig.Object(content=(node,)))
        name = "a{}" if kind == "many names" else "a"
        nodes = tuple(exi.Node("urn:x", name.format(i), exi.Untyped()) for i in range(n))
        outer = exi.Node("urn:x", "o", exi.Untyped(content=nodes))
        return exi.encode(xmldsig.SCHEMA, xmldsig.Object(content=(outer,)))

    small, large = hostile(1000), hostile(10000)
    _seconds(small, xmldsig.SCHEMA)
    base = min(_seconds(small, xmldsig.SCHEMA) for _ in range(3))
    assert min(_seconds(large, xmldsig.SCHEMA) for _ in range(2)) < 40 * base + 0.05
