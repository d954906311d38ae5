"""Drivers who move to another operator, cars that are sold or lost.

Moving takes two operators and the car, in an order in which the car is never without a good
contract: the old operator releases the contract to the new one (its driver asks for that);
the new operator's contract says which one it replaces; once the car has charged with it, the
new operator tells the old one, which cancels the old contract and takes it out of the pool.
That the pool has handed it out would not do: the answer may be lost, or the car refuse it. Each
step is written down by who does it, and a round takes up what a crash or an unreachable party
left half way.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from sqlalchemy.orm import Session

from pki.identifiers import EMAID, PCID, IdentifierError
from services.common import jobs
from services.common.auth import Caller
from services.common.errors import PartyRefused, Refusal, wrong_identifier
from services.common.events import Event
from services.common.jobs import RUN_EVERY
from services.common.party import Party
from services.common.statements import SOLD, StatementBody, objection

from .contracts import Contracts
from .store import ContractRow, of_car, taking_over

# How long an operator that refused a hand-over is left in peace, seconds of elapsed time: what
# changes its mind is a driver.
FIRST_PAUSE = RUN_EVERY
LONGEST_PAUSE = 3600.0


@dataclass(frozen=True)
class Pause:
    """A hand-over that was refused: how long it waits, until when, and why."""

    seconds: float
    until: float
    why: str


class Transfers:
    def __init__(self, party: Party, contracts: Contracts) -> None:
        self.party = party
        self.contracts = contracts
        self.elapsed = time.monotonic
        # By EMAID; a start forgets it, and asks once more.
        self._pauses: dict[str, Pause] = {}
        party.at_reset.append(self._forget)

    async def _forget(self) -> None:
        self._pauses.clear()

    def replaced(self, text: str) -> EMAID:
        """The EMAID of a contract elsewhere that is to be replaced; Refusal 422."""
        try:
            emaid = EMAID.parse(text, strict=self.party.strict())
        except IdentifierError as error:
            raise wrong_identifier(error, "replaces") from None
        operator = self.party.ecosystem.by_scope("mo", emaid.provider_id)
        if operator is None:
            raise Refusal(
                422,
                "unknown_operator",
                f"replaces: no mobility operator {emaid.provider_id} is known",
            )
        if operator.name == self.party.config.name:
            raise Refusal(
                422, "own_contract", f"replaces: {emaid} is a contract of this operator itself"
            )
        return emaid

    async def release(self, text: str, provider: str | None) -> ContractRow:
        """Let another operator (provider id) end a contract, since its driver moves there; None
        takes that back."""
        row = await self.contracts.get(text)
        known = provider is None or self.party.ecosystem.by_scope("mo", provider)
        if not known or provider == self.party.config.scope_id:
            raise Refusal(422, "unknown_operator", f"provider_id: there is no other {provider}")

        def change(session: Session) -> ContractRow:
            found = session.get_one(ContractRow, row.emaid)
            if provider is not None and found.status in ("revoked", "cancelled"):
                raise Refusal(409, "contract_ended", f"the contract {row.wire} is {found.status}")
            found.released_to = provider.upper() if provider else None
            return found

        return await self.party.database.write(change)

    async def hand_over(self, text: str, to_text: str, pcid: str, caller: Caller) -> ContractRow:
        """The new operator has taken over: cancel the old contract. A second time changes
        nothing. Refusal 403 unless it was released to the caller, 409 for another car."""
        row = await self.contracts.get(text)
        released = row.released_to is not None and row.released_to == caller.scope_id
        if not caller.is_admin and not released:
            raise Refusal(
                403,
                "not_released",
                f"emaid: {row.wire} is not released to {caller.scope_id or caller.client}; its "
                f"driver asks {self.party.config.title} for that",
            )
        if row.pcid != pcid.upper():
            raise Refusal(409, "other_car", f"pcid: {row.wire} is a contract of another car")
        if row.status in ("revoked", "cancelled"):
            return row
        self._record(
            "contract handed over",
            f"The contract {row.wire} is replaced by {to_text} of {caller.client}",
            {"emaid": row.wire, "pcid": row.pcid, "replaced_by": to_text},
        )
        return await self.contracts.cancel(text)

    async def take_over(self) -> None:
        """A round: tell the former operators of contracts that cars charge with instead."""
        found = await self.party.database.read(taking_over)
        due = []
        for row in found:
            pause = self._pauses.get(row.emaid)
            if pause is not None and self.elapsed() < pause.until:
                jobs.waits(_hand_over_of(row), pause.why)
            else:
                due.append(row)
        await self.party.take_up(due, self._take_over, _hand_over_of)

    async def _take_over(self, row: ContractRow) -> bool:
        """Whether it is done."""
        assert row.replaces is not None
        operator = self.party.ecosystem.by_scope("mo", row.replaces[:5])
        if operator is None:
            return False
        try:
            await self.party.client(operator.name).call(
                "POST",
                f"/contracts/{quote(row.replaces, safe='')}/transfer",
                name="hand over contract",
                summary=f"{self.party.config.title} has taken over: {row.wire} instead of "
                f"{row.replaces}",
                body={"to_emaid": row.wire, "pcid": row.pcid},
            )
        except PartyRefused as refused:
            self._pause(row, refused)
            raise
        self._pauses.pop(row.emaid, None)
        now = self.party.clock.now()

        def change(session: Session) -> None:
            session.get_one(ContractRow, row.emaid).replaced_at = now

        await self.party.database.write(change)
        return True

    def _pause(self, row: ContractRow, refused: PartyRefused) -> None:
        """Ask again later, each time twice as late; why it waits is told when that changes."""
        before = self._pauses.get(row.emaid)
        seconds = min(before.seconds * 2, LONGEST_PAUSE) if before else FIRST_PAUSE
        self._pauses[row.emaid] = Pause(seconds, self.elapsed() + seconds, refused.message)
        if before is None or before.why != refused.message:
            self._record(
                "hand-over waits",
                f"The contract {row.replaces} is not handed over yet to {row.wire}: "
                f"{refused.message}",
                {"emaid": row.wire, "replaces": row.replaces, "code": refused.code},
            )

    async def of_car(self, text: str) -> list[ContractRow]:
        """This operator's contracts for a car, oldest first."""
        pcid = _pcid(text, self.party)
        return await self.party.database.read(lambda session: of_car(session, pcid.normal))

    async def sold(
        self, text: str, statement: StatementBody | None, caller: Caller
    ) -> list[ContractRow]:
        """The car was sold without its contracts: revoke those that there were.

        Refusal 403 unless the car itself says so: signed with the provisioning key that the
        pool has its certificate of. 404 for a car that the pool does not know.
        """
        pcid = _pcid(text, self.party)
        if not caller.is_admin:
            why = "nothing is signed with its provisioning key"
            if statement is not None:
                async with self.party.turns:
                    certificate = await self.contracts.provisioning(pcid)
                why = objection(self.party, statement, SOLD, pcid.normal, certificate)
            if statement is None or why:
                raise Refusal(
                    403,
                    "not_yours",
                    f"pcid: client {caller.client} does not speak for the car {pcid}: {why}",
                    {"rule": "car.owner"},
                )
        # What its buyer signed since then is not the seller's to end.
        until = None if statement is None else statement.at
        return await self.end_of_car(text, "cessationOfOperation", "sold", until)

    async def end_of_car(
        self, text: str, reason: str, why: str, until: datetime | None = None
    ) -> list[ContractRow]:
        """Revoke all contracts of a car that are not ended yet (it was sold, or lost); with
        ``until`` those that were ordered until that second."""
        pcid = _pcid(text, self.party)
        ended = [
            await self.contracts.revoke(row.wire, reason)
            for row in await self.of_car(text)
            if row.status not in ("revoked", "cancelled")
            and (until is None or row.ordered_at.replace(microsecond=0) <= until)
        ]
        self._record(
            f"car {why}",
            f"The car {pcid} is {why}: {len(ended)} contracts are revoked",
            {"pcid": pcid.normal, "emaids": [row.wire for row in ended]},
        )
        return ended

    def _record(self, name: str, summary: str, data: dict[str, object]) -> None:
        self.party.recorder.record(
            Event(
                kind="state",
                name=name,
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=summary,
                data=data,
            )
        )


def _hand_over_of(row: ContractRow) -> str:
    return f"the contract {row.wire} in place of {row.replaces}"


def _pcid(text: str, party: Party) -> PCID:
    try:
        return PCID.parse(text, strict=party.strict())
    except IdentifierError as error:
        raise wrong_identifier(error, "pcid") from None
