"""The key transport: published numbers, its own round trip, and each way to spoil it."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from pki.contract_key import (
    ContractKeyError,
    EncryptedContractKey,
    decrypt_contract_key,
    encrypt_contract_key,
)
from pki.edition import ISO2
from pki.keys import SoftwareKey

STATIC = SoftwareKey.from_scalar(0x1111, ISO2)
EPHEMERAL = SoftwareKey.from_scalar(0x2222, ISO2)
CONTRACT = SoftwareKey.from_scalar(0x3333, ISO2)
IV = bytes(16)


def encrypted() -> EncryptedContractKey:
    return encrypt_contract_key(CONTRACT, STATIC.public_key, ISO2, ephemeral=EPHEMERAL, iv=IV)


def test_the_derived_key_is_the_published_one() -> None:
    """Static d = 0x1111, ephemeral d = 0x2222: K = 82b886c4…; the cipher is undone by hand."""
    key = bytes.fromhex("82b886c45c0a2e3002d2d465ea52a450")
    sealed = encrypted()
    decryptor = Cipher(algorithms.AES(key), modes.CBC(IV)).decryptor()
    assert decryptor.update(sealed.ciphertext[16:]) == (0x3333).to_bytes(32, "big")


def test_lengths_and_layout() -> None:
    sealed = encrypt_contract_key(
        CONTRACT, STATIC.public_key, ISO2, ephemeral=EPHEMERAL, iv=bytes(range(16))
    )
    assert (len(sealed.ciphertext), len(sealed.dh_public_key)) == (48, 65)
    assert sealed.ciphertext[:16] == bytes(range(16))
    numbers = EPHEMERAL.public_key.public_numbers()
    assert sealed.dh_public_key == (
        b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    )


def test_what_was_encrypted_comes_back_and_fits_the_certificate() -> None:
    """A scalar with leading zeros, which a signed big integer would shorten."""
    key = decrypt_contract_key(
        encrypted(), STATIC, ISO2, certificate_public_key=CONTRACT.public_key
    )
    assert key.scalar() == CONTRACT.scalar()
    assert len(key.scalar()) == 32


def refusal(sealed: EncryptedContractKey, key: SoftwareKey = STATIC) -> str:
    with pytest.raises(ContractKeyError) as caught:
        decrypt_contract_key(sealed, key, ISO2, certificate_public_key=CONTRACT.public_key)
    return caught.value.code


@pytest.mark.parametrize("size", [0, 32, 47, 49, 64])
def test_a_ciphertext_of_another_length_is_refused(size: int) -> None:
    assert refusal(replace(encrypted(), ciphertext=bytes(size))) == "ciphertext-length"


@pytest.mark.parametrize("size", [0, 33, 64, 66])
def test_a_public_key_of_another_length_is_refused(size: int) -> None:
    assert refusal(replace(encrypted(), dh_public_key=bytes(size))) == "dh-length"


@pytest.mark.parametrize(
    "point",
    [
        bytes(65),
        b"\x04" + bytes(64),
        b"\x04" + b"\xff" * 64,
        b"\x02" + EPHEMERAL.public_key.public_numbers().x.to_bytes(32, "big") + bytes(32),
    ],
    ids=["infinity", "zeros", "beyond the field", "compressed"],
)
def test_what_is_no_point_of_the_curve_is_refused(point: bytes) -> None:
    assert refusal(replace(encrypted(), dh_public_key=point)) == "dh-point"


def test_a_flipped_bit_gives_another_key_and_is_noticed() -> None:
    sealed = encrypted()
    flipped = bytearray(sealed.ciphertext)
    flipped[-1] ^= 1
    assert refusal(replace(sealed, ciphertext=bytes(flipped))) in {"key-mismatch", "scalar-range"}


def test_the_initialisation_vector_stands_first() -> None:
    sealed = encrypt_contract_key(
        CONTRACT, STATIC.public_key, ISO2, ephemeral=EPHEMERAL, iv=bytes(range(16))
    )
    moved = sealed.ciphertext[16:] + sealed.ciphertext[:16]
    assert refusal(replace(sealed, ciphertext=moved)) in {"key-mismatch", "scalar-range"}


def test_another_vehicle_cannot_read_it() -> None:
    assert refusal(encrypted(), EPHEMERAL) in {"key-mismatch", "scalar-range"}


@pytest.mark.parametrize("scalar", [0, ISO2.signature.order, 2**256 - 1])
def test_a_scalar_out_of_range_is_refused(scalar: int) -> None:
    key = bytes.fromhex("82b886c45c0a2e3002d2d465ea52a450")
    encryptor = Cipher(algorithms.AES(key), modes.CBC(IV)).encryptor()
    ciphertext = IV + encryptor.update(scalar.to_bytes(32, "big"))
    assert refusal(replace(encrypted(), ciphertext=ciphertext)) == "scalar-range"


def test_the_key_of_another_certificate_is_refused() -> None:
    with pytest.raises(ContractKeyError) as caught:
        decrypt_contract_key(encrypted(), STATIC, ISO2, certificate_public_key=STATIC.public_key)
    assert caught.value.code == "key-mismatch"
    assert "[V2G2-823]" in str(caught.value)


def test_encrypting_refuses_a_wrong_curve_and_a_wrong_iv() -> None:
    with pytest.raises(ContractKeyError, match="recipient's key is of secp384r1"):
        encrypt_contract_key(
            CONTRACT,
            ec.generate_private_key(ec.SECP384R1()).public_key(),
            ISO2,
            ephemeral=EPHEMERAL,
            iv=IV,
        )
    with pytest.raises(ContractKeyError, match="the IV has 12 bytes"):
        encrypt_contract_key(CONTRACT, STATIC.public_key, ISO2, ephemeral=EPHEMERAL, iv=bytes(12))
