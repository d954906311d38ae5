"""Reading certificates of others, and finding who signed whom among them.

Of each certificate everything that the rules need is read once, into a `ReadCertificate`; a
part that cannot be read is a problem that is noted, never an exception. `Walk` then goes from
a leaf upwards: an issuer is whoever's *key* made the signature. It tries several paths within
bounds, and counts and remembers the signatures that it verified.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from pki.algorithms import SIGNATURE_HASHES
from pki.keys import public_der
from pki.profiles import KeyUsage, Role
from pki.revocation import verifies

MOST_CANDIDATES = 12
"""Most certificates beside the leaf that are looked at; more are a finding."""
MOST_PATHS = 16
"""Most paths that are judged."""
MOST_DEPTH = 8
"""Longest path that is followed, so that one that is too long can be named as such."""

_T = TypeVar("_T")


@dataclass(eq=False)
class ReadCertificate:
    """What is needed of one certificate, read once.

    `problems` hold what could not be read: rule, field, seen.
    """

    certificate: x509.Certificate
    encoded: bytes
    subject: x509.Name | None = None
    issuer: x509.Name | None = None
    key: ec.EllipticCurvePublicKey | None = None
    spki: bytes = b""
    extensions: x509.Extensions | None = None
    problems: list[tuple[str, str, str]] = field(default_factory=list)

    def extension(
        self, kind: type[x509.ExtensionType]
    ) -> x509.Extension[x509.ExtensionType] | None:
        if self.extensions is None:
            return None
        try:
            return self.extensions.get_extension_for_class(kind)
        except x509.ExtensionNotFound:
            return None

    @property
    def basic_constraints(self) -> x509.BasicConstraints | None:
        found = self.extension(x509.BasicConstraints)
        return None if found is None else _as(x509.BasicConstraints, found.value)

    @property
    def key_usage(self) -> frozenset[KeyUsage] | None:
        found = self.extension(x509.KeyUsage)
        return None if found is None else _bits(_as(x509.KeyUsage, found.value))

    @property
    def purposes(self) -> tuple[x509.ObjectIdentifier, ...] | None:
        """What the extended key usage lists, None without the extension."""
        found = self.extension(x509.ExtendedKeyUsage)
        return None if found is None else tuple(_as(x509.ExtendedKeyUsage, found.value))

    @property
    def own_key_identifier(self) -> bytes | None:
        found = self.extension(x509.SubjectKeyIdentifier)
        return None if found is None else _as(x509.SubjectKeyIdentifier, found.value).digest

    @property
    def issuer_key_identifier(self) -> bytes | None:
        found = self.extension(x509.AuthorityKeyIdentifier)
        if found is None:
            return None
        return _as(x509.AuthorityKeyIdentifier, found.value).key_identifier

    @property
    def self_issued(self) -> bool:
        """Issuer and subject bear one name."""
        return self.subject is not None and self.subject == self.issuer

    @property
    def fingerprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def _as(kind: type[_T], value: object) -> _T:
    assert isinstance(value, kind)
    return value


def read_certificate(certificate: x509.Certificate) -> ReadCertificate:
    read = ReadCertificate(certificate, certificate.public_bytes(Encoding.DER))

    def attempt(rule: str, name: str, take: Callable[[], object]) -> object:
        try:
            return take()
        except Exception as error:  # each part of a forged certificate raises kinds of its own
            read.problems.append((rule, name, f"{type(error).__name__}: {str(error)[:120]}"))
            return None

    version = attempt("certificate.version", "version", lambda: certificate.version)
    if version is x509.Version.v1:
        read.problems.append(("certificate.version", "version", "1"))
    subject = attempt("certificate.unreadable", "subject", lambda: certificate.subject)
    issuer = attempt("certificate.unreadable", "issuer", lambda: certificate.issuer)
    extensions = attempt(
        "certificate.extension-malformed", "extensions", lambda: certificate.extensions
    )
    read.subject = subject if isinstance(subject, x509.Name) else None
    read.issuer = issuer if isinstance(issuer, x509.Name) else None
    read.extensions = extensions if isinstance(extensions, x509.Extensions) else None
    key = attempt("certificate.public-key", "subjectPublicKeyInfo", certificate.public_key)
    if isinstance(key, ec.EllipticCurvePublicKey):
        read.key = key
        read.spki = public_der(key)
        if read.spki not in certificate.tbs_certificate_bytes:
            read.problems.append(
                (
                    "certificate.public-key",
                    "subjectPublicKeyInfo",
                    "a key that is not encoded as named curve and uncompressed point",
                )
            )
    elif key is not None:
        read.problems.append(("certificate.public-key", "subjectPublicKeyInfo", type(key).__name__))
    return read


_BITS: Mapping[KeyUsage, str] = {
    KeyUsage.DIGITAL_SIGNATURE: "digital_signature",
    KeyUsage.NON_REPUDIATION: "content_commitment",
    KeyUsage.KEY_ENCIPHERMENT: "key_encipherment",
    KeyUsage.DATA_ENCIPHERMENT: "data_encipherment",
    KeyUsage.KEY_AGREEMENT: "key_agreement",
    KeyUsage.KEY_CERT_SIGN: "key_cert_sign",
    KeyUsage.CRL_SIGN: "crl_sign",
}


def _bits(extension: x509.KeyUsage) -> frozenset[KeyUsage]:
    bits = {bit for bit, name in _BITS.items() if getattr(extension, name)}
    if extension.key_agreement:  # the last two bits mean something only with this one
        bits |= {KeyUsage.ENCIPHER_ONLY} if extension.encipher_only else set()
        bits |= {KeyUsage.DECIPHER_ONLY} if extension.decipher_only else set()
    return frozenset(bits)


# ---------------------------------------------------------------------------- finding paths


@dataclass(frozen=True, eq=False)
class ReadAnchor:
    read: ReadCertificate
    role: Role | None


@dataclass(frozen=True, eq=False)
class FoundPath:
    """A chain, leaf first, and the anchor whose key signed its last; None: it led nowhere."""

    chain: tuple[ReadCertificate, ...]
    anchor: ReadAnchor | None

    @property
    def certificates(self) -> tuple[ReadCertificate, ...]:
        """The chain with its anchor, unless the anchor is the last of the chain itself."""
        if self.anchor is None or self.anchor.read.encoded == self.chain[-1].encoded:
            return self.chain
        return (*self.chain, self.anchor.read)


# SHA-1 is no algorithm of any edition. That a signature was made with it is a finding of its
# own, so such a signature is verified, to not call it wrong as well.
_CHECKABLE: Mapping[str, hashes.SHA1 | hashes.SHA256 | hashes.SHA384 | hashes.SHA512] = {
    **SIGNATURE_HASHES,
    "1.2.840.10045.4.1": hashes.SHA1(),  # noqa: S303
}


class Walk:
    """Finds paths among certificates; counts and remembers the signatures it verified."""

    def __init__(
        self, candidates: Sequence[ReadCertificate], anchors: Sequence[ReadAnchor]
    ) -> None:
        self.candidates = candidates
        self.anchors = anchors
        self.verifications = 0
        self._known: dict[tuple[int, bytes], bool] = {}

    def signed_by(self, certificate: ReadCertificate, issuer: ReadCertificate) -> bool:
        """Whether the issuer's key made the certificate's signature."""
        if issuer.key is None:
            return False
        question = (id(certificate), issuer.spki)
        if question not in self._known:
            self._known[question] = self._verify(certificate.certificate, issuer.key)
        return self._known[question]

    def _verify(self, certificate: x509.Certificate, key: ec.EllipticCurvePublicKey) -> bool:
        try:
            algorithm = _CHECKABLE.get(certificate.signature_algorithm_oid.dotted_string)
            signature, data = certificate.signature, certificate.tbs_certificate_bytes
        except Exception:  # a forged signature algorithm
            return False
        if algorithm is None:
            return False
        self.verifications += 1
        return verifies(key, signature, data, algorithm)

    def paths(self, leaf: ReadCertificate) -> list[FoundPath]:
        """Every path from the leaf: those that end at anchors, and the longest dead ends."""
        found: list[FoundPath] = []
        for path in self._from((leaf,)):
            found.append(path)
            if len(found) == MOST_PATHS:
                break
        return found

    def _from(self, chain: tuple[ReadCertificate, ...]) -> Iterator[FoundPath]:
        anchors, above = self._issuers(chain)
        yield from (FoundPath(chain, anchor) for anchor in anchors)
        for candidate in above:
            yield from self._from((*chain, candidate))
        if not anchors and not above:
            yield FoundPath(chain, None)

    def _issuers(
        self, chain: tuple[ReadCertificate, ...]
    ) -> tuple[list[ReadAnchor], list[ReadCertificate]]:
        """Anchors and candidates whose key signed the last of the chain.

        Who bears the issuer's name is asked first, and only if none of these signed the others
        are, since each question is a verification.
        """
        last = chain[-1]
        candidates = [c for c in self.candidates if c not in chain and not self._is_anchor(c)]
        if len(chain) == MOST_DEPTH or self.signed_itself(last):
            candidates = []
        for named in (True, False):
            anchors = [
                a
                for a in self.anchors
                if (a.read.subject == last.issuer) is named and self.signed_by(last, a.read)
            ]
            above = [
                c
                for c in candidates
                if (c.subject == last.issuer) is named and self.signed_by(last, c)
            ]
            if anchors or above:
                return anchors, above
        return [], []

    def _is_anchor(self, certificate: ReadCertificate) -> bool:
        """A root that came along adds nothing where its key is an anchor's."""
        return certificate.self_issued and any(
            certificate.spki == anchor.read.spki for anchor in self.anchors
        )

    def signed_itself(self, certificate: ReadCertificate) -> bool:
        return certificate.self_issued and self.signed_by(certificate, certificate)
