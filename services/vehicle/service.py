"""The cars of one garage: built by a maker, each with keys that never leave it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509
from sqlalchemy import delete
from sqlalchemy.orm import Session

from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from services.common import answers
from services.common.certificates import b64, from_pem, pem
from services.common.errors import PartyRefused, Refusal
from services.common.events import Event
from services.common.keystore import CountedKey
from services.common.party import Party
from services.ecosystem import EcosystemError
from v2g import exi
from v2g.certificate_installation import RootId, build_request
from v2g.certificate_update import NEVER, NEXT_TIME
from v2g.messages import iso2

from .anchors import CarStores
from .cable import Cable, CableError
from .charging import Contract, EvccSession, Outcome, Wish
from .importing import take_up
from .life import Life
from .store import (
    TABLES,
    CarRow,
    InstalledRow,
    PendingRow,
    cars,
    contract_in_use,
    pending,
    pending_as,
)

# Longer than a charger lets a car queue for an outlet, seconds.
QUEUE_TIMEOUT = 130.0
# Where a session ends that has trouble with the certificate service only.
CERTIFICATE_STAGES = ("CertificateInstallationReq", "CertificateUpdateReq", "in the car")


@dataclass(frozen=True)
class Car:
    """A car with its key at hand."""

    pcid: str
    evccid: str
    chain: tuple[x509.Certificate, ...]
    v2g_roots: tuple[x509.Certificate, ...]
    key: CountedKey
    contract: Contract | None


class Garage:
    def __init__(self, party: Party) -> None:
        self.party = party
        self.stores = CarStores(party)
        # Pending cars that a request is completing right now; cars that are on a visit.
        self._under_way: set[str] = set()
        self.visiting: dict[str, str] = {}
        self.life = Life(party, self)

    async def prepare(self) -> None:
        """Build the cars that the ecosystem file puts into this garage and that are not there."""
        there = {row.pcid for row in await self.list()}
        for car in self.party.ecosystem.cars:
            if car.garage == self.party.config.name and car.pcid not in there:
                await self.build(car.oem, car.pcid)
        await take_up(self)

    async def resume(self) -> None:
        """A round: complete the cars that were left half way; what cannot be stays pending."""

        async def complete(row: PendingRow) -> bool:
            await self._complete(row)
            return True

        half_way = await self.party.database.read(pending)
        await self.party.take_up(
            (row for row in half_way if row.id not in self._under_way),
            complete,
            lambda row: f"a car of {row.oem}",
        )

    async def build(
        self, oem: str | None, pcid: str | None, key: SoftwareKey | None = None
    ) -> CarRow:
        """A new car: its key is made in it (or is ``key``, which was brought), its maker
        certifies it, the V2G roots of the day are put into it.

        The key is written down before anybody else hears of it. Where the maker's answer is
        lost, asking for the same PCID again goes on with the same key, and a later round
        completes the car anyhow.
        """
        row = await self._order(self._oem(oem), pcid, key)
        self._under_way.add(row.id)
        try:
            return await self._complete(row)
        finally:
            self._under_way.discard(row.id)

    async def _order(self, oem: str, pcid: str | None, brought: SoftwareKey | None) -> PendingRow:
        waiting = await self._ordered(oem, pcid)
        if waiting is not None:  # its key is drawn once, however often it is asked for
            return waiting
        purpose = f"car/{oem}/{pcid}" if pcid else f"car/{oem}"
        key = brought or self.party.entropy.key(purpose, self.party.edition)
        csr = b64(certificate_request(Subject(common_name=pcid or "new car"), key))

        def order(session: Session) -> PendingRow:
            # Somebody may have asked for it at the same time.
            known = _pending(session, oem, pcid)
            if known is not None:
                return known
            identifier = self.party.entropy(f"car/{oem}/id", 8).hex()
            row = PendingRow(
                id=identifier,
                oem=oem,
                wanted=pcid,
                csr=csr,
                key_reference=f"car/{identifier}/provisioning",
                ordered_at=self.party.clock.now(),
            )
            session.add(row)
            self.party.keys.put(session, row.key_reference, key)
            session.flush()
            return row

        return await self.party.database.write(order)

    async def _ordered(self, oem: str, pcid: str | None) -> PendingRow | None:
        """The car of this PCID where it is half way already. Refusal 409: another maker's."""
        return await self.party.database.read(lambda session: _pending(session, oem, pcid))

    async def _complete(self, row: PendingRow) -> CarRow:
        """Have a car certified and put the roots into it; Refusal where that fails. What the
        maker will not build is forgotten, all else stays pending."""
        party = self.party
        maker = party.client(row.oem)
        roots = await self.stores.from_maker(maker, f"{row.oem} factory")
        if not roots.anchors:
            raise Refusal(409, "no_v2g_root", f"{row.oem} has no V2G root to put into a car")
        try:
            answer = await maker.call(
                "POST",
                "/vehicles",
                name="build car",
                summary=f"A new car asks {maker.target.title} for its provisioning certificate",
                body={"csr": row.csr, "pcid": row.wanted},
            )
        except PartyRefused as refused:
            final = refused.upstream_status < 500 and refused.upstream_status not in (401, 403)
            if final and "pending" not in refused.details:
                await self._forget(row)
            raise
        built = answer.read(answers.BuiltCar)
        car = CarRow(
            pcid=built.pcid,
            evccid=f"02{party.entropy(f'evccid/{built.pcid}', 5).hex().upper()}",
            chain=pem(built.chain),
            key_reference=row.key_reference,
            built_at=party.clock.now(),
        )

        def keep(session: Session) -> CarRow:
            waiting = session.get(PendingRow, row.id)
            if waiting is None:  # somebody else completed it meanwhile
                return session.get_one(CarRow, car.pcid)
            session.delete(waiting)
            session.add(car)
            session.flush()
            self.stores.take_over(session, car.pcid, roots)
            return car

        return await party.database.write(keep)

    async def _forget(self, row: PendingRow) -> None:
        def forget(session: Session) -> None:
            session.execute(delete(PendingRow).where(PendingRow.id == row.id))
            keys = TABLES.key_row
            session.execute(delete(keys).where(keys.reference == row.key_reference))

        await self.party.database.write(forget)

    async def list(self) -> list[CarRow]:
        return await self.party.database.read(cars)

    async def get(self, pcid: str, emaid: str | None = None) -> tuple[CarRow, InstalledRow | None]:
        """A car and the contract in use, or that of ``emaid``; Refusal 404 where there is no such
        car."""

        def query(session: Session) -> tuple[CarRow | None, InstalledRow | None]:
            return session.get(CarRow, pcid), contract_in_use(session, pcid, emaid)

        row, contract = await self.party.database.read(query)
        if row is None:
            raise Refusal(404, "unknown_pcid", f"no car {pcid} is in this garage")
        return row, contract

    async def installation_request(self, pcid: str, session_id: bytes) -> bytes:
        """The CertificateInstallationReq of a car, EXI; Refusal 404."""
        row, _installed = await self.get(pcid)
        chain = from_pem(row.chain)
        roots = [RootId.of(root) for root in await self.stores.roots(pcid)]
        key = await self.party.keys.get(row.key_reference)
        return exi.encode(
            iso2.SCHEMA, build_request(session_id, chain[0], roots, key, self.party.edition)
        )

    async def charge(
        self,
        pcid: str,
        charger: str,
        energy_wh: int,
        installation: str,
        emaid: str | None = None,
    ) -> Outcome:
        """Plug the car in and charge; how it went is the answer, also when it was refused.

        Refusal 409 where the car is at a charger already, or has no contract to update; 404
        where it has no contract ``emaid``.
        """
        car = await self._car(pcid, emaid)
        if emaid is not None and car.contract is None:
            raise Refusal(404, "unknown_emaid", f"emaid: the car {pcid} has no contract {emaid}")
        if installation == "update" and car.contract is None:
            raise Refusal(409, "no_contract", f"the car {pcid} has no contract to update")
        try:
            target = self.party.ecosystem.party(charger)
        except EcosystemError as error:
            raise Refusal(422, "unknown_charger", f"charger: {error}") from None
        if target.kind != "charger":
            raise Refusal(422, "not_a_charger", f"charger: {charger} is a {target.kind}")
        if pcid in self.visiting:
            raise Refusal(409, "plugged_in", f"the car {pcid} is at a charger already")
        self.visiting[pcid] = charger
        try:
            return await self._visit(car, charger, energy_wh, installation)
        finally:
            self.visiting.pop(pcid, None)

    async def _visit(self, car: Car, charger: str, energy_wh: int, installation: str) -> Outcome:
        outlet = await self.party.client(charger).call(
            "POST",
            "/plugs",
            name="plug in",
            summary=f"The car {car.pcid} is plugged in",
            body={"evccid": car.evccid},
            timeout=QUEUE_TIMEOUT,
        )
        try:
            address = outlet.read(answers.Outlet).cable
            wish = await self._wish(car, installation)
            outcome = await self._session(car, address, energy_wh, wish)
            if not self._may_go_on(car, wish, outcome):
                return outcome
            second = await self._session(car, address, energy_wh, None)
            second.failed_before = f"{outcome.stage}: {outcome.code or outcome.reason}"
            return second
        finally:
            # A charger that went away meanwhile does not change how the session went.
            with contextlib.suppress(Refusal):
                await self.party.client(charger).call(
                    "DELETE",
                    f"/plugs/{car.evccid}",
                    name="unplug",
                    summary=f"The car {car.pcid} is unplugged",
                )

    async def _wish(self, car: Car, installation: str) -> Wish | None:
        """What the car asks the certificate service for: a contract when it has none that is
        still good, its update when it ends soon and nobody said to wait."""
        if installation != "auto":
            return {"always": Wish.INSTALLATION, "update": Wish.UPDATE}.get(installation)
        if car.contract is None:
            return Wish.INSTALLATION
        left = car.contract.ends - self.party.clock.now()
        if left <= timedelta():
            # An expired certificate asks for no update (RISE-V2G's car does the same).
            return Wish.INSTALLATION
        if left > timedelta(days=int(self.party.config.options["update_before_days"])):
            return None
        return Wish.UPDATE if await self._may_ask(car.contract) else None

    async def _may_ask(self, contract: Contract) -> bool:
        row = await self.party.database.read(
            lambda session: session.get(InstalledRow, contract.installed)
        )
        now = self.party.clock.now()
        return row is None or not (row.retry_never or (row.retry_at and now < row.retry_at))

    async def remember_retry(self, contract: Contract, retry_counter: int | None) -> None:
        """Keep what a refused update said about asking again (RetryCounter, [V2G2-696])."""

        def keep(session: Session) -> None:
            row = session.get(InstalledRow, contract.installed)
            if row is None:
                return
            row.retry_never = retry_counter == NEVER
            days = retry_counter or NEXT_TIME
            row.retry_at = self.party.clock.now() + timedelta(days=days) if days > 0 else None

        await self.party.database.write(keep)

    def _may_go_on(self, car: Car, wish: Wish | None, outcome: Outcome) -> bool:
        """Whether a car that could not install or update charges with what it has
        (installation_failed)."""
        return (
            wish is not None
            and outcome.outcome != "charged"
            and not (outcome.installed or outcome.updated)
            and outcome.stage in CERTIFICATE_STAGES
            and self.party.config.policy["installation_failed"] == "use-present"
            and car.contract is not None
            and car.contract.ends > self.party.clock.now()
        )

    async def _session(self, car: Car, address: str, energy_wh: int, wish: Wish | None) -> Outcome:
        try:
            cable = await Cable.plug_in(address)
        except CableError as broken:
            return Outcome("failed", broken.stage, "", broken.reason)
        try:
            return await EvccSession(self, car, cable, energy_wh).run(wish)
        finally:
            await cable.unplug()

    async def keep_contract(
        self, car: Car, emaid: str, chain: tuple[x509.Certificate, ...], key: SoftwareKey
    ) -> Contract:
        """Store a contract that passed the car's checks."""
        about = f"car/{car.pcid}/contract"
        reference = f"{about}/{self.party.entropy(about, 8).hex()}"
        self.party.recorder.record(
            Event(
                kind="state",
                name="contract installed",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"The car {car.pcid} stores the contract {emaid} and its key",
                data={"pcid": car.pcid, "emaid": emaid},
            )
        )

        def keep(session: Session) -> tuple[CountedKey, int]:
            row = InstalledRow(
                pcid=car.pcid,
                emaid=emaid,
                chain=pem(chain),
                key_reference=reference,
                installed_at=self.party.clock.now(),
            )
            session.add(row)
            session.flush()
            return self.party.keys.put(session, reference, key), row.id

        counted, number = await self.party.database.write(keep)
        return Contract(emaid, chain, counted, number)

    async def _car(self, pcid: str, emaid: str | None = None) -> Car:
        row, installed = await self.get(pcid, emaid)
        contract = None
        if installed is not None:
            contract = Contract(
                installed.emaid,
                from_pem(installed.chain),
                await self.party.keys.get(installed.key_reference),
                installed.id,
            )
        return Car(
            row.pcid,
            row.evccid,
            from_pem(row.chain),
            await self.stores.roots(row.pcid),
            await self.party.keys.get(row.key_reference),
            contract,
        )

    def _oem(self, name: str | None) -> str:
        if name is None:
            return self.party.config.uses["oem"]
        try:
            maker = self.party.ecosystem.party(name)
        except EcosystemError as error:
            raise Refusal(422, "unknown_oem", f"oem: {error}") from None
        if maker.kind != "oem":
            raise Refusal(422, "not_an_oem", f"oem: {name} is a {maker.kind}")
        return name


def _pending(session: Session, oem: str, pcid: str | None) -> PendingRow | None:
    known = pending_as(session, pcid) if pcid else None
    if known is not None and known.oem != oem:
        raise Refusal(409, "pcid_taken", f"pcid: {known.oem} is building {pcid}")
    return known
