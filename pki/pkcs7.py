"""PKCS#7 as a bag of certificates: a SignedData without signers (RFC 5652, 5.1; RFC 8551, 3.2.3).

The certificates stand in the order in which they are given. DER would sort a SET OF, and this
set is written as BER allows: who reads such a message takes the order for that of the chain, so
that sorting it breaks clients. OpenSSL, Go and PKI.js keep what they find.
"""

from collections.abc import Sequence

from pki import der

_ID_DATA = "1.2.840.113549.1.7.1"
_ID_SIGNED_DATA = "1.2.840.113549.1.7.2"
_EMPTY_SET = der.tlv(der.SET, b"")


def certificates_only(certificates: Sequence[bytes]) -> bytes:
    """A ContentInfo with these certificates (DER each), in this order."""
    signed_data = der.sequence(
        der.integer(1),
        _EMPTY_SET,  # digestAlgorithms
        der.sequence(der.oid(_ID_DATA)),
        der.context(0, b"".join(certificates)),
        _EMPTY_SET,  # crls are left out; signerInfos
    )
    return der.sequence(der.oid(_ID_SIGNED_DATA), der.context(0, signed_data))


def certificates_in(encoded: bytes) -> tuple[bytes, ...]:
    """The certificates (DER each) of such a message, in their order. DerError."""
    outer = der.Reader(encoded)
    info = outer.next(der.SEQUENCE).children()
    outer.finish()
    kind = info.next(der.OBJECT_IDENTIFIER)
    if kind.as_oid() != _ID_SIGNED_DATA:
        raise der.DerError(f"content of type {kind.as_oid()}, wanted is signedData", kind.start)
    inside = info.next(0xA0).children().next(der.SEQUENCE).children()
    inside.next(der.INTEGER)
    inside.next(der.SET)
    inside.next(der.SEQUENCE)
    found = inside.optional(0xA0)
    return tuple(one.encoded for one in found.children()) if found else ()
