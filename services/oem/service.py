"""What a vehicle maker does.

A car's key is made in the car; what comes here is a request signed with it. Building a
car spans two parties, so the order is written down first (``pending``), then the
certificate is issued and registered with the pool, then the car is ``registered``; what
a crash or an unreachable pool left pending, a later round completes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pki.identifiers import PCID, IdentifierError
from pki.issuing import CertificateRequest, CertificateRequestError, read_certificate_request
from pki.names import Subject
from pki.policy import Application
from pki.profiles import Role
from pki.trust import Holder
from services.ca.enrolment import (
    Counter,
    Enrolment,
    Known,
    certified,
    is_taken,
    issued_to,
    leaf_subject,
)
from services.ca.importing import take_up
from services.ca.responder import Responder
from services.ca.service import NOT_ISSUED, CertificateAuthority, Issued, role_domain
from services.common.auth import Caller
from services.common.certificates import (
    b64,
    b64_chain,
    der_of,
    fingerprint,
    from_pem,
    pem,
    public_key_digest,
    unb64,
)
from services.common.errors import PartyRefused, Refusal, wrong_identifier
from services.common.events import Event
from services.common.party import Party
from services.common.registration import must_be_allowed, own_registry
from services.common.statements import LOST, REKEY, StatementBody, objection
from services.common.trust_stores import CARS, Keeper, pool

from .store import CA, VehicleRow, by_key, pending

# ISO 3780 and VIN practice: no I, O, Q.
_LETTERS = "0123456789ABCDEFGHJKLMNPRSTUVWXYZ"


class VehicleMaker:
    def __init__(self, party: Party) -> None:
        self.party = party
        self.ca = CertificateAuthority(party, CA, (Role.OEM_ROOT, Role.OEM_SUB1, Role.OEM_SUB2))
        # The roots that its cars get, in the factory and over the air.
        self.over_the_air = Keeper(
            party,
            CARS,
            Holder.VEHICLE,
            pool(party, Holder.VEHICLE),
            party.config.policy["anchors"],
            readers=("vehicle",),
        )
        party.keepers["over-the-air"] = self.over_the_air
        self.responder = Responder(self.ca)
        self.enrolment = Enrolment(
            self.ca, (Counter("oem", Role.OEM_PROVISIONING, ("oem",), self._enrolled),)
        )
        # PCIDs of cars that a request is completing right now.
        self._under_way: set[str] = set()

    async def prepare(self) -> None:
        await self.ca.prepare()
        await self.ca.succession.publish_first()
        await take_up(self.ca)
        await self.over_the_air.prepare()

    async def resume(self) -> None:
        """A round: complete the cars that were left half way; what cannot be stays pending."""
        half_way = await self.party.database.read(pending)
        steps = {"pending": self._complete, "rekeying": self._rekey, "losing": self._lose}

        async def go_on(row: VehicleRow) -> bool:
            await steps[row.status](row)
            return True

        await self.party.take_up(
            (row for row in half_way if row.pcid not in self._under_way),
            go_on,
            lambda row: f"the car {row.pcid}",
        )

    async def build(
        self, csr: bytes, wanted: str | None, caller: Caller
    ) -> tuple[VehicleRow, bool]:
        """Build the car whose key signed ``csr``; returns it and whether it is new.

        ``wanted`` is a PCID that the car should have, else one is made up. The same key
        asked again gets the same car.
        """
        try:
            request = read_certificate_request(csr)
        except CertificateRequestError as error:
            raise Refusal(422, "not_a_request", f"csr: {error}") from None
        digest = public_key_digest(request.public_key)
        pcid = self._pcid(wanted) if wanted else None

        def order(session: Session) -> tuple[VehicleRow, bool]:
            known = by_key(session, digest)
            if known is not None:
                if pcid is not None and known.pcid != pcid:
                    raise Refusal(409, "key_taken", f"csr: this key is already car {known.pcid}")
                return known, False
            row = VehicleRow(
                pcid=pcid or self._new_pcid(),
                key_digest=digest,
                csr=b64(request.encoded),
                status="pending",
                ordered_at=self.party.clock.now(),
                built_by=caller.client,
            )
            session.add(row)
            session.flush()
            return row, True

        try:
            row, new = await self.party.database.write(order)
        except IntegrityError:
            raise Refusal(
                409, "pcid_taken", f"pcid: {pcid} is another car's", {"rule": "car.once"}
            ) from None
        if row.status == "pending":
            self._under_way.add(row.pcid)
            try:
                async with self.party.turns:
                    row = await self._complete(row)
            except Refusal as refusal:
                if new and refusal.code == NOT_ISSUED:
                    await self._forget(row)
                else:
                    # The order stands and will be completed: the car must keep its key.
                    refusal.details["pending"] = row.pcid
                raise
            finally:
                self._under_way.discard(row.pcid)
        return row, new

    async def rekey(
        self, text: str, csr: bytes, statement: StatementBody | None, caller: Caller
    ) -> VehicleRow:
        """A new provisioning key for a car: its certificate takes the old one's place in the pool,
        the old one is revoked. The same key again changes nothing.

        Refusal 422 for a car of another maker, 404 for one that this maker did not build, 403
        unless the caller had it built or the present key is behind it, 409 where it is lost or
        the key is another car's.
        """
        pcid = self._pcid(text)
        try:
            request = read_certificate_request(csr)
        except CertificateRequestError as error:
            raise Refusal(422, "not_a_request", f"csr: {error}") from None
        digest = public_key_digest(request.public_key)

        def order(session: Session) -> VehicleRow:
            row = session.get(VehicleRow, pcid)
            if row is None:
                raise Refusal(404, "unknown_pcid", f"{self.party.config.title} built no car {pcid}")
            if row.status == "registered" and row.key_digest == digest:
                return row
            if row.status == "rekeying" and row.next_key_digest == digest:
                return row
            self._must_speak_for(row, caller, statement, f"{REKEY} {digest}")
            if row.status != "registered":
                raise Refusal(409, "not_now", f"pcid: the car {pcid} is {row.status}")
            known = by_key(session, digest)
            if known is not None:
                raise Refusal(409, "key_taken", f"csr: this key is already car {known.pcid}")
            row.next_key_digest, row.next_csr = digest, b64(request.encoded)
            row.status = "rekeying"
            return row

        row = await self.party.database.write(order)
        return await self._now(row, "rekeying", self._rekey)

    async def lost(self, text: str, statement: StatementBody | None, caller: Caller) -> VehicleRow:
        """A car is lost: its provisioning certificate is revoked and leaves the pool.

        Refusals as for :meth:`rekey`.
        """
        pcid = self._pcid(text)

        def order(session: Session) -> VehicleRow:
            row = session.get(VehicleRow, pcid)
            if row is None:
                raise Refusal(404, "unknown_pcid", f"{self.party.config.title} built no car {pcid}")
            self._must_speak_for(row, caller, statement, LOST)
            if row.status in ("pending", "rekeying"):
                raise Refusal(409, "not_now", f"pcid: the car {pcid} is {row.status}")
            if row.status != "lost":
                row.status = "losing"
            return row

        row = await self.party.database.write(order)
        return await self._now(row, "losing", self._lose)

    def _must_speak_for(
        self, row: VehicleRow, caller: Caller, statement: StatementBody | None, says: str
    ) -> None:
        """Refusal 403 unless the caller had the car built, or it was said with the car's key."""
        if caller.is_admin or row.built_by == caller.client:
            return
        why = "and nothing is signed with its provisioning key"
        if statement is not None and row.chain:
            why = objection(self.party, statement, says, row.pcid, from_pem(row.chain)[0])
            if not why:
                return
        raise Refusal(
            403,
            "not_yours",
            f"pcid: the car {row.pcid} was not built by client {caller.client}: {why}",
            {"rule": "car.owner"},
        )

    async def _enrolled(
        self, request: CertificateRequest, caller: Caller, renews: Known | None
    ) -> Issued:
        """A provisioning certificate for a car that its maker builds elsewhere: it is issued,
        and registered with the pool by whoever asked."""
        config = self.party.config
        caller.must_own(config.scope_id or config.name, f"the maker {config.title}")
        pcid = self._pcid(request.subject.common_name)
        known = await issued_to(self.ca, Role.OEM_PROVISIONING, (pcid,))
        if renews is None and is_taken(self.ca, known, request):
            raise Refusal(
                409,
                "pcid_taken",
                f"csr: CN: {pcid} has a certificate for another key; a new key takes its place "
                "by simplereenroll",
                {"rule": "car.once"},
            )
        subject = leaf_subject(self.ca, Role.OEM_PROVISIONING, pcid, self.party.organisation)
        return await certified(
            self.ca,
            Role.OEM_PROVISIONING,
            subject,
            request,
            known,
            again=renews is not None,
        )

    async def _now(
        self,
        row: VehicleRow,
        status: str,
        step: Callable[[VehicleRow], Awaitable[VehicleRow]],
    ) -> VehicleRow:
        if row.status != status:
            return row
        self._under_way.add(row.pcid)
        try:
            async with self.party.turns:
                return await step(row)
        finally:
            self._under_way.discard(row.pcid)

    async def _rekey(self, row: VehicleRow) -> VehicleRow:
        request = read_certificate_request(unb64(row.next_csr or "", "csr"))
        issued = await self._certify(row, request, f"pcid:{row.pcid}:{row.next_key_digest}")
        old = fingerprint(from_pem(row.chain)[0])
        await self._register(row, issued, replaces=old)
        await self.ca.revoke(old, "superseded")
        told = self._state_event(
            row, "provisioning key replaced", f"The car {row.pcid} has a new provisioning key"
        )

        def finish(session: Session) -> VehicleRow:
            found = session.get_one(VehicleRow, row.pcid)
            if found.status == "rekeying":
                found.chain, found.status = pem(issued.chain), "registered"
                found.key_digest, found.csr = row.next_key_digest or "", row.next_csr or ""
                found.next_key_digest = found.next_csr = None
                self.party.database.tell(session, told)
            return found

        return await self.party.database.write(finish)

    async def _lose(self, row: VehicleRow) -> VehicleRow:
        await self.ca.revoke(fingerprint(from_pem(row.chain)[0]), "keyCompromise")
        try:
            await self.party.uses("pcp").call(
                "DELETE",
                f"/provisioning-certificates/{quote(row.pcid, safe='')}",
                name="remove car",
                summary=f"{self.party.config.title} takes the lost car {row.pcid} out of the pool",
            )
        except PartyRefused as refused:
            if refused.upstream_status != 404:
                raise
        told = self._state_event(row, "car lost", f"The car {row.pcid} is lost")

        def finish(session: Session) -> VehicleRow:
            found = session.get_one(VehicleRow, row.pcid)
            if found.status == "losing":
                found.status = "lost"
                self.party.database.tell(session, told)
            return found

        return await self.party.database.write(finish)

    def _state_event(self, row: VehicleRow, name: str, summary: str) -> Event:
        return self.party.recorder.stamped(
            Event(
                kind="state",
                name=name,
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=summary,
                data={"pcid": row.pcid},
            )
        )

    async def _certify(
        self, row: VehicleRow, request: CertificateRequest, request_key: str
    ) -> Issued:
        return await self.ca.issue(
            Role.OEM_PROVISIONING,
            subject=Subject(
                common_name=row.pcid,
                organization=self.party.organisation,
                country=self.party.ecosystem.country,
                domain_components=role_domain(Role.OEM_PROVISIONING, self.party),
            ),
            public_key=request.public_key,
            request_key=request_key,
        )

    async def _register(
        self, row: VehicleRow, issued: Issued, *, replaces: str | None = None
    ) -> None:
        await self.party.uses("pcp").call(
            "PUT",
            "/provisioning-certificates",
            name="register car",
            summary=f"{self.party.config.title} registers the car {row.pcid}",
            body={
                "certificate": b64(der_of(issued.certificate)),
                "issuers": b64_chain(issued.chain[1:]),
                "replaces": replaces,
            },
        )

    async def _forget(self, row: VehicleRow) -> None:
        """Take back an order that the CA refused."""
        await self.party.database.write(
            lambda session: session.delete(session.get_one(VehicleRow, row.pcid))
        )

    async def get(self, pcid: str) -> VehicleRow:
        row = await self.party.database.read(lambda session: session.get(VehicleRow, pcid.upper()))
        if row is None:
            raise Refusal(404, "unknown_pcid", f"{self.party.config.title} built no car {pcid}")
        return row

    async def _complete(self, row: VehicleRow) -> VehicleRow:
        request = read_certificate_request(unb64(row.csr, "csr"))
        issued = await self._certify(row, request, f"pcid:{row.pcid}")
        await self._register(row, issued)
        told = self.party.recorder.stamped(
            Event(
                kind="state",
                name="car built",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"The car {row.pcid} leaves the factory",
                data={"pcid": row.pcid},
            )
        )

        def finish(session: Session) -> VehicleRow:
            found = session.get_one(VehicleRow, row.pcid)
            if found.status != "registered":  # another worker may have been first
                self.party.database.tell(session, told)
            found.chain, found.status = pem(issued.chain), "registered"
            return found

        return await self.party.database.write(finish)

    def _pcid(self, text: str) -> str:
        try:
            pcid = PCID.parse(text, strict=self.party.strict())
        except IdentifierError as error:
            raise wrong_identifier(error, "pcid") from None
        me = self.party.config
        application = Application(
            Role.OEM_PROVISIONING, pcid.wire, issuer=me.name, applicant=me.name, kind="oem"
        )
        must_be_allowed(self.party, application, own_registry(self.party), field="pcid")
        return pcid.normal

    def _new_pcid(self) -> str:
        return f"{self.party.config.scope_id}{self.party.entropy.letters('pcid', _LETTERS, 15)}"


def chain_of(row: VehicleRow) -> list[str]:
    """A car's certificates as the API hands them out."""
    return b64_chain(from_pem(row.chain))
