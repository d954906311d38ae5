"""Where the seconds of `pnclab demo` go, from the JSON that it prints."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scenarios.bench.measure import Bench, Measurement, NotAvailableError

LIMIT = 10.0
TIMEOUT = 60.0


def whole(bench: Bench) -> Iterator[Measurement]:
    """pnclab demo

    The whole command in a process of its own and an empty folder, imports included. Its JSON
    tells `seconds` by name of a stage; each becomes a row that informs.
    """
    command = Path(sys.executable).with_name("pnclab")
    if not command.is_file():
        raise NotAvailableError("the command pnclab is not installed beside this Python")
    begin = time.perf_counter()
    try:
        done = subprocess.run(  # noqa: S603
            [str(command), "demo", "--json"],
            cwd=bench.folder(),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise NotAvailableError(f"pnclab demo took longer than {TIMEOUT:g} s") from None
    seconds = time.perf_counter() - begin
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise NotAvailableError(
            f"not available: pnclab demo --json ended with {done.returncode}"
            + (f": {said[-1][:100]}" if said else "")
        )
    yield Measurement("pnclab demo, whole", seconds, limit=LIMIT, note="a process of its own")
    for stage, spent in _timings(done.stdout).items():
        yield Measurement(f"  {stage}", spent, note=f"{spent / seconds:.0%} of the demo")


def _timings(output: str) -> dict[str, float]:
    try:
        document = json.loads(output)
    except ValueError:
        return {}
    seconds = document.get("seconds") if isinstance(document, dict) else None
    return {str(k): float(v) for k, v in seconds.items()} if isinstance(seconds, dict) else {}
