"""What the provisioning service does: check contract data, sign it, store it in the pool.

A car trusts what comes out of the pool because this service signed it and because the
service's own chain ends at a V2G root that the car knows.

A signing certificate lives for months and a contract for years: with each new signing
certificate, what is signed of contracts that are still good is signed again and replaces
what the pool has. The signature covers the elements and not the session, so nobody else is
needed for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import quote

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from pki.chain import RevocationPolicy
from pki.identifiers import EMAID, PCID, IdentifierError
from pki.issuing import Authority, certificate_request
from pki.names import Subject, readable
from pki.profiles import Role
from services.ca.validity import life, needs_renewal
from services.common import answers
from services.common.auth import Caller
from services.common.certificates import (
    b64,
    der_of,
    fingerprint,
    from_pem,
    load_der,
    pem,
)
from services.common.contract_elements import check_key_elements
from services.common.errors import PartyRefused, Refusal, wrong_identifier
from services.common.events import Event
from services.common.jobs import did, waits
from services.common.judging import Judge
from services.common.opcp import root_of
from services.common.party import Party
from v2g import exi
from v2g.certificate_installation import NO_SESSION, ContractData, read_response
from v2g.certificate_update import read_update_response, update_response
from v2g.messages import iso2

from .store import REFUSED, SIGNED, SIGNED_AGAIN, STORED, SignedRow, SignerRow

if TYPE_CHECKING:
    from services.ca.responder import Responder
    from services.ca.service import CertificateAuthority

    from .hosted import HostedContracts

log = logging.getLogger("pnclab")

# The pool's refusals of the data itself, which stay as they are; after any other answer the
# next attempt may do better.
PERMANENT = (409, 422)
NOT_IN_POOL = "unknown_emaid"
CHAIN_REFUSED = "chain_refused"


@dataclass(frozen=True)
class UpdateElements:
    """The contract key once more, for a car that updates the contract certificate of this
    fingerprint: encrypted to that one's key."""

    for_certificate: str
    encrypted_private_key: bytes
    dh_public_key: bytes


@dataclass(frozen=True)
class ContractDataRequest:
    """What a mobility operator wants signed."""

    emaid: str
    pcid: str
    contract_chain: tuple[x509.Certificate, ...]
    encrypted_private_key: bytes
    dh_public_key: bytes
    any_time: bool = False
    recipient: str | None = None
    update: UpdateElements | None = None


