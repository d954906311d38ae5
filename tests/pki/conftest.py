"""A small world of certificates for the tests of `pki`, made from a seed.

`world` holds the CAs of a trust model and issues leaves; `world.spoiled(...)` gives a
certificate in which exactly one thing is changed, signed by whoever should sign it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from pki.algorithms import SignatureAlgorithm
from pki.edition import ISO2
from pki.issuing import Authority, issue, sealed, self_issue, to_be_signed, validity_within
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.profiles import Role, profile
from pki.trust import OPERATOR_ROOTS, TrustModel, hierarchy

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
ORGANIZATION = "pnclab test"
OCSP_URL = "http://127.0.0.1:8080/ocsp"
NAMES = {
    Role.CONTRACT: "DEABCC123456788",
    Role.OEM_PROVISIONING: "WPNC1234567890123",
    Role.SECC: "DEPNCE0001",
}


@dataclass
class World:
    """The CAs of a trust model, and what they issue at NOW."""

    model: TrustModel
    now: datetime = NOW
    authorities: dict[Role, Authority] = field(default_factory=dict)
    count: int = 0
    kept: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        for role in hierarchy(self.model, ISO2):
            self.authorities[role] = self.make_ca(role)

    def key(self, label: str, of: Any = ISO2) -> SoftwareKey:
        return SoftwareKey.derive(b"a seed of the tests", label, of)

    def serial(self) -> int:
        self.count += 1
        return 2**64 + self.count

    def make_ca(self, role: Role, *, label: str = "", name: str = "") -> Authority:
        key = self.key(label or role)
        rules = profile(role, ISO2)
        subject = rules.subject(name or f"{role} CA", ORGANIZATION, "DE")
        above = self.model.issuer(role)
        issuer = None if above is None else self.authorities[above]
        start, end = validity_within(rules, issuer, self.now)
        if issuer is None:
            certificate = self_issue(
                rules,
                subject=subject,
                signer=key,
                not_before=start,
                not_after=end,
                serial=self.serial(),
            )
        else:
            certificate = issue(
                rules,
                subject=subject,
                public_key=key.public_key,
                authority=issuer,
                not_before=start,
                not_after=end,
                serial=self.serial(),
                ocsp_url=OCSP_URL,
            )
        return Authority(certificate, key)

    def leaf(self, role: Role, *, name: str = "", by: Role | None = None) -> x509.Certificate:
        rules = profile(role, ISO2)
        issuer = self.authorities[by or self.issuer(role)]
        start, end = validity_within(rules, issuer, self.now)
        return issue(
            rules,
            subject=rules.subject(name or NAMES.get(role, f"{role} 1"), ORGANIZATION, "DE"),
            public_key=self.key(f"{role} leaf").public_key,
            authority=issuer,
            not_before=start,
            not_after=end,
            serial=self.serial(),
            ocsp_url=OCSP_URL if role is not Role.OCSP_SIGNER else None,
        )

    def issuer(self, role: Role) -> Role:
        issuer = self.model.issuer(role)
        assert issuer is not None
        return issuer

    def chain(self, role: Role) -> list[x509.Certificate]:
        """The sub-CAs above a role, nearest first."""
        found = []
        above = self.model.issuer(role)
        while above is not None and not above.is_root:
            found.append(self.authorities[above].certificate)
            above = self.model.issuer(above)
        return found

    def root(self, role: Role) -> x509.Certificate:
        return self.authorities[self.model.root_of(role)].certificate

    def spoiled(
        self,
        original: x509.Certificate,
        authority: Authority,
        *,
        subject: x509.Name | None = None,
        issuer: x509.Name | None = None,
        public_key: Any = None,
        not_before: datetime | None = None,
        not_after: datetime | None = None,
        serial: int | None = None,
        without: tuple[type[x509.ExtensionType], ...] = (),
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
        algorithm: SignatureAlgorithm | None = None,
        sign: Callable[[bytes], bytes] | None = None,
    ) -> x509.Certificate:
        """`original` again with the given things changed; extensions replace their kind."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject or original.subject)
            .issuer_name(issuer or original.issuer)
            .public_key(public_key or original.public_key())
            .serial_number(serial or original.serial_number)
            .not_valid_before(not_before or original.not_valid_before_utc)
            .not_valid_after(not_after or original.not_valid_after_utc)
        )
        replaced = {type(value): (value, critical) for value, critical in extensions}
        for extension in original.extensions:
            kind = type(extension.value)
            if kind in without:
                continue
            value, critical = replaced.pop(kind, (extension.value, extension.critical))
            builder = builder.add_extension(value, critical)
        for value, critical in replaced.values():
            builder = builder.add_extension(value, critical)
        signer = authority.signer
        tbs = to_be_signed(builder, algorithm or signer.algorithm)
        encoded = sealed(tbs, signer) if sign is None else sign(tbs)
        return x509.load_der_x509_certificate(encoded)

    def name(self, role: Role, cn: str = "", *, dc: tuple[str, ...] | None = None) -> x509.Name:
        wanted = profile(role, ISO2).domain_component.value
        return Subject(
            cn or NAMES.get(role, f"{role} 1"),
            ORGANIZATION,
            "DE",
            dc if dc is not None else (() if wanted is None else (wanted,)),
        ).name()


@pytest.fixture(scope="session")
def world() -> World:
    """Mobility operators with roots of their own."""
    return World(OPERATOR_ROOTS)


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    return World


@pytest.fixture(scope="session")
def after() -> Callable[[int], datetime]:
    """NOW and so many days."""
    return lambda days: NOW + timedelta(days=days)


@pytest.fixture(scope="session")
def josev_oem() -> Path:
    """The OEM hierarchy that a third-party stack made; skipped where it is not at hand."""
    import os

    folder = os.environ.get("PNCLAB_SHARED_VECTORS")
    root = Path(folder) if folder else Path(__file__).parents[3] / "shared" / "vectors"
    found = root / "josev-oem"
    if not found.is_dir():
        pytest.skip(f"the shared vectors are not here: {found}")
    return found
