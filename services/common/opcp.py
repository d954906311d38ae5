"""What the OPCP and OPNC doors share: errors, identifiers and the facts of a certificate.

OPCP (hubject, 1.0) and its successor OPNC (CharIN) refuse with ``{"errorMessages": [...],
"traceId": "..."}`` whatever the reason, and know few statuses. So errors are rendered here, by
the path that was asked, for everything that can go wrong on such a door: what a service refuses,
a body of the wrong shape, a path that there is not, a body that is too large. Where the
specification prints a sentence for a refusal, that sentence comes first and ours second, which
says with which value and why.

A door says by :func:`worded` which of its service's refusals have a printed sentence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

from cryptography import x509
from cryptography.x509.oid import NameOID
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from pki.names import values
from v2g import exi
from v2g.messages import iso2

from . import errors, examples
from .certificates import b64, der_of, fingerprint, read_certificate, unb64
from .errors import Refusal

if TYPE_CHECKING:
    from .party import Party

PREFIXES = ("/v1/", "/opnc/", "/cps/", "/HubjectWS/")
"""Where the two protocols live; no party's own API does."""

ISO2 = "urn:iso:15118:2:2013:MsgDef"
ISO20 = ("urn:iso:15118:20:2020:MsgDef", "urn:iso:15118:20:2022:MsgDef")
"""Both spellings are in the specifications."""

PCID_PATTERN = "^[a-zA-Z0-9]{17,18}$"
EMAID_PATTERN = r"^[A-Za-z]{2}[-]?\w{3}[-]?\w{9}[-]?(\w{1})?$"
BASE64_PATTERN = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"

# ------------------------------------------------------------------------------ the fields

Pcid = Annotated[
    str, StringConstraints(pattern=PCID_PATTERN), Field(examples=["WNV1A2B3C4D5E6F7G8"])
]
"""A PCID as the two protocols want it."""

Emaid = Annotated[
    str,
    StringConstraints(pattern=EMAID_PATTERN, max_length=18),
    Field(examples=["DESUNC12345678L"]),
]
"""An EMAID with or without hyphens and check digit; 14 characters of it count."""

MAX_BASE64 = 32_000
Base64 = Annotated[str, StringConstraints(max_length=MAX_BASE64)]
Certificate64 = Annotated[Base64, Field(examples=[examples.CERTIFICATE])]
"""A certificate: base64 of DER in one line. The published limit of 800 characters is ours on
what we issue, not on what we read."""

KeyIdentifiers = Annotated[
    list[Annotated[str, StringConstraints(pattern="^[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){3,31}$")]],
    Field(min_length=1, max_length=20, examples=[["17:e5:cc:04:45:96:ce:a7"]]),
]
"""Key identifiers of roots: hex with colons."""

Namespace = Annotated[str, StringConstraints(max_length=128), Field(examples=[ISO2])]


def must_be_iso2(namespace: str | None, field: str = "xsdMsgDefNamespace") -> None:
    """Refusal unless a namespace is that of ISO 15118-2, or was left out."""
    if namespace in (None, "", ISO2):
        return
    if namespace in ISO20:
        raise Refusal(
            400,
            "edition_not_served",
            f"{field} : {namespace} is ISO 15118-20, which is not served here yet; served is "
            f"{ISO2}",
        )
    raise Refusal(400, "unknown_namespace", f'{field} : must match "{ISO2}"')


class Body(BaseModel):
    """A body of a request: what is not known is left alone, as the platforms do."""

    model_config = ConfigDict(extra="ignore")


class ErrorBody(BaseModel):
    """What every refusal of OPCP and OPNC looks like."""

    errorMessages: list[str] = Field(
        min_length=1, examples=[["The contract for the given EMAID not found."]]
    )
    traceId: str = Field(
        examples=["8a4dd05c-6a3d-4a0a-9d0e-4bba9ea0e9f1"],
        description="Stands in the events beside the call that was refused.",
    )


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "A value is missing, or was read and refused.",
        401: "No token, or one that is not good here.",
        403: "The token's role, WMI or provider id may not do this.",
        404: "There is nothing under this identifier.",
        413: "The body is larger than is read here.",
        502: "A party behind this one failed or could not be reached.",
        503: "This party, or its database, is not there for now.",
    }.items()
}


