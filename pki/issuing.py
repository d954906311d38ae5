"""Issuing: from a request and a profile to a certificate, through a Signer.

The to-be-signed bytes come from pyca's builder, which can only sign with a key object of its
own: it signs with a throwaway key, its signature is dropped, and the real one is made by the
`Signer` over the same bytes. So a private key can live anywhere, and nothing of X.509 is
encoded by hand. `LeafTemplate` is the fast way for many leaves of one issuer: it keeps the
bytes of one such certificate and fills in what differs.

The profile decides everything but subject, key, validity and serial number. A request that
contradicts profile, issuer or edition is refused with an `IssuingError`; nothing is clipped or
corrected silently. `validity_within` computes what fits.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

from pki import der
from pki.algorithms import SignatureAlgorithm, public_point
from pki.identifiers import EMAID, EVCCID, EVSEID, PCID, SECCID, IdentifierError
from pki.keys import Signer, public_der, subject_key_identifier
from pki.names import Subject
from pki.profiles import Deviation, KeyUsage, Profile

LARGEST_SERIAL = 2**159 - 1
"""A serial number has up to 20 octets and is positive (RFC 5280, 4.1.2.2)."""

Identifier = EMAID | PCID | EVSEID | EVCCID | SECCID

IDENTIFIERS: dict[str, type[Identifier]] = {
    kind.kind: kind for kind in (EMAID, PCID, EVSEID, EVCCID, SECCID)
}


class IssuingError(ValueError):
    """A request that contradicts the profile: the field, the rule, what was seen and wanted."""

    def __init__(self, field: str, rule: str, seen: str, wanted: str) -> None:
        super().__init__(f"{field}: {seen}; wanted is {wanted} ({rule})")
        self.field = field
        self.rule = rule
        self.seen = seen
        self.wanted = wanted


@dataclass(frozen=True)
class Authority:
    """A certificate and the door to its key: whoever issues, revokes or answers."""

    certificate: x509.Certificate
    signer: Signer

    def __post_init__(self) -> None:
        key = self.certificate.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or public_der(key) != public_der(
            self.signer.public_key
        ):
            raise IssuingError(
                "authority",
                "RFC 5280, 4.1.2.7",
                f"the signer {self.signer.reference!r} holds another key",
                f"the key of {self.certificate.subject.rfc4514_string()}",
            )


def new_serial(entropy: bytes) -> int:
    """A serial number out of 8 to 20 bytes of entropy; positive, and exactly as many octets
    long as there are bytes, so that serial numbers of one source are of one length.
    """
    if not 8 <= len(entropy) <= 20:
        raise ValueError(f"8 to 20 bytes of entropy make a serial number, seen are {len(entropy)}")
    top = 8 * len(entropy) - 2
    return int.from_bytes(entropy, "big") & ((1 << top) - 1) | 1 << top


def validity_within(
    profile: Profile, authority: Authority | None, not_before: datetime
) -> tuple[datetime, datetime]:
    """The profile's default validity from `not_before` on, ending with the issuer's at latest.

    Whole seconds, as certificates hold them.
    """
    start = not_before.replace(microsecond=0)
    end = start + profile.validity.default
    if authority is not None:
        end = min(end, authority.certificate.not_valid_after_utc)
    return start, end


def self_issue(
    profile: Profile,
    *,
    subject: Subject,
    signer: Signer,
    not_before: datetime,
    not_after: datetime,
    serial: int,
    deviations: Sequence[Deviation] = (),
) -> x509.Certificate:
    """A root: issuer and subject are one, signed with its own key."""
    profile = profile.deviating(*deviations)
    if not profile.role.is_root:
        raise IssuingError(
            "role", "[V2G2-867]", f"{profile.role} signs itself", "a role that is a root"
        )
    subject = profile.written(subject)
    _check(profile, subject, signer.public_key, not_before, not_after, serial)
    builder = _builder(
        profile, _name(subject), _name(subject), signer.public_key, not_before, not_after, serial
    )
    certificate = _signed(builder, signer)
    _check_size(profile, certificate)
    return certificate


def issue(
    profile: Profile,
    *,
    subject: Subject,
    public_key: ec.EllipticCurvePublicKey,
    authority: Authority,
    not_before: datetime,
    not_after: datetime,
    serial: int,
    ocsp_url: str | None = None,
    crl_url: str | None = None,
    ca_issuers_url: str | None = None,
    deviations: Sequence[Deviation] = (),
) -> x509.Certificate:
    """A sub-CA's or leaf's certificate by the profile, signed by `authority`."""
    profile = profile.deviating(*deviations)
    builder = _request(
        profile,
        subject=subject,
        public_key=public_key,
        authority=authority,
        not_before=not_before,
        not_after=not_after,
        serial=serial,
        ocsp_url=ocsp_url,
        crl_url=crl_url,
        ca_issuers_url=ca_issuers_url,
    )
    certificate = _signed(builder, authority.signer)
    _check_size(profile, certificate)
    return certificate


def _request(
    profile: Profile,
    *,
    subject: Subject,
    public_key: ec.EllipticCurvePublicKey,
    authority: Authority,
    not_before: datetime,
    not_after: datetime,
    serial: int,
    ocsp_url: str | None,
    crl_url: str | None,
    ca_issuers_url: str | None,
) -> x509.CertificateBuilder:
    if profile.role.is_root:
        raise IssuingError(
            "role", "[V2G2-867]", f"{profile.role} issued by another CA", "a root signs itself"
        )
    _check_issuer(profile, authority)
    subject = profile.written(subject)
    _check(profile, subject, public_key, not_before, not_after, serial)
    _check_within(authority, not_before, not_after)
    builder = _builder(
        profile,
        _name(subject),
        authority.certificate.subject,
        public_key,
        not_before,
        not_after,
        serial,
    ).add_extension(_authority_key_identifier(authority), critical=False)
    access = [
        x509.AccessDescription(method, x509.UniformResourceIdentifier(url))
        for method, url in (
            (AuthorityInformationAccessOID.OCSP, ocsp_url),
            (AuthorityInformationAccessOID.CA_ISSUERS, ca_issuers_url),
        )
        if url
    ]
    if access:
        builder = builder.add_extension(x509.AuthorityInformationAccess(access), critical=False)
    if crl_url:
        location = x509.UniformResourceIdentifier(crl_url)
        point = x509.DistributionPoint([location], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    return builder


# --------------------------------------------------------------------- what a request may be


def _check(
    profile: Profile,
    subject: Subject,
    public_key: ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
    serial: int,
) -> None:
    _check_key(profile, public_key)
    _check_serial(serial)
    _check_validity(profile, not_before, not_after)
    if not subject.common_name:
        raise IssuingError("subject.CN", profile.row("subject.CN").source, "none", "a common name")
    _check_identifier(profile, subject.common_name)
    _check_domain_component(profile, subject)


def _name(subject: Subject) -> x509.Name:
    try:
        return subject.name()
    except ValueError as error:
        raise IssuingError(
            "subject", "RFC 5280, appendix A.1", str(error), "names of that length"
        ) from None


def _check_key(profile: Profile, public_key: object) -> None:
    algorithm = profile.edition.signature
    if not algorithm.fits(public_key):
        seen = getattr(getattr(public_key, "curve", None), "name", type(public_key).__name__)
        raise IssuingError(
            "subjectPublicKeyInfo",
            profile.edition.title,
            f"a key of {seen}",
            f"a key of {algorithm.curve.name}",
        )


def _check_validity(profile: Profile, not_before: datetime, not_after: datetime) -> None:
    if der.utc(not_before) >= der.utc(not_after):
        raise IssuingError(
            "validity",
            "RFC 5280, 4.1.2.5",
            f"notBefore {not_before.isoformat()}, notAfter {not_after.isoformat()}",
            "a validity that begins before it ends",
        )
    longest = profile.validity.maximum
    if longest is not None and not_after - not_before > longest:
        raise IssuingError(
            "validity",
            profile.row("validity").source,
            f"{(not_after - not_before).days} days",
            f"at most {longest.days} days for {profile.role}",
        )


def _check_serial(serial: int) -> None:
    if not 1 <= serial <= LARGEST_SERIAL:
        raise IssuingError(
            "serialNumber", "RFC 5280, 4.1.2.2", str(serial), "a number from 1 to 2^159 - 1"
        )


def _check_identifier(profile: Profile, name: str) -> None:
    """The CN must be what the profile says, in the form that it parses leniently to: whether
    check digits must be right is the policy of who takes the request.
    """
    kind = profile.identifier.kind
    if kind is None:
        return
    try:
        IDENTIFIERS[kind].parse(name, strict=False)
    except IdentifierError as error:
        raise IssuingError("subject.CN", error.rule, error.reason, f"the {kind}") from None


def _check_domain_component(profile: Profile, subject: Subject) -> None:
    rule = profile.domain_component
    wanted = rule.value
    allowed = [() if wanted is None else (wanted,)]
    if not rule.required:
        allowed.append(())
    if subject.domain_components not in allowed:
        raise IssuingError(
            "subject.DC",
            profile.row("subject.DC").source,
            ", ".join(subject.domain_components) or "none",
            wanted or "none",
        )


def _check_issuer(profile: Profile, authority: Authority) -> None:
    issuer = authority.certificate
    name = issuer.subject.rfc4514_string()
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        constraints = x509.BasicConstraints(ca=False, path_length=None)
    if not constraints.ca:
        raise IssuingError("issuer", "RFC 5280, 4.2.1.9", f"{name} is not a CA", "a CA")
    if profile.role.is_leaf and profile.role.family != "ocsp" and issuer.issuer == issuer.subject:
        raise IssuingError(
            "issuer", "[V2G2-867]", f"{name} is a root", "a sub-CA: no leaf by a root"
        )
    if profile.role.is_ca and constraints.path_length is not None:
        below = constraints.path_length - 1
        own = profile.basic_constraints.path_length
        if below < 0 or own is None or own > below:
            raise IssuingError(
                "basicConstraints.pathLenConstraint",
                "RFC 5280, 4.2.1.9",
                f"{own} below {name}, which has {constraints.path_length}",
                f"at most {below}" if below >= 0 else "no CA below it",
            )


def _check_within(authority: Authority, not_before: datetime, not_after: datetime) -> None:
    issuer = authority.certificate
    first, last = issuer.not_valid_before_utc, issuer.not_valid_after_utc
    if not_before < first or not_after > last:
        raise IssuingError(
            "validity",
            "RFC 5280, 6.1.3, shell model",
            f"{not_before.isoformat()} to {not_after.isoformat()}",
            f"within its issuer's, {first.isoformat()} to {last.isoformat()}",
        )


def _check_size(profile: Profile, certificate: x509.Certificate) -> None:
    size = len(certificate.public_bytes(Encoding.DER))
    limit = profile.edition.max_certificate_bytes
    if size > limit and not profile.role.is_root:
        raise IssuingError(
            "certificate", "[V2G2-010]", f"{size} bytes of DER", f"at most {limit} bytes"
        )


# ----------------------------------------------------------------------- assembling the bytes


def key_usage(bits: frozenset[KeyUsage]) -> x509.KeyUsage:
    """The key usage extension of these bits."""
    return x509.KeyUsage(
        digital_signature=KeyUsage.DIGITAL_SIGNATURE in bits,
        content_commitment=KeyUsage.NON_REPUDIATION in bits,
        key_encipherment=KeyUsage.KEY_ENCIPHERMENT in bits,
        data_encipherment=KeyUsage.DATA_ENCIPHERMENT in bits,
        key_agreement=KeyUsage.KEY_AGREEMENT in bits,
        key_cert_sign=KeyUsage.KEY_CERT_SIGN in bits,
        crl_sign=KeyUsage.CRL_SIGN in bits,
        encipher_only=KeyUsage.ENCIPHER_ONLY in bits,
        decipher_only=KeyUsage.DECIPHER_ONLY in bits,
    )


def _builder(
    profile: Profile,
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    not_before: datetime,
    not_after: datetime,
    serial: int,
) -> x509.CertificateBuilder:
    constraints = profile.basic_constraints
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial)
        .not_valid_before(der.utc(not_before))
        .not_valid_after(der.utc(not_after))
        .add_extension(
            x509.BasicConstraints(ca=constraints.ca, path_length=constraints.path_length),
            critical=True,
        )
        .add_extension(key_usage(profile.key_usage.issued), critical=True)
    )
    if profile.subject_key_identifier:
        identifier = x509.SubjectKeyIdentifier(subject_key_identifier(public_key))
        builder = builder.add_extension(identifier, critical=False)
    if purposes := profile.extended_key_usage.issued:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    if profile.ocsp_no_check:
        builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
    return builder


def _authority_key_identifier(authority: Authority) -> x509.AuthorityKeyIdentifier:
    """Whatever the issuer's certificate calls its key, else the key's hash."""
    try:
        named = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        identifier = subject_key_identifier(authority.signer.public_key)
    else:
        identifier = named.value.digest
    return x509.AuthorityKeyIdentifier(identifier, None, None)


def to_be_signed(builder: x509.CertificateBuilder, algorithm: SignatureAlgorithm) -> bytes:
    """The TBSCertificate, DER, that a builder describes under an algorithm."""
    return builder.sign(algorithm.generate(), algorithm.hash).tbs_certificate_bytes


def sealed(tbs: bytes, signer: Signer) -> bytes:
    """SEQUENCE { tbs, signatureAlgorithm, signature }: a certificate, CRL or request, DER."""
    return _assembled(tbs, signer.algorithm.identifier, signer.sign(tbs))


def _assembled(tbs: bytes, algorithm: bytes, signature: bytes) -> bytes:
    return der.sequence(tbs, algorithm, der.bit_string(signature))


def _signed(builder: x509.CertificateBuilder, signer: Signer) -> x509.Certificate:
    tbs = to_be_signed(builder, signer.algorithm)
    return x509.load_der_x509_certificate(sealed(tbs, signer))


# ---------------------------------------------------------------- many leaves of one issuer


@dataclass(frozen=True)
class _Cut:
    """The bytes of one to-be-signed certificate between those that differ per leaf."""

    before_serial: bytes
    before_validity: bytes
    before_name: bytes
    before_point: bytes
    before_ski: bytes
    rest: bytes


@dataclass
class LeafTemplate:
    """Issues many leaves of one profile by one authority that differ in common name, key,
    validity and serial number only.

    The first leaf of each length of name and number goes through `issue`'s builder and is cut
    into pieces; the others are put together from them. The to-be-signed bytes are the same as
    `issue` makes, and the same requests are refused.
    """

    profile: Profile
    authority: Authority
    organization: str | None = None
    country: str | None = None
    domain_components: tuple[str, ...] | None = None
    """None: what the profile wants."""
    ocsp_url: str | None = None
    crl_url: str | None = None
    ca_issuers_url: str | None = None
    _cuts: dict[tuple[int, int, int], _Cut] = field(default_factory=dict, init=False, repr=False)
    _validity: tuple[datetime, datetime, bytes] | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_issuer(self.profile, self.authority)
        self._algorithm = self.authority.signer.algorithm.identifier
        self._with_ski = self.profile.subject_key_identifier

    def issue(
        self,
        name: Identifier | str,
        *,
        public_key: ec.EllipticCurvePublicKey,
        not_before: datetime,
        not_after: datetime,
        serial: int,
    ) -> x509.Certificate:
        """One leaf; `name` is the common name, as text or as a value that was parsed."""
        return x509.load_der_x509_certificate(
            self.issue_der(
                name,
                public_key=public_key,
                not_before=not_before,
                not_after=not_after,
                serial=serial,
            )
        )

    def issue_der(
        self,
        name: Identifier | str,
        *,
        public_key: ec.EllipticCurvePublicKey,
        not_before: datetime,
        not_after: datetime,
        serial: int,
    ) -> bytes:
        """As `issue`, the certificate in DER."""
        tbs = self._tbs(name, public_key, not_before, not_after, serial)
        encoded = _assembled(tbs, self._algorithm, self.authority.signer.sign(tbs))
        if len(encoded) > self.profile.edition.max_certificate_bytes:
            _check_size(self.profile, x509.load_der_x509_certificate(encoded))
        return encoded

    def _tbs(
        self,
        name: Identifier | str,
        public_key: ec.EllipticCurvePublicKey,
        not_before: datetime,
        not_after: datetime,
        serial: int,
    ) -> bytes:
        _check_key(self.profile, public_key)
        _check_serial(serial)
        if isinstance(name, str):
            _check_identifier(self.profile, name)
        common_name = str(name)
        try:
            text = common_name.encode()
        except UnicodeEncodeError as error:
            raise IssuingError("subject.CN", "RFC 5280, 4.1.2.6", str(error), "text") from None
        validity = self._encoded_validity(not_before, not_after)
        number = der.integer(serial)
        lengths = (len(text), len(number), len(validity))
        cut = self._cuts.get(lengths)
        if cut is None:
            cut = self._cut(common_name, public_key, not_before, not_after, serial)
            self._cuts[lengths] = cut
        point = public_point(public_key)
        ski = hashlib.sha1(point, usedforsecurity=False).digest() if self._with_ski else b""
        return b"".join(
            (
                cut.before_serial,
                number,
                cut.before_validity,
                validity,
                cut.before_name,
                text,
                cut.before_point,
                point,
                cut.before_ski,
                ski,
                cut.rest,
            )
        )

    def _encoded_validity(self, not_before: datetime, not_after: datetime) -> bytes:
        """Leaves of one run mostly share their validity, so the last one is kept."""
        kept = self._validity
        if kept is not None and kept[0] == not_before and kept[1] == not_after:
            return kept[2]
        _check_validity(self.profile, not_before, not_after)
        _check_within(self.authority, not_before, not_after)
        encoded = der.sequence(der.time(not_before), der.time(not_after))
        self._validity = (not_before, not_after, encoded)
        return encoded

    def _cut(
        self,
        name: str,
        public_key: ec.EllipticCurvePublicKey,
        not_before: datetime,
        not_after: datetime,
        serial: int,
    ) -> _Cut:
        builder = _request(
            self.profile,
            subject=self._subject(name),
            public_key=public_key,
            authority=self.authority,
            not_before=not_before,
            not_after=not_after,
            serial=serial,
            ocsp_url=self.ocsp_url,
            crl_url=self.crl_url,
            ca_issuers_url=self.ca_issuers_url,
        )
        tbs = to_be_signed(builder, self.authority.signer.algorithm)
        inside = der.Reader(tbs).next(der.SEQUENCE).children()
        inside.next()  # version
        number = inside.next(der.INTEGER)
        inside.next()  # signature algorithm
        inside.next()  # issuer
        validity = inside.next(der.SEQUENCE)
        subject = inside.next(der.SEQUENCE)
        inside.next()  # public key
        # The subject begins with its common name; the key's point and its hash are too random
        # to be met elsewhere.
        at_name = tbs.index(name.encode(), subject.begin)
        point = public_point(public_key)
        at_point = tbs.index(point, subject.end)
        ski = subject_key_identifier(public_key) if self._with_ski else b""
        at_ski = tbs.index(ski, at_point + len(point))
        return _Cut(
            before_serial=tbs[: number.start],
            before_validity=tbs[number.end : validity.start],
            before_name=tbs[validity.end : at_name],
            before_point=tbs[at_name + len(name.encode()) : at_point],
            before_ski=tbs[at_point + len(point) : at_ski],
            rest=tbs[at_ski + len(ski) :],
        )

    def _subject(self, name: str) -> Subject:
        subject = self.profile.subject(name, self.organization, self.country)
        if self.domain_components is None:
            return subject
        return Subject(name, self.organization, self.country, self.domain_components)


# --------------------------------------------------------------------- certificate requests


@dataclass(frozen=True)
class CertificateRequest:
    """A PKCS#10 request whose signature was verified: the applicant holds the key."""

    subject: Subject
    name: x509.Name
    public_key: ec.EllipticCurvePublicKey
    encoded: bytes
    """DER."""


