"""What a car says on the cable when it was told to misbehave: right in all but one thing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from pki.identifiers import EMAID
from pki.keys import Signer
from services.common.certificates import der_of
from services.common.faults import About, Fault
from v2g.certificate_installation import chain_element
from v2g.messages import iso2
from v2g.signature import sign

from .cable import CableError

if TYPE_CHECKING:
    from .charging import EvccSession

Spoil = Callable[["EvccSession", iso2.V2G_Message, Fault], iso2.V2G_Message]


async def spoilt(session: EvccSession, stage: str, message: iso2.V2G_Message) -> iso2.V2G_Message:
    """``message`` as it leaves the car; CableError where the car is gone instead."""
    faults = session.garage.party.faults
    if not faults.enabled:
        return message
    about: dict[str, About] = {
        "pcid": session.car.pcid,
        "emaid": session.contract.emaid if session.contract else None,
        "charger": session.garage.visiting.get(session.car.pcid),
    }
    if await faults.at("unplug", when=lambda one: one["message"] == stage, **about):
        raise CableError(stage, "the car was unplugged here")
    former = _former(session, message) if stage == "AuthorizationReq" else None
    fault = await faults.at(
        stage,
        when=lambda one: one.kind != "replayed-challenge" or former is not None,
        **about,
    )
    if fault is None:
        return message
    if former is not None and fault.kind == "replayed-challenge":
        return message.replace(
            Header=message.Header.replace(Signature=former.Header.Signature),
            Body=former.Body,
        )
    return _SPOILS[fault.kind](session, message, fault)


def _former(session: EvccSession, message: iso2.V2G_Message) -> iso2.V2G_Message | None:
    """The AuthorizationReq of the car's former session; this session's is remembered."""
    said: deque[iso2.V2G_Message] = session.garage.party.faults.memory.setdefault(
        session.car.pcid, deque(maxlen=2)
    )
    if all(one.Header.SessionID != message.Header.SessionID for one in said):
        said.append(message)
    return next((one for one in said if one.Header.SessionID != message.Header.SessionID), None)


def _wrong_challenge(
    session: EvccSession, message: iso2.V2G_Message, _fault: Fault
) -> iso2.V2G_Message:
    body: Any = message.Body.BodyElement
    other = bytes(byte ^ 0xFF for byte in body.GenChallenge)
    return _signed(session, message, body.replace(GenChallenge=other))


def _bad_signature(
    _session: EvccSession, message: iso2.V2G_Message, _fault: Fault
) -> iso2.V2G_Message:
    signature = message.Header.Signature
    assert signature is not None
    value = signature.SignatureValue.value
    spoilt = signature.SignatureValue.replace(value=value[:-1] + bytes([value[-1] ^ 1]))
    signature = signature.replace(SignatureValue=spoilt)
    return message.replace(Header=message.Header.replace(Signature=signature))


def _other_key(session: EvccSession, message: iso2.V2G_Message, _fault: Fault) -> iso2.V2G_Message:
    party = session.garage.party
    stranger = party.entropy.key("fault", party.edition)
    return _signed(session, message, message.Body.BodyElement, stranger)


def _other_emaid(
    _session: EvccSession, message: iso2.V2G_Message, _fault: Fault
) -> iso2.V2G_Message:
    body: Any = message.Body.BodyElement
    known = EMAID.parse(body.eMAID, strict=False)
    last = "1" if known.normal[-1] == "0" else "0"
    other = EMAID.with_check_digit(known.normal[:2], known.normal[2:5], known.normal[5:-1] + last)
    text = other.wire if known.check_digit else other.normal
    return message.replace(Body=iso2.Body(body.replace(eMAID=text)))


def _wrong_chain(
    session: EvccSession, message: iso2.V2G_Message, _fault: Fault
) -> iso2.V2G_Message:
    assert session.contract is not None
    chain = [der_of(one) for one in (session.contract.chain[0], *session.car.chain[1:])]
    body: Any = message.Body.BodyElement
    shown = body.replace(ContractSignatureCertChain=chain_element(chain))
    return message.replace(Body=iso2.Body(shown))


def _receipt_tampered(
    session: EvccSession, message: iso2.V2G_Message, fault: Fault
) -> iso2.V2G_Message:
    body: Any = message.Body.BodyElement
    shown = body.MeterInfo.MeterReading
    # A reading is not negative: where there is too little to take away, it is added.
    other = shown + fault["wh"] if shown + fault["wh"] >= 0 else shown - fault["wh"]
    meter = body.MeterInfo.replace(MeterReading=other)
    return _signed(session, message, body.replace(MeterInfo=meter))


def _receipt_unsigned(
    _session: EvccSession, message: iso2.V2G_Message, _fault: Fault
) -> iso2.V2G_Message:
    return message.replace(Header=message.Header.replace(Signature=None))


_SPOILS: Mapping[str, Spoil] = {
    "wrong-challenge": _wrong_challenge,
    "bad-signature": _bad_signature,
    "signature-by-other-key": _other_key,
    "other-emaid": _other_emaid,
    "wrong-chain": _wrong_chain,
    "receipt-tampered": _receipt_tampered,
    "receipt-unsigned": _receipt_unsigned,
}


def _signed(
    session: EvccSession, message: iso2.V2G_Message, body: Any, key: Signer | None = None
) -> iso2.V2G_Message:
    """``message`` with another body, signed as the car signs, or by ``key``."""
    assert session.contract is not None
    signature = sign(
        iso2.SCHEMA,
        [(type(body).__name__, body)],
        key or session.contract.key,
        session.garage.party.edition,
    )
    return message.replace(Header=message.Header.replace(Signature=signature), Body=iso2.Body(body))
