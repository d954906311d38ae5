"""Whether a certificate was revoked: OCSP (RFC 6960) and CRLs (RFC 5280), both sides.

The asker builds a request with `ocsp_request` and judges what comes back with
`check_ocsp_response`; the responder reads it with `read_ocsp_request` and answers with
`ocsp_response` or `ocsp_error_response`. `certificate_revocation_list` and `check_crl` are the
same for lists.

Requests and answers are put together here and not by pyca, for two reasons: a request may ask
about several certificates (a charging station asks about its whole chain at once), and an
answer is signed through a `Signer`. pyca and OpenSSL read them in the tests.

A check never raises for bytes of others: it gives a `RevocationOutcome`, which holds the status
that may be relied on and the findings that say why not, if not.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID, ExtensionOID

from pki import der
from pki.algorithms import SIGNATURE_HASHES
from pki.findings import CertificateRef, Finding, finding, in_order
from pki.issuing import Authority, sealed

Hash = hashes.SHA1 | hashes.SHA224 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512

HASH_OIDS: Mapping[str, Hash] = {
    "1.3.14.3.2.26": hashes.SHA1(),  # noqa: S303 - names a certificate, protects nothing
    "2.16.840.1.101.3.4.2.1": hashes.SHA256(),
    "2.16.840.1.101.3.4.2.2": hashes.SHA384(),
    "2.16.840.1.101.3.4.2.3": hashes.SHA512(),
}
"""The hashes by which a CertID may name its issuer."""

_OID_OF_HASH = {known.name: oid for oid, known in HASH_OIDS.items()}
_ID_PKIX_OCSP_BASIC = "1.3.6.1.5.5.7.48.1.1"
_ID_PKIX_OCSP_NONCE = "1.3.6.1.5.5.7.48.1.2"

MOST_CERT_IDS = 64
"""Most certificates that one request may ask about; RFC 6960 gives no limit."""
NONCE_BYTES = range(1, 129)
"""Lengths that a nonce may have (RFC 9654, 2.1; RFC 8954 allowed up to 32)."""


class CertificateStatus(StrEnum):
    GOOD = "good"
    REVOKED = "revoked"
    UNKNOWN = "unknown"
    """The responder does not know the certificate."""
    UNAVAILABLE = "unavailable"
    """There is nothing that may be relied on."""


class RevocationReason(StrEnum):
    """The reasons of RFC 5280, 5.3.1."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"
    AA_COMPROMISE = "aACompromise"


_REASON_NUMBERS = {
    RevocationReason.UNSPECIFIED: 0,
    RevocationReason.KEY_COMPROMISE: 1,
    RevocationReason.CA_COMPROMISE: 2,
    RevocationReason.AFFILIATION_CHANGED: 3,
    RevocationReason.SUPERSEDED: 4,
    RevocationReason.CESSATION_OF_OPERATION: 5,
    RevocationReason.CERTIFICATE_HOLD: 6,
    RevocationReason.PRIVILEGE_WITHDRAWN: 9,
    RevocationReason.AA_COMPROMISE: 10,
}


class OcspRequestError(ValueError):
    """Bytes that are no OCSP request; a responder answers them with "malformedRequest"."""


# ---------------------------------------------------------------------- naming a certificate


@dataclass(frozen=True)
class CertId:
    """How OCSP names a certificate: two hashes of its issuer, and its serial number."""

    hash_algorithm: str
    """sha1, sha256, sha384, sha512."""
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial: int

    @classmethod
    def of(
        cls, certificate: x509.Certificate, issuer: x509.Certificate, hash: Hash | None = None
    ) -> "CertId":
        """The name of `certificate`, which `issuer` issued; hashes are SHA-256 by default."""
        algorithm = hash or hashes.SHA256()
        name, key = issuer_hashes(issuer, algorithm.name)
        return cls(algorithm.name, name, key, certificate.serial_number)

    def matches(self, issuer_certificate: x509.Certificate) -> bool:
        """Whether the two hashes are those of this issuer."""
        try:
            return (self.issuer_name_hash, self.issuer_key_hash) == issuer_hashes(
                issuer_certificate, self.hash_algorithm
            )
        except ValueError:
            return False

    def encoded(self) -> bytes:
        """CertID, DER (RFC 6960, 4.1.1)."""
        return der.sequence(
            _encoded_hash(self.hash_algorithm),
            der.octet_string(self.issuer_name_hash),
            der.octet_string(self.issuer_key_hash),
            der.integer(self.serial),
        )


