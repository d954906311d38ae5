"""What other parties ask the provisioning service's own CA for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from services.common.auth import Caller, allow
from services.common.errors import REFUSALS
from services.common.fields import Fingerprint

router = APIRouter(tags=["contracts for operators without a CA"])


class IssuedBody(BaseModel):
    """A contract certificate."""

    fingerprint: Fingerprint


class HostedBody(BaseModel):
    """A contract that was issued here."""

    emaid: str
    pcid: str
    fingerprint: str
    revoked: bool


@router.post(
    "/hosted-contracts/{emaid}/revocation",
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 422, 503)},
)
async def revoke_issued(
    request: Request,
    emaid: str,
    body: IssuedBody,
    _caller: Annotated[Caller, Depends(allow("ccp"))],
) -> HostedBody:
    """A contract was taken out of the contract pool: it is revoked, where its certificate was
    issued here (404 where not)."""
    row = await request.app.state.service.hosted.revoke(emaid, body.fingerprint)
    return HostedBody(
        emaid=row.wire, pcid=row.pcid, fingerprint=row.fingerprint, revoked=row.revoked
    )
