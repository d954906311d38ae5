"""The rules a path of certificates is judged by, each giving the findings where it is broken.

`path_findings` goes over a path: each certificate by itself, each as the issuer of the one
below it, how the path ends, what the leaf's profile says, and revocation. `bundle_findings`
tells what is odd about how the certificates came along.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from cryptography import x509
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from pki import der
from pki.chain_paths import MOST_CANDIDATES, FoundPath, ReadCertificate, Walk
from pki.edition import Edition
from pki.findings import CertificateRef, Finding, Severity, finding, softened
from pki.identifiers import EMAID, PCID, IdentifierError
from pki.issuing import IDENTIFIERS, Identifier
from pki.names import domain_components, readable, values
from pki.profiles import KeyUsage, Profile, Role, profiles, purpose_names
from pki.revocation import (
    CertificateStatus,
    RevocationOutcome,
    check_crl,
    check_ocsp_response,
)
from pki.trust import TrustModel

UNDERSTOOD = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_KEY_IDENTIFIER,
        ExtensionOID.AUTHORITY_INFORMATION_ACCESS,
        ExtensionOID.SUBJECT_INFORMATION_ACCESS,
        ExtensionOID.CRL_DISTRIBUTION_POINTS,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.ISSUER_ALTERNATIVE_NAME,
        ExtensionOID.OCSP_NO_CHECK,
    }
)
"""Extensions that may be critical. Name and policy constraints are not evaluated, so a critical
one is refused."""


class RevocationPolicy(StrEnum):
    """What is made of revocation."""

    REQUIRE = "require"
    """Every certificate below the anchor needs a valid answer that it is good."""
    IF_AVAILABLE = "if-available"
    """What says "revoked" or "unknown" refuses; without a valid answer it is let pass."""
    IGNORE = "ignore"


Evidence = Iterable[bytes] | Mapping[str, bytes | Iterable[bytes]]
"""OCSP responses and CRLs, DER, in any order; or by the SHA-256 fingerprint (hex) of the
certificate that they are about."""


@dataclass(frozen=True, eq=False)
class Case:
    """What is asked."""

    profile: Profile
    at: datetime
    identifier: EMAID | PCID | str | None
    identifiers_strict: bool
    trust: TrustModel | None
    policy: RevocationPolicy
    evidence: tuple[bytes, ...] | Mapping[str, bytes | Iterable[bytes]]
    strict_order: bool


def labels_of(role: Role, path: FoundPath) -> list[str]:
    """leaf's role, sub-CA 2, sub-CA 1, anchor: sub-CAs are numbered from the root downwards."""
    certificates = path.certificates
    labels = [role.label]
    above = len(certificates) - 1 - (path.anchor is not None and len(certificates) > 1)
    if above == 1:
        labels.append("sub-CA")
    else:
        labels += [f"sub-CA {number}" for number in range(above, 0, -1)]
    return labels + ["anchor"] * (len(certificates) - len(labels))


def path_findings(case: Case, walk: Walk, path: FoundPath) -> tuple[list[Finding], int]:
    """Everything wrong with a path, and how many signatures revocation cost."""
    certificates = path.certificates
    refs = [
        CertificateRef.of(c.certificate, label)
        if c.subject is not None
        else CertificateRef(label, "", c.fingerprint)
        for c, label in zip(certificates, labels_of(case.profile.role, path), strict=True)
    ]
    found: list[Finding] = []
    for index, (certificate, ref) in enumerate(zip(certificates, refs, strict=True)):
        is_anchor = path.anchor is not None and index == len(certificates) - 1
        found += _certificate_findings(case, certificate, ref, is_anchor=is_anchor)
        if index:
            if not is_anchor:
                found += _domain_findings(case, certificate, ref)
            found += _issuer_findings(
                case, certificate, ref, certificates[:index], refs[index - 1], is_anchor=is_anchor
            )
    if path.anchor is None:
        found += _dead_end_findings(case, walk, certificates, refs[-1])
    else:
        found += _anchor_findings(case, path, refs)
    longest = case.profile.edition.max_path
    counted = sum(not c.self_issued for c in path.chain)
    if counted > longest:
        found.append(
            finding(
                "chain.too-long",
                field="certificates that are not self-signed",
                seen=str(counted),
                wanted=f"at most {longest}",
            )
        )
    found += _profile_findings(case, certificates[0], refs[0])
    revoked, checked = _revocation_findings(case, certificates, refs)
    return found + revoked, checked


