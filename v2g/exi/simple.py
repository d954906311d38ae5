"""Simple types: how a value stands in the bits, in XML text and in Python, and its facets.

One class per value coding (EXI 1.0, Table 7-1); a schema's types are instances of them. Facets
are checked in both directions: what a schema forbids is neither written nor accepted.

Python values: str, bytes (hexBinary and base64Binary), int, bool, members of a StrEnum.
"""

from __future__ import annotations

import base64
import binascii
import re
from abc import ABC, abstractmethod
from enum import StrEnum
from typing import Any

from v2g.exi.bits import MAX_INTEGER_OCTETS, BitReader, BitWriter, illegal_character
from v2g.exi.errors import EXIError

_XML_SPACE = " \t\n\r"
_SPACES = re.compile(r"[ \t\n\r]+")
_INTEGER = re.compile(r"[+-]?[0-9]+")


def _collapsed(text: str) -> str:
    """A text by the facet whiteSpace = collapse."""
    if " " not in text and text.isprintable():
        return text
    return _SPACES.sub(" ", text).strip(" ")


def _show(text: str) -> str:
    """A value for a message: quoted, and cut when it is long."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


class SimpleType(ABC):
    """A simple type of a schema. `name` is its local name there, None for an anonymous one.

    `python` is the class of its values; `empty` the value of an element without text, None when
    the type has none.
    """

    python: type
    empty: str | bytes | None = None

    def __init__(self, name: str | None) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name or '(anonymous)'}>"

    @abstractmethod
    def decode(self, reader: BitReader) -> Any:
        """The value at the reader's position; EXIError when it is none of this type."""

    @abstractmethod
    def encode(self, writer: BitWriter, value: Any) -> None:
        """Write a value; EXIError when it is none of this type."""

    @abstractmethod
    def parse(self, text: str) -> Any:
        """The value of an XML literal; EXIError when it is none of this type."""

    @abstractmethod
    def format(self, value: Any) -> str:
        """The canonical XML literal of a value; EXIError when it is none of this type."""

    def wrong_type(self, value: object) -> EXIError:
        return EXIError(
            "type", f"a value of type {type(value).__name__}, not {self.python.__name__}"
        )


class String(SimpleType):
    """xs:string and what is coded like it: anyURI, ID. Lengths count characters; `collapse` is
    the facet whiteSpace, which these two have.

    A literal is its length plus two and its characters; the lengths 0 and 1 would be hits in
    the tables of earlier values, which the profile of ISO 15118 does not keep
    (valuePartitionCapacity is 0, [V2G2-600]).
    """

    python = str

    def __init__(
        self,
        name: str | None,
        *,
        min_length: int = 0,
        max_length: int | None = None,
        collapse: bool = False,
    ) -> None:
        super().__init__(name)
        self.min_length = min_length
        self.max_length = max_length
        self.collapse = collapse
        self.empty = "" if min_length == 0 else None

    def decode(self, reader: BitReader) -> str:
        start = reader.pos
        length = reader.unsigned() - 2
        if length < 0:
            which = "global" if length == -1 else "local"
            raise reader.fail(
                "string-table",
                f"a hit in the {which} string table, where the profile of ISO 15118 has "
                "literals only",
                bit=start,
            )
        if length < self.min_length or (self.max_length is not None and length > self.max_length):
            raise self._length(length, start)
        text = reader.characters(length)
        if self.collapse and text != _collapsed(text):
            raise self._spaced(text, start)
        return text

    def encode(self, writer: BitWriter, value: Any) -> None:
        self._check(value)
        writer.unsigned(len(value) + 2)
        writer.characters(value)

    def parse(self, text: str) -> str:
        if self.collapse:
            text = _collapsed(text)
        self._check(text)
        return text

    def format(self, value: Any) -> str:
        self._check(value)
        bad = illegal_character(value)
        if bad is not None:
            raise EXIError("character", f"U+{ord(bad):04X} is no XML character")
        return str(value)

    def _check(self, value: Any) -> None:
        if not isinstance(value, str):
            raise self.wrong_type(value)
        length = len(value)
        if length < self.min_length or (self.max_length is not None and length > self.max_length):
            raise self._length(length)
        if self.collapse and value != _collapsed(value):
            raise self._spaced(value)

    def _spaced(self, text: str, bit: int | None = None) -> EXIError:
        return EXIError("text", f"{_show(text)} has white space that {self.name} has not", bit=bit)

    def _length(self, length: int, bit: int | None = None) -> EXIError:
        return EXIError("length", f"{length} characters, not {_bounds(self)}", bit=bit)