@lru_cache(maxsize=8)
def _encoded_hash(name: str) -> bytes:
    return der.sequence(der.oid(_OID_OF_HASH[name]), der.tlv(der.NULL, b""))


def issuer_hashes(issuer: x509.Certificate, hash_algorithm: str) -> tuple[bytes, bytes]:
    """Hash of the issuer's encoded name, and of its key's bit string without tag and length."""
    if hash_algorithm not in _OID_OF_HASH:
        raise ValueError(f"{hash_algorithm} is no hash that OCSP requests are read with here")
    spki = issuer.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    inside = der.Reader(spki).next(der.SEQUENCE).children()
    inside.next()
    bits = inside.next(der.BIT_STRING).content[1:]
    name = issuer.subject.public_bytes()
    return _digest(hash_algorithm, name), _digest(hash_algorithm, bits)


def _digest(algorithm: str, data: bytes) -> bytes:
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()


# ------------------------------------------------------------------------------ OCSP requests


def ocsp_request(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    *,
    hash: Hash | None = None,
    nonce: bytes | None = None,
) -> bytes:
    """A request for the status of one certificate, DER."""
    return ocsp_request_of([CertId.of(certificate, issuer, hash)], nonce=nonce)


def ocsp_request_of(cert_ids: Iterable[CertId], *, nonce: bytes | None = None) -> bytes:
    """A request for the status of several certificates, DER; a nonce has 1 to 128 bytes."""
    requests = der.sequence(*(der.sequence(cert_id.encoded()) for cert_id in cert_ids))
    extensions = b"" if nonce is None else der.context(2, der.sequence(_nonce_extension(nonce)))
    return der.sequence(der.sequence(requests, extensions))


def _nonce_extension(nonce: bytes) -> bytes:
    if len(nonce) not in NONCE_BYTES:
        raise ValueError(f"a nonce has 1 to 128 bytes, seen are {len(nonce)}")
    return der.sequence(der.oid(_ID_PKIX_OCSP_NONCE), der.octet_string(der.octet_string(nonce)))


@dataclass(frozen=True)
class OcspRequest:
    """What a request asks: at least one certificate, and a nonce to echo."""

    cert_ids: tuple[CertId, ...]
    nonce: bytes | None = None


def read_ocsp_request(encoded: bytes) -> OcspRequest:
    """Reads a request, one certificate or several; OcspRequestError tells what is wrong."""
    # What nearly everybody sends, pyca reads in a tenth of the time.
    return _read_usual_request(encoded) or _read_any_request(encoded)


def _read_usual_request(encoded: bytes) -> OcspRequest | None:
    """A request about one certificate with at most a nonce; None: it is another one, or none."""
    try:
        request = ocsp.load_der_ocsp_request(encoded)
        name = request.hash_algorithm.name
        if name not in _OID_OF_HASH:
            return None
        nonce = None
        for extension in request.extensions:
            if isinstance(extension.value, x509.OCSPNonce):
                nonce = extension.value.nonce
        if nonce is not None and len(nonce) not in NONCE_BYTES:
            return None
        cert_id = CertId(
            name, request.issuer_name_hash, request.issuer_key_hash, request.serial_number
        )
    except Exception:  # the library documents no common type
        return None
    return OcspRequest((cert_id,), nonce)


