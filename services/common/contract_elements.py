"""The two key elements of contract data, checked before anybody signs or keeps them.

Only the car can tell whether the encrypted key is the contract's; that it has the length of
one, and that the DH public key is a point to agree with, can be told on the way.
"""

from __future__ import annotations

from pki.edition import Edition
from pki.keys import KeyFormatError, public_key_of

from .errors import Refusal


def check_key_elements(
    encrypted_private_key: bytes, dh_public_key: bytes, edition: Edition, where: str = ""
) -> None:
    """Refusal 422 ``wrong_key_element`` unless both are what the edition's key transport says.

    ``where`` stands before the elements' names in the refusal.
    """
    wanted = edition.key_transport.ciphertext_bytes
    if len(encrypted_private_key) != wanted:
        raise Refusal(
            422,
            "wrong_key_element",
            f"{where}encrypted_private_key: {len(encrypted_private_key)} bytes, wanted are "
            f"{wanted} (IV and ciphertext, {edition.title})",
        )
    try:
        public_key_of(dh_public_key, edition)
    except KeyFormatError as error:
        raise Refusal(422, "wrong_key_element", f"{where}dh_public_key: {error}") from None
