"""How a contract's private key reaches the vehicle, encrypted to the key the vehicle has.

The mobility operator makes an ephemeral key, agrees with the vehicle's public key (of its
provisioning certificate at installation, of the old contract at an update) and encrypts the
contract key's private scalar:

    Z                 = x-coordinate of the shared point                        (ECDH)
    K                 = Hash(00000001 || Z || 01 || "U" || "V"), its first bytes (NIST SP 800-56A)
    encryptedPrivateKey = IV || AES-CBC(K, IV, scalar), without padding
    DHpublickey       = 04 || X || Y of the ephemeral key

In ISO 15118-2: SHA-256, 16 bytes of key and IV, a 32-byte scalar, so 48 and 65 bytes. The
receiver checks that the scalar is one and belongs to the certificate's key [V2G2-823].

Entropy (ephemeral key and IV) comes from the caller. An ephemeral key is used once.
"""

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash

from pki.algorithms import public_point
from pki.edition import Edition
from pki.keys import Agreement, KeyFormatError, SoftwareKey, public_der, public_key_of


class ContractKeyError(ValueError):
    """An encrypted contract key that is refused; `code` is one of:

    `ciphertext-length`, `dh-length`, `dh-point` (the ephemeral public key is no point of the
    curve), `recipient-curve`, `iv-length`, `scalar-range` (what was decrypted is no private
    scalar), `key-mismatch` (it is not the private key of the certificate).
    """

    def __init__(self, code: str, message: str, source: str) -> None:
        super().__init__(f"{message} ({source})")
        self.code = code
        self.source = source


@dataclass(frozen=True)
class EncryptedContractKey:
    """What two elements of the installation response carry."""

    ciphertext: bytes
    """ContractSignatureEncryptedPrivateKey: IV || encrypted scalar, 48 bytes in -2."""
    dh_public_key: bytes
    """DHpublickey: the ephemeral public key, uncompressed, 65 bytes in -2."""


def encrypt_contract_key(
    contract_key: SoftwareKey,
    recipient_public_key: ec.EllipticCurvePublicKey,
    edition: Edition,
    *,
    ephemeral: Agreement,
    iv: bytes,
) -> EncryptedContractKey:
    """Encrypts the private scalar of `contract_key` to the vehicle's public key.

    `ephemeral` is a fresh key of the edition's curve, `iv` fresh random bytes.
    """
    transport = edition.key_transport
    for whose, key in (
        ("the contract key", contract_key.public_key),
        ("the recipient's key", recipient_public_key),
        ("the ephemeral key", ephemeral.public_key),
    ):
        if not edition.signature.fits(key):
            raise ContractKeyError(
                "recipient-curve",
                f"{whose} is of {key.curve.name}, wanted is {edition.signature.curve.name}",
                edition.title,
            )
    if len(iv) != transport.iv_bytes:
        raise ContractKeyError(
            "iv-length",
            f"the IV has {len(iv)} bytes, wanted are {transport.iv_bytes}",
            edition.title,
        )
    encryptor = _cipher(ephemeral.agree(recipient_public_key), iv, edition).encryptor()
    ciphertext = encryptor.update(contract_key.scalar()) + encryptor.finalize()
    return EncryptedContractKey(iv + ciphertext, public_point(ephemeral.public_key))


def decrypt_contract_key(
    encrypted: EncryptedContractKey,
    agreement: Agreement,
    edition: Edition,
    *,
    certificate_public_key: ec.EllipticCurvePublicKey | None = None,
) -> SoftwareKey:
    """The contract key, decrypted with the vehicle's key.

    With `certificate_public_key`, that of the contract certificate, a scalar that does not
    belong to it is refused [V2G2-823].
    """
    transport = edition.key_transport
    if len(encrypted.ciphertext) != transport.ciphertext_bytes:
        raise ContractKeyError(
            "ciphertext-length",
            f"the encrypted private key has {len(encrypted.ciphertext)} bytes, wanted are "
            f"{transport.ciphertext_bytes}: IV and scalar",
            edition.title,
        )
    if len(encrypted.dh_public_key) != transport.point_bytes:
        raise ContractKeyError(
            "dh-length",
            f"the ephemeral public key has {len(encrypted.dh_public_key)} bytes, wanted are "
            f"{transport.point_bytes}",
            edition.title,
        )
    try:
        ephemeral = public_key_of(encrypted.dh_public_key, edition)
    except KeyFormatError as error:
        raise ContractKeyError(
            "dh-point", f"the ephemeral public key: {error}", edition.title
        ) from None
    iv, ciphertext = (
        encrypted.ciphertext[: transport.iv_bytes],
        encrypted.ciphertext[transport.iv_bytes :],
    )
    decryptor = _cipher(agreement.agree(ephemeral), iv, edition).decryptor()
    scalar = decryptor.update(ciphertext) + decryptor.finalize()
    try:
        key = SoftwareKey.from_scalar(int.from_bytes(scalar, "big"), edition)
    except KeyFormatError:
        raise ContractKeyError(
            "scalar-range",
            "what was decrypted is no private scalar of the curve: it was encrypted to another "
            "key, or is damaged",
            "[V2G2-823]",
        ) from None
    if certificate_public_key is not None and public_der(key.public_key) != public_der(
        certificate_public_key
    ):
        raise ContractKeyError(
            "key-mismatch",
            "the decrypted private key is not that of the contract certificate",
            "[V2G2-823]",
        )
    return key


def _cipher(shared_secret: bytes, iv: bytes, edition: Edition) -> Cipher[modes.CBC]:
    transport = edition.key_transport
    key = ConcatKDFHash(
        algorithm=transport.hash, length=transport.key_bytes, otherinfo=transport.other_info
    ).derive(shared_secret)
    return Cipher(algorithms.AES(key), modes.CBC(iv))
