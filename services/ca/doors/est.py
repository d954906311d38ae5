"""Enrolment over Secure Transport (RFC 7030): CA certificates out, requests in, leaves out.

One door, many paths: the RFC's own, that of the platforms' specifications, and those that
clients of the field send (:data:`PATHS`). All of them lead to the same three operations. What
comes out is a degenerate PKCS#7 in base64; ``cacerts`` goes from the sub-CA that issues to the
root, since clients take the last one as the root and the others as the chain; ``simpleenroll``
holds the leaf only (RFC 7030, 4.2.3).

A refusal is a sentence in plain text (RFC 7030, 4.2.3), or ``errorMessages`` as JSON where that
is asked for, and at the paths of OPNC.
"""

from __future__ import annotations

import base64
import binascii
import re
import textwrap
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from cryptography import x509
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from pki.issuing import CertificateRequest, CertificateRequestError, read_certificate_request
from pki.pkcs7 import certificates_only
from services.ca import faults
from services.ca.enrolment import SERVED_BY, Counter, Enrolment, label_of
from services.common import opcp
from services.common.auth import Caller, allow
from services.common.certificates import der_of
from services.common.errors import Refusal

router = APIRouter(tags=["EST"])

PKCS10 = "application/pkcs10"
PKCS7 = "application/pkcs7-mime; smime-type=certs-only"
# What requests are also sent as, by clients that know no better.
_ALSO_READ = frozenset({"", "application/octet-stream", "text/plain", "application/x-pem-file"})
MAX_REQUEST = 16 * 1024
_PEM = b"-----BEGIN"
# Characters of base64 in a line (RFC 2045, 6.8): openssl reads no longer ones.
_LINE = 76

_ISO2 = re.compile(r"(?i)(iso[ -]?)?15118-2([:-]\d{4})?")
_ISO20 = re.compile(r"(?i)(iso[ -]?)?15118-20([:-]\d{4})?")

# A refusal's status here: EST knows 4xx in general, its clients 400, 401 and 403 (OPCP).
_STATUS: Mapping[int, int] = {404: 400, 409: 400, 413: 400, 422: 400}

_OPNC = ("/opnc/v1/pki/est", "/opnc/v1/pki/pki/est")
# The RFC's own places: cacerts is for anybody there.
_WELL_KNOWN = "/.well-known/est"

PATHS: Sequence[str] = (
    "/.well-known/est/{operation}",
    "/.well-known/est/{ca}/{operation}",
    "/.well-known/est/{ca}/{operation}/{iso}",
    "/.well-known/est/{ca}/{operation}/{iso}/{algorithm}",
    "/.well-known/{ca}/{operation}",
    "/.well-known/{ca}/{operation}/{iso}",
    "/{ca}/{operation}",
    "/{ca}/{operation}/{iso}",
    "/{ca}/{operation}/{iso}/{algorithm}",
    *(f"{prefix}/{{operation}}" for prefix in _OPNC),
)
"""Where the operations are found; each also with a slash at its end."""


def _enrolment(request: Request) -> Enrolment:
    enrolment: Enrolment = request.app.state.service.enrolment
    return enrolment


async def cacerts(request: Request) -> Response:
    """The CA certificates above what is issued under the label, from its issuer to the root."""
    caller: Caller | None = None
    if "authorization" in request.headers or not _is_well_known(request):
        caller = await allow()(request)
    counter = _counter(request, caller)
    if caller is not None and not _is_well_known(request):
        _must_serve(counter, caller)
    chain = await _enrolment(request).authorities(counter)
    return await _certificates(request, caller, chain)


async def simpleenroll(request: Request) -> Response:
    """A leaf for a PKCS#10 request: PEM, DER, or base64 of DER."""
    return await _enrolled(request, again=False)


async def simplereenroll(request: Request) -> Response:
    """A new leaf in the place of one with the same common name, with the same key or another."""
    return await _enrolled(request, again=True)


async def _enrolled(request: Request, *, again: bool) -> Response:
    caller = await allow()(request)
    counter = _counter(request, caller)
    _must_serve(counter, caller)
    wanted = read_request(request.headers.get("content-type", ""), await request.body())
    issued = await _enrolment(request).enrol(counter, wanted, caller, again=again)
    return await _certificates(request, caller, (issued.certificate,))


# -------------------------------------------------------------------------- what was asked


def _counter(request: Request, caller: Caller | None) -> Counter:
    """The counter that a path, or OPNC's query, means. Refusal for what is not served here."""
    given = {**request.query_params, **request.path_params}
    _must_be_iso2(given.get("iso") or given.get("iso15118Version") or "")
    _must_be_p256(given.get("algorithm", ""))
    enrolment = _enrolment(request)
    label = label_of(given.get("ca") or given.get("caDomain") or "")
    if not label:
        own = [one for one in enrolment.counters if caller and caller.role in one.callers]
        return (own or list(enrolment.counters))[0]
    for one in enrolment.counters:
        if one.label == label:
            return one
    here = ", ".join(one.label for one in enrolment.counters)
    if label == "veh":
        raise Refusal(
            400,
            "not_served",
            "veh: vehicle certificates are a thing of ISO 15118-20, which is not served here; a "
            "provisioning certificate of ISO 15118-2 is enrolled under oem",
        )
    kind = SERVED_BY.get(label)
    where = f"; it is served by a party of kind {kind}" if kind else ""
    raise Refusal(404, "no_such_label", f"{label[:40]!a} is no label here; here are {here}{where}")


