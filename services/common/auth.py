"""OAuth2 client credentials (RFC 6749 section 4.4), at each party for itself.

A party has a token endpoint of its own and accepts the tokens that it issued:
a JWT that names client, role and, where the role is tied to one, WMI, provider id
or operator id. The clients come from the ecosystem file: every party is one, and
a few more are seeded for people; more can be brought in while it runs (``/clients``). The
tokens of a client that was brought in end with it: the worker that let it go knows at once,
others within a second. Token times are ecosystem time.

A platform signs its tokens (:mod:`.web_tokens`), and every party takes them beside its own:
who wants one token for all doors asks there.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import parse_qs

import jwt
from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from pki.keys import Signer
from services.ecosystem import Client

from .clock import Clock
from .errors import REFUSALS, Refusal
from .web_tokens import ALGORITHM, PublishedKeys, key_named, public_jwk, signed

LIFETIME = timedelta(hours=24)
# Seconds for which it is taken as known which clients were brought in.
BROUGHT_REUSE = 1.0


@dataclass(frozen=True)
class Caller:
    """Who makes a call, by its token."""

    client: str
    role: str
    scope_id: str | None = None
    # The services that a platform's token is for; None: the token is of the party itself.
    services: frozenset[str] | None = None

    @property
    def is_admin(self) -> bool:
        return self.role == "admin"

    def must_own(self, scope_id: str, what: str) -> None:
        """Refuse unless this caller answers for ``scope_id`` (admins answer for all)."""
        if not self.is_admin and self.scope_id != scope_id:
            raise Refusal(
                403,
                "not_yours",
                f"{what} belongs to {scope_id}; client {self.client} speaks for "
                f"{self.scope_id or 'nobody'}",
            )


class TokenBody(BaseModel):
    """An issued token (RFC 6749 section 5.1)."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int
    scope: str


# What a platform calls the services that a role may use (OPCP, authentication).
SERVICES = {
    "admin": ("rcpservice", "pcpservice", "cpservice", "ccpservice", "pkigateway"),
    "oem": ("rcpservice", "pcpservice", "cpservice", "ccpservice", "pkigateway"),
    "mo": ("rcpservice", "pcpservice", "cpservice", "ccpservice", "pkigateway"),
    "cpo": ("rcpservice", "cpservice", "ccpservice", "pkigateway"),
    "cps": ("rcpservice", "pcpservice", "cpservice", "ccpservice", "pkigateway"),
}
EVERYBODYS = ("rcpservice",)
# The claim beside ``<audience>/role`` that says for whom a client speaks.
SCOPE_CLAIMS = {"oem": "pcid", "mo": "emaid"}


