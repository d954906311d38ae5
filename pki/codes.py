"""What a finding is called in the protocols: one table per protocol, over the rules.

Each table has a row for every rule of `pki.findings.RULES` that can refuse. A verdict's code is
that of the finding that must be reported first. Where stacks answer differently, a variant of a
table says who does what; pass it as `table`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from pki.findings import RULES, Severity, Verdict

_EXPIRED = ("chain.expired",)
_NOT_YET = ("chain.not-yet-valid",)
_REVOKED = ("revocation.revoked",)
_SIGNATURE = ("chain.signature",)
_ROOT = ("chain.unknown-anchor", "chain.decoy-anchor", "chain.anchor-role")
_NONE = ("chain.no-anchors",)


def _table(
    otherwise: str, *rows: tuple[tuple[str, ...], str], notices: Mapping[str, str] | None = None
) -> Mapping[str, str]:
    """Every rule that refuses with its code, `otherwise` where no row names it."""
    table = {code: otherwise for code, rule in RULES.items() if rule.severity is Severity.ERROR}
    for rules, code in rows:
        table.update(dict.fromkeys(rules, code))
    return MappingProxyType(table | dict(notices or {}))


ISO15118_2: Mapping[str, str] = _table(
    "FAILED_CertChainError",
    (_EXPIRED, "FAILED_CertificateExpired"),
    (_NOT_YET, "FAILED_CertificateExpired"),
    (_REVOKED, "FAILED_CertificateRevoked"),
    (_SIGNATURE, "FAILED_CertChainError"),
    (_ROOT, "FAILED_CertificateNotAllowedAtThisEVSE"),
    (_NONE, "FAILED_NoCertificateAvailable"),
    notices={"chain.expires-soon": "OK_CertificateExpiresSoon"},
)
"""Response codes of ISO 15118-2. Not yet valid answers as expired, as [V2G2-824] is read by
Josev and EVerest; an unknown root as EVerest does."""

ISO15118_2_RISE_V2G: Mapping[str, str] = MappingProxyType(
    {**ISO15118_2, "chain.not-yet-valid": "FAILED"}
)
"""RISE-V2G has no code for a certificate that is not valid yet."""

ISO15118_20: Mapping[str, str] = _table(
    "WARNING_CertificateValidationError",
    (_EXPIRED, "WARNING_CertificateExpired"),
    (_NOT_YET, "WARNING_CertificateNotYetValid"),
    (_REVOKED, "WARNING_CertificateRevoked"),
    (_ROOT, "WARNING_eMSPUnknown"),
    (_NONE, "WARNING_eMSPUnknown"),
)
"""Response codes of ISO 15118-20, its first edition."""

OCPP: Mapping[str, str] = _table(
    "CertChainError",
    (_EXPIRED, "CertificateExpired"),
    (_NOT_YET, "CertificateExpired"),
    (_REVOKED, "CertificateRevoked"),
    (_SIGNATURE, "SignatureError"),
    (_NONE, "NoCertificateAvailable"),
)
"""certificateStatus of OCPP 2.0.1's AuthorizeResponse. Without an answer from the responder
public backends say CertChainError."""


class OpcpError(NamedTuple):
    """How an OPCP backend answers: HTTP status, and what stands in errorMessages."""

    status: int
    message: str


_OPCP_MESSAGES: Mapping[str, str] = _table(
    "The certificate chain is invalid.",
    (_EXPIRED, "The certificate is expired."),
    (_NOT_YET, "The certificate is not yet valid."),
    (_REVOKED, "The certificate is revoked."),
    (_SIGNATURE, "The signature of the certificate is invalid."),
    (_ROOT, "The root certificate is not trusted."),
    (_NONE, "The root certificate is not trusted."),
    (("identifier.invalid", "identifier.mismatch"), "The identifier of the certificate is wrong."),
)


def iso2_code(verdict: Verdict, *, table: Mapping[str, str] = ISO15118_2) -> str:
    """The ResponseCode of ISO 15118-2: OK, OK_CertificateExpiresSoon or a FAILED_ one."""
    return _code(verdict, table, "OK")


def iso20_code(verdict: Verdict, *, table: Mapping[str, str] = ISO15118_20) -> str:
    """The ResponseCode of ISO 15118-20: OK or a WARNING_ one."""
    return _code(verdict, table, "OK")


def ocpp_status(verdict: Verdict, *, table: Mapping[str, str] = OCPP) -> str:
    """The certificateStatus of OCPP: Accepted or why not."""
    return _code(verdict, table, "Accepted")


def opcp_error(verdict: Verdict) -> OpcpError | None:
    """What OPCP answers, None if the verdict accepts; the message ends with the full reason."""
    if verdict.accepted:
        return None
    word = _code(verdict, _OPCP_MESSAGES, "")
    return OpcpError(400, f"{word} {verdict.reason}")


def _code(verdict: Verdict, table: Mapping[str, str], accepted: str) -> str:
    if not verdict.accepted:
        return table[verdict.findings[0].rule]
    notices = (f.rule for f in verdict.findings if f.severity is Severity.NOTICE)
    return next((table[rule] for rule in notices if rule in table), accepted)
