"""The faults of a party: which there are, which are set; set one, clear one or all."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, StringConstraints

from ..auth import AdminCaller
from ..errors import REFUSALS
from ..fault_kinds import MAX_TEXT, TARGETS, Kind
from ..faults import Fault, Faults
from ..fields import Instant, Name

router = APIRouter(tags=["faults"], responses={k: REFUSALS[k] for k in (401, 403, 422)})

Value = StrictInt | StrictFloat | Annotated[str, StringConstraints(max_length=MAX_TEXT)]
PathText = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _about(target: str, example: Any = None) -> Any:
    return Field(default=None, description=TARGETS[target], examples=[example])


class TargetBody(BaseModel):
    """What a fault is aimed at; what is left out may be anything. A kind says by what it can."""

    model_config = ConfigDict(extra="forbid")

    pcid: Name | None = _about("pcid")
    emaid: Name | None = _about("emaid")
    charger: Name | None = _about("charger")
    caller: Name | None = _about("caller")
    path: PathText | None = _about("path", "/oauth/token")


class SetBody(BaseModel):
    """A fault to set: which, at whom, for how many calls, from when until when."""

    model_config = ConfigDict(extra="forbid")

    kind: Name = Field(examples=["delay"])
    target: TargetBody = Field(default_factory=TargetBody)
    calls: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, examples=[2], description="After so many hits it is used up."
    )
    begins: Instant | None = Field(default=None, examples=[None], description="Ecosystem time.")
    ends: Instant | None = Field(default=None, examples=[None], description="Ecosystem time.")
    parameters: dict[Name, Value] = Field(default_factory=dict, examples=[{"seconds": 5.0}])


class FaultBody(BaseModel):
    """A fault that is set."""

    id: str = Field(examples=["5f0c11ab"])
    kind: str = Field(examples=["delay"])
    target: dict[str, str] = Field(examples=[{"path": "/installations"}])
    parameters: dict[str, float | int | str] = Field(examples=[{"seconds": 5.0}])
    calls_left: int | None = Field(examples=[2], description="0: it is used up.")
    begins: str | None
    ends: str | None
    hits: int = Field(examples=[0])
    set_by: str = Field(examples=["admin"])
    set_at: str


class ParameterBody(BaseModel):
    """A parameter of a kind."""

    default: float | int | str
    wanted: str = Field(examples=["a number, 0 to 120"])
    meaning: str


class KindBody(BaseModel):
    """A kind of fault that this party has."""

    kind: str = Field(examples=["delay"])
    does: str
    provokes: str
    targets: list[str]
    parameters: dict[str, ParameterBody]


class ClearedBody(BaseModel):
    """How many faults were cleared."""

    cleared: int


def _faults(request: Request) -> Faults:
    faults: Faults = request.app.state.party.faults
    return faults


def _body(fault: Fault) -> FaultBody:
    values = vars(fault) | {
        name: value.isoformat() if (value := getattr(fault, name)) else None
        for name in ("begins", "ends", "set_at")
    }
    return FaultBody(**values)


def kind_body(name: str, kind: Kind) -> KindBody:
    """A row of the table of kinds as JSON."""
    return KindBody(
        kind=name,
        does=kind.does,
        provokes=kind.provokes,
        targets=list(kind.targets),
        parameters={
            key: ParameterBody(
                default=parameter.default, wanted=parameter.wanted, meaning=parameter.meaning
            )
            for key, parameter in kind.parameters.items()
        },
    )


@router.get("/fault-kinds")
async def kinds(request: Request, _caller: AdminCaller) -> list[KindBody]:
    """The kinds of fault that this party has, also where the ecosystem has faults off."""
    return [kind_body(name, kind) for name, kind in _faults(request).kinds.items()]


@router.get("/faults")
async def faults(request: Request, _caller: AdminCaller) -> list[FaultBody]:
    """The faults that are set, oldest first, with their hits; also used-up ones."""
    return [_body(one) for one in await _faults(request).all()]


@router.post("/faults", status_code=201, responses={k: REFUSALS[k] for k in (400, 409)})
async def set_fault(request: Request, body: SetBody, caller: AdminCaller) -> FaultBody:
    """Tell this party to misbehave. 409 ``faults_off`` unless the ecosystem has faults on."""
    return _body(
        await _faults(request).set(
            body.kind,
            target=body.target.model_dump(exclude_none=True),
            parameters=body.parameters,
            calls=body.calls,
            begins=body.begins,
            ends=body.ends,
            by=caller.client,
        )
    )


@router.delete("/faults/{fault}", status_code=204, responses={404: REFUSALS[404]})
async def clear(
    request: Request,
    fault: Annotated[str, Path(max_length=64, examples=["5f0c11ab"])],
    caller: AdminCaller,
) -> None:
    """Clear one fault, by its identifier."""
    await _faults(request).clear(fault, caller.client)


@router.delete("/faults")
async def clear_all(request: Request, caller: AdminCaller) -> ClearedBody:
    """Clear all faults of this party."""
    return ClearedBody(cleared=await _faults(request).clear_all(caller.client))