class TokenIssuer:
    """Issues and checks the tokens of one party."""

    def __init__(
        self,
        audience: str,
        secret: bytes,
        clients: list[Client],
        clock: Clock,
        brought: Callable[[], Awaitable[Sequence[Client]]] | None = None,
        published: PublishedKeys | None = None,
    ) -> None:
        """``clients`` are those of the ecosystem file; ``brought`` reads who was brought in;
        ``published`` are the keys of the platforms whose tokens are good here too."""
        self.audience = audience
        self._secret = secret
        self._clients = {client.id: client for client in clients}
        self._clock = clock
        self._read_brought = brought
        self._published = published
        self._brought: dict[str, Client] = {}
        self._look_due = 0.0
        self._signer: Signer | None = None
        self._jwk: dict[str, str] = {}

    def sign_with(self, signer: Signer) -> None:
        """From now on tokens are signed with this key, and good at all parties (a platform)."""
        self._signer = signer
        self._jwk = public_jwk(signer.public_key)

    @property
    def jwks(self) -> list[dict[str, str]]:
        """The public keys by which this party's tokens are checked elsewhere."""
        return [self._jwk] if self._jwk else []

    def client(self, client_id: str, client_secret: str, brought: Client | None = None) -> Client:
        """A client of the ecosystem file, or the one that was brought in. Refusal 401."""
        client = self._clients.get(client_id, brought)
        if client is None or not hmac.compare_digest(
            client.secret.encode(), client_secret.encode(errors="surrogatepass")
        ):
            raise Refusal(401, "invalid_client", "no client with this id and secret is known here")
        return client

    def issue(
        self,
        client: Client,
        *,
        life: timedelta = LIFETIME,
        audience: str | None = None,
        scope: str | None = None,
    ) -> TokenBody:
        """A token for ``client``; of a platform for these services (``scope``) only.

        Refusal 400 where its role has no business with any of them."""
        now = self._clock.now()
        claims: dict[str, Any] = {
            "iss": self.audience,
            "aud": audience or self.audience,
            "sub": client.id,
            "role": client.role,
            "iat": int(now.timestamp()),
            "exp": int((now + life).timestamp()),
        }
        if client.scope_id:
            claims["scope_id"] = client.scope_id
        if client.id not in self._clients:
            claims["brought"] = self._mark(client)
        if self._signer is None:
            claims["aud"] = self.audience
            told, token = client.role, jwt.encode(claims, self._secret, "HS256")
        else:
            told = _services(client, scope)
            claims["scope"] = told
            claims[f"{claims['aud']}/role"] = client.role
            if client.scope_id and client.role in SCOPE_CLAIMS:
                claims[f"{claims['aud']}/{SCOPE_CLAIMS[client.role]}"] = client.scope_id
            token = signed(claims, self._signer, self._jwk["kid"])
        return TokenBody(access_token=token, expires_in=int(LIFETIME.total_seconds()), scope=told)

    async def admit(self, token: str) -> Caller:
        """Who calls with this token. Refusal 401 where it is not, or no longer, good for that."""
        kid = key_named(token)
        if kid is not None and not self._is_own(kid):
            key = await self._published.find(kid) if self._published else None
            return _caller_of(self._claims(token, key))
        claims = self._claims(token)
        if claims["sub"] not in self._clients and self._read_brought is not None:
            if time.monotonic() >= self._look_due:
                await self._look()
            if not self._is_there(claims):  # it may have come this very moment
                await self._look()
        return self._caller(claims)

    def check(self, token: str) -> Caller:
        """:meth:`admit` by what was known last of platforms and of brought clients."""
        kid = key_named(token)
        if kid is not None and not self._is_own(kid):
            key = self._published.known(kid) if self._published else None
            return _caller_of(self._claims(token, key))
        return self._caller(self._claims(token))

    def forget(self) -> None:
        """A client was let go: look again who is there."""
        self._look_due = 0.0
        self._brought = {}

    async def _look(self) -> None:
        assert self._read_brought is not None
        until = time.monotonic() + BROUGHT_REUSE
        self._brought = {client.id: client for client in await self._read_brought()}
        self._look_due = until

    def _mark(self, client: Client) -> str:
        """Tells a client that was brought in from a later one of its name."""
        about = json.dumps([client.id, client.secret, client.role, client.scope_id])
        return hmac.digest(self._secret, about.encode(), "sha256").hex()[:16]

    def _is_there(self, claims: dict[str, Any]) -> bool:
        client = self._brought.get(claims["sub"])
        return client is not None and claims.get("brought") == self._mark(client)

    def _caller(self, claims: dict[str, Any]) -> Caller:
        if claims["sub"] not in self._clients and not self._is_there(claims):
            raise Refusal(
                401, "client_gone", f"client {claims['sub']} is let in no more, nor its tokens"
            )
        return _caller_of(claims)

    def _is_own(self, kid: str) -> bool:
        return self._signer is not None and kid == self._jwk["kid"]

    def _claims(self, token: str, published: Any = None) -> dict[str, Any]:
        """What a token that is good now says: one of this party, or of who ``published`` a key."""
        key: Any = self._secret
        algorithm = "HS256"
        if key_named(token) is not None:
            key, algorithm = published, ALGORITHM
            if published is None and self._signer is not None:
                key = self._signer.public_key
        try:
            if key is None:
                raise jwt.InvalidTokenError("no platform of this ecosystem signed it")
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                [algorithm],
                audience=self.audience,
                options={
                    "require": ["exp", "sub", "aud"],
                    # A platform's token is for whichever address its client calls the doors by.
                    "verify_aud": algorithm == "HS256",
                    # Expiry is judged below, by ecosystem time.
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except (jwt.InvalidTokenError, RecursionError) as error:
            raise Refusal(401, "invalid_token", f"the bearer token is not valid: {error}") from None
        expires = datetime.fromtimestamp(claims["exp"], UTC)
        if expires <= self._clock.now():
            raise Refusal(401, "expired_token", f"the bearer token expired at {expires:%F %T}Z")
        return claims


def _caller_of(claims: dict[str, Any]) -> Caller:
    scope = claims.get("scope")
    return Caller(
        str(claims["sub"]),
        str(claims.get("role", "")),
        claims.get("scope_id"),
        frozenset(scope.split()) if isinstance(scope, str) else None,
    )


def _services(client: Client, wanted: str | None) -> str:
    """The services of a platform that a client may use, or those of them that it wants."""
    allowed = SERVICES.get(client.role, EVERYBODYS)
    asked = wanted.split() if wanted else allowed
    # What a client asks for beyond that it does not get, as with the real platforms.
    granted = [service for service in allowed if service in asked]
    if not granted:
        raise Refusal(
            400,
            "invalid_scope",
            f"scope: none of it is for a {client.role}, whose services are {', '.join(allowed)}",
        )
    return " ".join(granted)


OWN = "the party itself"


def allow(*roles: str) -> Callable[[Request], Awaitable[Caller]]:
    """A dependency that lets these roles through (and ``admin``), none given: anyone known."""

    async def caller(request: Request) -> Caller:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refusal(401, "no_token", "this call needs an Authorization: Bearer header")
        found: Caller = await request.app.state.party.tokens.admit(token.strip())
        if roles and found.role not in roles and not found.is_admin:
            raise Refusal(
                403,
                "wrong_role",
                f"client {found.client} has role {found.role}; this call is for "
                f"{', '.join(sorted({*roles, 'admin'}))}",
            )
        return found

    caller.roles = roles  # type: ignore[attr-defined]  # for the table of roles
    return caller


async def own(request: Request) -> Caller:
    """A dependency: the party's own client, and admins."""
    party = request.app.state.party
    found = await allow(party.config.kind)(request)
    if not found.is_admin and found.client != party.config.name:
        raise Refusal(
            403,
            "not_yours",
            f"this is for {party.config.name} and admins; the call is by client {found.client}",
        )
    return found


own.roles = (OWN,)  # type: ignore[attr-defined]

AnyCaller = Annotated[Caller, Depends(allow())]
AdminCaller = Annotated[Caller, Depends(allow("admin"))]
OwnCaller = Annotated[Caller, Depends(own)]

router = APIRouter(tags=["tokens"])

_TOKEN_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["client_credentials"]},
                        "client_id": {"type": "string"},
                        "client_secret": {"type": "string"},
                        "scope": {"type": "string"},
                        "audience": {"type": "string"},
                    },
                },
                "example": {
                    "grant_type": "client_credentials",
                    "client_id": "admin",
                    "client_secret": "admin-test-secret",
                },
            }
            for kind in ("application/x-www-form-urlencoded", "application/json")
        },
    }
}


