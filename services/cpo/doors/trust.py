"""What a charge point operator gives its chargers to trust."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request

from services.common.auth import Caller, allow
from services.common.doors.trust import RESPONSES, TrustStoreBody, store_body
from services.cpo.service import ChargePointOperator

router = APIRouter(tags=["trust store"], responses=RESPONSES)


@router.get("/charger-anchors")
async def charger_anchors(
    request: Request, caller: Annotated[Caller, Depends(allow("charger"))]
) -> TrustStoreBody:
    """This operator's anchors, as far as the trust model gives them to chargers."""
    service: ChargePointOperator = request.app.state.service
    service.must_be_ours(caller)
    return store_body(await service.charger_anchors(), service.judge.keeper.policy)
