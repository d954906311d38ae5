"""What a party answers when it refuses.

A refusal is part of the interface: an HTTP status, a machine-readable code, a
sentence that names the offending value, and nothing changed. Services raise
:class:`Refusal`; the application turns it into an answer. Every refusal has the
same body::

    {"code": "emaid_wrong_check_digit", "message": "...", "details": {...}}
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from pki.identifiers import IdentifierError

from .problems import NotAsExpectedError

log = logging.getLogger("pnclab")


class Refusal(Exception):
    """A request that is answered with an error.

    ``status`` is the HTTP status, ``code`` a word for programs, ``message`` a
    sentence for people, ``details`` further values (JSON), for instance a verdict.
    """

    def __init__(
        self, status: int, code: str, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = dict(details or {})

    def as_dict(self) -> dict[str, Any]:
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.details:
            body["details"] = self.details
        return body


class DatabaseUnavailable(NotAsExpectedError):
    """A party's database did not do its part (503). Nothing was changed, unless the message
    says that this is not known."""


class PartyUnreachable(Refusal):
    """Another party did not answer: down (502) or too slow (504)."""

    def __init__(self, party: str, url: str, reason: str, *, slow: bool = False) -> None:
        verb = "did not answer in time" if slow else "could not be reached"
        super().__init__(
            504 if slow else 502,
            "party_too_slow" if slow else "party_unreachable",
            f"{party} at {url} {verb}: {reason}",
            {"party": party},
        )
        self.party = party


class PartyRefused(Refusal):
    """Another party answered with an error; its code and sentence are passed on."""

    def __init__(self, party: str, status: int, code: str, message: str, details: Any) -> None:
        # What the caller asked for was refused further down: its own mistake
        # stays a 4xx, a failure behind us becomes 502.
        super().__init__(
            status if 400 <= status < 500 and status not in (401, 403) else 502,
            code,
            f"{party} refused: {message}",
            {"party": party, "status": status, **(details if isinstance(details, dict) else {})},
        )
        self.party = party
        self.upstream_status = status


class ErrorBody(BaseModel):
    """The body of every refusal (for the OpenAPI documents)."""

    code: str = Field(examples=["not_found"])
    message: str = Field(examples=["No provisioning certificate is registered for PCID WNV1..."])
    details: dict[str, Any] = Field(default_factory=dict)


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in {
        400: "The request does not make sense; the message says which value.",
        401: "No token, or one that is not valid here.",
        403: "The token's role may not do this.",
        404: "There is nothing under this name.",
        409: "The request contradicts what is already there.",
        413: "The body is larger than this party reads.",
        422: "A value was understood and refused; the message says by which rule.",
        502: "A party behind this one could not be reached or failed.",
        503: "This party's database, or the party itself, is not there for now.",
        504: "A party behind this one was too slow.",
    }.items()
}


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else None
    return JSONResponse(error.as_dict(), error.status, headers)


def wrong_identifier(error: IdentifierError, field: str = "") -> Refusal:
    """The refusal of an identifier: ``not_an_emaid``, ``not_a_pcid`` ..."""
    article = "an" if error.kind.startswith("E") else "a"
    code = f"not_{article}_{error.kind.lower()}"
    return Refusal(422, code, f"{field}: {error}" if field else str(error))


async def _wrong_identifier(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, IdentifierError)
    return JSONResponse(wrong_identifier(error).as_dict(), 422)


async def _wrong_shape(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    problems = [
        {"field": ".".join(str(part) for part in item["loc"]), "problem": item["msg"]}
        for item in error.errors()[:20]
    ]
    unreadable = first["type"] == "json_invalid"
    return JSONResponse(
        Refusal(
            400 if unreadable else 422,
            "not_json" if unreadable else "wrong_shape",
            f"{where}: {first['msg']}",
            {"problems": problems},
        ).as_dict(),
        400 if unreadable else 422,
    )


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    codes = {400: "not_json", 404: "no_such_path", 405: "method_not_allowed"}
    code = codes.get(error.status_code, "http_error")
    message = str(error.detail)
    if error.status_code in codes:
        message = f"{message}: {request.method} {request.url.path}; see /openapi.json"
    return JSONResponse({"code": code, "message": message}, error.status_code, error.headers)


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    log.error("%s: the database failed: %s", request.app.state.party.config.name, error)
    return JSONResponse(Refusal(503, "database_unavailable", str(error)).as_dict(), 503)


HANDLERS = {
    Refusal: _refused,
    DatabaseUnavailable: _unavailable,
    IdentifierError: _wrong_identifier,
    RequestValidationError: _wrong_shape,
    HTTPException: _http_error,
}