def _certificate_findings(
    case: Case, read: ReadCertificate, ref: CertificateRef, *, is_anchor: bool
) -> Iterator[Finding]:
    """What is wrong with one certificate by itself, wherever it stands."""
    edition = case.profile.edition
    for rule, name, seen in read.problems:
        yield finding(rule, ref, field=name, seen=seen)
    if read.key is not None and not edition.signature.fits(read.key):
        yield finding(
            "certificate.public-key",
            ref,
            field="subjectPublicKeyInfo",
            seen=read.key.curve.name,
            wanted=edition.signature.curve.name,
        )
    not_before, not_after = (
        read.certificate.not_valid_before_utc,
        read.certificate.not_valid_after_utc,
    )
    instant = f"not before {case.at.isoformat()}"
    if case.at > not_after:
        yield finding(
            "chain.expired", ref, field="notAfter", seen=not_after.isoformat(), wanted=instant
        )
    if case.at < not_before:
        yield finding(
            "chain.not-yet-valid",
            ref,
            field="notBefore",
            seen=not_before.isoformat(),
            wanted=f"not after {case.at.isoformat()}",
        )
    if is_anchor:  # trusted for its key; how it was encoded and signed is its holder's affair
        return
    try:
        algorithm = read.certificate.signature_algorithm_oid.dotted_string
    except Exception as error:  # a forged signature algorithm
        algorithm = type(error).__name__
    if algorithm != edition.signature.oid:
        yield finding(
            "certificate.signature-algorithm",
            ref,
            field="signatureAlgorithm",
            seen=algorithm,
            wanted=f"{edition.signature.oid} ({edition.signature.name})",
        )
    if len(read.encoded) > edition.max_certificate_bytes:
        yield finding(
            "certificate.size",
            ref,
            field="DER",
            seen=f"{len(read.encoded)} bytes",
            wanted=f"at most {edition.max_certificate_bytes} bytes",
        )
    for extension in read.extensions or ():
        if extension.critical and extension.oid not in UNDERSTOOD:
            yield finding(
                "certificate.unknown-critical-extension",
                ref,
                field="extensions",
                seen=extension.oid.dotted_string,
                wanted="critical extensions that are understood",
            )
        if not extension.critical and extension.oid in _CRITICAL:
            yield finding(
                "profile.not-critical", ref, field=_CRITICAL[extension.oid], seen="not critical"
            )


_CRITICAL: Mapping[ObjectIdentifier, str] = {
    ExtensionOID.BASIC_CONSTRAINTS: "basicConstraints",
    ExtensionOID.KEY_USAGE: "keyUsage",
}


