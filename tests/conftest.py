"""What tests of several packages share: a running ecosystem, started as a user would."""

from __future__ import annotations

import base64
import contextlib
import glob
import json
import os
import pwd
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

_PNCLAB = (sys.executable, "-I", "-c", "from scenarios.cli import main; main()")


@dataclass
class Up:
    """A running ``pnclab up``: its parties' URLs, and a way to call them as a client."""

    parties: dict[str, dict[str, Any]]
    folder: Path
    http: httpx.Client
    told: dict[str, Any]
    _tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    def url(self, party: str) -> str:
        return str(self.parties[party]["url"])

    def named(self, kind: str) -> str:
        """The name of the first party of this kind."""
        return next(name for name, party in self.parties.items() if party["kind"] == kind)

    def token(self, party: str, client: str = "admin") -> str:
        key = (party, client)
        if key not in self._tokens:
            answer = self.http.post(
                f"{self.url(party)}/oauth/token",
                json={
                    "grant_type": "client_credentials",
                    "client_id": client,
                    "client_secret": f"{client}-test-secret",
                },
            )
            self._tokens[key] = answer.raise_for_status().json()["access_token"]
        return self._tokens[key]

    def call(
        self, kind: str, method: str, path: str, body: Any = None, client: str = "admin"
    ) -> httpx.Response:
        """Call the first party of ``kind``; whatever it answers."""
        party = self.named(kind)
        return self.http.request(
            method,
            self.url(party) + path,
            json=body,
            headers={"Authorization": f"Bearer {self.token(party, client)}"},
        )

    def ok(self, kind: str, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a call that must succeed."""
        answer = self.call(kind, method, path, body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


@contextlib.contextmanager
def pnclab_up(*options: str) -> Iterator[Up]:
    """``pnclab up`` on free ports in a folder of its own, until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "up.log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*_PNCLAB, "up", "--free-ports", "--json", "--data", f"{folder}/data", *options],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        assert process.stdout is not None
        try:
            line = _first_line(process, within=90)
            assert line, f"pnclab up ended: {log.read_text()[-2000:]}"
            with httpx.Client(timeout=60, trust_env=False) as http:
                told = json.loads(line)
                yield Up(told["parties"], Path(folder), http, told)
            assert process.poll() is None, f"pnclab up died: {log.read_text()[-2000:]}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        said = log.read_text()
        assert "Traceback" not in said, said[-4000:]


def _first_line(process: subprocess.Popen[bytes], within: float) -> bytes:
    assert process.stdout is not None
    until = time.monotonic() + within
    while time.monotonic() < until and process.poll() is None:
        if select.select([process.stdout], [], [], 0.2)[0]:
            return process.stdout.readline()
    return b""


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """The default ecosystem, running."""
    with pnclab_up() as running:
        yield running


@pytest.fixture(scope="module")
def lenient_up() -> Iterator[Up]:
    """The default ecosystem, with identifiers taken as they come."""
    with pnclab_up("--policy", "identifiers=lenient") as running:
        yield running


# Where Debian and others put the programs of a PostgreSQL server.
_POSTGRESQL = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql*/bin",
)


def _postgresql_programs() -> Path | None:
    """The newest initdb and pg_ctl that are installed."""
    found = [Path(one) for pattern in _POSTGRESQL for one in sorted(glob.glob(pattern))]
    if configured := shutil.which("pg_config"):
        said = subprocess.run([configured, "--bindir"], capture_output=True, text=True, check=True)
        found.append(Path(said.stdout.strip()))
    if beside := shutil.which("initdb"):
        found.append(Path(beside).resolve().parent)
    found = [one for one in found if (one / "initdb").exists() and (one / "pg_ctl").exists()]
    return found[-1] if found else None


class PostgresServer:
    """A PostgreSQL server of our own: on loopback, in a folder that is thrown away."""

    password = "sesame-0f2a"

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs = programs
        self.folder = folder
        # It refuses to run as root.
        self.user = None
        if os.geteuid() == 0:
            names = {entry.pw_name for entry in pwd.getpwall()}
            self.user = "postgres" if "postgres" in names else "nobody"
            shutil.chown(folder, self.user)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        secret = folder / "password"
        secret.write_text(self.password)
        if self.user:
            shutil.chown(secret, self.user)
        self._run(
            "initdb", "-U", "pnclab", "-E", "UTF8", "--locale=C", "-A", "scram-sha-256",
            f"--pwfile={secret}", "--no-sync",
        )  # fmt: skip

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        self._run("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self, how: str = "fast") -> None:
        """``fast`` ends the connections; ``immediate`` is as good as a crash."""
        self._run("pg_ctl", "-w", "-m", how, "stop")

    def restart(self, how: str = "fast") -> None:
        self.stop(how)
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql://pnclab:{self.password}@127.0.0.1:{self.port}/{database}"

    def new(self, encoding: str = "UTF8") -> str:
        """The URL of a new, empty database."""
        import psycopg

        name = f"pnclab_{os.urandom(4).hex()}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(
                f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0"  # type: ignore[arg-type]
            )
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        # Into a file: the server inherits it, and a pipe would never end.
        with (self.folder / "said").open("ab") as said:
            done = subprocess.run(
                [self.programs / program, "-D", self.folder / "data", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                user=self.user,
                cwd="/",
                timeout=60,
            )
        assert done.returncode == 0, (self.folder / "said").read_text()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresServer]:
    """A running server, or a skip."""
    programs = _postgresql_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server is installed (initdb and pg_ctl are looked for)")
    with tempfile.TemporaryDirectory(prefix="pnclab-pg-") as folder:
        server = PostgresServer(programs, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")


@pytest.fixture
def postgresql(postgresql_server: PostgresServer) -> str:
    """The URL of an empty PostgreSQL database."""
    return postgresql_server.new()


@pytest.fixture(scope="session")
def shared_vectors() -> Path:
    """The folder of the shared vectors, or a skip."""
    named = os.environ.get("PNCLAB_SHARED_VECTORS")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "vectors"
    if not (folder / "exi.json").is_file():
        pytest.skip("the shared vectors are not here (PNCLAB_SHARED_VECTORS names their folder)")
    return folder
