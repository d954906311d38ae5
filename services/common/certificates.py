"""Certificates and other bytes as they cross the parties' interfaces.

Certificates are base64 of DER in one line (PEM is read too), EXI is base64. What
cannot be read is refused with the field's name.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from .errors import Refusal

# No certificate of the field is near this; a bound on what is parsed at all.
MAX_CERTIFICATE = 16 * 1024


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def unb64(text: str, field: str) -> bytes:
    """The bytes of a base64 text (white space is ignored); Refusal 400 names the field."""
    try:
        raw = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, "not_base64", f"{field}: not base64 ({error})") from None
    if not raw:
        raise Refusal(400, "empty", f"{field}: is empty")
    return raw


def load_der(der: bytes) -> x509.Certificate:
    """A certificate of our own making or already checked."""
    return x509.load_der_x509_certificate(der)


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER encoding, lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def read_certificate(text: str, field: str) -> x509.Certificate:
    """A certificate that somebody sent: base64 DER, or PEM. Refusal 400/422 names the field."""
    if "-----BEGIN CERTIFICATE-----" not in text:
        return read_der(unb64(text, field), field)
    return _read(lambda: x509.load_pem_x509_certificate(text.encode()), len(text) * 3 // 4, field)


def read_der(der: bytes, field: str) -> x509.Certificate:
    """A certificate that somebody sent, DER. Refusal 422 names the field."""
    return _read(lambda: x509.load_der_x509_certificate(der), len(der), field)


def _read(load: Callable[[], x509.Certificate], size: int, field: str) -> x509.Certificate:
    if size > MAX_CERTIFICATE:
        raise Refusal(422, "not_a_certificate", f"{field}: {size} bytes are too long")
    try:
        certificate = load()
        key = certificate.public_key()
        # Parsing is lazy: what will be asked for later has to be readable now.
        _ = (certificate.version, certificate.subject, certificate.issuer, certificate.extensions)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    except Exception as error:  # the library documents no common type
        raise Refusal(
            422, "not_a_certificate", f"{field}: not an X.509 certificate ({error})"
        ) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Refusal(
            422,
            "wrong_key_type",
            f"{field}: an elliptic-curve key is wanted, this is {type(key).__name__}",
        )
    return certificate


def read_chain(texts: Sequence[str], field: str) -> tuple[x509.Certificate, ...]:
    return tuple(read_certificate(text, f"{field}[{i}]") for i, text in enumerate(texts))


def public_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def pem(certificates: Iterable[x509.Certificate]) -> str:
    return "".join(c.public_bytes(Encoding.PEM).decode("ascii") for c in certificates)


def from_pem(text: str) -> tuple[x509.Certificate, ...]:
    return tuple(x509.load_pem_x509_certificates(text.encode())) if text else ()


def b64_chain(certificates: Iterable[x509.Certificate]) -> list[str]:
    return [b64(der_of(certificate)) for certificate in certificates]


def public_key_digest(key: ec.EllipticCurvePublicKey) -> str:
    """A short name for a public key: the first 16 bytes of SHA-256 over its SPKI, hex."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return digest.finalize()[:16].hex()
