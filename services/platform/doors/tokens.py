"""The platform's token doors beside ``/oauth/token``: its public keys, and a token for trying."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from services.common.errors import REFUSALS, Refusal
from services.common.web_tokens import JWKS_PATH

router = APIRouter(tags=["tokens"])

# Whose tokens anybody may have for trying: what they may do is their role's.
TRIED = ("cpo", "mo", "oem")


class KeysBody(BaseModel):
    """A JWK set (RFC 7517)."""

    keys: list[dict[str, str]]


class TryBody(BaseModel):
    """A token for trying, as a page of a documentation site would hold it: somewhere in
    ``data`` stands ``Bearer``, a blank and the token, at the end of a line."""

    title: str
    data: str = Field(examples=["Bearer eyJhbGciOiJFUzI1NiJ9...\n"])


@router.get(JWKS_PATH)
async def keys(request: Request) -> KeysBody:
    """The public keys by which this platform's tokens are checked."""
    return KeysBody(keys=request.app.state.party.tokens.jwks)


@router.get("/test-token", responses={k: REFUSALS[k] for k in (403, 404, 422, 503)})
async def trial_token(
    request: Request,
    client: Annotated[str | None, Query(max_length=64, examples=["plugpark"])] = None,
) -> Any:
    """A token without logging in: of the first charge point operator, or of another client of
    the ecosystem file that is an operator or a maker. This is a test ecosystem; one client reads
    its token so."""
    party = request.app.state.party
    known = party.ecosystem.all_clients()
    if not client:
        found = next((one for one in known if one.role == "cpo"), None)
    else:
        found = next((one for one in known if one.id == client), None)
    if found is None:
        raise Refusal(404, "unknown_client", f"client: there is no {client or 'cpo'!r}")
    if found.role not in TRIED:
        raise Refusal(
            403,
            "wrong_role",
            f"client: {found.id} has role {found.role}, none of {', '.join(TRIED)}",
        )
    if not party.tokens.jwks:
        raise Refusal(503, "not_ready", "the platform has no key yet")
    token = party.tokens.issue(found).access_token
    body = TryBody(title="Authorization token", data=f"Bearer {token}\n")
    return JSONResponse(body.model_dump(), headers={"Cache-Control": "no-store"})