class ProvisioningService:
    # What is put beside it: contracts for operators without a CA, and the CA for that.
    hosted: HostedContracts
    ca: CertificateAuthority
    responder: Responder

    def __init__(self, party: Party) -> None:
        self.party = party
        self.judge = Judge(party)
        self._signer: Authority | None = None
        self._chain: tuple[x509.Certificate, ...] = ()
        self._enrolling = asyncio.Lock()
        party.at_reset.append(self._look_again)

    async def prepare(self) -> None:
        await self._prepare_signer()
        await self.judge.prepare()

    async def _look_again(self) -> None:
        self._signer, self._chain = None, ()
        with contextlib.suppress(Refusal):  # one that is to be renewed, which the next round does
            await self._prepare_signer()

    async def keep_current(self) -> None:
        """A round: renew the signing certificate in time, and sign again what older ones signed."""
        async with self.party.unit():
            try:
                await self._prepare_signer()
            except Refusal as reason:
                log.info("%s: no new signer: %s", self.party.config.name, reason.message)
                waits("signing certificate", reason.message)
        now, signer = self.party.clock.now(), fingerprint(self.chain[0])
        outdated = await self.party.database.read(
            lambda session: list(
                session.scalars(
                    select(SignedRow).where(
                        SignedRow.signer != signer,
                        SignedRow.state != REFUSED,
                        SignedRow.valid_to > now,
                    )
                )
            )
        )

        async def sign_again(row: SignedRow) -> bool:
            await self._sign_again(row)
            return True

        await self.party.take_up(
            outdated, sign_again, lambda row: f"contract data of {row.emaid}, to sign again"
        )

    async def store_unstored(self) -> None:
        """A round: hand over what was signed and did not reach the pool."""
        now = self.party.clock.now()
        waiting = select(SignedRow).where(
            SignedRow.state.in_((SIGNED, SIGNED_AGAIN)), SignedRow.valid_to > now
        )
        unstored = await self.party.database.read(lambda session: list(session.scalars(waiting)))

        async def store(row: SignedRow) -> bool:
            return (await self._store(row)).stored

        await self.party.take_up(
            unstored, store, lambda row: f"contract data of {row.emaid}, not in the pool"
        )

    async def _sign_again(self, row: SignedRow) -> SignedRow:
        """The same elements under the present signer; a contract that was revoked is left."""
        data = read_response(row.message).data
        leaf, *issuers = (load_der(one) for one in data.contract_chain)
        async with self.party.turns:
            verdict = await self.judge.verdict(
                leaf,
                issuers,
                role=Role.CONTRACT,
                identifier=EMAID.parse(row.emaid, strict=False),
                # Without an answer the old signature would end the contract: not for that.
                revocation=RevocationPolicy.IF_AVAILABLE,
                what=f"the contract certificate of {row.emaid}, to be signed again",
                at=self._within(leaf),
            )
        if verdict.accepted:
            state = SIGNED if row.state == SIGNED else SIGNED_AGAIN
            message, reason = self._signed(data, row.pcid), ""
            if row.update_message is not None:
                update = read_update_response(row.update_message).data
                row.update_message = self._signed_update(update, row.pcid)
        else:
            state, message, reason = REFUSED, row.message, verdict.reason
        signer, now = fingerprint(self.chain[0]), self.party.clock.now()

        def keep(session: Session) -> SignedRow:
            found = session.get_one(SignedRow, row.fingerprint)
            found.message, found.state, found.reason = message, state, reason
            found.update_message = row.update_message
            if verdict.accepted:
                found.signer, found.signed_at = signer, now
            return found

        return await self.party.database.write(keep)

    async def _must_have_a_good_signer(self) -> None:
        """Nothing is signed with a certificate that has expired: after a leap of the clock the
        new one is asked for at once. Refusal 503 where there is none."""
        if self.chain[0].not_valid_after_utc > self.party.clock.now():
            return
        async with self._enrolling:
            if self.chain[0].not_valid_after_utc <= self.party.clock.now():
                await self._prepare_signer()

    def _within(self, certificate: x509.Certificate) -> datetime | None:
        """The instant of the certificate's validity that is nearest to now; None where that is
        now."""
        now = self.party.clock.now()
        first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        return None if first <= now <= last else min(max(first, now), last)

    async def _prepare_signer(self) -> None:
        """Our signing certificate, the newest that is valid now; renewed when less than a third
        of its life is left."""
        now, usual = self.party.clock.now(), life(self.party, Role.CPS)
        rows = await self.party.database.read(
            lambda session: list(session.scalars(select(SignerRow).order_by(SignerRow.id.desc())))
        )
        # After the clock went backwards an older one is the one that is valid.
        row = next(
            (one for one in rows if not needs_renewal(from_pem(one.chain)[0], now, usual)), None
        )
        if row is None:
            row = await self._enrol(rows[0].id + 1 if rows else 1)
            did(f"signing certificate until {row.not_after:%F}")
        self._chain = from_pem(row.chain)
        self._signer = Authority(self._chain[0], await self.party.keys.get(row.key_reference))

    async def _enrol(self, number: int) -> SignerRow:
        """Signing certificate ``number``; an attempt that failed left its key, which is used."""
        reference = f"cps/{number}"
        key = await self.party.keys.get_or_generate(reference, self.party.edition)
        name = Subject(common_name=f"{self.party.config.organisation} provisioning service")
        answer = await self.party.uses("v2g-root").call(
            "POST",
            "/certificates",
            name="certificate request",
            summary=f"{self.party.config.title} asks for a signing certificate",
            body={"role": Role.CPS.value, "csr": b64(certificate_request(name, key))},
        )
        chain = answer.read(answers.Chain).chain

        def keep(session: Session) -> SignerRow:
            row = SignerRow(
                key_reference=reference, chain=pem(chain), not_after=chain[0].not_valid_after_utc
            )
            session.add(row)
            session.flush()
            return row

        return await self.party.database.write(keep)

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Our signing certificate and its sub-CAs, leaf first."""
        if not self._chain:
            raise Refusal(503, "not_ready", "the provisioning service has no certificate yet")
        return self._chain

    async def sign_only(self, request: ContractDataRequest, caller: Caller) -> bytes:
        """Check and sign, for who brings it to the car by another way: nothing is kept here.
        The PCID of ``request`` is not looked at."""
        emaid = self._emaid(request)
        caller.must_own(emaid.provider_id, f"the contract {emaid}")
        check_key_elements(request.encrypted_private_key, request.dh_public_key, self.party.edition)
        await self._must_have_a_good_signer()
        async with self.party.turns:
            await self._must_be_good(request, emaid)
        return self._signed(self._data(request, emaid), request.pcid)

    async def _must_be_good(self, request: ContractDataRequest, emaid: EMAID) -> None:
        leaf = request.contract_chain[0]
        verdict = await self.judge.require(
            leaf,
            request.contract_chain[1:],
            role=Role.CONTRACT,
            identifier=emaid,
            policy="contract_revocation",
            what=f"the contract certificate of {emaid}",
            at=self._within(leaf) if request.any_time else None,
        )
        path = tuple(step.certificate for step in verdict.path[:-1])
        if path != request.contract_chain:
            # Cars take them as they stand: they walk upwards, and there is no room for more.
            raise Refusal(
                422,
                "wrong_chain_order",
                "contract_chain: wanted is each certificate issued by the next, without the root: "
                f"{_names(path)}; seen is {_names(request.contract_chain)}",
            )

    def _data(self, request: ContractDataRequest, emaid: EMAID) -> ContractData:
        return ContractData(
            contract_chain=tuple(der_of(one) for one in request.contract_chain),
            encrypted_private_key=request.encrypted_private_key,
            dh_public_key=request.dh_public_key,
            emaid=emaid.wire,
            provisioning_chain=(),
        )

    async def root(self) -> x509.Certificate | None:
        """The V2G root that our signatures end at, where it is known here."""
        await self.judge.keeper.current()
        anchors = self.judge.store.for_role(Role.CPS, self.party.trust)
        known = [anchor.certificate for anchor in anchors]
        if not known:
            answer = await self.party.uses("rcp").call("GET", "/roots", params={"type": "V2G"})
            known = [one.certificate for one in answer.read(answers.Roots)]
        return root_of(self.chain[-1], known)

    async def sign(
        self, request: ContractDataRequest, caller: Caller, *, bring_again: bool = False
    ) -> tuple[SignedRow, bool]:
        """Check, sign and store; the same contract data again gets the same answer, and with
        ``bring_again`` is brought to the pool once more, from where it may have been taken."""
        emaid, pcid = self._identifiers(request)
        caller.must_own(emaid.provider_id, f"the contract {emaid}")
        check_key_elements(request.encrypted_private_key, request.dh_public_key, self.party.edition)
        if request.update is not None:
            check_key_elements(
                request.update.encrypted_private_key,
                request.update.dh_public_key,
                self.party.edition,
                "update: ",
            )
        leaf = request.contract_chain[0]
        mark = fingerprint(leaf)
        await self._must_have_a_good_signer()
        known = await self.party.database.read(lambda session: session.get(SignedRow, mark))
        if known is not None:
            self._must_be_same(known, request, emaid, pcid)
            if not known.stored and known.signer != fingerprint(self.chain[0]):
                known = await self._sign_again(known)
            if bring_again or not known.stored:
                known = await self._store(known)
            return known, False
        async with self.party.turns:
            await self._must_be_registered(pcid)
            await self._must_be_good(request, emaid)
        data = self._data(request, emaid)
        row = SignedRow(
            fingerprint=mark,
            emaid=emaid.normal,
            pcid=pcid.normal,
            message=self._signed(data, pcid.normal),
            recipient=request.recipient,
            update_for=request.update.for_certificate if request.update else None,
            update_message=self._signed_update(
                replace(
                    data,
                    encrypted_private_key=request.update.encrypted_private_key,
                    dh_public_key=request.update.dh_public_key,
                ),
                pcid.normal,
            )
            if request.update
            else None,
            signer=fingerprint(self.chain[0]),
            state=SIGNED,
            reason="",
            valid_to=leaf.not_valid_after_utc,
            signed_at=self.party.clock.now(),
        )

        def keep(session: Session) -> SignedRow:
            existing = session.get(SignedRow, mark)
            if existing is not None:
                return existing
            session.add(row)
            session.flush()
            return row

        kept = await self.party.database.write(keep)
        # The same certificate may have come in twice at once, with other data.
        self._must_be_same(kept, request, emaid, pcid)
        return await self._store(kept), True

    def _signed(self, data: ContractData, pcid: str) -> bytes:
        """``data`` with our present signature and chain, as a CertificateInstallationRes
        without a session."""
        return self._vouched(data, pcid, lambda signed: signed.response(NO_SESSION))

    def _signed_update(self, data: ContractData, pcid: str) -> bytes:
        """The same as a CertificateUpdateRes."""
        return self._vouched(data, pcid, lambda signed: update_response(signed, NO_SESSION))

    def _vouched(
        self, data: ContractData, pcid: str, wrapped: Callable[[ContractData], iso2.V2G_Message]
    ) -> bytes:
        chain = self.chain
        assert self._signer is not None
        vouched = replace(data, provisioning_chain=tuple(der_of(one) for one in chain))
        try:
            signed = vouched.signed(self._signer.signer, self.party.edition)
            message = exi.encode(iso2.SCHEMA, wrapped(signed))
        except exi.EXIError as error:
            # A certificate of the wrong length, found by the schema's facets.
            raise Refusal(422, "does_not_fit_the_schema", str(error)) from None
        self.party.recorder.record(
            Event(
                kind="state",
                name="contract data signed",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"{readable(chain[0].subject)} signs contract chain, encrypted key, "
                f"DH public key and eMAID of {data.emaid}",
                data={"emaid": data.emaid, "pcid": pcid, "references": 4},
                response=message,
                cost={"signatures": 1, "bytes": len(message)},
            )
        )
        return message

    def _must_be_same(
        self, known: SignedRow, request: ContractDataRequest, emaid: EMAID, pcid: PCID
    ) -> None:
        """Refusal 409 where a contract certificate comes again with other data than it had.

        Whose it is needs no comparison: that is told by the EMAID, and asked before.
        """
        data = read_response(known.message).data
        if known.emaid != emaid.normal:
            raise Refusal(
                409,
                "certificate_taken",
                f"emaid: {emaid}, but this contract certificate was signed for {known.emaid}",
            )
        if known.pcid != pcid.normal:
            raise Refusal(
                409, "emaid_taken", f"emaid: {emaid} is already used with car {known.pcid}"
            )
        for field, seen, wanted in (
            (
                "contract_chain",
                tuple(der_of(one) for one in request.contract_chain),
                data.contract_chain,
            ),
            ("encrypted_private_key", request.encrypted_private_key, data.encrypted_private_key),
            ("dh_public_key", request.dh_public_key, data.dh_public_key),
            (
                "update",
                None if request.update is None else request.update.encrypted_private_key,
                None
                if known.update_message is None
                else read_update_response(known.update_message).data.encrypted_private_key,
            ),
        ):
            if seen != wanted:
                raise Refusal(
                    409,
                    "signed_with_other_data",
                    f"{field}: is another one than was signed for this contract certificate of "
                    f"{emaid}; new data needs a new certificate",
                )

    async def _must_be_registered(self, pcid: PCID) -> None:
        try:
            await self.party.uses("pcp").call(
                "GET",
                f"/provisioning-certificates/{quote(pcid.wire, safe='')}",
                name="provisioning certificate",
                summary=f"Is the car {pcid} registered?",
            )
        except PartyRefused as refused:
            if refused.upstream_status != 404:
                raise
            raise Refusal(
                422, "unknown_pcid", f"pcid: no provisioning certificate is registered for {pcid}"
            ) from None

    async def _store(self, row: SignedRow) -> SignedRow:
        """Hand the signed data to the contract pool; what that refuses for good is noted."""
        try:
            await self.party.uses("ccp").call(
                "PUT",
                "/contracts",
                name="store contract data",
                summary=f"The signed contract data of {row.emaid} goes into the pool",
                body={
                    "emaid": row.emaid,
                    "pcid": row.pcid,
                    "message": b64(row.message),
                    "recipient": row.recipient,
                    "update": None
                    if row.update_message is None
                    else {
                        "for_certificate": row.update_for,
                        "message": b64(row.update_message),
                    },
                    # A contract that was taken out meanwhile must not come back.
                    "only_replace": row.state == SIGNED_AGAIN,
                },
            )
        except PartyRefused as refused:
            # A chain that is refused is ours: the next signer may do better.
            permanent = refused.upstream_status in PERMANENT and refused.code != CHAIN_REFUSED
            if permanent or refused.code == NOT_IN_POOL:
                await self._set_state(row, REFUSED, refused.message)
            raise
        return await self._set_state(row, STORED, "")

    async def _set_state(self, row: SignedRow, state: str, reason: str) -> SignedRow:
        def change(session: Session) -> SignedRow:
            found = session.get_one(SignedRow, row.fingerprint)
            # Signed again while this was under way: the new message has its own turn.
            if found.signer == row.signer:
                found.state, found.reason = state, reason
            return found

        return await self.party.database.write(change)

    def _emaid(self, request: ContractDataRequest) -> EMAID:
        try:
            return EMAID.parse(request.emaid, strict=self.party.strict())
        except IdentifierError as error:
            raise wrong_identifier(error) from None

    def _identifiers(self, request: ContractDataRequest) -> tuple[EMAID, PCID]:
        try:
            return self._emaid(request), PCID.parse(request.pcid, strict=self.party.strict())
        except IdentifierError as error:
            raise wrong_identifier(error) from None


def _names(chain: Sequence[x509.Certificate]) -> str:
    return "; ".join(readable(certificate.subject) for certificate in chain)
