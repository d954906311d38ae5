"""The identifiers of Plug & Charge as value types.

    EMAID   the contract:  country, provider, nine characters, check digit  (ISO 15118-2, annex H)
    PCID    the vehicle as its provisioning certificate names it: WMI first
    EVSEID  the charging point: country, operator, "E" and a local name
    EVCCID  the vehicle's controller as ISO 15118-20 names it: WMI, "V", a name, check character
    SECCID  the charging station's controller as ISO 15118-20 names it

Each `parse` keeps the text as it was given (`wire`) and compares by a normal form. Strict is
the default and refuses with `IdentifierError`, which tells the kind, the value, the rule and
the reason. Lenient (`strict=False`) lets pass what stock identifiers of real stacks get wrong,
such as the check digit of UKSWI123456791A and its country, which ISO 3166 does not know.
"""

import re
from dataclasses import dataclass, field
from typing import ClassVar, Self

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

COUNTRIES = frozenset(
    re.findall(
        "..",
        "ADAEAFAGAIALAMAOAQARASATAUAWAXAZBABBBDBEBFBGBHBIBJBLBMBNBOBQBRBSBTBVBWBYBZCACCCDCFCG"
        "CHCICKCLCMCNCOCRCUCVCWCXCYCZDEDJDKDMDODZECEEEGEHERESETFIFJFKFMFOFRGAGBGDGEGFGGGHGIGLGM"
        "GNGPGQGRGSGTGUGWGYHKHMHNHRHTHUIDIEILIMINIOIQIRISITJEJMJOJPKEKGKHKIKMKNKPKRKWKYKZLALBLC"
        "LILKLRLSLTLULVLYMAMCMDMEMFMGMHMKMLMMMNMOMPMQMRMSMTMUMVMWMXMYMZNANCNENFNGNINLNONPNRNUNZ"
        "OMPAPEPFPGPHPKPLPMPNPRPSPTPWPYQARERORSRURWSASBSCSDSESGSHSISJSKSLSMSNSOSRSSSTSVSXSYSZTC"
        "TDTFTGTHTJTKTLTMTNTOTRTTTVTWTZUAUGUMUSUYUZVAVCVEVGVIVNVUWFWSYEYTZAZMZW",
    )
)
"""The country codes of ISO 3166-1 alpha-2 (UK is not among them)."""

_RULE_EMAID = "ISO 15118-2 annex H"
_RULE_COUNTRY = "ISO 3166-1 alpha-2"
_RULE_WMI = "ISO 3780"


class IdentifierError(ValueError):
    """An identifier that is refused: which kind, which value, by which rule and why."""

    def __init__(self, kind: str, value: str, rule: str, reason: str) -> None:
        super().__init__(f"{kind} {value[:80]!r} is refused: {reason} ({rule})")
        self.kind = kind
        self.value = value
        self.rule = rule
        self.reason = reason


# ------------------------------------------------------------------------------------ EMAID

# Each character stands for two vectors: with its index in the alphabet written as 9 q + r, the
# two bits of q over the integers modulo 2 and the two base-3 digits of r modulo 3. The check
# digit is the fifteenth character that makes both sums of v_i · P^i vanish, i = 1 .. 15.
_MATRICES = ((2, ((0, 1), (1, 1))), (3, ((0, 1), (1, 2))))
_CHECKED = 14


def _weights() -> tuple[dict[str, int], ...]:
    """For each place 1 .. 15 the four components each character contributes, a byte each."""
    places: list[dict[str, int]] = []
    powers = [((1, 0), (0, 1)), ((1, 0), (0, 1))]
    for _ in range(_CHECKED + 1):
        for which, (modulus, matrix) in enumerate(_MATRICES):
            power = powers[which]
            (a, b), (c, d) = (
                tuple(sum(row[k] * matrix[k][j] for k in (0, 1)) % modulus for j in (0, 1))
                for row in power
            )
            powers[which] = ((a, b), (c, d))
        row: dict[str, int] = {}
        for index, character in enumerate(ALPHABET):
            q, r = divmod(index, 9)
            packed = 0
            for which, vector in enumerate((divmod(q, 2), divmod(r, 3))):
                modulus = _MATRICES[which][0]
                for j in (0, 1):
                    part = sum(vector[k] * powers[which][k][j] for k in (0, 1)) % modulus
                    packed = packed << 8 | part
            row[character] = packed
        places.append(row)
    return tuple(places)


