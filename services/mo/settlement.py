"""May this contract charge here, and what it costs afterwards.

An authorization is a promise to a charge point operator to pay for one session under the
tariff that was shown. The charge detail record that follows is paid when it keeps that
promise: the receipts are signed by the contract's key, they vouch for the first and the
last meter reading, and the cost is what the tariff makes of the energy. Otherwise it is
kept as disputed, and nothing is booked.

A session that was begun without our word brings its tariff with it, and nobody names its own
price: where a promise that covers it was given (the answer may have been lost), its tariff
counts; else the price must be within what the charge point operator was promised last.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from cryptography import x509
from sqlalchemy import exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pki.identifiers import EMAID, EVSEID, IdentifierError
from services.common.auth import Caller
from services.common.certificates import from_pem
from services.common.errors import Refusal, wrong_identifier
from services.common.events import Event
from services.common.money import cents, decimal, kwh, price, with_markup
from services.common.party import Party
from services.common.receipts import Receipt, ReceiptError, read_receipt
from services.ecosystem import Tariff

from .accounts import REVENUE, cpo_account, driver_account
from .contracts import Contracts
from .faults import ALLOWED
from .store import (
    AuthorizationRow,
    CdrRow,
    ContractRow,
    DriverRow,
    InvoiceRow,
    account_cents,
    generations,
    post,
)


@dataclass(frozen=True)
class Decision:
    """An answer to a charge point operator.

    ``allowed`` is OCPI's word (AllowedType), ``code`` says more exactly which rule decided.
    """

    allowed: str
    code: str
    reason: str
    reference: str | None = None


@dataclass(frozen=True)
class ChargeDetailRecord:
    """What a charge point operator wants to be paid for."""

    id: str
    authorization: str
    emaid: str
    evse_id: str
    session_id: str
    started_at: datetime
    ended_at: datetime
    meter_start_wh: int
    meter_stop_wh: int
    currency: str
    cost_cents: int
    receipts: tuple[bytes, ...]
    party: str = ""
    """Whose record it is, country code and party id; empty where it does not say."""
    offline: bool = False
    """Begun without our word; then under this tariff, with this contract certificate."""
    tariff: Tariff | None = None
    certificate: str | None = None

    @property
    def energy_wh(self) -> int:
        return self.meter_stop_wh - self.meter_start_wh


# How long a promise to pay waits for its session to begin, and how far clocks may differ.
AUTHORIZATION_LIFE = timedelta(hours=24)
# For how long the record of a session that was begun without our word may come in.
OFFLINE_LIFE = timedelta(days=30)
CLOCK_SLACK = timedelta(minutes=5)


class Settlement:
    def __init__(self, party: Party, contracts: Contracts) -> None:
        self.party = party
        self.contracts = contracts
        self.markup = Decimal(party.config.options["markup_percent"])
        self.offline_limit = Decimal(party.config.options["offline_price_limit"])
        self.credit_cents = cents(Decimal(party.config.options["credit_limit"]))

    async def authorize(
        self, emaid: str, certificate: str | None, evse_id: str, tariff: Tariff, caller: Caller
    ) -> Decision:
        """Whether the contract may charge at ``evse_id``, the caller's, under ``tariff``.

        ``certificate`` is the fingerprint of the certificate that was shown: that it names the
        EMAID is not enough, somebody else may have issued it.
        """
        try:
            evse = EVSEID.parse(evse_id, strict=self.party.strict())
        except IdentifierError as error:
            raise wrong_identifier(error, "evse_id") from None
        caller.must_own(evse.operator_id, f"the charging point {evse_id}")
        try:
            contract = await self.contracts.get(emaid)
        except Refusal as refusal:
            return self._decided(
                emaid, evse_id, Decision("NOT_ALLOWED", "unknown_contract", refusal.message)
            )
        decision = await self._told_to_refuse(contract, caller)
        if decision is None:
            decision = await self.party.database.read(
                lambda session: self._decide(session, contract, certificate, tariff)
            )
        if decision.allowed != "ALLOWED":
            return self._decided(emaid, evse_id, decision)
        reference = self.party.entropy(f"authorization/{contract.emaid}", 12).hex()
        decision = self._decided(
            emaid, evse_id, Decision("ALLOWED", decision.code, decision.reason, reference)
        )
        row = AuthorizationRow(
            reference=reference,
            emaid=contract.emaid,
            cpo=caller.client,
            evse_id=evse_id,
            fingerprint=certificate,
            tariff=tariff.as_dict(),
            given_at=self.party.clock.now(),
        )
        await self.party.database.write(lambda session: session.add(row))
        return decision

    async def _told_to_refuse(self, contract: ContractRow, caller: Caller) -> Decision | None:
        fault = await self.party.faults.at(
            "authorization", pcid=contract.pcid, emaid=contract.emaid, caller=caller.client
        )
        if fault is None:
            return None
        word = ALLOWED.get(fault["code"], "NOT_ALLOWED")
        return Decision(word, fault["code"], "this operator was told to refuse")

    def _decide(
        self, session: Session, contract: ContractRow, certificate: str | None, tariff: Tariff
    ) -> Decision:
        driver = session.get_one(DriverRow, contract.driver)
        balance = -account_cents(session, driver_account(driver.id))
        if contract.status in ("revoked", "cancelled"):
            return Decision(
                "NOT_ALLOWED", f"contract_{contract.status}", f"the contract is {contract.status}"
            )
        if contract.status != "active":
            return Decision(
                "NOT_ALLOWED", "contract_incomplete", "the contract is not complete yet"
            )
        if certificate is not None:
            objection = self._wrong_certificate(session, contract, certificate)
            if objection is not None:
                return objection
        if tariff.currency != driver.currency:
            return Decision(
                "NOT_ALLOWED",
                "foreign_currency",
                f"the tariff is in {tariff.currency}, the account in {driver.currency}",
            )
        if contract.ends is not None and contract.ends <= self.party.clock.now():
            return Decision(
                "EXPIRED", "contract_ended", f"the contract ended at {contract.ends:%F}"
            )
        if driver.blocked:
            return Decision("BLOCKED", "account_blocked", "the driver's account is blocked")
        if balance <= -self.credit_cents:
            return Decision("NO_CREDIT", "no_credit", f"the account is at {decimal(balance)}")
        return Decision("ALLOWED", "ok", "the contract is active and the account is in order")

    def _wrong_certificate(
        self, session: Session, contract: ContractRow, certificate: str
    ) -> Decision | None:
        """Why the certificate that was shown does not speak for the contract; a former one does
        until it expires or is revoked."""
        known = generations(session, contract.emaid)
        shown = next((one for one in known if one.fingerprint == certificate), None)
        if shown is None:
            return Decision(
                "NOT_ALLOWED",
                "other_certificate",
                f"the certificate that was shown ({certificate[:16]}…) is not this contract's",
            )
        if shown.status == "revoked":
            return Decision(
                "NOT_ALLOWED",
                "contract_revoked",
                f"certificate {shown.number} of the contract is revoked",
            )
        if shown.status == "superseded" and shown.not_after <= self.party.clock.now():
            return Decision(
                "EXPIRED",
                "contract_ended",
                f"certificate {shown.number} of the contract ended at {shown.not_after:%F}",
            )
        return None

    def _decided(self, emaid: str, evse_id: str, decision: Decision) -> Decision:
        self.party.recorder.record(
            Event(
                kind="verdict",
                name="authorization",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                outcome="ok" if decision.allowed == "ALLOWED" else "refused",
                summary=f"{self.party.config.title}: {decision.allowed}, {decision.reason}",
                data={
                    "emaid": emaid,
                    "evse_id": evse_id,
                    "allowed": decision.allowed,
                    "code": decision.code,
                    "reason": decision.reason,
                },
            )
        )
        return decision

    # ------------------------------------------------------------------- CDRs

    async def receive(self, cdr: ChargeDetailRecord, record: Any, caller: Caller) -> CdrRow:
        """Settle or dispute a charge detail record; the same one again changes nothing.

        Refusal 404 when no authorization was given, 409 when it, the record's id or the
        session is settled already by another record.
        """
        if cdr.party:
            caller.must_own(cdr.party, f"the record {cdr.id}")
        authorization: AuthorizationRow | None
        promised = None
        if cdr.offline:
            authorization = self._as_if_authorized(cdr, caller)
            promised = await self._unused_promise(cdr, authorization)
            authorization = promised or authorization
        else:
            authorization = await self.party.database.read(
                lambda session: session.get(AuthorizationRow, cdr.authorization)
            )
        if authorization is None or authorization.cpo != caller.client:
            raise Refusal(
                404,
                "unknown_authorization",
                f"authorization_reference: {cdr.authorization} was not given to {caller.client}",
            )
        contract = await self.contracts.get(cdr.emaid)
        known = await self._known(cdr, contract, record, caller)
        if known is not None:
            return known
        known_generations = await self.contracts.generations(contract)
        objection = self._objection(
            cdr,
            authorization,
            contract,
            [
                from_pem(one.chain)[0]
                for one in reversed(known_generations)
                if authorization.fingerprint in (None, one.fingerprint)
            ],
        )
        if promised is not None and objection:
            objection = f"there is a promise, {promised.reference}, and by it: {objection}"
        elif cdr.offline and not objection:
            objection = await self._offline_objection(cdr, contract)
        if cdr.offline and promised is None and not objection:
            objection = await self._too_dear(cdr, caller)
        try:
            if objection:
                return await self._dispute(cdr, contract, record, objection, caller)
            return await self._settle(cdr, contract, record, caller)
        except IntegrityError:
            # The same record, or another one of this session, came in at once and was first.
            known = await self._known(cdr, contract, record, caller)
            if known is None:
                raise
            return known

    def _as_if_authorized(self, cdr: ChargeDetailRecord, caller: Caller) -> AuthorizationRow:
        """What a promise would have said about a session that was begun offline; not kept.
        Refusal 422 where the record does not tell it."""
        if cdr.tariff is None or cdr.certificate is None:
            raise Refusal(
                422,
                "offline_incomplete",
                "offline: tariff and certificate_fingerprint are wanted with it",
            )
        try:
            evse = EVSEID.parse(cdr.evse_id, strict=self.party.strict())
        except IdentifierError as error:
            raise wrong_identifier(error, "evse_id") from None
        caller.must_own(evse.operator_id, f"the charging point {cdr.evse_id}")
        return AuthorizationRow(
            reference=cdr.authorization,
            emaid=EMAID.parse(cdr.emaid, strict=False).normal,
            cpo=caller.client,
            evse_id=cdr.evse_id,
            fingerprint=cdr.certificate,
            tariff=cdr.tariff.as_dict(),
            given_at=cdr.started_at,
        )

    async def _unused_promise(
        self, cdr: ChargeDetailRecord, session_of: AuthorizationRow
    ) -> AuthorizationRow | None:
        """Our word that covers this session, where it was given (and the answer lost): for this
        contract and certificate, at this EVSE, not long before it began, and no record has
        named it yet. It says the price; it is not used up, since its own session may follow."""
        used = exists().where(CdrRow.authorization == AuthorizationRow.reference)
        query = (
            select(AuthorizationRow)
            .where(
                AuthorizationRow.cpo == session_of.cpo,
                AuthorizationRow.emaid == session_of.emaid,
                AuthorizationRow.evse_id == session_of.evse_id,
                AuthorizationRow.fingerprint.is_(None)
                | (AuthorizationRow.fingerprint == session_of.fingerprint),
                AuthorizationRow.given_at >= cdr.started_at - AUTHORIZATION_LIFE,
                AuthorizationRow.given_at <= cdr.started_at + CLOCK_SLACK,
                ~used,
            )
            .order_by(AuthorizationRow.given_at.desc())
        )
        return await self.party.database.read(lambda session: session.scalars(query).first())

    async def _too_dear(self, cdr: ChargeDetailRecord, caller: Caller) -> str:
        """Why nobody agreed to this price; empty where it is within what this operator was
        promised last, or within ``offline_price_limit`` where it never was."""
        tariff = cdr.tariff
        assert tariff is not None
        nobody = "it was begun without our word, at a price that nobody agreed to"
        query = (
            select(AuthorizationRow)
            .where(AuthorizationRow.cpo == caller.client)
            .order_by(AuthorizationRow.given_at.desc())
            .limit(1)
        )
        last = await self.party.database.read(lambda session: session.scalars(query).first())
        if last is not None:
            agreed = Tariff.from_dict(last.tariff)
            most, where = (agreed.per_kwh, agreed.per_session), f"{agreed.id}, promised last, asks"
            if agreed.currency != tariff.currency:
                return f"{nobody}: in {tariff.currency}, last promised was {agreed.currency}"
        else:
            most, where = (self.offline_limit, self.offline_limit), "offline_price_limit is"
        asked = (tariff.per_kwh, tariff.per_session)
        if asked[0] <= most[0] and asked[1] <= most[1]:
            return ""
        return (
            f"{nobody}: it asks {asked[0]} per kWh and {asked[1]} per session; "
            f"{where} {most[0]} and {most[1]}"
        )

    async def _offline_objection(self, cdr: ChargeDetailRecord, contract: ContractRow) -> str:
        """Why a session without our word is not paid; empty where it is."""
        now = self.party.clock.now()
        if not -CLOCK_SLACK <= now - cdr.started_at <= OFFLINE_LIFE:
            return (
                f"it was begun without our word at {cdr.started_at:%F %T}Z, now is {now:%F %T}Z; "
                f"that is told within {OFFLINE_LIFE.days} days"
            )
        if self.party.config.policy["offline_sessions"] == "dispute":
            return "it was begun without our word (offline_sessions=dispute)"
        tariff = cdr.tariff
        assert tariff is not None
        decision = await self.party.database.read(
            lambda session: self._decide(session, contract, cdr.certificate, tariff)
        )
        if decision.allowed == "ALLOWED":
            return ""
        return f"it was begun without our word, which had been no: {decision.reason}"

    async def _known(
        self, cdr: ChargeDetailRecord, contract: ContractRow, record: Any, caller: Caller
    ) -> CdrRow | None:
        """The entry of this very record; Refusal 409 where another one stands in its way."""
        same_session = (CdrRow.emaid == contract.emaid) & (
            CdrRow.session_id == cdr.session_id.upper()
        )

        def query(session: Session) -> tuple[CdrRow | None, CdrRow | None]:
            in_the_way = select(CdrRow).where(
                (CdrRow.cpo != caller.client) | (CdrRow.id != cdr.id),
                (CdrRow.authorization == cdr.authorization)
                | ((CdrRow.status == "settled") & same_session),
            )
            return session.get(CdrRow, (caller.client, cdr.id)), session.scalars(in_the_way).first()

        known, other = await self.party.database.read(query)
        if known is not None:
            # Whose it is was asked before; an earlier version did not say it in the record.
            if _content(known.record) != _content(record):
                raise Refusal(409, "cdr_taken", f"id: {cdr.id} is another record's")
            return known
        if other is not None:
            raise Refusal(
                409,
                "already_settled",
                f"authorization_reference: {cdr.authorization} or session_id: {cdr.session_id} "
                f"is used by CDR {other.id}",
            )
        return None

    def _objection(
        self,
        cdr: ChargeDetailRecord,
        authorization: AuthorizationRow,
        contract: ContractRow,
        signers: Sequence[x509.Certificate],
    ) -> str:
        """Why the record is not paid; empty where it is. ``signers`` are the contract
        certificates that may have signed its receipts."""
        tariff = Tariff.from_dict(authorization.tariff)
        if authorization.emaid != contract.emaid:
            return f"the authorization is for {authorization.emaid}, the record for {cdr.emaid}"
        if authorization.evse_id != cdr.evse_id:
            return f"the authorization is for {authorization.evse_id}, the record for {cdr.evse_id}"
        if cdr.currency != tariff.currency:
            return f"the record is in {cdr.currency}, the tariff in {tariff.currency}"
        begun = cdr.started_at - authorization.given_at
        if not -CLOCK_SLACK <= begun <= AUTHORIZATION_LIFE:
            return (
                f"it was authorized at {authorization.given_at:%F %T}Z and began at "
                f"{cdr.started_at:%F %T}Z"
            )
        if cdr.ended_at < cdr.started_at:
            return f"it ended at {cdr.ended_at:%F %T}Z, before it began"
        if cdr.energy_wh < 0:
            return f"the meter ran backwards, {cdr.meter_start_wh} to {cdr.meter_stop_wh} Wh"
        wanted = price(tariff, cdr.energy_wh)
        if cdr.cost_cents != wanted:
            return (
                f"the record asks {decimal(cdr.cost_cents)}, the tariff makes "
                f"{decimal(wanted)} of {cdr.energy_wh} Wh"
            )
        if not cdr.receipts:
            return "the record has no receipt signed by the contract's key"
        readings, meters = [], set()
        for number, receipt in enumerate(cdr.receipts, 1):
            try:
                read = self._read(receipt, signers)
            except ReceiptError as error:
                return f"receipt {number}: {error}"
            if read.session_id.hex().upper() != cdr.session_id.upper():
                return (
                    f"receipt {number} is of session {read.session_id.hex().upper()}, "
                    f"the record of {cdr.session_id}"
                )
            readings.append(read.meter_reading_wh)
            meters.add(read.meter_id)
        if len(meters) > 1:
            return f"the receipts are of several meters: {', '.join(sorted(meters))}"
        if (min(readings), max(readings)) != (cdr.meter_start_wh, cdr.meter_stop_wh):
            return (
                f"the receipts vouch for {min(readings)} to {max(readings)} Wh, the record "
                f"says {cdr.meter_start_wh} to {cdr.meter_stop_wh} Wh"
            )
        return ""

    def _read(self, receipt: bytes, signers: Sequence[x509.Certificate]) -> Receipt:
        """A receipt that one of ``signers`` signed; ReceiptError where none did."""
        for signer in signers[:-1]:
            with contextlib.suppress(ReceiptError):
                return read_receipt(receipt, signer, self.party.edition)
        if not signers:
            raise ReceiptError("the certificate of the authorization is not the contract's")
        return read_receipt(receipt, signers[-1], self.party.edition)

    async def _settle(
        self, cdr: ChargeDetailRecord, contract: ContractRow, record: Any, caller: Caller
    ) -> CdrRow:
        now = self.party.clock.now()
        total = with_markup(cdr.cost_cents, self.markup)
        row = self._row(cdr, contract, record, caller, "settled", "")
        invoice = InvoiceRow(
            driver=contract.driver,
            emaid=contract.wire,
            cpo=caller.client,
            cdr=cdr.id,
            energy_wh=cdr.energy_wh,
            charging_cents=cdr.cost_cents,
            service_cents=total - cdr.cost_cents,
            total_cents=total,
            currency=cdr.currency,
            issued_at=now,
        )
        told = self.party.recorder.stamped(
            Event(
                kind="ledger",
                name="invoice",
                sender=self.party.config.name,
                receiver=contract.driver,
                summary=f"{kwh(cdr.energy_wh)} kWh: the driver pays {decimal(total)}, "
                f"{caller.client} gets {decimal(cdr.cost_cents)} {cdr.currency}",
                data={
                    "driver": contract.driver,
                    "emaid": contract.wire,
                    "cpo": caller.client,
                    "cdr": cdr.id,
                    "evse_id": cdr.evse_id,
                    "energy_wh": cdr.energy_wh,
                    "meter_start_wh": cdr.meter_start_wh,
                    "meter_stop_wh": cdr.meter_stop_wh,
                    "charging": decimal(cdr.cost_cents),
                    "service": decimal(total - cdr.cost_cents),
                    "total": decimal(total),
                    "currency": cdr.currency,
                    "postings": {
                        driver_account(contract.driver): decimal(total),
                        cpo_account(caller.client): decimal(-cdr.cost_cents),
                        REVENUE: decimal(cdr.cost_cents - total),
                    },
                },
                cost={"verifications": len(cdr.receipts)},
            )
        )

        def book(session: Session) -> CdrRow:
            session.add(row)
            session.flush()
            session.add(invoice)
            self.party.database.tell(session, told)
            post(
                session,
                f"cdr:{caller.client}:{cdr.id}",
                now,
                cdr.currency,
                {
                    driver_account(contract.driver): total,
                    cpo_account(caller.client): -cdr.cost_cents,
                    REVENUE: cdr.cost_cents - total,
                },
                f"{cdr.energy_wh} Wh at {cdr.evse_id}",
            )
            return row

        return await self.party.database.write(book)

    async def _dispute(
        self,
        cdr: ChargeDetailRecord,
        contract: ContractRow,
        record: Any,
        objection: str,
        caller: Caller,
    ) -> CdrRow:
        row = self._row(cdr, contract, record, caller, "disputed", objection)
        told = self.party.recorder.stamped(
            Event(
                kind="verdict",
                name="charge detail record",
                sender=self.party.config.name,
                receiver=caller.client,
                outcome="refused",
                summary=f"{self.party.config.title} disputes {cdr.id}: {objection}",
                data={"cdr": cdr.id, "reason": objection},
            )
        )

        def keep(session: Session) -> CdrRow:
            session.add(row)
            session.flush()
            self.party.database.tell(session, told)
            return row

        return await self.party.database.write(keep)

    def _row(
        self,
        cdr: ChargeDetailRecord,
        contract: ContractRow,
        record: Any,
        caller: Caller,
        status: str,
        reason: str,
    ) -> CdrRow:
        return CdrRow(
            cpo=caller.client,
            id=cdr.id,
            authorization=cdr.authorization,
            emaid=contract.emaid,
            session_id=cdr.session_id.upper(),
            energy_wh=cdr.energy_wh,
            cost_cents=cdr.cost_cents,
            currency=cdr.currency,
            status=status,
            reason=reason[:512],
            record=record,
            received_at=self.party.clock.now(),
        )


def _content(record: Any) -> dict[str, Any]:
    """What a record tells, but whose it is."""
    return {key: record[key] for key in record if key not in ("country_code", "party_id")}