def _read_any_request(encoded: bytes) -> OcspRequest:
    try:
        outer = der.Reader(encoded)
        request = outer.next(der.SEQUENCE).children()
        outer.finish()
        tbs = request.next(der.SEQUENCE).children()
        if version := tbs.optional(0xA0):
            number = version.children().next(der.INTEGER).as_integer()
            if number != 0:
                raise OcspRequestError(f"the request is of version {number + 1}, wanted is 1")
        tbs.optional(0xA1)  # requestorName
        cert_ids: list[CertId] = []
        for single in tbs.next(der.SEQUENCE).children():
            if len(cert_ids) == MOST_CERT_IDS:
                raise OcspRequestError(
                    f"more than {MOST_CERT_IDS} certificates are asked about at once"
                )
            cert_ids.append(_read_cert_id(single.children().next(der.SEQUENCE)))
        nonce = _read_nonce(tbs.optional(0xA2))
        tbs.finish()
        request.optional(0xA0)  # a signature, which is not asked for and not checked
        request.finish()
    except der.DerError as error:
        raise OcspRequestError(f"the request cannot be read: {error}") from None
    if not cert_ids:
        raise OcspRequestError("the request asks about no certificate")
    return OcspRequest(tuple(cert_ids), nonce)


def _read_cert_id(element: der.Element) -> CertId:
    fields = element.children()
    oid = fields.next(der.SEQUENCE).children().next(der.OBJECT_IDENTIFIER).as_oid()
    if oid not in HASH_OIDS:
        raise OcspRequestError(
            f"the hash algorithm {oid} is not known; known are {', '.join(_OID_OF_HASH)}"
        )
    name = fields.next(der.OCTET_STRING).content
    key = fields.next(der.OCTET_STRING).content
    serial = fields.next(der.INTEGER).as_integer()
    fields.finish()
    return CertId(HASH_OIDS[oid].name, name, key, serial)


def _read_nonce(extensions: der.Element | None) -> bytes | None:
    if extensions is None:
        return None
    for extension in extensions.children().next(der.SEQUENCE).children():
        fields = extension.children()
        oid = fields.next(der.OBJECT_IDENTIFIER).as_oid()
        fields.optional(der.BOOLEAN)
        value = fields.next(der.OCTET_STRING)
        if oid == _ID_PKIX_OCSP_NONCE:
            # Some askers leave out the inner OCTET STRING; what they sent is echoed.
            try:
                nonce = value.inside().next(der.OCTET_STRING).content
            except der.DerError:
                nonce = value.content
            if len(nonce) not in NONCE_BYTES:
                raise OcspRequestError(
                    f"the nonce has {len(nonce)} bytes, wanted are 1 to 128 (RFC 9654, 2.1)"
                )
            return nonce
    return None


# ------------------------------------------------------------------------------- OCSP answers


@dataclass(frozen=True)
class Revoked:
    """That and since when a certificate is revoked, and why if that is told."""

    at: datetime
    reason: RevocationReason | None = None


@dataclass(frozen=True)
class OcspAnswer:
    """What a responder says about one certificate."""

    cert_id: CertId
    status: CertificateStatus | Revoked
    """GOOD, UNKNOWN or a `Revoked`."""
    this_update: datetime
    next_update: datetime | None = None


def ocsp_response(
    answers: Sequence[OcspAnswer],
    responder: Authority,
    produced_at: datetime,
    nonce: bytes | None = None,
) -> bytes:
    """A signed OCSPResponse, DER.

    The responder is the CA itself or a signer it issued for this; a signer's certificate is
    sent along (RFC 6960, 4.2.2.2). The answer names the responder by its key.
    """
    named, algorithm, certificates = _parts_of(responder)
    extensions = b"" if nonce is None else der.context(1, der.sequence(_nonce_extension(nonce)))
    tbs = der.sequence(
        named,
        _generalized_time(produced_at),
        der.sequence(*(_single_response(answer) for answer in answers)),
        extensions,
    )
    signature = responder.signer.sign(tbs)
    basic = der.sequence(tbs, algorithm, der.bit_string(signature), certificates)
    return der.sequence(
        _SUCCESSFUL,
        der.context(0, der.sequence(_BASIC, der.octet_string(basic))),
    )