def _must_be_iso2(version: str) -> None:
    if not version or _ISO2.fullmatch(version):
        return
    if _ISO20.fullmatch(version):
        raise Refusal(400, "not_served", f"{version}: only ISO15118-2 is served here")
    raise Refusal(400, "unknown_version", f"{version[:40]!a} is no version; ISO15118-2 is served")


def _must_be_p256(algorithm: str) -> None:
    if algorithm and algorithm.lower() not in ("secp256r1", "prime256v1", "p-256"):
        raise Refusal(
            400,
            "not_served",
            f"{algorithm[:40]!a}: certificates of ISO 15118-2 are on secp256r1, nothing else is "
            "served here",
        )


def _must_serve(counter: Counter, caller: Caller) -> None:
    if not caller.is_admin and caller.role not in counter.callers:
        raise Refusal(
            403,
            "wrong_role",
            f"client {caller.client} has role {caller.role}; {counter.label} is for "
            f"{', '.join((*counter.callers, 'admin'))}",
        )


def read_request(content_type: str, body: bytes) -> CertificateRequest:
    """The PKCS#10 request in a body: PEM, DER, or base64 of DER with or without line breaks.

    Refusal 415 for another content type, 400 for what is none.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != PKCS10 and media_type not in _ALSO_READ:
        raise Refusal(
            415,
            "wrong_content_type",
            f"Content-Type: {media_type[:60]!a}; wanted is {PKCS10} (RFC 7030, 4.2.1)",
        )
    if not body.strip():
        raise Refusal(400, "empty", "the body is empty; wanted is a PKCS#10 request")
    if len(body) > MAX_REQUEST:
        raise Refusal(400, "too_long", f"{len(body)} bytes are too long for a PKCS#10 request")
    if body[:1] != b"\x30" and _PEM in body:
        # What openssl prints of a request may stand before it (RFC 7468, 5.2).
        body = body[body.index(_PEM) :]
    elif body[:1] != b"\x30":
        try:
            body = base64.b64decode(b"".join(body.split()), validate=True)
        except (binascii.Error, ValueError):
            raise Refusal(
                400,
                "not_a_request",
                "the body is neither DER nor PEM nor base64; wanted is a PKCS#10 request",
            ) from None
    try:
        return read_certificate_request(body)
    except CertificateRequestError as error:
        raise Refusal(400, "not_a_request", f"csr: {error}") from None


def _is_well_known(request: Request) -> bool:
    return request.url.path.startswith(f"{_WELL_KNOWN}/")


# ---------------------------------------------------------------------- what is answered


async def _certificates(
    request: Request, caller: Caller | None, certificates: Sequence[x509.Certificate]
) -> Response:
    content = [der_of(one) for one in certificates]
    fault = await request.app.state.party.faults.at(
        "pkcs7",
        # Of one certificate there is no order.
        when=lambda one: one.kind != "est-reordered" or len(content) > 1,
        caller=caller.client if caller else None,
    )
    encoded = certificates_only(content) if fault is None else faults.pkcs7(fault, content)
    lines = textwrap.wrap(base64.b64encode(encoded).decode(), _LINE)
    return Response(
        "\n".join(lines) + "\n",
        headers={
            "Content-Type": PKCS7,
            "Content-Transfer-Encoding": "base64",
            **_echoed(request),
        },
    )


def _echoed(request: Request) -> dict[str, str]:
    """OPNC's identifiers of a call come back with its answer."""
    return opcp.echoed(request.headers) if request.url.path.startswith(_OPNC) else {}


def _refused(request: Request, refusal: Refusal) -> Response:
    status = _STATUS.get(refusal.status, refusal.status)
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    wants_json = "application/json" in request.headers.get("accept", "")
    if wants_json or request.url.path.startswith(_OPNC):
        party = request.app.state.party
        return opcp.error_answer(party, status, [refusal.message], headers | _echoed(request))
    return PlainTextResponse(f"{refusal.message}\n", status, headers)


Operation = Callable[[Request], Awaitable[Response]]


def guarded(operation: Operation) -> Operation:
    """``operation`` whose refusals are EST's."""

    async def answer(request: Request) -> Response:
        try:
            return await operation(request)
        except Refusal as refusal:
            return _refused(request, refusal)

    answer.__name__ = operation.__name__
    answer.__doc__ = operation.__doc__
    return answer


_OPERATIONS: Mapping[str, tuple[str, Operation]] = {
    "cacerts": ("GET", cacerts),
    "simpleenroll": ("POST", simpleenroll),
    "simplereenroll": ("POST", simplereenroll),
}


def _mount(to: APIRouter) -> None:
    for name, (method, operation) in _OPERATIONS.items():
        answer: Any = guarded(operation)
        for shape in PATHS:
            path = shape.replace("{operation}", name)
            for end in ("", "/"):
                to.add_api_route(
                    f"{path}{end}",
                    answer,
                    methods=[method],
                    response_class=Response,
                    include_in_schema=False,
                )


_mount(router)
