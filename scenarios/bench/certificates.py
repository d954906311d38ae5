"""Certificates against the tools that people use: Josev's create_certs.sh, and `openssl ca`."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    pkcs12,
)

from pki.edition import ISO2
from pki.issuing import (
    Authority,
    LeafTemplate,
    certificate_request,
    issue,
    new_serial,
    self_issue,
    validity_within,
)
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.profiles import Role, profile
from scenarios.bench.measure import Bench, Measurement, NotAvailableError, median_seconds

PASSWORD = "12345"  # what create_certs.sh takes when told nothing  # noqa: S105

# What create_certs.sh makes: file name, role, common name, issuer's file name. Issuers come first.
HIERARCHY = (
    ("v2gRootCA", Role.V2G_ROOT, "pnclab bench V2G root", None),
    ("cpoSubCA1", Role.CPO_SUB1, "pnclab bench CPO sub 1", "v2gRootCA"),
    ("cpoSubCA2", Role.CPO_SUB2, "pnclab bench CPO sub 2", "cpoSubCA1"),
    ("seccLeaf", Role.SECC, "DEPNCS0000001", "cpoSubCA2"),
    ("oemRootCA", Role.OEM_ROOT, "pnclab bench OEM root", None),
    ("oemSubCA1", Role.OEM_SUB1, "pnclab bench OEM sub 1", "oemRootCA"),
    ("oemSubCA2", Role.OEM_SUB2, "pnclab bench OEM sub 2", "oemSubCA1"),
    ("oemLeaf", Role.OEM_PROVISIONING, "WPNTESTBENCH00001", "oemSubCA2"),
    ("moRootCA", Role.MO_ROOT, "pnclab bench MO root", None),
    ("moSubCA1", Role.MO_SUB1, "pnclab bench MO sub 1", "moRootCA"),
    ("moSubCA2", Role.MO_SUB2, "pnclab bench MO sub 2", "moSubCA1"),
    ("contractLeaf", Role.CONTRACT, "DEPNC0TEST00015", "moSubCA2"),
    ("cpsSubCA1", Role.CPS_SUB1, "pnclab bench CPS sub 1", "v2gRootCA"),
    ("cpsSubCA2", Role.CPS_SUB2, "pnclab bench CPS sub 2", "cpsSubCA1"),
    ("cpsLeaf", Role.CPS, "pnclab bench CPS", "cpsSubCA2"),
)
# The chains that the script writes into one file each: the leaf's sub-CAs or all three.
CHAINS = {
    "cpoCertChain.pem": ("seccLeaf", "cpoSubCA2", "cpoSubCA1"),
    "oemCertChain.pem": ("oemLeaf", "oemSubCA2", "oemSubCA1"),
    "intermediateMOCACerts.pem": ("moSubCA2", "moSubCA1"),
    "intermediateCPSCACerts.pem": ("cpsSubCA2", "cpsSubCA1"),
}
BUNDLES = {
    "moCertChain.p12": ("contract_leaf_cert", "contractLeaf", "moSubCA2", "moSubCA1"),
    "cpsCertChain.p12": ("cps_leaf_cert", "cpsLeaf", "cpsSubCA2", "cpsSubCA1"),
}
PASSWORD_FILES = ("seccLeaf", "oemLeaf", "contractLeaf", "cpsLeaf", "moSubCA2Leaf")


def _made(now: datetime) -> tuple[dict[str, ec.EllipticCurvePrivateKey], dict[str, Authority]]:
    keys: dict[str, ec.EllipticCurvePrivateKey] = {}
    made: dict[str, Authority] = {}
    for name, role, common_name, issuer in HIERARCHY:
        keys[name] = ISO2.signature.generate()
        signer = SoftwareKey(keys[name])
        rules = profile(role, ISO2)
        subject = rules.subject(common_name, "pnclab test", "DE")
        serial = new_serial(os.urandom(16))
        authority = made[issuer] if issuer else None
        begin, end = validity_within(rules, authority, now)
        if authority is None:
            certificate = self_issue(
                rules,
                subject=subject,
                signer=signer,
                not_before=begin,
                not_after=end,
                serial=serial,
            )
        else:
            certificate = issue(
                rules,
                subject=subject,
                public_key=signer.public_key,
                authority=authority,
                not_before=begin,
                not_after=end,
                serial=serial,
                ocsp_url="http://ocsp.test.example/",
            )
        made[name] = Authority(certificate, signer)
    return keys, made


def _write(
    folder: Path,
    keys: Mapping[str, ec.EllipticCurvePrivateKey],
    made: Mapping[str, Authority],
) -> None:
    """The files that create_certs.sh leaves behind, by the same names and in the same formats."""
    certs, csrs, private = (folder / name for name in ("certs", "csrs", "private_keys"))
    for directory in (certs, csrs, private):
        directory.mkdir(parents=True)
    password = PASSWORD.encode()
    encryption = BestAvailableEncryption(password)
    pem = {
        name: authority.certificate.public_bytes(Encoding.PEM) for name, authority in made.items()
    }
    for name, authority in made.items():
        # The script names the request of a leaf as the certificate, that of a CA as the key.
        request_name = f"{name}Cert" if name.endswith("Leaf") else name
        request = certificate_request(Subject.of(authority.certificate.subject), authority.signer)
        (private / f"{name}.key").write_bytes(
            keys[name].private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, encryption)
        )
        (csrs / f"{request_name}.csr").write_bytes(request)
        (certs / f"{name}Cert.pem").write_bytes(pem[name])
        (certs / f"{name}Cert.der").write_bytes(authority.certificate.public_bytes(Encoding.DER))
    for file, members in CHAINS.items():
        (certs / file).write_bytes(b"".join(pem[member] for member in members))
    bundle_encryption = (
        PrivateFormat.PKCS12.encryption_builder()
        .kdf_rounds(2048)
        .key_cert_algorithm(pkcs12.PBES.PBESv2SHA256AndAES256CBC)
        .hmac_hash(hashes.SHA256())
        .build(password)
    )
    for file, (friendly_name, leaf, *subs) in BUNDLES.items():
        (certs / file).write_bytes(
            pkcs12.serialize_key_and_certificates(
                friendly_name.encode(),
                keys[leaf],
                made[leaf].certificate,
                [made[sub].certificate for sub in subs],
                bundle_encryption,
            )
        )
    (private / "moSubCA2.pkcs8.der").write_bytes(
        keys["moSubCA2"].private_bytes(Encoding.DER, PrivateFormat.PKCS8, encryption)
    )
    for name in PASSWORD_FILES:
        (private / f"{name}Password.txt").write_text(PASSWORD + "\n")


def hierarchy(bench: Bench) -> Iterator[Measurement]:
    """The -2 hierarchy, created and written"""
    now = datetime.now(UTC)
    root = bench.folder()

    def create() -> Path:
        folder = Path(root) / f"{time.perf_counter_ns()}"
        _write(folder, *_made(now))
        return folder

    ours = median_seconds(create, rounds=7, warm_up=2)
    josev = bench.josev()
    runs = [josev.create_certificates(bench.folder(), PASSWORD) for _ in range(3)]
    files = sorted(str(path.relative_to(root)) for path in create().rglob("*.*"))
    theirs = {file.removeprefix("iso15118_2/") for file in runs[0]["files"]}
    if missing := theirs - {file.partition("/")[2] for file in files}:
        raise AssertionError(f"create_certs.sh also writes {', '.join(sorted(missing))}")
    yield Measurement(
        "the -2 hierarchy, created and written",
        ours,
        sorted(run["seconds"] for run in runs)[1],
        "create_certs.sh",
        30,
        note=f"{len(HIERARCHY)} certificates, {len(theirs)} files, keys encrypted, 2 PKCS#12",
    )


# ------------------------------------------------------------------------- contract certificates

LEAVES = 1000
PEER_LEAVES = 60

OPENSSL_CONFIG = """
[ca]
default_ca = contract
[contract]
dir = .
new_certs_dir = ./certs
database = ./index.txt
serial = ./serial
certificate = ./ca.pem
private_key = ./ca.key
default_md = sha256
default_days = 730
policy = any
unique_subject = no
x509_extensions = leaf
[any]
commonName = supplied
organizationName = optional
countryName = optional
domainComponent = optional
[leaf]
basicConstraints = critical,CA:false
keyUsage = critical,digitalSignature,nonRepudiation,keyEncipherment,keyAgreement
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
authorityInfoAccess = OCSP;URI:http://ocsp.test.example/
[req]
distinguished_name = name
prompt = no
[name]
"""

OPENSSL_LOOP = """
set -e
i=0
while [ $i -lt {count} ]; do
    openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -config ca.cnf \
        -subj "/CN=DEPNC$(printf %09d $i)/O=pnclab test/C=DE/DC=MO" -keyout leaf.key -out leaf.csr
    openssl ca -batch -notext -config ca.cnf -in leaf.csr -out leaf.pem
    i=$((i + 1))