def _issuer_findings(
    case: Case,
    read: ReadCertificate,
    ref: CertificateRef,
    below: Sequence[ReadCertificate],
    below_ref: CertificateRef,
    *,
    is_anchor: bool,
) -> Iterator[Finding]:
    """What is wrong with a certificate as the issuer of the one below it."""
    if below[-1].issuer != read.subject:
        yield finding(
            "chain.issuer-name",
            below_ref,
            field="issuer",
            seen=_readable(below[-1].issuer),
            wanted=_readable(read.subject),
        )
    named, own = below[-1].issuer_key_identifier, read.own_key_identifier
    if named is not None and own is not None and named != own:
        yield finding(
            "chain.authority-key-identifier",
            below_ref,
            field="authorityKeyIdentifier",
            seen=named.hex(),
            wanted=own.hex(),
        )
    constraints = read.basic_constraints
    if constraints is None or not constraints.ca:
        yield finding(
            "chain.not-a-ca",
            ref,
            field="basicConstraints",
            seen="none" if constraints is None else "CA:FALSE",
            wanted="CA:TRUE",
        )
    usage = read.key_usage
    if usage is not None and KeyUsage.KEY_CERT_SIGN not in usage:
        yield finding(
            "chain.no-cert-sign", ref, field="keyUsage", seen=_words(usage), wanted="keyCertSign"
        )
    elif usage is None and not is_anchor and read.extensions is not None:
        yield finding(
            "chain.no-cert-sign", ref, field="keyUsage", seen="none", wanted="keyCertSign"
        )
    # CAs below this one; a certificate that is self-issued does not count (RFC 5280, 6.1.4).
    first_ca = 0 if case.profile.role.is_ca else 1
    cas = sum(not c.self_issued for c in below[first_ca:])
    limit = None if constraints is None else constraints.path_length
    if limit is not None and cas > limit:
        yield finding(
            "chain.path-length",
            ref,
            field="pathLenConstraint",
            seen=f"{limit}, with {cas} CAs below",
            wanted=f"{cas} or more",
        )
    if not is_anchor and case.profile.role.is_leaf and limit != len(below) - 1:
        yield finding(
            "profile.path-length",
            ref,
            field="pathLenConstraint",
            seen="none" if limit is None else str(limit),
            wanted=str(len(below) - 1),
        )


def _domain_findings(case: Case, read: ReadCertificate, ref: CertificateRef) -> Iterator[Finding]:
    """Whether a sub-CA names the domain of another family than the judged role's.

    Below one root a mobility operator's sub-CA has the same anchor as the provisioning
    service's; only its domain component tells them apart. One without any is let pass, and
    so is one of a domain that this edition does not know: others write their own names there.
    """
    domains = _sub_ca_domains(case.profile.edition)
    wanted = domains.get(case.profile.role.family)
    if wanted is None or read.subject is None:
        return
    seen = domain_components(read.subject)
    if {component.upper() for component in seen} & (set(domains.values()) - {wanted}):
        yield finding(
            "chain.other-domain",
            ref,
            field="subject.DC",
            seen=", ".join(seen),
            wanted=wanted,
        )


def _sub_ca_domains(edition: Edition) -> Mapping[str, str]:
    """The domain component of each family's sub-CAs, as their profiles say."""
    return {
        rules.role.family: rules.domain_component.value
        for rules in profiles(edition)
        if rules.role.is_ca and not rules.role.is_root and rules.domain_component.value
    }


def _anchor_findings(
    case: Case, path: FoundPath, refs: Sequence[CertificateRef]
) -> Iterator[Finding]:
    role = case.profile.role
    assert path.anchor is not None
    anchored = path.anchor.role
    if case.trust is not None and anchored is not None:
        allowed = case.trust.anchor_roles(role)
        if anchored not in allowed:
            yield finding(
                "chain.anchor-role",
                refs[-1],
                field="anchor",
                seen=f"a {anchored.label}",
                wanted=" or ".join(sorted(f"a {r.label}" for r in allowed)),
            )
    if role.is_root and path.anchor.read.spki != path.chain[0].spki:
        yield finding(
            "chain.unknown-anchor",
            refs[0],
            field="issuer",
            seen=_readable(path.chain[0].issuer),
            wanted="a root that signed itself",
        )
    if not role.is_leaf or role.family == "ocsp":
        return
    if len(path.certificates) == 1:
        yield finding(
            "chain.self-signed-leaf", refs[0], field="issuer", seen="itself", wanted="a sub-CA"
        )
    elif len(path.chain) == 1:
        yield finding(
            "chain.root-issued-leaf",
            refs[0],
            field="issuer",
            seen=_readable(path.chain[0].issuer),
            wanted="a sub-CA below a root",
        )
    elif len(path.chain) == 2:
        yield finding("chain.one-sub-ca", refs[1], field="sub-CAs", seen="1", wanted="2")


