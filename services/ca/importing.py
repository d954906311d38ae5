"""Authorities that somebody brings: a sub-CA or a root with its key, from then on this party's.

What is brought is checked as everybody checks it: against its role's profile, its dates, and
up to a root that this party knows (its own, or one in its trust store). Then it is one of this
party's authorities, the newest of its role, so that it issues from now on; the authorities
below it are made anew under it. Its key is sealed like any other and never comes back out.

A root may come without its key: it stands above sub-CAs that come with theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pki.chain import Anchor, RevocationPolicy, judge
from pki.keys import SoftwareKey
from pki.names import common_name, readable
from pki.profiles import Role
from services.common.bringing import brought, taking_up
from services.common.certificates import der_of, fingerprint, pem, public_key
from services.common.errors import Refusal
from services.common.events import Event
from services.common.material import Material

from . import store

if TYPE_CHECKING:
    from .service import CertificateAuthority, OpenAuthority


@dataclass(frozen=True)
class Imported:
    """The authority that was brought, those that were made below it, and whether it is new."""

    authority: OpenAuthority
    below: tuple[OpenAuthority, ...]
    new: bool


async def bring_authority(
    ca: CertificateAuthority, role: Role, material: Material, *, cascade: bool = True
) -> Imported:
    """Make what was brought this party's authority of ``role``; the same again changes nothing.

    Refusal 422 says what is wrong: the key, the certificate, who stands above it.
    """
    certificate, key = _what(role, material)
    await ca.look()
    known = next((own for own in ca.authorities() if own.certificate == certificate), None)
    if known is not None and known.role is not role:
        raise Refusal(
            409, "other_role", f"role: this certificate is this party's {known.role} already"
        )
    if known is not None and (key is None or not known.lost):
        if role.is_root:
            await ca.succession.publish(known)
        return Imported(known, (), new=False)
    above = () if role.is_root else _above(ca, role, certificate, material.certificates)
    if role.is_root:
        _must_be_in_order(ca, role, certificate, (), [Anchor(certificate, role)])
    kept = await _keep(ca, role, certificate, above, key, known)
    below: list[OpenAuthority] = []
    if role.is_root:
        await ca.succession.publish(kept)
    if not kept.lost and kept.has_delegated_responder:
        await ca.ocsp_signer(kept)
    if cascade and not kept.lost and known is None:
        below = await ca.succession.remake_below(role)
    return Imported(kept, tuple(below), new=True)


async def take_up(ca: CertificateAuthority) -> None:
    """The authorities that the ecosystem file brings to this party."""
    for one in brought(ca.party.ecosystem, "sub-ca"):
        if one.values.get("party") == ca.party.config.name:
            with taking_up(one):
                material = one.material()
                role = Role(one.values["role"])
                if role not in ca.roles:
                    raise Refusal(
                        422,
                        "no_such_authority",
                        f"role: {role} is none of {', '.join(own.value for own in ca.roles)}",
                    )
                await bring_authority(ca, role, material)


def _what(role: Role, material: Material) -> tuple[x509.Certificate, SoftwareKey | None]:
    """The certificate that is meant and its key."""
    if not material.certificates:
        raise Refusal(422, "no_certificate", f"certificates: the {role.label} is missing")
    if len(material.keys) > 1:
        raise Refusal(422, "many_keys", f"private_key: {len(material.keys)} keys, one is wanted")
    if not material.keys:
        if not role.is_root:
            raise Refusal(
                422,
                "no_key",
                f"private_key: nothing is issued below a {role.label} without its key; as a "
                "certificate only it belongs to those who judge (POST /intermediates)",
            )
        return material.certificates[0], None
    key = material.keys[0]
    for certificate in material.certificates:
        if public_key(certificate) == key.public_key:
            return certificate, key
    raise Refusal(
        422,
        "wrong_key",
        "private_key: it is the key of none of the certificates: "
        f"{'; '.join(readable(one.subject) for one in material.certificates)}",
    )


def _above(
    ca: CertificateAuthority,
    role: Role,
    certificate: x509.Certificate,
    given: Sequence[x509.Certificate],
) -> tuple[x509.Certificate, ...]:
    """The sub-CAs between ``certificate`` and a root that this party knows."""
    keeper = ca.party.keepers.get("trust-store")
    anchors = [Anchor(own.certificate, own.role) for own in ca.authorities() if own.role.is_root]
    anchors += list(keeper.store.anchors) if keeper else []
    others = [one for one in given if one != certificate]
    others += [own.certificate for own in ca.authorities() if not own.role.is_root]
    return _must_be_in_order(ca, role, certificate, others, anchors)


def _must_be_in_order(
    ca: CertificateAuthority,
    role: Role,
    certificate: x509.Certificate,
    others: Sequence[x509.Certificate],
    anchors: Sequence[Anchor],
) -> tuple[x509.Certificate, ...]:
    verdict = judge(
        certificate,
        others,
        anchors,
        role=role,
        edition=ca.party.edition,
        at=ca.party.clock.now(),
        revocation_policy=RevocationPolicy.IGNORE,
        trust=ca.party.trust,
    )
    if not verdict.accepted:
        raise Refusal(
            422,
            "chain_refused",
            f"certificates: {readable(certificate.subject)} as {role.label}: {verdict.reason}",
            {"verdict": verdict.as_dict()},
        )
    path = tuple(step.certificate for step in verdict.path[1:-1])
    _must_be_below(ca, role, verdict.path[1].certificate if len(verdict.path) > 1 else None)
    return path


def _must_be_below(ca: CertificateAuthority, role: Role, issuer: x509.Certificate | None) -> None:
    """It hangs where the trust model says: under this party's authority, or another party's."""
    wanted = ca.party.issuer(role)
    if wanted is None or wanted not in ca.roles:
        return
    ours = [own.certificate for own in ca.authorities() if own.role is wanted]
    if issuer is None or issuer not in ours:
        seen = readable(issuer.subject) if issuer is not None else "nobody"
        raise Refusal(
            422,
            "wrong_issuer",
            f"certificates: a {role} of this party is issued by its {wanted}, this one by {seen}; "
            f"bring that {wanted} first",
        )


async def _keep(
    ca: CertificateAuthority,
    role: Role,
    certificate: x509.Certificate,
    above: Sequence[x509.Certificate],
    key: SoftwareKey | None,
    known: OpenAuthority | None,
) -> OpenAuthority:
    party = ca.party
    number = sum(own.role is role for own in ca.authorities()) + 1
    reference = known.reference if known is not None else f"ca/{role.value}/{number}"
    issuer = next(
        (own for own in ca.authorities() if own.certificate.subject == certificate.issuer), None
    )
    told = party.recorder.stamped(
        Event(
            kind="state",
            name="authority brought",
            sender="outside",
            receiver=party.config.name,
            summary=f"{readable(certificate.subject)} was brought "
            f"{'with its key' if key else 'without its key'} and is now "
            f"{party.config.title}'s {role.label}",
            data={"role": role.value, "fingerprint": fingerprint(certificate)},
            response=der_of(certificate),
        )
    )

    def keep(session: Session) -> None:
        if key is not None:
            party.keys.put(session, reference, key)
        if known is None:
            if issuer is not None:
                _enter(ca, session, issuer, role, certificate)
            session.add(
                ca.tables.authority(
                    role=role.value,
                    key_reference=reference,
                    certificate=der_of(certificate),
                    issuers=pem(above),
                    to_publish=role.is_root,
                )
            )
        party.database.tell(session, told)
        session.flush()

    try:
        await party.database.write(keep)
    except IntegrityError:
        raise Refusal(
            409, "at_the_same_time", f"another {role} was made at this moment; try again"
        ) from None
    await ca.look()
    return next(own for own in ca.authorities() if own.reference == reference)


def _enter(
    ca: CertificateAuthority,
    session: Session,
    issuer: OpenAuthority,
    role: Role,
    certificate: x509.Certificate,
) -> None:
    """Into the books of its issuer, where that is this party's: it answers for it from now on
    (OCSP, CRL), and can revoke it."""
    mark = fingerprint(certificate)
    if issuer.certificate == certificate or store.by_fingerprint(ca.tables, session, mark):
        return
    store.add_certificate(
        ca.tables,
        session,
        issuer.id,
        role.value,
        certificate,
        readable(certificate.subject),
        common_name(certificate.subject),
        mark,
        der_of(certificate),
        None,
    )
