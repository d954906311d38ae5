"""Signature algorithms as values.

An edition names the algorithm its certificates are signed with; keys, issuing and the chain
walker take it from there. A further algorithm is a further value of this file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pki import der

Hash = hashes.SHA256 | hashes.SHA384 | hashes.SHA512

ID_EC_PUBLIC_KEY = "1.2.840.10045.2.1"


@dataclass(frozen=True, eq=False)
class SignatureAlgorithm:
    """ECDSA over one named curve with one hash (RFC 5758, 3.2)."""

    name: str
    curve: ec.EllipticCurve
    curve_oid: str
    hash: Hash
    oid: str
    component_bytes: int
    """Length of r, of s, of a coordinate and of the private scalar, in bytes."""

    @property
    def order(self) -> int:
        """Number of points of the curve's group; private scalars are 1 .. order - 1."""
        return self.curve.group_order

    @property
    def point_bytes(self) -> int:
        """Length of an uncompressed point, 04 || X || Y."""
        return 1 + 2 * self.component_bytes

    @property
    def identifier(self) -> bytes:
        """AlgorithmIdentifier, DER; without parameters (RFC 5758, 3.2)."""
        return der.sequence(der.oid(self.oid))

    @property
    def spki_head(self) -> bytes:
        """What precedes the point in every SubjectPublicKeyInfo of this curve (RFC 5480)."""
        spki = der.sequence(
            der.sequence(der.oid(ID_EC_PUBLIC_KEY), der.oid(self.curve_oid)),
            der.bit_string(bytes(self.point_bytes)),
        )
        return spki[: -self.point_bytes]

    def ecdsa(self, *, deterministic: bool = False) -> ec.ECDSA:
        """What pyca signs and verifies with; deterministic: by RFC 6979."""
        return _ecdsa(self.hash.name, deterministic)

    def generate(self) -> ec.EllipticCurvePrivateKey:
        return ec.generate_private_key(self.curve)

    def fits(self, public_key: object) -> bool:
        """Whether a public key object is one of this algorithm's curve."""
        curve = getattr(public_key, "curve", None)
        return curve is not None and curve.name == self.curve.name

    def verifies(self, public_key: object, signature: bytes, data: bytes) -> bool:
        """Whether `signature` (DER) over `data` was made by the key of `public_key`."""
        if not isinstance(public_key, ec.EllipticCurvePublicKey):
            return False
        try:
            public_key.verify(signature, data, self.ecdsa())
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True


@lru_cache
def _ecdsa(hash_name: str, deterministic: bool) -> ec.ECDSA:
    return ec.ECDSA(_HASHES[hash_name], deterministic_signing=deterministic)


_HASHES: Mapping[str, Hash] = {
    known.name: known for known in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512())
}

ECDSA_P256_SHA256 = SignatureAlgorithm(
    name="ecdsa-p256-sha256",
    curve=ec.SECP256R1(),
    curve_oid="1.2.840.10045.3.1.7",
    hash=hashes.SHA256(),
    oid="1.2.840.10045.4.3.2",
    component_bytes=32,
)

ECDSA_P521_SHA512 = SignatureAlgorithm(
    name="ecdsa-p521-sha512",
    curve=ec.SECP521R1(),
    curve_oid="1.3.132.0.35",
    hash=hashes.SHA512(),
    oid="1.2.840.10045.4.3.4",
    component_bytes=66,
)

SIGNATURE_HASHES: Mapping[str, Hash] = {
    "1.2.840.10045.4.3.2": hashes.SHA256(),
    "1.2.840.10045.4.3.3": hashes.SHA384(),
    "1.2.840.10045.4.3.4": hashes.SHA512(),
}
"""The ECDSA signature algorithms that can be checked at all, whatever an edition allows."""


_BY_CURVE: Mapping[str, SignatureAlgorithm] = {
    algorithm.curve.name: algorithm for algorithm in (ECDSA_P256_SHA256, ECDSA_P521_SHA512)
}


def algorithm_of(key: ec.EllipticCurvePublicKey) -> SignatureAlgorithm | None:
    """The algorithm of this file that a key belongs to."""
    return _BY_CURVE.get(key.curve.name)


def public_point(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """04 || X || Y."""
    return public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
