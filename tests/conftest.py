"""What tests of several packages share: a running ecosystem, started as a user would."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
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
                yield Up(json.loads(line)["parties"], Path(folder), http)
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


@pytest.fixture(scope="session")
def shared_vectors() -> Path:
    """The folder of the shared vectors, or a skip."""
    named = os.environ.get("PNCLAB_SHARED_VECTORS")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "vectors"
    if not (folder / "exi.json").is_file():
        pytest.skip("the shared vectors are not here (PNCLAB_SHARED_VECTORS names their folder)")
    return folder