class CertificateRequestError(ValueError):
    """A PKCS#10 request that cannot be read, or whose signature is wrong."""


def certificate_request(subject: Subject, signer: Signer) -> bytes:
    """A PKCS#10 request for `subject` and the signer's key, DER (RFC 2986)."""
    throwaway = signer.algorithm.generate()
    template = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject.name())
        .sign(throwaway, signer.algorithm.hash)
    )
    # The builder writes the key that it signs with; on one curve all are equally long.
    tbs = template.tbs_certrequest_bytes.replace(
        public_der(throwaway.public_key()), public_der(signer.public_key)
    )
    return sealed(tbs, signer)


def read_certificate_request(encoded: bytes) -> CertificateRequest:
    """Reads DER or PEM; CertificateRequestError tells what is wrong."""
    try:
        if encoded.lstrip().startswith(b"-----BEGIN"):
            request = x509.load_pem_x509_csr(encoded)
        else:
            request = x509.load_der_x509_csr(encoded)
        key = request.public_key()
        valid, digest = request.is_signature_valid, request.signature_hash_algorithm
        name = request.subject
        subject = Subject.of(name)
    except Exception as error:  # pyca raises many kinds for bytes that are not a request
        raise CertificateRequestError(f"the request cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CertificateRequestError(f"a {type(key).__name__} is no key of an elliptic curve")
    if not valid and digest is not None and digest.name in ("md5", "sha1"):
        raise CertificateRequestError(
            f"its signature is over {digest.name}, which can be forged; wanted is sha256"
        )
    if not valid:
        raise CertificateRequestError("its signature was not made by the key that it carries")
    return CertificateRequest(subject, name, key, request.public_bytes(Encoding.DER))
