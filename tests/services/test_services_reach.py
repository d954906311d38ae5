"""An ecosystem that is reached from outside: addresses, public URLs, TLS, what stands where.

127.0.0.2 and others of 127/8 play the bench: they are this machine's without being set up.
"""

from __future__ import annotations

import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from services.common.addresses import remember, remembered
from services.common.keystore import SealingError
from services.common.problems import StartError
from services.common.reach import Reach, ReachError
from services.common.tls import LEAF_LIFE, ServerTls, TlsError, ca_file, ca_for_clients, names
from services.ecosystem import Ecosystem, EcosystemError, default_text, from_text, load, to_document
from services.serve import serve_with_workers

BENCH = "127.0.0.2"


def ecosystem(folder: Path, **reach: Any) -> Ecosystem:
    return load(data=folder).with_reach(reach).on_free_ports()


def client(made: Ecosystem, **more: Any) -> httpx.Client:
    """Trusts the ecosystem's TLS CA and nobody else."""
    context = ssl.create_default_context(cafile=str(ca_file(made)))
    if "cert" in more:
        context.load_cert_chain(*more.pop("cert"))
    return httpx.Client(verify=context, trust_env=False, timeout=20, **more)


def at(made: Ecosystem, name: str, host: str = BENCH) -> str:
    return f"{made.reach.scheme}://{host}:{made.party(name).address[1]}"


# ------------------------------------------------------------------ over TLS, on the bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("bench")
    with serve(ecosystem(folder, listen=BENCH, https=True)) as world:
        yield world


def test_every_party_answers_over_tls_and_on_loopback(bench: Any) -> None:
    with client(bench.ecosystem) as http:
        for name, party in bench.ecosystem.parties.items():
            assert party.seen_at == at(bench.ecosystem, name)
            assert http.get(f"{party.seen_at}/healthz").json()["status"] == "ready"
            assert bench.http.get(f"{party.url}/healthz").json()["status"] == "ready"
            assert "http:" not in http.get(f"{party.seen_at}/openapi.json").json()["servers"][0]


def test_curl_and_openssl_take_the_certificate(bench: Any) -> None:
    ca, url = ca_file(bench.ecosystem), bench.ecosystem.party("sunmile").seen_at
    done = subprocess.run(
        ["curl", "-sS", "--cacert", str(ca), f"{url}/healthz"], capture_output=True, text=True
    )
    assert '"ready"' in done.stdout, done.stderr
    place = url.removeprefix("https://")
    trusted = ["-CAfile", str(ca), "-verify_ip", BENCH, "-verify_return_error"]
    done = subprocess.run(
        ["openssl", "s_client", "-connect", place, "-brief", *trusted],
        capture_output=True,
        text=True,
        input="",
    )
    assert "Verification: OK" in done.stderr, done.stderr
    # Somebody else's CA does not vouch for it.
    done = subprocess.run(["curl", "-sS", f"{url}/healthz"], capture_output=True, text=True)
    assert done.returncode == 60, done.stderr


def test_no_plain_http_where_tls_is(bench: Any) -> None:
    port = bench.ecosystem.party("sunmile").address[1]
    with pytest.raises(httpx.HTTPError):
        bench.http.get(f"http://{BENCH}:{port}/healthz")


def test_certificates_name_the_public_url_and_it_answers(bench: Any, tmp_path: Path) -> None:
    answer = bench.ok("charger-1", "GET", "/status")
    leaf, sub2, *_ = (x509.load_der_x509_certificate(_unb64(one)) for one in answer["certificate"])
    access = leaf.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    url = access[0].access_location.value
    assert url == f"{bench.ecosystem.party('v2g-root').seen_at}/ocsp"
    for name, one in (("leaf", leaf), ("sub2", sub2)):
        (tmp_path / f"{name}.pem").write_bytes(one.public_bytes(Encoding.PEM))
    request, response = tmp_path / "request", tmp_path / "response"
    trusted = ["-CAfile", str(tmp_path / "sub2.pem"), "-partial_chain"]
    files = ["-issuer", str(tmp_path / "sub2.pem"), "-cert", str(tmp_path / "leaf.pem")]
    subprocess.run(
        ["openssl", "ocsp", *files, "-no_nonce", "-reqout", str(request)],
        check=True,
        capture_output=True,
    )
    with client(bench.ecosystem) as http:
        headers = {"Content-Type": "application/ocsp-request"}
        response.write_bytes(http.post(url, content=request.read_bytes(), headers=headers).content)
    done = subprocess.run(
        ["openssl", "ocsp", *files, "-no_nonce", "-respin", str(response), *trusted],
        capture_output=True,
        text=True,
    )
    assert "leaf.pem: good" in done.stdout, done.stderr