_SUCCESSFUL = der.enumerated(0)
_BASIC = der.oid(_ID_PKIX_OCSP_BASIC)


@lru_cache(maxsize=128)
def _parts_of(responder: Authority) -> tuple[bytes, bytes, bytes]:
    """What is the same in all answers of a responder: how it is named, its algorithm, and its
    certificate where that was issued for this."""
    point = responder.signer.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    certificates = b""
    if is_ocsp_signer(responder.certificate):
        encoded = responder.certificate.public_bytes(Encoding.DER)
        certificates = der.context(0, der.sequence(encoded))
    named = der.context(2, der.octet_string(_digest("sha1", point)))
    return named, responder.signer.algorithm.identifier, certificates


# Many answers are given in one second.
_generalized_time = lru_cache(maxsize=256)(der.generalized_time)


_GOOD = der.context(0, b"", constructed=False)


@lru_cache(maxsize=256)
def _single_response(answer: OcspAnswer) -> bytes:
    if isinstance(answer.status, Revoked):
        reason = answer.status.reason
        status = der.context(
            1,
            der.generalized_time(answer.status.at)
            + (b"" if reason is None else der.context(0, der.enumerated(_REASON_NUMBERS[reason]))),
        )
    elif answer.status is CertificateStatus.GOOD:
        status = _GOOD
    elif answer.status is CertificateStatus.UNKNOWN:
        status = der.context(2, b"", constructed=False)
    else:
        raise ValueError(f"a responder cannot answer {answer.status!r}: good, unknown or Revoked")
    return der.sequence(
        answer.cert_id.encoded(),
        status,
        _generalized_time(answer.this_update),
        b""
        if answer.next_update is None
        else der.context(0, _generalized_time(answer.next_update)),
    )


_ERROR_STATUS: Mapping[str, int] = {
    "malformedRequest": 1,
    "internalError": 2,
    "tryLater": 3,
    "sigRequired": 5,
    "unauthorized": 6,
}


def ocsp_error_response(status: str) -> bytes:
    """An OCSPResponse without an answer: malformedRequest, internalError, tryLater,
    sigRequired, unauthorized (RFC 6960, 4.2.1).
    """
    if status not in _ERROR_STATUS:
        raise ValueError(f"{status!r} is none of {', '.join(_ERROR_STATUS)}")
    return der.sequence(der.enumerated(_ERROR_STATUS[status]))


def is_ocsp_signer(certificate: x509.Certificate) -> bool:
    """Whether a certificate is for signing OCSP answers and no CA's."""
    try:
        extensions = certificate.extensions
        purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except Exception:  # it has none, or extensions that cannot be read
        return False
    try:
        ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        ca = False
    return ExtendedKeyUsageOID.OCSP_SIGNING in purposes and not ca


def ocsp_url(certificate: x509.Certificate) -> str | None:
    """Where a certificate says its status is asked (AIA), None if it does not."""
    try:
        access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess)
    except Exception:  # it has none, or extensions that cannot be read
        return None
    for description in access.value:
        location = description.access_location
        if description.access_method == AuthorityInformationAccessOID.OCSP and isinstance(
            location, x509.UniformResourceIdentifier
        ):
            return location.value
    return None


# ------------------------------------------------------------------------------ OCSP judged


@dataclass(frozen=True)
class RevocationOutcome:
    """What an answer or a list says about one certificate, if it may be relied on."""

    status: CertificateStatus
    findings: tuple[Finding, ...] = ()
    revoked_at: datetime | None = None
    reason: str | None = None
    this_update: datetime | None = None
    next_update: datetime | None = None
    responder: str | None = None
    """The subject of whoever signed."""
    verifications: int = 0

    @property
    def good(self) -> bool:
        return self.status is CertificateStatus.GOOD

    def as_dict(self) -> dict[str, Any]:
        def text(instant: datetime | None) -> str | None:
            return None if instant is None else instant.isoformat()

        return {
            "status": self.status.value,
            "revoked_at": text(self.revoked_at),
            "reason": self.reason,
            "this_update": text(self.this_update),
            "next_update": text(self.next_update),
            "responder": self.responder,
            "findings": [f.as_dict() for f in self.findings],
        }


