"""Contracts: from the driver's signature to a bundle that only one car can open.

Issuing a contract spans four parties. Each step is written down before the next one is
asked for, so that what a crash or an unreachable party leaves behind stands as pending until
a later round completes it:

``pending`` (ordered) -> ``certified`` (certificate and encrypted key, in one transaction)
-> ``active`` (signed by the provisioning service and stored in the contract pool).

A contract has one certificate after the other, its generations (:mod:`.renewals`): each is
issued with a new key, encrypted for the car's provisioning key, and from the second on also
for the key of the one that it follows, since a car updates with that.
"""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from pki.contract_key import EncryptedContractKey, encrypt_contract_key
from pki.identifiers import EMAID, PCID, IdentifierError
from pki.issuing import CertificateRequest
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.policy import Application
from pki.profiles import Role
from services.ca.enrolment import Known, certified, is_taken, issued_to, leaf_subject
from services.ca.service import NOT_ISSUED, CertificateAuthority, Issued, role_domain
from services.common import answers
from services.common.auth import Caller
from services.common.certificates import (
    b64,
    b64_chain,
    fingerprint,
    from_pem,
    pem,
    public_key,
)
from services.common.errors import PartyRefused, Refusal, wrong_identifier
from services.common.events import Event, cost
from services.common.faults import Fault
from services.common.judging import Judge
from services.common.party import Party
from services.common.registration import must_be_allowed, own_registry

from .faults import misdirected
from .store import ContractRow, DriverRow, GenerationRow, generations, half_revoked, unfinished

_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def end_revoked(session: Session, revoked: str) -> None:
    """A revoked contract certificate ends its contract, in the transaction that revokes it; one
    that was followed by another ends only itself."""
    for row in session.scalars(select(ContractRow).where(ContractRow.fingerprint == revoked)):
        row.status = "revoked"
    for found in session.scalars(select(GenerationRow).where(GenerationRow.fingerprint == revoked)):
        found.status = "revoked"


def request_key(row: ContractRow, number: int) -> str:
    """The natural key under which a contract's certificate ``number`` is issued once."""
    first = f"emaid:{row.emaid}:{row.edition}"
    return first if number == 1 else f"{first}:{number}"


def show(row: ContractRow, found: GenerationRow) -> None:
    """Make a generation the one that its contract shows as its certificate."""
    row.generation = found.number
    row.chain, row.fingerprint = found.chain, found.fingerprint
    row.encrypted_key, row.dh_public_key = found.encrypted_key, found.dh_public_key


