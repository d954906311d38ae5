"""What an OpenAPI document says of every call, so that no door needs to: who may make it, and
the refusals that any call can meet.

:func:`who_may` reads from a route's dependencies (:func:`.auth.allow`) which roles it lets
through; the table of roles (:mod:`services.roles`) is made from the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from . import errors, opcp

_OWN_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "string", "example": "wrong_role"},
        "message": {"type": "string"},
        "details": {"type": "object", "additionalProperties": True},
    },
}
_PLATFORM_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["errorMessages", "traceId"],
    "properties": {
        "errorMessages": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "traceId": {"type": "string"},
    },
}

# EST decides by the label in the path who may enrol, and lets everybody read at the well-known
# path (RFC 7030 section 4.1.1): its doors ask for the token by themselves.
_EST = "services.ca.doors.est"


def who_may(route: APIRoute) -> tuple[str, ...] | None:
    """The roles that a route lets through beside admin; () for everybody with a token, None for
    everybody."""
    if route.endpoint.__module__ == _EST:
        open_to_all = "cacerts" in route.path and route.path.startswith("/.well-known")
        return None if open_to_all else ()
    found = [roles for roles in _roles(route.dependant) if roles is not None]
    if not found:
        return None
    # A router may want a token of all its calls, and a call a role beside.
    return next((roles for roles in found if roles), ())


def _roles(dependant: Dependant) -> Iterable[tuple[str, ...] | None]:
    for inner in dependant.dependencies:
        if inner.call is not None:
            module = getattr(inner.call, "__module__", "")
            named = getattr(inner.call, "roles", None)
            if named is None and module == "services.common.opnc":
                named = ()
            yield named
        yield from _roles(inner)


def routes_of(routes: Iterable[BaseRoute]) -> Iterable[APIRoute]:
    """The routes of an application that its document describes."""
    for one in routes:
        if isinstance(one, APIRoute) and one.include_in_schema:
            yield one
        # An application keeps the routers that were put into it as they are.
        router = getattr(one, "original_router", None)
        if router is not None:
            yield from routes_of(router.routes)


def completed(document: dict[str, Any], routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """``document`` with what every call can be answered, and who may make it (``x-roles``)."""
    whose = {
        (route.path_format, method.lower()): who_may(route)
        for route in routes_of(routes)
        for method in route.methods or ()
    }
    parts = document.setdefault("components", {})
    parts.setdefault("securitySchemes", {})["token"] = {"type": "http", "scheme": "bearer"}
    for path, methods in document.get("paths", {}).items():
        for method, operation in methods.items():
            _complete(path, operation, whose.get((path, method)))
    # Nobody answers in the shape that FastAPI would.
    for unused in ("HTTPValidationError", "ValidationError"):
        parts.get("schemas", {}).pop(unused, None)
    return document


def _complete(path: str, operation: dict[str, Any], roles: tuple[str, ...] | None) -> None:
    is_platforms = path.startswith(opcp.PREFIXES)
    shape = _PLATFORM_ERROR if is_platforms else _OWN_ERROR
    texts = opcp.ERRORS if is_platforms else errors.REFUSALS
    answers = operation["responses"]
    if "HTTPValidationError" in str(answers.get("422")):
        answers["422"] = _refusal(422, shape, errors.REFUSALS)
        if is_platforms:
            del answers["422"]
            answers.setdefault("400", _refusal(400, shape, texts))
    wanted = [503]
    if roles is not None:
        wanted += [401, 403]
        operation["security"] = [{"token": []}]
        operation["x-roles"] = sorted({*roles, "admin"}) if roles else ["any"]
    if "requestBody" in operation:
        wanted += [400, 413]
    for status, answer in answers.items():
        # A refusal is JSON at a door that answers in something else.
        content = answer.get("content", {})
        if status >= "400" and content and "application/json" not in content:
            answer["content"] = {"application/json": next(iter(content.values()))}
    for status in wanted:
        answers.setdefault(str(status), _refusal(status, shape, texts))


def _refusal(status: int, shape: dict[str, Any], texts: Any) -> dict[str, Any]:
    return {
        "description": texts[status]["description"],
        "content": {"application/json": {"schema": shape}},
    }
