"""XML Signature (W3C xmldsig-core, namespace .../2000/09/xmldsig#), all 22 types.

It serves twice: imported by every edition's message schema (the header's Signature), and alone,
as SCHEMA: SignedInfo is hashed for signing as an EXI fragment of this schema.

In the field only Signature, SignedInfo, its methods with nothing but an Algorithm, References
with one Transform, and SignatureValue are seen. The rest is here because event codes count it
and because a peer may send it.
"""

from __future__ import annotations

from v2g.exi.schema import (
    UNBOUNDED,
    ComplexType,
    Namespace,
    Node,
    Schema,
    any_element,
    attribute,
    choice,
    content,
    element,
    elements,
    ref,
    sequence,
    term,
    text,
)
from v2g.exi.simple import ANY_URI, BASE64_BINARY, ID, INTEGER, STRING, Binary, Integer

XMLDSIG = Namespace("http://www.w3.org/2000/09/xmldsig#", "xmlsig")

_crypto_binary = XMLDSIG.simple(Binary("CryptoBinary"))
_digest_value = XMLDSIG.simple(Binary("DigestValueType"))
_hmac_output_length = XMLDSIG.simple(Integer("HMACOutputLengthType"))

DIGEST_VALUE = XMLDSIG.element("DigestValue", _digest_value)
KEY_NAME = XMLDSIG.element("KeyName", STRING)
MGMT_DATA = XMLDSIG.element("MgmtData", STRING)


# Algorithms -------------------------------------------------------------------------------------


class CanonicalizationMethod(ComplexType, ns=XMLDSIG, element=True, mixed=True):
    Algorithm: str = attribute(ANY_URI)
    content: tuple[str | Node, ...] = content(
        sequence(any_element(other=False, min=0, max=UNBOUNDED)), default=()
    )


class SignatureMethod(ComplexType, ns=XMLDSIG, element=True, mixed=True):
    Algorithm: str = attribute(ANY_URI)
    content: tuple[str | Node, ...] = content(
        sequence(
            term("HMACOutputLength", _hmac_output_length, min=0),
            any_element(other=True, min=0, max=UNBOUNDED),
        ),
        default=(),
    )


class DigestMethod(ComplexType, ns=XMLDSIG, element=True, mixed=True):
    Algorithm: str = attribute(ANY_URI)
    content: tuple[str | Node, ...] = content(
        sequence(any_element(other=True, min=0, max=UNBOUNDED)), default=()
    )


class Transform(ComplexType, ns=XMLDSIG, element=True, mixed=True):
    Algorithm: str = attribute(ANY_URI)
    content: tuple[str | Node, ...] = content(
        choice(any_element(other=True), term("XPath", STRING), min=0, max=UNBOUNDED), default=()
    )


class Transforms(ComplexType, ns=XMLDSIG, element=True):
    Transform: tuple[Transform, ...] = elements(ref(Transform), max=UNBOUNDED)


# What is signed ---------------------------------------------------------------------------------


class Reference(ComplexType, ns=XMLDSIG, element=True):
    Transforms: Transforms | None = element(ref(Transforms), default=None)
    DigestMethod: DigestMethod = element(ref(DigestMethod))
    DigestValue: bytes = element(DIGEST_VALUE)
    Id: str | None = attribute(ID, default=None)
    URI: str | None = attribute(ANY_URI, default=None)
    Type: str | None = attribute(ANY_URI, default=None)


class SignedInfo(ComplexType, ns=XMLDSIG, element=True):
    CanonicalizationMethod: CanonicalizationMethod = element(ref(CanonicalizationMethod))
    SignatureMethod: SignatureMethod = element(ref(SignatureMethod))
    Reference: tuple[Reference, ...] = elements(ref(Reference), max=UNBOUNDED)
    Id: str | None = attribute(ID, default=None)


class SignatureValue(ComplexType, ns=XMLDSIG, element=True):
    value: bytes = text(BASE64_BINARY)
    Id: str | None = attribute(ID, default=None)


# The key ----------------------------------------------------------------------------------------


class DSAKeyValue(
    ComplexType,
    ns=XMLDSIG,
    element=True,
    model=sequence(
        sequence("P", "Q", min=0),
        "G?",
        "Y",
        "J?",
        sequence("Seed", "PgenCounter", min=0),
    ),
):
    P: bytes | None = element(_crypto_binary, default=None)
    Q: bytes | None = element(_crypto_binary, default=None)
    G: bytes | None = element(_crypto_binary, default=None)
    Y: bytes = element(_crypto_binary)
    J: bytes | None = element(_crypto_binary, default=None)
    Seed: bytes | None = element(_crypto_binary, default=None)
    PgenCounter: bytes | None = element(_crypto_binary, default=None)