def test_the_parties_ask_each_other_all_the_same(bench: Any) -> None:
    """A visit asks OCSP about chains that name the public URL (policy: required)."""
    car = bench.car()
    bench.contract(car["pcid"])
    outcome = bench.charge(car["pcid"])
    assert outcome["outcome"] == "charged", outcome


def test_the_cable_is_where_the_call_came_from(bench: Any) -> None:
    port = bench.ecosystem.party("charger-1").cable_address[1]
    assert bench.ok("charger-1", "GET", "/status")["cable"] == f"127.0.0.1:{port}"
    token = {"Authorization": f"Bearer {bench.token('charger-1')}"}
    with client(bench.ecosystem) as http:
        url = bench.ecosystem.party("charger-1").seen_at
        assert http.get(f"{url}/status", headers=token).json()["cable"] == f"{BENCH}:{port}"
    for host in ("127.0.0.1", BENCH):
        socket.create_connection((host, port), timeout=5).close()


def test_the_tls_keys_lie_sealed(bench: Any) -> None:
    folder = bench.ecosystem.data / "tls"
    assert (folder / "ca.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    for name in ("ca.key", "ca.secret"):
        assert (folder / name).stat().st_mode & 0o077 == 0
    certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    assert "test" in certificate.subject.rfc4514_string()


def test_a_port_that_is_taken_there_is_said(bench: Any, tmp_path: Path, serve: Any) -> None:
    made = ecosystem(tmp_path, listen=BENCH)
    taken = f"http://127.0.0.9:{bench.ecosystem.party('sunmile').address[1]}"
    parties = {**made.parties, "root-pool": replace(made.party("root-pool"), url=taken)}
    with (
        pytest.raises(
            StartError, match=rf"root-pool cannot listen on {BENCH}:\d+: Address already"
        ),
        serve(replace(made, parties=parties), "root-pool"),
    ):
        pass


# ----------------------------------------------------------------------------- wildcards


@pytest.mark.parametrize(
    ("listen", "https", "hosts"),
    [
        ("0.0.0.0", False, ("127.0.0.7",)),
        ("0.0.0.0", True, ("127.0.0.7",)),
        ("::", True, ("127.0.0.7", "[::1]")),
        ("0.0.0.0, [::]", True, ("127.0.0.7", "[::1]")),
        ("::1,127.0.0.1", False, ("[::1]",)),
    ],
)
def test_beside_the_own_listener(
    tmp_path: Path, serve: Any, listen: str, https: bool, hosts: tuple[str, ...]
) -> None:
    made = ecosystem(tmp_path, listen=listen, https=https)
    with serve(made, "root-pool") as world:
        assert world.http.get(f"{world.url('root-pool')}/healthz").is_success
        with httpx.Client(verify=False, trust_env=False) as http:
            for host in hosts:
                assert http.get(f"{at(made, 'root-pool', host)}/healthz").is_success
        # And nobody else gets the port now.
        again = replace(made, data=tmp_path / "again").in_folder(tmp_path / "again")
        with (
            pytest.raises(StartError, match=r"root-pool cannot listen on 127\.0\.0\.1:\d+: Addr"),
            serve(again, "root-pool"),
        ):
            pass


def test_the_addresses_of_the_machine_stand_in_the_certificate(tmp_path: Path) -> None:
    made = ecosystem(tmp_path, listen="0.0.0.0", https=True, public_url="https://bench.example")
    found = names(made)
    assert {"bench.example", "localhost", "127.0.0.1", socket.gethostname()} <= set(found)


@pytest.mark.parametrize(
    ("address", "says"),
    [("192.0.2.123", "is no address of this machine"), ("2001:db8::5", "is no address of this")],
)
def test_an_address_of_somebody_else(tmp_path: Path, serve: Any, address: str, says: str) -> None:
    made = ecosystem(tmp_path, listen=address)
    with (
        pytest.raises(StartError, match=f"root-pool cannot listen on .*{says}"),
        serve(made, "root-pool"),
    ):
        pass


def test_tls_needs_another_address_than_the_parties(tmp_path: Path, serve: Any) -> None:
    made = ecosystem(tmp_path, listen="127.0.0.1", https=True)
    with pytest.raises(StartError, match="cannot speak TLS on 127"), serve(made, "root-pool"):
        pass


# ------------------------------------------------------------------- certificates of one's own


class Ca:
    """A CA of the user's, for servers and for clients."""

    def __init__(self, folder: Path, name: str = "users CA") -> None:
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = folder / f"{name}.pem".replace(" ", "-")
        certificate = self._signed(self.name, self.key.public_key(), ca=True)
        self.file.write_bytes(certificate.public_bytes(Encoding.PEM))

    def _signed(self, subject: x509.Name, key: Any, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        alternative = x509.SubjectAlternativeName([x509.IPAddress(_ip(BENCH))])
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(alternative, critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def issue(
        self, name: str, encryption: KeySerializationEncryption | None = None, key: Any = None
    ) -> tuple[Path, Path]:
        key = key or ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key.public_key(), ca=False)
        files = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
        )
        return files


def test_a_certificate_of_ones_own(tmp_path: Path, serve: Any) -> None:
    ca = Ca(tmp_path)
    for number, key in enumerate(
        (None, rsa.generate_private_key(public_exponent=65537, key_size=2048))
    ):
        certificate, key_file = ca.issue(f"server{number}", key=key)
        made = ecosystem(
            tmp_path / str(number), listen=BENCH, https_certificate=certificate, https_key=key_file
        )
        assert made.reach.https
        assert not ca_file(made).exists()
        context = ssl.create_default_context(cafile=str(ca.file))
        with (
            serve(made, "root-pool"),
            httpx.Client(verify=context, trust_env=False) as http,
        ):
            assert http.get(f"{at(made, 'root-pool')}/healthz").is_success


def test_only_of_our_own_certificates_a_ca_file_is_named(tmp_path: Path) -> None:
    certificate, key = Ca(tmp_path).issue("server")
    for reach, named in (
        ({"listen": BENCH, "https": True}, True),
        ({"listen": BENCH}, False),
        ({"listen": BENCH, "https_certificate": certificate, "https_key": key}, False),
        ({"public_url": "https://bench.example/{name}"}, False),
        ({"listen": BENCH, "https": True, "public_url": "http://bench.example/{name}"}, False),
    ):
        made = ecosystem(tmp_path / "data", **reach)
        found = ca_for_clients(made, made.party("platform").seen_at)
        assert found == (ca_file(made) if named else None), reach


def test_clients_show_certificates(tmp_path: Path, serve: Any) -> None:
    ca, other = Ca(tmp_path), Ca(tmp_path, "another CA")
    good, foreign = ca.issue("client"), other.issue("foreign")
    for wanted, without in (("required", False), ("optional", True)):
        made = ecosystem(
            tmp_path / wanted,
            listen=BENCH,
            https=True,
            client_ca=ca.file,
            client_certificates=wanted,
        )
        with serve(made, "root-pool") as world:
            url = f"{at(made, 'root-pool')}/healthz"
            with client(made, cert=good) as http:
                assert http.get(url).is_success
            with client(made, cert=foreign) as http, pytest.raises(httpx.TransportError):
                http.get(url)
            with client(made) as http:
                if without:
                    assert http.get(url).is_success
                else:
                    with pytest.raises(httpx.TransportError):
                        http.get(url)
            # The parties among themselves need none.
            assert world.http.get(f"{world.url('root-pool')}/healthz").is_success


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("absent", r"https_certificate: .*nowhere\.pem: No such file"),
        ("no certificate", r"https_certificate: .*text\.pem: no certificate in PEM"),
        ("no key", r"https_key: .*text\.pem: holds no private key in PEM"),
        ("no key beside", r"https_certificate: .*server\.pem: holds no private key in PEM"),
        ("another key", r"https_key: .*other\.key: the key does not fit .*server\.pem, CN=server"),
        ("locked key", r"https_key: .*locked\.key: its private key is encrypted"),
        ("client CA", r"client_ca: .*text\.pem: no certificate in PEM"),
    ],
)
def test_a_file_that_is_no_use_is_said(tmp_path: Path, serve: Any, case: str, says: str) -> None:
    ca, text = Ca(tmp_path), tmp_path / "text.pem"
    text.write_text("this is no certificate\n")
    certificate, key = ca.issue("server")
    other = ca.issue("other")[1]
    locked = ca.issue("locked", BestAvailableEncryption(b"secret"))[1]
    files: dict[str, dict[str, Any]] = {
        "absent": {"https_certificate": tmp_path / "nowhere.pem", "https_key": key},
        "no certificate": {"https_certificate": text, "https_key": key},
        "no key": {"https_certificate": certificate, "https_key": text},
        "no key beside": {"https_certificate": certificate},
        "another key": {"https_certificate": certificate, "https_key": other},
        "locked key": {"https_certificate": tmp_path / "locked.pem", "https_key": locked},
        "client CA": {"https": True, "client_ca": text},
    }
    made = ecosystem(tmp_path / "data", listen=BENCH, **files[case])
    with pytest.raises(TlsError, match=says), serve(made, "root-pool"):
        pass


