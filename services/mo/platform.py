"""Contracts that are ordered over the platform, for an operator that lets it make them.

Who orders so is a client of the provisioning service that speaks for this operator's provider
id. Such contracts have one account of their own; an order for an EMAID that there is, with
another end, is a renewal: "the old contract data is replaced by the new one".
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from services.common.errors import Refusal
from services.common.party import Party

from .contracts import Contracts
from .renewals import Renewals
from .store import ContractRow, DriverRow

DRIVER = "platform"


class PlatformOrders:
    def __init__(self, party: Party, contracts: Contracts, renewals: Renewals) -> None:
        self.party = party
        self.contracts = contracts
        self.renewals = renewals

    async def order(
        self, emaid_text: str, pcid: str, begins: datetime | None, ends: datetime | None
    ) -> tuple[ContractRow, bool]:
        """A contract in the pool for a car, and whether it is new; the same order again changes
        nothing. Refusal 409 for an EMAID of another car, or a contract that was ended.

        A beginning to come is that of the certificate; one that is past means now.
        """
        emaid = self.contracts.emaid(emaid_text)
        ends = ends.replace(microsecond=0) if ends else None
        known = await self.party.database.read(
            lambda session: session.get(ContractRow, emaid.normal)
        )
        if known is not None and known.pcid == pcid.upper():
            return await self._again(known, ends), False
        now = self.party.clock.now()
        return await self.contracts.sign(
            await self._driver(now),
            pcid,
            emaid_text,
            ends,
            valid_from=begins if begins is not None and begins > now else None,
        )

    async def _again(self, row: ContractRow, ends: datetime | None) -> ContractRow:
        if row.status in ("revoked", "cancelled"):
            raise Refusal(409, "contract_ended", f"emaid: the contract {row.wire} is {row.status}")
        if ends is not None and ends <= self.party.clock.now():
            raise Refusal(422, "ends_in_the_past", f"ends: {ends.isoformat()} is past")
        if row.status != "active":  # ordered before and left half way
            row, _ = await self.contracts.sign(row.driver, row.pcid, row.wire, row.ends)
        if ends == row.ends:
            return row

        def change(session: Session) -> None:
            session.get_one(ContractRow, row.emaid).ends = ends

        await self.party.database.write(change)
        renewal = await self.renewals.ask(row.wire, None, None, forced=True)
        if not renewal.renewed:
            raise Refusal(409, renewal.code, f"emaid: {row.wire}: {renewal.reason}")
        return await self.contracts.get(row.wire)

    async def _driver(self, now: datetime) -> str:
        """The account of all contracts that were ordered so."""
        currency = "EUR"

        def keep(session: Session) -> None:
            if session.get(DriverRow, DRIVER) is None:
                session.add(
                    DriverRow(
                        id=DRIVER,
                        name="Contracts ordered over the platform",
                        currency=currency,
                        since=now,
                    )
                )

        await self.party.database.write(keep)
        return DRIVER

    async def revoke(self, emaid_text: str, mark: str) -> ContractRow:
        """A contract leaves the contract pool: revoke it, if the certificate of this fingerprint
        is one of its. Refusal 404 where it was not issued here."""
        row = await self.contracts.get(emaid_text)
        issued = {found.fingerprint for found in await self.contracts.generations(row)}
        if mark.lower() not in issued:
            raise Refusal(
                404, "not_issued_here", f"emaid: this certificate of {row.wire} is not issued here"
            )
        return await self.contracts.revoke(row.wire, "cessationOfOperation")
