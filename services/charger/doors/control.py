"""The charger's control API: what stands on it, who is plugged in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, Field, StringConstraints

from services.charger.service import Charger
from services.common.auth import AnyCaller, Caller, allow
from services.common.certificates import b64_chain, from_pem
from services.common.errors import REFUSALS

router = APIRouter(tags=["charger"], responses={k: REFUSALS[k] for k in (400, 401, 403, 409, 422)})

Evccid = Annotated[str, StringConstraints(pattern="^[0-9A-F]{12}$")]


class PlugBody(BaseModel):
    """A car that is plugged in, by its EVCCID (six bytes, upper-case hex)."""

    evccid: Evccid = Field(examples=["0242AC110002"])


class OutletBody(BaseModel):
    """Where the car's V2GTP connection goes: host:port (SDP's part), on loopback for who calls
    there, else where others reach the charger."""

    evse_id: str
    cable: str


class RefusedStopBody(BaseModel):
    """The end of a session that the operator would not take: what it has not billed, and why."""

    record: str
    session_id: str
    meter_stop_wh: int
    receipts: int
    reason: str


class StatusBody(BaseModel):
    """What a person would read off the charger."""

    evse_id: str
    cable: str
    meter_wh: int
    plugged_in: list[str]
    certificate: list[str] = Field(description="Its V2G certificate chain, leaf first.")
    sessions: list[str] = Field(description="Sessions whose end the operator is still to hear of.")
    refused_stops: list[RefusedStopBody]


def _service(request: Request) -> Charger:
    service: Charger = request.app.state.service
    return service


def _cable(request: Request) -> str:
    """The cable as it is reached from where this call came in."""
    config = _service(request).party.config
    own, _port = config.address
    here: str = (request.scope.get("server") or (own,))[0]
    return config.options["cable"] if here == own else config.cable_seen_from(here)


@router.get("/status")
async def status(request: Request, _caller: AnyCaller) -> StatusBody:
    """What the charger shows: meter, who is plugged in, its certificate."""
    charger = _service(request)
    row = await charger.certificate()
    return StatusBody(
        evse_id=charger.evse_id,
        cable=_cable(request),
        meter_wh=await charger.meter(),
        plugged_in=sorted(charger.plugs),
        certificate=b64_chain(from_pem(row.chain)) if row else [],
        sessions=await charger.unfinished(),
        refused_stops=[
            RefusedStopBody(
                record=stop.record,
                session_id=stop.session_id,
                meter_stop_wh=stop.meter_stop_wh,
                receipts=len(stop.receipts),
                reason=stop.reason,
            )
            for stop in await charger.refused_stops()
        ],
    )


@router.post("/plugs", status_code=201)
async def plug_in(
    request: Request, body: PlugBody, caller: Annotated[Caller, Depends(allow("vehicle"))]
) -> OutletBody:
    """Plug a car in, waiting for a free outlet. What follows on the cable belongs to the run of
    this call."""
    charger = _service(request)
    await charger.plug_in(body.evccid, caller.client)
    return OutletBody(evse_id=charger.evse_id, cable=_cable(request))


@router.delete("/plugs/{evccid}", status_code=204)
async def unplug(
    request: Request, evccid: Evccid, caller: Annotated[Caller, Depends(allow("vehicle"))]
) -> None:
    """Pull the plug, once the session is over; only whoever plugged the car in may."""
    await _service(request).unplug(evccid, caller)
