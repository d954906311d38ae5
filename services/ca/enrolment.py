"""Enrolment: who gets a leaf for a certificate request, under which label.

A party that mounts the EST door (:mod:`.doors.est`) has *counters*: a label such as ``cpo``, the
role of the leaf that is given out there, the roles of those who may ask, and the party's own
function that decides and certifies. What they share is here: the same key under the same name
gets the certificate that it got before, until that is due for renewal; a renewal needs a
certificate of the same common name that was issued here to whoever asks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from pki.issuing import CertificateRequest
from pki.names import Subject
from pki.profiles import Role
from services.common.auth import Caller
from services.common.certificates import load_der, public_key_digest
from services.common.errors import Refusal

from .service import CertificateAuthority, Issued, role_domain
from .validity import life, needs_renewal

# The kind of party that serves a label.
SERVED_BY: Mapping[str, str] = {
    "cpo": "v2g-root",
    "cps": "v2g-root",
    "oem": "oem",
    "mo": "mo",
}
_SYNONYMS: Mapping[str, str] = {"emsp": "mo", "secc": "cpo"}


def label_of(text: str) -> str:
    """The label that a path or a query means: ``qa-emsp`` is ``mo``."""
    label = text.rpartition("-")[2].lower()
    return _SYNONYMS.get(label, label)


@dataclass(frozen=True)
class Known:
    """A certificate that was issued here, and the natural key of the request for it."""

    certificate: x509.Certificate
    request_key: str
    revoked: bool


class Certify(Protocol):
    """How a counter decides and certifies; ``renews`` is the certificate that the new one takes
    the place of, None for a first one. Refusal where it does not."""

    def __call__(
        self, request: CertificateRequest, caller: Caller, renews: Known | None
    ) -> Awaitable[Issued]: ...


@dataclass(frozen=True)
class Counter:
    """What is given out under one label."""

    label: str
    role: Role
    callers: tuple[str, ...]
    """Roles of clients that may ask; an admin may always."""
    certify: Certify


@dataclass(frozen=True)
class Enrolment:
    """The counters of one party; the first one serves who names no label and fits no other."""

    ca: CertificateAuthority
    counters: Sequence[Counter]
    anchors: Callable[[], Collection[x509.Certificate]] = tuple
    """Roots of others: one of them may be above this party's sub-CAs."""

    async def authorities(self, counter: Counter) -> tuple[x509.Certificate, ...]:
        """The CA certificates above what the counter issues now, from its issuer to the root."""
        await self.ca.look()
        role = self.ca.party.issuer(counter.role)
        assert role is not None
        chain = self.ca.authority(role).chain
        roots = [own.certificate for own in reversed(self.ca.authorities()) if own.role.is_root]
        for root in (*roots, *self.anchors()):
            if root.subject == chain[-1].issuer and _signed(chain[-1], root):
                return (*chain, root)
        raise Refusal(503, "not_ready", "the root above the sub-CAs is not known here (yet)")

    async def enrol(
        self, counter: Counter, request: CertificateRequest, caller: Caller, *, again: bool
    ) -> Issued:
        """A leaf for ``request``; with ``again`` in the place of one that the caller has."""
        if not again:
            return await counter.certify(request, caller, None)
        name = request.subject.common_name
        known = await issued_to(self.ca, counter.role, (name,))
        if not known:
            raise Refusal(
                404,
                "nothing_to_renew",
                f"csr: CN: no {counter.role.value} certificate of {name!r} was issued here; a "
                "first one is asked for by simpleenroll",
            )
        good = next((one for one in known if not one.revoked), None)
        if good is None:
            raise Refusal(
                409, "already_revoked", f"csr: CN: what was issued to {name!r} was revoked"
            )
        return await counter.certify(request, caller, good)


async def issued_to(ca: CertificateAuthority, role: Role, names: Collection[str]) -> list[Known]:
    """What was issued under one of these common names, newest first."""
    row = ca.tables.certificate
    query = (
        select(row)
        .where(row.role == role.value, row.common_name.in_(names))
        .order_by(row.not_before.desc(), row.request_key.desc())
    )

    def found(session: Session) -> list[Any]:
        return list(session.scalars(query))

    return [
        Known(load_der(one.der), one.request_key or "", one.revoked_at is not None)
        for one in await ca.party.database.read(found)
    ]


def in_use(ca: CertificateAuthority, known: Known) -> bool:
    """Whether a certificate is neither revoked nor over."""
    return not known.revoked and ca.party.clock.now() < known.certificate.not_valid_after_utc


def is_taken(ca: CertificateAuthority, known: Sequence[Known], request: CertificateRequest) -> bool:
    """Whether what is in use of ``known`` is for other keys than the request's."""
    keys = [one.certificate.public_key() for one in known if in_use(ca, one)]
    return bool(keys) and request.public_key not in keys


async def certified(
    ca: CertificateAuthority,
    role: Role,
    subject: Subject,
    request: CertificateRequest,
    known: Sequence[Known],
    *,
    again: bool,
) -> Issued:
    """Issue a leaf; ``known`` is what was issued under its name before, newest first.

    The same key gets the same certificate until that is due for renewal; with ``again`` a new
    one at once, and the same request once more gets that. Refusal 409 for a key whose
    certificate was revoked.
    """
    same = [one for one in known if one.certificate.public_key() == request.public_key]
    for one in same:
        if one.revoked:
            raise Refusal(
                409,
                "already_revoked",
                f"csr: the certificate {one.certificate.serial_number:x} of this key was revoked",
            )
    key = f"{role.value}:{subject.common_name}:{public_key_digest(request.public_key)}"
    if again:
        key += f":again:{hashlib.sha256(request.encoded).hexdigest()[:24]}"
    now, usual = ca.party.clock.now(), life(ca.party, role)
    for one in same:
        answered = one.request_key.startswith(key) if again else one.request_key
        if answered and not needs_renewal(one.certificate, now, usual):
            key = one.request_key
            break
    else:
        key += f"#{len(same)}" if same else ""
    return await ca.issue(role, subject=subject, public_key=request.public_key, request_key=key)


def leaf_subject(ca: CertificateAuthority, role: Role, name: str, organisation: str) -> Subject:
    """The subject of a leaf: its name, and what the issuer says of it."""
    return Subject(
        common_name=name,
        organization=organisation,
        country=ca.party.ecosystem.country,
        domain_components=role_domain(role, ca.party),
    )


def _signed(certificate: x509.Certificate, root: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(root)
    except Exception:  # the library documents no common type
        return False
    return True
