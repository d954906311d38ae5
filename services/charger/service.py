"""What a charger does apart from talking to cars: its certificate, its meter, its operator."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pki.issuing import certificate_request
from pki.names import Subject
from services.ca.service import needs_renewal
from services.common import answers
from services.common.certificates import b64, from_pem, pem
from services.common.client import PartyClient
from services.common.errors import PartyRefused, PartyUnreachable, Refusal
from services.common.events import current_unit, unit_of_work
from services.common.party import Party

from .cable import Cable
from .session import Facts
from .store import CertificateRow, MeterRow, StopRow

METER = "main"
# How long a car queues for an outlet, seconds.
OUTLET_PATIENCE = 120.0


@dataclass(frozen=True)
class Plug:
    """A car that is plugged in, and the run in which that happened."""

    evccid: str
    vehicle: str
    run: str | None


class Charger:
    def __init__(self, party: Party) -> None:
        self.party = party
        self.evse_id = party.config.options["evse_id"]
        self.meter_id = self.evse_id.replace("*", "")[:32]
        self.cable = Cable(self)
        self.plugs: dict[str, Plug] = {}
        self._outlets = asyncio.Semaphore(int(party.config.options["outlets"]))

    @property
    def cpo(self) -> PartyClient:
        return self.party.uses("cpo")

    async def prepare(self) -> None:
        await self._prepare_certificate()
        await self.cable.open()

    async def _prepare_certificate(self) -> None:
        """Our V2G certificate, renewed when less than a third of its life is left."""
        row = await self.certificate()
        if row is not None and not needs_renewal(from_pem(row.chain)[0], self.party.clock.now()):
            return
        reference = f"secc/{self.party.clock.now():%Y%m%d%H%M%S}"
        key = await self.party.keys.generate(reference, self.party.edition)
        request = certificate_request(Subject(common_name=self.evse_id), key)
        answer = await self.cpo.call(
            "POST",
            "/charger-certificates",
            name="certificate request",
            summary=f"{self.party.config.title} asks its operator for a V2G certificate",
            body={"evse_id": self.evse_id, "csr": b64(request)},
        )
        chain = answer.read(answers.Chain).chain

        def keep(session: Session) -> None:
            session.add(
                CertificateRow(
                    key_reference=reference,
                    chain=pem(chain),
                    not_after=chain[0].not_valid_after_utc,
                )
            )

        await self.party.database.write(keep)

    async def certificate(self) -> CertificateRow | None:
        """Our newest certificate."""
        query = select(CertificateRow).order_by(CertificateRow.id.desc()).limit(1)
        return await self.party.database.read(lambda session: session.scalars(query).first())

    # --------------------------------------------------------------- plugging

    async def plug_in(self, evccid: str, vehicle: str) -> Plug:
        """A car takes an outlet, when one is free; its session follows over the cable.

        Refusal 409 when none gets free in time, or when this car is plugged in already.
        """
        if evccid in self.plugs:
            raise Refusal(409, "plugged_in", f"the car {evccid} is plugged in already")
        try:
            await asyncio.wait_for(self._outlets.acquire(), OUTLET_PATIENCE)
        except TimeoutError:
            raise Refusal(
                409, "no_outlet", f"no outlet got free within {OUTLET_PATIENCE:g} s"
            ) from None
        self.plugs[evccid] = Plug(evccid, vehicle, current_unit().run)
        return self.plugs[evccid]

    def unplug(self, evccid: str) -> None:
        """The car leaves its outlet; a second time changes nothing."""
        if self.plugs.pop(evccid, None) is not None:
            self._outlets.release()

    # ---------------------------------------------------------------- metering

    def timestamp(self) -> int:
        """EVSETimeStamp, TMeter: seconds since 1970, ecosystem time."""
        return int(self.party.clock.now().timestamp())

    async def meter(self) -> int:
        """The meter's register in Wh."""
        row = await self.party.database.read(lambda session: session.get(MeterRow, METER))
        return row.reading_wh if row else 0

    async def record_start(self, facts: Facts) -> str:
        """Tell the operator that a session charges; its record's id."""
        answer = await self.cpo.call(
            "POST",
            "/sessions",
            name="session starts",
            summary=f"{facts.emaid} begins to charge at {self.evse_id}",
            body={
                "evse_id": self.evse_id,
                "session_id": facts.session_id.hex().upper(),
                "emaid": facts.emaid,
                "authorization_reference": facts.authorization,
                "meter_start_wh": facts.meter_start_wh,
            },
        )
        return answer.read(answers.Session).id

    async def record_stop(
        self, record: str, meter_stop_wh: int, delivered_wh: int, receipts: list[bytes]
    ) -> None:
        """Advance the meter and tell the operator; if it cannot be reached, later."""
        stop = StopRow(
            record=record,
            meter_stop_wh=meter_stop_wh,
            receipts=[b64(receipt) for receipt in receipts],
            run=current_unit().run,
        )

        def keep(session: Session) -> None:
            meter = session.get(MeterRow, METER)
            if meter is None:
                meter = MeterRow(id=METER, reading_wh=0)
                session.add(meter)
            meter.reading_wh += delivered_wh
            session.merge(stop)

        await self.party.database.write(keep)
        await self._confirm(stop)

    async def _confirm(self, stop: StopRow) -> None:
        try:
            await self.cpo.call(
                "POST",
                f"/sessions/{stop.record}/stop",
                name="session stops",
                summary=f"Charging ended at {stop.meter_stop_wh} Wh, {len(stop.receipts)} receipts",
                body={"meter_stop_wh": stop.meter_stop_wh, "receipts": stop.receipts},
            )
        except PartyUnreachable:
            return
        except PartyRefused as refused:
            if refused.upstream_status >= 500 or refused.upstream_status in (401, 403):
                return

        def forget(session: Session) -> None:
            found = session.get(StopRow, stop.record)
            if found is not None:
                session.delete(found)

        await self.party.database.write(forget)

    async def confirm_stops(self) -> None:
        """A round: tell the operator about sessions whose end it has not confirmed."""
        stops: list[Any] = await self.party.database.read(
            lambda session: list(session.scalars(select(StopRow)))
        )
        for stop in stops:
            with unit_of_work(stop.run):
                await self._confirm(stop)
                await self.party.database.flush()
