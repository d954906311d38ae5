"""Contracts made for those who only say which: EMAID, car, and from when to when.

Where the EMAID's provider id is that of a mobility operator of this ecosystem, that operator
makes the contract. For an operator that is a client and no party this service hosts the PKI: it
has sub-CAs under the V2G root, issues the contract certificate in the operator's name, encrypts
its key for the car, and signs and stores the contract data as it does for everybody.

The CA is made when it is first needed. A certificate and its encrypted key are kept in one
transaction before they are signed; asked again, it is that certificate which is brought to the
pool, so what a crash left half way is completed by the same order.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import quote

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from pki.contract_key import EncryptedContractKey, encrypt_contract_key
from pki.identifiers import EMAID, PCID, IdentifierError
from pki.names import Subject
from pki.profiles import Role
from services.ca.service import CertificateAuthority, role_domain
from services.common import answers
from services.common.auth import Caller
from services.common.certificates import fingerprint, from_pem, pem, public_key
from services.common.errors import Refusal, wrong_identifier
from services.common.events import cost
from services.common.party import Party

from .service import ContractDataRequest, ProvisioningService
from .store import CA, HostedContractRow

ROLES = (Role.MO_SUB1, Role.MO_SUB2)
# O of a certificate has at most 64 characters.
_TEST_MARK = " (pnclab test)"


def end_revoked(session: Session, revoked: str) -> None:
    """What was revoked is not handed out again, in the transaction that revokes it."""
    query = select(HostedContractRow).where(HostedContractRow.fingerprint == revoked)
    for row in session.scalars(query):
        row.revoked = True


@dataclass(frozen=True)
class Order:
    """Which contract is wanted."""

    emaid: str
    pcid: str
    begins: datetime | None
    ends: datetime | None


class HostedContracts:
    def __init__(self, party: Party, service: ProvisioningService) -> None:
        self.party = party
        self.service = service
        self.ca = CertificateAuthority(party, CA, ROLES, on_revoked=end_revoked)
        self._making = asyncio.Lock()

    async def keep_current(self) -> None:
        """A round: renew the sub-CAs in time, where there are any."""
        await self.ca.look()
        if self.ca.authorities():
            await self.ca.succession.keep_current()

    async def generate(self, order: Order, caller: Caller) -> None:
        """Make a contract and bring it to the pool; the same order again changes nothing, one
        with other dates replaces what there is. Refusal 403 for a foreign provider id."""
        strict = self.party.strict()
        try:
            emaid = EMAID.parse(order.emaid, strict=strict)
            pcid = PCID.parse(order.pcid, strict=strict)
        except IdentifierError as error:
            raise wrong_identifier(error) from None
        caller.must_own(emaid.provider_id, f"the contract {emaid}")
        now = self.party.clock.now()
        if order.ends is not None and order.ends <= now:
            raise Refusal(
                422, "ends_in_the_past", f"ends: {order.ends:%F %T}Z is past, now is {now:%F %T}Z"
            )
        if order.begins is not None and order.ends is not None and order.begins >= order.ends:
            raise Refusal(
                422, "ends_before_it_begins", f"ends: {order.ends:%F %T}Z is not after begins"
            )
        operator = self.party.ecosystem.by_scope("mo", emaid.provider_id)
        if operator is None:
            await self._issue_and_sign(emaid, pcid, order, caller)
            return
        await self.party.client(operator.name).call(
            "PUT",
            "/platform-contracts",
            name="order contract",
            summary=f"{caller.client} orders the contract {emaid} for the car {pcid}",
            body={
                "emaid": emaid.wire,
                "pcid": pcid.wire,
                "begins": order.begins.isoformat() if order.begins else None,
                "ends": order.ends.isoformat() if order.ends else None,
            },
        )

    async def revoke(self, text: str, mark: str) -> HostedContractRow:
        """Revoke all certificates of a contract, if the one of this fingerprint is among them.
        Refusal 404 where it was not issued here."""
        try:
            emaid = EMAID.parse(text, strict=False)
        except IdentifierError as error:
            raise wrong_identifier(error, "emaid") from None
        row = await self._known(emaid)
        issued = await self._issued(emaid)
        if row is None or mark.lower() not in issued:
            raise Refusal(
                404, "not_issued_here", f"emaid: this certificate of {emaid} is not issued here"
            )
        for one in issued:
            await self.ca.revoke(one, "cessationOfOperation")
        found = await self._known(emaid)
        assert found is not None
        return found

    # ------------------------------------------------------------------ steps

    async def _issue_and_sign(self, emaid: EMAID, pcid: PCID, order: Order, caller: Caller) -> None:
        recipient = await self._provisioning(pcid)
        begins = order.begins.replace(microsecond=0) if order.begins else None
        ends = order.ends.replace(microsecond=0) if order.ends else None
        begins = begins if begins is not None and begins > self.party.clock.now() else None
        known = await self._known(emaid)
        if known is not None and known.pcid != pcid.normal:
            raise Refusal(409, "emaid_taken", f"emaid: {emaid} is already used with another car")
        wanted = (ends, fingerprint(recipient), False)
        if known is None or (known.ends, known.recipient, known.revoked) != wanted:
            organisation = await self._organisation(emaid, caller)
            await self._have_authorities()
            number = known.number + 1 if known else 1
            await self._issue(emaid, pcid, number, begins, ends, recipient, organisation, caller)
            known = await self._known(emaid)
        assert known is not None
        await self.service.sign(
            ContractDataRequest(
                emaid=known.wire,
                pcid=known.pcid,
                contract_chain=from_pem(known.chain),
                encrypted_private_key=known.encrypted_key,
                dh_public_key=known.dh_public_key,
                # What is valid only later is signed now.
                any_time=known.begins is not None or bool(self.party.ecosystem.backdate),
                recipient=known.recipient,
            ),
            caller,
            bring_again=True,
        )

    async def _issue(
        self,
        emaid: EMAID,
        pcid: PCID,
        number: int,
        begins: datetime | None,
        ends: datetime | None,
        recipient: x509.Certificate,
        organisation: str,
        caller: Caller,
    ) -> None:
        reference = f"hosted-contract/{emaid.normal}"
        edition, entropy = self.party.edition, self.party.entropy
        key = entropy.key(reference, edition, reference)
        cost().agreements += 1
        encrypted: EncryptedContractKey = encrypt_contract_key(
            key,
            public_key(recipient),
            edition,
            ephemeral=entropy.key(f"contract-key/ephemeral/{emaid.normal}", edition),
            iv=entropy(f"contract-key/iv/{emaid.normal}", 16),
        )
        wire = emaid.normal + (emaid.check_digit or "")
        now = self.party.clock.now()

        def keep(session: Session, chain: tuple[x509.Certificate, ...]) -> None:
            session.merge(
                HostedContractRow(
                    emaid=emaid.normal,
                    wire=wire,
                    pcid=pcid.normal,
                    number=number,
                    fingerprint=fingerprint(chain[0]),
                    chain=pem(chain),
                    encrypted_key=encrypted.ciphertext,
                    dh_public_key=encrypted.dh_public_key,
                    recipient=fingerprint(recipient),
                    begins=begins,
                    ends=ends,
                    revoked=False,
                    ordered_by=caller.client,
                    issued_at=now,
                )
            )

        try:
            await self.ca.issue(
                Role.CONTRACT,
                subject=Subject(
                    common_name=wire,
                    organization=organisation,
                    country=self.party.ecosystem.country,
                    domain_components=role_domain(Role.CONTRACT, self.party),
                ),
                public_key=key.public_key,
                request_key=f"{_prefix(emaid)}{number}",
                not_before=begins,
                not_after=ends,
                also=keep,
            )
        except Refusal as refusal:
            # The same order came in twice at once, and the other one was first: its key counts.
            if refusal.code != "already_issued":
                raise

    async def _have_authorities(self) -> None:
        async with self._making:
            await self.ca.look()
            if {own.role for own in self.ca.authorities()} != set(ROLES):
                async with self.party.database.alone("hosted-pki", wait=True):
                    await self.ca.prepare()

    async def _organisation(self, emaid: EMAID, caller: Caller) -> str:
        """In whose name: who holds the provider id in the registry, else the client."""
        answer = await self.party.uses("v2g-root").call(
            "GET",
            "/registrations",
            name="registry",
            summary=f"In whose name is {emaid.provider_id}?",
        )
        name = caller.client
        for one in answer.read(answers.Registrations):
            if one.kind == "mo" and emaid.provider_id in one.identifiers:
                if one.suspended_at is not None:
                    raise Refusal(
                        403, "suspended", f"{one.party} is suspended: it gets no new certificates"
                    )
                name = one.organisation
        return name[: 64 - len(_TEST_MARK)] + _TEST_MARK

    async def _provisioning(self, pcid: PCID) -> x509.Certificate:
        answer = await self.party.uses("pcp").call(
            "GET",
            f"/provisioning-certificates/{quote(pcid.wire, safe='')}?judged=true",
            name="provisioning certificate",
            summary=f"For whose key is a contract of {pcid} encrypted?",
        )
        return answer.read(answers.Registered).certificate

    async def _known(self, emaid: EMAID) -> HostedContractRow | None:
        return await self.party.database.read(
            lambda session: session.get(HostedContractRow, emaid.normal)
        )

    async def _issued(self, emaid: EMAID) -> list[str]:
        """Fingerprints of all certificates that were issued for an EMAID."""
        row = CA.certificate
        query = select(row.fingerprint).where(row.request_key.startswith(_prefix(emaid)))
        return await self.party.database.read(lambda session: list(session.scalars(query)))


def _prefix(emaid: EMAID) -> str:
    return f"hosted:{emaid.normal}:"
