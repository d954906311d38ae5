"""What happens to a car besides charging: several contracts, a sale, a theft.

A car may have contracts of several operators; one of them is its default. What it does not
need any more is removed with its key. Selling and losing a car involve its maker and its
contracts' operators: what is still to be done is written down first, and a round takes up
what a crash or an unreachable party left half way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy.orm import Session

from pki.issuing import certificate_request, read_certificate_request
from pki.names import Subject
from services.common import answers
from services.common.certificates import b64, from_pem, pem, public_key_digest, unb64
from services.common.client import PartyClient
from services.common.errors import Refusal
from services.common.events import Event
from services.common.party import Party
from services.common.statements import LOST, REKEY, SOLD, signed

from .store import CarRow, InstalledRow, SaleRow, followed, installed, normal, unfinished_sales

if TYPE_CHECKING:
    from .service import Garage


@dataclass(frozen=True)
class PoolContract:
    """One of a car's contracts as a contract pool tells it."""

    emaid: str


@dataclass(frozen=True)
class PoolCar:
    """GET /cars/{pcid} of a contract pool."""

    contracts: list[PoolContract]


@dataclass(frozen=True)
class Refresh:
    """What a car dropped since no pool has it any more, and what waits for it."""

    dropped: list[str]
    waiting: list[str]


def _key_of(csr: str | None) -> str:
    request = read_certificate_request(unb64(csr or "", "csr"))
    return public_key_digest(request.public_key)


