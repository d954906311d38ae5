"""The clients of a party: those of the ecosystem file, and those brought in while it runs."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.ecosystem import KINDS, SCOPE_FIELDS, Client, shape_of

from ..auth import AdminCaller
from ..errors import REFUSALS, Refusal
from ..fields import Name
from ..party import Party

router = APIRouter(
    prefix="/clients",
    tags=["tokens"],
    responses={k: REFUSALS[k] for k in (400, 401, 403, 404, 409, 422)},
)

Secret = Annotated[str, StringConstraints(min_length=8, max_length=128, pattern="^[!-~]+$")]


class AddBody(BaseModel):
    """A client to let in: a product under test, for instance, that is a vehicle maker."""

    id: Name = Field(examples=["my-cars"])
    role: Name = Field(examples=["oem"], description="A kind of party, or admin.")
    scope_id: Name | None = Field(
        default=None,
        examples=["XYZ"],
        description="The WMI, provider id or operator id for which an oem, mo or cpo speaks; "
        "others have none.",
    )
    secret: Secret | None = Field(
        default=None, examples=[None], description="Made up where none is given."
    )


class ClientBody(BaseModel):
    """A client; its secret is told once."""

    id: str
    role: str
    scope_id: str | None
    brought: bool = Field(description="Brought in while it runs; else of the ecosystem file.")


class NewClientBody(ClientBody):
    """A client that was let in."""

    secret: str


def _body(client: Client, brought: bool) -> ClientBody:
    return ClientBody(id=client.id, role=client.role, scope_id=client.scope_id, brought=brought)


@router.get("")
async def clients(request: Request, _caller: AdminCaller) -> list[ClientBody]:
    """Who may ask for tokens here; no secrets."""
    party: Party = request.app.state.party
    row = party.tables.client_row
    brought = await party.database.read(
        lambda session: list(session.scalars(select(row).order_by(row.added_at, row.id)))
    )
    return [
        *(_body(client, brought=False) for client in party.ecosystem.all_clients()),
        *(_body(client, brought=True) for client in brought),
    ]


@router.post("", status_code=201, responses={200: {"description": "It was let in before."}})
async def add(
    request: Request, response: Response, body: AddBody, _caller: AdminCaller
) -> NewClientBody:
    """Let a client in. The same one again gets the same answer; another one under its name is
    refused."""
    party: Party = request.app.state.party
    row = party.tables.client_row
    wanted = _client(party, body)
    now = party.clock.now()

    def keep(session: Session) -> tuple[Client, bool]:
        known = session.get(row, wanted.id)
        if known is not None:
            same = (known.role, known.scope_id) == (wanted.role, wanted.scope_id)
            if not same or (body.secret is not None and known.secret != wanted.secret):
                raise _taken(wanted.id)
            return Client(known.id, known.secret, known.role, known.scope_id), False
        session.add(row(**vars(wanted), added_at=now))
        session.flush()
        return wanted, True

    client, new = await party.database.write(keep)
    response.status_code = 201 if new else 200
    return NewClientBody(**_body(client, brought=True).model_dump(), secret=client.secret)


@router.delete("/{client}", status_code=204)
async def remove(request: Request, client: Name, _caller: AdminCaller) -> None:
    """Let a client in no more, nor with a token that it has; other workers of the party notice
    within a second."""
    party: Party = request.app.state.party
    row = party.tables.client_row

    def forget(session: Session) -> None:
        known = session.get(row, client)
        if known is None:
            raise Refusal(404, "no_such_client", f"no client {client} was brought in here")
        session.delete(known)

    await party.database.write(forget)
    party.tokens.forget()


def _client(party: Party, body: AddBody) -> Client:
    """What is asked for, once it makes sense; Refusal 409/422 otherwise."""
    if body.role not in {"admin", *KINDS}:
        raise Refusal(
            422, "unknown_role", f"role: {body.role!r} is none of admin, {', '.join(KINDS)}"
        )
    if any(body.id == known.id for known in party.ecosystem.all_clients()):
        raise _taken(body.id)
    scope_field = SCOPE_FIELDS.get(body.role)
    if scope_field is None and body.scope_id is not None:
        raise Refusal(422, "no_scope", f"scope_id: a {body.role} speaks for no identifier")
    if scope_field is not None:
        if body.scope_id is None:
            raise Refusal(
                422,
                "scope_missing",
                f"scope_id: whose {body.role} it is, its {scope_field}, is wanted",
            )
        wanted = shape_of(scope_field, body.scope_id)
        if wanted is not None:
            raise Refusal(
                422,
                f"not_a_{scope_field}",
                f"scope_id: {body.scope_id!r} has another form: {wanted}",
            )
    return Client(
        body.id,
        body.secret or secrets.token_urlsafe(24),
        body.role,
        body.scope_id.upper() if body.scope_id else None,
    )


def _taken(name: str) -> Refusal:
    return Refusal(
        409, "client_taken", f"id: {name} is a client already, with another role, scope or secret"
    )
