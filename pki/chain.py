"""The chain walker: may this certificate be accepted, as this role, at this instant?

`judge` takes a leaf, the certificates that came with it, and the anchors that are trusted; it
answers with a `Verdict` that tells every rule that was broken, not only the first. It works in
three steps:

1. **Read.** Of each certificate everything that is needed is read once; what cannot be read is
   a finding, never an exception.
2. **Find paths.** From the leaf upwards, an issuer is whoever's *key* made the signature; names
   are compared afterwards. So a decoy with a trusted root's name is no anchor, and a renewed
   root with the same key is. Several paths (cross-certificates) are all tried, within bounds.
3. **Judge each path**, and answer with the best: an accepted one if there is one, else the one
   with the fewest errors. The rules of the leaf's role are the rows of its profile.

What is let pass with a warning, since real stacks send it: certificates in another order than
leaf first (`strict_order` refuses that), one twice, a root among them, one that is not needed.

Only signatures of the path count against an attacker's certificates: how many are tried is
bounded by `MOST_CANDIDATES` and `MOST_PATHS` of `pki.chain_paths`. The rules stand in
`pki.chain_rules`.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from cryptography import x509

from pki import der
from pki.chain_paths import (
    MOST_CANDIDATES,
    FoundPath,
    ReadAnchor,
    ReadCertificate,
    Walk,
    read_certificate,
)
from pki.chain_rules import (
    Case,
    Evidence,
    RevocationPolicy,
    bundle_findings,
    labels_of,
    path_findings,
)
from pki.edition import Edition
from pki.findings import CertificateRef, Finding, PathStep, Severity, Verdict, finding, in_order
from pki.identifiers import EMAID, PCID
from pki.profiles import Role, profile
from pki.revocation import ocsp_url
from pki.trust import Anchor, TrustModel

__all__ = [
    "Anchor",
    "Evidence",
    "RevocationPolicy",
    "ToCheck",
    "Verdict",
    "certificates_to_check",
    "find_path",
    "judge",
    "judge_der",
]


class ToCheck(NamedTuple):
    """A certificate whose status is to be asked, by whom it was issued, and where."""

    certificate: x509.Certificate
    issuer: x509.Certificate
    ocsp_url: str | None


def certificates_to_check(
    path: Sequence[PathStep] | Sequence[x509.Certificate],
) -> tuple[ToCheck, ...]:
    """Of a path, leaf first, every certificate whose status can be asked: all but the anchor."""
    certificates = [step.certificate if isinstance(step, PathStep) else step for step in path]
    return tuple(
        ToCheck(certificate, issuer, ocsp_url(certificate))
        for certificate, issuer in pairwise(certificates)
    )


# ---------------------------------------------------------------------------------- judging


def judge(
    leaf: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    anchors: Iterable[x509.Certificate | Anchor],
    *,
    role: Role,
    edition: Edition,
    at: datetime,
    identifier: EMAID | PCID | str | None = None,
    revocation: Evidence = (),
    revocation_policy: RevocationPolicy = RevocationPolicy.IF_AVAILABLE,
    identifiers_strict: bool = True,
    trust: TrustModel | None = None,
    strict_order: bool = False,
) -> Verdict:
    """The verdict over `leaf` as `role`.

    `intermediates` are the certificates that came with it, nearest to the leaf first.
    `anchors` are trusted roots; as `Anchor` they say for which role each was installed, and
    with `trust` an anchor that may not vouch for the role is refused [V2G2-925]. `identifier`
    is whom the leaf must name in its common name. With `identifiers_strict` off, check digits
    and the like are let pass. `role` may be a CA's or a root's: then `leaf` is that CA.
    """
    case = _case(
        role,
        edition,
        at,
        identifier,
        revocation,
        revocation_policy,
        identifiers_strict=identifiers_strict,
        trust=trust,
        strict_order=strict_order,
    )
    given = [read_certificate(certificate) for certificate in intermediates]
    return _judge(case, read_certificate(leaf), given, [_anchor(a) for a in anchors], ())


def judge_der(
    leaf: bytes,
    intermediates: Iterable[bytes],
    anchors: Iterable[bytes | x509.Certificate | Anchor],
    *,
    role: Role,
    edition: Edition,
    at: datetime,
    identifier: EMAID | PCID | str | None = None,
    revocation: Evidence = (),
    revocation_policy: RevocationPolicy = RevocationPolicy.IF_AVAILABLE,
    identifiers_strict: bool = True,
    trust: TrustModel | None = None,
    strict_order: bool = False,
) -> Verdict:
    """As `judge`, over bytes of whatever content; what is not a certificate is a finding."""
    case = _case(
        role,
        edition,
        at,
        identifier,
        revocation,
        revocation_policy,
        identifiers_strict=identifiers_strict,
        trust=trust,
        strict_order=strict_order,
    )
    unreadable: list[Finding] = []

    def load(encoded: bytes, label: str, severity: Severity) -> x509.Certificate | None:
        try:
            return x509.load_der_x509_certificate(encoded)
        except Exception as error:  # pyca raises many kinds for bytes that are no certificate
            ref = CertificateRef(label, "", "")
            seen = f"{len(encoded)} bytes, {type(error).__name__}: {str(error)[:120]}"
            unreadable.append(
                finding("certificate.unreadable", ref, field="DER", seen=seen, severity=severity)
            )
            return None

    subject = load(leaf, role.label, Severity.ERROR)
    given = [
        load(encoded, f"certificate {number} of the chain", Severity.ERROR)
        for number, encoded in enumerate(intermediates, 1)
    ]
    trusted = [
        load(anchor, f"anchor {number}", Severity.WARNING) if isinstance(anchor, bytes) else anchor
        for number, anchor in enumerate(anchors, 1)
    ]
    if subject is None:
        return Verdict(False, in_order(unreadable), (), role.value, edition.name, case.at, 0)
    return _judge(
        case,
        read_certificate(subject),
        [read_certificate(certificate) for certificate in given if certificate is not None],
        [_anchor(anchor) for anchor in trusted if anchor is not None],
        tuple(unreadable),
    )


def _anchor(anchor: x509.Certificate | Anchor) -> ReadAnchor:
    if isinstance(anchor, Anchor):
        return ReadAnchor(read_certificate(anchor.certificate), anchor.role)
    return ReadAnchor(read_certificate(anchor), None)


def _case(
    role: Role,
    edition: Edition,
    at: datetime,
    identifier: EMAID | PCID | str | None,
    revocation: Evidence,
    policy: RevocationPolicy,
    *,
    identifiers_strict: bool,
    trust: TrustModel | None,
    strict_order: bool,
) -> Case:
    """What is asked, with evidence that can be read more than once and the instant in UTC."""
    return Case(
        profile=profile(role, edition),
        at=der.utc(at),
        identifier=identifier,
        identifiers_strict=identifiers_strict,
        trust=trust,
        policy=RevocationPolicy(policy),
        evidence=revocation if isinstance(revocation, Mapping) else tuple(revocation),
        strict_order=strict_order,
    )


def find_path(
    leaf: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    anchors: Iterable[x509.Certificate],
) -> tuple[x509.Certificate, ...] | None:
    """The shortest path of signatures from `leaf` to an anchor, whatever else its certificates
    are; None if there is none. For sorting a bundle; only `judge` says whether to accept it.
    """
    walk = Walk([read_certificate(c) for c in intermediates], [_anchor(a) for a in anchors])
    complete = [p for p in walk.paths(read_certificate(leaf)) if p.anchor is not None]
    if not complete:
        return None
    return tuple(c.certificate for c in min(complete, key=lambda p: len(p.chain)).certificates)


def _judge(
    case: Case,
    leaf: ReadCertificate,
    given: Sequence[ReadCertificate],
    anchors: Sequence[ReadAnchor],
    before: tuple[Finding, ...],
) -> Verdict:
    """Walks, judges every path and answers with the best."""
    unique = list({c.encoded: c for c in given if c.encoded != leaf.encoded}.values())
    walk = Walk(unique[:MOST_CANDIDATES], anchors)
    verifications = 0
    best: tuple[tuple[bool, bool, int], FoundPath, tuple[Finding, ...]] | None = None
    for path in walk.paths(leaf):
        found, checked = path_findings(case, walk, path)
        found += bundle_findings(case, walk, path, leaf, given, unique)
        verifications += checked
        ordered = in_order((*before, *found))
        errors = sum(f.severity is Severity.ERROR for f in ordered)
        rank = (errors > 0, path.anchor is None, errors)
        if best is None or rank < best[0]:
            best = (rank, path, ordered)
    assert best is not None, "the leaf alone is a path"
    (refused, _, _), path, findings = best
    labels = labels_of(case.profile.role, path)
    steps = tuple(
        PathStep(label, c.certificate) for label, c in zip(labels, path.certificates, strict=True)
    )
    return Verdict(
        accepted=not refused,
        findings=findings,
        path=steps,
        role=case.profile.role.value,
        edition=case.profile.edition.name,
        at=case.at,
        verifications=walk.verifications + verifications,
    )
