"""Receipts: what a car signed about the meter (MeteringReceiptReq), as proof for billing."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from pki.edition import Edition
from v2g import exi
from v2g.messages import iso2
from v2g.signature import SignatureError, verify

from .certificates import public_key


class ReceiptError(ValueError):
    """Bytes that are no receipt of this contract; the message says why."""


@dataclass(frozen=True)
class Receipt:
    """What a car confirmed."""

    session_id: bytes
    meter_id: str
    meter_reading_wh: int


def read_receipt(message: bytes, contract: x509.Certificate, edition: Edition) -> Receipt:
    """A whole V2G_Message with a MeteringReceiptReq, signed by ``contract``'s key.

    Raises ReceiptError.
    """
    try:
        decoded = exi.decode(iso2.SCHEMA, message)
    except exi.EXIError as error:
        raise ReceiptError(f"not an EXI message: {error}") from None
    body = decoded.Body.BodyElement
    if not isinstance(body, iso2.MeteringReceiptReq):
        raise ReceiptError(f"a MeteringReceiptReq is wanted, this is {type(body).__name__}")
    try:
        verify(
            iso2.SCHEMA,
            decoded.Header.Signature,
            [("MeteringReceiptReq", body)],
            public_key(contract),
            edition,
        )
    except SignatureError as error:
        raise ReceiptError(f"its signature does not hold: {error.reason}") from None
    if body.MeterInfo.MeterReading is None:
        raise ReceiptError("it has no MeterReading")
    return Receipt(body.SessionID, body.MeterInfo.MeterID, body.MeterInfo.MeterReading)
