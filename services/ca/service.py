"""What a certificate authority does.

The authorities of a party (its root and sub-CAs) are made once, from the top down;
leaves that it needs itself (OCSP signers) are renewed when a third of their life is
left. Issuing is idempotent by the request's natural key. Everything is decided on
the ecosystem's clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pki.issuing import (
    Authority,
    IssuingError,
    certificate_request,
    issue,
    new_serial,
    self_issue,
    validity_within,
)
from pki.names import Subject, common_name, readable
from pki.profiles import Role, profile
from pki.revocation import (
    CertId,
    CertificateStatus,
    OcspAnswer,
    OcspRequestError,
    RevocationReason,
    Revoked,
    RevokedCertificate,
    certificate_revocation_list,
    ocsp_error_response,
    ocsp_response,
    read_ocsp_request,
)
from services.common import answers
from services.common.certificates import (
    b64,
    der_of,
    fingerprint,
    from_pem,
    load_der,
    pem,
)
from services.common.errors import Refusal
from services.common.events import Event
from services.common.party import Party
from services.common.problems import NotAsExpectedError

from . import faults, store
from .store import CaTables

# Part of a leaf's life that must be left; below it the leaf is renewed at start.
RENEW_BELOW = 1 / 3
# The code of a refusal by the rules of issuing: nothing was signed.
NOT_ISSUED = "not_issued"
OCSP_LIFE = timedelta(hours=12)
CRL_LIFE = timedelta(days=7)


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


@dataclass(frozen=True)
class OpenAuthority:
    """An authority ready to sign."""

    id: int
    role: Role
    authority: Authority
    issuers: tuple[x509.Certificate, ...]

    @property
    def certificate(self) -> x509.Certificate:
        return self.authority.certificate

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """This CA and those above it, without the root."""
        return (self.certificate, *self.issuers) if not self.role.is_root else ()


@dataclass(frozen=True)
class _Crl:
    """A revocation list that was given out: its bytes, how many entries, since when."""

    encoded: bytes
    entries: int
    issued: datetime


def needs_renewal(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether less than a third of the certificate's life is left."""
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    return certificate.not_valid_after_utc - now < life * RENEW_BELOW


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
        self._crls: dict[int, _Crl] = {}
        self.tables = tables
        self.roles = tuple(roles)
        self._open: dict[int, OpenAuthority] = {}
        self._current: dict[Role, OpenAuthority] = {}
        self._responders: dict[int, Authority] = {}

    # ------------------------------------------------------------- authorities

    async def prepare(self) -> None:
        """Make the authorities that do not exist yet, and their OCSP signers."""
        for role in self.roles:
            found = await self.party.database.read(
                lambda session, role=role: store.newest_authority(  # type: ignore[misc]
                    self.tables, session, role.value
                )
            )
            self._current[role] = await self._opened(found) if found else await self._create(role)
            await self._must_fit_the_trust_model(role)
        for role in self.roles:
            if not role.is_root:
                await self._ocsp_signer(self._current[role])

    async def _must_fit_the_trust_model(self, role: Role) -> None:
        """Authorities of an earlier start may have been made under another trust model."""
        wanted = self.party.issuer(role)
        issuer = self._current[role].certificate.issuer
        if wanted in self._current:
            fits = issuer == self._current[wanted].certificate.subject
        else:  # a root, or issued by another party: by none of ours, then
            ours = {own.certificate.subject for own in await self._all()}
            fits = wanted is None or issuer not in ours
        if not fits:
            raise NotAsExpectedError(
                f"its {role.value} was issued by {readable(issuer)}, which is not what the trust "
                f"model {self.party.trust.name} says; start with an empty data folder, or with "
                "the trust model that this one was made under"
            )

    def authority(self, role: Role) -> OpenAuthority:
        """The authority of ``role`` that issues now."""
        try:
            return self._current[role]
        except KeyError:
            raise Refusal(
                503, "not_ready", f"{self.party.config.name} has no {role.value} authority (yet)"
            ) from None

    async def _opened(self, row: Any) -> OpenAuthority:
        if row.id not in self._open:
            self._open[row.id] = OpenAuthority(
                row.id,
                Role(row.role),
                Authority(load_der(row.certificate), await self.party.keys.get(row.key_reference)),
                from_pem(row.issuers),
            )
        return self._open[row.id]

    async def _create(self, role: Role) -> OpenAuthority:
        party = self.party
        reference = f"ca/{role.value}/1"
        key = await party.keys.get_or_generate(reference, party.edition)
        issuer_role = party.issuer(role)
        name = Subject(
            common_name=_authority_name(role, party.config.organisation),
            organization=party.organisation,
            country=party.ecosystem.country,
            domain_components=role_domain(role, party),
        )
        if issuer_role is None:
            now = party.clock.now()
            rules = profile(role, party.edition)
            certificate = self_issue(
                rules,
                subject=name,
                signer=key,
                not_before=_not_before(now),
                not_after=_not_before(now) + rules.validity.default,
                serial=new_serial(os.urandom(20)),
            )
            issuers: tuple[x509.Certificate, ...] = ()
            await self._keep_authority(role, reference, certificate, issuers, own_issuer=None)
        elif issuer_role in self.roles:
            parent = self.authority(issuer_role)
            issued = await self.issue(
                role,
                subject=name,
                public_key=key.public_key,
                request_key=f"authority:{role.value}/1",
            )
            certificate, issuers = issued.certificate, parent.chain
            await self._keep_authority(role, reference, certificate, issuers, own_issuer=parent)
        else:
            # The authority above belongs to another party: ask it, as anybody would.
            answer = await party.uses("v2g-root").call(
                "POST",
                "/sub-authorities",
                name="sub-CA request",
                summary=f"{party.config.title} asks the V2G root to certify its {role.value}",
                body={"role": role.value, "csr": b64(certificate_request(name, key))},
            )
            certificate, *above = answer.read(answers.Chain).chain
            issuers = tuple(above)
            await self._keep_authority(role, reference, certificate, issuers, own_issuer=None)
        row = await party.database.read(
            lambda session: store.newest_authority(self.tables, session, role.value)
        )
        return await self._opened(row)

    async def _keep_authority(
        self,
        role: Role,
        reference: str,
        certificate: x509.Certificate,
        issuers: Sequence[x509.Certificate],
        own_issuer: OpenAuthority | None,
    ) -> None:
        told = self._issued_event(certificate, role, "itself" if role.is_root else "the V2G root")

        def keep(session: Session) -> None:
            if own_issuer is None:  # else it was told when it was issued
                self.party.database.tell(session, told)
            session.add(
                self.tables.authority(
                    role=role.value,
                    key_reference=reference,
                    certificate=der_of(certificate),
                    issuers=pem(issuers),
                )
            )

        await self.party.database.write(keep)

    async def _ocsp_signer(self, authority: OpenAuthority) -> Authority:
        """The delegated responder of ``authority``, renewed when its life runs out."""
        party, reference = self.party, f"ocsp/{authority.role.value}/{authority.id}"
        now = party.clock.now()
        at_hand = self._responders.get(authority.id)
        if at_hand is not None and not needs_renewal(at_hand.certificate, now):
            return at_hand
        row = self.tables.certificate
        found = await party.database.read(
            lambda session: session.scalars(
                select(row)
                .where(
                    row.role == Role.OCSP_SIGNER.value,
                    row.authority == authority.id,
                    row.revoked_at.is_(None),
                )
                .order_by(row.not_after.desc())
                .limit(1)
            ).first()
        )
        key = await party.keys.get_or_generate(reference, party.edition)
        if found is None or needs_renewal(load_der(found.der), now):
            issued = await self.issue(
                Role.OCSP_SIGNER,
                subject=Subject(
                    common_name=f"OCSP signer of {common_name(authority.certificate.subject)}"[:64],
                    organization=party.organisation,
                    country=party.ecosystem.country,
                ),
                public_key=key.public_key,
                by=authority,
            )
            self._responders[authority.id] = Authority(issued.certificate, key)
        else:
            self._responders[authority.id] = Authority(load_der(found.der), key)
        return self._responders[authority.id]

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
        issuer = by or self.authority(self.party.issuer(role) or role)
        if request_key is not None:
            known = await self.party.database.read(
                lambda session: store.by_request(self.tables, session, request_key)
            )
            if known is not None:
                return await self._same_again(known, public_key, request_key)
        rules = profile(role, self.party.edition)
        # The profile's life; never beyond the issuer's, nor beyond what was asked for.
        now, last = validity_within(
            rules, issuer.authority, not_before or self.party.clock.now()
        )
        if not_after is not None:
            last = min(last, not_after)
        try:
            certificate = issue(
                rules,
                subject=subject,
                public_key=public_key,
                authority=issuer.authority,
                not_before=now,
                not_after=last,
                serial=new_serial(os.urandom(20)),
                ocsp_url=None if role is Role.OCSP_SIGNER else f"{self.party.config.url}/ocsp",
                crl_url=None,
            )
        except IssuingError as error:
            raise Refusal(422, NOT_ISSUED, str(error)) from None
        told = self._issued_event(certificate, role, common_name(issuer.certificate.subject))

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
            return await self._same_again(known, public_key, request_key)
        return Issued((certificate, *issuer.chain), new=True)

    async def _same_again(
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
        issuer = next(own for own in await self._all() if own.id == known.authority)
        return Issued((certificate, *issuer.chain), new=False)

    def _issued_event(self, certificate: x509.Certificate, role: Role, issuer: str) -> Event:
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

    async def ocsp(self, request: bytes) -> bytes:
        """Answer an OCSP request (RFC 6960), DER in and out; never raises on bad input."""
        try:
            asked = read_ocsp_request(request)
        except OcspRequestError:
            return ocsp_error_response("malformedRequest")
        now = self.party.clock.now().replace(microsecond=0)
        responder: OpenAuthority | None = None
        answers, names = [], []
        for cert_id in asked.cert_ids:
            authority = await self._named(cert_id)
            if authority is None or (responder is not None and authority.id != responder.id):
                # One signature cannot speak for two issuers: a delegated responder is
                # authorised by the issuer of the certificates in question (4.2.2.2).
                return ocsp_error_response("unauthorized")
            responder = authority
            row = await self.party.database.read(
                lambda session, a=authority, c=cert_id: session.get(  # type: ignore[misc]
                    self.tables.certificate, (a.id, store.serial_text(c.serial))
                )
            )
            if row is not None:
                names.append(row.common_name)
            answers.append(
                OcspAnswer(
                    cert_id=cert_id,
                    status=_status(row),
                    this_update=now,
                    next_update=now + OCSP_LIFE,
                )
            )
        if responder is None:
            return ocsp_error_response("malformedRequest")
        fault = await self.party.faults.at("ocsp", pcid=names, emaid=names)
        if fault is not None and fault.kind == "ocsp-wrong-signer":
            responder = await self._another(responder)
        # A root issues no leaf [V2G2-867], so it signs for itself.
        signer = (
            responder.authority if responder.role.is_root else await self._ocsp_signer(responder)
        )
        if fault is not None:
            return faults.ocsp(fault, answers, signer, produced_at=now, nonce=asked.nonce)
        return ocsp_response(answers, signer, produced_at=now, nonce=asked.nonce)

    async def _another(self, authority: OpenAuthority) -> OpenAuthority:
        """An authority of this party that has an OCSP signer, and is not ``authority``."""
        others = [own for own in await self._all() if not own.role.is_root]
        return next(own for own in others if own.id != authority.id)

    async def crl(self, role: Role) -> bytes:
        """The revocation list of the authority of ``role`` (DER); a new one when something was
        revoked since, or half of its life is over."""
        authority = self.authority(role)
        now = self.party.clock.now().replace(microsecond=0)
        known = self._crls.get(authority.id)
        count = await self.party.database.read(
            lambda session: len(store.revoked_of(self.tables, session, authority.id))
        )
        if known and known.entries == count and known.issued <= now < known.issued + CRL_LIFE / 2:
            return known.encoded

        def next_number(session: Session) -> tuple[int, list[Any]]:
            row = session.get_one(self.tables.authority, authority.id)
            row.crl_number += 1
            return row.crl_number, store.revoked_of(self.tables, session, authority.id)

        number, revoked = await self.party.database.write(next_number)
        encoded = certificate_revocation_list(
            [
                RevokedCertificate(
                    int(row.serial, 16), row.revoked_at, RevocationReason(row.reason)
                )
                for row in revoked
            ],
            authority.authority,
            number=number,
            this_update=now,
            next_update=now + CRL_LIFE,
        )
        self._crls[authority.id] = _Crl(encoded, len(revoked), now)
        return encoded

    async def all_certificates(self, role: str | None) -> list[KnownCertificate]:
        """What was issued here, and the authorities' own certificates that others issued."""
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
            for authority in await self._all()
            if authority.certificate not in have and role in (None, authority.role.value)
        ]
        return own + issued

    async def _named(self, cert_id: CertId) -> OpenAuthority | None:
        """The authority that an OCSP request means; the books are read when it is not at hand."""
        for own in list(self._open.values()):
            if cert_id.matches(own.certificate):
                return own
        return next((own for own in await self._all() if cert_id.matches(own.certificate)), None)

    async def _all(self) -> list[OpenAuthority]:
        row = self.tables.authority
        rows = await self.party.database.read(
            lambda session: list(session.scalars(select(row).order_by(row.id)))
        )
        return [await self._opened(found) for found in rows]


def role_domain(role: Role, party: Party) -> tuple[str, ...]:
    """The domain components that the profile wants in a subject of ``role``."""
    wanted = profile(role, party.edition).domain_component.value
    return (wanted,) if wanted else ()


def _authority_name(role: Role, organisation: str) -> str:
    family, _, level = role.value.partition("-")
    words = {"root": "Root CA", "sub1": "Sub-CA 1", "sub2": "Sub-CA 2"}
    return f"{organisation} {family.upper()} {words[level]}"


def _not_before(now: datetime) -> datetime:
    return now.replace(microsecond=0)


def _status(row: Any) -> CertificateStatus | Revoked:
    if row is None:
        return CertificateStatus.UNKNOWN
    if row.revoked_at is None:
        return CertificateStatus.GOOD
    return Revoked(row.revoked_at, RevocationReason(row.reason))