WITHOUT_NEXT_UPDATE = timedelta(days=7)
"""How long an answer that tells no nextUpdate is taken for fresh."""


def check_ocsp_response(
    response: bytes,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    *,
    at: datetime,
    nonce: bytes | None = None,
    label: str = "certificate",
) -> RevocationOutcome:
    """Judges an answer about `certificate`, which `issuer` issued, at an instant.

    Checked are: the response's status; that one of its answers is about this certificate
    (hashes SHA-1 to SHA-512); that it was signed by the issuer, or by a responder whom the
    issuer gave a certificate for this that is valid at the instant; thisUpdate and nextUpdate;
    and, if a nonce was sent, that it came back. Of several answers about the certificate the
    latest counts, a revocation before all.
    """
    ref = CertificateRef.of(certificate, label)
    try:
        loaded = ocsp.load_der_ocsp_response(response)
        return _check_ocsp(loaded, certificate, issuer, ref, at, nonce)
    except Exception as error:  # pyca raises many kinds for bytes that are no answer
        return _unavailable(
            finding(
                "ocsp.unreadable",
                ref,
                field="OCSP response",
                seen=_short(error),
                wanted="RFC 6960 DER",
            )
        )


def _unavailable(why: Finding, verifications: int = 0) -> RevocationOutcome:
    return RevocationOutcome(CertificateStatus.UNAVAILABLE, (why,), verifications=verifications)


def _check_ocsp(
    loaded: ocsp.OCSPResponse,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    ref: CertificateRef,
    at: datetime,
    nonce: bytes | None,
) -> RevocationOutcome:
    if loaded.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        seen = _camel(loaded.response_status.name)
        return _unavailable(
            finding(
                "ocsp.not-successful", ref, field="responseStatus", seen=seen, wanted="successful"
            )
        )
    answers = list(loaded.responses)
    singles = [single for single in answers if _is_about(single, certificate, issuer)]
    if not singles:
        about = ", ".join(hex(single.serial_number) for single in answers[:4])
        return _unavailable(
            finding(
                "ocsp.other-certificate",
                ref,
                field="certID",
                seen=f"serial numbers {about}",
                wanted=f"{certificate.serial_number:#x} of {ref.subject or 'it'}",
            )
        )
    responder, checked, objection = _responder(loaded, issuer, ref, at)
    if responder is None:
        assert objection is not None
        return _unavailable(objection, checked)
    findings: list[Finding] = [] if objection is None else [objection]
    if nonce is not None and (echoed := _nonce_of(loaded)) != nonce:
        findings.append(
            finding(
                "ocsp.nonce",
                ref,
                field="nonce",
                seen="none" if echoed is None else echoed.hex(),
                wanted=nonce.hex(),
            )
        )
    single = max(
        singles,
        key=lambda s: (
            s.certificate_status is ocsp.OCSPCertStatus.REVOKED,
            s.this_update_utc,
        ),
    )
    this_update, next_update = single.this_update_utc, single.next_update_utc
    findings += _time_findings("ocsp", ref, this_update, next_update, at)
    said = _STATUS_OF[single.certificate_status]
    revoked_at = single.revocation_time_utc
    reason = single.revocation_reason.value if single.revocation_reason else None
    return _outcome(
        said, findings, ref, revoked_at, reason, this_update, next_update, responder, checked
    )


_STATUS_OF = {
    ocsp.OCSPCertStatus.GOOD: CertificateStatus.GOOD,
    ocsp.OCSPCertStatus.REVOKED: CertificateStatus.REVOKED,
    ocsp.OCSPCertStatus.UNKNOWN: CertificateStatus.UNKNOWN,
}


