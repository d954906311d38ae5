"""The editions of ISO 15118 as values.

What differs between editions (curve, hash, limits, namespaces, key transport) stands here once
and is passed along. Nothing asks for an edition's name to decide something: it asks the value.
The profiles of an edition's certificates are tables of their own, in `pki.profiles`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from cryptography.hazmat.primitives import hashes

from pki.algorithms import ECDSA_P256_SHA256, SignatureAlgorithm


@dataclass(frozen=True, eq=False)
class KeyTransport:
    """How a contract's private key travels to the vehicle: one-pass ECDH and a block cipher."""

    hash: hashes.HashAlgorithm
    """Hash of the concatenation key derivation function (NIST SP 800-56A, 5.8.1)."""
    other_info: bytes
    """AlgorithmID || PartyUInfo || PartyVInfo: 01, "U", "V"."""
    key_bytes: int
    """Length of the derived key."""
    iv_bytes: int
    scalar_bytes: int
    point_bytes: int
    """Length of the ephemeral public key, DHpublickey."""

    @property
    def ciphertext_bytes(self) -> int:
        """Length of ContractSignatureEncryptedPrivateKey: IV || ciphertext without padding."""
        return self.iv_bytes + self.scalar_bytes


@dataclass(frozen=True, eq=False)
class Edition:
    """One edition of ISO 15118."""

    name: str
    short: str
    title: str
    signature: SignatureAlgorithm
    max_certificate_bytes: int
    """Largest DER encoding of a certificate that crosses the cable."""
    max_path: int
    """Most certificates of a path that are not self-signed: leaf and sub-CAs."""
    max_concurrent_roots: int
    """Most roots of one root CA that are valid at a time."""
    expires_soon: timedelta
    """A contract certificate with less life left is answered with a warning."""
    key_transport: KeyTransport
    message_namespace: str
    """Namespace of the message definitions, as xsdMsgDefNamespace carries it."""

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Edition {self.name}>"


ISO2 = Edition(
    name="iso15118-2",
    short="iso2",
    title="ISO 15118-2",
    signature=ECDSA_P256_SHA256,
    max_certificate_bytes=800,  # [V2G2-010]
    max_path=3,  # [V2G2-009]
    max_concurrent_roots=10,  # [V2G2-878]
    expires_soon=timedelta(days=21),  # [V2G2-690]
    key_transport=KeyTransport(
        hash=hashes.SHA256(),
        other_info=b"\x01UV",
        key_bytes=16,
        iv_bytes=16,
        scalar_bytes=32,
        point_bytes=65,
    ),
    message_namespace="urn:iso:15118:2:2013:MsgDef",
)

EDITIONS: Mapping[str, Edition] = {ISO2.short: ISO2}
"""Every edition that is known, by its short name."""


def edition(name: str) -> Edition:
    """The edition of this name, short ("iso2") or long ("iso15118-2"); KeyError lists them."""
    for known in EDITIONS.values():
        if name in (known.short, known.name):
            return known
    names = ", ".join(f"{known.short} ({known.name})" for known in EDITIONS.values())
    raise KeyError(f"no edition is called {name!r}; there is: {names}")
