"""What a client needs to begin: addresses, logins, identifiers and requests that succeed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, Field

from services.common.auth import AdminCaller
from services.common.certificates import b64, unb64
from services.common.errors import REFUSALS, Refusal
from services.common.fields import MessageText, Name
from services.platform import guide
from services.platform.service import Platform
from services.platform.store import SeedRow
from services.platform.walkthrough import walkthrough

router = APIRouter(tags=["guide"])


class SeedBody(BaseModel):
    """A car that waits with a contract."""

    pcid: Name = Field(examples=["WNV0PNCLAB00000001"])
    car: Name = Field(examples=["car-1"])
    emaid: Name = Field(examples=["DESUNC000000018"])
    operator: Name = Field(examples=["sunmile"])
    certificate_installation_req: MessageText


class SeedsBody(BaseModel):
    """All of them."""

    seeds: Annotated[list[SeedBody], Field(max_length=1000)]


def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.service
    return platform


@router.get(
    "/",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {}, "text/html": {}, "application/json": {}},
            "description": "As a page where HTML is asked for, as JSON where that is.",
        }
    },
)
async def begin(request: Request) -> Response:
    """What there is to call, with which login, and what succeeds at once."""
    platform = _platform(request)
    told = guide.guide(platform.party, await platform.seeds())
    wanted = request.headers.get("accept", "")
    if "text/html" in wanted:
        return HTMLResponse(guide.as_html(told))
    if "application/json" in wanted:
        return JSONResponse(guide.as_json(told))
    return PlainTextResponse(guide.as_text(told))


@router.get(
    "/walkthrough.sh",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {}}}, 404: REFUSALS[404]},
)
async def walk(request: Request) -> Response:
    """A shell script that goes through the doors, from a root to a revoked contract."""
    found = guide.walk_of(_platform(request).party)
    if found is None:
        raise Refusal(
            404, "nobody_walks", "there is no charge point operator, maker or mobility operator"
        )
    return PlainTextResponse(walkthrough(found))


@router.get(
    "/golden/{pcid}",
    response_class=PlainTextResponse,
    responses={200: {"content": {"text/plain": {}}}, 404: REFUSALS[404], 422: REFUSALS[422]},
)
async def golden(
    request: Request, pcid: Annotated[Name, Path(examples=["WNV0PNCLAB00000001"])]
) -> Response:
    """A CertificateInstallationReq of a seeded car that gets a contract: base64 of its EXI, in
    one line, as ``certificateInstallationReq`` or ``exiRequest`` wants it."""
    for row in await _platform(request).seeds():
        if pcid.upper() in (row.pcid.upper(), row.car.upper()):
            return PlainTextResponse(b64(row.installation_request))
    raise Refusal(404, "unknown_car", f"pcid: {pcid!r} is no seeded car; see /")


@router.put("/seeds", responses={k: REFUSALS[k] for k in (400, 401, 403, 413, 422)})
async def keep_seeds(request: Request, body: SeedsBody, _caller: AdminCaller) -> SeedsBody:
    """Say which cars wait with a contract; ``pnclab up`` does, when it has made them."""
    platform = _platform(request)
    now = platform.party.clock.now()
    rows = {
        seed.pcid: SeedRow(
            pcid=seed.pcid,
            car=seed.car,
            emaid=seed.emaid,
            operator=seed.operator,
            installation_request=unb64(
                seed.certificate_installation_req, "certificate_installation_req"
            ),
            made_at=now,
        )
        for seed in body.seeds
    }
    await platform.keep_seeds(list(rows.values()))
    return body
