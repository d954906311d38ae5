"""Tokens that others can check: JWTs signed with a key whose public half is published.

A party's own tokens are of use at that party only, and sealed with a secret of its own
(:mod:`.auth`). A platform's are of use at all parties: it signs them with ES256 (RFC 7518
section 3.4), publishes the public key as a JWK set (RFC 7517), and every party reads it there.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from pki.keys import Signer

from .errors import PartyRefused

if TYPE_CHECKING:
    from .party import Party

ALGORITHM = "ES256"
JWKS_PATH = "/.well-known/jwks.json"
# Seconds between two looks for a key that nobody has: a token of a stranger costs no more.
LOOK_AGAIN = 1.0

_COORDINATE = 32


def public_jwk(public_key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    """A P-256 public key as a JWK; its ``kid`` is its thumbprint (RFC 7638)."""
    numbers = public_key.public_numbers()
    members = {
        "crv": "P-256",
        "kty": "EC",
        "x": _text(numbers.x.to_bytes(_COORDINATE, "big")),
        "y": _text(numbers.y.to_bytes(_COORDINATE, "big")),
    }
    thumbprint = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    return {**members, "kid": _text(thumbprint), "use": "sig", "alg": ALGORITHM}


def signed(claims: Mapping[str, Any], signer: Signer, kid: str) -> str:
    """A JWT (RFC 7519) over ``claims``."""
    head = {"alg": ALGORITHM, "typ": "JWT", "kid": kid}
    parts = [_text(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims)]
    wanted = ".".join(parts)
    r, s = decode_dss_signature(signer.sign(wanted.encode()))
    raw = r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
    return f"{wanted}.{_text(raw)}"


def key_named(token: str) -> str | None:
    """The ``kid`` of a token that is signed so; None for any other text."""
    try:
        head = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, RecursionError):
        return None
    return str(head.get("kid", "")) if head.get("alg") == ALGORITHM else None


class PublishedKeys:
    """The public keys of an ecosystem's platforms, by their ``kid``, as one party knows them."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._keys: dict[str, Any] = {}
        self._look_due = 0.0

    def known(self, kid: str) -> Any | None:
        """The key that was seen under this name."""
        return self._keys.get(kid)

    async def find(self, kid: str) -> Any | None:
        """The key of this name; None where no platform publishes it.

        PartyUnreachable, PartyRefused where a platform does not say."""
        if kid not in self._keys and time.monotonic() >= self._look_due:
            for platform in self._party.ecosystem.of_kind("platform"):
                await self._look(platform.name, platform.url)
            self._look_due = time.monotonic() + LOOK_AGAIN
        return self._keys.get(kid)

    async def _look(self, name: str, url: str) -> None:
        status, content = await self._party.http.send(
            name,
            "GET",
            url + JWKS_PATH,
            name="token keys",
            summary=f"{self._party.config.title} looks up who signs tokens",
        )
        try:
            if status != 200:
                raise ValueError(f"HTTP status {status}")
            found = {key.key_id: key.key for key in jwt.PyJWKSet.from_json(content.decode()).keys}
        except (ValueError, RecursionError, AttributeError, TypeError, jwt.PyJWTError) as error:
            raise PartyRefused(name, 502, "unexpected_answer", f"its keys: {error}", None) from None
        self._keys.update((str(kid), key) for kid, key in found.items())


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