# ------------------------------------------------------------------------------ refusing

# What a refusal's status becomes where the protocols know no such status.
_STATUS = {409: 400, 422: 400, 504: 502}

Words = Mapping[str, tuple[int, str]]
"""A refusal's code -> its status and the printed sentence."""


def speaks(path: str) -> bool:
    """Whether a path is one of OPCP or OPNC."""
    return path.startswith(PREFIXES)


@contextmanager
def worded(words: Words) -> Iterator[None]:
    """Refusals with one of these codes get that status and that sentence before their own."""
    try:
        yield
    except Refusal as refusal:
        found = words.get(refusal.code)
        if found is None:
            raise
        status, sentence = found
        raise refused(status, sentence, refusal.message, code=refusal.code) from None


def refused(status: int, *messages: str, code: str = "refused") -> Refusal:
    """A refusal with several sentences."""
    return Refusal(status, code, messages[0], {"errorMessages": list(dict.fromkeys(messages))})


def trace_id(party: Party) -> str:
    """A name for a refusal."""
    return str(UUID(bytes=party.entropy("trace-id", 16), version=4))


def error_answer(
    party: Party, status: int, messages: list[str], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    body = {"errorMessages": messages, "traceId": trace_id(party)}
    return JSONResponse(body, _STATUS.get(status, status), dict(headers or {}))


def translated(party: Party, answer: JSONResponse) -> JSONResponse:
    """A refusal in this project's own shape, as the protocols' one."""
    own = json.loads(bytes(answer.body))
    details = own.get("details", {})
    messages = details.get("errorMessages") or [own["message"]]
    kept = {
        name: value
        for name, value in answer.headers.items()
        if name not in ("content-length", "content-type")
    }
    return error_answer(party, answer.status_code, messages, kept)


Handler = Callable[[Request, Exception], Awaitable[JSONResponse]]


def _by_path(own: Handler) -> Handler:
    async def answer(request: Request, error: Exception) -> JSONResponse:
        if not speaks(request.url.path):
            return await own(request, error)
        party: Party = request.app.state.party
        if isinstance(error, RequestValidationError):
            found = error_answer(party, 400, _shape_messages(error))
        else:
            found = translated(party, await own(request, error))
        for name, value in echoed(request.headers).items():
            found.headers[name] = value
        return found

    return answer


HANDLERS: dict[type[Exception], Handler] = {
    kind: _by_path(handler) for kind, handler in errors.HANDLERS.items()
}
"""The handlers of an application whose parties have OPCP and OPNC doors beside their own."""


def _shape_messages(error: RequestValidationError) -> list[str]:
    return list(dict.fromkeys(_shape_message(dict(one)) for one in error.errors()[:20]))


def _shape_message(one: dict[str, Any]) -> str:
    _, *where = one["loc"]
    field, context = ".".join(str(part) for part in where) or "the body", one.get("ctx", {})
    match one["type"]:
        case "json_invalid":
            return f"the body is no JSON: {context.get('error', one['msg'])}"
        case "string_pattern_mismatch":
            return f'{field} : must match "{context["pattern"]}"'
        case "missing":
            return f"{field} : must not be null"
        case "string_too_long":
            return f"{field} : has more than {context['max_length']} characters"
    return f"{field} : {one['msg']}"


# ------------------------------------------------------------------------------ OPNC's headers

ECHOED = ("OPNC-Correlation-ID", "OPNC-Request-ID")
_HEADER_TEXT = re.compile(r"[ -~]{1,128}")


def echoed(headers: Mapping[str, str]) -> dict[str, str]:
    """The identifiers of a request that its answer repeats."""
    sent = {name: headers.get(name, "") for name in ECHOED}
    return {name: value for name, value in sent.items() if _HEADER_TEXT.fullmatch(value)}


# ------------------------------------------------------------------------------ certificates


def one_line(certificate: x509.Certificate) -> str:
    """base64 of DER, in one line."""
    return b64(der_of(certificate))


def certificate_of(text: str, field: str) -> x509.Certificate:
    """The certificate in a field, with the printed sentence where there is none."""
    try:
        return read_certificate(text, field)
    except Refusal as refusal:
        raise refused(
            400,
            f"Invalid certificate format on {field}",
            refusal.message,
            code=refusal.code,
        ) from None


_DN_ORDER = (
    ("CN", NameOID.COMMON_NAME),
    ("DC", NameOID.DOMAIN_COMPONENT),
    ("O", NameOID.ORGANIZATION_NAME),
    ("OU", NameOID.ORGANIZATIONAL_UNIT_NAME),
    ("ST", NameOID.STATE_OR_PROVINCE_NAME),
    ("C", NameOID.COUNTRY_NAME),
)


def distinguished_name(name: x509.Name) -> str:
    """A name as the two protocols write it: CN, DC, O, OU, ST, C, whatever its own order."""
    return ", ".join(f"{short}={value}" for short, oid in _DN_ORDER for value in values(name, oid))


def organization(name: x509.Name) -> str:
    found = values(name, NameOID.ORGANIZATION_NAME)
    return found[0] if found else ""


def instant(moment: datetime) -> str:
    """An instant, whole seconds of UTC: 2026-11-22T12:00:00Z."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def serial(certificate: x509.Certificate) -> str:
    """Lower-case hex, no separators."""
    return f"{certificate.serial_number:x}"


def key_identifier(certificate: x509.Certificate) -> bytes:
    """The subject key identifier of a CA, computed where it has none."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return found.value.digest
    except (x509.ExtensionNotFound, ValueError):
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


def colons(raw: bytes) -> str:
    """Hex with colons: 4f:13:33."""
    return raw.hex(":")


def root_id(mark: str) -> str:
    """A root's UUID: the first half of its SHA-256 fingerprint, so that it needs no table."""
    return str(UUID(hex=mark[:32]))


_ROOT_ID = re.compile(r"[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}|[0-9a-f]{64}")


def root_mark(text: str) -> str | None:
    """The beginning of the fingerprint that a root's UUID, or its fingerprint, stands for; the
    specifications call both by either name."""
    text = text.lower()
    return text.replace("-", "") if _ROOT_ID.fullmatch(text) else None


def is_root(text: str | None, root: x509.Certificate) -> bool:
    """Whether ``text`` (UUID or fingerprint) means ``root``, or no root at all."""
    if not text:
        return True
    mark = root_mark(text)
    return mark is not None and fingerprint(root).startswith(mark)


def root_of(top: x509.Certificate, known: list[x509.Certificate]) -> x509.Certificate | None:
    """The root among ``known`` that issued ``top``."""
    for root in known:
        if root.subject == top.issuer:
            try:
                top.verify_directly_issued_by(root)
            except Exception:  # noqa: S112  (a bad signature, a foreign kind of key)
                continue
            return root
    return None


# ------------------------------------------------------------------------------ XML and EXI

_XML_HEAD = '<?xml version="1.0" encoding="UTF-8"?>'


def as_xml(message: bytes) -> bytes:
    """An EXI message as XML text, for the fields that want it so."""
    text = exi.to_xml(iso2.SCHEMA, exi.decode(iso2.SCHEMA, message))
    return (_XML_HEAD + text).encode()


def as_exi(text: str, field: str) -> bytes:
    """A base64 text of XML as an EXI message. Refusal 400 names the field."""
    try:
        _, value = exi.from_xml(iso2.SCHEMA, unb64(text, field).decode())
        return exi.encode(iso2.SCHEMA, value)
    except UnicodeDecodeError as error:
        raise Refusal(400, "wrong_xml", f"{field} : is not UTF-8 ({error})") from None
    except exi.EXIError as error:
        raise Refusal(400, "wrong_xml", f"{field} : is no V2G message in XML: {error}") from None