def _reduced(packed: int) -> tuple[int, int, int, int]:
    return (
        (packed >> 24) % 2,
        (packed >> 16 & 0xFF) % 2,
        (packed >> 8 & 0xFF) % 3,
        (packed & 0xFF) % 3,
    )


_WEIGHTS = _weights()
_CLOSING = {
    tuple(
        (-part) % modulus for part, modulus in zip(_reduced(packed), (2, 2, 3, 3), strict=True)
    ): (character)
    for character, packed in _WEIGHTS[_CHECKED].items()
}
"""Which character makes a sum of the first fourteen vanish."""


@dataclass(frozen=True)
class EMAID:
    """An e-mobility account identifier. Equal are those whose 14 characters are equal."""

    wire: str = field(compare=False)
    normal: str
    """Country, provider and instance: 14 characters, upper case, no hyphens, no check digit."""
    check_digit: str | None = field(compare=False)

    kind: ClassVar[str] = "EMAID"
    _SHAPE: ClassVar[re.Pattern[str]] = re.compile(
        r"([A-Z]{2})([-*]?)([A-Z0-9]{3})\2([A-Z0-9]{9})(?:\2([A-Z0-9]))?", re.IGNORECASE | re.ASCII
    )

    @classmethod
    def parse(cls, text: str, *, strict: bool = True) -> Self:
        """Reads 14 or 15 characters, with or without hyphens or stars between the parts.

        Strict refuses a wrong check digit and a country that ISO 3166 does not know; a missing
        check digit is no error, the wire form of ISO 15118-2 has 14 or 15 characters.
        """
        match = cls._SHAPE.fullmatch(text)
        if match is None:
            raise IdentifierError(
                cls.kind,
                text,
                _RULE_EMAID,
                "wanted are two letters of a country, three characters of a provider, nine of "
                f"the account and a check digit, 14 or 15 in all; seen are {len(text)} "
                "characters of another shape",
            )
        country, _, provider, instance, digit = match.groups()
        normal = (country + provider + instance).upper()
        digit = digit.upper() if digit else None
        if strict:
            _known_country(cls.kind, text, normal[:2])
            if digit is not None and digit != (wanted := cls.check_digit_of(normal)):
                raise IdentifierError(
                    cls.kind,
                    text,
                    _RULE_EMAID,
                    f"its check digit is {digit}, the fourteen characters {normal} have {wanted}",
                )
        return cls(wire=text, normal=normal, check_digit=digit)

    @classmethod
    def with_check_digit(cls, country: str, provider: str, instance: str) -> Self:
        """The EMAID of these parts, its check digit computed, without hyphens."""
        normal = (country + provider + instance).upper()
        return cls.parse(normal + cls.check_digit_of(normal))

    @staticmethod
    def check_digit_of(text14: str) -> str:
        """The check digit of country, provider and instance, 14 characters without hyphens."""
        text = text14.upper()
        if len(text) != _CHECKED or not text.isascii() or not text.isalnum():
            raise IdentifierError(
                "EMAID",
                text14,
                _RULE_EMAID,
                f"a check digit is computed over {_CHECKED} letters "
                f"and digits, seen are {len(text)} characters",
            )
        total = sum(_WEIGHTS[place][character] for place, character in enumerate(text))
        return _CLOSING[_reduced(total)]

    @property
    def country(self) -> str:
        return self.normal[:2]

    @property
    def provider(self) -> str:
        """The three characters of the provider, without its country."""
        return self.normal[2:5]

    @property
    def provider_id(self) -> str:
        """Country and provider, five characters: what a mobility operator is registered by."""
        return self.normal[:5]

    @property
    def instance(self) -> str:
        """The nine characters that the provider gave to the account."""
        return self.normal[5:]

    @property
    def hyphenated(self) -> str:
        """For people: DE-ABC-C12345678-5."""
        parts = (self.country, self.provider, self.instance, self.check_digit)
        return "-".join(part for part in parts if part)

    def __str__(self) -> str:
        return self.wire


