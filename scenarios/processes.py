"""An ecosystem with every party in a process of its own.

Each is ``pnclab serve NAME`` on an ecosystem file made for the run. The processes are
isolated from the working folder (``python -I``), and ended by their ids when the block
ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from services.ecosystem import Ecosystem, to_document
from services.serve import StartError

from .lab import Lab, LabError

_SERVE = "from scenarios.cli import main; main()"


@contextlib.asynccontextmanager
async def running_in_processes(
    ecosystem: Ecosystem,
    *,
    ready_within: float = 90.0,
    on_ready: Callable[[str], None] | None = None,
) -> AsyncIterator[dict[str, subprocess.Popen[bytes]]]:
    """Serve all parties, a process each, until the block ends; yields the processes by name.

    Raises StartError when one ends early or is not ready in time, with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="pnclab-") as folder:
        file = Path(folder) / "ecosystem.toml"
        file.write_text(to_document(ecosystem))
        started: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for name in ecosystem.parties:
                started[name] = start_process(ecosystem, name, file, Path(folder))
            await _until_ready(ecosystem, started, Path(folder), ready_within, on_ready)
            yield started
        finally:
            for process in started.values():
                if process.poll() is None:
                    process.terminate()
            await asyncio.gather(*(asyncio.to_thread(_ended, one) for one in started.values()))


def start_process(
    ecosystem: Ecosystem, name: str, file: Path, logs: Path
) -> subprocess.Popen[bytes]:
    """Start one party; its log is ``NAME.log`` in ``logs``."""
    with (logs / f"{name}.log").open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own command line
            [sys.executable, "-I", "-c", _SERVE, "serve", name, "--ecosystem", str(file)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


async def _until_ready(
    ecosystem: Ecosystem,
    started: dict[str, subprocess.Popen[bytes]],
    logs: Path,
    within: float,
    on_ready: Callable[[str], None] | None,
) -> None:
    waiting = set(started)
    clock = asyncio.get_running_loop().time
    until = clock() + within
    async with Lab(ecosystem) as lab:
        while waiting:
            for name in sorted(waiting):
                if started[name].poll() is not None:
                    raise StartError(f"{name} ended: {_last_words(logs / f'{name}.log')}")
                try:
                    await lab.healthy(name)
                except LabError as error:
                    reason = str(error)
                    continue
                waiting.discard(name)
                if on_ready is not None:
                    on_ready(name)
            if waiting and clock() > until:
                raise StartError(f"{min(waiting)} was not ready within {within:g} s: {reason}")
            await asyncio.sleep(0.1)


def _ended(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
