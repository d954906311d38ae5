"""The values that bodies are made of, each with its bounds: what every door reads.

A bound is also a shape: text with a bound must be text that can be written (a lone
surrogate is refused), and numbers stay within what a database keeps.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints

from . import examples
from .certificates import MAX_CERTIFICATE


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("this instant lies outside the years 1 to 9999 of UTC") from None


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("it has characters that cannot be shown (controls, direction marks)")
    return value


Name = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_printable)]
"""An identifier or a name: 1 to 64 characters; what more is asked of it, its owner says."""

PersonName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=128),
    AfterValidator(_printable),
    Field(examples=["Ada Driver"]),
]
"""What a person is called."""

Instant = Annotated[AwareDatetime, AfterValidator(_utc), Field(examples=["2026-11-22T12:00:00Z"])]
"""ISO 8601 with a time zone; held in UTC."""

CertificateText = Annotated[
    str,
    StringConstraints(max_length=2 * MAX_CERTIFICATE),
    Field(examples=[examples.CERTIFICATE]),
]
"""A certificate: base64 of its DER encoding, or PEM."""

CertificateTexts = Annotated[
    list[CertificateText], Field(max_length=8, examples=[[examples.SUB_CA_2, examples.SUB_CA_1]])
]
"""Certificates: each base64 of DER, or PEM, of which one text may hold several."""

KeyText = Annotated[str, StringConstraints(min_length=1, max_length=32_000)]
"""A private key: PEM, or base64 of DER or PKCS#12. Its field is called ``private_key``, so that
no event tells it."""

Password = Annotated[str, StringConstraints(min_length=1, max_length=256)]
"""What opens a private key. Its field is called ``password``, so that no event tells it."""

RequestText = Annotated[
    str, StringConstraints(max_length=16_000), Field(examples=[examples.REQUEST])
]
"""A certificate request (PKCS#10): base64 of its DER encoding."""

MessageText = Annotated[
    str, StringConstraints(max_length=32_000), Field(examples=[examples.MESSAGE])
]
"""A V2G message: base64 of EXI."""

MAX_RECEIPTS = 64
MAX_RECEIPT_TEXT = 8000

ReceiptTexts = Annotated[
    list[Annotated[str, StringConstraints(max_length=MAX_RECEIPT_TEXT)]],
    Field(max_length=MAX_RECEIPTS, examples=[[examples.MESSAGE]]),
]
"""MeteringReceiptReq messages: base64 of EXI. The first and the last one vouch for a session."""

Fingerprint = Annotated[
    str, StringConstraints(pattern="^[0-9a-f]{64}$"), Field(examples=["5e0e4b77373baa82" * 4])
]
"""SHA-256 over the DER encoding of a certificate, lower-case hex."""

SessionId = Annotated[
    str, StringConstraints(pattern="^[0-9A-Fa-f]{2,16}$"), Field(examples=["3F1C9A0B7D5E2684"])
]
"""A session's identifier on the cable: one to eight bytes, hex."""

Currency = Annotated[str, StringConstraints(pattern="^[A-Z]{3}$"), Field(examples=["EUR"])]
"""ISO 4217."""

Price = Annotated[
    Decimal, Field(ge=0, le=10_000, max_digits=12, decimal_places=6, examples=["0.49"])
]
"""Per kWh or per session."""

Wh = Annotated[int, Field(ge=0, le=10**12, examples=[8000])]
"""A meter reading. SQLite keeps integers of 64 bits; no meter of a charger counts so far."""

Chain = Annotated[
    list[str], Field(examples=[[examples.CERTIFICATE, examples.SUB_CA_2, examples.SUB_CA_1]])
]
"""A certificate and those above it, leaf first, without the root: base64 of DER."""
