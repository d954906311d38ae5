"""What happened at a pool that subscribers want to hear of: for the platform."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from ..auth import Caller, allow
from ..errors import REFUSALS, Refusal
from ..event_log import START, UnknownEvent, Wanted
from ..events import Event
from ..notices import MARK
from ..party import Party

router = APIRouter(tags=["events"], responses={k: REFUSALS[k] for k in (401, 403, 422)})


class NoticeBody(BaseModel):
    """A fact."""

    id: str = Field(examples=["0644a1b2c3d4e500000a3f9c1e"])
    at: str = Field(description="Ecosystem time.")
    fact: str = Field(examples=["contract.created"])
    payload: dict[str, Any]


@router.get("/notices")
async def notices(
    request: Request,
    _caller: Annotated[Caller, Depends(allow("platform"))],
    after: Annotated[str, Query(max_length=40, description="The last one that was seen.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> list[NoticeBody]:
    """The facts of this pool in their order: none comes in before one that was given."""
    party: Party = request.app.state.party

    def query(session: Session) -> list[Event]:
        log = party.database.log
        place = log.place_of(session, after) if after else START
        until = log.settled(session)
        return log.select(session, Wanted(marks=(MARK,)), after=place, until=until, limit=limit)

    try:
        found = await party.database.read(query)
    except UnknownEvent:
        raise Refusal(422, "unknown_event", f"after: there is no event {after!r} here") from None
    return [
        NoticeBody(
            id=one.id,
            at=one.at.isoformat() if one.at else "",
            fact=one.name,
            payload={k: v for k, v in one.data.items() if k not in ("fact", "fault")},
        )
        for one in found
    ]
