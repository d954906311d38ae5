"""Messages as an engineer wants to see them: decoded text in tokens, and the bytes.

XML and JSON become tokens, pairs of a class and a text, so that a template can colour
them and still escapes each one. Long base64 is cut in the middle with its length said;
hex dumps of long messages likewise, with the whole as one hex string beside.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from services.common.events import Event

from .text import minute

Token = tuple[str, str]
"""A class of the style sheet ("" for none) and a text."""

LONGEST_VALUE = 96
WHOLE_DUMP = 512
DUMP_HEAD, DUMP_TAIL = 256, 64

_XML = re.compile(r"<[^>]*>|[^<]+")
_TAG = re.compile(r"(</?\??)((?:[\w.-]+:)?)([\w.-]+)(.*)", re.DOTALL)
_JSON = re.compile(
    r'(?P<k>"(?:[^"\\]|\\.)*")(?=\s*:)|(?P<v>"(?:[^"\\]|\\.)*")|(?P<n>-?\d[\d.eE+-]*|true|false|null)'
)


@dataclass(frozen=True)
class Dump:
    """Bytes as offset, hex and ASCII; ``whole`` in hex where the lines leave some out."""

    total: int
    lines: tuple[str, ...]
    whole: str


@dataclass(frozen=True)
class Part:
    """One half of a hop: a heading, the decoded message, the bytes."""

    title: str
    tokens: tuple[Token, ...]
    dump: Dump | None = None


def parts(event: Event) -> list[Part]:
    """What ``event`` carried, decoded and in bytes: a message pair, a certificate."""
    if event.kind == "cable":
        return _cable(event)
    if event.kind == "http":
        return _ocsp(event) if event.name == "OCSP" else _http(event)
    if event.kind == "issued":
        return [Part("The certificate", _certificate(event), _dump(event.response))]
    if event.response is not None:
        return [Part(event.name, _as_json(dict(event.data)), _dump(event.response))]
    return []


def shortened(text: str) -> str:
    """``text``, or its two ends and its length where it is long and without spaces."""
    if len(text) <= LONGEST_VALUE or " " in text:
        return text
    return f"{text[:28]} \u2026 {text[-8:]} ({len(text)} characters)"


# ------------------------------------------------------------------------- the two protocols


def _cable(event: Event) -> list[Part]:
    answer = str(event.data.get("response_name") or "answer")
    return [
        Part(title, tuple(_xml(str(event.data.get(half) or ""))), _dump(raw))
        for title, half, raw in (
            (event.name, "request", event.request),
            (answer, "response", event.response),
        )
    ]


def _http(event: Event) -> list[Part]:
    data = event.data
    path = urlsplit(str(data.get("url", ""))).path
    found = []
    for title, half, raw in (
        (f"{data.get('method', '')} {path}".strip() or event.name, "request", event.request),
        (f"Answer {data.get('status') or ''}".strip(), "response", event.response),
    ):
        body = data.get(half)
        tokens = _as_json(body) if body is not None else (("c", "no body"),)
        found.append(Part(title, tokens, _dump(raw)))
    if data.get("error"):
        found.append(Part("What went wrong", _as_json(data["error"])))
    return found


def _ocsp(event: Event) -> list[Part]:
    request, response = ocsp_request(event), ocsp_response(event)
    asked = (
        {}
        if request is None
        else {
            "serialNumber": f"{request.serial_number:x}",
            "hashAlgorithm": request.hash_algorithm.name,
            "issuerNameHash": request.issuer_name_hash.hex(),
            "issuerKeyHash": request.issuer_key_hash.hex(),
        }
    )
    answered: dict[str, Any] = {}
    if response is not None:
        answered["responseStatus"] = response.response_status.name.lower()
        if response.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
            answered |= {
                "certStatus": response.certificate_status.name.lower(),
                "producedAt": minute(response.produced_at_utc.isoformat()),
                "thisUpdate": minute(response.this_update_utc.isoformat()),
                "nextUpdate": response.next_update_utc
                and minute(response.next_update_utc.isoformat()),
                "responderCertificates": [
                    c.subject.rfc4514_string() for c in response.certificates
                ],
            }
            if response.revocation_time_utc is not None:
                answered["revocationTime"] = minute(response.revocation_time_utc.isoformat())
            if response.revocation_reason is not None:
                answered["revocationReason"] = response.revocation_reason.value
    return [
        Part("OCSPRequest (RFC 6960)", _as_json(asked), _dump(event.request)),
        Part("OCSPResponse", _as_json(answered), _dump(event.response)),
    ]


def ocsp_request(event: Event) -> ocsp.OCSPRequest | None:
    """The question that ``event`` carried; None where there is none that can be read."""
    try:
        return ocsp.load_der_ocsp_request(event.request or b"")
    except ValueError:
        return None


def ocsp_response(event: Event) -> ocsp.OCSPResponse | None:
    """The answer that ``event`` carried; None where there is none that can be read."""
    try:
        return ocsp.load_der_ocsp_response(event.response or b"")
    except ValueError:
        return None


def ocsp_status(event: Event) -> str:
    """good, revoked, unknown, or "" where the answer says nothing."""
    answer = ocsp_response(event)
    if answer is None or answer.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        return ""
    return answer.certificate_status.name.lower()


def _certificate(event: Event) -> tuple[Token, ...]:
    shown: dict[str, Any] = {
        name: event.data[name]
        for name in ("subject", "issuer", "serial", "not_before", "not_after")
        if name in event.data
    }
    try:
        certificate = x509.load_der_x509_certificate(event.response or b"")
        key = certificate.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            shown["public_key"] = f"EC, {key.curve.name}"
        shown["signature"] = certificate.signature_algorithm_oid._name
        shown["extensions"] = {
            extension.oid._name + (" (critical)" if extension.critical else ""): _extension(
                extension.value
            )
            for extension in certificate.extensions
        }
    except ValueError:
        shown["note"] = "the bytes are no certificate that can be read"
    return _as_json(shown)


_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
)


def _extension(value: x509.ExtensionType) -> Any:
    if isinstance(value, x509.BasicConstraints):
        return {"ca": value.ca, "path_length": value.path_length}
    if isinstance(value, x509.KeyUsage):
        return [name for name in _USAGES if getattr(value, name)]
    if isinstance(value, x509.SubjectKeyIdentifier):
        return value.digest.hex()
    if isinstance(value, x509.AuthorityKeyIdentifier):
        return (value.key_identifier or b"").hex()
    if isinstance(value, x509.AuthorityInformationAccess):
        return [str(description.access_location.value) for description in value]
    if isinstance(value, x509.ExtendedKeyUsage):
        return [usage._name for usage in value]
    return shortened(value.public_bytes().hex())


# ------------------------------------------------------------------------------------ tokens


def _xml(text: str) -> Iterator[Token]:
    for piece in _XML.findall(text):
        tag = _TAG.fullmatch(piece) if piece.startswith("<") else None
        if tag is not None:
            yield "p", tag[1] + tag[2]
            yield "t", tag[3]
            yield "p", tag[4]
        elif piece.strip():
            yield "v", shortened(piece)
        else:
            yield "", piece


def _as_json(value: Any) -> tuple[Token, ...]:
    return tuple(_json(json.dumps(_cut(value), indent=2, ensure_ascii=False)))


def _json(text: str) -> Iterator[Token]:
    at = 0
    for found in _JSON.finditer(text):
        if found.start() > at:
            yield "p", text[at : found.start()]
        kind = found.lastgroup or ""
        yield {"k": "t", "v": "v", "n": "v"}[kind], found[0]
        at = found.end()
    if text[at:]:
        yield "p", text[at:]


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, Mapping):
        return {key: _cut(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cut(inner) for inner in value]
    return value


# ------------------------------------------------------------------------------------- bytes


def _dump(raw: bytes | None) -> Dump | None:
    if raw is None:
        return None
    if len(raw) <= WHOLE_DUMP:
        return Dump(len(raw), tuple(_lines(raw, 0)), "")
    tail = (len(raw) - DUMP_TAIL) // 16 * 16
    left_out = f"          \u2026 {tail - DUMP_HEAD} bytes left out here \u2026"
    lines = (*_lines(raw[:DUMP_HEAD], 0), left_out, *_lines(raw[tail:], tail))
    return Dump(len(raw), lines, raw.hex())


def _lines(raw: bytes, base: int) -> Iterator[str]:
    for offset in range(0, len(raw), 16):
        row = raw[offset : offset + 16]
        left, right = row[:8].hex(" "), row[8:].hex(" ")
        ascii_text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        yield f"{base + offset:06x}  {left:<23}  {right:<23}  {ascii_text}"
