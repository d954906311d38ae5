"""Back to the known state (test instances only); at the platform, for all parties."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, Field

from services.ecosystem import Ecosystem

from ..auth import Caller, allow
from ..errors import REFUSALS, Refusal
from ..known_state import KnownState, Restored, reset_all
from ..party import Party

router = APIRouter(tags=["reset"])

# The platform has the others go back, with a client of its own.
PLATFORM = "platform"

ResetCaller = Annotated[Caller, Depends(allow(PLATFORM))]

Step = Literal["hold", "restore", "release", "mark"]


class PartyResetBody(BaseModel):
    """What one party did."""

    party: str = Field(examples=["contract-pool"])
    step: str = Field(examples=["restore"], description="hold, restore, release or mark.")
    marked_at: str | None = Field(
        default=None,
        examples=["2026-11-22T12:00:00+00:00"],
        description="When the known state was marked; ecosystem time.",
    )
    rows: int | None = Field(default=None, examples=[42], description="How many it has.")
    milliseconds: float = Field(examples=[4.2])


class ResetBody(BaseModel):
    """Who went back, and how long that took."""

    milliseconds: float = Field(examples=[85.3])
    parties: list[PartyResetBody]


def _body(done: Restored) -> PartyResetBody:
    return PartyResetBody(
        party=done.party,
        step="restore",
        marked_at=done.marked_at.isoformat(),
        rows=done.rows,
        milliseconds=done.milliseconds,
    )


async def _step(party: Party, step: Step) -> PartyResetBody:
    known: KnownState = party.known_state
    began, marked_at = time.monotonic(), None
    if step == "restore":
        return _body(await known.restore())
    if step == "hold":
        await known.hold()
    elif step == "release":
        known.release()
    else:
        marked_at = (await known.mark()).isoformat()
    spent = round((time.monotonic() - began) * 1000, 2)
    return PartyResetBody(
        party=party.config.name, step=step, marked_at=marked_at, milliseconds=spent
    )


@router.post("/reset", responses={k: REFUSALS[k] for k in (401, 403, 409, 422, 502, 503, 504)})
async def reset(
    request: Request,
    _caller: ResetCaller,
    step: Annotated[
        Step | None,
        Query(
            description="Only this: hold (refuse everything until restore or release), restore, "
            "release, mark (what is now is the known state from now on). Left out: go back.",
            examples=["mark"],
        ),
    ] = None,
) -> ResetBody:
    """Go back to the known state: rows, clock, faults. At the platform all parties do, or take
    the step that is named. 403 ``not_resettable`` unless this is a test instance."""
    party: Party = request.app.state.party
    party.known_state.must_be_allowed()
    if not request.app.state.preparation.ready.is_set():
        raise Refusal(503, "not_ready", f"{party.config.name} is still starting; see /healthz")
    began = time.monotonic()
    if party.config.kind == PLATFORM:
        done = await _everybody(party, step)
    else:
        done = [await _step(party, step or "restore")]
    spent = round((time.monotonic() - began) * 1000, 2)
    return ResetBody(milliseconds=spent, parties=done)


async def _everybody(party: Party, step: Step | None) -> list[PartyResetBody]:
    """All parties of the ecosystem, this one too."""
    ecosystem: Ecosystem = party.ecosystem

    async def take(name: str, which: str) -> Any:
        if name == party.config.name:
            return await _step(party, which)  # type: ignore[arg-type]
        answer = await party.client(name).call(
            "POST", "/reset", name="reset", summary=f"{name}: {which}", params={"step": which}
        )
        return answer.read(ResetBody).parties[0]

    names = list(ecosystem.parties)
    async with party.known_state.of_all:
        if step is None:
            return await reset_all(names, take)
        return list(await asyncio.gather(*(take(name, step) for name in names)))
