"""The registry of parties: who is known to the V2G root operator, and by what."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from pki.policy import RULES, Registration
from services.common.auth import AdminCaller, AnyCaller
from services.common.errors import REFUSALS
from services.common.fields import Name
from services.v2g_root.registry import Registrations

router = APIRouter(
    prefix="/registrations",
    tags=["registry"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422)},
)


class RegisterBody(BaseModel):
    """A party to register, or one that is and gets further identifiers."""

    party: Name = Field(examples=["my-cars"], description="The name under which it is a client.")
    kind: Name = Field(examples=["oem"])
    organisation: Annotated[Name, Field(max_length=49)] = Field(examples=["My Cars"])
    identifiers: Annotated[list[Name], Field(max_length=64)] = Field(
        default_factory=list,
        examples=[["XYZ"]],
        description="WMIs of a maker, provider ids, operator ids, a charger's EVSE ids.",
    )


class RegistrationBody(BaseModel):
    """A registered party."""

    party: str
    kind: str
    organisation: str
    known_by: str | None = Field(description="What its identifiers are.")
    identifiers: list[str]
    since: str
    suspended_at: str | None


class RuleBody(BaseModel):
    """A rule of the registration policy."""

    name: str
    roles: list[str]
    sentence: str
    source: str


def _body(found: Registration) -> RegistrationBody:
    return RegistrationBody(
        party=found.party,
        kind=found.kind,
        organisation=found.organisation,
        known_by=found.known_by.value if found.known_by else None,
        identifiers=list(found.identifiers),
        since=found.since.isoformat(),
        suspended_at=found.suspended_at.isoformat() if found.suspended_at else None,
    )


def _registry(request: Request) -> Registrations:
    registry: Registrations = request.app.state.service.registrations
    return registry


@router.get("")
async def registrations(request: Request, _caller: AnyCaller) -> list[RegistrationBody]:
    """All registered parties, oldest first."""
    return [_body(one) for one in (await _registry(request).all()).registrations]


@router.get("/rules")
async def rules(_caller: AnyCaller) -> list[RuleBody]:
    """Who may be issued what: the rules, in the order in which they are asked."""
    return [
        RuleBody(
            name=rule.name,
            roles=sorted(role.value for role in rule.roles),
            sentence=rule.sentence,
            source=rule.source,
        )
        for rule in RULES
    ]


@router.post("", status_code=201, responses={200: {"description": "It was registered before."}})
async def register(
    request: Request, response: Response, body: RegisterBody, caller: AdminCaller
) -> RegistrationBody:
    """Register a party. What another party is known by is refused, with who has it."""
    found, new = await _registry(request).register(
        body.party, body.kind, body.organisation, body.identifiers, caller
    )
    response.status_code = 201 if new else 200
    return _body(found)


@router.post("/{party}/suspend")
async def suspend(request: Request, party: Name, caller: AdminCaller) -> RegistrationBody:
    """Suspend a party: it gets no new certificates; what it has stays good."""
    return _body(await _registry(request).suspend(party, suspended=True, caller=caller))


@router.post("/{party}/reinstate")
async def reinstate(request: Request, party: Name, caller: AdminCaller) -> RegistrationBody:
    """Take a suspension back."""
    return _body(await _registry(request).suspend(party, suspended=False, caller=caller))


@router.delete("/{party}", status_code=204)
async def remove(request: Request, party: Name, caller: AdminCaller) -> None:
    """Take a party out of the registry: what it was known by is free again."""
    await _registry(request).remove(party, caller)