def _time_findings(
    kind: str,
    ref: CertificateRef,
    this_update: datetime,
    next_update: datetime | None,
    at: datetime,
) -> list[Finding]:
    found = []
    if at < this_update:
        found.append(
            finding(
                f"{kind}.future",
                ref,
                field="thisUpdate",
                seen=this_update.isoformat(),
                wanted=f"not after {at.isoformat()}",
            )
        )
    if at > (next_update or this_update + WITHOUT_NEXT_UPDATE):
        none = f"none, thisUpdate is {this_update.isoformat()}"
        found.append(
            finding(
                f"{kind}.stale",
                ref,
                field="nextUpdate",
                seen=next_update.isoformat() if next_update else none,
                wanted=f"not before {at.isoformat()}",
            )
        )
    return found


def _outcome(
    said: CertificateStatus,
    findings: list[Finding],
    ref: CertificateRef,
    revoked_at: datetime | None,
    reason: str | None,
    this_update: datetime,
    next_update: datetime | None,
    who: str,
    verifications: int,
) -> RevocationOutcome:
    """What `who` said, or UNAVAILABLE if it cannot be relied on.

    That a certificate was revoked is no less true for being out of date.
    """
    revoked = said is CertificateStatus.REVOKED
    outdated = {"ocsp.stale", "crl.stale"} if revoked else set()
    if any(f.rule not in outdated for f in findings):
        status = CertificateStatus.UNAVAILABLE
    else:
        status = said
    if status is CertificateStatus.REVOKED:
        since = "" if revoked_at is None else f" since {revoked_at.isoformat()}"
        because = f", {reason}" if reason else ""
        seen = f"revoked{since}{because}, says {who}"
        findings.append(
            finding("revocation.revoked", ref, field="status", seen=seen, wanted="good")
        )
    else:
        revoked_at = reason = None
    if status is CertificateStatus.UNKNOWN:
        seen = f"unknown, says {who}"
        findings.append(
            finding("revocation.unknown", ref, field="status", seen=seen, wanted="good")
        )
    return RevocationOutcome(
        status,
        in_order(findings),
        revoked_at,
        reason,
        this_update,
        next_update,
        who,
        verifications,
    )


def _is_about(
    single: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate
) -> bool:
    if single.serial_number != certificate.serial_number:
        return False
    named = CertId(
        single.hash_algorithm.name,
        single.issuer_name_hash,
        single.issuer_key_hash,
        single.serial_number,
    )
    return named.matches(issuer)


def _responder(
    response: ocsp.OCSPResponse, issuer: x509.Certificate, ref: CertificateRef, at: datetime
) -> tuple[str | None, int, Finding | None]:
    """Who signed, how many signatures were verified, and what is wrong with that.

    None for who: nobody who may.
    """
    checked = 1
    if _signed_by(response, issuer):
        return _subject(issuer), checked, None
    delegates = [c for c in response.certificates if c != issuer]
    for candidate in delegates[:4]:
        checked += 1
        if not _signed_by(response, candidate):
            continue
        checked += 1
        name = _subject(candidate)
        if not _issued_by(candidate, issuer):
            return (
                None,
                checked,
                finding(
                    "ocsp.unauthorised-responder",
                    ref,
                    field="responder",
                    seen=f"{name}, whom another CA issued",
                    wanted=f"{_subject(issuer)} or a signer of its own",
                ),
            )
        if not is_ocsp_signer(candidate):
            return (
                None,
                checked,
                finding(
                    "ocsp.unauthorised-responder",
                    ref,
                    field="responder",
                    seen=f"{name} without the purpose OCSPSigning",
                    wanted="extended key usage id-kp-OCSPSigning",
                ),
            )
        begin, end = candidate.not_valid_before_utc, candidate.not_valid_after_utc
        if not begin <= at <= end:
            return (
                name,
                checked,
                finding(
                    "ocsp.responder-validity",
                    ref,
                    field="responder",
                    seen=f"{name}, valid from {begin.isoformat()} to {end.isoformat()}",
                    wanted=f"valid at {at.isoformat()}",
                ),
            )
        return name, checked, None
    if delegates:
        rule, seen = "ocsp.signature", "made by none of the certificates that came along"
    elif _names(response, issuer):
        rule, seen = "ocsp.signature", "not made by the issuer, whom the answer names"
    else:
        rule, seen = (
            "ocsp.unauthorised-responder",
            "somebody else than the issuer, without a certificate",
        )
    return (
        None,
        checked,
        finding(
            rule,
            ref,
            field="responder",
            seen=seen,
            wanted=f"{_subject(issuer)} or a signer of its own",
        ),
    )


