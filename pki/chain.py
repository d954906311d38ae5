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
bounded by `MOST_CANDIDATES` and `MOST_PATHS`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from pki import der
from pki.algorithms import SIGNATURE_HASHES
from pki.edition import Edition
from pki.findings import (
    CertificateRef,
    Finding,
    PathStep,
    Severity,
    Verdict,
    finding,
    in_order,
    softened,
)
from pki.identifiers import EMAID, PCID, IdentifierError
from pki.issuing import IDENTIFIERS, Identifier
from pki.keys import public_der
from pki.names import domain_components, readable, values
from pki.profiles import KeyUsage, Profile, Role, profile
from pki.revocation import (
    CertificateStatus,
    RevocationOutcome,
    check_crl,
    check_ocsp_response,
    ocsp_url,
    verifies,
)
from pki.trust import Anchor, TrustModel

MOST_CANDIDATES = 12
"""Most certificates beside the leaf that are looked at; more are a finding."""
MOST_PATHS = 16
"""Most paths that are judged."""
MOST_DEPTH = 8
"""Longest path that is followed, so that one that is too long can be named as such."""

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


_T = TypeVar("_T")


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
    case = _Case(
        profile=profile(role, edition),
        at=der.utc(at),
        identifier=identifier,
        identifiers_strict=identifiers_strict,
        trust=trust,
        policy=RevocationPolicy(revocation_policy),
        evidence=revocation if isinstance(revocation, Mapping) else tuple(revocation),
    )
    given = [_read(certificate) for certificate in intermediates]
    trusted = [
        _Anchor(_read(a.certificate), a.role) if isinstance(a, Anchor) else _Anchor(_read(a), None)
        for a in anchors
    ]
    return _judge(case, _read(leaf), given, trusted, (), strict_order)


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
    case = _Case(
        profile=profile(role, edition),
        at=der.utc(at),
        identifier=identifier,
        identifiers_strict=identifiers_strict,
        trust=trust,
        policy=RevocationPolicy(revocation_policy),
        evidence=revocation if isinstance(revocation, Mapping) else tuple(revocation),
    )
    unreadable: list[Finding] = []

    def load(encoded: bytes, label: str, severity: Severity) -> "_Certificate | None":
        try:
            return _read(x509.load_der_x509_certificate(encoded))
        except Exception as error:  # pyca raises many kinds for bytes that are no certificate
            ref = CertificateRef(label, "", "")
            seen = f"{len(encoded)} bytes, {type(error).__name__}: {str(error)[:120]}"
            unreadable.append(
                finding("certificate.unreadable", ref, field="DER", seen=seen, severity=severity)
            )
            return None

    subject = load(leaf, role.label, Severity.ERROR)
    given = [
        read
        for number, encoded in enumerate(intermediates, 1)
        if (read := load(encoded, f"certificate {number} of the chain", Severity.ERROR))
    ]
    trusted: list[_Anchor] = []
    for number, anchor in enumerate(anchors, 1):
        if isinstance(anchor, Anchor):
            trusted.append(_Anchor(_read(anchor.certificate), anchor.role))
        elif isinstance(anchor, x509.Certificate):
            trusted.append(_Anchor(_read(anchor), None))
        elif read := load(anchor, f"anchor {number}", Severity.WARNING):
            trusted.append(_Anchor(read, None))
    if subject is None:
        return Verdict(False, in_order(unreadable), (), role.value, edition.name, case.at, 0)
    return _judge(case, subject, given, trusted, tuple(unreadable), strict_order)


def find_path(
    leaf: x509.Certificate,
    intermediates: Iterable[x509.Certificate],
    anchors: Iterable[x509.Certificate],
) -> tuple[x509.Certificate, ...] | None:
    """The shortest path of signatures from `leaf` to an anchor, whatever else its certificates
    are; None if there is none. For sorting a bundle; only `judge` says whether to accept it.
    """
    walk = _Walk([_read(c) for c in intermediates], [_Anchor(_read(a), None) for a in anchors])
    complete = [p for p in walk.paths(_read(leaf)) if p.anchor is not None]
    if not complete:
        return None
    return tuple(c.certificate for c in min(complete, key=lambda p: len(p.chain)).certificates)


# ------------------------------------------------------------------------- 1. what is read


