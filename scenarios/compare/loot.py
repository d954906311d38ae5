"""What somebody has who got hold of a party's keys, and the certificates made with it.

The keys are used where they are, through the party's keystore; nothing else of the party is
used. Certificates are no secret: all that are in use are known to everybody, and with them
which key is good for what.

Forged certificates are made here without any check: by whichever key there is, whether its
certificate may issue or not. They look as their profile says. Two things make them harder to
recognise: who forges writes the serial number of a good certificate of the same issuer, so that
the real responder, asked about it, says good; and what hangs below a root or a first sub-CA gets
forged sub-CAs of the right names in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID
from sqlalchemy import select

from pki.edition import Edition
from pki.issuing import key_usage, new_serial, sealed, to_be_signed
from pki.keys import Signer, SoftwareKey, public_der, subject_key_identifier
from pki.names import Subject
from pki.profiles import Role, profile
from pki.revocation import ocsp_url
from services.common.certificates import fingerprint, public_key
from services.common.entropy import Entropy
from services.common.keystore import CountedKey
from services.common.party import Party

# The sub-CAs between a root and a leaf of a role.
_BETWEEN: Mapping[Role, tuple[Role, Role]] = {
    Role.CONTRACT: (Role.MO_SUB1, Role.MO_SUB2),
    Role.CPS: (Role.CPS_SUB1, Role.CPS_SUB2),
    Role.SECC: (Role.CPO_SUB1, Role.CPO_SUB2),
    Role.OEM_PROVISIONING: (Role.OEM_SUB1, Role.OEM_SUB2),
}
_HOUR, _MONTH = timedelta(hours=1), timedelta(days=30)


@dataclass(frozen=True)
class Known:
    """The certificates that everybody may have seen."""

    certificates: tuple[x509.Certificate, ...]
    revoked: frozenset[str] = frozenset()
    """Fingerprints of those that were revoked."""

    def of_key(self, key: ec.EllipticCurvePublicKey) -> list[x509.Certificate]:
        wanted = public_der(key)
        return [one for one in self.certificates if public_der(public_key(one)) == wanted]

    def above(self, certificate: x509.Certificate) -> tuple[x509.Certificate, ...]:
        """The CAs above a certificate, lowest first, without the root."""
        found: list[x509.Certificate] = []
        while certificate.issuer != certificate.subject:
            issuer = next(
                (one for one in self.certificates if one.subject == certificate.issuer), None
            )
            if issuer is None or issuer.issuer == issuer.subject or issuer in found:
                break
            found.append(issuer)
            certificate = issuer
        return tuple(found)

    def issued_by(self, issuer: x509.Certificate) -> list[x509.Certificate]:
        """What a CA has issued, itself excluded."""
        return [one for one in self.certificates if one.issuer == issuer.subject and one != issuer]


@dataclass(frozen=True)
class Holding:
    """A key that somebody has, with one of its certificates and what stands above that."""

    reference: str
    certificate: x509.Certificate
    signer: Signer
    above: tuple[x509.Certificate, ...]

    @property
    def is_root(self) -> bool:
        return self.certificate.issuer == self.certificate.subject

    @property
    def tier(self) -> int:
        """How many forged sub-CAs have room below it."""
        if self.is_root:
            return 2
        try:
            rule = self.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
        except x509.ExtensionNotFound:
            return 0
        return min(rule.value.path_length or 0, 1) if rule.value.ca else 0


@dataclass(frozen=True)
class Forged:
    """A forged certificate with its key and the chain that is shown with it, leaf first; and the
    forged CAs' keys, with which their owner can answer for what they issued."""

    chain: tuple[x509.Certificate, ...]
    key: Signer
    issuers: tuple[tuple[x509.Certificate, Signer], ...]