def _names(response: ocsp.OCSPResponse, issuer: x509.Certificate) -> bool:
    """Whether the answer's responderID is the issuer."""
    if response.responder_name is not None:
        return response.responder_name == issuer.subject
    return response.responder_key_hash == issuer_hashes(issuer, "sha1")[1]


def _signed_by(response: ocsp.OCSPResponse, certificate: x509.Certificate) -> bool:
    key = certificate.public_key()
    algorithm = SIGNATURE_HASHES.get(response.signature_algorithm_oid.dotted_string)
    if algorithm is None or not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    return verifies(key, response.signature, response.tbs_response_bytes, algorithm)


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    key = issuer.public_key()
    algorithm = SIGNATURE_HASHES.get(certificate.signature_algorithm_oid.dotted_string)
    return (
        algorithm is not None
        and isinstance(key, ec.EllipticCurvePublicKey)
        and certificate.issuer == issuer.subject
        and verifies(key, certificate.signature, certificate.tbs_certificate_bytes, algorithm)
    )


def verifies(
    key: ec.EllipticCurvePublicKey,
    signature: bytes,
    data: bytes,
    algorithm: Hash,
) -> bool:
    """Whether an ECDSA signature (DER) over `data` was made by the key."""
    try:
        key.verify(signature, data, ec.ECDSA(algorithm))
    except Exception:  # InvalidSignature, and ValueErrors of many kinds for odd signatures
        return False
    return True


def _nonce_of(response: ocsp.OCSPResponse) -> bytes | None:
    try:
        return response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None


# ----------------------------------------------------------------------------------- CRLs


@dataclass(frozen=True)
class RevokedCertificate:
    """One entry of a revocation list."""

    serial: int
    at: datetime
    reason: RevocationReason | None = None