def test_the_certificate_is_renewed_before_it_ends(tmp_path: Path) -> None:
    made = ecosystem(tmp_path, listen=BENCH, https=True)
    instant = datetime.now(UTC)
    tls = ServerTls(made, lambda: instant)
    first = tls.certificate
    ca = ca_file(made).read_bytes()
    assert not tls.renew()
    instant += LEAF_LIFE / 2
    assert not tls.renew()
    instant += LEAF_LIFE / 4
    assert tls.renew()
    assert tls.certificate != first
    assert tls.certificate.not_valid_after_utc > first.not_valid_after_utc
    # By the same CA, which clients have; only when that ends there is another one.
    assert ca_file(made).read_bytes() == ca
    assert ServerTls(made).certificate.issuer == first.issuer
    instant += timedelta(days=9 * 365)
    assert tls.renew()
    assert ca_file(made).read_bytes() != ca


@pytest.mark.parametrize(("name", "says"), [("ca.pem", "cannot be"), ("ca.key", "cannot be")])
def test_a_ca_that_is_broken_is_said(tmp_path: Path, name: str, says: str) -> None:
    made = ecosystem(tmp_path, listen=BENCH, https=True)
    ServerTls(made)
    (tmp_path / "tls" / name).write_bytes(b"broken")
    with pytest.raises(TlsError, match=rf"tls: the CA in it {says} read"):
        ServerTls(made)
    (tmp_path / "tls" / "ca.secret").unlink()
    with pytest.raises(SealingError, match="the secret file is missing"):
        ServerTls(made)


