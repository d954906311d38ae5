"""What a charge point operator does for its chargers, and with whom it settles.

Refusals are said in the words of each protocol: the charger needs a response code of
ISO 15118-2, a station speaks OCPP's certificateStatus, the mobility operator answers in
OCPI's words. Charge detail records are sent until they are answered.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from cryptography import x509
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pki.codes import iso2_code, ocpp_status
from pki.identifiers import EMAID, EVSEID, IdentifierError
from pki.profiles import Role
from services.common import answers
from services.common.auth import Caller
from services.common.certificates import b64
from services.common.errors import PartyRefused, PartyUnreachable, Refusal, wrong_identifier
from services.common.events import Event, unit_of_work
from services.common.judging import Judge
from services.common.money import decimal, price
from services.common.party import Party
from services.ecosystem import Tariff

from .store import SessionRow, unsent

# A car waits 5 s for its contract, a charger gives up at 4.5 s.
INSTALLATION_TIMEOUT = 4.0
AUTHORIZATION_TIMEOUT = 10.0

# The mobility operator's word -> what the charger tells the car (AuthorizationRes).
AUTHORIZATION_CODES: Mapping[str, str] = {
    "ok": "OK",
    "unknown_contract": "FAILED_CertificateNotAllowedAtThisEVSE",
    "unknown_operator": "FAILED_CertificateNotAllowedAtThisEVSE",
    "contract_revoked": "FAILED_CertificateRevoked",
    "contract_cancelled": "FAILED_ContractCanceled",
    "contract_ended": "FAILED_CertificateExpired",
    "contract_incomplete": "FAILED",
    "account_blocked": "FAILED",
    "no_credit": "FAILED",
    "operator_unreachable": "FAILED",
}


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


class ChargePointOperator:
    def __init__(self, party: Party) -> None:
        assert party.config.tariff is not None
        self.party = party
        self.tariff: Tariff = party.config.tariff
        self.judge = Judge(party)

    async def prepare(self) -> None:
        await self.judge.refresh()

    def must_be_ours(self, caller: Caller) -> None:
        """Refuse a charger of another operator."""
        known = self.party.ecosystem.parties.get(caller.client)
        if not caller.is_admin and (
            known is None or known.uses.get("cpo") != self.party.config.name
        ):
            raise Refusal(403, "not_yours", f"{caller.client} is not a charger of this operator")

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
            iso2_code(verdict),
            ocpp_status(verdict),
            "" if verdict.accepted else verdict.reason,
            verdict.as_dict(),
        )

    async def authorize(self, emaid_text: str, evse_id: str) -> Authorization:
        """Ask the contract's mobility operator whether it may charge here under our tariff."""
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
                    "tariff": self.tariff.as_dict(),
                },
                timeout=AUTHORIZATION_TIMEOUT,
            )
            said = answer.read(answers.OperatorAuthorization)
        except (PartyUnreachable, PartyRefused) as error:
            # Without the operator's word nobody promised to pay.
            return self._said("NOT_ALLOWED", "operator_unreachable", error.message, None)
        return self._said(said.allowed, said.code, said.reason, said.authorization_reference)

    def _said(self, allowed: str, code: str, reason: str, reference: str | None) -> Authorization:
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
        """A session begins to charge."""
        self._own_evse(evse_id)
        operator = self.party.ecosystem.by_scope("mo", EMAID.parse(emaid, strict=False).provider_id)
        if operator is None:
            raise Refusal(422, "unknown_operator", f"emaid: nobody answers for {emaid}")
        row = SessionRow(
            id=f"{self.party.config.scope_id}-{secrets.token_hex(8).upper()}",
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
            started_at=self.party.clock.now(),
            run=run,
        )
        return await self.party.database.write(lambda session: _added(session, row))

    async def stop(
        self, session: str, charger: str, meter_stop_wh: int, receipts: Sequence[bytes]
    ) -> SessionRow:
        """A session ended: price it, and send its record. Stopping twice changes nothing."""
        now = self.party.clock.now()

        def change(database: Session) -> SessionRow:
            row = database.get(SessionRow, session)
            if row is None or row.charger != charger:
                raise Refusal(404, "unknown_session", f"{charger} has no session {session}")
            if row.status != "charging":
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
            row.status = "ended"
            return row

        row = await self.party.database.write(change)
        return await self._send_record(row) if row.status == "ended" else row

    async def _send_record(self, row: SessionRow) -> SessionRow:
        """Send a charge detail record; it stays ``ended`` when nobody answers."""
        assert row.cost_cents is not None
        assert row.ended_at is not None
        try:
            answer = await self.party.client(row.operator).call(
                "POST",
                "/cdrs",
                name="charge detail record",
                summary=f"{(row.meter_stop_wh or 0) - row.meter_start_wh} Wh for "
                f"{decimal(row.cost_cents)} {row.tariff['currency']}, with "
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
                    "meter_stop_wh": row.meter_stop_wh,
                    "currency": row.tariff["currency"],
                    "total_cost": decimal(row.cost_cents),
                    "receipts": row.receipts,
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
        self.party.recorder.record(
            Event(
                kind="ledger",
                name="session settled",
                sender=row.operator,
                receiver=self.party.config.name,
                outcome="ok" if status == "settled" else "refused",
                summary=f"{row.operator} owes {decimal(row.cost_cents)} "
                f"{row.tariff['currency']} for {row.id}"
                if status == "settled"
                else f"{row.operator} disputes {row.id}: {reason}",
                data={"cdr": row.id, "status": status, "total": decimal(row.cost_cents)},
            )
        )

        def change(database: Session) -> SessionRow:
            found = database.get_one(SessionRow, row.id)
            found.status, found.reason = status, reason[:512]
            return found

        return await self.party.database.write(change)

    async def send_unsent(self) -> None:
        """A round: send the records that nobody has answered yet."""
        for row in await self.party.database.read(unsent):
            with unit_of_work(row.run):
                await self._send_record(row)
                await self.party.database.flush()

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


def _added(session: Session, row: SessionRow) -> SessionRow:
    session.add(row)
    session.flush()
    return row
