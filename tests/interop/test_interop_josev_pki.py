"""Our keys and chains at Josev, and Josev's at ours: key transport and certificate paths."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from josev import JosevError, JosevPeer

from pki.contract_key import EncryptedContractKey, decrypt_contract_key, encrypt_contract_key
from pki.edition import ISO2
from pki.issuing import Authority, issue, self_issue, validity_within
from pki.keys import SoftwareKey
from pki.profiles import Role, profile

NOW = datetime.now(UTC)

# role, common name, whose authority; a root has none
CERTIFICATES = (
    (Role.V2G_ROOT, "interop V2G root", None),
    (Role.CPS_SUB1, "interop CPS sub 1", Role.V2G_ROOT),
    (Role.CPS_SUB2, "interop CPS sub 2", Role.CPS_SUB1),
    (Role.CPS, "interop CPS", Role.CPS_SUB2),
    (Role.MO_ROOT, "interop MO root", None),
    (Role.MO_SUB1, "interop MO sub 1", Role.MO_ROOT),
    (Role.MO_SUB2, "interop MO sub 2", Role.MO_SUB1),
    (Role.CONTRACT, "DEPNC0TEST00015", Role.MO_SUB2),
    (Role.OEM_ROOT, "interop OEM root", None),
    (Role.OEM_SUB1, "interop OEM sub 1", Role.OEM_ROOT),
    (Role.OEM_SUB2, "interop OEM sub 2", Role.OEM_SUB1),
    (Role.OEM_PROVISIONING, "WPNTESTPCD0000001", Role.OEM_SUB2),
)


class Hierarchy:
    """One certificate and key per role, issued by our pki at an instant."""

    def __init__(self, now: datetime) -> None:
        self.authority: dict[Role, Authority] = {}
        self.key: dict[Role, SoftwareKey] = {}
        for serial, (role, name, issuer) in enumerate(CERTIFICATES, 1000):
            rules = profile(role, ISO2)
            key = SoftwareKey.generate(ISO2)
            authority = self.authority[issuer] if issuer else None
            not_before, not_after = validity_within(rules, authority, now)
            common = {
                "subject": rules.subject(name, "pnclab test", "DE"),
                "not_before": not_before,
                "not_after": not_after,
                "serial": serial,
            }
            if authority is None:
                certificate = self_issue(rules, signer=key, **common)
            else:
                certificate = issue(rules, public_key=key.public_key, authority=authority, **common)
            self.key[role] = key
            self.authority[role] = Authority(certificate, key)

    def der(self, role: Role) -> bytes:
        return self.authority[role].certificate.public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def ours() -> Hierarchy:
    return Hierarchy(NOW - timedelta(days=1))


CHAINS = {
    "CPS": (Role.CPS, Role.CPS_SUB2, Role.CPS_SUB1, Role.V2G_ROOT),
    "contract": (Role.CONTRACT, Role.MO_SUB2, Role.MO_SUB1, Role.MO_ROOT),
    "provisioning": (Role.OEM_PROVISIONING, Role.OEM_SUB2, Role.OEM_SUB1, Role.OEM_ROOT),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_our_chains_are_accepted(josev: JosevPeer, ours: Hierarchy, chain: str) -> None:
    leaf, sub2, sub1, root = (ours.der(role) for role in CHAINS[chain])
    assert josev.verify_chain(leaf, [sub2, sub1], root) == {"verified": True, "reason": None}
    # the same question with another root is answered otherwise
    other = ours.der(Role.OEM_ROOT if chain != "provisioning" else Role.MO_ROOT)
    refused = josev.verify_chain(leaf, [sub2, sub1], other)
    assert not refused["verified"]
    assert refused["reason"].startswith("CertSignatureError")


def test_expired_chain_of_ours_is_refused(josev: JosevPeer) -> None:
    """Validity is asked at its own clock: three years ago, our CPS leaf (90 days) was valid."""
    old = Hierarchy(NOW - timedelta(days=3 * 365))
    leaf, sub2, sub1, root = (old.der(role) for role in CHAINS["CPS"])
    refused = josev.verify_chain(leaf, [sub2, sub1], root)
    assert not refused["verified"]
    assert "CertExpiredError" in refused["reason"]


def contract_keys() -> dict[str, SoftwareKey]:
    """Contract keys of every shape: any, and those whose scalar has leading zeros."""
    return {
        "fresh": SoftwareKey.generate(ISO2),
        "leading zero octet": SoftwareKey.from_scalar(2**247 + 12345, ISO2),
        "one": SoftwareKey.from_scalar(1, ISO2),
        "largest": SoftwareKey.from_scalar(ISO2.signature.order - 1, ISO2),
    }


@pytest.mark.parametrize("shape", contract_keys())
def test_key_that_we_encrypt_is_decrypted(josev: JosevPeer, ours: Hierarchy, shape: str) -> None:
    contract = contract_keys()[shape]
    oem = ours.key[Role.OEM_PROVISIONING]
    encrypted = encrypt_contract_key(
        contract,
        oem.public_key,
        ISO2,
        ephemeral=SoftwareKey.generate(ISO2),
        iv=os.urandom(16),
    )
    scalar = josev.decrypt_contract_key(encrypted.dh_public_key, encrypted.ciphertext, oem.pem())
    assert scalar == contract.scalar()
    # and another car's key opens nothing
    assert (
        josev.decrypt_contract_key(
            encrypted.dh_public_key, encrypted.ciphertext, ours.key[Role.CPS].pem()
        )
        != scalar
    )


@pytest.mark.parametrize("shape", contract_keys())
def test_key_that_it_encrypts_is_decrypted(josev: JosevPeer, ours: Hierarchy, shape: str) -> None:
    contract = contract_keys()[shape]
    oem = ours.key[Role.OEM_PROVISIONING]
    dh_public_key, ciphertext = josev.encrypt_contract_key(
        ours.der(Role.OEM_PROVISIONING), contract.pem()
    )
    key = decrypt_contract_key(
        EncryptedContractKey(ciphertext, dh_public_key),
        oem,
        ISO2,
        certificate_public_key=contract.public_key,
    )
    assert key.scalar() == contract.scalar()


def test_point_off_the_curve_is_refused_there_too(josev: JosevPeer, ours: Hierarchy) -> None:
    with pytest.raises(JosevError, match="ValueError"):
        josev.decrypt_contract_key(
            b"\x04" + bytes(63) + b"\x01", bytes(48), ours.key[Role.OEM_PROVISIONING].pem()
        )


def test_certificates_of_its_script_are_read(josev: JosevPeer, tmp_path: Path) -> None:
    """What create_certs.sh makes: P-256 throughout, and our keys read its encrypted key files."""
    josev.create_certificates(tmp_path, "12345")
    folder = tmp_path / "iso15118_2"
    certificates = {
        path.stem: x509.load_der_x509_certificate(path.read_bytes())
        for path in (folder / "certs").glob("*.der")
    }
    assert len(certificates) == 15
    for name, certificate in certificates.items():
        key = SoftwareKey.from_pem(
            (folder / "private_keys" / f"{name.removesuffix('Cert')}.key").read_bytes(), b"12345"
        )
        assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
        assert key.public_key == certificate.public_key()