class RSAKeyValue(ComplexType, ns=XMLDSIG, element=True):
    Modulus: bytes = element(_crypto_binary)
    Exponent: bytes = element(_crypto_binary)


class KeyValue(ComplexType, ns=XMLDSIG, element=True, mixed=True):
    content: tuple[str | Node, ...] = content(
        choice(term(DSAKeyValue), term(RSAKeyValue), any_element(other=True))
    )


class RetrievalMethod(ComplexType, ns=XMLDSIG, element=True):
    Transforms: Transforms | None = element(ref(Transforms), default=None)
    URI: str | None = attribute(ANY_URI, default=None)
    Type: str | None = attribute(ANY_URI, default=None)


class X509IssuerSerial(ComplexType, ns=XMLDSIG):
    """A certificate by its issuer's name and its serial number; -2 names root CAs so."""

    X509IssuerName: str = element(STRING)
    X509SerialNumber: int = element(INTEGER)


class X509Data(ComplexType, ns=XMLDSIG, element=True):
    content: tuple[str | Node, ...] = content(
        sequence(
            choice(
                term("X509IssuerSerial", X509IssuerSerial),
                term("X509SKI", BASE64_BINARY),
                term("X509SubjectName", STRING),
                term("X509Certificate", BASE64_BINARY),
                term("X509CRL", BASE64_BINARY),
                any_element(other=True),
            ),
            max=UNBOUNDED,
        )
    )


class PGPData(ComplexType, ns=XMLDSIG, element=True):
    content: tuple[str | Node, ...] = content(
        choice(
            sequence(
                term("PGPKeyID", BASE64_BINARY),
                term("PGPKeyPacket", BASE64_BINARY, min=0),
                any_element(other=True, min=0, max=UNBOUNDED),
            ),
            sequence(
                term("PGPKeyPacket", BASE64_BINARY),
                any_element(other=True, min=0, max=UNBOUNDED),
            ),
        )
    )


class SPKIData(ComplexType, ns=XMLDSIG, element=True):
    content: tuple[str | Node, ...] = content(
        sequence(
            term("SPKISexp", BASE64_BINARY),
            any_element(other=True, min=0),
            max=UNBOUNDED,
        )
    )


class KeyInfo(ComplexType, ns=XMLDSIG, element=True, mixed=True):
    content: tuple[str | Node, ...] = content(
        choice(
            term(KEY_NAME),
            term(KeyValue),
            term(RetrievalMethod),
            term(X509Data),
            term(PGPData),
            term(SPKIData),
            term(MGMT_DATA),
            any_element(other=True),
            max=UNBOUNDED,
        )
    )
    Id: str | None = attribute(ID, default=None)


# The signature and what may lie in it -----------------------------------------------------------


class Object(ComplexType, ns=XMLDSIG, element=True, mixed=True):
    content: tuple[str | Node, ...] = content(
        sequence(any_element(other=False), min=0, max=UNBOUNDED), default=()
    )
    Id: str | None = attribute(ID, default=None)
    MimeType: str | None = attribute(STRING, default=None)
    Encoding: str | None = attribute(ANY_URI, default=None)


class Manifest(ComplexType, ns=XMLDSIG, element=True):
    Reference: tuple[Reference, ...] = elements(ref(Reference), max=UNBOUNDED)
    Id: str | None = attribute(ID, default=None)


class SignatureProperty(ComplexType, ns=XMLDSIG, element=True, mixed=True):
    content: tuple[str | Node, ...] = content(choice(any_element(other=True), max=UNBOUNDED))
    Target: str = attribute(ANY_URI)
    Id: str | None = attribute(ID, default=None)


class SignatureProperties(ComplexType, ns=XMLDSIG, element=True):
    SignatureProperty: tuple[SignatureProperty, ...] = elements(
        ref(SignatureProperty), max=UNBOUNDED
    )
    Id: str | None = attribute(ID, default=None)


class Signature(ComplexType, ns=XMLDSIG, element=True):
    SignedInfo: SignedInfo = element(ref(SignedInfo))
    SignatureValue: SignatureValue = element(ref(SignatureValue))
    KeyInfo: KeyInfo | None = element(ref(KeyInfo), default=None)
    Object: tuple[Object, ...] = elements(ref(Object), max=UNBOUNDED, default=())
    Id: str | None = attribute(ID, default=None)


SCHEMA = Schema("xmldsig", (XMLDSIG,))