class Life:
    def __init__(self, party: Party, garage: Garage) -> None:
        self.party = party
        self.garage = garage
        self._under_way: set[str] = set()

    async def resume(self) -> None:
        """A round: go on with the sales that were left half way, drop what has been followed by
        a newer certificate and has expired."""

        async def go_on(row: SaleRow) -> bool:
            await self._go_on(row)
            return True

        half_way = await self.party.database.read(unfinished_sales)
        await self.party.take_up(
            (row for row in half_way if row.id not in self._under_way),
            go_on,
            lambda row: f"the sale of the car {row.pcid}",
        )
        await self._drop_expired()

    # --------------------------------------------------------------- contracts

    async def contracts(self, pcid: str) -> tuple[CarRow, list[InstalledRow]]:
        """A car and all that is installed in it, newest first; Refusal 404."""
        row, _ = await self.garage.get(pcid)
        return row, await self.party.database.read(lambda session: installed(session, pcid))

    async def set_default(self, pcid: str, emaid: str | None) -> CarRow:
        """Which of its contracts a car pays with where nobody says; None: the one that was
        installed last. Refusal 404 where the car has no such contract."""
        if emaid is not None and (await self.garage.get(pcid, emaid))[1] is None:
            raise Refusal(404, "unknown_emaid", f"emaid: the car {pcid} has no contract {emaid}")
        await self.garage.get(pcid)

        def change(session: Session) -> CarRow:
            car = session.get_one(CarRow, pcid)
            car.default_emaid = normal(emaid) if emaid else None
            return car

        return await self.party.database.write(change)

    async def remove(self, pcid: str, emaid: str) -> None:
        """Remove a contract with all its certificates and keys from a car; Refusal 404."""
        _, rows = await self.contracts(pcid)
        wanted = [row for row in rows if normal(row.emaid) == normal(emaid)]
        if not wanted:
            raise Refusal(404, "unknown_emaid", f"emaid: the car {pcid} has no contract {emaid}")
        await self._drop(pcid, wanted, "it was told to")

    async def refresh(self, pcid: str) -> Refresh:
        """Over the air: drop the contracts that no pool has for the car any more (cancelled,
        revoked, moved elsewhere), and tell which ones wait to be installed."""
        _, rows = await self.contracts(pcid)
        offered: dict[str, str] = {}
        for pool in self.party.ecosystem.of_kind("ccp"):
            answer = await self.party.client(pool.name).call(
                "GET",
                f"/cars/{quote(pcid, safe='')}",
                name="contracts of the car",
                summary=f"The car {pcid} asks which contracts there are for it",
            )
            for one in answer.read(PoolCar).contracts:
                offered[normal(one.emaid)] = one.emaid
        gone = [row for row in rows if normal(row.emaid) not in offered]
        await self._drop(pcid, gone, "no pool has it any more")
        have = {normal(row.emaid) for row in rows}
        return Refresh(
            sorted({row.emaid for row in gone}),
            sorted(emaid for key, emaid in offered.items() if key not in have),
        )

    async def _drop(self, pcid: str, rows: Sequence[InstalledRow], why: str) -> None:
        if not rows:
            return
        told = [
            self._event(
                pcid, "contract removed", f"The car {pcid} forgets {row.emaid}: {why}", row.emaid
            )
            for row in rows
        ]

        def change(session: Session) -> None:
            for row, event in zip(rows, told, strict=True):
                found = session.get(InstalledRow, row.id)
                if found is not None:
                    self.party.keys.remove(session, found.key_reference)
                    session.delete(found)
                    self.party.database.tell(session, event)
            session.flush()
            car = session.get_one(CarRow, pcid)
            left = {normal(one.emaid) for one in installed(session, pcid)}
            if car.default_emaid not in left:
                car.default_emaid = None

        await self.party.database.write(change)

    async def _drop_expired(self) -> None:
        """Certificates that a newer one of the same contract followed, once they expired."""
        now = self.party.clock.now()
        for pcid, rows in (await self.party.database.read(followed)).items():
            seen: set[str] = set()
            old = []
            for row in rows:
                if normal(row.emaid) in seen and from_pem(row.chain)[0].not_valid_after_utc <= now:
                    old.append(row)
                seen.add(normal(row.emaid))
            await self._drop(pcid, old, "it expired and has a successor")

    # -------------------------------------------------------------------- sale

    async def sell(self, pcid: str, *, keep_contract: bool, new_provisioning_key: bool) -> SaleRow:
        """Sell a car. Without ``keep_contract`` the seller's contracts are revoked by their
        operators and removed from the car; with ``new_provisioning_key`` the car gets one, under
        its PCID. What cannot be done now is done by a later round.

        Refusal 409 where the car is at a charger or is being sold already.
        """
        _, rows = await self.contracts(pcid)
        todo = [] if keep_contract else ["revoke", "forget"]
        todo += ["rekey"] if new_provisioning_key else []
        now = self.party.clock.now()

        def order(session: Session) -> SaleRow:
            if pcid in self.garage.visiting:
                raise Refusal(409, "plugged_in", f"the car {pcid} is at a charger")
            if any(one.pcid == pcid for one in unfinished_sales(session)):
                raise Refusal(409, "being_sold", f"the car {pcid} is being sold already")
            sale = SaleRow(
                id=self.party.entropy(f"sale/{pcid}", 8).hex(),
                pcid=pcid,
                keep_contract=keep_contract,
                new_provisioning_key=new_provisioning_key,
                emaids=sorted({row.emaid for row in rows}),
                todo=todo,
                begun_at=now,
                done_at=None if todo else now,
            )
            session.add(sale)
            session.flush()
            return sale

        sale = await self.party.database.write(order)
        self._under_way.add(sale.id)
        try:
            return await self._go_on(sale)
        finally:
            self._under_way.discard(sale.id)

    async def _go_on(self, sale: SaleRow) -> SaleRow:
        steps = {"revoke": self._revoke, "forget": self._forget, "rekey": self._rekey}
        for step in list(sale.todo):
            await steps[step](sale)
            sale = await self._done(sale, step)
        return sale

    async def _done(self, sale: SaleRow, step: str) -> SaleRow:
        now = self.party.clock.now()
        told = self._event(sale.pcid, "car sold", f"The car {sale.pcid} is sold", None)

        def change(session: Session) -> SaleRow:
            found = session.get_one(SaleRow, sale.id)
            found.todo = [one for one in found.todo if one != step]
            if not found.todo and found.done_at is None:
                found.done_at = now
                self.party.database.tell(session, told)
            return found

        return await self.party.database.write(change)

    async def _revoke(self, sale: SaleRow) -> None:
        """Tell the operators of the car's contracts, those that wait in the pool too."""
        waiting = (await self.refresh(sale.pcid)).waiting
        providers = {normal(emaid)[:5] for emaid in (*sale.emaids, *waiting)}
        for provider in sorted(providers):
            operator = self.party.ecosystem.by_scope("mo", provider)
            if operator is None:
                continue
            await self.party.client(operator.name).call(
                "POST",
                f"/cars/{quote(sale.pcid, safe='')}/sold",
                name="car sold",
                summary=f"The car {sale.pcid} was sold, without its contracts",
                body={"statement": await self._statement(sale.pcid, SOLD, operator.name)},
            )

    async def _forget(self, sale: SaleRow) -> None:
        _, rows = await self.contracts(sale.pcid)
        theirs = {normal(emaid) for emaid in sale.emaids}
        mine = [row for row in rows if normal(row.emaid) in theirs]
        await self._drop(sale.pcid, mine, "the car was sold")

    async def _rekey(self, sale: SaleRow) -> None:
        await self.rekey(sale.pcid)

    async def rekey(self, pcid: str) -> CarRow:
        """Give a car a new provisioning key: made in the car, certified by its maker. The new key
        is written down before the maker hears of it."""
        await self.garage.get(pcid)
        maker = self._maker(pcid)
        about = f"car/{pcid}/provisioning"
        key = self.party.entropy.key(about, self.party.edition)
        csr = b64(certificate_request(Subject(common_name=pcid), key))
        reference = f"{about}/{self.party.entropy(about, 8).hex()}"

        def order(session: Session) -> CarRow:
            car = session.get_one(CarRow, pcid)
            if car.next_csr is None:
                self.party.keys.put(session, reference, key)
                car.next_key_reference, car.next_csr = reference, csr
            return car

        car = await self.party.database.write(order)
        answer = await maker.call(
            "PUT",
            f"/vehicles/{quote(pcid, safe='')}/provisioning-key",
            name="new provisioning key",
            summary=f"The car {pcid} has a new key and asks {maker.target.title} for a certificate",
            body={
                "csr": car.next_csr,
                "statement": await self._statement(
                    pcid, f"{REKEY} {_key_of(car.next_csr)}", maker.target.name
                ),
            },
        )
        chain = answer.read(answers.BuiltCar).chain
        told = self._event(
            pcid, "provisioning key replaced", f"The car {pcid} has a new provisioning key", None
        )

        def finish(session: Session) -> CarRow:
            found = session.get_one(CarRow, pcid)
            if found.next_key_reference is not None:
                self.party.keys.remove(session, found.key_reference)
                found.key_reference = found.next_key_reference
                found.next_key_reference = found.next_csr = None
                found.chain = pem(chain)
                self.party.database.tell(session, told)
            return found

        return await self.party.database.write(finish)

    async def lost(self, pcid: str) -> CarRow:
        """The car is lost: its maker revokes its provisioning certificate and takes it out of
        the pool. The operators are told by the driver."""
        await self.garage.get(pcid)
        maker = self._maker(pcid)
        await maker.call(
            "POST",
            f"/vehicles/{quote(pcid, safe='')}/lost",
            name="car lost",
            summary=f"{maker.target.title} hears that the car {pcid} is lost",
            body={"statement": await self._statement(pcid, LOST, maker.target.name)},
        )
        now = self.party.clock.now()

        def change(session: Session) -> CarRow:
            car = session.get_one(CarRow, pcid)
            car.lost_at = car.lost_at or now
            return car

        return await self.party.database.write(change)

    async def _statement(self, pcid: str, says: str, to: str) -> dict[str, str]:
        """What the car says to a party, signed with its provisioning key."""
        row, _ = await self.garage.get(pcid)
        key = await self.party.keys.get(row.key_reference)
        return signed(self.party, key, says, pcid, to)

    def _maker(self, pcid: str) -> PartyClient:
        """Who built the car: its PCID says so."""
        maker = self.party.ecosystem.by_scope("oem", pcid[:3])
        if maker is None:
            raise Refusal(422, "unknown_oem", f"pcid: no vehicle maker has the WMI {pcid[:3]}")
        return self.party.client(maker.name)

    def _event(self, pcid: str, name: str, summary: str, emaid: str | None) -> Event:
        return self.party.recorder.stamped(
            Event(
                kind="state",
                name=name,
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=summary,
                data={"pcid": pcid} | ({"emaid": emaid} if emaid else {}),
            )
        )