@dataclass(eq=False)
class _Certificate:
    """What is needed of one certificate, read once. `problems` hold what could not be read, as
    rule, field, seen."""

    certificate: x509.Certificate
    encoded: bytes
    subject: x509.Name | None = None
    issuer: x509.Name | None = None
    key: ec.EllipticCurvePublicKey | None = None
    spki: bytes = b""
    extensions: x509.Extensions | None = None
    problems: list[tuple[str, str, str]] = field(default_factory=list)

    def extension(
        self, kind: type[x509.ExtensionType]
    ) -> x509.Extension[x509.ExtensionType] | None:
        if self.extensions is None:
            return None
        try:
            return self.extensions.get_extension_for_class(kind)
        except x509.ExtensionNotFound:
            return None

    @property
    def basic_constraints(self) -> x509.BasicConstraints | None:
        found = self.extension(x509.BasicConstraints)
        return None if found is None else _as(x509.BasicConstraints, found.value)

    @property
    def key_usage(self) -> frozenset[KeyUsage] | None:
        found = self.extension(x509.KeyUsage)
        return None if found is None else _bits(_as(x509.KeyUsage, found.value))

    @property
    def own_key_identifier(self) -> bytes | None:
        found = self.extension(x509.SubjectKeyIdentifier)
        return None if found is None else _as(x509.SubjectKeyIdentifier, found.value).digest

    @property
    def issuer_key_identifier(self) -> bytes | None:
        found = self.extension(x509.AuthorityKeyIdentifier)
        if found is None:
            return None
        return _as(x509.AuthorityKeyIdentifier, found.value).key_identifier

    @property
    def self_issued(self) -> bool:
        """Issuer and subject bear one name."""
        return self.subject is not None and self.subject == self.issuer

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def _as(kind: type[_T], value: object) -> _T:
    assert isinstance(value, kind)
    return value


