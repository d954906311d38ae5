"""The event stream of a party, for its own client and for admins."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from .. import auth
from ..errors import REFUSALS, Refusal
from ..party import Party

router = APIRouter()


@router.get("/events", tags=["party"], responses={k: REFUSALS[k] for k in (401, 403, 422)})
async def events(
    request: Request,
    caller: auth.AnyCaller,
    run: str | None = None,
    kind: str | None = None,
    after: str = "",
    limit: int = 500,
) -> list[dict[str, Any]]:
    """This party's part of the event stream, oldest first, at most 1000 at a time. It holds
    what others sent in, so it is for this party's own client and for admins.

    ``after`` is the identifier of the last event already seen.
    """
    party: Party = request.app.state.party
    if not caller.is_admin and caller.client != party.config.name:
        raise Refusal(
            403,
            "not_yours",
            f"the events of {party.config.name} are for itself and admins; this is client "
            f"{caller.client}",
        )
    found = await party.database.events(
        run=run, kind=kind, after=after, limit=max(1, min(limit, 1000))
    )
    return [event.as_dict() for event in found]
