"""One reader for certificates and keys that people bring: PEM, DER, base64, PKCS#12.

What a file holds is found out by looking, not by its name. Certificates come out in the order
in which each is issued by the next, whatever order they stood in.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from pki.keys import KeyFormatError, SoftwareKey
from pki.names import readable

from .errors import Refusal

# More than any chain with a key needs; a bound on what is parsed at all.
MAX_FILE = 256 * 1024
MAX_CERTIFICATES = 16

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----.*?-----END \1-----", re.DOTALL)


class MaterialError(ValueError):
    """What is wrong with what somebody brought; the message begins with its name."""


@dataclass(frozen=True)
class Material:
    """What was in it."""

    certificates: tuple[x509.Certificate, ...] = ()
    keys: tuple[SoftwareKey, ...] = ()


def read_material(raw: bytes, name: str, password: bytes | None = None) -> Material:
    """The certificates and private keys in ``raw``; MaterialError names ``name`` and the trouble.

    Keys are PKCS#8 or SEC1, encrypted ones need ``password``.
    """
    if not raw.strip():
        raise MaterialError(f"{name}: is empty")
    if len(raw) > MAX_FILE:
        raise MaterialError(f"{name}: {len(raw)} bytes are too many, at most are {MAX_FILE}")
    found = _pem(raw, name, password) if b"-----BEGIN " in raw else _binary(raw, name, password)
    if len(found.certificates) > MAX_CERTIFICATES:
        raise MaterialError(
            f"{name}: {len(found.certificates)} certificates are too many, at most are "
            f"{MAX_CERTIFICATES}"
        )
    for certificate in found.certificates:
        _must_be_usable(certificate, name)
    return Material(in_order(found.certificates), found.keys)


def read_files(file: Path, key_file: Path | None = None, password: str | None = None) -> Material:
    """What lies in a file of certificates, and in one with their key; MaterialError."""
    secret = password.encode() if password is not None else None
    found: list[x509.Certificate] = []
    keys: list[SoftwareKey] = []
    for one in (file, key_file):
        if one is None:
            continue
        try:
            raw = one.read_bytes()
        except OSError as error:
            raise MaterialError(f"{one}: {error.strerror}") from None
        material = read_material(raw, str(one), secret)
        found += material.certificates
        keys += material.keys
    return Material(in_order(found), tuple(keys))


def read_texts(
    certificates: Sequence[str], private_key: str | None, password: str | None
) -> Material:
    """What somebody sent as texts (PEM or base64); Refusal 422 names the field."""
    secret = password.encode() if password is not None else None
    found: list[x509.Certificate] = []
    keys: list[SoftwareKey] = []
    named = [(f"certificates[{i}]", text) for i, text in enumerate(certificates)]
    if private_key is not None:
        named.append(("private_key", private_key))
    for name, text in named:
        try:
            material = read_material(text.encode(), name, secret)
        except MaterialError as error:
            raise Refusal(422, "not_readable", str(error)) from None
        if material.keys and name != "private_key":
            raise Refusal(
                422, "key_in_certificates", f"{name}: a private key belongs into private_key"
            )
        found += material.certificates
        keys += material.keys
    return Material(in_order(found), tuple(keys))


def in_order(certificates: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Each once, as far as possible each issued by the next."""
    left = list(dict.fromkeys(certificates))
    ordered: list[x509.Certificate] = []
    while left:
        # The next one is who issued the last; else somebody who issued none of the rest.
        up = [one for one in left if ordered and ordered[-1].issuer == one.subject]
        tops = [
            one
            for one in left
            if not any(other.issuer == one.subject for other in left if other is not one)
        ]
        following = (up or tops or left)[0]
        ordered.append(following)
        left.remove(following)
    return tuple(ordered)


def _pem(raw: bytes, name: str, password: bytes | None) -> Material:
    certificates: list[x509.Certificate] = []
    keys: list[SoftwareKey] = []
    blocks = list(_PEM.finditer(raw))
    if not blocks:
        raise MaterialError(f"{name}: a PEM block begins and does not end")
    for block in blocks:
        label, text = block[1].decode(), block[0]
        if label == "CERTIFICATE":
            certificates.append(_certificate(text, name))
        elif label.endswith("PRIVATE KEY"):
            keys.append(_key(load_pem_private_key, text, name, password))
        elif label != "EC PARAMETERS":
            raise MaterialError(
                f"{name}: a PEM block {label!r}; wanted are CERTIFICATE and PRIVATE KEY"
            )
    return Material(tuple(certificates), tuple(keys))


