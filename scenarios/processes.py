"""An ecosystem with every party in a process of its own.

Each is ``pnclab serve NAME`` on an ecosystem file made for the run, forked from one process
that has everything imported (:mod:`.zygote`), so that a party that was stopped or killed is
there again in a fraction of a second. They are isolated from the working folder (``python
-I``), and end when the block ends, or when this process does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from services.common.problems import StartError
from services.ecosystem import Ecosystem, to_document

from .lab import Lab, LabError

_ZYGOTE = "from scenarios.zygote import main; main()"
# Seconds that a party has to end when it is asked to.
END_PATIENCE = 15.0


class Processes:
    """The parties' processes, by name: start, signal, wait; an async context manager."""

    def __init__(self, ecosystem: Ecosystem, folder: Path) -> None:
        """``folder`` gets the ecosystem file and each party's ``NAME.log``."""
        self.ecosystem = ecosystem
        self.folder = folder
        self.file = folder / "ecosystem.toml"
        self.pids: dict[str, int] = {}
        self.codes: dict[str, int] = {}
        """How those ended that do not run: exit code, or minus the signal's number."""
        self._ended: dict[str, asyncio.Event] = {}
        self._started: dict[str, asyncio.Future[int]] = {}
        self._zygote: asyncio.subprocess.Process | None = None
        self._listening: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.file.write_text(to_document(self.ecosystem))
        self.file.chmod(0o600)  # a database's password may be in it
        with (self.folder / "zygote.log").open("ab") as log:
            self._zygote = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-c", _ZYGOTE),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        self._listening = asyncio.create_task(self._listen())
        await self._ready.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        assert self._listening is not None
        for name in list(self.pids):
            self.signal(name, signal.SIGTERM)
        waits = [self._ended[name].wait() for name in list(self.pids)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*waits), END_PATIENCE)
        for name in list(self.pids):
            self.signal(name, signal.SIGKILL)
        self._zygote.stdin.close()
        await self._zygote.wait()
        await self._listening

    async def start(self, name: str, *options: str) -> int:
        """Start a party that does not run; its process id."""
        self._started[name] = asyncio.get_running_loop().create_future()
        self._ended[name] = asyncio.Event()
        command = ["serve", name, "--ecosystem", str(self.file), *options]
        self._say({"start": name, "command": command, "log": str(self.log(name))})
        self.pids[name] = await self._started[name]
        return self.pids[name]

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a party's process; nothing where it has ended."""
        self._say({"name": name, "signal": int(number)})

    async def kill(self, name: str) -> None:
        """SIGKILL, and wait until it is gone."""
        self.signal(name, signal.SIGKILL)
        await self.ended(name)

    async def stop(self, name: str) -> int:
        """Ask a party to end, and wait for that; its exit code."""
        self.signal(name, signal.SIGTERM)
        return await self.ended(name)

    async def ended(self, name: str) -> int:
        """Wait until a party's process has ended; how it did."""
        await self._ended[name].wait()
        return self.codes[name]

    async def ready(self, lab: Lab, name: str, within: float) -> None:
        """Wait until a party answers and is ready. StartError when it ends, or is not ready
        in time, with its last words."""
        clock = asyncio.get_running_loop().time
        until = clock() + within
        while True:
            try:
                await lab.healthy(name)
                return
            except LabError as error:
                reason = str(error)
            if name not in self.pids:
                raise StartError(f"{name} ended: {self.last_words(name)}")
            if clock() > until:
                raise StartError(f"{name} was not ready within {within:g} s: {reason}")
            await asyncio.sleep(0.05)

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def last_words(self, name: str) -> str:
        lines = self.log(name).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def _say(self, what: dict[str, Any]) -> None:
        assert self._zygote is not None
        assert self._zygote.stdin is not None
        self._zygote.stdin.write(json.dumps(what).encode() + b"\n")

    async def _listen(self) -> None:
        assert self._zygote is not None
        assert self._zygote.stdout is not None
        async for line in self._zygote.stdout:
            said = json.loads(line)
            if "started" in said:
                self._started[said["started"]].set_result(said["pid"])
            elif "ended" in said:
                self.pids.pop(said["ended"], None)
                self.codes[said["ended"]] = said["code"]
                self._ended[said["ended"]].set()
            self._ready.set()
        self._ready.set()


@contextlib.asynccontextmanager
async def running_in_processes(
    ecosystem: Ecosystem,
    *,
    ready_within: float = 90.0,
    on_ready: Callable[[str], None] | None = None,
) -> AsyncIterator[Processes]:
    """Serve all parties, a process each, until the block ends.

    Raises StartError when one ends early or is not ready in time, with its last words.
    """
    with tempfile.TemporaryDirectory(prefix="pnclab-") as folder:
        async with Processes(ecosystem, Path(folder)) as processes, Lab(ecosystem) as lab:

            async def start(name: str) -> None:
                await processes.start(name)
                await processes.ready(lab, name, ready_within)
                if on_ready is not None:
                    on_ready(name)

            starts = [asyncio.create_task(start(name)) for name in ecosystem.parties]
            try:
                await asyncio.gather(*starts)
            finally:
                for task in starts:
                    task.cancel()
                await asyncio.gather(*starts, return_exceptions=True)
            yield processes