class Binary(SimpleType):
    """xs:base64Binary and xs:hexBinary: alike in the bits, different in XML. Lengths in octets."""

    python = bytes

    def __init__(
        self,
        name: str | None,
        *,
        hexadecimal: bool = False,
        min_length: int = 0,
        max_length: int | None = None,
    ) -> None:
        super().__init__(name)
        self.hexadecimal = hexadecimal
        self.min_length = min_length
        self.max_length = max_length
        self.empty = b"" if min_length == 0 else None

    def decode(self, reader: BitReader) -> bytes:
        start = reader.pos
        length = reader.unsigned()
        if length < self.min_length or (self.max_length is not None and length > self.max_length):
            raise self._length(length, start)
        return reader.octets(length)

    def encode(self, writer: BitWriter, value: Any) -> None:
        self._check(value)
        writer.unsigned(len(value))
        writer.octets(value)

    def parse(self, text: str) -> bytes:
        try:
            if self.hexadecimal:
                value = binascii.unhexlify(text.strip(_XML_SPACE))
            else:
                value = base64.b64decode(_SPACES.sub("", text), validate=True)
        except ValueError as error:  # also for what is no ASCII
            kind = "hexadecimal" if self.hexadecimal else "base64"
            raise EXIError("text", f"{_show(text)} is no {kind} text ({error})") from None
        self._check(value)
        return value

    def format(self, value: Any) -> str:
        self._check(value)
        if self.hexadecimal:
            return str(value.hex().upper())
        return base64.b64encode(value).decode("ascii")

    def _check(self, value: Any) -> None:
        if not isinstance(value, bytes):
            raise self.wrong_type(value)
        length = len(value)
        if length < self.min_length or (self.max_length is not None and length > self.max_length):
            raise self._length(length)

    def _length(self, length: int, bit: int | None = None) -> EXIError:
        return EXIError("length", f"{length} octets, not {_bounds(self)}", bit=bit)


def _bounds(sized: String | Binary) -> str:
    low, high = sized.min_length, sized.max_length
    if low == high:
        return f"exactly {low}"
    if high is None:
        return f"at least {low}"
    return f"{low} to {high}" if low else f"at most {high}"


