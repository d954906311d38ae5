"""``pnclab pki export``: what each stack gets, read back by openssl, pyca and keytool."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from scenarios.bringing import read_golden
from scenarios.exporting import Bench, Wanted, gather, note, write_messages
from scenarios.lab import Lab
from scenarios.layouts import LAYOUTS, Key, Password, Pem, Pkcs12, must_be_free, write
from services.common.problems import WrongUseError
from services.common.tls import ServerTls
from services.ecosystem import Ecosystem, load, to_document
from services.serve import running
from v2g.certificate_installation import read_request, read_response

PNCLAB = (sys.executable, "-I", "-c", "from scenarios.cli import main; main()")
LEAVES = ("secc", "contract", "oem-provisioning", "cps")
CHAINS = {
    "secc": ("cpo-sub2", "cpo-sub1", "v2g-root"),
    "cps": ("cps-sub2", "cps-sub1", "v2g-root"),
    "oem-provisioning": ("oem-sub2", "oem-sub1", "oem-root"),
    "contract": ("mo-sub2", "mo-sub1", "mo-root"),
}


@pytest.fixture(scope="module")
def ecosystem(tmp_path_factory: pytest.TempPathFactory) -> Ecosystem:
    return load(data=tmp_path_factory.mktemp("export")).on_free_ports()


@pytest.fixture(scope="module")
def bench(ecosystem: Ecosystem) -> Bench:
    async def work() -> Bench:
        async with running(ecosystem), Lab(ecosystem) as lab:
            return await gather(lab, Wanted(charger="charger-2", oem="terra-motors"))

    return asyncio.run(work())


def test_everything_a_bench_needs_is_there(bench: Bench) -> None:
    assert set(bench.keys) == set(LEAVES)
    for leaf, above in CHAINS.items():
        assert all(bench.has(name) for name in (leaf, *above))
        assert bench.keys[leaf].public_key() == bench.certificates[leaf].public_key()
    assert bench.facts["EVSEID"] == "DE*PLG*E0002*1"
    assert bench.facts["PCID"].startswith("WTM")
    assert bench.facts["EMAID"].startswith("DESUN")


def test_the_messages_are_what_brought_the_contract(bench: Bench) -> None:
    request = read_request(bench.messages["CertificateInstallationReq.exi"])
    request.verify(bench.keys["oem-provisioning"].public_key())
    answer = read_response(bench.messages["CertificateInstallationRes.exi"])
    assert answer.data.emaid == bench.facts["EMAID"]


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_reads_back(bench: Bench, tmp_path: Path, name: str) -> None:
    layout = LAYOUTS[name]
    written = write(bench, layout, tmp_path, layout.password)
    secret = layout.password.encode() or None
    seen = set()
    for one in written:
        form, content = layout.files[one.path], (tmp_path / one.path).read_bytes()
        private = isinstance(form, Key | Password | Pkcs12)
        assert (tmp_path / one.path).stat().st_mode & 0o777 == (0o600 if private else 0o644)
        if isinstance(form, Pem):
            wanted = [bench.certificates[part] for part in form.what]
            assert x509.load_pem_x509_certificates(content) == wanted
        elif isinstance(form, Key):
            assert load_pem_private_key(content, secret) is not None
            seen.add(form.what[0])
            key = load_pem_private_key(content, secret)
            assert key.public_key() == bench.certificates[form.what[0]].public_key()
        elif isinstance(form, Pkcs12):
            box = pkcs12.load_pkcs12(content, secret)
            assert box.cert is not None
            assert box.cert.friendly_name == form.alias.encode()
            assert box.key is not None
            assert box.key.public_key() == box.cert.certificate.public_key()
            above = [one.certificate for one in box.additional_certs]
            assert above == [bench.certificates[part] for part in form.what[1:]]
            seen.add(form.what[0])
        elif isinstance(form, Password):
            assert content == f"{layout.password}\n".encode()
    assert seen == set(LEAVES)
    left_out = set(layout.files) - {one.path for one in written}
    # There is no TLS CA: the ecosystem is not reached over TLS.
    assert all("tls-ca" in layout.files[path].what for path in left_out), left_out


@pytest.mark.parametrize(
    ("layout", "root", "chain", "leaf", "key"),
    [
        (
            "everest",
            "ca/v2g/V2G_ROOT_CA.pem",
            "client/cso/CPO_CERT_CHAIN.pem",
            "client/cso/SECC_LEAF.pem",
            "client/cso/SECC_LEAF.key",
        ),
        (
            "everest",
            "ca/mo/MO_ROOT_CA.pem",
            "ca/mo/INTERMEDIATE_MO_CA_CERTS.pem",
            "client/mo/MO_LEAF.pem",
            "client/mo/MO_LEAF.key",
        ),
        (
            "josev",
            "iso15118_2/certs/oemRootCACert.pem",
            "iso15118_2/certs/oemCertChain.pem",
            "iso15118_2/certs/oemLeafCert.pem",
            "iso15118_2/private_keys/oemLeaf.key",
        ),
        ("pem", "v2g-root.pem", "cps-chain.pem", "cps.pem", "cps.key"),
    ],
)
def test_openssl_verifies_chains_and_opens_keys(
    bench: Bench, tmp_path: Path, layout: str, root: str, chain: str, leaf: str, key: str
) -> None:
    write(bench, LAYOUTS[layout], tmp_path, LAYOUTS[layout].password)
    done = _openssl(tmp_path, f"verify -x509_strict -CAfile {root} -untrusted {chain} {leaf}")
    assert done == f"{leaf}: OK\n"
    of_key = f"pkey -in {key} -passin pass:{LAYOUTS[layout].password} -pubout"
    assert _openssl(tmp_path, of_key) == _openssl(tmp_path, f"x509 -in {leaf} -pubkey -noout")


def test_java_reads_the_stores(bench: Bench, tmp_path: Path) -> None:
    keytool = shutil.which("keytool")
    if keytool is None:
        pytest.skip("there is no keytool")
    write(bench, LAYOUTS["risev2g"], tmp_path, "123456")
    opened = ("-storepass", "123456", "-keystore")
    for store, says in (
        ("RISE-V2G-EVCC/evccTruststore.jks", ["v2g_root_ca", "trustedCertEntry"]),
        ("RISE-V2G-EVCC/evccKeystore.jks", ["oem_prov_cert", "PrivateKeyEntry"]),
        ("RISE-V2G-SECC/seccTruststore.jks", ["mo_root_ca", "v2g_root_ca", "trustedCertEntry"]),
        ("RISE-V2G-SECC/seccKeystore.jks", ["secc_cert", "PrivateKeyEntry"]),
        ("RISE-V2G-SECC/moCertChain.p12", ["contract_cert", "PrivateKeyEntry"]),
        ("RISE-V2G-SECC/cpsCertChain.p12", ["cps_leaf_cert", "PrivateKeyEntry"]),
    ):
        kind = "JKS" if store.endswith("jks") else "PKCS12"
        done = subprocess.run(
            [keytool, "-list", "-storetype", kind, *opened, str(tmp_path / store)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        assert all(word in done.stdout for word in says), done.stdout


def test_without_a_part_its_files_are_left_out(bench: Bench, tmp_path: Path) -> None:
    less = Bench(
        {name: one for name, one in bench.certificates.items() if not name.startswith("contract")},
        {"secc": bench.keys["secc"]},
    )
    paths = {one.path for one in write(less, LAYOUTS["everest"], tmp_path, "123456")}
    assert "client/cso/SECC_LEAF.key" in paths
    assert "client/mo/MO_LEAF.pem" not in paths
    # A certificate without its key is good for verifying only.
    assert "client/oem/OEM_LEAF.pem" in paths
    assert "client/oem/OEM_LEAF.key" not in paths
    assert "client/oem/EVCC_KEYSTORE.jks" not in paths


def test_the_note_says_what_and_why(bench: Bench, ecosystem: Ecosystem, tmp_path: Path) -> None:
    layout = LAYOUTS["josev"]
    written = [*write(bench, layout, tmp_path, "12345"), *write_messages(bench, tmp_path)]
    text = note(bench, ecosystem, layout, written, "12345")
    for said in ("PKI_PATH", "`12345`", bench.facts["PCID"], "That is loopback", "moSubCA2"):
        assert said in text
    assert all(f"| {one.path} |" in text for one in written)


def test_the_tls_ca_is_given_along(bench: Bench, ecosystem: Ecosystem, tmp_path: Path) -> None:
    """Also where the ecosystem was reached over TLS by options of its start only."""
    tls = ServerTls(ecosystem.with_reach({"listen": "127.0.0.2", "https": True}))
    told = Bench(dict(bench.certificates), dict(bench.keys))

    async def work() -> None:
        async with running(ecosystem), Lab(ecosystem) as lab:
            told.certificates = (await gather(lab, Wanted(("charger",)))).certificates

    asyncio.run(work())
    assert told.certificates["tls-ca"].subject == tls.certificate.issuer
    written = {one.path for one in write(told, LAYOUTS["everest"], tmp_path, "123456")}
    assert "ca/csms/CSMS_ROOT_CA.pem" in written


def test_what_is_there_is_not_overwritten(bench: Bench, tmp_path: Path) -> None:
    write(bench, LAYOUTS["pem"], tmp_path, "")
    with pytest.raises(WrongUseError, match="is there already; --force overwrites"):
        must_be_free(LAYOUTS["pem"], tmp_path)
    write(bench, LAYOUTS["pem"], tmp_path, "another")
    with pytest.raises(TypeError):
        load_pem_private_key((tmp_path / "secc.key").read_bytes(), None)
    (tmp_path / "file").write_text("")
    with pytest.raises(WrongUseError, match="Not a directory"):
        write(bench, LAYOUTS["everest"], tmp_path / "file", "123456")


def _openssl(folder: Path, arguments: str) -> str:
    done = subprocess.run(
        ["openssl", *arguments.split()], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def pnclab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PNCLAB, "pki", "export", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_the_command(tmp_path: Path, bench: Bench, ecosystem: Ecosystem) -> None:
    """Of an ecosystem that does not run, on other ports than it had: its responders are found."""
    (tmp_path / "ecosystem.toml").write_text(
        to_document(load(data=ecosystem.data).on_free_ports()), encoding="utf-8"
    )
    done = pnclab(tmp_path, "out", "--layout", "everest", "--contract", "gridpass", "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["EMAID"].startswith("NLGRD")
    assert {one["path"] for one in said["files"]} >= {"client/mo/MO_LEAF.key"}
    # Gridpass hangs under the V2G root.
    roots = [(tmp_path / "out/ca" / name).read_bytes() for name in _ROOTS]
    assert roots[0] == roots[1]
    assert said["PCID"] in (tmp_path / "out/README.md").read_text()
    again = pnclab(tmp_path, "out", "--layout", "everest")
    assert again.returncode == 2
    assert "--force" in again.stderr


_ROOTS = ("v2g/V2G_ROOT_CA.pem", "mo/MO_ROOT_CA.pem")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("out", "--layout", "jks"), "--layout: 'jks' is none of everest, josev"),
        (("out", "--only", "charger,driver"), "--only: 'driver' is none of charger, car"),
        (("out", "--layout", "pkcs12", "--password", ""), "--password: this layout"),
        ((), "Missing argument 'DIR'"),
    ],
)
def test_wrong_use(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    done = pnclab(tmp_path, *arguments)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


# ----------------------------------------------------------------- a request of one's own


def request(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [*PNCLAB, "exi", "installation-request", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=60, check=False)


@pytest.mark.parametrize("form", ["hex", "base64", "exi", "v2gtp"])
def test_a_request_of_ones_own(bench: Bench, tmp_path: Path, form: str) -> None:
    write(bench, LAYOUTS["pem"], tmp_path, "secret")
    own = ("--certificate", "oem-provisioning.pem", "--key", "oem-provisioning.key")
    roots = ("--root", "v2g-root.pem", "--root", "mo-root.pem")
    more = ("--password", "secret", "--session", "0102", "--form", form)
    done = request(tmp_path, *own, *roots, *more)
    assert done.returncode == 0, done.stderr
    (tmp_path / "request").write_bytes(done.stdout)
    # `pnclab bring request` reads each of the forms.
    raw, found = read_golden(tmp_path / "request")
    found.verify(bench.keys["oem-provisioning"].public_key())
    assert found.session_id == b"\x01\x02"
    assert found.roots[0].serial == bench.certificates["v2g-root"].serial_number
    assert len(found.roots) == 2
    if form == "exi":
        assert raw == done.stdout


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"--key": "secc.key"}, "the private key of CN=WTM"),
        ({"--key": "nowhere.key"}, "nowhere.key: No such file"),
        ({"--password": "wrong"}, "does not open with the password"),
        ({"--session": "x"}, "--session: 'x' is not hexadecimal"),
        ({"--session": "00" * 9}, "the SessionID has 9 bytes"),
        ({"--root": None}, "--root: a car lists 1 to 20 V2G roots, there are 0"),
        ({"--form": "xml"}, "--form: 'xml' is none of hex, base64"),
        ({"--certificate": "oem-provisioning.key"}, "no certificate is in it"),
    ],
)
def test_a_request_that_cannot_be_made(
    bench: Bench, tmp_path: Path, changed: dict[str, str | None], says: str
) -> None:
    write(bench, LAYOUTS["pem"], tmp_path, "secret")
    options: dict[str, str | None] = {
        "--certificate": "oem-provisioning.pem",
        "--key": "oem-provisioning.key",
        "--password": "secret",
        "--root": "v2g-root.pem",
    }
    given = [
        part
        for name, value in (options | changed).items()
        if value is not None
        for part in (name, value)
    ]
    done = request(tmp_path, *given)
    assert done.returncode == 2, done.stdout
    assert says in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()
