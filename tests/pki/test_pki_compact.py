"""Compact certificates: smaller, and still what the walker, openssl and pyca accept."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.chain import RevocationPolicy, judge
from pki.edition import ISO2
from pki.issuing import Authority, LeafTemplate, issue, new_serial, self_issue, validity_within
from pki.keys import SoftwareKey
from pki.names import readable
from pki.profiles import COMPACT, STYLES, Presence, Profile, Role, profile
from pki.trust import OPERATOR_ROOTS, SINGLE_ROOT, TrustModel

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NAMES = {Role.CONTRACT: "DESUNC12345678L", Role.OEM_PROVISIONING: "WNV0PNCLAB00000001"}
LEAVES = (Role.SECC, Role.CPS, Role.CONTRACT, Role.OEM_PROVISIONING)
OCSP = "http://192.0.2.7:7104/ocsp"


@dataclass
class Pki:
    """Authorities and leaves of a style, made as they are asked for."""

    style: str
    model: TrustModel
    authorities: dict[Role, Authority] = field(default_factory=dict)
    serials: int = 0

    def rules(self, role: Role) -> Profile:
        return profile(role, ISO2).deviating(*STYLES[self.style].get(role, ()))

    def serial(self, role: Role) -> int:
        self.serials += 1
        return new_serial(self.serials.to_bytes(self.rules(role).serial_octets, "little"))

    def authority(self, role: Role) -> Authority:
        if role not in self.authorities:
            key = SoftwareKey.generate(ISO2)
            self.authorities[role] = Authority(self.certificate(role, key), key)
        return self.authorities[role]

    def certificate(self, role: Role, key: SoftwareKey) -> x509.Certificate:
        rules, above = self.rules(role), self.model.issuer(role)
        issuer = None if above is None else self.authority(above)
        subject = rules.subject(NAMES.get(role, f"Operator {role}"), "Operator (pnclab test)", "DE")
        # As a caller does who knows of no style.
        wanted = profile(role, ISO2).subject(
            subject.common_name, subject.organization, subject.country
        )
        start, end = validity_within(rules, issuer, NOW)
        common = {"subject": wanted, "not_before": start, "not_after": end}
        if issuer is None:
            return self_issue(rules, signer=key, serial=self.serial(role), **common)
        return issue(
            rules,
            public_key=key.public_key,
            authority=issuer,
            serial=self.serial(role),
            ocsp_url=OCSP,
            **common,
        )

    def chain(self, role: Role) -> list[x509.Certificate]:
        """Leaf first, root last."""
        found = [self.certificate(role, SoftwareKey.generate(ISO2))]
        above = self.model.issuer(role)
        while above is not None:
            found.append(self.authority(above).certificate)
            above = self.model.issuer(above)
        return found


def size(chain: Sequence[x509.Certificate]) -> int:
    return sum(len(one.public_bytes(Encoding.DER)) for one in chain)


@pytest.mark.parametrize("model", [OPERATOR_ROOTS, SINGLE_ROOT], ids=str)
@pytest.mark.parametrize("role", LEAVES)
def test_the_walker_and_openssl_accept_them(model: TrustModel, role: Role, tmp_path: Path) -> None:
    leaf, sub2, sub1, root = Pki("compact", model).chain(role)
    verdict = judge(
        leaf,
        [sub2, sub1],
        [root],
        role=role,
        edition=ISO2,
        at=NOW + timedelta(days=1),
        revocation_policy=RevocationPolicy.IGNORE,
        trust=model,
    )
    assert verdict.accepted, verdict.reason
    for name, chain in (("root", [root]), ("subs", [sub2, sub1]), ("leaf", [leaf])):
        text = b"".join(one.public_bytes(Encoding.PEM) for one in chain)
        (tmp_path / f"{name}.pem").write_bytes(text)
    trusted = ("-CAfile", "root.pem", "-untrusted", "subs.pem")
    at = str(int((NOW + timedelta(days=1)).timestamp()))
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-attime", at, *trusted, "leaf.pem"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("role", LEAVES)
def test_they_are_smaller_and_fit(role: Role) -> None:
    usual = Pki("usual", OPERATOR_ROOTS).chain(role)[:-1]
    compact = Pki("compact", OPERATOR_ROOTS).chain(role)[:-1]
    assert size(compact) < size(usual) - 250
    # A certificate in OPCP has at most 800 characters of base64, which are 600 bytes.
    assert all(size([one]) <= 600 for one in compact)


def test_what_a_compact_one_leaves_out_and_keeps() -> None:
    leaf, sub2, _sub1, root = Pki("compact", OPERATOR_ROOTS).chain(Role.CONTRACT)
    assert readable(leaf.subject) == "CN=DESUNC12345678L, O=test"
    assert readable(sub2.subject) == "CN=Operator mo-sub2, O=test"
    kinds = [extension.oid._name for extension in leaf.extensions]
    assert kinds == [
        "basicConstraints",
        "keyUsage",
        "authorityKeyIdentifier",
        "authorityInfoAccess",
    ]
    # A CA keeps what RFC 5280 wants of it.
    for authority in (sub2, root):
        authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert leaf.serial_number.bit_length() == 71
    secc, *_ = Pki("compact", OPERATOR_ROOTS).chain(Role.SECC)
    assert readable(secc.subject) == "CN=Operator secc, O=Operator (pnclab test), DC=CPO"


def test_every_role_says_that_it_is_a_test_and_names_a_responder() -> None:
    assert set(COMPACT) == set(Role)
    for role in Role:
        rules = profile(role, ISO2).deviating(*COMPACT[role])
        written = rules.written(rules.subject("name", "Operator (pnclab test)", "DE"))
        assert "test" in (written.organization or "")
        assert rules.pointers.crl is not Presence.EXPECTED
        assert rules.pointers.ocsp is profile(role, ISO2).pointers.ocsp or role in LEAVES
        assert rules.serial_octets * 8 - 2 >= 64
        assert rules.subject_key_identifier or not role.is_ca
        assert rules.key_usage == profile(role, ISO2).key_usage
        assert rules.basic_constraints == profile(role, ISO2).basic_constraints


def test_the_template_writes_the_same_bytes() -> None:
    pki = Pki("compact", OPERATOR_ROOTS)
    authority, rules = pki.authority(Role.MO_SUB2), pki.rules(Role.CONTRACT)
    fast = LeafTemplate(rules, authority, "Operator (pnclab test)", "DE", ocsp_url=OCSP)
    start, end = validity_within(rules, authority, NOW)
    for number in range(3):
        key = SoftwareKey.generate(ISO2)
        common = {"public_key": key.public_key, "not_before": start, "not_after": end}
        made = fast.issue(NAMES[Role.CONTRACT], serial=2**70 + number, **common)
        wanted = issue(
            rules,
            subject=rules.subject(NAMES[Role.CONTRACT], "Operator (pnclab test)", "DE"),
            authority=authority,
            serial=2**70 + number,
            ocsp_url=OCSP,
            **common,
        )
        assert made.tbs_certificate_bytes == wanted.tbs_certificate_bytes
