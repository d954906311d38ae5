"""Webhook endpoints as OPCP has them, and as OPNC has them (its doubled path too)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request, Response
from pydantic import Field, StringConstraints, model_validator

from services.common import opcp
from services.common.auth import AnyCaller
from services.common.errors import Refusal
from services.platform.store import EndpointRow
from services.platform.webhooks import EVENTS, Webhooks

router = APIRouter(tags=["webhooks"], responses={k: opcp.ERRORS[k] for k in (400, 401, 403)})

PATHS = (
    "/v1/webhook/endpoints",
    "/opnc/v1/event/endpoints",
    "/opnc/v1/event/opnc/v1/event/endpoints",
)

Text = Annotated[str, StringConstraints(max_length=1024)]
EventName = Annotated[str, StringConstraints(max_length=64)]
Id = Annotated[str, Path(max_length=64, examples=["00000000000000000000000000000000"])]


class EndpointRequest(opcp.Body):
    """A webhook endpoint; ``events`` does for ``enabledEvents``."""

    url: Annotated[str, StringConstraints(max_length=2048)] = Field(
        examples=["http://127.0.0.1:9000/payload"]
    )
    enabledEvents: Annotated[list[EventName], Field(max_length=64)] | None = Field(
        default=None, examples=[["oem.contract.created", "root.cert.added"]]
    )
    events: Annotated[list[EventName], Field(max_length=64)] | None = Field(
        default=None, examples=[None]
    )
    description: Text | None = Field(default=None, examples=["my webhook"])
    status: Literal["enabled", "disabled"] | None = Field(default=None, examples=["enabled"])
    metadata: dict[EventName, Text] | None = Field(default=None, examples=[{}])

    @model_validator(mode="after")
    def _known(self) -> EndpointRequest:
        for name in self.wanted or ():
            if name not in EVENTS:
                raise ValueError(f"enabledEvents: {name!a} is none of {', '.join(EVENTS)}")
        return self

    @property
    def wanted(self) -> list[str] | None:
        return self.events if self.enabledEvents is None else self.enabledEvents


class EndpointResponse(opcp.Body):
    """A webhook endpoint as it is kept."""

    id: str
    apiVersion: str = "v1"
    created: int = Field(description="Seconds since 1970, ecosystem time.")
    description: str
    enabledEvents: list[str]
    events: list[str]
    metadata: dict[str, Any]
    status: str
    url: str
    secret: str = Field(description="With which deliveries are signed.")
    providerIds: list[str]
    wmis: list[str]
    userRole: str
    userName: str


def _hooks(request: Request) -> Webhooks:
    hooks: Webhooks = request.app.state.service.webhooks
    return hooks


def _told(row: EndpointRow) -> EndpointResponse:
    scope = [row.scope_id] if row.scope_id else []
    return EndpointResponse(
        id=row.id,
        created=int(row.created.timestamp()),
        description=row.description,
        enabledEvents=row.events,
        events=row.events,
        metadata=row.notes,
        status=row.status,
        url=row.url,
        secret=row.secret,
        providerIds=scope if row.role == "mo" else [],
        wmis=scope if row.role == "oem" else [],
        userRole=row.role.upper(),
        userName=row.owner,
    )


async def create(request: Request, body: EndpointRequest, caller: AnyCaller) -> EndpointResponse:
    """Hear of events at a URL of one's own. What happened before is not told."""
    hooks, party = _hooks(request), request.app.state.party
    if not body.wanted:
        raise Refusal(400, "no_events", "enabledEvents : at least one event is wanted")
    await hooks.must_be_allowed(body.url)
    row = EndpointRow(
        id=party.entropy("webhook/id", 16).hex(),
        owner=caller.client,
        role=caller.role,
        scope_id=caller.scope_id,
        url=body.url,
        events=list(dict.fromkeys(body.wanted)),
        status=body.status or "enabled",
        description=body.description or "",
        notes=body.metadata or {},
        secret=party.entropy("webhook/secret", 24).hex(),
        created=party.clock.now(),
    )
    # What happened until now is read first, so that it finds nobody here.
    await hooks.catch_up()
    await hooks.add(row)
    return _told(row)


async def every(request: Request, caller: AnyCaller) -> list[EndpointResponse]:
    """The caller's endpoints."""
    return [_told(row) for row in await _hooks(request).of(caller)]


async def one(request: Request, id: Id, caller: AnyCaller) -> EndpointResponse:
    """One of the caller's endpoints."""
    return _told(await _hooks(request).get(id, caller))


async def change(
    request: Request,
    id: Id,
    body: EndpointRequest,
    caller: AnyCaller,
) -> EndpointResponse:
    """Change an endpoint; what is left out stays as it is."""
    await _hooks(request).must_be_allowed(body.url)
    values = {
        "url": body.url,
        "events": body.wanted,
        "status": body.status,
        "description": body.description,
        "notes": body.metadata,
    }
    kept = {name: value for name, value in values.items() if value is not None}
    return _told(await _hooks(request).change(id, caller, **kept))


async def remove(request: Request, id: Id, caller: AnyCaller) -> Response:
    """Hear no more; what is still on its way is dropped."""
    await _hooks(request).remove(id, caller)
    return Response()


for _path in PATHS:
    _missing: dict[int | str, dict[str, Any]] = {404: opcp.ERRORS[404]}
    router.add_api_route(_path, create, methods=["POST"], status_code=201)
    router.add_api_route(_path, every, methods=["GET"])
    router.add_api_route(_path + "/{id}", one, methods=["GET"], responses=_missing)
    router.add_api_route(_path + "/{id}", change, methods=["PUT"], responses=_missing)
    router.add_api_route(
        _path + "/{id}",
        remove,
        methods=["DELETE"],
        response_class=Response,
        responses=_missing,
    )
