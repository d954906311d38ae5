"""What a car says about itself, signed with its provisioning key.

Many clients have the role of a car; which of them speaks for a certain car is shown by the key
that is in it. A statement names the car, what is said, to whom, and when: it is good at that
party only, and for an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, Field, StringConstraints

from pki.edition import Edition
from pki.keys import Signer

from .certificates import b64, public_key, unb64
from .fields import Instant
from .party import Party

LIFE = timedelta(hours=1)
CLOCK_SLACK = timedelta(minutes=5)

SOLD = "sold"
LOST = "lost"
REKEY = "new provisioning key"


class StatementBody(BaseModel):
    """Signed with the car's provisioning key: that it is sold, lost, has a new key."""

    at: Instant
    signature: Annotated[str, StringConstraints(max_length=256)] = Field(
        examples=["AAAA"],
        description="ECDSA over the lines pnclab, what is said, the PCID, the name of the party "
        "that it is said to, and the instant (UTC, in seconds); base64 of DER.",
    )


@dataclass(frozen=True)
class Statement:
    """Something that is said about the car ``pcid`` to the party ``to``."""

    says: str
    pcid: str
    to: str
    at: datetime

    @property
    def encoded(self) -> bytes:
        lines = ("pnclab", self.says, self.pcid.upper(), self.to, f"{self.at:%FT%TZ}")
        return "\n".join(lines).encode()


def signed(party: Party, key: Signer, says: str, pcid: str, to: str) -> dict[str, str]:
    """A statement of the car whose provisioning key is ``key``, as it is sent."""
    statement = Statement(says, pcid, to, party.clock.now())
    return {"at": f"{statement.at:%FT%TZ}", "signature": b64(key.sign(statement.encoded))}


def objection(
    party: Party, body: StatementBody, says: str, pcid: str, certificate: x509.Certificate
) -> str:
    """Why ``body`` is no statement of the car with this provisioning certificate; else empty.
    Refusal 422 where the signature is no base64."""
    age = party.clock.now() - body.at
    if not -CLOCK_SLACK <= age <= LIFE:
        return f"the statement is of {body.at:%F %T}Z, now is {party.clock.now():%F %T}Z"
    statement = Statement(says, pcid, party.config.name, body.at)
    if not _good(statement, unb64(body.signature, "signature"), certificate, party.edition):
        return "the statement is not signed with the car's provisioning key"
    return ""


def _good(
    statement: Statement, signature: bytes, certificate: x509.Certificate, edition: Edition
) -> bool:
    try:
        public_key(certificate).verify(
            signature, statement.encoded, ec.ECDSA(edition.signature.hash)
        )
    except InvalidSignature:
        return False
    return True
