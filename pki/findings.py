"""Verdicts and what they rest on.

A judge (the chain walker, the OCSP and CRL checks) answers with a `Verdict`: accepted or not,
with one `Finding` per rule that was broken, all of them, in the order in which they must be
reported. Which rules there are stands in `RULES`, one row each; a row's place is its rank, so
the table reads from what must be said first to what may be said last. What a finding is called
in a protocol (response codes) is another table, in `pki.codes`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki.names import readable
from pki.profiles import Severity

__all__ = [
    "RULES",
    "CertificateRef",
    "Finding",
    "PathStep",
    "Rule",
    "Severity",
    "Verdict",
    "finding",
    "in_order",
]


@dataclass(frozen=True)
class Rule:
    """One rule: its dotted code, what it says, where that stands, what a breach does."""

    code: str
    sentence: str
    """What is wrong when it is broken."""
    source: str
    severity: Severity = Severity.ERROR


_ERROR, _WARNING, _NOTICE = Severity.ERROR, Severity.WARNING, Severity.NOTICE

_TABLE: tuple[Rule, ...] = (
    # What cannot be read cannot be judged.
    Rule("certificate.unreadable", "it is not a certificate", "RFC 5280, 4.1"),
    Rule("certificate.version", "it is not an X.509 v3 certificate", "RFC 5280, 4.1.2.1"),
    Rule("certificate.extension-malformed", "an extension cannot be read", "RFC 5280, 4.2"),
    Rule("certificate.public-key", "its key is not of the edition's curve", "ISO 15118-2 annex F"),
    Rule(
        "certificate.signature-algorithm",
        "it is signed with another algorithm than the edition's",
        "ISO 15118-2 annex F",
    ),
    # Whether the chain is one, up to an anchor.
    Rule("chain.no-anchors", "there is no trust anchor to end at", "RFC 5280, 6.1.1"),
    Rule("chain.self-signed-leaf", "it signed itself and is no anchor", "RFC 5280, 6.1"),
    Rule("chain.signature", "its signature was not made by its issuer's key", "RFC 5280, 6.1.3"),
    Rule(
        "chain.decoy-anchor",
        "it names a trust anchor as issuer, but another key signed it",
        "RFC 5280, 6.1.1",
    ),
    Rule("chain.unknown-anchor", "it ends at a root that is not trusted", "RFC 5280, 6.1.1"),
    Rule("chain.incomplete", "the certificate of its issuer is missing", "RFC 5280, 6.1"),
    # Time: what has ended before what has not begun.
    Rule("chain.expired", "it has expired", "RFC 5280, 6.1.3, [V2G2-824]"),
    Rule("chain.not-yet-valid", "its validity has not begun", "RFC 5280, 6.1.3, [V2G2-824]"),
    # Status.
    Rule("revocation.revoked", "it has been revoked", "RFC 6960, 2.2"),
    Rule("revocation.unknown", "the responder does not know it", "RFC 6960, 2.2"),
    Rule("ocsp.unreadable", "what should tell its status cannot be read", "RFC 6960, 4.2"),
    Rule("ocsp.not-successful", "the responder did not answer", "RFC 6960, 4.2.1"),
    Rule("ocsp.other-certificate", "the answer is about other certificates", "RFC 6960, 3.2"),
    Rule("ocsp.unauthorised-responder", "the responder may not answer", "RFC 6960, 4.2.2.2"),
    Rule("ocsp.signature", "the answer's signature is wrong", "RFC 6960, 3.2"),
    Rule("ocsp.responder-validity", "the responder's certificate is not valid", "RFC 6960, 3.2"),
    Rule("ocsp.stale", "the answer is out of date", "RFC 6960, 4.2.2.1"),
    Rule("ocsp.future", "the answer is of a time that has not come", "RFC 6960, 4.2.2.1"),
    Rule("ocsp.nonce", "the answer does not echo the request's nonce", "RFC 6960, 4.4.1"),
    Rule("crl.unreadable", "the revocation list cannot be read", "RFC 5280, 5.1"),
    Rule("crl.other-issuer", "the revocation list is of another issuer", "RFC 5280, 6.3.3"),
    Rule("crl.signature", "the list was not signed by the issuer's key", "RFC 5280, 6.3.3"),
    Rule("crl.unauthorised-issuer", "the issuer may not sign lists", "RFC 5280, 6.3.3"),
    Rule("crl.extension", "the list has a critical extension that is unknown", "RFC 5280, 5.2"),
    Rule("crl.stale", "the revocation list is out of date", "RFC 5280, 5.1.2.5"),
    Rule("crl.future", "the list is of a time that has not come", "RFC 5280, 5.1.2.4"),
    Rule("revocation.unavailable", "nothing valid tells its status", "RFC 5280, 6.3"),
    # What the certificates of the chain may do.
    Rule("chain.issuer-name", "its issuer's name is not the issuer's subject", "RFC 5280, 6.1.3"),
    Rule("chain.not-a-ca", "it issued a certificate and is no CA", "RFC 5280, 6.1.4"),
    Rule("chain.no-cert-sign", "it issued without keyCertSign", "RFC 5280, 6.1.4"),
    Rule("chain.path-length", "more CAs stand below it than it allows", "RFC 5280, 6.1.4"),
    Rule("chain.too-long", "the chain has too many certificates", "[V2G2-009]"),
    Rule("chain.too-many-candidates", "more certificates came than are looked at", "[V2G2-009]"),
    Rule("chain.root-issued-leaf", "a root issued it", "[V2G2-867]"),
    Rule("chain.anchor-role", "its anchor may not vouch for this role", "[V2G2-925]"),
    Rule("chain.order", "the certificates do not stand in order", "RFC 5246, 7.4.2"),
    Rule("certificate.size", "it is larger than the edition allows", "[V2G2-010]"),
    Rule(
        "certificate.unknown-critical-extension",
        "it has a critical extension that is unknown",
        "RFC 5280, 4.2",
    ),
    # Whether it is what it is shown as.
    Rule("profile.basic-constraints", "its basic constraints are wrong", "RFC 5280, 4.2.1.9"),
    Rule("profile.key-usage", "its key may not be used for this role", "RFC 5280, 4.2.1.3"),
    Rule("profile.extended-key-usage", "its purposes are not the role's", "RFC 5280, 4.2.1.12"),
    Rule("profile.domain-component", "its domain component is not the role's", "[V2G2-925]"),
    Rule("chain.other-domain", "it is a sub-CA of another domain than the role's", "[V2G2-925]"),
    Rule("identifier.invalid", "its common name is not such an identifier", "ISO 15118-2 annex H"),
    Rule("identifier.mismatch", "its common name is another identifier", "ISO 15118-2 annex F"),
    # What does not refuse by itself.
    Rule("profile.not-critical", "an extension should be critical", "RFC 5280, 4.2.1", _WARNING),
    Rule(
        "profile.basic-constraints-absent",
        "it has no basic constraints, which reads as no CA",
        "RFC 5280, 4.2.1.9",
        _WARNING,
    ),
    Rule(
        "profile.path-length",
        "its path length is not that of its place",
        "ISO 15118-2 annex F",
        _WARNING,
    ),
    Rule(
        "chain.authority-key-identifier",
        "it names another key of its issuer than the issuer has",
        "RFC 5280, 4.2.1.1",
        _WARNING,
    ),
    Rule("chain.root-included", "a root came along, which proves nothing", "[V2G2-009]", _WARNING),
    Rule("chain.duplicate", "a certificate came twice", "RFC 5246, 7.4.2", _WARNING),
    Rule(
        "chain.unused", "a certificate came that is not of the chain", "RFC 5246, 7.4.2", _WARNING
    ),
    Rule(
        "chain.one-sub-ca", "one sub-CA stands where two are usual", "ISO 15118-2 annex F", _NOTICE
    ),
    Rule("chain.expires-soon", "it expires soon", "[V2G2-690]", _NOTICE),
)

RULES: Mapping[str, Rule] = {rule.code: rule for rule in _TABLE}
"""Every rule by its code, in the order of reporting."""

_RANK: Mapping[str, int] = {rule.code: rank for rank, rule in enumerate(_TABLE)}


@dataclass(frozen=True)
class CertificateRef:
    """Which certificate is meant: its place in what was judged, its name and fingerprint."""

    label: str
    """leaf, sub-CA 2, sub-CA 1, anchor, or what it is called where it stands."""
    subject: str
    fingerprint: str
    """SHA-256 of the DER, hex; "" if it could not be read."""

    @classmethod
    def of(cls, certificate: x509.Certificate, label: str) -> "CertificateRef":
        try:
            subject = readable(certificate.subject)
        except Exception:  # a forged name raises many kinds
            subject = "a name that cannot be read"
        return cls(label, subject, certificate.fingerprint(hashes.SHA256()).hex())

    def __str__(self) -> str:
        return f"the {self.label} ({self.subject})" if self.subject else f"the {self.label}"


@dataclass(frozen=True)
class Finding:
    """One broken rule: on which certificate, in which field, what was seen and wanted."""

    rule: str
    certificate: CertificateRef | None
    field: str
    seen: str
    wanted: str
    source: str
    severity: Severity

    @property
    def sentence(self) -> str:
        """For people, complete: certificate, what is wrong, what was seen, what is wanted."""
        what = RULES[self.rule].sentence
        subject = str(self.certificate) if self.certificate else "the chain"
        seen = f"; {self.field} is {self.seen}" if self.seen else ""
        wanted = f", wanted is {self.wanted}" if self.wanted else ""
        return f"{subject}: {what}{seen}{wanted} [{self.rule}; {self.source.strip('[]')}]"

    def as_dict(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "certificate": None
            if self.certificate is None
            else {
                "label": self.certificate.label,
                "subject": self.certificate.subject,
                "fingerprint": self.certificate.fingerprint,
            },
            "field": self.field,
            "seen": self.seen,
            "wanted": self.wanted,
            "source": self.source,
            "sentence": self.sentence,
        }


def finding(
    rule: str,
    certificate: CertificateRef | None = None,
    *,
    field: str = "",
    seen: str = "",
    wanted: str = "",
    source: str | None = None,
    severity: Severity | None = None,
) -> Finding:
    """A finding of a rule of the table; source and severity are the rule's unless given."""
    row = RULES[rule]
    return Finding(
        rule, certificate, field, seen, wanted, source or row.source, severity or row.severity
    )


