"""Drivers and their accounts: what they paid in, what they owe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.common.errors import Refusal
from services.common.events import Event
from services.common.money import decimal
from services.common.party import Party

from .store import DriverRow, InvoiceRow, PostingRow, account_cents, balances, post


def driver_account(driver: str) -> str:
    return f"driver:{driver}"


def cpo_account(cpo: str) -> str:
    return f"cpo:{cpo}"


BANK, REVENUE = "bank", "revenue"


@dataclass(frozen=True)
class Driver:
    """A driver and what is on the account, in cents (negative: owed)."""

    id: str
    name: str
    blocked: bool
    balance_cents: int


class Accounts:
    def __init__(self, party: Party) -> None:
        self.party = party

    async def open(self, name: str, deposit_cents: int, currency: str) -> Driver:
        """A new driver with a first deposit."""
        driver = f"D{self.party.entropy('driver', 5).hex().upper()}"
        now = self.party.clock.now()
        told = self.party.recorder.stamped(
            Event(
                kind="ledger",
                name="deposit",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"{name} opens an account with {decimal(deposit_cents)} {currency}",
                data={"driver": driver, "cents": deposit_cents, "currency": currency},
            )
        )

        def create(session: Session) -> Driver:
            session.add(DriverRow(id=driver, name=name, currency=currency, since=now))
            session.flush()
            post(
                session,
                f"deposit:{driver}:1",
                now,
                currency,
                {BANK: deposit_cents, driver_account(driver): -deposit_cents},
                "opening deposit",
            )
            self.party.database.tell(session, told)
            return Driver(driver, name, False, deposit_cents)

        return await self.party.database.write(create)

    async def get(self, driver: str) -> Driver:
        def query(session: Session) -> Driver | None:
            row = session.get(DriverRow, driver)
            return _driver(session, row) if row else None

        found = await self.party.database.read(query)
        if found is None:
            raise Refusal(404, "unknown_driver", f"there is no driver {driver}")
        return found

    async def set_blocked(self, driver: str, blocked: bool) -> Driver:
        def change(session: Session) -> Driver:
            row = session.get(DriverRow, driver)
            if row is None:
                raise Refusal(404, "unknown_driver", f"there is no driver {driver}")
            row.blocked = blocked
            session.flush()
            return _driver(session, row)

        return await self.party.database.write(change)

    async def invoices(self, driver: str | None) -> list[InvoiceRow]:
        query = select(InvoiceRow).order_by(InvoiceRow.number)
        if driver is not None:
            query = query.where(InvoiceRow.driver == driver)
        return await self.party.database.read(lambda session: list(session.scalars(query)))

    async def ledger(self) -> dict[str, Any]:
        """All postings, what each account holds, and that together they are zero."""

        def query(session: Session) -> dict[str, Any]:
            held = balances(session)
            lines = session.scalars(select(PostingRow).order_by(PostingRow.id))
            return {
                "accounts": held,
                "total_cents": sum(held.values()),
                "postings": [
                    {
                        "entry": line.entry,
                        "account": line.account,
                        "cents": line.cents,
                        "currency": line.currency,
                        "text": line.text,
                        "at": line.at.isoformat(),
                    }
                    for line in lines
                ],
            }

        return await self.party.database.read(query)


def _driver(session: Session, row: DriverRow) -> Driver:
    # What we owe the driver is a credit on the driver's account.
    return Driver(row.id, row.name, row.blocked, -account_cents(session, driver_account(row.id)))
