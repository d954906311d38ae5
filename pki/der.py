"""The few lines of DER (ITU-T X.690) that signing outside of a library's key objects needs.

Certificates are encoded by pyca's builder; what it cannot do is sign through a `Signer` and
carry several answers in one OCSP message. So this file can put tag, length and value around
content, and walk over what others encoded. Everything of X.509 itself stays with pyca.

Writing: `tlv`, `sequence`, `set_of`, `integer`, `bit_string`, `octet_string`, `oid`,
`generalized_time`, `context`. Reading: `Reader`, which yields `Element`s, never looks beyond
its own slice and answers anything wrong with one error, `DerError`, naming the byte offset.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OBJECT_IDENTIFIER = 0x06
ENUMERATED = 0x0A
UTF8_STRING = 0x0C
SEQUENCE = 0x30
SET = 0x31
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18


class DerError(ValueError):
    """Bytes that are not the DER that was wanted: `offset` says where, the message what."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(f"at byte {offset}: {message}")
        self.offset = offset


# ---------------------------------------------------------------------------------- writing


def tlv(tag: int, content: bytes) -> bytes:
    """One element: tag byte, definite length in the shortest form, content (X.690, 8.1, 10.1)."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + content


def sequence(*parts: bytes) -> bytes:
    return tlv(SEQUENCE, b"".join(parts))


def set_of(*parts: bytes) -> bytes:
    """A SET OF: DER wants its elements in the order of their encodings (X.690, 11.6)."""
    return tlv(SET, b"".join(sorted(parts)))


def integer(value: int) -> bytes:
    return tlv(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def enumerated(value: int) -> bytes:
    return tlv(ENUMERATED, bytes((value,)))


def bit_string(content: bytes) -> bytes:
    """A bit string of whole octets."""
    return tlv(BIT_STRING, b"\x00" + content)


def octet_string(content: bytes) -> bytes:
    return tlv(OCTET_STRING, content)


def context(number: int, content: bytes, *, constructed: bool = True) -> bytes:
    """A context-specific element [number]; constructed is what EXPLICIT tagging needs."""
    return tlv((0xA0 if constructed else 0x80) | number, content)


@lru_cache(maxsize=64)
def oid(dotted: str) -> bytes:
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    out = bytearray()
    for arc in (first * 40 + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | (arc & 0x7F))
        out += bytes(reversed(groups))
    return tlv(OBJECT_IDENTIFIER, bytes(out))


def utc(instant: datetime) -> datetime:
    """The instant in UTC. A datetime without a zone is a mistake of the caller, not a time."""
    if instant.tzinfo is None:
        raise ValueError(f"the instant {instant.isoformat()} has no time zone")
    return instant.astimezone(UTC)


def generalized_time(instant: datetime) -> bytes:
    """YYYYMMDDHHMMSSZ; fractions are cut off (RFC 5280, 4.1.2.5.2)."""
    return tlv(GENERALIZED_TIME, f"{utc(instant):%Y%m%d%H%M%SZ}".zfill(15).encode())


def time(instant: datetime) -> bytes:
    """UTCTime through 2049, GeneralizedTime from 2050 (RFC 5280, 4.1.2.5)."""
    at = utc(instant)
    if 1950 <= at.year < 2050:
        return tlv(UTC_TIME, f"{at:%y%m%d%H%M%SZ}".encode())
    return generalized_time(at)


# ---------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class Element:
    """One element: tag byte, offsets into the bytes that were read: header, content, end."""

    source: bytes
    tag: int
    start: int
    begin: int
    end: int

    @property
    def content(self) -> bytes:
        return self.source[self.begin : self.end]

    @property
    def encoded(self) -> bytes:
        """Header and content."""
        return self.source[self.start : self.end]

    def children(self) -> "Reader":
        """Reads the content of a constructed element."""
        if not self.tag & 0x20:
            raise DerError(f"element 0x{self.tag:02x} is primitive and holds no others", self.start)
        return Reader(self.source, self.begin, self.end)

    def inside(self) -> "Reader":
        """Reads DER that is wrapped in a string, as in an extension's OCTET STRING."""
        return Reader(self.source, self.begin, self.end)

    def as_integer(self) -> int:
        if self.begin == self.end:
            raise DerError("an INTEGER without content", self.start)
        return int.from_bytes(self.content, "big", signed=True)

    def as_oid(self) -> str:
        content = self.content
        if not content or content[-1] & 0x80 or len(content) > 64:
            raise DerError("an OBJECT IDENTIFIER of a wrong length or unfinished", self.start)
        arcs: list[int] = []
        arc = 0
        for octet in content:
            arc = arc << 7 | octet & 0x7F
            if not octet & 0x80:
                arcs.append(arc)
                arc = 0
        head = min(arcs[0] // 40, 2)
        return ".".join(map(str, (head, arcs[0] - head * 40, *arcs[1:])))


class Reader:
    """Reads the elements of `source[begin:end]` one after the other."""

    __slots__ = ("_at", "_end", "_source")

    def __init__(self, source: bytes, begin: int = 0, end: int | None = None) -> None:
        self._source = source
        self._at = begin
        self._end = len(source) if end is None else end

    def __bool__(self) -> bool:
        """Whether something is left."""
        return self._at < self._end

    def __iter__(self) -> Iterator[Element]:
        while self:
            yield self.next()

    def peek(self) -> int | None:
        """The next tag byte, None at the end."""
        return self._source[self._at] if self else None

    def next(self, tag: int | None = None) -> Element:
        """The next element; with `tag`, anything else is an error."""
        start = self._at
        if self._end - start < 2:
            raise DerError("the bytes end where an element was wanted", start)
        seen = self._source[start]
        if tag is not None and seen != tag:
            raise DerError(f"tag 0x{seen:02x} where 0x{tag:02x} was wanted", start)
        if seen & 0x1F == 0x1F:
            raise DerError("a tag number above 30", start)
        size = self._source[start + 1]
        begin = start + 2
        if size >= 0x80:
            octets = size & 0x7F
            if not 1 <= octets <= 4 or self._end - begin < octets:
                raise DerError("a length that is indefinite, too long or cut off", start)
            size = int.from_bytes(self._source[begin : begin + octets], "big")
            begin += octets
            if size < 0x80 or size < 1 << 8 * (octets - 1):
                raise DerError("a length that is not in its shortest form", start)
        if size > self._end - begin:
            raise DerError(f"{size} bytes announced, {self._end - begin} left", start)
        self._at = begin + size
        return Element(self._source, seen, start, begin, begin + size)

    def optional(self, tag: int) -> Element | None:
        """The next element if it bears this tag."""
        return self.next(tag) if self.peek() == tag else None

    def finish(self) -> None:
        """Nothing may be left."""
        if self:
            raise DerError(f"{self._end - self._at} bytes after the last element", self._at)
