"""XML signatures over EXI fragments, as Plug & Charge makes them (ISO 15118-2 section 7.9.2.4).

Each signed element is coded as an EXI fragment of the message schema and hashed; the
hashes stand as References in SignedInfo, which is coded as a fragment of the stand-alone
xmldsig schema and signed. The signature value is r || s, not DER. Which algorithms an
edition uses is a row of :data:`SUITES`.

Verifying is strict on purpose: exactly the elements that the message must have signed,
each by one Reference, only the algorithms of the edition, none of the fields that
[V2G2-771] forbids.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from pki.edition import ISO2, Edition
from pki.keys import Signer, der_signature, raw_signature
from v2g import exi
from v2g.messages import xmldsig

CANONICAL_EXI = "http://www.w3.org/TR/canonical-exi/"


@dataclass(frozen=True)
class Suite:
    """The algorithms of one edition; lengths in bytes."""

    signature_method: str
    digest_method: str
    digest: hashes.HashAlgorithm
    signature_bytes: int


SUITES: Mapping[str, Suite] = {
    ISO2.short: Suite(
        signature_method="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256",
        digest_method="http://www.w3.org/2001/04/xmlenc#sha256",
        digest=hashes.SHA256(),
        signature_bytes=64,
    ),
}


class SignatureError(ValueError):
    """A signature that does not hold; ``code`` says which rule, for programs."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


# A signed element: its name in the schema and its value, which carries an Id.
Signed = tuple[str, Any]


def sign(
    schema: exi.Schema, elements: Sequence[Signed], signer: Signer, edition: Edition
) -> xmldsig.Signature:
    """The header's Signature over ``elements``, in their order.

    Raises SignatureError when an element has no Id.
    """
    suite = SUITES[edition.short]
    info = xmldsig.SignedInfo(
        CanonicalizationMethod=xmldsig.CanonicalizationMethod(Algorithm=CANONICAL_EXI),
        SignatureMethod=xmldsig.SignatureMethod(Algorithm=suite.signature_method),
        Reference=tuple(
            xmldsig.Reference(
                Transforms=xmldsig.Transforms(
                    Transform=(xmldsig.Transform(Algorithm=CANONICAL_EXI),)
                ),
                DigestMethod=xmldsig.DigestMethod(Algorithm=suite.digest_method),
                DigestValue=_digest(schema, name, value, suite),
                URI=f"#{_id_of(name, value)}",
            )
            for name, value in elements
        ),
    )
    signature = signer.sign(exi.encode_fragment(xmldsig.SCHEMA, "SignedInfo", info))
    return xmldsig.Signature(
        SignedInfo=info,
        SignatureValue=xmldsig.SignatureValue(value=raw_signature(signature, edition)),
    )


def verify(
    schema: exi.Schema,
    signature: xmldsig.Signature | None,
    elements: Sequence[Signed],
    public_key: ec.EllipticCurvePublicKey,
    edition: Edition,
) -> None:
    """Check that ``signature`` covers exactly ``elements`` and was made by ``public_key``.

    Raises SignatureError with the first rule that is broken.
    """
    suite = SUITES[edition.short]
    if signature is None:
        raise SignatureError("missing", "the message's header carries no Signature")
    _check_form(signature, suite)
    _check_references(schema, signature.SignedInfo, elements, suite)
    value = signature.SignatureValue.value
    if len(value) != suite.signature_bytes:
        raise SignatureError(
            "value-length",
            f"SignatureValue has {len(value)} bytes; r || s of {edition.title} has "
            f"{suite.signature_bytes}" + (", this looks like DER" if value[:1] == b"\x30" else ""),
        )
    try:
        public_key.verify(
            der_signature(value),
            exi.encode_fragment(xmldsig.SCHEMA, "SignedInfo", signature.SignedInfo),
            ec.ECDSA(suite.digest),
        )
    except (InvalidSignature, ValueError):
        raise SignatureError(
            "value", "SignatureValue was not made over this SignedInfo by the expected key"
        ) from None


def _check_form(signature: xmldsig.Signature, suite: Suite) -> None:
    info = signature.SignedInfo
    forbidden = {
        "KeyInfo": signature.KeyInfo,
        "Object": signature.Object,
        "Signature Id": signature.Id,
        "SignedInfo Id": info.Id,
        "SignatureValue Id": signature.SignatureValue.Id,
        "CanonicalizationMethod content": info.CanonicalizationMethod.content,
        "SignatureMethod content": info.SignatureMethod.content,
        **{
            f"Reference[{i}] {field}": found
            for i, reference in enumerate(info.Reference)
            for field, found in (("Type", reference.Type), ("Id", reference.Id))
        },
    }
    for field, found in forbidden.items():
        if found:
            raise SignatureError("forbidden-field", f"{field} must not be there [V2G2-771]")
    _must_be(
        "canonicalization", "CanonicalizationMethod", info.CanonicalizationMethod, CANONICAL_EXI
    )
    _must_be("algorithm", "SignatureMethod", info.SignatureMethod, suite.signature_method)


def _check_references(
    schema: exi.Schema, info: xmldsig.SignedInfo, elements: Sequence[Signed], suite: Suite
) -> None:
    wanted = {f"#{_id_of(name, value)}": (name, value) for name, value in elements}
    if len(wanted) != len(elements):
        raise SignatureError("duplicate-id", "two signed elements have the same Id")
    seen: set[str] = set()
    for number, reference in enumerate(info.Reference):
        where = f"Reference[{number}]"
        uri = reference.URI or ""
        if uri not in wanted:
            raise SignatureError(
                "reference",
                f"{where} points to {uri or 'nothing'}; wanted: {', '.join(wanted)}",
            )
        if uri in seen:
            raise SignatureError("reference", f"{where} points to {uri} a second time")
        seen.add(uri)
        transforms = reference.Transforms.Transform if reference.Transforms else ()
        if len(transforms) != 1 or transforms[0].content:
            raise SignatureError(
                "transform", f"{where} has {len(transforms)} Transforms; one plain one is wanted"
            )
        _must_be("transform", f"{where} Transform", transforms[0], CANONICAL_EXI)
        _must_be("algorithm", f"{where} DigestMethod", reference.DigestMethod, suite.digest_method)
        name, value = wanted[uri]
        if not hmac.compare_digest(reference.DigestValue, _digest(schema, name, value, suite)):
            raise SignatureError("digest", f"{where}: {name} is not what was signed")
    missing = [name for uri, (name, _value) in wanted.items() if uri not in seen]
    if missing:
        raise SignatureError("reference", f"not signed: {', '.join(missing)}")


def _must_be(code: str, what: str, method: Any, wanted: str) -> None:
    if method.Algorithm != wanted:
        raise SignatureError(code, f"{what} is {method.Algorithm}; wanted is {wanted}")


def _digest(schema: exi.Schema, name: str, value: Any, suite: Suite) -> bytes:
    digest = hashes.Hash(suite.digest)
    digest.update(exi.encode_fragment(schema, name, value))
    return digest.finalize()


def _id_of(name: str, value: Any) -> str:
    if not value.Id:
        raise SignatureError("no-id", f"{name} has no Id, so that nothing can refer to it")
    return str(value.Id)
