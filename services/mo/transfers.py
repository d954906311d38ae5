"""Drivers who move to another operator, cars that are sold or lost.

Moving takes two operators and the car, in an order in which the car is never without a good
contract: the old operator releases the contract to the new one (its driver asks for that);
the new operator's contract says which one it replaces; once the pool has delivered it to the
car, the new operator tells the old one, which cancels the old contract and takes it out of the
pool. Each step is written down by who does it, and a round takes up what a crash or an
unreachable party left half way.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from sqlalchemy.orm import Session

from pki.identifiers import EMAID, PCID, IdentifierError
from services.common.auth import Caller
from services.common.errors import Refusal, wrong_identifier
from services.common.events import Event
from services.common.party import Party

from .contracts import Contracts
from .store import ContractRow, of_car, taking_over


@dataclass(frozen=True)
class Waiting:
    """GET /contracts/{emaid} of the contract pool, as far as it is read here."""

    delivered_at: str | None


class Transfers:
    def __init__(self, party: Party, contracts: Contracts) -> None:
        self.party = party
        self.contracts = contracts

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
        if not caller.is_admin and row.released_to != caller.scope_id:
            raise Refusal(
                403,
                "not_released",
                f"emaid: {row.wire} is not released to {caller.scope_id}; its driver asks "
                f"{self.party.config.title} for that",
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
        """A round: tell the former operators of contracts that cars have got instead."""
        waiting = await self.party.database.read(taking_over)
        await self.party.take_up(
            waiting, self._take_over, lambda row: f"the contract {row.wire} in place of another"
        )

    async def _take_over(self, row: ContractRow) -> bool:
        """Whether it is done: not before the car has its new contract."""
        assert row.replaces is not None
        answer = await self.party.uses("ccp").call(
            "GET",
            f"/contracts/{quote(row.emaid, safe='')}",
            name="contract",
            summary=f"Does the car {row.pcid} have its contract {row.wire}?",
        )
        if answer.read(Waiting).delivered_at is None:
            return False
        operator = self.party.ecosystem.by_scope("mo", row.replaces[:5])
        if operator is None:
            return False
        await self.party.client(operator.name).call(
            "POST",
            f"/contracts/{quote(row.replaces, safe='')}/transfer",
            name="hand over contract",
            summary=f"{self.party.config.title} has taken over: {row.wire} instead of "
            f"{row.replaces}",
            body={"to_emaid": row.wire, "pcid": row.pcid},
        )
        now = self.party.clock.now()

        def change(session: Session) -> None:
            session.get_one(ContractRow, row.emaid).replaced_at = now

        await self.party.database.write(change)
        return True

    async def of_car(self, text: str) -> list[ContractRow]:
        """This operator's contracts for a car, oldest first."""
        pcid = _pcid(text, self.party)
        return await self.party.database.read(lambda session: of_car(session, pcid.normal))

    async def end_of_car(self, text: str, reason: str, why: str) -> list[ContractRow]:
        """Revoke all contracts of a car that are not ended yet (it was sold, or lost)."""
        pcid = _pcid(text, self.party)
        ended = [
            await self.contracts.revoke(row.wire, reason)
            for row in await self.of_car(text)
            if row.status not in ("revoked", "cancelled")
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


def _pcid(text: str, party: Party) -> PCID:
    try:
        return PCID.parse(text, strict=party.strict())
    except IdentifierError as error:
        raise wrong_identifier(error, "pcid") from None