# ------------------------------------------------------------------------------------- PCID


@dataclass(frozen=True)
class PCID:
    """A provisioning certificate identifier: what an OEM provisioning certificate's CN holds."""

    wire: str = field(compare=False)
    normal: str
    """Upper case."""

    kind: ClassVar[str] = "PCID"

    @classmethod
    def parse(cls, text: str, *, strict: bool = True) -> Self:
        """Strict wants 17 or 18 letters and digits that begin with a world manufacturer
        identifier, in which ISO 3780 bars I, O and Q; lenient 1 to 64 printable characters.
        """
        if strict:
            if not re.fullmatch(r"[A-Za-z0-9]{17,18}", text):
                raise IdentifierError(
                    cls.kind,
                    text,
                    "VDE-AR, OPCP",
                    f"wanted are 17 or 18 letters and digits, seen are {len(text)} characters"
                    + ("" if text.isalnum() else ", not only letters and digits"),
                )
            _world_manufacturer(cls.kind, text)
        elif not 1 <= len(text) <= 64 or not text.isprintable():
            raise IdentifierError(
                cls.kind,
                text,
                "RFC 5280, ub-common-name",
                f"wanted are 1 to 64 printable characters, seen are {len(text)}",
            )
        return cls(wire=text, normal=text.upper())

    @property
    def wmi(self) -> str:
        """The world manufacturer identifier, three characters: whose car it is."""
        return self.normal[:3]

    def __str__(self) -> str:
        return self.wire


# ----------------------------------------------------------------------------------- EVSEID


@dataclass(frozen=True)
class EVSEID:
    """A charging point's identifier, DE*PNC*E1234*1. It has no check digit."""

    wire: str = field(compare=False)
    normal: str
    """Upper case, without stars."""

    kind: ClassVar[str] = "EVSEID"
    _SHAPE: ClassVar[re.Pattern[str]] = re.compile(
        r"([A-Z]{2})(\*?)([A-Z0-9]{3})\2(E[A-Z0-9][A-Z0-9*]{0,30})", re.IGNORECASE | re.ASCII
    )

    @classmethod
    def parse(cls, text: str, *, strict: bool = True) -> Self:
        """Strict wants country, operator, "E" and up to 31 more, 7 to 37 characters in all, of
        a country that ISO 3166 knows; lenient any country, and then 1 to 37 printable ones.
        """
        match = cls._SHAPE.fullmatch(text)
        reason = "wanted are country, operator (three characters) and a name that begins with E"
        if not 7 <= len(text) <= 37:
            reason, match = f"wanted are 7 to 37 characters, seen are {len(text)}", None
        if strict:
            if match is None:
                raise IdentifierError(cls.kind, text, "ISO 15118-2 annex H", reason)
            _known_country(cls.kind, text, match.group(1).upper())
        elif match is None and not (1 <= len(text) <= 37 and text.isprintable()):
            raise IdentifierError(cls.kind, text, "ISO 15118-2 annex H", reason)
        return cls(wire=text, normal=text.upper().replace("*", ""))

    @property
    def country(self) -> str:
        return self.normal[:2]

    @property
    def operator(self) -> str:
        """The three characters of the operator, without its country."""
        return self.normal[2:5]

    @property
    def operator_id(self) -> str:
        """Country and operator, five characters: what a charge point operator is known by."""
        return self.normal[:5]

    def __str__(self) -> str:
        return self.wire