class Contracts:
    def __init__(self, party: Party, ca: CertificateAuthority) -> None:
        self.party = party
        self.ca = ca
        self.judge = Judge(party)
        # EMAIDs of contracts that a request is completing right now.
        self._under_way: set[str] = set()

    async def resume(self) -> None:
        """A round: complete what was left half way; what cannot be completed now stays as it is."""

        async def go_on(row: ContractRow) -> bool:
            if row.status in ("pending", "certified"):
                await self._complete(row)
            else:
                await self.leave_pool(row)
            return True

        half_way = await self.party.database.read(unfinished)
        await self.party.take_up(
            (row for row in half_way if row.emaid not in self._under_way),
            go_on,
            lambda row: f"the contract {row.wire} ({row.status})",
        )

        async def revoke(found: GenerationRow) -> bool:
            await self.ca.revoke(found.fingerprint, "cessationOfOperation")
            return True

        await self.party.take_up(
            await self.party.database.read(half_revoked),
            revoke,
            lambda found: f"generation {found.number} of the revoked contract {found.emaid}",
        )

    async def sign(
        self,
        driver: str,
        pcid_text: str,
        emaid_text: str | None,
        ends: datetime | None,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        replaces: EMAID | None = None,
    ) -> tuple[ContractRow, bool]:
        """A new contract of ``driver`` for the car ``pcid_text``; and whether it is new.

        Asked again with the same EMAID, PCID and driver, it is the contract there is.
        ``valid_from`` and ``valid_to`` are the certificate's validity where it is not to be the
        usual one: expired already, or not valid yet. ``replaces`` is a contract of another
        operator that ends once the car charges with this one (:mod:`.transfers`).
        """
        try:
            pcid = PCID.parse(pcid_text, strict=self.party.strict())
        except IdentifierError as error:
            raise wrong_identifier(error, "pcid") from None
        now = self.party.clock.now()
        if ends is not None:
            ends = ends.replace(microsecond=0)  # certificates know whole seconds
        if ends is not None and ends <= now:
            raise Refusal(
                422, "ends_in_the_past", f"ends: {ends.isoformat()} is past, now is {now:%F %T}Z"
            )
        if valid_from is not None and valid_to is not None and valid_from >= valid_to:
            raise Refusal(
                422,
                "ends_before_it_begins",
                f"valid_to: {valid_to.isoformat()} is not after valid_from, "
                f"{valid_from.isoformat()}",
            )
        if emaid_text:
            emaid = self.emaid(emaid_text)
        else:
            emaid = await self._half_way(driver, pcid) or self._new_emaid()
        # The car must exist before anything is written down.
        async with self.party.turns:
            recipient = await self.provisioning(pcid)

        def order(session: Session) -> tuple[ContractRow, bool]:
            if session.get(DriverRow, driver) is None:
                raise Refusal(404, "unknown_driver", f"driver: there is no driver {driver}")
            known = session.get(ContractRow, emaid.normal)
            if known is not None:
                if (known.pcid, known.driver) == (pcid.normal, driver):
                    return known, False
                raise Refusal(
                    409,
                    "emaid_taken",
                    f"emaid: {emaid} is already used for another car or driver",
                )
            row = ContractRow(
                emaid=emaid.normal,
                # The schema of ISO 15118-2 has no room for hyphens.
                wire=emaid.normal + (emaid.check_digit or ""),
                driver=driver,
                pcid=pcid.normal,
                edition=self.party.edition.name,
                status="pending",
                ends=ends,
                valid_from=valid_from,
                valid_to=valid_to,
                replaces=replaces.normal + (replaces.check_digit or "") if replaces else None,
                ordered_at=now,
            )
            session.add(row)
            session.flush()
            return row, True

        self._under_way.add(emaid.normal)
        new = False
        try:
            row, new = await self.party.database.write(order)
            if row.status in ("pending", "certified"):
                async with self.party.turns:
                    row = await self._complete(row, recipient)
        except Refusal as refusal:
            if new and refusal.code == NOT_ISSUED:
                await self._forget(row)
            else:
                # The order stands and will be completed: whoever asked must know it by name.
                refusal.details["emaid"] = emaid.wire
            raise
        finally:
            self._under_way.discard(emaid.normal)
        return row, new

    async def _half_way(self, driver: str, pcid: PCID) -> EMAID | None:
        """The EMAID of an order of this driver for this car that is not completed yet."""
        query = select(ContractRow).where(
            ContractRow.driver == driver,
            ContractRow.pcid == pcid.normal,
            ContractRow.status.in_(("pending", "certified")),
        )
        row = await self.party.database.read(lambda session: session.scalars(query).first())
        return EMAID.parse(row.wire, strict=False) if row else None

    async def _forget(self, row: ContractRow) -> None:
        """Take back an order that the CA refused."""
        await self.party.database.write(
            lambda session: session.delete(session.get_one(ContractRow, row.emaid))
        )

    async def get(self, text: str) -> ContractRow:
        emaid = self.emaid(text, strict=False)
        row = await self.party.database.read(lambda session: session.get(ContractRow, emaid.normal))
        if row is None:
            raise Refusal(404, "unknown_emaid", f"emaid: there is no contract {emaid}")
        return row

    async def of_driver(self, driver: str | None) -> list[ContractRow]:
        query = select(ContractRow).order_by(ContractRow.ordered_at)
        if driver is not None:
            query = query.where(ContractRow.driver == driver)
        return await self.party.database.read(lambda session: list(session.scalars(query)))

    async def revoke(self, text: str, reason: str) -> ContractRow:
        """Revoke all of the contract's certificates and take it out of the pool."""
        row = await self.get(text)
        for found in reversed(await self.generations(row)):  # first the one that is in use
            await self.ca.revoke(found.fingerprint, reason)
        return await self._end(await self.get(text), "revoked")

    async def generations(self, row: ContractRow) -> list[GenerationRow]:
        """The contract's certificates, oldest first."""
        return await self.party.database.read(lambda session: generations(session, row.emaid))

    async def cancel(self, text: str) -> ContractRow:
        """End the contract; its certificate stays good, the account does not pay any more."""
        return await self._end(await self.get(text), "cancelled")

    async def enrolled(
        self, request: CertificateRequest, caller: Caller, renews: Known | None
    ) -> Issued:
        """A contract certificate for an operator that keeps its contracts elsewhere: it is
        issued, and brought to the provisioning service by whoever asked."""
        config = self.party.config
        caller.must_own(config.scope_id or config.name, f"the operator {config.title}")
        emaid = self.emaid(request.subject.common_name)
        wire = emaid.normal + (emaid.check_digit or "")
        known = await issued_to(self.ca, Role.CONTRACT, (emaid.normal, wire))
        ours = await self.party.database.read(
            lambda session: session.get(ContractRow, emaid.normal)
        )
        if ours is not None or (renews is None and is_taken(self.ca, known, request)):
            raise Refusal(
                409,
                "emaid_taken",
                f"csr: CN: {emaid} has a certificate for another key; a new key takes its place "
                "by simplereenroll"
                if ours is None
                else f"csr: CN: {emaid} is a contract whose certificates the operator renews "
                "itself",
            )
        subject = leaf_subject(self.ca, Role.CONTRACT, wire, self.party.organisation)
        return await certified(
            self.ca, Role.CONTRACT, subject, request, known, again=renews is not None
        )

    # ------------------------------------------------------------------ steps

    async def _complete(
        self, row: ContractRow, recipient: x509.Certificate | None = None
    ) -> ContractRow:
        if row.status == "pending":
            if recipient is None:
                recipient = await self.provisioning(PCID.parse(row.pcid, strict=False))
            row = await self._certify(row, recipient)
        for found in await self.generations(row):
            if found.number == row.generation:
                await self.have_signed(row, found)
        told = self.party.recorder.stamped(
            Event(
                kind="state",
                name="contract active",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"The contract {row.wire} waits in the pool for the car {row.pcid}",
                data={"emaid": row.wire, "pcid": row.pcid},
            )
        )

        def finish(session: Session) -> ContractRow:
            found = session.get_one(ContractRow, row.emaid)
            if found.status == "certified":
                found.status = "active"
                for one in generations(session, row.emaid):
                    one.status = "active" if one.status == "certified" else one.status
                self.party.database.tell(session, told)
            return found

        row = await self.party.database.write(finish)
        # It may have been ended while it was on its way to the pool.
        return row if row.status == "active" else await self.leave_pool(row)

    async def have_signed(self, row: ContractRow, found: GenerationRow) -> None:
        """Have the provisioning service sign a generation and bring it to the pool; the same
        one again changes nothing."""
        update = None
        if found.update_encrypted_key is not None and found.update_dh_public_key is not None:
            update = {
                "for_certificate": found.update_for,
                "encrypted_private_key": b64(found.update_encrypted_key),
                "dh_public_key": b64(found.update_dh_public_key),
            }
        await self.party.uses("cps").call(
            "POST",
            "/contract-data",
            name="sign contract data",
            summary=f"{self.party.config.title} has the contract {row.wire} signed",
            body={
                "emaid": row.wire,
                "pcid": row.pcid,
                "contract_chain": b64_chain(from_pem(found.chain)),
                "encrypted_private_key": b64(found.encrypted_key),
                "dh_public_key": b64(found.dh_public_key),
                # A certificate that is expired or to come on purpose is signed as it is.
                "any_time": row.valid_from is not None
                or row.valid_to is not None
                or bool(self.party.ecosystem.backdate),
                "recipient": found.recipient,
                "update": update,
            },
        )

    async def _certify(self, row: ContractRow, recipient: x509.Certificate) -> ContractRow:
        await self.issue_generation(row, 1, recipient, None)
        return await self.get(row.wire)

    async def issue_generation(
        self,
        row: ContractRow,
        number: int,
        recipient: x509.Certificate,
        older: GenerationRow | None,
    ) -> None:
        """Issue certificate ``number`` of a contract, its key encrypted for ``recipient`` and,
        where it follows an ``older`` one, for that one's key."""
        edition = self.party.edition
        reference = f"contract/{row.emaid}"
        contract_key = self.party.entropy.key(reference, edition, reference)
        fault = await self.party.faults.at("contract-key", pcid=row.pcid, emaid=row.emaid)
        encrypted = self._encrypted(contract_key, row, recipient, fault)
        update = (
            self._encrypted(contract_key, row, from_pem(older.chain)[0], fault) if older else None
        )
        now = self.party.clock.now()
        wanted = "pending" if number == 1 else "active"

        def keep(session: Session, chain: tuple[x509.Certificate, ...]) -> None:
            found = session.get_one(ContractRow, row.emaid)
            if found.status != wanted:  # undoes the certificate too
                raise Refusal(
                    409, f"not_{wanted}", f"the contract {row.wire} is {found.status} meanwhile"
                )
            made = GenerationRow(
                emaid=row.emaid,
                number=number,
                fingerprint=fingerprint(chain[0]),
                chain=pem(chain),
                status="certified",
                recipient=fingerprint(recipient),
                encrypted_key=encrypted.ciphertext,
                dh_public_key=encrypted.dh_public_key,
                update_for=older.fingerprint if older else None,
                update_encrypted_key=update.ciphertext if update else None,
                update_dh_public_key=update.dh_public_key if update else None,
                not_after=chain[0].not_valid_after_utc,
                issued_at=now,
            )
            session.add(made)
            found.in_pool = True
            if number == 1:
                found.status = "certified"
                show(found, made)

        try:
            await self.ca.issue(
                Role.CONTRACT,
                subject=Subject(
                    common_name=row.wire,
                    organization=self.party.organisation,
                    country=self.party.ecosystem.country,
                    domain_components=role_domain(Role.CONTRACT, self.party),
                ),
                public_key=contract_key.public_key,
                request_key=request_key(row, number),
                # A validity on purpose is that of the first certificate.
                not_before=row.valid_from if number == 1 else None,
                not_after=min(
                    filter(None, (row.ends, row.valid_to if number == 1 else None)), default=None
                ),
                also=keep,
            )
        except Refusal as refusal:
            # The same order came in twice at once, and the other one was first: its key counts.
            if refusal.code != "already_issued":
                raise

    def _encrypted(
        self,
        contract_key: SoftwareKey,
        row: ContractRow,
        recipient: x509.Certificate,
        fault: Fault | None,
    ) -> EncryptedContractKey:
        cost().agreements += 1
        edition, entropy = self.party.edition, self.party.entropy
        key, to = misdirected(
            fault, contract_key, public_key(recipient), lambda: entropy.key("fault", edition)
        )
        return encrypt_contract_key(
            key,
            to,
            edition,
            ephemeral=entropy.key(f"contract-key/ephemeral/{row.emaid}", edition),
            iv=entropy(f"contract-key/iv/{row.emaid}", 16),
        )

    async def _end(self, row: ContractRow, status: str) -> ContractRow:
        told = self.party.recorder.stamped(
            Event(
                kind="state",
                name=f"contract {status}",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"The contract {row.wire} is {status}",
                data={"emaid": row.wire, "status": status},
            )
        )

        def change(session: Session) -> ContractRow:
            found = session.get_one(ContractRow, row.emaid)
            # A revoked contract stays revoked.
            if found.status not in ("revoked", status):
                found.status = status
                self.party.database.tell(session, told)
            return found

        row = await self.party.database.write(change)
        return await self.leave_pool(row)

    async def leave_pool(self, row: ContractRow) -> ContractRow:
        if not row.in_pool:
            return row
        try:
            await self.party.uses("ccp").call(
                "DELETE",
                f"/contracts/{row.emaid}",
                name="remove contract",
                summary=f"{self.party.config.title} takes the contract {row.wire} out of the pool",
            )
        except PartyRefused as refused:
            if refused.upstream_status != 404:
                raise

        def change(session: Session) -> ContractRow:
            found = session.get_one(ContractRow, row.emaid)
            found.in_pool = False
            return found

        return await self.party.database.write(change)

    async def provisioning(self, pcid: PCID) -> x509.Certificate:
        """The car's provisioning certificate, from the pool, judged."""
        try:
            answer = await self.party.uses("pcp").call(
                "GET",
                f"/provisioning-certificates/{quote(pcid.wire, safe='')}",
                name="provisioning certificate",
                summary=f"{self.party.config.title} asks for the provisioning certificate of "
                f"{pcid}",
            )
        except PartyRefused as refused:
            if refused.upstream_status == 404:
                refused.details["rule"] = "contract.registered-car"
            raise
        registered = answer.read(answers.Registered)
        await self.judge.require(
            registered.certificate,
            registered.issuers,
            role=Role.OEM_PROVISIONING,
            identifier=pcid,
            policy="oem_revocation",
            what=f"the provisioning certificate of {pcid}",
        )
        return registered.certificate

    def emaid(self, text: str, *, strict: bool | None = None) -> EMAID:
        """An EMAID of this operator; Refusal 422 says what is wrong with another text."""
        try:
            emaid = EMAID.parse(text, strict=self.party.strict() if strict is None else strict)
        except IdentifierError as error:
            raise wrong_identifier(error, "emaid") from None
        me = self.party.config.name
        application = Application(Role.CONTRACT, emaid.wire, issuer=me, applicant=me, kind="mo")
        must_be_allowed(
            self.party, application, own_registry(self.party), field="emaid", strict=strict
        )
        return emaid

    def _new_emaid(self) -> EMAID:
        scope = self.party.config.scope_id
        assert scope is not None
        instance = "C" + self.party.entropy.letters("emaid", _LETTERS, 8)
        return EMAID.with_check_digit(scope[:2], scope[2:], instance)
