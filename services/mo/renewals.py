"""Renewing contracts: a new certificate for the same EMAID before the present one ends.

A contract goes on for longer than its certificate. In time before that ends
(``renewal_before_days``) the next generation is issued, signed and put into the pool, where
it waits for the car: as an installation, and as an update that the present contract key
opens. The older certificate stays good until it expires or is revoked, so that the car
charges with it until it has fetched the new one.

A car that asks for an update (CertificateUpdateReq) is answered from the pool; what is not
there the pool asks for here, and :meth:`Renewals.ask` decides: the policy ``renewals`` and
the state of the contract. A refusal says after how many days asking again makes sense
(RetryCounter).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from pki.identifiers import PCID
from pki.profiles import Role
from services.ca.validity import validity
from services.common.events import Event
from services.common.party import Party
from v2g.certificate_update import MOST_DAYS, NEVER, NEXT_TIME

from .contracts import Contracts, show
from .store import (
    ContractRow,
    GenerationRow,
    ending_before,
    generations,
    half_renewed,
)

# A renewal that would not last for this much longer than what there is, is none; nor by a
# quarter of its life, where that is short.
WORTH_IT = timedelta(days=1)


@dataclass(frozen=True)
class Renewal:
    """What became of the wish for a new certificate; ``retry_days`` as in RetryCounter."""

    renewed: bool
    code: str
    reason: str
    retry_days: int = NEXT_TIME
    generation: int | None = None


# How a contract ended -> what its car is told.
_ENDED: Mapping[str, str] = {
    "revoked": "contract_revoked",
    "cancelled": "contract_cancelled",
}


def newest(known: Sequence[GenerationRow]) -> GenerationRow:
    """The newest certificate of an active contract: one that was revoked before it was in use
    is none, but its number is used up."""
    return next(one for one in reversed(known) if one.status != "revoked")


class Renewals:
    def __init__(self, party: Party, contracts: Contracts) -> None:
        self.party = party
        self.contracts = contracts
        self.before = timedelta(days=int(party.config.options["renewal_before_days"]))
        self._under_way: set[str] = set()

    # ------------------------------------------------------------------ rounds

    async def in_time(self) -> None:
        """A round: complete renewals that were left half way, renew what ends soon, and take
        what has expired for good out of the pool."""
        half_way = await self.party.database.read(half_renewed)

        async def finish(found: GenerationRow) -> bool:
            await self._finish(found)
            return True

        await self.party.take_up(
            (found for found in half_way if found.emaid not in self._under_way),
            finish,
            lambda found: f"generation {found.number} of the contract {found.emaid}",
        )
        now = self.party.clock.now()
        ending = await self.party.database.read(
            lambda session: ending_before(session, now + self.before)
        )
        await self.party.take_up(
            ((row, found) for row, found in ending if row.emaid not in self._under_way),
            self._ending,
            lambda pair: f"the renewal of the contract {pair[0].wire}",
        )

    async def _ending(self, pair: tuple[ContractRow, GenerationRow]) -> bool:
        """Whether anything was due."""
        row, present = pair
        # Where the order says when the certificate ends, it ends.
        on_purpose = row.valid_from is not None or row.valid_to is not None
        policy = self.party.config.policy["renewals"]
        due = present.not_after - self._before(row, present) <= self.party.clock.now()
        if policy != "never" and due and not on_purpose and self._lasts_longer(row, present):
            known = await self.contracts.generations(row)
            if newest(known).number != present.number:  # the next one is half way
                return False
            await self.renew(row, present, known[-1].number + 1)
            return True
        if row.in_pool and not on_purpose and present.not_after <= self.party.clock.now():
            self.party.recorder.record(
                Event(
                    kind="state",
                    name="contract expired",
                    sender=self.party.config.name,
                    receiver=self.party.config.name,
                    summary=f"The certificate of the contract {row.wire} ended at "
                    f"{present.not_after:%F}: it leaves the pool",
                    data={"emaid": row.wire, "pcid": row.pcid},
                )
            )
            await self.contracts.leave_pool(row)
            return True
        return False

    # ---------------------------------------------------------------- requests

    async def ask(
        self, emaid: str, shown: str | None, provisioning: str | None, *, forced: bool = False
    ) -> Renewal:
        """A wish for a new certificate: of a car that showed the certificate ``shown``
        (fingerprint), or since the car has the provisioning certificate ``provisioning`` now.

        ``forced`` is our own decision: then only the contract's end stands against it.
        Refusal 404 where there is no such contract.
        """
        row = await self.contracts.get(emaid)
        known = await self.contracts.generations(row)
        decision = self._decide(row, known, shown, provisioning, forced=forced)
        if not decision.renewed:
            return self._told(row, decision)
        present = newest(known)
        self._under_way.add(row.emaid)
        try:
            async with self.party.turns:
                if present.status == "certified":  # half way: that one first
                    await self._finish(present)
                    return self._told(
                        row, Renewal(True, "renewed", "it was under way", 0, present.number)
                    )
                if decision.code == "waiting":
                    await self.contracts.have_signed(row, present)
                    return self._told(row, decision)
                older = next((one for one in known if one.fingerprint == shown), present)
                # By the number that was decided on: many at once are one renewal.
                made = await self.renew(row, older, known[-1].number + 1)
        finally:
            self._under_way.discard(row.emaid)
        return self._told(row, Renewal(True, "renewed", decision.reason, 0, made.number))

    def _decide(
        self,
        row: ContractRow,
        known: list[GenerationRow],
        shown: str | None,
        provisioning: str | None,
        *,
        forced: bool,
    ) -> Renewal:
        if row.status in _ENDED:
            return Renewal(False, _ENDED[row.status], f"the contract is {row.status}", NEVER)
        if row.status != "active":
            return Renewal(False, "contract_incomplete", "the contract is not complete yet")
        present = newest(known)
        if shown is not None:
            mine = next((one for one in known if one.fingerprint == shown), None)
            if mine is None:
                return Renewal(
                    False,
                    "other_certificate",
                    f"the certificate that was shown ({shown[:16]}…) is not this contract's",
                    NEVER,
                )
            if mine.status == "revoked":
                return Renewal(
                    False, "contract_revoked", "the certificate that was shown is revoked", NEVER
                )
            if present.update_for == shown:
                return Renewal(True, "waiting", "it waits in the pool", 0, present.number)
            if mine.number != present.number:
                return Renewal(True, "missed", "the car has missed a renewal")
        if row.ends is not None and row.ends <= self.party.clock.now():
            return Renewal(False, "contract_ended", f"the contract ended at {row.ends:%F}", NEVER)
        if forced:
            return Renewal(True, "forced", "its operator wants it")
        if provisioning is not None:
            if provisioning == present.recipient:
                return Renewal(False, "same_key", "it is encrypted for that key already", 1)
            return Renewal(True, "new_provisioning_key", "the car has a new provisioning key")
        return self._by_policy(row, present)

    def _before(self, row: ContractRow, present: GenerationRow) -> timedelta:
        """How long before its end a certificate is renewed: never in the first half of its
        life, but where its validity was ordered."""
        if row.valid_from is not None or row.valid_to is not None:
            return self.before
        return min(self.before, (present.not_after - present.issued_at) / 2)

    def _by_policy(self, row: ContractRow, present: GenerationRow) -> Renewal:
        policy = self.party.config.policy["renewals"]
        if policy == "never":
            return Renewal(
                False, "no_renewals", "this operator renews no contracts (renewals=never)", NEVER
            )
        before = self._before(row, present)
        early = present.not_after - before - self.party.clock.now()
        if policy == "in-time" and early > timedelta():
            days = min(MOST_DAYS, math.ceil(early / timedelta(days=1)))
            return Renewal(
                False,
                "too_early",
                f"the certificate is good until {present.not_after:%F %T}Z; it is renewed from "
                f"{before.days} days before that on",
                days,
            )
        if policy == "in-time" and not self._lasts_longer(row, present):
            return Renewal(
                False,
                "contract_ends",
                "a new certificate would not last longer than the present one",
                NEVER if row.ends is not None else 1,
            )
        return Renewal(True, "due", "the certificate ends soon")

    def _lasts_longer(self, row: ContractRow, present: GenerationRow) -> bool:
        """Whether a certificate that is issued now would outlast the present one."""
        issuer = self.contracts.ca.authority(self.party.issuer(Role.CONTRACT) or Role.CONTRACT)
        last = validity(self.party, Role.CONTRACT, issuer.certificate).last
        gain = min(WORTH_IT, (present.not_after - present.issued_at) / 4)
        return self._end(row, last) >= present.not_after + max(gain, timedelta(seconds=1))

    def _end(self, row: ContractRow, last: datetime) -> datetime:
        return last if row.ends is None else min(last, row.ends)

    def _told(self, row: ContractRow, decision: Renewal) -> Renewal:
        self.party.recorder.record(
            Event(
                kind="verdict",
                name="renewal",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                outcome="ok" if decision.renewed else "refused",
                summary=f"{self.party.config.title}: {decision.code}, {decision.reason}",
                data={
                    "emaid": row.wire,
                    "pcid": row.pcid,
                    "code": decision.code,
                    "reason": decision.reason,
                    "retry_days": decision.retry_days,
                },
            )
        )
        return decision

    # ------------------------------------------------------------------- steps

    async def renew(self, row: ContractRow, older: GenerationRow, number: int) -> GenerationRow:
        """Issue generation ``number``, for a car that has ``older``; signed and in the pool when
        this returns, else half way until a later round."""
        recipient = await self.contracts.provisioning(PCID.parse(row.pcid, strict=False))
        await self.contracts.issue_generation(row, number, recipient, older)
        made = next(one for one in await self.contracts.generations(row) if one.number == number)
        await self._finish(made)
        return made

    async def _finish(self, made: GenerationRow) -> None:
        """Have a new generation signed and make it the contract's present one."""
        row = await self.contracts.get(made.emaid)
        known = await self.contracts.generations(row)
        if not any((one.number, one.status) == (made.number, "certified") for one in known):
            return  # revoked meanwhile, or somebody else was first
        await self.contracts.have_signed(row, made)
        told = self.party.recorder.stamped(
            Event(
                kind="state",
                name="contract renewed",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"Certificate {made.number} of the contract {row.wire}, good until "
                f"{made.not_after:%F}, waits in the pool for the car {row.pcid}",
                data={
                    "emaid": row.wire,
                    "pcid": row.pcid,
                    "generation": made.number,
                    "fingerprint": made.fingerprint,
                    "update_for": made.update_for,
                },
            )
        )

        def change(session: Session) -> ContractRow:
            contract = session.get_one(ContractRow, made.emaid)
            found = session.get_one(GenerationRow, (made.emaid, made.number))
            if contract.status == "active" and found.status == "certified":
                for one in generations(session, made.emaid):
                    one.status = "superseded" if one.status == "active" else one.status
                found.status = "active"
                show(contract, found)
                self.party.database.tell(session, told)
            return contract

        row = await self.party.database.write(change)
        if row.status != "active":  # ended while this was under way
            await self.contracts.leave_pool(row)