def _dead_end_findings(
    case: Case, walk: Walk, chain: Sequence[ReadCertificate], ref: CertificateRef
) -> Iterator[Finding]:
    """Why a path led to no anchor.

    A certificate of the issuer's name whose key did not sign: where the last names that very
    key (AKI) or none, its signature is wrong; where it names another, this is somebody else
    of that name. Without any of the name, the one above is missing; that is the root if the
    last may have CAs below it or as many certificates are there as there may be.
    """
    last = chain[-1]
    name = _readable(last.issuer)
    if not walk.anchors:
        yield finding("chain.no-anchors", field="anchors", seen="none", wanted="a trusted root")
    namesakes = [a.read for a in walk.anchors if a.read.subject == last.issuer]
    others = [c for c in walk.candidates if c.subject == last.issuer and c not in chain]

    def meant(candidates: Sequence[ReadCertificate]) -> bool:
        wanted = last.issuer_key_identifier
        return any(
            wanted is None or c.own_key_identifier is None or c.own_key_identifier == wanted
            for c in candidates
        )

    if walk.signed_itself(last):
        if len(chain) == 1 and case.profile.role.is_leaf:
            rule, seen = "chain.self-signed-leaf", "itself"
        elif namesakes:
            rule, seen = "chain.decoy-anchor", f"{name}, with another key than the anchor's"
        else:
            rule, seen = "chain.unknown-anchor", name
    elif meant(namesakes) or meant(others):
        rule, seen = "chain.signature", "not made by the key of its issuer"
    elif namesakes:
        rule, seen = "chain.decoy-anchor", f"{name}, with another key than the anchor's"
    else:
        constraints = last.basic_constraints
        top = constraints is not None and constraints.ca and constraints.path_length != 0
        full = sum(not c.self_issued for c in chain) >= case.profile.edition.max_path
        rule = "chain.unknown-anchor" if top or full else "chain.incomplete"
        seen = f"{name}, of whom no certificate is here"
    yield finding(rule, ref, field="issuer", seen=seen, wanted="a chain up to a trusted root")


def bundle_findings(
    case: Case,
    walk: Walk,
    path: FoundPath,
    leaf: ReadCertificate,
    given: Sequence[ReadCertificate],
    unique: Sequence[ReadCertificate],
) -> Iterator[Finding]:
    """What is odd about how the certificates came along."""

    def ref(read: ReadCertificate) -> CertificateRef:
        label = f"certificate {given.index(read) + 1} of the chain"
        return CertificateRef(label, _readable(read.subject), read.fingerprint)

    if len(unique) > MOST_CANDIDATES:
        yield finding(
            "chain.too-many-candidates",
            field="certificates",
            seen=str(len(unique)),
            wanted=f"at most {case.profile.edition.max_path - 1}",
        )
    seen_before = {leaf.encoded}
    for read in given:
        if read.encoded in seen_before:
            yield finding("chain.duplicate", ref(read), field="certificates", seen="twice")
        seen_before.add(read.encoded)
    for read in walk.candidates:
        if read in path.chain:
            continue
        root = walk.signed_itself(read)
        rule = "chain.root-included" if root else "chain.unused"
        yield finding(rule, ref(read), field="certificates", seen=_readable(read.subject))
    used = [read for read in walk.candidates if read in path.chain]
    if tuple(used) != path.chain[1:]:
        yield finding(
            "chain.order",
            field="certificates",
            seen="; ".join(_readable(c.subject) for c in used),
            wanted="each issued by the next: "
            + "; ".join(_readable(c.subject) for c in path.chain[1:]),
            severity=Severity.ERROR if case.strict_order else Severity.WARNING,
        )


