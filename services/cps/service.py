"""What the provisioning service does: check contract data, sign it, store it in the pool.

A car trusts what comes out of the pool because this service signed it and because the
service's own chain ends at a V2G root that the car knows.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from pki.identifiers import EMAID, PCID, IdentifierError
from pki.issuing import Authority, certificate_request
from pki.names import Subject, readable
from pki.profiles import Role
from services.ca.service import needs_renewal
from services.common import answers
from services.common.auth import Caller
from services.common.certificates import (
    b64,
    der_of,
    fingerprint,
    from_pem,
    pem,
)
from services.common.errors import Refusal, wrong_identifier
from services.common.events import Event, unit_of_work
from services.common.judging import Judge
from services.common.party import Party
from v2g import exi
from v2g.certificate_installation import NO_SESSION, ContractData
from v2g.messages import iso2

from .store import SignedRow, SignerRow

log = logging.getLogger("pnclab")


@dataclass(frozen=True)
class ContractDataRequest:
    """What a mobility operator wants signed."""

    emaid: str
    pcid: str
    contract_chain: tuple[x509.Certificate, ...]
    encrypted_private_key: bytes
    dh_public_key: bytes


class ProvisioningService:
    def __init__(self, party: Party) -> None:
        self.party = party
        self.judge = Judge(party)
        self._signer: Authority | None = None
        self._chain: tuple[x509.Certificate, ...] = ()

    async def prepare(self) -> None:
        await self._prepare_signer()
        await self.judge.refresh()

    async def store_unstored(self) -> None:
        """A round: hand over what was signed and did not reach the pool."""
        unstored = await self.party.database.read(
            lambda session: list(
                session.scalars(select(SignedRow).where(SignedRow.stored.is_(False)))
            )
        )
        for row in unstored:
            with unit_of_work("resume"):
                try:
                    await self._store(row)
                except Refusal as reason:
                    log.info(
                        "%s: contract data of %s is not in the pool: %s",
                        self.party.config.name,
                        row.emaid,
                        reason.message,
                    )
                await self.party.database.flush()

    async def _prepare_signer(self) -> None:
        """Our signing certificate, renewed when less than a third of its life is left."""
        row = await self.party.database.read(
            lambda session: session.scalars(
                select(SignerRow).order_by(SignerRow.id.desc()).limit(1)
            ).first()
        )
        if row is None or needs_renewal(from_pem(row.chain)[0], self.party.clock.now()):
            row = await self._enrol()
        self._chain = from_pem(row.chain)
        self._signer = Authority(self._chain[0], await self.party.keys.get(row.key_reference))

    async def _enrol(self) -> SignerRow:
        reference = f"cps/{self.party.clock.now():%Y%m%d%H%M%S}"
        key = await self.party.keys.generate(reference, self.party.edition)
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

    async def sign(self, request: ContractDataRequest, caller: Caller) -> tuple[SignedRow, bool]:
        """Check, sign and store; the same contract certificate again gets the same answer."""
        emaid, pcid = self._identifiers(request)
        caller.must_own(emaid.provider_id, f"the contract {emaid}")
        leaf = request.contract_chain[0]
        mark = fingerprint(leaf)
        known = await self.party.database.read(lambda session: session.get(SignedRow, mark))
        if known is not None:
            if known.pcid != pcid.normal:
                raise Refusal(
                    409,
                    "emaid_taken",
                    f"emaid: {emaid} is already used with car {known.pcid}",
                )
            return (await self._store(known) if not known.stored else known), False
        async with self.party.turns:
            await self.judge.require(
                leaf,
                request.contract_chain[1:],
                role=Role.CONTRACT,
                identifier=emaid,
                policy="contract_revocation",
                what=f"the contract certificate of {emaid}",
            )
        chain = self.chain
        assert self._signer is not None
        data = ContractData(
            contract_chain=tuple(der_of(one) for one in request.contract_chain),
            encrypted_private_key=request.encrypted_private_key,
            dh_public_key=request.dh_public_key,
            emaid=emaid.wire,
            provisioning_chain=tuple(der_of(one) for one in chain),
        )
        try:
            signed = data.signed(self._signer.signer, self.party.edition)
            message = exi.encode(iso2.SCHEMA, signed.response(NO_SESSION))
        except exi.EXIError as error:
            # A field of the wrong length, found by the schema's facets.
            raise Refusal(422, "does_not_fit_the_schema", str(error)) from None
        row = SignedRow(
            fingerprint=mark,
            emaid=emaid.normal,
            pcid=pcid.normal,
            message=message,
            signed_at=self.party.clock.now(),
        )
        self.party.recorder.record(
            Event(
                kind="state",
                name="contract data signed",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"{readable(chain[0].subject)} signs contract chain, encrypted key, "
                f"DH public key and eMAID of {emaid}",
                data={"emaid": emaid.wire, "pcid": pcid.wire, "references": 4},
                response=message,
                cost={"signatures": 1, "bytes": len(message)},
            )
        )

        def keep(session: Session) -> SignedRow:
            existing = session.get(SignedRow, mark)
            if existing is not None:
                return existing
            session.add(row)
            session.flush()
            return row

        return await self._store(await self.party.database.write(keep)), True

    async def _store(self, row: SignedRow) -> SignedRow:
        """Hand the signed data to the contract pool."""
        await self.party.uses("ccp").call(
            "PUT",
            "/contracts",
            name="store contract data",
            summary=f"The signed contract data of {row.emaid} goes into the pool",
            body={"emaid": row.emaid, "pcid": row.pcid, "message": b64(row.message)},
        )

        def mark(session: Session) -> SignedRow:
            found = session.get_one(SignedRow, row.fingerprint)
            found.stored = True
            return found

        return await self.party.database.write(mark)

    def _identifiers(self, request: ContractDataRequest) -> tuple[EMAID, PCID]:
        strict = self.party.strict()
        try:
            return (
                EMAID.parse(request.emaid, strict=strict),
                PCID.parse(request.pcid, strict=strict),
            )
        except IdentifierError as error:
            raise wrong_identifier(error) from None