def test_workers_speak_tls(tmp_path: Path) -> None:
    made = ecosystem(tmp_path, listen=BENCH, https=True)
    (tmp_path / "ecosystem.toml").write_text(to_document(made))
    with _serving(tmp_path, "root-pool", "--workers", "2") as process, client(made) as http:
        url = f"{at(made, 'root-pool')}/healthz"
        until = time.monotonic() + 30
        while True:
            try:
                assert http.get(url).json()["status"] in ("ready", "starting")
                break
            except httpx.TransportError:
                assert time.monotonic() < until
                assert process.poll() is None, process.communicate()
                time.sleep(0.2)
        for _ in range(8):  # each by a connection of its own
            with client(made) as one:
                assert one.get(url).json()["kind"] == "rcp"


@contextmanager
def _serving(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    import sys

    code = "from scenarios.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-I", "-c", code, "serve", *arguments], cwd=folder, text=True
    )
    # The CA is there once it listens.
    until = time.monotonic() + 30
    while not (folder / "tls" / "ca.pem").exists() and time.monotonic() < until:
        time.sleep(0.1)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def test_a_supervisor_says_what_is_wrong_with_tls(tmp_path: Path) -> None:
    made = ecosystem(tmp_path, listen=BENCH, https_certificate="nowhere.pem")
    with pytest.raises(TlsError, match=r"nowhere\.pem: No such file"):
        serve_with_workers(made, "root-pool", 2)


