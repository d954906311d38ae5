"""What a charger does on the cable when it was told to misbehave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from services.common.faults import About
from v2g.messages import iso2

if TYPE_CHECKING:
    from .session import SeccSession

_CHALLENGE = "the challenge given out last"


def _about(session: SeccSession) -> dict[str, About]:
    plug = session.charger.plugs.get(session.facts.evccid)
    return {
        "emaid": session.facts.emaid or None,
        "caller": plug.vehicle if plug is not None else None,
    }


async def challenge(session: SeccSession) -> bytes:
    """The GenChallenge that the car is given; what is expected stands in the session's facts."""
    faults, facts = session.charger.party.faults, session.facts
    former: bytes | None = faults.memory.get(_CHALLENGE)
    fault = await faults.at(
        "challenge",
        when=lambda one: one.kind != "old-challenge" or former is not None,
        **_about(session),
    )
    if fault is not None and fault.kind == "old-challenge":
        assert former is not None
        facts.challenge = former
    if faults.enabled:
        faults.memory[_CHALLENGE] = facts.challenge
    if fault is not None and fault.kind == "wrong-challenge-given":
        return bytes(byte ^ 0xFF for byte in facts.challenge)
    return facts.challenge


async def receipt_required(session: SeccSession) -> bool:
    """Whether the car is asked to sign for the reading."""
    fault = await session.charger.party.faults.at("receipt", when=None, **_about(session))
    return fault is None


async def answered(
    session: SeccSession, request: str, answer: iso2.V2G_Message
) -> iso2.V2G_Message:
    """The answer to a request as it leaves: late, or of another session."""
    fault = await session.charger.party.faults.at(
        "cable-answer", when=lambda one: one["message"] == request, **_about(session)
    )
    if fault is None:
        return answer
    if fault.kind == "slow-charger":
        await asyncio.sleep(fault["seconds"])
        return answer
    other = bytes(byte ^ 0xFF for byte in answer.Header.SessionID)
    return answer.replace(Header=answer.Header.replace(SessionID=other))
