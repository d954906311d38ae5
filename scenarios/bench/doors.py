"""The doors against what else there is: OCSP beside `openssl ocsp`, requests signed beside
cfssl; and what a contract bundle takes when many cars want one.

Servers have a core of their own, who calls them has another one. The peers run in a network
namespace that vanishes with them, since both listen on all addresses.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from pki.edition import ISO2
from pki.issuing import certificate_request, issue, new_serial, validity_within
from pki.keys import SoftwareKey
from pki.names import Subject
from pki.profiles import Role, profile
from pki.revocation import ocsp_request
from scenarios.bench.host import hierarchy
from scenarios.bench.measure import Bench, Measurement, NotAvailableError
from v2g import exi
from v2g.certificate_installation import RootId, build_request
from v2g.messages import iso2

CALLERS = 8
OCSP_REQUESTS = 3000
SIGN_REQUESTS = 3000
DURABLE_REQUESTS = 400
ROUNDS = 3
CARS = 20
OCSP_TYPE = "application/ocsp-request"

_QUIET = ("-W", "ignore::RuntimeWarning:runpy")
# Our own client as a shell command, in whichever folder.
_CLIENT = f"env PYTHONPATH={Path(__file__).parents[2]} {sys.executable} -m scenarios.bench.load"

Calls = Sequence[tuple[str, str, Mapping[str, str], bytes]]


def _on(core: int) -> list[str]:
    """How a command is kept on a core, where that can be said and there are two."""
    if shutil.which("taskset") is None or (os.cpu_count() or 1) < 2:
        return []
    return ["taskset", "-c", str(core)]


# ------------------------------------------------------------------------- our side


@contextlib.contextmanager
def hosted(*arguments: str) -> Iterator[dict[str, str]]:
    """Servers of ours in a process of their own; their addresses."""
    process = subprocess.Popen(  # noqa: S603
        # The package has imported the module by then, which does not matter.
        [*_on(0), sys.executable, *_QUIET, "-m", "scenarios.bench.host", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            raise AssertionError(f"the server {arguments} did not start")
        yield json.loads(line)
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


def load(url: str, calls: Calls, total: int, callers: int, keep_alive: bool) -> dict[str, Any]:
    """What :mod:`.load` finds about an address of ours."""
    done = subprocess.run(  # noqa: S603
        [*_on(1), sys.executable, "-m", "scenarios.bench.load"],
        input=json.dumps(_asked(url, calls, total, callers, keep_alive)),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return _answered(done.stdout)


def _asked(url: str, calls: Calls, total: int, callers: int, keep_alive: bool) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "host": parts.hostname,
        "port": parts.port,
        "total": total,
        "callers": callers,
        "keep_alive": keep_alive,
        "requests": [
            [method, path, dict(headers), base64.b64encode(body).decode()]
            for method, path, headers, body in calls
        ],
    }


def _answered(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output)
    if set(found["status"]) != {"200"}:
        raise AssertionError(f"not all were answered with 200: {found['status']}")
    return found


def _json(url: str, body: Any = None, token: str = "", method: str | None = None) -> Any:
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{url}: {error.code} {error.read()[:300]!r}") from None


def _token(url: str, client: str) -> str:
    form = {"grant_type": "client_credentials", "client_id": client}
    form["client_secret"] = f"{client}-test-secret"
    with urllib.request.urlopen(  # noqa: S310
        f"{url}/oauth/token", urlencode(form).encode(), timeout=30
    ) as answer:
        token: str = json.load(answer)["access_token"]
        return token


# ---------------------------------------------------------------------- the peers


def _in_a_namespace(folder: Path, server: str, ready: str, work: str, environment: str = "") -> str:
    """What ``work`` prints while ``server`` runs; all shell commands, alone in a network.
    ``ready`` succeeds when the server answers."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        raise NotAvailableError("there is no unshare or ip command: the peer would listen openly")
    script = f"""
    set -e
    ip link set lo up
    {environment} {" ".join(_on(0))} {server} > server.log 2>&1 &
    server=$!
    trap 'kill $server 2> /dev/null' EXIT
    for i in $(seq 100); do
        {ready} 2> /dev/null && break
        sleep 0.05
    done
    {" ".join(_on(1))} {work}
    """
    done = subprocess.run(  # noqa: S603
        ["unshare", "-n", "bash", "-c", script],  # noqa: S607
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if "unshare" in done.stderr and done.returncode:
        raise NotAvailableError(f"no network namespace: {done.stderr.strip()[:100]}")
    if done.returncode:
        log = (folder / "server.log").read_text()[-300:]
        raise AssertionError(f"{server}: {done.stderr[-300:]} {log}")
    return done.stdout


@dataclass(frozen=True)
class Tool:
    """A load tool, the same for both sides."""

    name: str
    how: str
    ab: str | None = None

    def command(self, folder: Path, url: str, body: bytes) -> str:
        """A shell command, for ``folder``, that posts ``body`` to ``url``."""
        if self.ab:
            (folder / "body").write_bytes(body)
            how = f"-q -c {CALLERS} -n {OCSP_REQUESTS} -p body -T {OCSP_TYPE}"
            return f"{self.ab} {how} {url}"
        call = ("POST", urlsplit(url).path, {"Content-Type": OCSP_TYPE}, body)
        asked = _asked(url, [call], OCSP_REQUESTS, CALLERS, keep_alive=True)
        (folder / "asked.json").write_text(json.dumps(asked))
        return f"{_CLIENT} < asked.json"

    def seconds(self, output: str) -> float:
        """Seconds for one request, from what the command printed."""
        if not self.ab:
            found = _answered(output)
            seconds: float = found["seconds"] / sum(found["status"].values())
            return seconds
        rate = re.search(r"Requests per second:\s+([\d.]+)", output)
        if rate is None or "Non-2xx" in output:
            raise AssertionError(output)
        return 1.0 / float(rate[1])

    def ours(self, folder: Path, url: str, body: bytes) -> float:
        """Seconds for one request at an address of ours."""
        command = " ".join([*_on(1), self.command(folder, url, body)])
        done = subprocess.run(  # noqa: S603
            ["bash", "-c", command],  # noqa: S607
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return self.seconds(done.stdout)


def tools() -> list[Tool]:
    """Ours, and ab where that is installed: it closes each connection, as openssl does."""
    found = [Tool("our client", "connections kept where the server keeps them")]
    if ab := shutil.which("ab"):
        found.append(Tool("ab", "a connection each time", ab))
    return found


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


# --------------------------------------------------------------------------- OCSP


def _openssl_responder(folder: Path) -> tuple[x509.Certificate, x509.Certificate]:
    """The files of an `openssl ocsp` responder; a leaf that it knows, and the leaf's issuer."""
    now = datetime.now(UTC).replace(microsecond=0)
    above = hierarchy(now)[Role.CPO_SUB2]
    signer = SoftwareKey.generate(ISO2)
    made = {}
    for name, role, key in (
        ("DEPNCE0000001", Role.SECC, SoftwareKey.generate(ISO2)),
        ("OCSP signer", Role.OCSP_SIGNER, signer),
    ):
        rules = profile(role, ISO2)
        begin, end = validity_within(rules, above, now)
        made[role] = issue(
            rules,
            subject=rules.subject(name, "pnclab test", "DE"),
            public_key=key.public_key,
            authority=above,
            not_before=begin,
            not_after=end,
            serial=new_serial(os.urandom(20)),
        )
    leaf = made[Role.SECC]
    serial = f"{leaf.serial_number:X}"
    serial = serial if len(serial) % 2 == 0 else f"0{serial}"
    expires = leaf.not_valid_after_utc.strftime("%y%m%d%H%M%SZ")
    (folder / "index.txt").write_text(f"V\t{expires}\t\t{serial}\tunknown\t/CN=DEPNCE0000001\n")
    (folder / "ca.pem").write_bytes(above.certificate.public_bytes(Encoding.PEM))
    (folder / "signer.pem").write_bytes(made[Role.OCSP_SIGNER].public_bytes(Encoding.PEM))
    (folder / "signer.key").write_text(signer.pem())
    return leaf, above.certificate


def ocsp(bench: Bench) -> Iterator[Measurement]:
    """OCSP answers over HTTP"""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise NotAvailableError("there is no openssl command")
    folder, port = bench.folder(), 2560
    leaf, issuer = _openssl_responder(folder)
    server = (
        f"{openssl} ocsp -index index.txt -port {port} -rsigner signer.pem -rkey signer.key "
        "-CA ca.pem -nmin 60"
    )
    # A connection without a request would hold it up: what it says tells that it listens.
    ready = "grep -q 'waiting for OCSP' server.log"
    rows = [
        (tool, name, nonce, wanted if tool.ab is None else None)
        for tool in tools()
        for name, nonce, wanted in (
            ("an OCSP answer, kept", None, 3.0),
            ("an OCSP answer, signed for its nonce", b"0123456789abcdef", 1.2),
        )
    ]
    with hosted("parties", str(bench.folder()), "v2g-root", "root-pool") as urls:
        url = f"{urls['v2g-root']}/ocsp"
        mine, above = _leaf_of_ours(urls["v2g-root"])
        for tool, name, nonce, wanted in rows:
            ours, peer = [], []
            for _ in range(ROUNDS):  # one beside the other: the machine may be busy with more
                ours.append(tool.ours(folder, url, ocsp_request(mine, above, nonce=nonce)))
                asked = ocsp_request(leaf, issuer, nonce=nonce)
                work = tool.command(folder, f"http://127.0.0.1:{port}/", asked)
                peer.append(tool.seconds(_in_a_namespace(folder, server, ready, work)))
            yield Measurement(
                f"{name}, {tool.name}",
                _middle(ours),
                _middle(peer),
                "openssl ocsp",
                wanted,
                note=f"POST, {CALLERS} callers, {tool.how}; ours {1 / _middle(ours):,.0f}/s",
            )


def _leaf_of_ours(url: str) -> tuple[x509.Certificate, x509.Certificate]:
    token = _token(url, "admin")
    csr = certificate_request(Subject("DEPLGEBE00001"), SoftwareKey.generate(ISO2))
    body = {"role": "secc", "csr": base64.b64encode(csr).decode()}
    chain = _json(f"{url}/certificates", body, token)["chain"]
    leaf, above = (x509.load_der_x509_certificate(base64.b64decode(one)) for one in chain[:2])
    return leaf, above


# ------------------------------------------------------------------------ requests signed


def requests_signed(bench: Bench) -> Iterator[Measurement]:
    """Certificate requests signed over HTTP"""
    csr = certificate_request(Subject("DEPLGEBE00002"), SoftwareKey.generate(ISO2))
    call = ("POST", "/", {"Content-Type": "application/pkcs10"}, csr)
    ours: list[float] = []
    with hosted("signing") as urls:
        for _ in range(ROUNDS):
            found = load(urls["url"], [call], SIGN_REQUESTS, CALLERS, keep_alive=True)
            ours.append(found["seconds"] / SIGN_REQUESTS)
    with hosted("parties", str(bench.folder()), "v2g-root", "root-pool") as urls:
        url = urls["v2g-root"]
        token = _token(url, "plugpark")
        durable = load(url, _enrolments(token), DURABLE_REQUESTS, CALLERS, keep_alive=True)
    yield Measurement(
        "a request signed, token, registry, books on disk",
        durable["seconds"] / DURABLE_REQUESTS,
        note=f"EST simpleenroll, {CALLERS} callers, one core; {DURABLE_REQUESTS} keys; "
        f"{durable['seconds'] / DURABLE_REQUESTS / _middle(ours):.3g} times the row below",
    )
    theirs = _cfssl(bench.folder())
    yield Measurement(
        "a request signed, nothing written",
        _middle(ours),
        theirs,
        "cfssl",
        0.65,
        note=f"{CALLERS} callers, kept connections, one core each; ours {1 / _middle(ours):,.0f}/s",
    )


def _enrolments(token: str) -> Calls:
    headers = {"Content-Type": "application/pkcs10", "Authorization": f"Bearer {token}"}
    return [
        (
            "POST",
            "/.well-known/est/cpo/simpleenroll/ISO15118-2",
            headers,
            certificate_request(Subject(f"DEPLGEBF{number:05d}"), SoftwareKey.generate(ISO2)),
        )
        for number in range(DURABLE_REQUESTS)
    ]


def _cfssl(folder: Path) -> float | None:
    """Seconds for a request that cfssl signs; None where it is not installed."""
    cfssl = shutil.which("cfssl")
    if cfssl is None:
        raise NotAvailableError("cfssl is not installed (Debian: golang-cfssl)")
    now = datetime.now(UTC).replace(microsecond=0)
    above = hierarchy(now)[Role.CPO_SUB2]
    (folder / "ca.pem").write_bytes(above.certificate.public_bytes(Encoding.PEM))
    assert isinstance(above.signer, SoftwareKey)
    (folder / "ca.key").write_text(above.signer.pem())
    rules = {"signing": {"default": {"expiry": "168h", "usages": ["digital signature"]}}}
    (folder / "config.json").write_text(json.dumps(rules))
    key = SoftwareKey.generate(ISO2)
    csr = x509.load_der_x509_csr(certificate_request(Subject("DEPLGEBE00003"), key))
    body = {"certificate_request": csr.public_bytes(Encoding.PEM).decode()}
    call = (
        "POST",
        "/api/v1/cfssl/sign",
        {"Content-Type": "application/json"},
        json.dumps(body).encode(),
    )
    port = 8888
    asked = _asked(f"http://127.0.0.1:{port}", [call], SIGN_REQUESTS, CALLERS, keep_alive=True)
    (folder / "asked.json").write_text(json.dumps(asked))
    server = (
        f"{cfssl} serve -address 127.0.0.1 -port {port} -ca ca.pem -ca-key ca.key "
        "-config config.json -loglevel 4"
    )
    work = f"{_CLIENT} < asked.json"
    ready = f"(exec 3<> /dev/tcp/127.0.0.1/{port})"
    seconds = []
    for _ in range(ROUNDS):
        output = _in_a_namespace(folder, server, ready, work, "GOMAXPROCS=1")
        seconds.append(_answered(output)["seconds"] / SIGN_REQUESTS)
    return _middle(seconds)


# ------------------------------------------------------------------------ contract bundles


def bundles(bench: Bench) -> Iterator[Measurement]:
    """Contract bundles for cars"""
    with hosted("parties", str(bench.folder())) as urls:
        calls = _cars(urls)
        for callers, each in ((20, 10), (200, 2)):
            total = callers * each
            found = load(urls["contract-pool"], calls, total, callers, keep_alive=True)
            for part in ("p50", "p99"):
                yield Measurement(
                    f"a contract bundle by EXI request, {callers} callers, {part}",
                    found[part],
                    note=f"POST /v1/ccp/signedContractData, {total} requests of {len(calls)} "
                    f"cars, {total / found['seconds']:.0f}/s, all parties on one core",
                )


def _cars(urls: Mapping[str, str]) -> Calls:
    """The requests of some cars that wait for their contract."""
    maker, operator = urls["nova-cars"], urls["sunmile"]
    garage, admin = _token(maker, "garage"), _token(operator, "admin")
    pool = _token(urls["contract-pool"], "plugpark")
    roots = [
        RootId.of(x509.load_der_x509_certificate(base64.b64decode(one["certificate"])))
        for one in _json(f"{urls['root-pool']}/roots?type=V2G")
    ]
    driver = {"name": "Ada Driver", "deposit": "50.00"}
    driver_id = _json(f"{operator}/drivers", driver, admin)["id"]
    calls = []
    for _ in range(CARS):
        key = SoftwareKey.generate(ISO2)
        csr = base64.b64encode(certificate_request(Subject("a car"), key)).decode()
        built = _json(f"{maker}/vehicles", {"csr": csr}, garage)
        order = {"driver": driver_id, "pcid": built["pcid"]}
        _json(f"{operator}/contracts", order, admin)
        leaf = x509.load_der_x509_certificate(base64.b64decode(built["chain"][0]))
        message = exi.encode(iso2.SCHEMA, build_request(bytes(range(8)), leaf, roots, key))
        body = {
            "certificateInstallationReq": base64.b64encode(message).decode(),
            "xsdMsgDefNamespace": "urn:iso:15118:2:2013:MsgDef",
        }
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {pool}"}
        path = "/v1/ccp/signedContractData"
        calls.append(("POST", path, headers, json.dumps(body).encode()))
    return calls
