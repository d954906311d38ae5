"""What a certificate authority does.

The authorities of a party (its root and sub-CAs) are made from the top down; who follows whom
is :mod:`.succession`, how long all live :mod:`.validity`. The one of a role that issues is the
newest that is valid now: where the clock goes backwards, an older one issues again. Issuing is
idempotent by the request's natural key. Everything is decided on the ecosystem's clock.

Several processes may run one party: what another one made or lost is noticed with the next
reading of the books.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pki.edition import Edition
from pki.issuing import (
    Authority,
    IssuingError,
    certificate_request,
    issue,
    new_serial,
    self_issue,
)
from pki.keys import Signer
from pki.names import Subject, common_name, readable
from pki.profiles import Presence, Role, profile
from pki.revocation import (
    RevocationReason,
    RevokedCertificate,
    certificate_revocation_list,
)
from services.common import answers
from services.common.certificates import (
    b64,
    der_of,
    fingerprint,
    from_pem,
    load_der,
    pem,
    public_key,
)
from services.common.errors import Refusal
from services.common.events import Event
from services.common.jobs import did
from services.common.party import Party
from services.common.problems import NotAsExpectedError

from . import faults, store
from .store import CaTables
from .succession import Succession
from .validity import Validity, in_use_until, life, needs_renewal, rules, validity

log = logging.getLogger("pnclab")

# The code of a refusal by the rules of issuing: nothing was signed.
NOT_ISSUED = "not_issued"
CRL_LIFE = timedelta(days=7)
# The rule of an IssuingError by which a certificate is too long.
SIZE_RULE = "[V2G2-010]"
# Seconds for which an OCSP signer is used before it is looked up again: another worker may have
# revoked it.
SIGNER_REUSE = 2.0


@dataclass(frozen=True)
class Issued:
    """A certificate with the certificates above it (without the root), leaf first."""

    chain: tuple[x509.Certificate, ...]
    new: bool

    @property
    def certificate(self) -> x509.Certificate:
        return self.chain[0]


@dataclass(frozen=True)
class KnownCertificate:
    """A certificate that this CA has in its books."""

    role: str
    certificate: x509.Certificate
    revoked_at: datetime | None = None
    reason: str | None = None


class LostKey:
    """Stands where the private key of an authority is not there: it can prove nothing."""

    def __init__(self, certificate: x509.Certificate, edition: Edition, reference: str) -> None:
        self.reference = reference
        self.public_key = public_key(certificate)
        self.algorithm = edition.signature
        self._name = readable(certificate.subject)

    def sign(self, data: bytes) -> bytes:
        """Refusal 503, always."""
        raise Refusal(
            503,
            "key_lost",
            f"the private key of {self._name} is not here: it was lost, or never brought; what "
            "needs it waits for a rollover",
        )


@dataclass(frozen=True)
class OpenAuthority:
    """An authority with its key; ``number`` counts those of its role from 1."""

    id: int
    role: Role
    number: int
    reference: str
    authority: Authority
    issuers: tuple[x509.Certificate, ...]

    @property
    def lost(self) -> bool:
        """Whether its private key is not there."""
        return isinstance(self.authority.signer, LostKey)

    @property
    def has_delegated_responder(self) -> bool:
        """A root issues no leaf [V2G2-867], so it signs OCSP answers itself while it can."""
        return self.lost or not self.role.is_root

    @property
    def title(self) -> str:
        return common_name(self.certificate.subject)

    def valid_at(self, now: datetime) -> bool:
        first, last = self.certificate.not_valid_before_utc, self.certificate.not_valid_after_utc
        return first <= now < last

    @property
    def certificate(self) -> x509.Certificate:
        return self.authority.certificate

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """This CA and those above it, without the root."""
        return (self.certificate, *self.issuers) if not self.role.is_root else ()


@dataclass(frozen=True)
class _AtHand:
    """An OCSP signer that was looked up: since when (monotonic seconds), and from when until
    when it is used."""

    since: float
    signer: Authority
    begins: datetime
    due: datetime


@dataclass(frozen=True)
class RevocationList:
    """A revocation list that was given out: its bytes (DER), how many entries, since when."""

    encoded: bytes
    entries: int
    this_update: datetime
    next_update: datetime


class CertificateAuthority:
    """The authorities of one party."""

    def __init__(
        self,
        party: Party,
        tables: CaTables,
        roles: Sequence[Role],
        on_revoked: Callable[[Session, str], None] | None = None,
    ) -> None:
        """``on_revoked`` is called with a fingerprint inside the transaction that revokes it."""
        self.party = party
        self._on_revoked = on_revoked
        self._crls: dict[int, RevocationList] = {}
        self.tables = tables
        self.roles = tuple(roles)
        self.succession = Succession(self)
        self._seen: store.Holdings = ()
        self._authorities: tuple[OpenAuthority, ...] = ()
        # The OCSP signers, by authority.
        self._responders: dict[int, _AtHand] = {}
        # By authority: one at a time looks its OCSP signer up, and renews it.
        self._renewing: dict[int, asyncio.Lock] = {}
        party.at_reset.append(self.forget)

    # ------------------------------------------------------------- authorities

    async def prepare(self) -> None:
        """Make the authorities that do not exist yet, and what is due: a start may be long
        after the last one."""
        await self.look()
        for role in self.roles:
            if not any(own.role is role for own in self._authorities):
                await self.create(role)
            self._must_fit_the_trust_model(role)
        await self.succession.keep_current()

    async def look(self) -> None:
        """Take over what another process made or lost."""
        await self._take_over(await self.party.database.read(self._holdings))

    async def forget(self) -> None:
        """The rows are others: look at all of them again."""
        self._crls.clear()
        self._responders.clear()
        self._seen = ()
        await self.look()

    def _holdings(self, session: Session) -> store.Holdings:
        return store.holdings(self.tables, self.party.tables.key_row, session)

    async def _take_over(self, seen: store.Holdings) -> None:
        if seen == self._seen:
            return
        rows = await self.party.database.read(
            lambda session: store.authorities(self.tables, session)
        )
        have = dict(seen)
        numbers: dict[str, int] = {}
        opened = []
        for row in rows:
            numbers[row.role] = numbers.get(row.role, 0) + 1
            opened.append(await self._opened(row, numbers[row.role], have.get(row.id, False)))
        self._authorities, self._seen = tuple(opened), seen

    async def _opened(self, row: Any, number: int, has_key: bool) -> OpenAuthority:
        certificate, reference = load_der(row.certificate), row.key_reference
        lost = LostKey(certificate, self.party.edition, reference)
        signer: Signer = lost
        if has_key:
            with contextlib.suppress(KeyError):  # destroyed this very moment
                signer = await self.party.keys.get(reference)
        return OpenAuthority(
            row.id,
            Role(row.role),
            number,
            reference,
            Authority(certificate, signer),
            from_pem(row.issuers),
        )

    def authorities(self) -> tuple[OpenAuthority, ...]:
        """All of this party, oldest first."""
        return self._authorities

    def authority(self, role: Role) -> OpenAuthority:
        """The authority of ``role`` that issues now: the newest that is valid."""
        now = self.party.clock.now()
        own = [one for one in reversed(self._authorities) if one.role is role]
        if not own:
            raise Refusal(
                503, "not_ready", f"{self.party.config.name} has no {role.value} authority (yet)"
            )
        return next((one for one in own if one.valid_at(now)), own[0])

    def _must_fit_the_trust_model(self, role: Role) -> None:
        """Authorities of an earlier start may have been made under another trust model."""
        wanted = self.party.issuer(role)
        issuer = self.authority(role).certificate.issuer
        above = {own.certificate.subject for own in self._authorities if own.role is wanted}
        if wanted in self.roles:
            fits = issuer in above
        else:  # a root, or issued by another party: by none of ours, then
            ours = {own.certificate.subject for own in self._authorities}
            fits = wanted is None or issuer not in ours
        if not fits:
            raise NotAsExpectedError(
                f"its {role.value} was issued by {readable(issuer)}, which is not what the trust "
                f"model {self.party.trust.name} says; start with an empty data folder, or with "
                "the trust model that this one was made under"
            )

    async def create(self, role: Role, *, to_publish: bool = False) -> OpenAuthority:
        """Make the next authority of ``role``: a key, a certificate, a row, which says too whether
        it is to be published. A former attempt that failed has left its key, which is used."""
        party = self.party
        number = sum(own.role is role for own in self._authorities) + 1
        reference = f"ca/{role.value}/{number}"
        key = await party.keys.get_or_generate(reference, party.edition)
        issuer_role = party.issuer(role)
        name = Subject(
            common_name=_authority_name(role, number, party.config.organisation),
            organization=party.organisation,
            country=party.ecosystem.country,
            domain_components=role_domain(role, party),
        )
        if issuer_role is None:
            wanted = validity(party, role, None)
            certificate = self_issue(
                rules(party, role),
                subject=name,
                signer=key,
                not_before=wanted.first,
                not_after=wanted.last,
                serial=self._serial(role, name),
            )
            await self._keep_authority(role, reference, certificate, (), wanted, to_publish)
        elif issuer_role in self.roles:
            issued = await self.issue(
                role,
                subject=name,
                public_key=key.public_key,
                request_key=f"authority:{role.value}/{number}",
            )
            # It was told when it was issued.
            await self._keep_authority(role, reference, issued.certificate, issued.chain[1:], None)
        else:
            # The authority above belongs to another party: ask it, as anybody would.
            answer = await party.uses("v2g-root").call(
                "POST",
                "/sub-authorities",
                name="sub-CA request",
                summary=f"{self.party.config.title} asks the V2G root to certify its {role.value}",
                body={"role": role.value, "csr": b64(certificate_request(name, key))},
            )
            certificate, *above = answer.read(answers.Chain).chain
            await self._keep_authority(
                role, reference, certificate, above, validity(party, role, None)
            )
        await self.look()
        return next(own for own in self._authorities if own.reference == reference)

    async def _keep_authority(
        self,
        role: Role,
        reference: str,
        certificate: x509.Certificate,
        issuers: Sequence[x509.Certificate],
        told_as: Validity | None,
        to_publish: bool = False,
    ) -> None:
        # Stamped here: in the writer's thread nobody knows of which run this is a part.
        issuer = "itself" if role.is_root else "the V2G root"
        told = self._issued_event(certificate, role, issuer, told_as) if told_as else None

        def keep(session: Session) -> None:
            if told is not None:
                self.party.database.tell(session, told)
            session.add(
                self.tables.authority(
                    role=role.value,
                    key_reference=reference,
                    certificate=der_of(certificate),
                    issuers=pem(issuers),
                    to_publish=to_publish,
                )
            )
            session.flush()

        # Another process may have made it meanwhile: then that one counts.
        with contextlib.suppress(IntegrityError):
            await self.party.database.write(keep)

    async def ocsp_signer(self, authority: OpenAuthority) -> Authority:
        """The delegated responder of ``authority``, renewed when its life runs out; where the
        authority cannot sign any more, the last one as long as it is valid, else Refusal."""
        if (at_hand := self._at_hand(authority)) is not None:
            return at_hand
        async with self._renewing.setdefault(authority.id, asyncio.Lock()):
            # Of many who ask at once, the first one has found it.
            return self._at_hand(authority) or await self._ocsp_signer(authority)

    def _at_hand(self, authority: OpenAuthority) -> Authority | None:
        known = self._responders.get(authority.id)
        if known is None or time.monotonic() >= known.since + SIGNER_REUSE:
            return None
        return known.signer if known.begins <= self.party.clock.now() < known.due else None

    async def _ocsp_signer(self, authority: OpenAuthority) -> Authority:
        party, reference = self.party, f"ocsp/{authority.role.value}/{authority.id}"
        now, usual = party.clock.now(), life(self.party, Role.OCSP_SIGNER)
        row = self.tables.certificate

        def known_ones(session: Session) -> list[Any]:
            query = select(row).where(
                row.role == Role.OCSP_SIGNER.value, row.authority == authority.id
            )
            return list(session.scalars(query.order_by(row.not_after.desc())))

        rows = await party.database.read(known_ones)
        found = next(
            (one for one in rows if one.revoked_at is None and one.not_before <= now), None
        )
        key = await party.keys.get_or_generate(reference, party.edition)
        known = load_der(found.der) if found is not None else None
        if known is None or needs_renewal(known, now, usual):
            ends_with_its_issuer = (
                known is not None
                and known.not_valid_after_utc == authority.certificate.not_valid_after_utc
            )
            still_good = known is not None and now <= known.not_valid_after_utc
            if not (still_good and (authority.lost or ends_with_its_issuer)):
                issued = await self.issue(
                    Role.OCSP_SIGNER,
                    subject=Subject(
                        common_name=f"OCSP signer of {authority.title}"[:64],
                        organization=party.organisation,
                        country=party.ecosystem.country,
                    ),
                    public_key=key.public_key,
                    # Workers who find this one missing at the same time issue one.
                    request_key=f"ocsp-signer:{authority.id}:{len(rows) + 1}",
                    by=authority,
                )
                known = issued.certificate
                did(f"OCSP signer of {authority.title} until {known.not_valid_after_utc:%F}")
        assert known is not None
        signer = Authority(known, key)
        begins, due = in_use_until(known, usual)
        self._responders[authority.id] = _AtHand(time.monotonic(), signer, begins, due)
        return signer

    # ----------------------------------------------------------------- issuing

    async def issue(
        self,
        role: Role,
        *,
        subject: Subject,
        public_key: ec.EllipticCurvePublicKey,
        request_key: str | None = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        by: OpenAuthority | None = None,
        also: Callable[[Session, tuple[x509.Certificate, ...]], None] | None = None,
    ) -> Issued:
        """Issue a certificate of ``role`` and keep it.

        ``request_key`` is the natural key of the request: asked again with the same public
        key, the certificate issued then is the answer; with another key it is refused (409).
        ``also`` is called with the chain inside the transaction that keeps the certificate.
        Raises Refusal with the rule that the request breaks (422).
        """

        def books(session: Session) -> tuple[Any, store.Holdings]:
            known = store.by_request(self.tables, session, request_key) if request_key else None
            return known, self._holdings(session)

        known, seen = await self.party.database.read(books)
        await self._take_over(seen)
        if known is not None:
            assert request_key is not None
            return self._same_again(known, public_key, request_key)
        wanted_by = by.role if by is not None else self.party.issuer(role) or role
        issuer = self.again(by) if by is not None else self.authority(wanted_by)
        wanted = validity(self.party, role, issuer.certificate, not_before, not_after)
        serial = self._serial(role, subject)

        asked = faults.Wanted(subject, *self._pointers(role, issuer))
        if role.is_leaf and role is not Role.OCSP_SIGNER:
            asked = await self._perhaps_spoilt(role, asked)

        def signed(crl_url: str | None) -> x509.Certificate:
            return issue(
                rules(self.party, role),
                subject=asked.subject,
                public_key=public_key,
                authority=issuer.authority,
                not_before=wanted.first,
                not_after=wanted.last,
                serial=serial,
                ocsp_url=asked.ocsp_url,
                crl_url=crl_url,
                deviations=asked.deviations,
            )

        try:
            try:
                certificate = signed(asked.crl_url)
            except IssuingError as error:
                # A long name or address leaves no room for both: OCSP is what stacks ask for.
                if error.rule != SIZE_RULE or asked.ocsp_url is None or asked.crl_url is None:
                    raise
                certificate = signed(None)
        except IssuingError as error:
            raise Refusal(422, NOT_ISSUED, str(error)) from None
        told = self._issued_event(certificate, role, issuer.title, wanted)

        def keep(session: Session) -> None:
            self.party.database.tell(session, told)
            store.add_certificate(
                self.tables,
                session,
                issuer.id,
                role.value,
                certificate,
                readable(certificate.subject),
                common_name(certificate.subject),
                fingerprint(certificate),
                der_of(certificate),
                request_key,
            )
            if also is not None:
                also(session, (certificate, *issuer.chain))

        try:
            await self.party.database.write(keep)
        except IntegrityError:
            if request_key is None:
                raise
            # Somebody asked the same thing at the same time and was first.
            known = await self.party.database.read(
                lambda session: store.by_request(self.tables, session, request_key)
            )
            if known is None:
                raise
            return self._same_again(known, public_key, request_key)
        return Issued((certificate, *issuer.chain), new=True)

    def _same_again(
        self, known: Any, public_key: ec.EllipticCurvePublicKey, request_key: str
    ) -> Issued:
        """The certificate of an earlier request, with the chain of whoever issued it then."""
        certificate = load_der(known.der)
        if certificate.public_key() != public_key:
            raise Refusal(
                409,
                "already_issued",
                f"{request_key} already has certificate {known.serial} for another key",
            )
        if known.revoked_at is not None:
            raise Refusal(
                409, "already_revoked", f"{request_key}: certificate {known.serial} was revoked"
            )
        issuer = next(own for own in self._authorities if own.id == known.authority)
        return Issued((certificate, *issuer.chain), new=False)

    async def _perhaps_spoilt(self, role: Role, asked: faults.Wanted) -> faults.Wanted:
        name = asked.subject.common_name
        chargers = [
            one.name
            for one in self.party.ecosystem.of_kind("charger")
            if one.options["evse_id"] == name
        ]
        fault = await self.party.faults.at("certificate", pcid=name, emaid=name, charger=chargers)
        return asked if fault is None else faults.certificate(fault, asked, rules(self.party, role))

    def _pointers(self, role: Role, issuer: OpenAuthority) -> tuple[str | None, str | None]:
        """Where a certificate says that its status is told: by OCSP, in a revocation list.

        The list is that of the very authority that issues, by its number: another one of its
        role takes over some day.
        """
        policy, at = self.party.config.policy["pointers"], self.party.config.seen_at
        wanted = rules(self.party, role).pointers
        ocsp = policy in ("ocsp-and-crl", "ocsp") and wanted.ocsp is not Presence.ABSENT
        crl = policy in ("ocsp-and-crl", "crl") and wanted.crl is not Presence.ABSENT
        return (
            f"{at}/ocsp" if ocsp else None,
            f"{at}/crl/{issuer.role.value}/{issuer.number}" if crl else None,
        )

    def _serial(self, role: Role, subject: Subject) -> int:
        octets = rules(self.party, role).serial_octets
        return new_serial(self.party.entropy(f"serial/{role.value}/{subject.common_name}", octets))

    def again(self, authority: OpenAuthority) -> OpenAuthority:
        """``authority`` as it is now: its key may be lost since."""
        return next(own for own in self._authorities if own.id == authority.id)

    def _issued_event(
        self, certificate: x509.Certificate, role: Role, issuer: str, wanted: Validity
    ) -> Event:
        unusual: dict[str, Any] = {}
        if wanted.backdated:
            unusual["backdated_seconds"] = int(wanted.backdated.total_seconds())
        if wanted.deviations:
            unusual["deviations"] = [deviation.name for deviation in wanted.deviations]
        return self.party.recorder.stamped(
            Event(
                kind="issued",
                name=role.value,
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"{issuer} issues {readable(certificate.subject)}",
                data={
                    "role": role.value,
                    "subject": readable(certificate.subject),
                    "issuer": readable(certificate.issuer),
                    "serial": store.serial_text(certificate.serial_number),
                    "not_before": certificate.not_valid_before_utc.isoformat(),
                    "not_after": certificate.not_valid_after_utc.isoformat(),
                    "fingerprint": fingerprint(certificate),
                    **unusual,
                },
                response=der_of(certificate),
                cost={"signatures": 1, "bytes": len(der_of(certificate))},
            )
        )

    # -------------------------------------------------------------- revocation

    async def revoke(self, wanted_fingerprint: str, reason: str) -> Any:
        """Revoke a certificate by its SHA-256 fingerprint; a second time changes nothing."""
        if reason not in set(RevocationReason):
            raise Refusal(
                422,
                "unknown_reason",
                f"reason: {reason!r} is none of {', '.join(RevocationReason)} (RFC 5280 5.3.1)",
            )
        row = await self.party.database.read(
            lambda session: store.by_fingerprint(self.tables, session, wanted_fingerprint.lower())
        )
        if row is None:
            raise Refusal(
                404, "no_such_certificate", f"no certificate {wanted_fingerprint} was issued here"
            )
        if row.revoked_at is not None:
            return row
        told = self.party.recorder.stamped(
            Event(
                kind="revoked",
                name="certificate revoked",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"{self.party.config.title} revokes {row.subject}",
                data={"fingerprint": row.fingerprint, "subject": row.subject, "reason": reason},
            )
        )
        now = self.party.clock.now().replace(microsecond=0)

        def change(session: Session) -> Any:
            fresh = session.get_one(self.tables.certificate, (row.authority, row.serial))
            if fresh.revoked_at is None:
                fresh.revoked_at, fresh.reason = now, reason
                self.party.database.tell(session, told)
                if self._on_revoked is not None:
                    self._on_revoked(session, fresh.fingerprint)
            return fresh

        revoked = await self.party.database.write(change)
        self._responders.clear()  # one of them may be what was revoked
        return revoked

    async def crl(self, role: Role, number: int | None = None) -> RevocationList:
        """The revocation list of the authority of ``role`` that issues, or of an older one by its
        number; a new list when something was revoked since, or half of its life is over.

        Refusal 404 for a number that there is not. Where the key is lost, the last list there
        was, until that is over; then Refusal 503.
        """
        await self.look()
        authority = self.authority(role) if number is None else self._numbered(role, number)
        now = self.party.clock.now().replace(microsecond=0)
        known = self._crls.get(authority.id)
        count = await self.party.database.read(
            lambda session: len(store.revoked_of(self.tables, session, authority.id))
        )
        if (
            known
            and known.entries == count
            and known.this_update <= now < known.this_update + CRL_LIFE / 2
        ):
            return known
        if authority.lost:
            if known is None or not known.this_update <= now < known.next_update:
                authority.authority.signer.sign(b"")
            assert known is not None
            return known

        def next_number(session: Session) -> tuple[int, list[Any]]:
            row = session.get_one(self.tables.authority, authority.id)
            row.crl_number += 1
            return row.crl_number, store.revoked_of(self.tables, session, authority.id)

        counted, revoked = await self.party.database.write(next_number)
        encoded = certificate_revocation_list(
            [
                RevokedCertificate(
                    int(row.serial, 16), min(row.revoked_at, now), RevocationReason(row.reason)
                )
                for row in revoked
            ],
            authority.authority,
            number=counted,
            this_update=now,
            next_update=now + CRL_LIFE,
        )
        made = self._crls[authority.id] = RevocationList(encoded, len(revoked), now, now + CRL_LIFE)
        return made

    async def all_certificates(self, role: str | None) -> list[KnownCertificate]:
        """What was issued here, and the authorities' own certificates that others issued."""
        await self.look()
        row = self.tables.certificate
        query = select(row).order_by(row.not_before, row.subject)
        if role is not None:
            query = query.where(row.role == role)
        issued = [
            KnownCertificate(found.role, load_der(found.der), found.revoked_at, found.reason)
            for found in await self.party.database.read(
                lambda session: list(session.scalars(query))
            )
        ]
        have = {one.certificate for one in issued}
        own = [
            KnownCertificate(authority.role.value, authority.certificate)
            for authority in self._authorities
            if authority.certificate not in have and role in (None, authority.role.value)
        ]
        return own + issued

    def _numbered(self, role: Role, number: int) -> OpenAuthority:
        for own in self._authorities:
            if (own.role, own.number) == (role, number):
                return own
        raise Refusal(404, "no_such_authority", f"number: there is no {role.value} {number}")


def role_domain(role: Role, party: Party) -> tuple[str, ...]:
    """The domain components that the profile wants in a subject of ``role``."""
    wanted = profile(role, party.edition).domain_component.value
    return (wanted,) if wanted else ()


def _authority_name(role: Role, number: int, organisation: str) -> str:
    family, _, level = role.value.partition("-")
    words = {"root": "Root CA", "sub1": "Sub-CA 1", "sub2": "Sub-CA 2"}
    # Generations are told apart by name: chains are also drawn and searched by it.
    rest = f" {family.upper()} {words[level]}" + (f" G{number}" if number > 1 else "")
    return organisation[: 64 - len(rest)] + rest
