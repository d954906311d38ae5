"""What the contract pool does: keep signed contract data, and hand it to the car it is for.

A CertificateInstallationReq is answered when the car proves that it holds the key of a
provisioning certificate that is registered, valid and not revoked. What cannot be
answered with a contract is answered with the protocol's own refusal, also as EXI, so
that the charger can pass it on to the car.

What a car would refuse is not handed out: the chain of the provisioning service is judged
when its data is stored, and again when it is delivered; data for a former provisioning key of
the car is renewed by its mobility operator first.

A CertificateUpdateReq is answered when the car proves that it holds the key of a contract
certificate that is good. Where the next certificate of that contract does not wait here, its
mobility operator is asked for it; who that is, the EMAID says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import quote

from cryptography import x509
from sqlalchemy.orm import Session

from pki.chain import RevocationPolicy
from pki.findings import Verdict
from pki.identifiers import EMAID, PCID, IdentifierError
from pki.names import common_name
from pki.profiles import Role
from services.common import answers
from services.common.auth import Caller
from services.common.certificates import (
    b64,
    der_of,
    fingerprint,
    load_der,
    public_key,
    read_der,
)
from services.common.contract_elements import check_key_elements
from services.common.errors import PartyRefused, PartyUnreachable, Refusal, wrong_identifier
from services.common.events import Event, cost
from services.common.judging import Judge
from services.common.notices import notice
from services.common.opcp import root_of
from services.common.party import Party
from v2g import exi
from v2g.certificate_installation import (
    InstallationRequest,
    InstallationResponse,
    WrongMessage,
    failed_response,
    read_request,
    read_response,
)
from v2g.certificate_update import (
    NEVER,
    NEXT_TIME,
    UpdateRequest,
    UpdateResponse,
    failed_update,
    read_update_request,
    read_update_response,
    update_response,
)
from v2g.messages import iso2
from v2g.signature import SignatureError

from .faults import spoilt
from .store import ContractDataRow, DefaultRow, default_of, of_car

# The policy unknown_car -> what a car hears that no provisioning pool knows.
UNKNOWN_CAR = {
    "chain-error": iso2.ResponseCode.FAILED_CertChainError,
    "no-certificate": iso2.ResponseCode.FAILED_NoCertificateAvailable,
}

# Why an operator renews no contract -> what the car hears, as at AuthorizationRes; any other
# reason is FAILED_NoCertificateAvailable.
NOT_RENEWED = {
    "contract_revoked": iso2.ResponseCode.FAILED_CertificateRevoked,
    "contract_cancelled": iso2.ResponseCode.FAILED_ContractCanceled,
}

# A car waits 5 s for its contract, a charge point operator gives up after 4 s.
RENEWAL_TIMEOUT = 3.5


@dataclass(frozen=True)
class Delivery:
    """An answer to a CertificateInstallationReq or CertificateUpdateReq: EXI, the response
    code, which contract; ``retry_counter`` of a refused update."""

    message: bytes
    code: str
    emaid: str | None
    reason: str
    retry_counter: int | None = None


@dataclass(frozen=True)
class Described:
    """A stored contract: its EMAID on the wire, its certificate, and the V2G root behind the
    provisioning service's signature, where that is known here; ``message`` for a session."""

    row: ContractDataRow
    emaid: str
    certificate: x509.Certificate
    root: x509.Certificate | None
    message: bytes = b""


@dataclass(frozen=True)
class UpdateData:
    """Signed contract data as a CertificateUpdateRes without a session, which the key of the
    contract certificate of this fingerprint opens."""

    for_certificate: str
    message: bytes