class Integer(SimpleType):
    """xs:integer and all that derive from it, from `low` to `high` (None: no bound).

    Coded by the size of the range (EXI 7.1.5): up to 4096 values as an n-bit offset from `low`,
    otherwise unsigned when nothing negative is in it, otherwise a sign and an unsigned integer.
    """

    python = int

    def __init__(
        self, name: str | None, *, low: int | None = None, high: int | None = None
    ) -> None:
        super().__init__(name)
        self.low = low
        self.high = high
        self._width: int | None = None
        if low is not None and high is not None and high - low < 4096:
            self._width = (high - low).bit_length()
        self._signed = low is None or low < 0
        largest = None if low is None or high is None else max(abs(low), abs(high))
        self._octets = (
            MAX_INTEGER_OCTETS if largest is None else max(1, (largest.bit_length() + 6) // 7)
        )

    def decode(self, reader: BitReader) -> int:
        start = reader.pos
        if self._width is not None:
            assert self.low is not None
            value = reader.bits(self._width) + self.low
        elif self._signed and reader.bits(1):
            value = -reader.unsigned(self._octets) - 1
        else:
            value = reader.unsigned(self._octets)
        low, high = self.low, self.high
        if (high is not None and value > high) or (low is not None and value < low):
            raise self._range(value, start)
        return value

    def encode(self, writer: BitWriter, value: Any) -> None:
        self._check(value)
        if self._width is not None:
            writer.bits(value - self.low, self._width)
            return
        if self._signed:
            if value < 0:
                writer.bits(1, 1)
                value = -value - 1
            else:
                writer.bits(0, 1)
        writer.unsigned(value)

    def parse(self, text: str) -> int:
        text = text.strip(_XML_SPACE)
        if not _INTEGER.fullmatch(text):
            raise EXIError("text", f"{_show(text)} is no integer")
        if len(text) > 4 * MAX_INTEGER_OCTETS:
            raise EXIError("integer", f"an integer of {len(text)} digits")
        value = int(text)
        self._check(value)
        return value

    def format(self, value: Any) -> str:
        self._check(value)
        return str(value)

    def _check(self, value: Any) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong_type(value)
        low, high = self.low, self.high
        if (high is not None and value > high) or (low is not None and value < low):
            raise self._range(value)
        if self._octets == MAX_INTEGER_OCTETS and value.bit_length() > 7 * MAX_INTEGER_OCTETS:
            raise EXIError("integer", f"an integer of more than {7 * MAX_INTEGER_OCTETS} bits")

    def _range(self, value: int, bit: int | None = None) -> EXIError:
        low = "unbounded" if self.low is None else self.low
        high = "unbounded" if self.high is None else self.high
        return EXIError("range", f"{value} is outside {low} to {high}", bit=bit)


class Boolean(SimpleType):
    """xs:boolean: one bit."""

    python = bool

    def decode(self, reader: BitReader) -> bool:
        return reader.bits(1) == 1

    def encode(self, writer: BitWriter, value: Any) -> None:
        if value is not True and value is not False:
            raise self.wrong_type(value)
        writer.bits(int(value), 1)

    def parse(self, text: str) -> bool:
        text = text.strip(_XML_SPACE)
        if text in ("true", "1"):
            return True
        if text in ("false", "0"):
            return False
        raise EXIError("text", f"{_show(text)} is no boolean")

    def format(self, value: Any) -> str:
        if value is not True and value is not False:
            raise self.wrong_type(value)
        return "true" if value else "false"


class Enumeration(SimpleType):
    """A string type with enumeration facets: the index of the value, in the schema's order."""

    def __init__(self, name: str | None, members: type[StrEnum]) -> None:
        super().__init__(name)
        self.python = members
        self._members = tuple(members)
        self._codes: dict[str, int] = {member: code for code, member in enumerate(members)}
        self._width = (len(self._members) - 1).bit_length()

    def decode(self, reader: BitReader) -> StrEnum:
        code = reader.bits(self._width)
        if code >= len(self._members):
            raise reader.fail(
                "enumeration",
                f"value {code} of {len(self._members)} enumerated ones",
                bit=reader.pos - self._width,
            )
        return self._members[code]

    def encode(self, writer: BitWriter, value: Any) -> None:
        writer.bits(self._code(value), self._width)

    def parse(self, text: str) -> StrEnum:
        return self._members[self._code(text)]

    def format(self, value: Any) -> str:
        return str(self._members[self._code(value)])

    def _code(self, value: Any) -> int:
        if not isinstance(value, str):
            raise self.wrong_type(value)
        code = self._codes.get(value)
        if code is None:
            raise EXIError(
                "enumeration",
                f"{_show(value)} is none of "
                + ", ".join(self._members[:8])
                + (", ..." if len(self._members) > 8 else ""),
            )
        return code


# The built-in types of XML Schema that the tables use.
STRING = String("string")
ANY_URI = String("anyURI", collapse=True)
ID = String("ID", collapse=True)
BOOLEAN = Boolean("boolean")
BASE64_BINARY = Binary("base64Binary")
HEX_BINARY = Binary("hexBinary", hexadecimal=True)
INTEGER = Integer("integer")
BYTE = Integer("byte", low=-(2**7), high=2**7 - 1)
SHORT = Integer("short", low=-(2**15), high=2**15 - 1)
INT = Integer("int", low=-(2**31), high=2**31 - 1)
LONG = Integer("long", low=-(2**63), high=2**63 - 1)
UNSIGNED_BYTE = Integer("unsignedByte", low=0, high=2**8 - 1)
UNSIGNED_SHORT = Integer("unsignedShort", low=0, high=2**16 - 1)
UNSIGNED_INT = Integer("unsignedInt", low=0, high=2**32 - 1)
UNSIGNED_LONG = Integer("unsignedLong", low=0, high=2**64 - 1)
