"""What a charge point operator does for its chargers, and with whom it settles.

Refusals are said in the words of each protocol: the charger needs a response code of
ISO 15118-2, a station speaks OCPP's certificateStatus, the mobility operator answers in
OCPI's words. Charge detail records are sent until they are answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from cryptography import x509
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pki.codes import ocpp_status
from pki.identifiers import EMAID, EVSEID, IdentifierError
from pki.profiles import Role
from pki.trust import Holder
from services.common import answers
from services.common.auth import Caller
from services.common.certificates import b64
from services.common.errors import PartyRefused, PartyUnreachable, Refusal, wrong_identifier
from services.common.events import Event, unit_of_work
from services.common.judging import Judge
from services.common.money import decimal, price
from services.common.party import Party
from services.common.trust_stores import HeldStore
from services.ecosystem import Tariff

from .faults import claimed
from .store import OfflineRow, SessionRow, charging_since, session_of, unsent

# A car waits 5 s for its contract, a charger gives up at 4.5 s.
INSTALLATION_TIMEOUT = 4.0
AUTHORIZATION_TIMEOUT = 10.0
# How long a charger that tells the end of a session waits for the session's record to be
# settled, seconds.
RECORD_PATIENCE = 2.0
# A session that charges for longer is asked after at its charger.
LONG_SESSION = timedelta(minutes=10)

# The mobility operator's word -> what the charger tells the car (AuthorizationRes).
AUTHORIZATION_CODES: Mapping[str, str] = {
    "ok": "OK",
    "unknown_contract": "FAILED_CertificateNotAllowedAtThisEVSE",
    "unknown_operator": "FAILED_CertificateNotAllowedAtThisEVSE",
    "contract_revoked": "FAILED_CertificateRevoked",
    "contract_cancelled": "FAILED_ContractCanceled",
    "contract_ended": "FAILED_CertificateExpired",
    "other_certificate": "FAILED_CertificateNotAllowedAtThisEVSE",
    "contract_incomplete": "FAILED",
    "foreign_currency": "FAILED",
    "account_blocked": "FAILED",
    "no_credit": "FAILED",
    "operator_unreachable": "FAILED",
}


# What an authorization of our own begins with.
OFFLINE = "offline-"


@dataclass(frozen=True)
class ContractCheck:
    """Whether a contract certificate is good, in the words of each protocol."""

    accepted: bool
    iso15118_2: str
    ocpp: str
    reason: str
    verdict: Mapping[str, Any]


@dataclass(frozen=True)
class Authorization:
    """Whether a contract may charge."""

    accepted: bool
    iso15118_2: str
    ocpi: str
    reason: str
    reference: str | None


@dataclass(frozen=True)
class ChargerStatus:
    """GET /status of a charger, as far as its operator reads it."""

    sessions: list[str]


class ChargePointOperator:
    def __init__(self, party: Party) -> None:
        assert party.config.tariff is not None
        self.party = party
        self.tariff: Tariff = party.config.tariff
        self.judge = Judge(party)
        self._sending: dict[str, asyncio.Task[SessionRow]] = {}
        party.at_hold.append(self._stop_sending)

    async def prepare(self) -> None:
        await self.judge.prepare()

    async def close(self) -> None:
        """What is being sent gets a while to arrive; the rest is sent after the next start."""
        under_way = list(self._sending.values())
        if under_way:
            _done, late = await asyncio.wait(under_way, timeout=RECORD_PATIENCE)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _stop_sending(self) -> None:
        under_way = list(self._sending.values())
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    def must_be_ours(self, caller: Caller) -> None:
        """Refuse a charger of another operator."""
        known = self.party.ecosystem.parties.get(caller.client)
        if not caller.is_admin and (
            known is None or known.uses.get("cpo") != self.party.config.name
        ):
            raise Refusal(403, "not_yours", f"{caller.client} is not a charger of this operator")

    async def charger_anchors(self) -> HeldStore:
        """Our trust store, as far as a charger has use for it."""
        store = await self.judge.keeper.fresh()
        held = self.party.trust.held[Holder.CHARGER]
        return replace(store, anchors=tuple(a for a in store.anchors if a.role in held))

    # ------------------------------------------------------------ certificates

    async def certify_charger(self, csr: str, evse_id: str) -> tuple[x509.Certificate, ...]:
        """A charger's certificate from the V2G root operator; chain, leaf first."""
        self._own_evse(evse_id)
        answer = await self.party.uses("v2g-root").call(
            "POST",
            "/certificates",
            name="certificate request",
            summary=f"{self.party.config.title} asks for a certificate for charger {evse_id}",
            body={"role": Role.SECC.value, "csr": csr},
        )
        return answer.read(answers.Chain).chain

    async def install(self, request: bytes) -> answers.Installation:
        """Pass a car's CertificateInstallationReq on to the contract pool."""
        async with self.party.turns:
            answer = await self.party.uses("ccp").call(
                "POST",
                "/installations",
                name="CertificateInstallationReq",
                summary=f"{self.party.config.title} passes the car's request on to the pool",
                body={"certificate_installation_req": b64(request)},
                timeout=INSTALLATION_TIMEOUT,
            )
        return answer.read(answers.Installation)

    async def update(self, request: bytes) -> answers.Update:
        """Pass a car's CertificateUpdateReq on to the contract pool."""
        async with self.party.turns:
            answer = await self.party.uses("ccp").call(
                "POST",
                "/updates",
                name="CertificateUpdateReq",
                summary=f"{self.party.config.title} passes the car's request on to the pool",
                body={"certificate_update_req": b64(request)},
                timeout=INSTALLATION_TIMEOUT,
            )
        return answer.read(answers.Update)

    # ----------------------------------------------------------- authorization

    async def check_contract(
        self, emaid_text: str, chain: Sequence[x509.Certificate]
    ) -> ContractCheck:
        """Judge a contract chain (PaymentDetails): chain, role, EMAID, revocation."""
        try:
            identifier: EMAID | str = EMAID.parse(emaid_text, strict=self.party.strict())
        except IdentifierError as error:
            return ContractCheck(
                False, "FAILED_CertChainError", "CertChainError", str(error), {"accepted": False}
            )
        async with self.party.turns:
            verdict = await self.judge.verdict(
                chain[0],
                chain[1:],
                role=Role.CONTRACT,
                identifier=identifier,
                revocation=self.judge.revocation("contract_revocation"),
                what=f"the contract certificate of {emaid_text}",
            )
        return ContractCheck(
            verdict.accepted,
            self.judge.iso2_code(verdict),
            ocpp_status(verdict),
            "" if verdict.accepted else verdict.reason,
            verdict.as_dict(),
        )

    async def authorize(
        self, emaid_text: str, evse_id: str, certificate_fingerprint: str
    ) -> Authorization:
        """Ask the contract's mobility operator whether it may charge here under our tariff, with
        the certificate that the car showed."""
        self._own_evse(evse_id)
        try:
            emaid = EMAID.parse(emaid_text, strict=self.party.strict())
        except IdentifierError as error:
            raise wrong_identifier(error, "emaid") from None
        operator = self.party.ecosystem.by_scope("mo", emaid.provider_id)
        if operator is None:
            return self._said(
                "NOT_ALLOWED",
                "unknown_operator",
                f"no mobility operator {emaid.provider_id} is known",
                None,
            )
        try:
            answer = await self.party.client(operator.name).call(
                "POST",
                "/authorizations",
                name="authorize",
                summary=f"May {emaid.hyphenated} charge at {evse_id} for "
                f"{self.tariff.per_kwh} {self.tariff.currency}/kWh?",
                body={
                    "emaid": emaid.wire,
                    "evse_id": evse_id,
                    "certificate_fingerprint": certificate_fingerprint,
                    "tariff": self.tariff.as_dict(),
                },
                timeout=AUTHORIZATION_TIMEOUT,
            )
            said = answer.read(answers.OperatorAuthorization)
        except (PartyUnreachable, PartyRefused) as error:
            silent = isinstance(error, PartyUnreachable) or error.upstream_status >= 500
            if silent and self.party.config.policy["operator_unreachable"] == "allow":
                return await self._offline(emaid, evse_id, certificate_fingerprint, error.message)
            # Without the operator's word nobody promised to pay.
            return self._said("NOT_ALLOWED", "operator_unreachable", error.message, None)
        return self._said(said.allowed, said.code, said.reason, said.authorization_reference)

    async def _offline(
        self, emaid: EMAID, evse_id: str, certificate: str, reason: str
    ) -> Authorization:
        """Let a car charge without its operator's word: whether that is paid, the operator's
        policy ``offline_sessions`` decides afterwards."""
        row = OfflineRow(
            reference=f"{OFFLINE}{self.party.entropy('offline', 8).hex()}",
            emaid=emaid.normal,
            evse_id=evse_id,
            certificate=certificate,
            reason=reason[:512],
            given_at=self.party.clock.now(),
        )
        await self.party.database.write(lambda session: session.add(row))
        return self._said(
            "ALLOWED", "ok", f"offline (operator_unreachable=allow): {reason}", row.reference
        )

    def _said(self, allowed: str, code: str, reason: str, reference: str | None) -> Authorization:
        if allowed != "ALLOWED" or (reference or "").startswith(OFFLINE):
            self.party.recorder.record(
                Event(
                    kind="verdict",
                    name="authorization",
                    sender=self.party.config.name,
                    receiver=self.party.config.name,
                    outcome="ok" if allowed == "ALLOWED" else "refused",
                    summary=f"{self.party.config.title}: {allowed}, {reason}",
                    data={"allowed": allowed, "code": code, "reason": reason},
                )
            )
        return Authorization(
            allowed == "ALLOWED",
            AUTHORIZATION_CODES.get(code, "FAILED"),
            allowed,
            reason,
            reference,
        )

    # ---------------------------------------------------------------- sessions

    async def start(
        self,
        charger: str,
        evse_id: str,
        session_id: str,
        emaid: str,
        authorization: str,
        meter_start_wh: int,
        run: str | None,
    ) -> SessionRow:
        """A session begins to charge; told twice it is the same one.

        Refusal 409 when this charger used the session's identifier for another contract.
        """
        self._own_evse(evse_id)
        operator = self.party.ecosystem.by_scope("mo", EMAID.parse(emaid, strict=False).provider_id)
        if operator is None:
            raise Refusal(422, "unknown_operator", f"emaid: nobody answers for {emaid}")
        offline = await self._offline_row(authorization, emaid, evse_id)
        row = SessionRow(
            id=f"{self.party.config.scope_id}-"
            f"{self.party.entropy(f'session/{charger}', 8).hex().upper()}",
            charger=charger,
            evse_id=evse_id,
            session_id=session_id.upper(),
            emaid=emaid,
            operator=operator.name,
            authorization=authorization,
            tariff=self.tariff.as_dict(),
            meter_start_wh=meter_start_wh,
            receipts=[],
            status="charging",
            offline=offline is not None,
            certificate=offline.certificate if offline else None,
            started_at=self.party.clock.now(),
            run=run,
        )

        def begin(session: Session) -> SessionRow:
            known = session_of(session, charger, row.session_id)
            if known is None:
                session.add(row)
                session.flush()
                return row
            if (known.emaid, known.authorization) != (row.emaid, row.authorization):
                raise Refusal(
                    409,
                    "session_taken",
                    f"session_id: {row.session_id} of {charger} is a session of {known.emaid} "
                    f"under authorization {known.authorization}",
                )
            return known

        return await self.party.database.write(begin)

    async def _offline_row(self, reference: str, emaid: str, evse_id: str) -> OfflineRow | None:
        """Our own authorization of that name; Refusal 409 where it is for something else."""
        if not reference.startswith(OFFLINE):
            return None
        row = await self.party.database.read(lambda session: session.get(OfflineRow, reference))
        if row is None or (row.emaid, row.evse_id) != (
            EMAID.parse(emaid, strict=False).normal,
            evse_id,
        ):
            raise Refusal(
                409,
                "unknown_authorization",
                f"authorization_reference: {reference} was not given for {emaid} at {evse_id}",
            )
        return row

    async def stop(
        self, session: str, charger: str, meter_stop_wh: int, receipts: Sequence[bytes]
    ) -> SessionRow:
        """A session ended: price it, and send its record. Stopping twice changes nothing.

        The answer does not wait long for the mobility operator: a record that is not settled
        in time is settled later.
        """
        now = self.party.clock.now()

        def change(database: Session) -> SessionRow:
            row = database.get(SessionRow, session)
            if row is None or row.charger != charger:
                raise Refusal(404, "unknown_session", f"{charger} has no session {session}")
            if row.status not in ("charging", "void"):
                return row
            if meter_stop_wh < row.meter_start_wh:
                raise Refusal(
                    422,
                    "meter_backwards",
                    f"meter_stop_wh: {meter_stop_wh} is below the start, {row.meter_start_wh}",
                )
            row.meter_stop_wh = meter_stop_wh
            row.receipts = [b64(receipt) for receipt in receipts]
            row.cost_cents = price(Tariff.from_dict(row.tariff), meter_stop_wh - row.meter_start_wh)
            row.ended_at = max(now, row.started_at + timedelta(microseconds=1))
            row.status, row.reason = "ended", ""
            return row

        row = await self.party.database.write(change)
        if row.status != "ended":
            return row
        sending = self._send_now(row)
        # What is answered must not depend on elapsed time where it is to be repeatable.
        patience = None if self.party.entropy.seeded else RECORD_PATIENCE
        await asyncio.wait({sending}, timeout=patience)
        return sending.result() if sending.done() else row

    def _send_now(self, row: SessionRow) -> asyncio.Task[SessionRow]:
        """Begin to send a session's record, unless somebody is doing that."""
        if row.id not in self._sending:
            task = asyncio.create_task(self._settled(row))
            self._sending[row.id] = task
            task.add_done_callback(lambda _task: self._sending.pop(row.id))
        return self._sending[row.id]

    async def _settled(self, row: SessionRow) -> SessionRow:
        # It may outlive the request that told of the end: a unit of its own.
        with unit_of_work(row.run):
            found = await self._send_record(row)
            await self.party.database.flush()
            return found

    async def _send_record(self, row: SessionRow) -> SessionRow:
        """Send a charge detail record; it stays ``ended`` when nobody answers."""
        assert row.ended_at is not None
        meter_stop_wh, cost_cents = await claimed(self.party, row)
        try:
            answer = await self.party.client(row.operator).call(
                "POST",
                "/cdrs",
                name="charge detail record",
                summary=f"{meter_stop_wh - row.meter_start_wh} Wh for "
                f"{decimal(cost_cents)} {row.tariff['currency']}, with "
                f"{len(row.receipts)} receipts that the car signed",
                body={
                    "id": row.id,
                    "authorization_reference": row.authorization,
                    "emaid": row.emaid,
                    "evse_id": row.evse_id,
                    "session_id": row.session_id,
                    "started_at": row.started_at.isoformat(),
                    "ended_at": row.ended_at.isoformat(),
                    "meter_start_wh": row.meter_start_wh,
                    "meter_stop_wh": meter_stop_wh,
                    "currency": row.tariff["currency"],
                    "total_cost": decimal(cost_cents),
                    "receipts": row.receipts,
                    # OCPI names an operator by these two (CDR, country_code and party_id).
                    "country_code": (self.party.config.scope_id or "")[:2],
                    "party_id": (self.party.config.scope_id or "")[2:],
                    **(
                        {
                            "offline": True,
                            "tariff": row.tariff,
                            "certificate_fingerprint": row.certificate,
                        }
                        if row.offline
                        else {}
                    ),
                },
            )
            state = answer.read(answers.RecordState)
            status, reason = state.status, state.reason
        except PartyUnreachable:
            return row
        except PartyRefused as refused:
            if refused.upstream_status in (401, 403) or refused.upstream_status >= 500:
                return row
            status, reason = "disputed", refused.message
        told = self.party.recorder.stamped(
            Event(
                kind="ledger",
                name="session settled",
                sender=row.operator,
                receiver=self.party.config.name,
                outcome="ok" if status == "settled" else "refused",
                summary=f"{row.operator} owes {decimal(cost_cents)} "
                f"{row.tariff['currency']} for {row.id}"
                if status == "settled"
                else f"{row.operator} disputes {row.id}: {reason}",
                data={"cdr": row.id, "status": status, "total": decimal(cost_cents)},
            )
        )

        def change(database: Session) -> SessionRow:
            found = database.get_one(SessionRow, row.id)
            if found.status != status:  # another worker may have sent it too
                self.party.database.tell(database, told)
            found.status, found.reason = status, reason[:512]
            return found

        return await self.party.database.write(change)

    async def send_unsent(self) -> None:
        """A round: send the records that nobody has answered yet."""
        for row in await self.party.database.read(unsent):
            await asyncio.wait({self._send_now(row)})

    async def ask_after_sessions(self) -> None:
        """A round: close the sessions that charge for long and of which their charger knows
        nothing: the answer to their start, or the charger, was lost."""
        before = self.party.clock.now() - LONG_SESSION
        rows = await self.party.database.read(lambda session: charging_since(session, before))
        for charger in {row.charger for row in rows} & set(self.party.ecosystem.parties):
            async with self.party.unit():
                try:
                    answer = await self.party.client(charger).call(
                        "GET",
                        "/status",
                        name="sessions",
                        summary=f"Which sessions does {charger} still have under way?",
                    )
                    going_on = answer.read(ChargerStatus).sessions
                except (PartyUnreachable, PartyRefused):
                    going_on = None
                if going_on is not None:
                    await self._close(
                        [
                            row.id
                            for row in rows
                            if row.charger == charger and row.session_id not in going_on
                        ]
                    )

    async def _close(self, sessions: Sequence[str]) -> None:
        def change(database: Session) -> None:
            for session in sessions:
                row = database.get_one(SessionRow, session)
                if row.status == "charging":
                    row.status = "void"
                    row.reason = f"{row.charger} has no such session under way"

        await self.party.database.write(change)

    async def sessions(self) -> list[SessionRow]:
        return await self.party.database.read(
            lambda session: list(
                session.scalars(select(SessionRow).order_by(SessionRow.started_at))
            )
        )

    async def receivables(self) -> dict[str, int]:
        """What each mobility operator owes us for settled sessions, in cents."""
        query = (
            select(SessionRow.operator, func.coalesce(func.sum(SessionRow.cost_cents), 0))
            .where(SessionRow.status == "settled")
            .group_by(SessionRow.operator)
        )
        return await self.party.database.read(
            lambda session: {
                operator: int(total or 0) for operator, total in session.execute(query)
            }
        )

    def _own_evse(self, text: str) -> None:
        try:
            evse = EVSEID.parse(text)
        except IdentifierError as error:
            raise wrong_identifier(error, "evse_id") from None
        if evse.operator_id != self.party.config.scope_id:
            raise Refusal(
                422,
                "foreign_evse",
                f"evse_id: {text} is of operator {evse.operator_id}, this is "
                f"{self.party.config.scope_id}",
            )