# --------------------------------------------------------------------------- EVCCID, SECCID


@dataclass(frozen=True)
class EVCCID:
    """A vehicle's controller as ISO 15118-20 names it: WMI, "V", a name, a check character.

    ISO 15118-2 uses six bytes of a MAC address in this place, which are no text of this kind.
    """

    wire: str = field(compare=False)
    normal: str

    kind: ClassVar[str] = "EVCCID"
    _SHAPE: ClassVar[re.Pattern[str]] = re.compile(r"[A-Z0-9]{3}V[A-Z0-9]{15,59}[0-9X]", re.ASCII)

    @classmethod
    def parse(cls, text: str, *, strict: bool = True) -> Self:
        normal = text.upper()
        if not cls._SHAPE.fullmatch(normal) and (strict or not 1 <= len(text) <= 255):
            raise IdentifierError(
                cls.kind,
                text,
                "ISO 15118-20",
                'wanted are 20 to 64 letters and digits: a WMI, "V", a name and a check character '
                f"0-9 or X; seen are {len(text)} characters",
            )
        if strict:
            _world_manufacturer(cls.kind, text)
            if normal[-1] != (wanted := cls.check_character_of(normal[:-1])):
                raise IdentifierError(
                    cls.kind,
                    text,
                    "ISO 15118-20",
                    f"its check character is {normal[-1]}, the others have {wanted}",
                )
        return cls(wire=text, normal=normal)

    @staticmethod
    def check_character_of(text: str) -> str:
        """The check character of WMI, "V" and name: leading zeros of each part fall away, each
        character is written as its number in decimal digits, and these are weighted with powers
        of two, modulo 11; X stands for 10.
        """
        normal = text.upper()
        parts = (normal[:3], normal[3:4], normal[4:])
        digits = "".join(str(int(c, 36)) for part in parts for c in part.lstrip("0"))
        total = sum(int(digit) << (place % 28) for place, digit in enumerate(digits))
        return "0123456789X"[total % 11]

    @property
    def wmi(self) -> str:
        return self.normal[:3]

    def __str__(self) -> str:
        return self.wire


@dataclass(frozen=True)
class SECCID:
    """A charging station's controller as ISO 15118-20 names it: country, operator, "S", a name.

    How its optional check character is computed is not known from a public source, so it is
    not checked.
    """

    wire: str = field(compare=False)
    normal: str

    kind: ClassVar[str] = "SECCID"
    _SHAPE: ClassVar[re.Pattern[str]] = re.compile(
        r"([A-Z]{2})[-*]?([A-Z0-9]{3})[-*]?S[A-Z0-9*-]{32,}", re.ASCII
    )

    @classmethod
    def parse(cls, text: str, *, strict: bool = True) -> Self:
        normal = text.upper()
        shaped = cls._SHAPE.fullmatch(normal) and 38 <= len(text) <= 64
        if not shaped and (strict or not 1 <= len(text) <= 255):
            raise IdentifierError(
                cls.kind,
                text,
                "ISO 15118-20",
                'wanted are country, operator, "S" and a name of 32 or more, up to 64 characters '
                f"in all; seen are {len(text)}",
            )
        if strict:
            _known_country(cls.kind, text, normal[:2])
        return cls(wire=text, normal=re.sub("[-*]", "", normal))

    def __str__(self) -> str:
        return self.wire


def _known_country(kind: str, text: str, country: str) -> None:
    if country not in COUNTRIES:
        hint = "; the United Kingdom is GB" if country == "UK" else ""
        raise IdentifierError(
            kind, text, _RULE_COUNTRY, f"{country} is not the code of a country{hint}"
        )


def _world_manufacturer(kind: str, text: str) -> None:
    barred = sorted(set(text[:3].upper()) & set("IOQ"))
    if barred:
        raise IdentifierError(
            kind,
            text,
            _RULE_WMI,
            f"the manufacturer's code {text[:3]} holds {' and '.join(barred)}, "
            "which are barred there",
        )