# -------------------------------------------------------------------- addresses of earlier starts


def test_addresses_are_remembered(tmp_path: Path) -> None:
    first = load(data=tmp_path)
    for made in (first, first.with_reach({"public_url": "https://192.0.2.7"}), first):
        remember(made)
    assert remembered(first)["sunmile"] == ("http://127.0.0.1:7104", "https://192.0.2.7:7104")
    for broken in ("", "[]", '{"sunmile": 1}', '{"sunmile": [1, null]}', "\x00"):
        (tmp_path / "addresses.json").write_text(broken)
        assert not remembered(first).get("sunmile")
        remember(first)
        assert remembered(first)["sunmile"] == ("http://127.0.0.1:7104",)


def test_a_responder_is_found_by_an_earlier_address(tmp_path: Path, serve: Any) -> None:
    made = load(data=tmp_path).on_free_ports()
    remember(made.with_reach({"public_url": "https://192.0.2.7/{name}"}))
    with serve(made, "provisioning-pool", "root-pool") as world:
        find = world.service("provisioning-pool").judge._responder
        own = made.party("sunmile").url
        for url in (f"{own}/ocsp", "https://192.0.2.7/sunmile/ocsp"):
            party, called_at = find(url)
            assert (party.name, called_at) == ("sunmile", f"{own}/ocsp")
        for url in (f"{own}x/ocsp", "https://192.0.2.7/sunmiles/ocsp", "https://192.0.2.7/", ""):
            assert find(url) is None


# ------------------------------------------------------------------------------ what is said


@pytest.mark.parametrize(
    ("public_url", "seen"),
    [
        ("https://192.0.2.7", "https://192.0.2.7:7104"),
        ("http://bench.example/", "http://bench.example:7104"),
        ("http://[2001:db8::7]", "http://[2001:db8::7]:7104"),
        ("https://bench.example/pnc", "https://bench.example:7104/pnc"),
        ("https://{name}.bench.example", "https://sunmile.bench.example"),
        ("https://bench.example/{name}", "https://bench.example/sunmile"),
        ("https://bench.example:8443/{port}/x", "https://bench.example:8443/7104/x"),
    ],
)
def test_public_urls(public_url: str, seen: str) -> None:
    made = load().with_reach({"public_url": public_url})
    assert made.party("sunmile").seen_at == seen
    assert made.party("sunmile").url == "http://127.0.0.1:7104"


def test_a_party_may_have_its_own_public_url() -> None:
    text = default_text().replace(
        'name = "sunmile"', 'name = "sunmile"\npublic_url = "http://mo.example"'
    )
    made = from_text(text, "mine").with_reach({"public_url": "https://192.0.2.7"})
    assert made.party("sunmile").seen_at == "http://mo.example"
    assert made.party("gridpass").seen_at == "https://192.0.2.7:7111"


@pytest.mark.parametrize(
    ("listen", "https", "base"),
    [
        ("192.0.2.7", False, "http://192.0.2.7"),
        ("0.0.0.0,192.0.2.7", True, "https://192.0.2.7"),
        ("[2001:db8::7]", True, "https://[2001:db8::7]"),
        ("fe80::1%eth0", False, None),
        ("0.0.0.0", False, None),
    ],
)
def test_the_first_address_is_the_public_url(listen: str, https: bool, base: str | None) -> None:
    assert Reach().changed({"listen": listen, "https": https}).base == base


