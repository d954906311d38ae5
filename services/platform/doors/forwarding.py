"""The doors of other parties under the platform's address.

Which paths there are, the parties' own routers say: a door that is added there is handed on
here. What a call must carry, and what comes back, is in the descriptions of those doors.
"""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Route

from services.ca.doors import est
from services.ca.doors import opnc as ca_opnc
from services.ccp.doors import opcp as ccp_opcp
from services.ccp.doors import opnc as ccp_opnc
from services.common.auth import Caller
from services.common.errors import Refusal
from services.cps.doors import opcp as cps_opcp
from services.cps.doors import opnc as cps_opnc
from services.pcp.doors import opcp as pcp_opcp
from services.pcp.doors import opnc as pcp_opnc
from services.platform.service import Platform
from services.rcp.doors import opcp as rcp_opcp
from services.rcp.doors import opnc as rcp_opnc

# Kind of party ("ca": whichever has the CA that is asked) -> its routers that are handed on.
HANDED_ON: tuple[tuple[str, APIRouter], ...] = (
    ("rcp", rcp_opcp.router),
    ("pcp", pcp_opcp.router),
    ("cps", cps_opcp.router),
    ("ccp", ccp_opcp.router),
    ("rcp", rcp_opnc.router),
    ("pcp", pcp_opnc.router),
    ("cps", cps_opnc.router),
    ("ccp", ccp_opnc.router),
    ("ca", ca_opnc.router),
    ("ca", est.router),
)

# Kind of party -> the service that a token must be for (OPCP, authentication).
SERVICE_OF = {
    "rcp": "rcpservice",
    "pcp": "pcpservice",
    "cps": "cpservice",
    "ccp": "ccpservice",
    "ca": "pkigateway",
}
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


def described() -> Iterable[APIRoute]:
    """The routes that are handed on, for the platform's OpenAPI document."""
    for _kind, router in HANDED_ON:
        for route in router.routes:
            if isinstance(route, APIRoute):
                yield route


def routes() -> list[Route]:
    """A route for each path that is handed on; what method it takes, its party says."""
    doors = {
        route.path: est.guarded(_door(kind)) if router is est.router else _door(kind)
        for kind, router in HANDED_ON
        for route in router.routes
        if isinstance(route, APIRoute)
    }
    return [Route(path, door, methods=_METHODS) for path, door in doors.items()]


def _door(kind: str) -> est.Operation:
    async def hand_on(request: Request) -> Response:
        platform: Platform = request.app.state.service
        caller = await _caller(request, platform)
        _must_be_for(SERVICE_OF[kind], caller)
        domain = request.path_params.get("ca") or request.query_params.get("caDomain")
        target = platform.serving(kind, caller, domain)
        answer = await platform.hand_on(
            target,
            request.method,
            _as_it_came(request),
            request.headers.items(),
            await request.body(),
        )
        response = Response(answer.content, answer.status)
        for name, value in answer.headers:
            response.headers.append(name, value)
        return response

    return hand_on


async def _caller(request: Request, platform: Platform) -> Caller | None:
    """Who calls; None where no token came along: what that means the party says."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        return None
    return await platform.party.tokens.admit(token.strip())


def _must_be_for(service: str, caller: Caller | None) -> None:
    if caller is None or caller.services is None or service in caller.services:
        return
    raise Refusal(
        403,
        "wrong_scope",
        f"this call needs a token for the service {service}; the one of client {caller.client} is "
        f"for {', '.join(sorted(caller.services))}",
    )


def _as_it_came(request: Request) -> str:
    raw: bytes = request.scope.get("raw_path") or request.url.path.encode()
    query: bytes = request.scope["query_string"]
    return (raw.partition(b"?")[0] + (b"?" + query if query else b"")).decode("latin-1")