@dataclass
class Forger:
    """Somebody with the keys of one party."""

    name: str
    holdings: tuple[Holding, ...]
    keys: tuple[CountedKey, ...]
    edition: Edition
    now: datetime
    known: Known
    entropy: Entropy

    def candidates(self, role: Role, name: str, organisation: str) -> Iterable[Forged]:
        """A new certificate of ``role`` for ``name`` by each key at hand."""
        for holding in self.holdings:
            yield self.below(holding, role, name, organisation)

    def own(self) -> Iterable[Forged]:
        """The certificates of the keys at hand as they are, roots excepted."""
        for holding in self.holdings:
            if not holding.is_root:
                yield Forged((holding.certificate, *holding.above), holding.signer, ())

    def self_made(
        self, role: Role, name: str, organisation: str, key: SoftwareKey
    ) -> x509.Certificate:
        """A certificate of ``role`` for which nobody but its own key vouches."""
        return self._certificate(role, name, organisation, key, None, key)

    def key(self) -> SoftwareKey:
        """A new key of the forger's own."""
        return self.entropy.key(f"forged/{self.name}", self.edition)

    def below(self, holding: Holding, role: Role, name: str, organisation: str) -> Forged:
        """A new certificate of ``role`` by a key at hand."""
        issuer, signer = holding.certificate, holding.signer
        issuers: list[tuple[x509.Certificate, Signer]] = [(issuer, signer)]
        chain = list(holding.above) if holding.is_root else [issuer, *holding.above]
        between = _BETWEEN.get(role, ())
        for sub in between[len(between) - holding.tier :]:
            key = self.key()
            title = f"{organisation} {sub.label}"[:64]
            made = self._certificate(sub, title, organisation, key, issuer, signer)
            issuer, signer = made, key
            issuers.append((made, key))
            chain.insert(0, made)
        key = self.key()
        leaf = self._certificate(role, name, organisation, key, issuer, signer)
        return Forged((leaf, *chain), key, tuple(issuers))

    def _certificate(
        self,
        role: Role,
        name: str,
        organisation: str,
        key: SoftwareKey,
        issuer: x509.Certificate | None,
        signer: Signer,
    ) -> x509.Certificate:
        rules = profile(role, self.edition)
        dc = rules.domain_component.value
        subject = Subject(name, organisation, "DE", (dc,) if dc else ()).name()
        constraints = rules.basic_constraints
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.subject if issuer else subject)
            .public_key(key.public_key)
            .add_extension(
                x509.BasicConstraints(constraints.ca, constraints.path_length), critical=True
            )
            .add_extension(key_usage(rules.key_usage.issued), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier(subject_key_identifier(key.public_key)), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier(subject_key_identifier(signer.public_key), None, None),
                critical=False,
            )
        )
        if purposes := rules.extended_key_usage.issued:
            builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        first, last = self.now - _HOUR, self.now + _MONTH
        twin = self._twin(issuer) if issuer else None
        if issuer is not None:
            first = max(first, issuer.not_valid_before_utc)
            last = min(last, issuer.not_valid_after_utc)
        if issuer is not None and (url := ocsp_url(twin or issuer)):
            access = x509.AccessDescription(
                AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(url)
            )
            builder = builder.add_extension(
                x509.AuthorityInformationAccess([access]), critical=False
            )
        if rules.ocsp_no_check:
            builder = builder.add_extension(x509.OCSPNoCheck(), critical=False)
        serial = twin.serial_number if twin else new_serial(self.entropy("forged/serial", 20))
        builder = builder.serial_number(serial).not_valid_before(first).not_valid_after(last)
        tbs = to_be_signed(builder, signer.algorithm)
        return x509.load_der_x509_certificate(sealed(tbs, signer))

    def _twin(self, issuer: x509.Certificate) -> x509.Certificate | None:
        """A certificate that the issuer's responder knows as good, if there is any."""
        return next(
            (
                one
                for one in self.known.issued_by(issuer)
                if fingerprint(one) not in self.known.revoked
                and one.not_valid_before_utc <= self.now <= one.not_valid_after_utc
                and ocsp_url(one)
            ),
            None,
        )


async def keys_of(party: Party, wanted: Callable[[str], bool] = bool) -> tuple[CountedKey, ...]:
    """The keys in a party's keystore whose references are ``wanted``, in the order of these."""
    column = party.tables.key_row.reference
    references = await party.database.read(
        lambda session: list(session.scalars(select(column).order_by(column)))
    )
    return tuple([await party.keys.get(one) for one in references if wanted(one)])


def holdings(keys: Sequence[CountedKey], known: Known) -> tuple[Holding, ...]:
    """Each key with each of its certificates."""
    return tuple(
        Holding(key.reference, one, key, known.above(one))
        for key in keys
        for one in sorted(known.of_key(key.public_key), key=fingerprint)
    )
