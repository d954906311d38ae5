"""What an event is about, as marks: ``certificate:<SHA-256>``, ``emaid:<14 characters>`` ...

A mark is a kind and a value in the normal form of that kind, so that two spellings of one
EMAID are one mark. Where an event is stamped, :func:`marks_of` walks over what it tells and
takes the marks out by the names of the fields: :data:`FIELDS` is the one table of what is
looked at. The walk is bounded, since what is told may have come from anybody.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from pki.identifiers import EMAID, EVSEID, PCID, IdentifierError

MAX_MARKS = 32
MAX_MARK = 128
# Values that are looked at in one event.
MAX_VALUES = 4000
# Bytes; smaller is no certificate, larger none of this field.
MIN_DER, MAX_DER = 100, 16 * 1024
MAX_DEPTH = 40


class MarkError(ValueError):
    """A text that is no mark, or not one of its kind; the sentence says what is wanted."""


def _fingerprint(text: str) -> str:
    normal = text.replace(":", "").lower()
    if not re.fullmatch("[0-9a-f]{64}", normal):
        raise MarkError("the SHA-256 of a certificate's DER is wanted, 64 hexadecimal digits")
    return normal


def _emaid(text: str) -> str:
    return EMAID.parse(text, strict=False).normal


def _pcid(text: str) -> str:
    return PCID.parse(text, strict=False).normal


def _session(text: str) -> str:
    if not re.fullmatch("[0-9A-Fa-f]{1,16}", text):
        raise MarkError("a session is up to 16 hexadecimal digits")
    return text.lower()


def _charger(text: str) -> str:
    try:
        return EVSEID.parse(text).normal
    except IdentifierError:
        return _word(text)


def _word(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9*._-]{1,64}", text):
        raise MarkError("1 to 64 letters, digits and *._- are wanted")
    return text


# A kind of mark -> its normal form.
MARK_KINDS: Mapping[str, Callable[[str], str]] = {
    "certificate": _fingerprint,
    "emaid": _emaid,
    "pcid": _pcid,
    "session": _session,
    "charger": _charger,
    "evccid": lambda text: _word(text).upper(),
    "driver": _word,
    "cdr": _word,
    "fault": _word,
}

# The name of a field, in lower case and without underscores -> the kind of mark in it.
FIELDS: Mapping[str, str] = {
    "emaid": "emaid",
    "contractid": "emaid",
    "pcid": "pcid",
    "session": "session",
    "sessionid": "session",
    "charger": "charger",
    "evseid": "charger",
    "evccid": "evccid",
    "driver": "driver",
    "cdr": "cdr",
    "cdrid": "cdr",
    "fault": "fault",
    "fingerprint": "certificate",
    "certificatefingerprint": "certificate",
    "certificate": "certificate",
    "oemprovisioningcert": "certificate",
    "provisioningcertificate": "certificate",
    "chain": "certificate",
    "contractchain": "certificate",
    "issuers": "certificate",
    "url": "url",
}

# The part of a path -> the kind of what comes after it.
PATHS: Mapping[str, str] = {
    "certificates": "certificate",
    "contracts": "emaid",
    "drivers": "driver",
    "plugs": "evccid",
    "provisioning-certificates": "pcid",
    "vehicles": "pcid",
}

# What says nothing: no session is under way, the identifiers of a refusal without content.
_NOTHING = re.compile(r"(session|evccid):0+")


def mark(kind: str, value: str) -> str:
    """The mark of ``kind`` about ``value``. MarkError: no such kind, or no such value."""
    if kind not in MARK_KINDS:
        raise MarkError(f"{kind[:32]!r} is no kind of mark; there are {', '.join(MARK_KINDS)}")
    try:
        found = f"{kind}:{MARK_KINDS[kind](value)}"
    except IdentifierError as error:
        raise MarkError(str(error)) from None
    if len(found) > MAX_MARK or not found.isprintable():
        raise MarkError(f"a mark has at most {MAX_MARK} printable characters")
    return found


def parse_mark(text: str) -> str:
    """``kind:value`` in its normal form. MarkError."""
    kind, colon, value = text.partition(":")
    if not colon:
        raise MarkError(f"KIND:VALUE is wanted; the kinds are {', '.join(MARK_KINDS)}")
    return mark(kind, value)


def marks_of(*told: Any) -> tuple[str, ...]:
    """The marks in values (JSON, or messages with attributes), in the order of their finding,
    each once, at most MAX_MARKS."""
    found: dict[str, None] = {}
    # What stands further up is what an event is rather about: breadth first.
    level: list[tuple[str, Any]] = [("", value) for value in told]
    looked = 0
    for _ in range(MAX_DEPTH):
        below: list[tuple[str, Any]] = []
        for kind, value in level:
            looked += 1
            if looked > MAX_VALUES or len(found) >= MAX_MARKS:
                return tuple(found)[:MAX_MARKS]
            if isinstance(value, str | bytes):
                if kind:
                    found.update(dict.fromkeys(_marks(kind, value)))
            elif kind == "fault" and isinstance(value, Mapping):
                below.append(("fault", value.get("id")))
            elif len(below) < MAX_VALUES:
                below.extend(_inside(kind, value))
        if not below:
            break
        level = below
    return tuple(found)[:MAX_MARKS]


def chain_marks(ders: bytes) -> tuple[str, ...]:
    """The marks of certificates that stand one behind the other, DER."""
    found: dict[str, None] = {}
    while len(ders) > 4 and ders[0] == 0x30 and len(found) < MAX_MARKS:
        count = ders[1] & 0x7F if ders[1] & 0x80 else 0
        if count > 2:
            break
        length = int.from_bytes(ders[2 : 2 + count]) if count else ders[1]
        end = 2 + count + length
        if end > len(ders):
            break
        found.update(dict.fromkeys(_certificate_marks(ders[:end])))
        ders = ders[end:]
    return tuple(found)


def _inside(kind: str, value: Any) -> Iterable[tuple[str, Any]]:
    """What ``value`` holds, each with the kind of mark that its name stands for."""
    if isinstance(value, Mapping):
        return [(_kind_of(name, kind), inner) for name, inner in value.items()]
    if isinstance(value, list | tuple):
        return [(kind, inner) for inner in value[:MAX_VALUES]]
    if value is None or isinstance(value, Enum | int | float):
        return ()
    return [(_kind_of(name, kind), inner) for name, inner in getattr(value, "__dict__", {}).items()]


def _kind_of(name: Any, above: str) -> str:
    # A message's text has its value in an attribute of this name.
    if name == "value":
        return above
    return FIELDS.get(str(name).lower().replace("_", ""), "")


def _marks(kind: str, value: str | bytes) -> tuple[str, ...]:
    if kind == "certificate":
        return _read_certificate(value)
    if kind == "url":
        return _path_marks(value) if isinstance(value, str) else ()
    text = value.hex() if isinstance(value, bytes) else value
    try:
        made = mark(kind, text)
    except MarkError:
        return ()
    return () if _NOTHING.fullmatch(made) else (made,)


def _path_marks(url: str) -> tuple[str, ...]:
    parts = url[:2048].partition("://")[2].partition("/")[2] if "://" in url else url[:2048]
    found: tuple[str, ...] = ()
    collection = ""
    for part in parts.partition("?")[0].split("/"):
        if (kind := PATHS.get(collection)) is not None:
            found += _marks(kind, part)
        collection = part
    return found


def _read_certificate(value: str | bytes) -> tuple[str, ...]:
    if isinstance(value, bytes):
        return _certificate_marks(value)
    if len(value) <= 95:
        try:
            return (mark("certificate", value),)
        except MarkError:
            return ()
    if len(value) > 2 * MAX_DER:
        return ()
    body = re.sub(r"-----[A-Z ]+-----", " ", value)
    try:
        return _certificate_marks(base64.b64decode("".join(body.split()), validate=True))
    except (binascii.Error, ValueError):
        return ()


def _certificate_marks(der: bytes) -> tuple[str, ...]:
    # The shortest form of a certificate begins 30 82: anything else is something else.
    return _marks_of_der(der) if MIN_DER <= len(der) <= MAX_DER and der[:2] == b"\x30\x82" else ()


@lru_cache(maxsize=1024)
def _marks_of_der(der: bytes) -> tuple[str, ...]:
    """The certificate's own mark, and whose it is where its CN says so."""
    found = (f"certificate:{hashlib.sha256(der).hexdigest()}",)
    try:
        names = x509.load_der_x509_certificate(der).subject.get_attributes_for_oid(
            NameOID.COMMON_NAME
        )
        name = str(names[0].value) if names else ""
    except Exception:  # the library documents no common type
        return ()
    if re.fullmatch(r"[A-Z0-9]{17,18}", name, re.IGNORECASE):
        return (*found, *_marks("pcid", name))
    return (*found, *_marks("emaid", name))