def _profile_findings(case: Case, read: ReadCertificate, ref: CertificateRef) -> Iterator[Finding]:
    """Whether the judged certificate is what its role's profile says."""
    rules = case.profile
    role = rules.role
    if read.extensions is not None:
        yield from _extension_findings(rules, read, ref)
    if read.subject is not None:
        yield from _name_findings(case, read.subject, ref)
    left = read.certificate.not_valid_after_utc - case.at
    soon = rules.edition.expires_soon
    if role.is_leaf and timedelta(0) <= left <= soon:
        yield finding(
            "chain.expires-soon",
            ref,
            field="notAfter",
            seen=read.certificate.not_valid_after_utc.isoformat(),
            wanted=f"more than {soon.days} days left",
        )


def _extension_findings(
    rules: Profile, read: ReadCertificate, ref: CertificateRef
) -> Iterator[Finding]:
    row = rules.row("basicConstraints")
    constraints = read.basic_constraints
    if constraints is None and rules.role.is_leaf:
        yield finding(
            "profile.basic-constraints-absent", ref, field="basicConstraints", seen="none"
        )
    elif constraints is None or constraints.ca != rules.basic_constraints.ca:
        yield finding(
            "profile.basic-constraints",
            ref,
            field="basicConstraints",
            seen="none" if constraints is None else f"CA:{str(constraints.ca).upper()}",
            wanted=f"CA:{str(rules.basic_constraints.ca).upper()}",
            source=row.source,
            severity=row.severity,
        )
    elif constraints.ca and constraints.path_length != rules.basic_constraints.path_length:
        yield finding(
            "profile.path-length",
            ref,
            field="pathLenConstraint",
            seen=str(constraints.path_length),
            wanted=str(rules.basic_constraints.path_length),
            source=row.source,
        )
    row = rules.row("keyUsage")
    usage, mandatory = read.key_usage, rules.key_usage.mandatory
    if usage is None or not mandatory <= usage:
        yield finding(
            "profile.key-usage",
            ref,
            field="keyUsage",
            seen="none" if usage is None else _words(usage),
            wanted=_words(mandatory),
            source=row.source,
            severity=row.severity,
        )
    row = rules.row("extKeyUsage")
    purposes, wanted = read.purposes, rules.extended_key_usage
    missing = purposes is None and wanted.required
    foreign = (
        purposes is not None
        and wanted.accepted is not None
        and not (wanted.accepted & set(purposes))
    )
    if missing or foreign:
        yield finding(
            "profile.extended-key-usage",
            ref,
            field="extKeyUsage",
            seen=", ".join(purpose_names(purposes or ())) or "none",
            wanted=" or ".join(sorted(purpose_names(wanted.accepted or ()))) or "none",
            source=row.source,
            severity=row.severity,
        )


def _name_findings(case: Case, subject: x509.Name, ref: CertificateRef) -> Iterator[Finding]:
    rules = case.profile
    row, wanted = rules.row("subject.DC"), rules.domain_component
    seen = domain_components(subject)
    missing = wanted.required and not seen
    wrong = bool(seen) and wanted.value is not None and seen != (wanted.value,)
    if missing or wrong:
        yield finding(
            "profile.domain-component",
            ref,
            field="subject.DC",
            seen=", ".join(seen) or "none",
            wanted=wanted.value or "",
            source=row.source,
            # A leaf of another domain is another role's; a CA's is not looked at by the field.
            severity=Severity.ERROR if rules.role.is_leaf else Severity.WARNING,
        )
    names = values(subject, NameOID.COMMON_NAME)
    kind = rules.identifier.kind
    if kind is not None:
        if len(names) != 1:
            yield finding(
                "identifier.invalid",
                ref,
                field="subject.CN",
                seen=f"{len(names)} common names",
                wanted=f"one, the {kind}",
            )
            return
        try:
            IDENTIFIERS[kind].parse(names[0], strict=case.identifiers_strict)
        except IdentifierError as error:
            yield finding(
                "identifier.invalid",
                ref,
                field="subject.CN",
                seen=repr(names[0]),
                wanted=f"a {kind}: {error.reason}",
                source=error.rule,
            )
    if case.identifier is not None and not (
        len(names) == 1 and _same(names[0], case.identifier, kind)
    ):
        yield finding(
            "identifier.mismatch",
            ref,
            field="subject.CN",
            seen=", ".join(names) or "none",
            wanted=str(case.identifier),
        )