def _read(certificate: x509.Certificate) -> _Certificate:
    read = _Certificate(certificate, certificate.public_bytes(Encoding.DER))

    def attempt(rule: str, name: str, take: Callable[[], object]) -> object:
        try:
            return take()
        except Exception as error:  # each part of a forged certificate raises kinds of its own
            read.problems.append((rule, name, f"{type(error).__name__}: {str(error)[:120]}"))
            return None

    version = attempt("certificate.version", "version", lambda: certificate.version)
    if version is x509.Version.v1:
        read.problems.append(("certificate.version", "version", "1"))
    subject = attempt("certificate.unreadable", "subject", lambda: certificate.subject)
    issuer = attempt("certificate.unreadable", "issuer", lambda: certificate.issuer)
    read.subject = subject if isinstance(subject, x509.Name) else None
    read.issuer = issuer if isinstance(issuer, x509.Name) else None
    read.extensions = _extensions(
        attempt("certificate.extension-malformed", "extensions", lambda: certificate.extensions)
    )
    key = attempt("certificate.public-key", "subjectPublicKeyInfo", certificate.public_key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        read.key = key
        read.spki = public_der(key)
        if read.spki not in certificate.tbs_certificate_bytes:
            read.problems.append(
                (
                    "certificate.public-key",
                    "subjectPublicKeyInfo",
                    "a key that is not encoded as named curve and uncompressed point",
                )
            )
    elif key is not None:
        read.problems.append(("certificate.public-key", "subjectPublicKeyInfo", type(key).__name__))
    return read


def _extensions(value: object) -> x509.Extensions | None:
    return value if isinstance(value, x509.Extensions) else None


_BITS: Mapping[KeyUsage, str] = {
    KeyUsage.DIGITAL_SIGNATURE: "digital_signature",
    KeyUsage.NON_REPUDIATION: "content_commitment",
    KeyUsage.KEY_ENCIPHERMENT: "key_encipherment",
    KeyUsage.DATA_ENCIPHERMENT: "data_encipherment",
    KeyUsage.KEY_AGREEMENT: "key_agreement",
    KeyUsage.KEY_CERT_SIGN: "key_cert_sign",
    KeyUsage.CRL_SIGN: "crl_sign",
}


def _bits(extension: x509.KeyUsage) -> frozenset[KeyUsage]:
    bits = {bit for bit, name in _BITS.items() if getattr(extension, name)}
    if extension.key_agreement:  # the last two bits mean something only with this one
        bits |= {KeyUsage.ENCIPHER_ONLY} if extension.encipher_only else set()
        bits |= {KeyUsage.DECIPHER_ONLY} if extension.decipher_only else set()
    return frozenset(bits)


# ------------------------------------------------------------------------ 2. finding paths


@dataclass(frozen=True, eq=False)
class _Anchor:
    read: _Certificate
    role: Role | None


@dataclass(frozen=True, eq=False)
class _Path:
    """A chain, leaf first, and the anchor whose key signed its last; None: it led nowhere."""

    chain: tuple[_Certificate, ...]
    anchor: _Anchor | None

    @property
    def certificates(self) -> tuple[_Certificate, ...]:
        """The chain with its anchor, unless the anchor is the last of the chain itself."""
        if self.anchor is None or self.anchor.read.encoded == self.chain[-1].encoded:
            return self.chain
        return (*self.chain, self.anchor.read)


# SHA-1 is no algorithm of any edition. That a signature was made with it is a finding of its
# own, so such a signature is verified, to not call it wrong as well.
_CHECKABLE: Mapping[str, hashes.SHA1 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    **SIGNATURE_HASHES,
    "1.2.840.10045.4.1": hashes.SHA1(),  # noqa: S303
}


class _Walk:
    """Finds paths among certificates; counts and remembers the signatures it verified."""

    def __init__(self, candidates: Sequence[_Certificate], anchors: Sequence[_Anchor]) -> None:
        self.candidates = candidates
        self.anchors = anchors
        self.verifications = 0
        self._known: dict[tuple[int, bytes], bool] = {}

    def signed_by(self, certificate: _Certificate, issuer: _Certificate) -> bool:
        """Whether the issuer's key made the certificate's signature."""
        if issuer.key is None:
            return False
        question = (id(certificate), issuer.spki)
        if question not in self._known:
            self._known[question] = self._verify(certificate.certificate, issuer.key)
        return self._known[question]

    def _verify(self, certificate: x509.Certificate, key: ec.EllipticCurvePublicKey) -> bool:
        try:
            algorithm = _CHECKABLE.get(certificate.signature_algorithm_oid.dotted_string)
            signature, data = certificate.signature, certificate.tbs_certificate_bytes
        except Exception:  # a forged signature algorithm
            return False
        if algorithm is None:
            return False
        self.verifications += 1
        return verifies(key, signature, data, algorithm)

    def paths(self, leaf: _Certificate) -> list[_Path]:
        """Every path from the leaf: those that end at anchors, and the longest dead ends."""
        found: list[_Path] = []
        for path in self._from((leaf,)):
            found.append(path)
            if len(found) == MOST_PATHS:
                break
        return found

    def _from(self, chain: tuple[_Certificate, ...]) -> Iterator[_Path]:
        anchors, above = self._issuers(chain)
        yield from (_Path(chain, anchor) for anchor in anchors)
        for candidate in above:
            yield from self._from((*chain, candidate))
        if not anchors and not above:
            yield _Path(chain, None)

    def _issuers(self, chain: tuple[_Certificate, ...]) -> tuple[list[_Anchor], list[_Certificate]]:
        """Anchors and candidates whose key signed the last of the chain.

        Who bears the issuer's name is asked first, and only if none of these signed the others
        are, since each question is a verification.
        """
        last = chain[-1]
        candidates = [c for c in self.candidates if c not in chain and not self._is_anchor(c)]
        if len(chain) == MOST_DEPTH or self.signed_itself(last):
            candidates = []
        for named in (True, False):
            anchors = [
                a
                for a in self.anchors
                if (a.read.subject == last.issuer) is named and self.signed_by(last, a.read)
            ]
            above = [
                c
                for c in candidates
                if (c.subject == last.issuer) is named and self.signed_by(last, c)
            ]
            if anchors or above:
                return anchors, above
        return [], []

    def _is_anchor(self, certificate: _Certificate) -> bool:
        """A root that came along adds nothing where its key is an anchor's."""
        return certificate.self_issued and any(
            certificate.spki == anchor.read.spki for anchor in self.anchors
        )

    def signed_itself(self, certificate: _Certificate) -> bool:
        return certificate.self_issued and self.signed_by(certificate, certificate)


# ---------------------------------------------------------------------- 3. judging a path


@dataclass(frozen=True, eq=False)
class _Case:
    """What is asked."""

    profile: Profile
    at: datetime
    identifier: EMAID | PCID | str | None
    identifiers_strict: bool
    trust: TrustModel | None
    policy: RevocationPolicy
    evidence: tuple[bytes, ...] | Mapping[str, bytes | Iterable[bytes]]


def _judge(
    case: _Case,
    leaf: _Certificate,
    given: Sequence[_Certificate],
    anchors: Sequence[_Anchor],
    before: tuple[Finding, ...],
    strict_order: bool,
) -> Verdict:
    """Walks, judges every path and answers with the best."""
    unique = list({c.encoded: c for c in given if c.encoded != leaf.encoded}.values())
    walk = _Walk(unique[:MOST_CANDIDATES], anchors)
    verifications = 0
    best: tuple[tuple[bool, bool, int], _Path, tuple[Finding, ...]] | None = None
    for path in walk.paths(leaf):
        found, checked = _path_findings(case, walk, path)
        found += _bundle_findings(case, walk, path, leaf, given, unique, strict_order)
        verifications += checked
        ordered = in_order((*before, *found))
        errors = sum(f.severity is Severity.ERROR for f in ordered)
        rank = (errors > 0, path.anchor is None, errors)
        if best is None or rank < best[0]:
            best = (rank, path, ordered)
    assert best is not None, "the leaf alone is a path"
    (refused, _, _), path, findings = best
    labels = _labels(case.profile.role, path)
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


def _labels(role: Role, path: _Path) -> list[str]:
    """leaf's role, sub-CA 2, sub-CA 1, anchor: sub-CAs are numbered from the root downwards."""
    certificates = path.certificates
    labels = [role.label]
    above = len(certificates) - 1 - (path.anchor is not None and len(certificates) > 1)
    if above == 1:
        labels.append("sub-CA")
    else:
        labels += [f"sub-CA {number}" for number in range(above, 0, -1)]
    return labels + ["anchor"] * (len(certificates) - len(labels))


def _path_findings(case: _Case, walk: _Walk, path: _Path) -> tuple[list[Finding], int]:
    """Everything wrong with a path, and how many signatures revocation cost."""
    certificates = path.certificates
    refs = [
        CertificateRef.of(c.certificate, label)
        if c.subject is not None
        else CertificateRef(label, "", c.fingerprint)
        for c, label in zip(certificates, _labels(case.profile.role, path), strict=True)
    ]
    found: list[Finding] = []
    for index, (certificate, ref) in enumerate(zip(certificates, refs, strict=True)):
        is_anchor = path.anchor is not None and index == len(certificates) - 1
        found += _certificate_findings(case, certificate, ref, is_anchor=is_anchor)
        if index:
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
    case: _Case, read: _Certificate, ref: CertificateRef, *, is_anchor: bool
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
    case: _Case,
    read: _Certificate,
    ref: CertificateRef,
    below: Sequence[_Certificate],
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


def _anchor_findings(case: _Case, path: _Path, refs: Sequence[CertificateRef]) -> Iterator[Finding]:
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
    case: _Case, walk: _Walk, chain: Sequence[_Certificate], ref: CertificateRef
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

    def meant(candidates: Sequence[_Certificate]) -> bool:
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


def _bundle_findings(
    case: _Case,
    walk: _Walk,
    path: _Path,
    leaf: _Certificate,
    given: Sequence[_Certificate],
    unique: Sequence[_Certificate],
    strict_order: bool,
) -> Iterator[Finding]:
    """What is odd about how the certificates came along."""

    def ref(read: _Certificate) -> CertificateRef:
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
            severity=Severity.ERROR if strict_order else Severity.WARNING,
        )


def _profile_findings(case: _Case, read: _Certificate, ref: CertificateRef) -> Iterator[Finding]:
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
    rules: Profile, read: _Certificate, ref: CertificateRef
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
    purposes, wanted = read.extension(x509.ExtendedKeyUsage), rules.extended_key_usage
    listed = () if purposes is None else tuple(_as(x509.ExtendedKeyUsage, purposes.value))
    missing = purposes is None and wanted.required
    foreign = (
        purposes is not None and wanted.accepted is not None and not (wanted.accepted & set(listed))
    )
    if missing or foreign:
        yield finding(
            "profile.extended-key-usage",
            ref,
            field="extKeyUsage",
            seen=", ".join(oid._name for oid in listed) or "none",
            wanted=" or ".join(sorted(oid._name for oid in wanted.accepted or ())) or "none",
            source=row.source,
            severity=row.severity,
        )


def _name_findings(case: _Case, subject: x509.Name, ref: CertificateRef) -> Iterator[Finding]:
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
    case: _Case, certificates: Sequence[_Certificate], refs: Sequence[CertificateRef]
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


def _evidence_for(case: _Case, read: _Certificate) -> tuple[bytes, ...]:
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
