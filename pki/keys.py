"""Private keys behind two small doors: a `Signer` signs, an `Agreement` agrees.

Who issues a certificate or signs a message holds a Signer, never a key: whether a file, a
database or an HSM stands behind it, only its owner's store knows. `reference` is the name under
which that store finds it. `SoftwareKey` is the implementation in memory and does both.

Two forms of an ECDSA signature are about: DER (X.509, OCSP) and r || s (XML signatures).
`raw_signature` and `der_signature` turn one into the other.
"""

import hashlib
from typing import Protocol, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

from pki.algorithms import (
    ECDSA_P256_SHA256,
    ECDSA_P521_SHA512,
    SignatureAlgorithm,
    algorithm_of,
    public_point,
)
from pki.edition import Edition

__all__ = [
    "ECDSA_P256_SHA256",
    "ECDSA_P521_SHA512",
    "Agreement",
    "KeyFormatError",
    "SignatureAlgorithm",
    "Signer",
    "SoftwareKey",
    "der_signature",
    "public_der",
    "public_key_of",
    "raw_signature",
    "subject_key_identifier",
]


class KeyFormatError(ValueError):
    """A key or signature that cannot be read, or is not of a kind that is used here."""


class Signer(Protocol):
    """Signs with a private key that stays where it is."""

    @property
    def reference(self) -> str: ...

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey: ...

    @property
    def algorithm(self) -> SignatureAlgorithm: ...

    def sign(self, data: bytes) -> bytes:
        """The signature over `data` (which it hashes), DER SEQUENCE of r and s."""
        ...


