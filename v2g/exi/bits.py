"""Bits in, bits out: the bit-packed stream (EXI 1.0, sections 7.1 and 9).

A stream is read and written most significant bit first and knows no byte boundaries. Runs of
bytes (binary values, ASCII strings) move as one big integer, shifted once: per-byte work would
dominate a certificate.

Bounds: no length is believed before it is compared with the bits that are left, so whatever a
stream claims, no more is allocated than it really holds.
"""

from __future__ import annotations

import re
from functools import cache

from v2g.exi.errors import EXIError

#: Integers without a range (xs:integer, such as X509SerialNumber) are taken up to this many
#: octets of seven bits; RFC 5280 allows 20 octets of eight.
MAX_INTEGER_OCTETS = 147

_MARKS = str.maketrans("-.", "__")
_from_bytes = int.from_bytes


def illegal_character(text: str) -> str | None:
    """The first character that XML 1.0 (section 2.2) does not have, or None."""
    if text.isprintable():
        return None
    found = _not_xml().search(text)
    return found.group() if found else None


@cache
def _not_xml() -> re.Pattern[str]:  # rarely needed, and slow to compile
    return re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def is_name(text: str) -> bool:
    """Whether a text may name an element or attribute, without a prefix. Of the letters that XML
    1.0 (section 2.3) takes, those that Python takes as well."""
    return text[:1] not in ("-", ".") and text.translate(_MARKS).isidentifier()


class BitReader:
    """Reads `data` from its first bit. Every method raises EXIError when the input ends."""

    __slots__ = ("data", "end", "pos")

    def __init__(self, data: bytes) -> None:
        self.end = len(data) * 8
        self.data = bytes(data) + bytes(5)  # so that no look ahead runs short
        self.pos = 0

    def fail(self, code: str, reason: str, *, bit: int | None = None) -> EXIError:
        """An EXIError at `bit`, or where the reader stands."""
        return EXIError(code, reason, bit=min(self.pos if bit is None else bit, self.end))

    def bits(self, n: int) -> int:
        """An n-bit unsigned integer, n <= 33 (EXI 7.1.9)."""
        pos = self.pos
        ahead = pos + n
        if ahead > self.end:
            raise self.fail("truncated", f"the input ends {ahead - self.end} bits too early")
        self.pos = ahead
        at = pos >> 3
        data = self.data
        if n < 10:
            return (data[at] << 8 | data[at + 1]) >> (16 - (pos & 7) - n) & (1 << n) - 1
        return _from_bytes(data[at : at + 5], "big") >> (40 - (pos & 7) - n) & (1 << n) - 1

    def octets(self, n: int) -> bytes:
        """n octets, at any bit position."""
        pos = self.pos
        ahead = pos + 8 * n
        if ahead > self.end:
            raise self.fail(
                "truncated", f"{n} octets are announced, {max(self.end - pos, 0) >> 3} are left"
            )
        self.pos = ahead
        at = pos >> 3
        shift = pos & 7
        if not shift:
            return self.data[at : at + n]
        window = _from_bytes(self.data[at : at + n + 1], "big") >> (8 - shift)
        return window.to_bytes(n + 1, "big")[1:]

    def unsigned(self, max_octets: int = 10) -> int:
        """An Unsigned Integer (EXI 7.1.6): groups of seven bits, least significant first."""
        start = self.pos
        at = start >> 3
        octet = (self.data[at] << 8 | self.data[at + 1]) >> (8 - (start & 7)) & 0xFF
        if octet < 0x80 and start + 8 <= self.end:  # most are one octet: no call
            self.pos = start + 8
            return octet
        octet = self.bits(8)
        value = octet & 0x7F
        shift = 7
        while octet & 0x80:
            if shift == 7 * max_octets:
                raise self.fail(
                    "integer", f"an integer of more than {max_octets} octets", bit=start
                )
            octet = self.bits(8)
            value |= (octet & 0x7F) << shift
            shift += 7
        if not octet:
            raise self.fail("integer", "an integer with needless leading zero octets", bit=start)
        return value

    def characters(self, n: int) -> str:
        """n characters, each an Unsigned Integer that is its code point (EXI 7.1.10)."""
        start = self.pos
        octets = self.octets(n)
        if octets.isascii():  # one octet each
            text = octets.decode("ascii")
        else:
            self.pos = start
            points = []
            for _ in range(n):
                at = self.pos
                point = self.unsigned(3)
                if point > 0x10FFFF:
                    raise self.fail("character", f"0x{point:X} is no code point", bit=at)
                points.append(point)
            text = "".join(map(chr, points))
        if not text.isprintable():
            bad = illegal_character(text)
            if bad is not None:
                raise self.fail("character", f"U+{ord(bad):04X} is no XML character", bit=start)
        return text

    def finish(self) -> None:
        """Take the end of the stream: at most seven bits of padding, all zero.

        EXI leaves the padding's value open; the encoders of the field write zeros, and a signed
        or compared message that may be spelled in 128 ways is none.
        """
        left = self.end - self.pos
        if left < 0:
            raise self.fail("truncated", f"the input ends {-left} bits too early", bit=self.end)
        if left >= 8:
            raise self.fail("trailing", f"{left >> 3} bytes follow the end of the message")
        if left and self.bits(left):
            raise self.fail("padding", "the padding bits are not zero", bit=self.end - left)


class BitWriter:
    """Collects bits. `_acc` holds the last `_count` bits that have not become bytes yet."""

    __slots__ = ("_acc", "_count", "_out")

    def __init__(self) -> None:
        self._acc = 0
        self._count = 0
        self._out = bytearray()

    def bits(self, value: int, n: int) -> None:
        """An n-bit unsigned integer (EXI 7.1.9)."""
        self._acc = self._acc << n | value
        self._count += n

    def octets(self, octets: bytes) -> None:
        """Octets, at any bit position."""
        n = 8 * len(octets)
        self._acc = self._acc << n | _from_bytes(octets, "big")
        self._count += n
        if self._count > 1024:
            self._flush()

    def unsigned(self, value: int) -> None:
        """An Unsigned Integer (EXI 7.1.6)."""
        if value < 0x80:
            self._acc = self._acc << 8 | value
            self._count += 8
            return
        while value > 0x7F:
            self._acc = self._acc << 8 | 0x80 | value & 0x7F
            self._count += 8
            value >>= 7
        self._acc = self._acc << 8 | value
        self._count += 8
        if self._count > 1024:
            self._flush()

    def characters(self, text: str) -> None:
        """The code points of `text` (EXI 7.1.10)."""
        if not text.isprintable():
            bad = illegal_character(text)
            if bad is not None:
                raise EXIError("character", f"U+{ord(bad):04X} is no XML character")
        if text.isascii():
            self.octets(text.encode("ascii"))
        else:
            for character in text:
                self.unsigned(ord(character))

    def _flush(self) -> None:
        rest = self._count & 7
        self._out += (self._acc >> rest).to_bytes(self._count >> 3, "big")
        self._acc &= (1 << rest) - 1
        self._count = rest

    def finish(self) -> bytes:
        """All bytes, the last one padded with zero bits."""
        self.bits(0, -self._count & 7)
        self._flush()
        return bytes(self._out)