def test_the_file_says_it_too(tmp_path: Path) -> None:
    head = (
        'listen = "192.0.2.7, 2001:db8::7"\nhttps = true\npublic_url = "https://b.example"\n'
        'client_ca = "clients.pem"\nclient_certificates = "optional"\n'
    )
    text = default_text().replace("[ecosystem]\n", f"[ecosystem]\n{head}", 1)
    made = from_text(text, "mine", folder=tmp_path)
    assert made.reach.listen == ("192.0.2.7", "2001:db8::7")
    assert made.reach.client_ca == tmp_path / "clients.pem"
    assert made.party("sunmile").seen_at == "https://b.example:7104"
    again = from_text(to_document(made), "again")
    assert (again.reach, again.parties) == (made.reach, from_text(to_document(made), "b").parties)
    assert again.reach == made.reach
    # The command line has the last word.
    assert made.with_reach({"listen": "127.0.0.2"}).reach.listen == ("127.0.0.2",)


@pytest.mark.parametrize(
    ("options", "key", "says"),
    [
        ({"listen": "eth0"}, "listen", "'eth0' is no IP address"),
        ({"listen": "192.0.2.7:7100"}, "listen", "each party keeps its own port"),
        ({"listen": "[::1]:7100"}, "listen", "each party keeps its own port, so only '::1'"),
        ({"listen": "https://192.0.2.7"}, "listen", "a URL belongs into public_url"),
        ({"listen": "192.0.2.7,"}, "listen", "'' is no IP address"),
        ({"listen": ""}, "listen", "text in quotes"),
        ({"https": True}, "https", "there are none"),
        ({"https": "yes"}, "https", "true or false"),
        ({"listen": BENCH, "https_key": "k"}, "https_key", "https_certificate"),
        ({"listen": BENCH, "client_ca": "k"}, "client_ca", "see https"),
        (
            {"listen": BENCH, "https": True, "client_certificates": "required"},
            "client_certificates",
            "client_ca is missing",
        ),
        (
            {"listen": BENCH, "https": True, "client_ca": "k", "client_certificates": "some"},
            "client_certificates",
            "none of required, optional",
        ),
        ({"listen": BENCH, "https": False, "https_certificate": "c"}, "https_certificate", "false"),
        ({"public_url": "bench"}, "public_url", "is not an http(s) address"),
        ({"public_url": "ftp://bench"}, "public_url", "is not an http(s) address"),
        ({"public_url": "https://"}, "public_url", "is not an http(s) address"),
        ({"public_url": "https://b:99999"}, "public_url", "is not an http(s) address"),
        ({"public_url": "https://b:8443"}, "public_url", "https://b:8443/{name}"),
        ({"public_url": "https://bücher.example"}, "public_url", "xn--"),
        ({"public_url": "https://b b"}, "public_url", "characters that no URL has"),
        ({"public_url": "https://u:p@b"}, "public_url", "no user"),
        ({"public_url": "https://b/?x=1"}, "public_url", "no query"),
        ({"public_url": "https://{host}.b"}, "public_url", "{name} and {port} is all"),
        (
            {"listen": BENCH, "https": True, "public_url": f"http://{BENCH}"},
            "public_url",
            "is listened on with https",
        ),
    ],
)
def test_what_does_not_fit_is_said(options: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(ReachError) as wrong:
        Reach().changed(options)
    assert wrong.value.key == key
    assert says in str(wrong.value)
    with pytest.raises(EcosystemError) as named:
        load().with_reach(options)
    assert str(named.value).startswith(f"--{key.replace('_', '-')}: ")


def test_the_file_s_mistakes_have_a_line() -> None:
    text = default_text().replace("[ecosystem]\n", '[ecosystem]\nlisten = "eth0"\n', 1)
    with pytest.raises(EcosystemError, match=r"mine:\d+: \[ecosystem\] listen: 'eth0' is no IP"):
        from_text(text, "mine")
    party = 'name = "sunmile"\npublic_url = "http://bücher.example"'
    with pytest.raises(EcosystemError, match=r"sunmile public_url: .*xn--"):
        from_text(default_text().replace('name = "sunmile"', party), "mine")


def _unb64(text: str) -> bytes:
    import base64

    return base64.b64decode(text)


def _ip(text: str) -> Any:
    import ipaddress

    return ipaddress.ip_address(text)