def _binary(raw: bytes, name: str, password: bytes | None) -> Material:
    if not raw.startswith(b"\x30"):
        try:
            raw = base64.b64decode(b"".join(raw.split()), validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if not raw.startswith(b"\x30"):
            raise MaterialError(f"{name}: neither PEM nor DER nor base64 of DER nor PKCS#12")
    # PKCS#12 begins with version 3, PKCS#8 and SEC1 with version 0 or 1; an encrypted key with
    # the identifier of how, a certificate with what was signed.
    inside = raw[_header(raw) :]
    if inside.startswith(b"\x02\x01\x03"):
        return _pkcs12(raw, name, password)
    is_key = inside.startswith((b"\x02\x01\x00", b"\x02\x01\x01"))
    if is_key or inside[_header(inside) :].startswith(b"\x06"):
        return Material(keys=(_key(load_der_private_key, raw, name, password),))
    try:
        return Material((x509.load_der_x509_certificate(raw),))
    except Exception as error:  # the library documents no common type
        raise MaterialError(
            f"{name}: DER, but no X.509 certificate, no private key and no PKCS#12 ({error})"
        ) from None


def _header(raw: bytes) -> int:
    """How long the tag and the length of a DER value are."""
    if len(raw) < 2:
        return len(raw)
    return 2 + (raw[1] & 0x7F if raw[1] & 0x80 else 0)


def _pkcs12(raw: bytes, name: str, password: bytes | None) -> Material:
    try:
        box = load_pkcs12(raw, password)
    except ValueError as error:
        if "password" in str(error).lower():
            raise MaterialError(_key_trouble(name, error, password)) from None
        raise MaterialError(f"{name}: a PKCS#12 that cannot be read ({error})") from None
    except Exception as error:  # the library documents no common type
        raise MaterialError(f"{name}: a PKCS#12 that cannot be read ({error})") from None
    inside = [box.cert, *box.additional_certs]
    certificates = tuple(one.certificate for one in inside if one is not None)
    keys = (_of(box.key, name),) if box.key is not None else ()
    if not certificates and not keys:
        raise MaterialError(f"{name}: a PKCS#12 with nothing in it")
    return Material(certificates, keys)


def _certificate(text: bytes, name: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text)
    except Exception as error:  # the library documents no common type
        raise MaterialError(f"{name}: a certificate that cannot be read ({error})") from None


def _must_be_usable(certificate: x509.Certificate, name: str) -> None:
    try:
        key = certificate.public_key()
        # Parsing is lazy: what will be asked for later has to be readable now.
        _ = (certificate.subject, certificate.issuer, certificate.extensions)
        _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
        subject = readable(certificate.subject)
    except Exception as error:  # the library documents no common type
        raise MaterialError(f"{name}: a certificate that cannot be read ({error})") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise MaterialError(
            f"{name}: {subject} has a {type(key).__name__}; an elliptic-curve key is wanted"
        )


def _key(
    load: Callable[[bytes, bytes | None], Any], raw: bytes, name: str, password: bytes | None
) -> SoftwareKey:
    try:
        return _of(_opened(load, raw, password), name)
    except (ValueError, TypeError) as error:
        raise MaterialError(_key_trouble(name, error, password)) from None
    except Exception as error:  # UnsupportedAlgorithm and the like
        raise MaterialError(f"{name}: the private key cannot be read ({error})") from None


def _opened(load: Callable[[bytes, bytes | None], Any], raw: bytes, password: bytes | None) -> Any:
    """A private key; one that is not encrypted needs no password, though one was given for
    others."""
    try:
        return load(raw, password)
    except TypeError:
        if password is None:
            raise
        return load(raw, None)


def _of(private: Any, name: str) -> SoftwareKey:
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise MaterialError(
            f"{name}: a {type(private).__name__.lstrip('_')}; an elliptic-curve key is wanted"
        )
    try:
        return SoftwareKey(private)
    except KeyFormatError as error:
        raise MaterialError(f"{name}: {error}") from None


def _wants_password(error: Exception) -> bool:
    return "password" in str(error).lower() or "encrypted" in str(error).lower()


def _key_trouble(name: str, error: Exception, password: bytes | None) -> str:
    if isinstance(error, MaterialError):
        return str(error)
    if password is None and _wants_password(error):
        return f"{name}: the private key is encrypted, and no password was given"
    if password is not None:
        return f"{name}: the private key does not open with the password that was given"
    return f"{name}: the private key cannot be read ({error})"
