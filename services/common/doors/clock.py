"""The ecosystem's clock, and the jobs that run when it moves: the same doors at every party."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .. import jobs
from ..auth import AdminCaller, AnyCaller
from ..clock import (
    ClockError,
    DurationError,
    Moved,
    OutOfRangeError,
    duration,
    duration_text,
)
from ..errors import REFUSALS, Refusal
from ..events import Event
from ..fields import Instant
from ..party import Party

router = APIRouter(tags=["time"])


class MoveBody(BaseModel):
    """How to move the clock: exactly one of ``instant``, ``advance`` and ``real``."""

    model_config = ConfigDict(extra="forbid")

    instant: Instant | None = Field(default=None, examples=["2027-11-22T12:00:00Z"])
    advance: str | None = Field(
        default=None,
        max_length=64,
        examples=[None],
        description="30d, 2w, 1y (365 days), 12h, 10m, -3d, or ISO 8601 (P30D).",
    )
    real: Literal[True] | None = Field(
        default=None, examples=[None], description="Back to the machine's time."
    )
    standing: bool | None = Field(
        default=None,
        examples=[None],
        description="Whether the clock stands from then on. Left out, it runs; after ``advance`` "
        "it goes on as it did.",
    )

    @model_validator(mode="after")
    def _one(self) -> MoveBody:
        given = [name for name in ("instant", "advance", "real") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"exactly one of instant, advance and real is wanted, not {' and '.join(given)}"
                if given
                else "one of instant, advance and real is wanted"
            )
        return self


class ClockBody(BaseModel):
    """What the clock shows."""

    now: str = Field(examples=["2027-11-22T12:00:00+00:00"])
    offset_seconds: float = Field(
        description="To the machine's time; where the clock stands, as it was when it was set."
    )
    standing: bool


class WaitingBody(BaseModel):
    """What could not be done yet, and why."""

    what: str
    why: str


class JobBody(BaseModel):
    """What one job did in this run."""

    job: str
    does: str
    done: list[str]
    waits: list[WaitingBody]


class JobsBody(BaseModel):
    """What the jobs of a party did."""

    jobs: list[JobBody]


class MovedBody(ClockBody, JobsBody):
    """A move of the clock, and what this party's jobs did about it."""

    before: str
    warnings: list[str]


def _party(request: Request) -> Party:
    party: Party = request.app.state.party
    return party


def _shown(party: Party) -> dict[str, Any]:
    setting = party.clock.setting
    return {
        "now": setting.now().isoformat(),
        "offset_seconds": setting.offset.total_seconds(),
        "standing": setting.standing is not None,
    }


async def _run(request: Request) -> list[JobBody]:
    return [
        JobBody(
            job=report.job,
            does=report.does,
            done=report.done,
            waits=[WaitingBody(what=one.what, why=one.why) for one in report.waits],
        )
        for report in await jobs_of(request).run()
    ]


def jobs_of(request: Request) -> jobs.Jobs:
    found: jobs.Jobs = request.app.state.jobs
    return found


@router.get("/clock", responses={k: REFUSALS[k] for k in (401, 403)})
async def show(request: Request, _caller: AnyCaller) -> ClockBody:
    """The ecosystem's time, by which validity is judged."""
    return ClockBody(**_shown(_party(request)))


@router.put("/clock", responses={k: REFUSALS[k] for k in (400, 401, 403, 422)})
async def move(request: Request, body: MoveBody, _caller: AdminCaller) -> MovedBody:
    """Move the ecosystem's clock: for all parties that share its data folder. This party's jobs
    run once before the answer; the others' begin within a second."""
    party = _party(request)
    moved = _moved(party, body)
    warnings = []
    if moved.backwards:
        by = timedelta(seconds=round((moved.before - moved.after).total_seconds()))
        warnings.append(
            f"the clock went backwards by {duration_text(by)}: what was issued after "
            f"{moved.after:%F %T}Z is not valid yet; what was told, booked and revoked since stays"
        )
    party.recorder.record(
        Event(
            kind="state",
            name="clock moved",
            sender=party.config.name,
            receiver=party.config.name,
            summary=f"The ecosystem's clock goes from {moved.before:%F %T}Z to "
            f"{moved.after:%F %T}Z" + (" and stands" if moved.standing else ""),
            data={
                "before": moved.before.isoformat(),
                "after": moved.after.isoformat(),
                "standing": moved.standing,
                "warnings": warnings,
            },
        )
    )
    try:
        done = await _run(request)
    except Refusal as starting:  # the clock has moved all the same
        warnings.append(starting.message)
        done = []
    return MovedBody(**_shown(party), before=moved.before.isoformat(), warnings=warnings, jobs=done)


def _moved(party: Party, body: MoveBody) -> Moved:
    clock = party.clock
    try:
        if body.instant is not None:
            return clock.show(body.instant, standing=bool(body.standing))
        if body.advance is not None:
            return clock.advance(duration(body.advance), standing=body.standing)
        return clock.show_real(standing=bool(body.standing))
    except DurationError as error:
        raise Refusal(422, "not_a_duration", f"advance: {error}") from None
    except OutOfRangeError as error:
        field = "advance" if body.advance is not None else "instant"
        raise Refusal(422, "clock_out_of_range", f"{field}: {error}; nothing has moved") from None
    except ClockError as error:
        raise Refusal(507, "clock_not_kept", f"{error}; nothing has moved") from None


@router.post("/jobs/run", responses={k: REFUSALS[k] for k in (401, 403)})
async def run(request: Request, _caller: AdminCaller) -> JobsBody:
    """Run this party's jobs now: what each did, what still waits and why."""
    return JobsBody(jobs=await _run(request))