class TokenErrorBody(BaseModel):
    """A token that is not issued (RFC 6749 section 5.2)."""

    error: str
    error_description: str


@router.post(
    "/oauth/token",
    openapi_extra=_TOKEN_BODY,
    response_model=TokenBody,
    responses={
        400: {"model": TokenErrorBody, "description": "The request does not make sense."},
        401: {"model": TokenErrorBody, "description": "No such client, or another secret."},
        413: REFUSALS[413],
        503: {"model": TokenErrorBody, "description": "A platform has no key to sign with yet."},
    },
)
async def token(request: Request) -> Any:
    """Exchange client credentials for a bearer token.

    The body is a form or JSON; credentials may come by HTTP Basic instead. Errors have
    the shape of RFC 6749 section 5.2. A platform's token is good at all parties, for the
    services in ``scope``.
    """
    try:
        kind, fields = await _token_fields(request)
        grant = fields.get("grant_type", "")
        if grant != "client_credentials":
            seen = f"{grant[:40]!a} was sent" if grant else f"none is in the {kind} that was sent"
            return _oauth_error(
                400, "unsupported_grant_type", f"grant_type: {seen}, wanted is client_credentials"
            )
        party = request.app.state.party
        name = fields.get("client_id", "")
        client = party.tokens.client(
            name, fields.get("client_secret", ""), await _brought(party, name)
        )
        if party.config.kind == "platform" and not party.tokens.jwks:
            raise Refusal(503, "temporarily_unavailable", "the platform has no key yet")
        # Who is to clear the fault is hit by it only under its own name.
        fault = await party.faults.at(
            "token",
            when=lambda one: client.role != "admin" or "caller" in one.target,
            caller=client.id,
        )
        issued = party.tokens.issue(
            client,
            life=LIFETIME if fault is None else timedelta(seconds=-1),
            audience=fields.get("audience"),
            scope=fields.get("scope"),
        )
    except Refusal as refusal:
        return _oauth_error(refusal.status, refusal.code, refusal.message)
    return JSONResponse(issued.model_dump(), headers={"Cache-Control": "no-store"})


async def _brought(party: Any, client_id: str) -> Client | None:
    """A client that was brought in while the party runs (:mod:`.doors.clients`)."""
    if not client_id or len(client_id) > 64 or not client_id.isprintable():
        return None  # nobody is called so, and not every database reads it
    row = party.tables.client_row
    known = await party.database.read(lambda session: session.get(row, client_id))
    return Client(known.id, known.secret, known.role, known.scope_id) if known else None


def _oauth_error(status: int, code: str, message: str) -> JSONResponse:
    headers = {"Cache-Control": "no-store"}
    if status == 401:
        headers["WWW-Authenticate"] = "Basic"
    return JSONResponse({"error": code, "error_description": message}, status, headers)


async def _token_fields(request: Request) -> tuple[str, dict[str, str]]:
    """As what the body was read, and the fields in it. Refusal 400."""
    body = await request.body()
    kind = "form"
    try:
        if request.headers.get("content-type", "").lower().startswith("application/json"):
            kind, fields = "JSON", json.loads(body)
            if not isinstance(fields, dict):
                raise ValueError("a JSON object is wanted")
            fields = {key: value for key, value in fields.items() if value is not None}
            for key, value in fields.items():
                if not isinstance(value, str):
                    raise ValueError(f"{key[:40]!a} is text, not {str(value)[:40]!a}")
        else:
            fields = {key: values[-1] for key, values in parse_qs(body.decode()).items()}
        scheme, _, basic = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            client, _, secret = base64.b64decode(basic, validate=True).decode().partition(":")
            fields |= {"client_id": client, "client_secret": secret}
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "invalid_request", f"the request could not be read: {error}") from None
    return kind, fields
