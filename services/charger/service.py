"""What a charger does apart from talking to cars: its certificate, its meter, its operator.

What a car signed for is written down before the car hears that its receipt was taken, and
the meter counts it in the same write: a charger that dies in mid-session bills what was
signed when it starts again. The end of a session is written down first and told to the
operator right after, by a task of its own; a later round does what that one could not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from pki.chain import RevocationPolicy
from pki.findings import Verdict
from pki.issuing import certificate_request
from pki.names import Subject
from pki.profiles import Role
from services.ca.validity import life, needs_renewal
from services.common import answers
from services.common.auth import Caller
from services.common.certificates import b64, from_pem, pem, read_der
from services.common.client import PartyClient
from services.common.errors import PartyRefused, PartyUnreachable, Refusal
from services.common.events import Event, current_unit, unit_of_work
from services.common.jobs import did
from services.common.judging import Judge, unanchored
from services.common.party import Party
from services.common.trust_stores import Offer, OfferedStore

from .cable import Cable
from .session import CONFIRMATION_PATIENCE, Facts
from .store import (
    METER,
    CertificateRow,
    MeterRow,
    OpenRow,
    StopRow,
    advance,
    ended,
    open_sessions,
    stops,
)

# How long a car queues for an outlet, seconds.
OUTLET_PATIENCE = 120.0
# How long an outlet is kept for a car that says nothing on the cable, seconds.
PLUG_PATIENCE = 60.0
# A car waits 5 s for its PowerDeliveryRes.
START_TIMEOUT = 4.0


@dataclass
class Plug:
    """A car that is plugged in, the run and the call with which that happened, its connections;
    ``quiet_since`` (monotonic seconds) counts while there is none."""

    evccid: str
    vehicle: str
    run: str | None
    cause: str | None = None
    connections: set[asyncio.Task[Any]] = field(default_factory=set)
    quiet_since: float = field(default_factory=time.monotonic)

    def connected(self, task: asyncio.Task[Any]) -> None:
        self.connections.add(task)

    def disconnected(self, task: asyncio.Task[Any]) -> None:
        self.connections.discard(task)
        self.quiet_since = time.monotonic()


class Charger:
    def __init__(self, party: Party) -> None:
        self.party = party
        self.evse_id = party.config.options["evse_id"]
        self.meter_id = self.evse_id.replace("*", "")[:32]
        self.cable = Cable(self)
        self.judge = Judge(party, self._operators_anchors)
        self.plugs: dict[str, Plug] = {}
        self._outlets = asyncio.Semaphore(int(party.config.options["outlets"]))
        self._confirming: dict[str, asyncio.Task[None]] = {}
        party.at_hold.append(self._stop)

    @property
    def cpo(self) -> PartyClient:
        return self.party.uses("cpo")

    async def prepare(self) -> None:
        await self._end_abandoned()
        await self.renew_certificate()
        await self.judge.prepare()
        await self.cable.open()

    async def close(self) -> None:
        """End the sessions; what is being told to the operator gets a while to arrive."""
        await self.cable.close()
        under_way = list(self._confirming.values())
        if under_way:
            _done, late = await asyncio.wait(under_way, timeout=CONFIRMATION_PATIENCE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _stop(self) -> None:
        """Nobody is plugged in any more, and nobody is told of it."""
        await self.cable.end_sessions()
        under_way = list(self._confirming.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        for plug in list(self.plugs.values()):
            self._release(plug)

    async def _end_abandoned(self) -> None:
        """Sessions that a former process left open: they ended where their cars last signed."""

        def end(session: Session) -> None:
            for row in open_sessions(session):
                ended(session, row)

        await self.party.database.write(end)

    async def _operators_anchors(self) -> Offer:
        """What the operator has its chargers trust."""
        answer = await self.cpo.call(
            "GET",
            "/charger-anchors",
            name="anchors",
            summary=f"{self.party.config.title} asks its operator which roots to trust",
        )
        return answer.read(OfferedStore).offer(self.cpo.target.name)

    async def unknown_root(self, chain: Sequence[bytes], emaid: str) -> Verdict | None:
        """A charger that trusts only its own store (policy ``unknown_root``): the verdict that a
        contract's root is not in it. None: the operator is to judge, also what is unreadable."""
        if self.party.config.policy["unknown_root"] == "ask":
            return None
        try:
            leaf, *issuers = (read_der(der, "ContractSignatureCertChain") for der in chain)
        except Refusal:
            return None
        verdict = await self.judge.verdict(
            leaf,
            issuers,
            role=Role.CONTRACT,
            revocation=RevocationPolicy.IGNORE,
            what=f"the root of the contract certificate of {emaid}, by the charger's own store",
        )
        return verdict if unanchored(verdict) else None

    async def renew_certificate(self) -> None:
        """A round: our V2G certificate, renewed when less than a third of its life is left."""
        now, usual = self.party.clock.now(), life(self.party, Role.SECC)
        rows = await self._certificates()
        if any(not needs_renewal(from_pem(row.chain)[0], now, usual) for row in rows):
            return
        # The key of an attempt that failed is used by the next one.
        reference = f"secc/{rows[0].id + 1 if rows else 1}"
        key = await self.party.keys.get_or_generate(reference, self.party.edition)
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
        did(f"V2G certificate until {chain[0].not_valid_after_utc:%F}")

    async def certificate(self) -> CertificateRow | None:
        """Our newest certificate that is valid now, else our newest."""
        now, rows = self.party.clock.now(), await self._certificates()
        for row in rows:
            leaf = from_pem(row.chain)[0]
            if leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
                return row
        return rows[0] if rows else None

    async def _certificates(self) -> list[CertificateRow]:
        """Our certificates, newest first."""
        query = select(CertificateRow).order_by(CertificateRow.id.desc())
        return await self.party.database.read(lambda session: list(session.scalars(query)))

    # --------------------------------------------------------------- plugging

    async def plug_in(self, evccid: str, vehicle: str) -> Plug:
        """A car takes an outlet, when one is free; its session follows over the cable.

        The same owner gets the same plug again. Refusal 409 when no outlet gets free in
        time, or when somebody else plugged this car in.
        """
        if (plug := self._plugged(evccid, vehicle)) is not None:
            return plug
        try:
            await asyncio.wait_for(self._outlets.acquire(), OUTLET_PATIENCE)
        except TimeoutError:
            raise Refusal(
                409, "no_outlet", f"no outlet got free within {OUTLET_PATIENCE:g} s"
            ) from None
        try:
            # It may have been plugged in while this call queued.
            plug = self._plugged(evccid, vehicle)
        except Refusal:
            self._outlets.release()
            raise
        if plug is not None:
            self._outlets.release()
            return plug
        unit = current_unit()
        self.plugs[evccid] = Plug(evccid, vehicle, unit.run, unit.cause)
        return self.plugs[evccid]

    def _plugged(self, evccid: str, vehicle: str) -> Plug | None:
        plug = self.plugs.get(evccid)
        if plug is None:
            return None
        if plug.vehicle != vehicle:
            raise Refusal(409, "plugged_in", f"the car {evccid} is plugged in by another party")
        plug.run, plug.cause = current_unit().run, current_unit().cause
        if not plug.connections:
            plug.quiet_since = time.monotonic()
        return plug

    async def unplug(self, evccid: str, caller: Caller) -> None:
        """The car leaves its outlet; a second time changes nothing. Its session is over first,
        unless that takes too long. Refusal 403 when it is not the caller's car."""
        plug = self.plugs.get(evccid)
        if plug is None:
            return
        if not caller.is_admin and plug.vehicle != caller.client:
            raise Refusal(403, "not_yours", f"{caller.client} did not plug in the car {evccid}")
        if plug.connections:
            await asyncio.wait(plug.connections, timeout=CONFIRMATION_PATIENCE)
        self._release(plug)

    async def release_quiet(self) -> None:
        """A round: free the outlets of cars that have said nothing for long; whoever plugged
        them in may be gone."""
        now = time.monotonic()
        for plug in list(self.plugs.values()):
            if plug.connections or now - plug.quiet_since < PLUG_PATIENCE:
                continue
            with unit_of_work(plug.run):
                self._release(plug)
                self.party.recorder.record(
                    Event(
                        kind="state",
                        name="outlet released",
                        sender=self.party.config.name,
                        receiver=plug.vehicle,
                        outcome="failed",
                        summary=f"The car {plug.evccid} said nothing on the cable for "
                        f"{PLUG_PATIENCE:g} s",
                        data={"evccid": plug.evccid},
                    )
                )
                await self.party.database.flush()

    def _release(self, plug: Plug) -> None:
        if self.plugs.get(plug.evccid) is plug:
            del self.plugs[plug.evccid]
            self._outlets.release()

    # ---------------------------------------------------------------- metering

    def timestamp(self) -> int:
        """EVSETimeStamp, TMeter: seconds since 1970, ecosystem time."""
        return int(self.party.clock.now().timestamp())

    async def meter(self) -> int:
        """The meter's register in Wh."""
        row = await self.party.database.read(lambda session: session.get(MeterRow, METER))
        return row.reading_wh if row else 0

    async def record_start(self, facts: Facts) -> int:
        """Write down that a session charges and tell the operator; the meter's reading.

        Refusal when the operator does not take it: nothing is open then.
        """
        session_id = facts.session_id.hex().upper()

        run = current_unit().run

        def begin(session: Session) -> int:
            reading = advance(session, 0)
            session.add(
                OpenRow(
                    session_id=session_id,
                    meter_start_wh=reading,
                    vouched_wh=reading,
                    run=run,
                )
            )
            return reading

        reading = await self.party.database.write(begin)
        try:
            answer = await self.cpo.call(
                "POST",
                "/sessions",
                name="session starts",
                summary=f"{facts.emaid} begins to charge at {self.evse_id}",
                body={
                    "evse_id": self.evse_id,
                    "session_id": session_id,
                    "emaid": facts.emaid,
                    "authorization_reference": facts.authorization,
                    "meter_start_wh": reading,
                },
                timeout=START_TIMEOUT,
            )
            record = answer.read(answers.Session).id
        except Refusal:
            await self.party.database.write(
                lambda session: session.delete(session.get_one(OpenRow, session_id))
            )
            raise

        def name(session: Session) -> None:
            session.get_one(OpenRow, session_id).record = record

        await self.party.database.write(name)
        return reading

    async def record_receipt(self, session_id: bytes, reading_wh: int, receipt: bytes) -> None:
        """Write down what a car signed for; the meter counts it in the same write."""
        text = b64(receipt)

        def keep(session: Session) -> None:
            row = session.get_one(OpenRow, session_id.hex().upper())
            advance(session, reading_wh - row.vouched_wh)
            row.vouched_wh = reading_wh
            row.first_receipt = row.first_receipt or text
            row.last_receipt = text

        await self.party.database.write(keep)

    async def record_stop(self, session_id: bytes, unsigned_wh: int) -> asyncio.Task[None] | None:
        """Write down that a session ended, and begin to tell the operator.

        ``unsigned_wh`` was delivered after the last receipt: the meter counts it, nobody is
        billed for it. Returns the telling; None when the session never began.
        """

        def end(session: Session) -> StopRow | None:
            row = session.get(OpenRow, session_id.hex().upper())
            if row is None:
                return None
            advance(session, unsigned_wh)
            return ended(session, row)

        if unsigned_wh:
            self.party.recorder.record(
                Event(
                    kind="ledger",
                    name="energy without a receipt",
                    sender=self.party.config.name,
                    receiver=self.cpo.target.name,
                    outcome="failed",
                    summary=f"{unsigned_wh} Wh were delivered and not signed for: nobody pays them",
                    data={"session": session_id.hex(), "energy_wh": unsigned_wh},
                )
            )
        stop = await self.party.database.write(end)
        return None if stop is None else self._confirm_now(stop)

    def _confirm_now(self, stop: StopRow) -> asyncio.Task[None]:
        """Begin to tell the operator of ``stop``, unless somebody is doing that."""
        if stop.record not in self._confirming:
            task = asyncio.create_task(self._confirm(stop))
            self._confirming[stop.record] = task
            task.add_done_callback(lambda _task: self._confirming.pop(stop.record))
        return self._confirming[stop.record]

    async def _confirm(self, stop: StopRow) -> None:
        # It may outlive the connection on which the session was: a unit of its own.
        with unit_of_work(stop.run):
            try:
                await self.cpo.call(
                    "POST",
                    f"/sessions/{stop.record}/stop",
                    name="session stops",
                    summary=f"Charging ended at {stop.meter_stop_wh} Wh, "
                    f"{len(stop.receipts)} receipts",
                    body={"meter_stop_wh": stop.meter_stop_wh, "receipts": stop.receipts},
                )
            except PartyRefused as refused:
                if refused.upstream_status < 500 and refused.upstream_status not in (401, 403):
                    await self._keep_refused(stop, refused.message)
            except PartyUnreachable:
                pass
            else:
                await self._forget(stop)
            await self.party.database.flush()

    async def _forget(self, stop: StopRow) -> None:
        def change(session: Session) -> None:
            # Told twice at a time, it may be forgotten already.
            if (row := session.get(StopRow, stop.record)) is not None:
                session.delete(row)

        await self.party.database.write(change)

    async def _keep_refused(self, stop: StopRow, reason: str) -> None:
        """The operator will not take this end: it is not told again, and it is not lost."""

        def change(session: Session) -> None:
            if (row := session.get(StopRow, stop.record)) is not None:
                row.status, row.reason = "refused", reason[:512]

        await self.party.database.write(change)

    async def confirm_stops(self) -> None:
        """A round: tell the operator about sessions whose end it has not confirmed."""
        for stop in await self.party.database.read(lambda session: stops(session, "unconfirmed")):
            await asyncio.wait({self._confirm_now(stop)})

    async def unfinished(self) -> list[str]:
        """The sessions (hex) whose end the operator is still to hear of."""

        def query(session: Session) -> list[str]:
            going_on = {row.session_id for row in open_sessions(session)}
            return sorted(going_on | {row.session_id for row in stops(session, "unconfirmed")})

        return await self.party.database.read(query)

    async def refused_stops(self) -> Sequence[StopRow]:
        """Ends of sessions that the operator refused."""
        return await self.party.database.read(lambda session: stops(session, "refused"))