class ContractPool:
    def __init__(self, party: Party) -> None:
        self.party = party
        self.judge = Judge(party)

    async def prepare(self) -> None:
        await self.judge.prepare()

    # ----------------------------------------------------------------- storing

    async def store(
        self,
        emaid_text: str,
        pcid_text: str,
        message: bytes,
        caller: Caller,
        *,
        only_replace: bool = False,
        recipient: str | None = None,
        update: UpdateData | None = None,
    ) -> tuple[ContractDataRow, bool]:
        """Keep signed contract data; for the same car and EMAID it replaces what was there.

        ``recipient`` is the fingerprint of the provisioning certificate whose key opens it;
        ``update`` the same contract for a car that updates.

        With ``only_replace`` there must be data of the same contract certificate (404, 409).
        """
        strict = self.party.strict()
        try:
            emaid = EMAID.parse(emaid_text, strict=strict)
            pcid = PCID.parse(pcid_text, strict=strict)
        except IdentifierError as error:
            raise wrong_identifier(error) from None
        response = self._read_response(message)
        contract = read_der(response.data.contract_chain[0], "message: ContractSignatureCertChain")
        try:
            inside = EMAID.parse(response.data.emaid, strict=False)
        except IdentifierError as error:
            raise wrong_identifier(error, "message: eMAID") from None
        if inside != emaid:
            raise Refusal(
                422, "other_emaid", f"emaid: {emaid}, but the message is of {inside.wire}"
            )
        name = common_name(contract.subject)
        if not _names(name, emaid):
            raise Refusal(
                422, "other_emaid", f"emaid: {emaid}, but the contract certificate is of {name!r}"
            )
        check_key_elements(
            response.data.encrypted_private_key,
            response.data.dh_public_key,
            self.party.edition,
            "message: ",
        )
        if update is not None:
            self._check_update(update, response)
        async with self.party.turns:
            verdict = await self._verdict_on_provisioning(response)
        if not verdict.accepted:
            raise Refusal(
                422,
                "chain_refused",
                f"message: SAProvisioningCertificateChain: {verdict.reason}",
                {"verdict": verdict.as_dict()},
            )
        row = ContractDataRow(
            emaid=emaid.normal,
            pcid=pcid.normal,
            message=message,
            valid_from=contract.not_valid_before_utc,
            valid_to=contract.not_valid_after_utc,
            recipient=recipient,
            update_for=update.for_certificate if update else None,
            update_message=update.message if update else None,
            stored_by=caller.client,
            stored_at=self.party.clock.now(),
            delivered_at=None,
        )

        about = {
            "emaid": emaid.normal,
            "pcid": pcid.normal,
            "certificate": b64(der_of(contract)),
        }
        created, updated = (
            notice(self.party, fact, f"{emaid} of the car {pcid}: {fact}", **about)
            for fact in ("contract.created", "contract.updated")
        )

        def keep(session: Session) -> tuple[ContractDataRow, bool]:
            known = session.get(ContractDataRow, emaid.normal)
            if known is not None and known.pcid != pcid.normal:
                raise Refusal(
                    409, "emaid_taken", f"emaid: {emaid} is already used with car {known.pcid}"
                )
            if known is None:
                if only_replace:
                    raise _unknown(emaid)
                session.add(row)
                session.flush()
                self.party.database.tell(session, created)
                return row, True
            if not caller.is_admin and known.stored_by != caller.client:
                raise Refusal(
                    409,
                    "stored_by_another",
                    f"emaid: {emaid} was stored by {known.stored_by}; client {caller.client} may "
                    "not replace it",
                )
            if read_response(known.message).data.contract_chain != response.data.contract_chain:
                if only_replace:
                    raise Refusal(
                        409,
                        "newer_contract",
                        f"emaid: {emaid} has another contract certificate in the pool meanwhile",
                    )
                known.valid_from, known.valid_to = row.valid_from, row.valid_to
                known.stored_at, known.delivered_at = row.stored_at, None
                self.party.database.tell(session, updated)
            # Else it is the same contract, signed again: it keeps its place among the car's.
            known.message, known.recipient = message, recipient
            known.update_for, known.update_message = row.update_for, row.update_message
            session.flush()
            return known, False

        return await self.party.database.write(keep)

    async def get(self, text: str) -> ContractDataRow:
        emaid = _emaid(text)
        row = await self.party.database.read(
            lambda session: session.get(ContractDataRow, emaid.normal)
        )
        if row is None:
            raise _unknown(emaid)
        return row

    async def remove(self, text: str, caller: Caller) -> None:
        row = await self.get(text)
        caller.must_own(row.emaid[:5], f"the contract {row.emaid}")
        await self._take_out(row)

    async def withdraw(self, text: str, caller: Caller, *, revoke: bool = True) -> None:
        """Take a contract out of the pool, its certificate revoked by whoever issued it, where
        that is a party of this ecosystem. Where that fails the contract stays. Refusal 403, 404.
        """
        emaid = _emaid(text)
        caller.must_own(emaid.provider_id, f"the contract {emaid}")
        row = await self.get(text)
        if revoke:
            await self._revoke_at_issuer(row)
        await self._take_out(row)

    async def withdraw_of_car(self, text: str) -> list[str]:
        """The same for all contracts of a car that is gone; their EMAIDs."""
        rows, _ = await self.of_car(text)
        for row in rows:
            await self._revoke_at_issuer(row)
            await self._take_out(row)
        return [row.emaid for row in rows]

    async def _revoke_at_issuer(self, row: ContractDataRow) -> None:
        """The mobility operator of an EMAID revokes it, or who hosts the PKI of one that has
        none; where neither has issued it, its issuer is none of ours to ask."""
        parties = self.party.ecosystem.parties
        operator = self.party.ecosystem.by_scope("mo", row.emaid[:5])
        host = parties.get(row.stored_by)
        if operator is not None:
            issuer, path = operator.name, f"/contracts/{row.emaid}/revocation"
        elif host is not None and host.kind == "cps":
            issuer, path = host.name, f"/hosted-contracts/{row.emaid}/revocation"
        else:
            return
        leaf = load_der(read_response(row.message).data.contract_chain[0])
        try:
            await self.party.client(issuer).call(
                "POST",
                path,
                name="revoke contract",
                summary=f"The contract {row.emaid} leaves the pool: its certificate is revoked",
                body={"fingerprint": fingerprint(leaf)},
            )
        except PartyRefused as refused:
            if refused.upstream_status != 404:
                raise

    async def _take_out(self, row: ContractDataRow) -> None:
        told = notice(
            self.party,
            "contract.deleted",
            f"{row.emaid} of the car {row.pcid}: taken out",
            emaid=row.emaid,
            pcid=row.pcid,
        )

        def remove(session: Session) -> None:
            found = session.get(ContractDataRow, row.emaid)
            if found is not None:
                session.delete(found)
                self.party.database.tell(session, told)
            default = session.get(DefaultRow, row.pcid)
            if default is not None and default.emaid == row.emaid:
                session.delete(default)

        await self.party.database.write(remove)

    def must_own_car(self, text: str, caller: Caller) -> None:
        """Refusal 403 unless a vehicle maker asks for a car of its own."""
        pcid = self._pcid(text)
        caller.must_own(pcid.wmi, f"the car {pcid}")

    async def may_look_up(self, text: str, caller: Caller) -> ContractDataRow:
        """A contract: of an operator's own (403), of a car of the maker that asks (404 like one
        that there is not), or for a charge point operator."""
        emaid = _emaid(text)
        if caller.role == "mo":
            caller.must_own(emaid.provider_id, f"the contract {emaid}")
        row = await self.get(text)
        if caller.role == "oem" and caller.scope_id != row.pcid[:3]:
            raise _unknown(emaid)
        return row

    async def by_priority(self, text: str) -> list[ContractDataRow]:
        """A car's contracts, its default first, then what is stored longest."""
        pcid = self._pcid(text)
        return await self.party.database.read(
            lambda session: of_car(session, pcid.normal, default_first=True)
        )

    def ended(self, message: bytes) -> bool:
        """Whether the contract certificate in a message has expired."""
        leaf = self._read_response(message).data.contract_chain[0]
        certificate = read_der(leaf, "message: ContractSignatureCertChain")
        return certificate.not_valid_after_utc < self.party.clock.now()

    async def described(self, row: ContractDataRow) -> Described:
        """What a stored contract's certificates say."""
        data = read_response(row.message).data
        await self.judge.keeper.current()
        anchors = self.judge.store.for_role(Role.CPS, self.party.trust)
        return Described(
            row,
            data.emaid,
            load_der(data.contract_chain[0]),
            root_of(
                load_der(data.provisioning_chain[-1]), [anchor.certificate for anchor in anchors]
            ),
        )

    async def for_session(self, emaid_text: str, pcid_text: str, session_id: bytes) -> Described:
        """A contract for one who installs it in the car by another way than a charger; nothing
        of the car is asked. Refusal 404 where it is not a contract of this car."""
        pcid = self._pcid(pcid_text)
        row = await self.get(emaid_text)
        if row.pcid != pcid.normal:
            raise _unknown(_emaid(emaid_text))
        found = await self.described(row)
        response = read_response(row.message)
        data = await spoilt(self.party, response.data, row.pcid, row.stored_by)
        return replace(found, message=exi.encode(iso2.SCHEMA, data.response(session_id)))

    async def of_car(self, text: str) -> tuple[list[ContractDataRow], str | None]:
        """A car's contracts in the order of their delivery, and which one is its default."""
        pcid = self._pcid(text)
        return await self.party.database.read(
            lambda session: (of_car(session, pcid.normal), default_of(session, pcid.normal))
        )

    async def set_default(self, text: str, emaid_text: str, caller: Caller) -> None:
        """Say which of a car's contracts is delivered first. A mobility operator may name its
        own, a vehicle maker speaks for its cars. Refusal 403, 404."""
        pcid, emaid = self._pcid(text), _emaid(emaid_text)
        if caller.role == "oem":
            caller.must_own(pcid.wmi, f"the car {pcid}")
        else:
            caller.must_own(emaid.normal[:5], f"the contract {emaid}")
        row = await self.get(emaid_text)
        if row.pcid != pcid.normal:
            if caller.role == "oem":  # what other makers' cars have is not told
                raise _unknown(emaid)
            raise Refusal(
                404, "other_car", f"emaid: {row.emaid} is a contract of {row.pcid}, not of {pcid}"
            )
        made = DefaultRow(
            pcid=pcid.normal,
            emaid=row.emaid,
            set_by=caller.client,
            set_at=self.party.clock.now(),
        )
        await self.party.database.write(lambda session: session.merge(made) and None)

    def _pcid(self, text: str) -> PCID:
        try:
            return PCID.parse(text, strict=self.party.strict())
        except IdentifierError as error:
            raise wrong_identifier(error, "pcid") from None

    # -------------------------------------------------------------- delivering

    async def deliver(self, message: bytes, *, default_first: bool = False) -> Delivery:
        """Answer a car's CertificateInstallationReq. With ``default_first`` it is the default
        contract each time, else what was not delivered yet goes before.

        Raises Refusal 400 when the bytes are no such message at all.
        """
        try:
            request = read_request(message)
        except exi.EXIError as error:
            raise Refusal(400, "wrong_exi", f"CertificateInstallationReq: {error}") from None
        except WrongMessage as error:
            raise Refusal(400, "wrong_message", f"CertificateInstallationReq: {error}") from None
        try:
            certificate = read_der(request.provisioning_certificate, "OEMProvisioningCert")
        except Refusal:
            return self._refused(
                request,
                iso2.ResponseCode.FAILED_CertChainError,
                "OEMProvisioningCert is not a certificate that can be read",
            )
        try:
            cost().verifications += 1
            request.verify(public_key(certificate), self.party.edition)
        except SignatureError as error:
            return self._refused(request, iso2.ResponseCode.FAILED_SignatureError, error.reason)
        # What waits for a former key of the car is renewed once, and no turn is held meanwhile:
        # what the operator renews comes in here.
        async with self.party.turns:
            found = await self._deliver_to(request, certificate, default_first)
        if isinstance(found, Delivery):
            return found
        for emaid in found:
            await self._ask_operator(emaid, provisioning=fingerprint(certificate))
        async with self.party.turns:
            again = await self._deliver_to(request, certificate, default_first)
        if isinstance(again, Delivery):
            return again
        return self._refused(
            request,
            iso2.ResponseCode.FAILED_NoCertificateAvailable,
            f"what is in the pool is encrypted for a former provisioning key of the car: "
            f"{', '.join(again)}",
        )

    async def _deliver_to(
        self, request: InstallationRequest, certificate: x509.Certificate, default_first: bool
    ) -> Delivery | list[str]:
        """The answer; or the EMAIDs of contracts that another key of this car would open."""
        codes = iso2.ResponseCode
        name = common_name(certificate.subject)
        try:
            pcid = PCID.parse(name, strict=self.party.strict())
        except IdentifierError as error:
            return self._refused(
                request,
                codes.FAILED_CertChainError,
                f"{error} (this pool's policy is identifiers=strict)",
            )
        registered = await self._registered(pcid)
        if registered is None:
            return self._refused(
                request,
                UNKNOWN_CAR[self.party.config.policy["unknown_car"]],
                f"the car {pcid} is not in the provisioning certificate pool",
            )
        if fingerprint(certificate) != fingerprint(registered.certificate):
            return self._refused(
                request,
                codes.FAILED_CertChainError,
                f"the car {pcid} is registered with another provisioning certificate (SHA-256 "
                f"{fingerprint(registered.certificate)}, this is {fingerprint(certificate)})",
            )
        verdict = await self.judge.verdict(
            certificate,
            registered.issuers,
            role=Role.OEM_PROVISIONING,
            identifier=pcid,
            revocation=self.judge.revocation("oem_revocation"),
            what=f"the provisioning certificate of {pcid}",
        )
        if not verdict.accepted:
            return self._refused(request, codes(self.judge.iso2_code(verdict)), verdict.reason)
        fault = await self.party.faults.at("installation", pcid=pcid.normal)
        if fault is not None:
            return self._refused(request, codes(fault["code"]), "this pool was told to refuse")
        contracts = await self.party.database.read(
            lambda session: of_car(session, pcid.normal, default_first=default_first)
        )
        now = self.party.clock.now()
        current = [row for row in contracts if row.valid_from <= now < row.valid_to]
        if not current:
            waiting = "expired contracts only" if contracts else "no contract"
            return self._refused(
                request,
                codes.FAILED_NoCertificateAvailable,
                f"{waiting} in the pool for car {pcid}",
            )
        # In -2 a car gets one contract: its first one that it would accept.
        reasons = []
        stale = [
            row.emaid
            for row in current
            if row.recipient is not None and row.recipient != fingerprint(certificate)
        ]
        for row in current:
            if row.emaid in stale:
                continue
            response = read_response(row.message)
            verdict = await self._verdict_on_provisioning(response)
            if not verdict.accepted:
                reasons.append(f"the contract {row.emaid} is not handed out: {verdict.reason}")
            elif not self._listed(request, response):
                reasons.append(
                    "the car lists no root that the provisioning service's chain ends at "
                    "(this pool's policy is listed_root=require)"
                )
            else:
                return await self._delivered(request, row, response)
        if stale:
            return stale
        return self._refused(request, codes.FAILED_NoCertificateAvailable, "; ".join(reasons))

    async def _verdict_on_provisioning(
        self, response: InstallationResponse | UpdateResponse
    ) -> Verdict:
        """May this provisioning service's chain vouch for contracts now?"""
        signer, *issuers = (
            read_der(one, "message: SAProvisioningCertificateChain")
            for one in response.data.provisioning_chain
        )
        return await self.judge.verdict(
            signer,
            issuers,
            role=Role.CPS,
            revocation=RevocationPolicy.IF_AVAILABLE,
            what=f"the provisioning service's certificate of the contract {response.data.emaid}",
        )

    async def _delivered(
        self, request: InstallationRequest, row: ContractDataRow, response: InstallationResponse
    ) -> Delivery:
        data = await spoilt(self.party, response.data, row.pcid, row.stored_by)
        return await self._leaves(
            row,
            response.data.emaid,
            exi.encode(iso2.SCHEMA, data.response(request.session_id)),
        )

    async def _leaves(self, row: ContractDataRow, emaid: str, answer: bytes) -> Delivery:
        self.party.recorder.record(
            Event(
                kind="state",
                name="contract delivered",
                sender=self.party.config.name,
                receiver=row.pcid,
                summary=f"The contract {row.emaid} leaves the pool for the car {row.pcid}",
                data={"emaid": row.emaid, "pcid": row.pcid, "bytes": len(answer)},
            )
        )
        now = self.party.clock.now()
        told = notice(
            self.party,
            "contract.delivered",
            f"{row.emaid} is with the car {row.pcid}",
            emaid=row.emaid,
            pcid=row.pcid,
        )

        def delivered(session: Session) -> None:
            found = session.get(ContractDataRow, row.emaid)
            if found is not None:
                found.delivered_at = now
                self.party.database.tell(session, told)

        await self.party.database.write(delivered)
        return Delivery(answer, iso2.ResponseCode.OK.value, emaid, "")

    def _refused(
        self,
        request: InstallationRequest | UpdateRequest,
        code: iso2.ResponseCode,
        reason: str,
        retry_counter: int = NEXT_TIME,
    ) -> Delivery:
        self.party.recorder.record(
            Event(
                kind="verdict",
                name=type(request.body).__name__,
                sender=self.party.config.name,
                receiver=self.party.config.name,
                outcome="refused",
                summary=f"{code.value}: {reason}",
                data={"code": code.value, "reason": reason},
            )
        )
        if isinstance(request, UpdateRequest):
            refused = failed_update(request.session_id, code, retry_counter)
            return Delivery(
                exi.encode(iso2.SCHEMA, refused), code.value, None, reason, retry_counter
            )
        message = exi.encode(iso2.SCHEMA, failed_response(request.session_id, code))
        return Delivery(message, code.value, None, reason)

    # ---------------------------------------------------------------- updating

    async def update(self, message: bytes) -> Delivery:
        """Answer a car's CertificateUpdateReq.

        Raises Refusal 400 when the bytes are no such message at all.
        """
        try:
            request = read_update_request(message)
        except exi.EXIError as error:
            raise Refusal(400, "wrong_exi", f"certificate_update_req: {error}") from None
        except WrongMessage as error:
            raise Refusal(400, "wrong_message", f"certificate_update_req: {error}") from None
        codes = iso2.ResponseCode
        try:
            leaf, *issuers = (
                read_der(one, "ContractSignatureCertChain") for one in request.contract_chain
            )
        except Refusal as refusal:
            return self._refused(request, codes.FAILED_CertChainError, refusal.message, NEVER)
        try:
            cost().verifications += 1
            request.verify(public_key(leaf), self.party.edition)
        except SignatureError as error:
            return self._refused(request, codes.FAILED_SignatureError, error.reason)
        try:
            emaid = EMAID.parse(request.emaid, strict=self.party.strict())
        except IdentifierError as error:
            return self._refused(request, codes.FAILED_CertChainError, str(error), NEVER)
        async with self.party.turns:
            verdict = await self._verdict_on_contract(leaf, issuers, emaid)
        if not verdict.accepted:
            code = codes(self.judge.iso2_code(verdict))
            # Whose certificate has expired, or is none, installs a new one instead.
            return self._refused(request, code, verdict.reason, NEVER)
        shown = fingerprint(leaf)
        found = await self._waiting(request, emaid, shown)
        if found is not None:
            return found
        renewal = await self._ask_operator(emaid.wire, shown=shown)
        if not renewal.renewed:
            return self._refused(
                request,
                NOT_RENEWED.get(renewal.code, codes.FAILED_NoCertificateAvailable),
                renewal.reason,
                renewal.retry_days,
            )
        found = await self._waiting(request, emaid, shown)
        return found or self._refused(
            request,
            codes.FAILED_NoCertificateAvailable,
            f"the renewed contract {emaid} did not reach this pool",
        )

    async def _verdict_on_contract(
        self, leaf: x509.Certificate, issuers: Sequence[x509.Certificate], emaid: EMAID
    ) -> Verdict:
        """May this contract certificate ask for its successor? By default it must be good;
        with the policy expired_update=allow it must have been good on its last day."""
        now, last = self.party.clock.now(), leaf.not_valid_after_utc
        lenient = self.party.config.policy["expired_update"] == "allow" and now > last
        return await self.judge.verdict(
            leaf,
            issuers,
            role=Role.CONTRACT,
            identifier=emaid,
            revocation=RevocationPolicy.IF_AVAILABLE,
            what=f"the contract certificate of {emaid}, to be updated",
            at=last if lenient else None,
        )

    async def _waiting(self, request: UpdateRequest, emaid: EMAID, shown: str) -> Delivery | None:
        """The successor of the certificate that was shown, where it waits here and is good."""
        row = await self.party.database.read(
            lambda session: session.get(ContractDataRow, emaid.normal)
        )
        now = self.party.clock.now()
        if row is None or row.update_message is None or row.update_for != shown:
            return None
        if not row.valid_from <= now < row.valid_to:
            return None
        response = read_update_response(row.update_message)
        async with self.party.turns:
            verdict = await self._verdict_on_provisioning(response)
        if not verdict.accepted:
            return self._refused(
                request,
                iso2.ResponseCode.FAILED_NoCertificateAvailable,
                f"the contract {row.emaid} is not handed out: {verdict.reason}",
            )
        data = await spoilt(self.party, response.data, row.pcid, row.stored_by)
        return await self._leaves(
            row,
            response.data.emaid,
            exi.encode(iso2.SCHEMA, update_response(data, request.session_id)),
        )

    async def _ask_operator(
        self, emaid: str, *, shown: str | None = None, provisioning: str | None = None
    ) -> answers.Renewal:
        """Have the mobility operator of ``emaid`` decide on a new certificate."""
        provider = EMAID.parse(emaid, strict=False).provider_id
        operator = self.party.ecosystem.by_scope("mo", provider)
        if operator is None:
            return answers.Renewal(
                False, "unknown_operator", f"no mobility operator {provider} is known", NEVER
            )
        try:
            answer = await self.party.client(operator.name).call(
                "POST",
                f"/contracts/{quote(emaid, safe='')}/renewals",
                name="renew contract",
                summary=f"The contract {emaid} wants a new certificate",
                body={"certificate_fingerprint": shown, "provisioning_fingerprint": provisioning},
                timeout=RENEWAL_TIMEOUT,
            )
            return answer.read(answers.Renewal)
        except PartyUnreachable as error:
            return answers.Renewal(False, error.code, error.message, NEXT_TIME)
        except PartyRefused as refused:
            known = refused.upstream_status not in (404, 422)
            return answers.Renewal(
                False, refused.code, refused.message, NEXT_TIME if known else NEVER
            )

    def _check_update(self, update: UpdateData, installation: InstallationResponse) -> None:
        """Refusal unless ``update`` is the same contract for another key, signed alike."""
        where = "update.message"
        try:
            response = read_update_response(update.message)
        except exi.EXIError as error:
            raise Refusal(400, "wrong_exi", f"{where}: {error}") from None
        except WrongMessage as error:
            raise Refusal(400, "wrong_message", f"{where}: {error}") from None
        data, wanted = response.data, installation.data
        if (data.contract_chain, data.emaid, data.provisioning_chain) != (
            wanted.contract_chain,
            wanted.emaid,
            wanted.provisioning_chain,
        ):
            raise Refusal(
                422,
                "other_contract",
                f"{where}: contract chain, eMAID and the provisioning service's chain must be "
                "those of message",
            )
        check_key_elements(
            data.encrypted_private_key, data.dh_public_key, self.party.edition, f"{where}: "
        )
        try:
            cost().verifications += 1
            response.verify(public_key(load_der(data.provisioning_chain[0])), self.party.edition)
        except SignatureError as error:
            raise Refusal(
                422, "not_signed", f"{where}: the provisioning service's signature: {error}"
            ) from None

    async def _registered(self, pcid: PCID) -> answers.Registered | None:
        """A car's certificate as registered, and the sub-CAs above it, which it does not send."""
        try:
            answer = await self.party.uses("pcp").call(
                "GET",
                f"/provisioning-certificates/{quote(pcid.wire, safe='')}",
                name="provisioning certificate",
                summary=f"Is the car {pcid} registered, and who issued its certificate?",
            )
        except PartyRefused as refused:
            if refused.upstream_status in (404, 422):
                return None
            raise
        return answer.read(answers.Registered)

    def _listed(self, request: InstallationRequest, response: InstallationResponse) -> bool:
        """Whether the car lists the root of the provisioning service's chain, as policy asks."""
        if self.party.config.policy["listed_root"] == "prefer":
            return True
        top = load_der(response.data.provisioning_chain[-1])
        anchors = self.judge.store.for_role(Role.CPS, self.party.trust)
        return any(
            listed.names(anchor.certificate)
            for anchor in anchors
            if anchor.certificate.subject == top.issuer
            for listed in request.roots
        )

    def _read_response(self, message: bytes) -> InstallationResponse:
        try:
            response = read_response(message)
        except exi.EXIError as error:
            raise Refusal(400, "wrong_exi", f"message: {error}") from None
        except WrongMessage as error:
            raise Refusal(400, "wrong_message", f"message: {error}") from None
        if response.code is not iso2.ResponseCode.OK:
            raise Refusal(
                422,
                "not_ok",
                f"message: ResponseCode: {response.code.value}, wanted is OK",
            )
        signer = read_der(
            response.data.provisioning_chain[0], "message: SAProvisioningCertificateChain"
        )
        try:
            cost().verifications += 1
            response.verify(public_key(signer), self.party.edition)
        except SignatureError as error:
            raise Refusal(
                422, "not_signed", f"message: the provisioning service's signature: {error}"
            ) from None
        return response


def _emaid(text: str) -> EMAID:
    try:
        return EMAID.parse(text, strict=False)
    except IdentifierError as error:
        raise wrong_identifier(error) from None


def _names(common_name: str, emaid: EMAID) -> bool:
    try:
        return EMAID.parse(common_name, strict=False) == emaid
    except IdentifierError:
        return False


def _unknown(emaid: EMAID) -> Refusal:
    return Refusal(404, "unknown_emaid", f"no contract data of {emaid} is stored")