def _same(name: str, wanted: Identifier | str, kind: str | None) -> bool:
    """Whether a common name is this identifier, compared as such if it can be read as one."""
    text = str(wanted)
    if kind is not None:
        try:
            return IDENTIFIERS[kind].parse(name, strict=False) == IDENTIFIERS[kind].parse(
                text, strict=False
            )
        except IdentifierError:
            pass
    return name == text


# --------------------------------------------------------------------------- revocation


def _revocation_findings(
    case: Case, certificates: Sequence[ReadCertificate], refs: Sequence[CertificateRef]
) -> tuple[list[Finding], int]:
    found: list[Finding] = []
    checked = 0
    if case.policy is RevocationPolicy.IGNORE:
        return found, checked
    for index, (read, issuer) in enumerate(pairwise(certificates)):
        if read.extension(x509.OCSPNoCheck) is not None and case.profile.ocsp_no_check:
            continue
        outcomes = [
            check(
                evidence, read.certificate, issuer.certificate, at=case.at, label=refs[index].label
            )
            for evidence in _evidence_for(case, read)
            for check in (_check_of(evidence),)
        ]
        checked += sum(outcome.verifications for outcome in outcomes)
        found += _weighed(case.policy, outcomes, refs[index])
    return found, checked


def _weighed(
    policy: RevocationPolicy, outcomes: Sequence[RevocationOutcome], ref: CertificateRef
) -> Iterable[Finding]:
    """What all that is known of one certificate amounts to: a revocation outweighs an answer
    that it is good, and that one outweighs an answer that it is unknown.
    """
    for status in (CertificateStatus.REVOKED, CertificateStatus.GOOD, CertificateStatus.UNKNOWN):
        of_status = [outcome for outcome in outcomes if outcome.status is status]
        if of_status:
            return of_status[0].findings
    about = [
        f
        for outcome in outcomes
        for f in outcome.findings
        if f.rule not in ("ocsp.other-certificate", "crl.other-issuer")
    ]
    if policy is RevocationPolicy.IF_AVAILABLE:
        return softened(about)
    unavailable = finding(
        "revocation.unavailable",
        ref,
        field="status",
        seen=f"{len(outcomes)} answers, none about it that is valid" if outcomes else "no answer",
        wanted="an OCSP answer or a CRL that is valid",
    )
    return (*about, unavailable)


def _evidence_for(case: Case, read: ReadCertificate) -> tuple[bytes, ...]:
    if not isinstance(case.evidence, Mapping):
        return case.evidence
    own = case.evidence.get(read.fingerprint, ())
    return (own,) if isinstance(own, bytes) else tuple(own)


def _check_of(evidence: bytes) -> Callable[..., RevocationOutcome]:
    """An OCSP response begins with an ENUMERATED, a CRL with a SEQUENCE."""
    try:
        is_list = der.Reader(evidence).next(der.SEQUENCE).children().peek() == der.SEQUENCE
    except der.DerError:
        is_list = False
    return check_crl if is_list else check_ocsp_response


def _readable(name: x509.Name | None) -> str:
    return "a name that cannot be read" if name is None else readable(name)


def _words(usage: frozenset[KeyUsage]) -> str:
    return ", ".join(bit.value for bit in KeyUsage if bit in usage) or "none"