class Agreement(Protocol):
    """Agrees on a secret with a private key that stays where it is."""

    @property
    def reference(self) -> str: ...

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey: ...

    def agree(self, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        """The shared secret Z: the x-coordinate, fixed length, big endian."""
        ...


class SoftwareKey:
    """A private key in memory: Signer and Agreement. Its repr shows the public half only."""

    __slots__ = ("_ecdsa", "_private", "algorithm", "public_key", "reference")

    def __init__(
        self,
        private: ec.EllipticCurvePrivateKey,
        *,
        reference: str = "",
        deterministic: bool = False,
    ) -> None:
        """With `deterministic`, signatures follow from key and data (RFC 6979)."""
        algorithm = algorithm_of(public := private.public_key())
        if algorithm is None:
            raise KeyFormatError(f"keys on the curve {private.curve.name} are not used here")
        self._private = private
        self._ecdsa = algorithm.ecdsa(deterministic=deterministic)
        self.algorithm = algorithm
        self.public_key = public
        self.reference = reference

    @classmethod
    def generate(cls, of: Edition | SignatureAlgorithm, reference: str = "") -> Self:
        """A fresh key of the operating system's entropy."""
        return cls(_algorithm(of).generate(), reference=reference)

    @classmethod
    def derive(
        cls, seed: bytes, label: str, of: Edition | SignatureAlgorithm, reference: str = ""
    ) -> Self:
        """The key that follows from seed and label, for corpora and tests; it signs
        deterministically, so that the same seed gives the same certificates byte for byte.
        """
        algorithm = _algorithm(of)
        # Sixteen bytes more than the order has make the remainder's bias vanish.
        material = HKDF(
            algorithm=hashes.SHA256(),
            length=algorithm.component_bytes + 16,
            salt=None,
            info=b"pnclab key\x00" + label.encode(),
        ).derive(seed)
        scalar = int.from_bytes(material, "big") % (algorithm.order - 1) + 1
        return cls.from_scalar(scalar, algorithm, reference=reference or label, deterministic=True)

    @classmethod
    def from_scalar(
        cls,
        scalar: int,
        of: Edition | SignatureAlgorithm,
        *,
        reference: str = "",
        deterministic: bool = False,
    ) -> Self:
        """The key of the private scalar d, 1 <= d < order; KeyFormatError beyond."""
        algorithm = _algorithm(of)
        if not 1 <= scalar < algorithm.order:
            raise KeyFormatError(
                f"the private scalar lies outside 1 .. order - 1 of {algorithm.curve.name}"
            )
        private = ec.derive_private_key(scalar, algorithm.curve)
        return cls(private, reference=reference, deterministic=deterministic)

    def repeatable(self) -> Self:
        """The same key, signing deterministically (RFC 6979)."""
        return type(self)(self._private, reference=self.reference, deterministic=True)

    @classmethod
    def from_pkcs8(
        cls, encoded: bytes, password: bytes | None = None, *, reference: str = ""
    ) -> Self:
        """Reads PKCS#8 DER (SEC1 DER as well), encrypted or not."""
        try:
            private = load_der_private_key(encoded, password)
        except (ValueError, TypeError) as error:
            raise KeyFormatError(f"the private key cannot be read: {error}") from None
        return cls._of_loaded(private, reference)

    @classmethod
    def from_pem(
        cls, text: bytes | str, password: bytes | None = None, *, reference: str = ""
    ) -> Self:
        """Reads PEM, PKCS#8 or SEC1, encrypted or not."""
        encoded = text.encode() if isinstance(text, str) else text
        try:
            private = load_pem_private_key(encoded, password)
        except (ValueError, TypeError) as error:
            raise KeyFormatError(f"the private key cannot be read: {error}") from None
        return cls._of_loaded(private, reference)

    @classmethod
    def _of_loaded(cls, private: object, reference: str) -> Self:
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise KeyFormatError(
                f"a {type(private).__name__} is no key of an elliptic curve that is used here"
            )
        return cls(private, reference=reference)

    def pkcs8(self, password: bytes | None = None) -> bytes:
        """PKCS#8 DER; unencrypted without a password."""
        return self._encoded(Encoding.DER, password)

    def pem(self, password: bytes | None = None) -> str:
        """PKCS#8 PEM; unencrypted without a password."""
        return self._encoded(Encoding.PEM, password).decode()

    def _encoded(self, encoding: Encoding, password: bytes | None) -> bytes:
        encryption: KeySerializationEncryption = (
            NoEncryption() if password is None else BestAvailableEncryption(password)
        )
        return self._private.private_bytes(encoding, PrivateFormat.PKCS8, encryption)

    def scalar(self) -> bytes:
        """The private scalar d, big endian, as long as the curve's order."""
        value = self._private.private_numbers().private_value
        return value.to_bytes(self.algorithm.component_bytes, "big")

    @property
    def public_der(self) -> bytes:
        """SubjectPublicKeyInfo, DER."""
        return public_der(self.public_key)

    def ski(self) -> bytes:
        """The subject key identifier that certificates of this key carry."""
        return subject_key_identifier(self.public_key)

    def sign(self, data: bytes) -> bytes:
        return self._private.sign(data, self._ecdsa)

    def agree(self, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        return self._private.exchange(ec.ECDH(), peer_public_key)

    def __repr__(self) -> str:
        return (
            f"<SoftwareKey {self.reference or 'without a reference'}, {self.algorithm.name}, "
            f"public {self.ski().hex()}>"
        )


def subject_key_identifier(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """SHA-1 of the public key's bit string, 20 bytes (RFC 5280, 4.2.1.2, method 1)."""
    return hashlib.sha1(public_point(public_key), usedforsecurity=False).digest()


def public_der(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo, DER: what two keys are compared by."""
    return public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def public_key_of(point: bytes, edition: Edition) -> ec.EllipticCurvePublicKey:
    """The public key of an uncompressed point, 04 || X || Y; KeyFormatError if it is none."""
    algorithm = edition.signature
    if len(point) != algorithm.point_bytes or point[0] != 4:
        raise KeyFormatError(
            f"wanted is an uncompressed point of {algorithm.point_bytes} bytes that begins with "
            f"04, seen are {len(point)} bytes"
            + (f" that begin with {point[:1].hex()}" * bool(point))
        )
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(algorithm.curve, point)
    except ValueError:
        raise KeyFormatError(f"the point is not on {algorithm.curve.name}") from None


def raw_signature(encoded: bytes, edition: Edition) -> bytes:
    """r || s of a DER signature, both of the edition's fixed length (64 bytes in -2)."""
    size = edition.signature.component_bytes
    try:
        r, s = decode_dss_signature(encoded)
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    except (ValueError, OverflowError):
        raise KeyFormatError(
            f"no DER signature of two numbers of up to {size} bytes, but {len(encoded)} bytes"
        ) from None


def der_signature(raw: bytes) -> bytes:
    """The DER form of r || s; the halves are of equal length."""
    half, odd = divmod(len(raw), 2)
    if odd or not half:
        raise KeyFormatError(f"r || s has an even length above zero, seen are {len(raw)} bytes")
    return encode_dss_signature(
        int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big")
    )


def _algorithm(of: Edition | SignatureAlgorithm) -> SignatureAlgorithm:
    return of.signature if isinstance(of, Edition) else of