done
"""


def _openssl_seconds_per_leaf(folder: Path, authority: Authority, key_pem: str) -> float:
    """A shell loop of `openssl req` (key and request in one) and `openssl ca`, per leaf."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise NotAvailableError("there is no openssl command")
    (folder / "certs").mkdir()
    (folder / "index.txt").touch()
    (folder / "serial").write_text("1000\n")
    (folder / "ca.cnf").write_text(OPENSSL_CONFIG)
    (folder / "ca.pem").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    (folder / "ca.key").write_text(key_pem)

    def loop(count: int) -> float:
        begin = time.perf_counter()
        subprocess.run(  # noqa: S603
            ["sh", "-c", OPENSSL_LOOP.format(count=count)],  # noqa: S607
            cwd=folder,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return time.perf_counter() - begin

    loop(2)
    seconds = loop(PEER_LEAVES)
    if len(list((folder / "certs").iterdir())) != PEER_LEAVES + 2:
        raise AssertionError("openssl ca did not issue what it was asked for")
    return seconds / PEER_LEAVES


def contract_leaves(bench: Bench) -> Iterator[Measurement]:
    """1000 contract certificates"""
    now = datetime.now(UTC)
    keys, made = _made(now)
    authority = made["moSubCA2"]
    rules = profile(Role.CONTRACT, ISO2)
    begin, end = validity_within(rules, authority, now)
    template = LeafTemplate(
        rules, authority, "pnclab test", "DE", ocsp_url="http://ocsp.test.example/"
    )

    def issue_all() -> bytes:
        for number in range(LEAVES):
            leaf = template.issue_der(
                f"DEPNC{number:09d}",
                public_key=ISO2.signature.generate().public_key(),
                not_before=begin,
                not_after=end,
                serial=new_serial(os.urandom(16)),
            )
        return leaf

    last = x509.load_der_x509_certificate(issue_all())
    last.verify_directly_issued_by(authority.certificate)
    ours = median_seconds(issue_all, rounds=5, warm_up=1) / LEAVES
    tbs = last.tbs_certificate_bytes

    def bound() -> None:
        for _ in range(LEAVES):
            ec.generate_private_key(ec.SECP256R1())
            keys["moSubCA2"].sign(tbs, ec.ECDSA(hashes.SHA256()))

    least = median_seconds(bound, rounds=5, warm_up=1) / LEAVES
    yield Measurement(
        "a contract leaf, of the raw keygen and signature",
        ours,
        least,
        "the bound (pyca)",
        note=f"{LEAVES} leaves; we reach {least / ours:.0%} of the bound",
    )
    peer = _openssl_seconds_per_leaf(bench.folder(), authority, SoftwareKey(keys["moSubCA2"]).pem())
    yield Measurement(
        "a contract leaf, key and certificate",
        ours,
        peer,
        "openssl ca",
        40,
        note=f"per leaf, of {LEAVES} of ours and of {PEER_LEAVES} of the loop",
    )