def certificate_revocation_list(
    entries: Iterable[RevokedCertificate],
    authority: Authority,
    number: int,
    this_update: datetime,
    next_update: datetime,
) -> bytes:
    """A signed CRL, version 2, with its number and the issuer's key identifier, DER."""
    revoked = []
    for entry in entries:
        builder = (
            x509.RevokedCertificateBuilder()
            .serial_number(entry.serial)
            .revocation_date(der.utc(entry.at))
        )
        if entry.reason is not None:
            flag = x509.ReasonFlags(entry.reason.value)
            builder = builder.add_extension(x509.CRLReason(flag), critical=False)
        revoked.append(builder.build())
    key_identifier = x509.AuthorityKeyIdentifier(_key_identifier(authority), None, None)
    builder_ = x509.CertificateRevocationListBuilder(
        issuer_name=authority.certificate.subject,
        last_update=None,
        next_update=None,
        revoked_certificates=revoked,
    )
    algorithm = authority.signer.algorithm
    template = (
        builder_.last_update(der.utc(this_update))
        .next_update(der.utc(next_update))
        .add_extension(key_identifier, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
        .sign(algorithm.generate(), algorithm.hash)
    )
    return sealed(template.tbs_certlist_bytes, authority.signer)


def _key_identifier(authority: Authority) -> bytes:
    try:
        return authority.certificate.extensions.get_extension_for_class(
            x509.SubjectKeyIdentifier
        ).value.digest
    except x509.ExtensionNotFound:
        return issuer_hashes(authority.certificate, "sha1")[1]


_KNOWN_CRL_EXTENSIONS = frozenset({ExtensionOID.AUTHORITY_KEY_IDENTIFIER, ExtensionOID.CRL_NUMBER})


def check_crl(
    crl: bytes,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    *,
    at: datetime,
    label: str = "certificate",
) -> RevocationOutcome:
    """Judges by a complete list of `issuer` whether it revoked `certificate`, at an instant.

    Checked are: the list's issuer and signature, that the issuer may sign lists, critical
    extensions (none that narrow the list's scope are understood, so none are let pass),
    thisUpdate and nextUpdate. The certificate counts as revoked if it is listed.
    """
    ref = CertificateRef.of(certificate, label)
    try:
        return _check_crl(x509.load_der_x509_crl(crl), certificate, issuer, ref, at)
    except Exception as error:  # pyca raises many kinds for bytes that are no list
        return _unavailable(
            finding("crl.unreadable", ref, field="CRL", seen=_short(error), wanted="RFC 5280 DER")
        )


def _check_crl(
    loaded: x509.CertificateRevocationList,
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    ref: CertificateRef,
    at: datetime,
) -> RevocationOutcome:
    findings: list[Finding] = []
    checked = 0
    if loaded.issuer != issuer.subject:
        findings.append(
            finding(
                "crl.other-issuer",
                ref,
                field="issuer",
                seen=loaded.issuer.rfc4514_string(),
                wanted=issuer.subject.rfc4514_string(),
            )
        )
    else:
        checked = 1
        key = issuer.public_key()
        algorithm = SIGNATURE_HASHES.get(loaded.signature_algorithm_oid.dotted_string)
        if not (
            algorithm is not None
            and isinstance(key, ec.EllipticCurvePublicKey)
            and verifies(key, loaded.signature, loaded.tbs_certlist_bytes, algorithm)
        ):
            findings.append(
                finding(
                    "crl.signature",
                    ref,
                    field="signature",
                    seen="not made by the issuer's key",
                    wanted=_subject(issuer),
                )
            )
        elif not _may_sign_lists(issuer):
            findings.append(
                finding(
                    "crl.unauthorised-issuer",
                    ref,
                    field="keyUsage",
                    seen=f"{_subject(issuer)} without cRLSign",
                    wanted="cRLSign",
                )
            )
    findings += [
        finding(
            "crl.extension",
            ref,
            field="crlExtensions",
            seen=extension.oid.dotted_string,
            wanted="no critical extension but those of a complete list",
        )
        for extension in loaded.extensions
        if extension.critical and extension.oid not in _KNOWN_CRL_EXTENSIONS
    ]
    this_update, next_update = loaded.last_update_utc, loaded.next_update_utc
    findings += _time_findings("crl", ref, this_update, next_update, at)
    entry = loaded.get_revoked_certificate_by_serial_number(certificate.serial_number)
    said, revoked_at, reason = CertificateStatus.GOOD, None, None
    if entry is not None:
        said, revoked_at = CertificateStatus.REVOKED, entry.revocation_date_utc
        try:
            reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
        except x509.ExtensionNotFound:
            reason = None
    who = _subject(issuer)
    return _outcome(said, findings, ref, revoked_at, reason, this_update, next_update, who, checked)


def _may_sign_lists(issuer: x509.Certificate) -> bool:
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign
    except x509.ExtensionNotFound:
        return True


def _subject(certificate: x509.Certificate) -> str:
    return CertificateRef.of(certificate, "").subject


def _camel(word: str) -> str:
    head, *tail = word.lower().split("_")
    return head + "".join(part.capitalize() for part in tail)


def _short(error: Exception) -> str:
    if isinstance(error, UnsupportedAlgorithm):
        return "an algorithm that is not supported"
    return f"{type(error).__name__}: {str(error)[:120]}"
