"""What parties answer each other, as far as their callers read it.

An answer that does not have its shape is an outcome (PartyRefused, 502): something else may
listen where a party should, or it may be a party that somebody else wrote.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, TypeVar, cast

from cryptography import x509
from pydantic import AfterValidator, Field, PlainValidator, TypeAdapter, ValidationError

from v2g.messages.iso2 import ResponseCode

from .certificates import read_certificate, unb64
from .errors import PartyRefused, Refusal

T = TypeVar("T")

Certificate = Annotated[
    x509.Certificate, PlainValidator(lambda text: read_certificate(str(text), "certificate"))
]
Certificates = Annotated[tuple[Certificate, ...], Field(min_length=1)]
"""Leaf first, or lowest first."""

Message = Annotated[bytes, PlainValidator(lambda text: unb64(str(text), "message"))]
"""EXI."""

CodeName = Annotated[str, AfterValidator(lambda text: ResponseCode(text).value)]


def read(shape: type[T], party: str, content: bytes) -> T:
    """``content``, which ``party`` answered, as ``shape``; PartyRefused where it is not."""
    try:
        value: T = _adapter(cast(Hashable, shape)).validate_json(content)
        return value
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        trouble = f"{where}: {first['msg']}" if where else str(first["msg"])
    except Refusal as refusal:
        trouble = refusal.message
    raise PartyRefused(party, 502, "unexpected_answer", trouble, None)


@cache
def _adapter(shape: Hashable) -> TypeAdapter[Any]:
    return TypeAdapter(cast(Any, shape))


@dataclass(frozen=True)
class Token:
    """POST /oauth/token, anywhere."""

    access_token: str


@dataclass(frozen=True)
class Root:
    """GET /roots of the root pool: one of a list."""

    type: str
    certificate: Certificate


Roots = tuple[Root, ...]
"""GET /roots of the root pool."""


@dataclass(frozen=True)
class IssuingAuthority:
    """GET /authorities of a party with a CA: one of a list."""

    role: str
    valid_to: datetime


@dataclass(frozen=True)
class Chain:
    """An issued certificate and those above it: from the V2G root operator, a CPO."""

    chain: Certificates


@dataclass(frozen=True)
class BuiltCar:
    """POST /vehicles of a vehicle maker."""

    pcid: Annotated[str, Field(min_length=1, max_length=64)]
    chain: Certificates


@dataclass(frozen=True)
class Registered:
    """GET /provisioning-certificates/{pcid} of the provisioning certificate pool."""

    certificate: Certificate
    issuers: Certificates


@dataclass(frozen=True)
class RegisteredParty:
    """One of GET /registrations of the V2G root operator."""

    party: str
    kind: str
    organisation: str
    identifiers: tuple[str, ...]
    suspended_at: str | None


Registrations = tuple[RegisteredParty, ...]
"""GET /registrations."""


@dataclass(frozen=True)
class Installation:
    """POST /installations of the contract pool, and of a CPO for its chargers."""

    certificate_installation_res: Message
    code: str
    emaid: str | None
    reason: str


@dataclass(frozen=True)
class Update:
    """POST /updates of the contract pool, and of a CPO for its chargers."""

    certificate_update_res: Message
    code: str
    emaid: str | None
    reason: str
    retry_counter: int | None = None


@dataclass(frozen=True)
class Renewal:
    """POST /contracts/{emaid}/renewals of a mobility operator."""

    renewed: bool
    code: str
    reason: str
    retry_days: Annotated[int, Field(ge=-1, le=32767)] = 0


@dataclass(frozen=True)
class ContractCheck:
    """POST /contract-checks of a CPO."""

    accepted: bool
    iso15118_2: CodeName
    reason: str


@dataclass(frozen=True)
class ChargerAuthorization:
    """POST /authorizations of a CPO."""

    accepted: bool
    iso15118_2: CodeName
    reason: str
    authorization_reference: str | None


@dataclass(frozen=True)
class OperatorAuthorization:
    """POST /authorizations of a mobility operator."""

    allowed: str
    code: str
    reason: str
    authorization_reference: str | None


@dataclass(frozen=True)
class Session:
    """POST /sessions of a CPO."""

    id: Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,64}$")]


@dataclass(frozen=True)
class RecordState:
    """POST /cdrs of a mobility operator."""

    status: Annotated[str, Field(pattern="^(settled|disputed)$")]
    reason: str


@dataclass(frozen=True)
class Outlet:
    """POST /plugs of a charger."""

    cable: str