_SEVERITIES = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTICE: 2}


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """As they must be reported: errors first, and by the rank of their rules; each once."""
    return tuple(
        sorted(dict.fromkeys(findings), key=lambda f: (_SEVERITIES[f.severity], _RANK[f.rule]))
    )


def softened(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The same with errors as warnings: what is told but does not refuse."""
    return tuple(
        replace(f, severity=Severity.WARNING) if f.severity is Severity.ERROR else f
        for f in findings
    )


@dataclass(frozen=True)
class PathStep:
    """One certificate of the path that was judged."""

    label: str
    certificate: x509.Certificate

    @property
    def ref(self) -> CertificateRef:
        return CertificateRef.of(self.certificate, self.label)


@dataclass(frozen=True)
class Verdict:
    """Accepted or refused, and why; `path` runs from the leaf to the anchor as far as it led."""

    accepted: bool
    findings: tuple[Finding, ...]
    path: tuple[PathStep, ...]
    role: str
    edition: str
    at: datetime
    verifications: int
    """Signatures that were verified, of certificates and of revocation answers."""

    @property
    def reason(self) -> str:
        """One sentence: why it was refused, or that it was accepted and up to where."""
        if not self.accepted:
            return self.findings[0].sentence
        anchor = self.path[-1].ref.subject if self.path else ""
        return f"accepted as {self.role} under {anchor}"

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that refuse."""
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "accepted": self.accepted,
            "reason": self.reason,
            "role": self.role,
            "edition": self.edition,
            "at": self.at.isoformat(),
            "verifications": self.verifications,
            "path": [
                {
                    "label": step.label,
                    "subject": step.ref.subject,
                    "fingerprint": step.ref.fingerprint,
                    "not_before": step.certificate.not_valid_before_utc.isoformat(),
                    "not_after": step.certificate.not_valid_after_utc.isoformat(),
                }
                for step in self.path
            ],
            "findings": [f.as_dict() for f in self.findings],
        }
