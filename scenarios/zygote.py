"""Forks parties from one process that has everything imported, so that each starts at once.

Run as ``python -I -c "from scenarios.zygote import main; main()"`` by :mod:`.processes`. It is
told on stdin what to do and says on stdout what became of it, a JSON object per line::

    {"start": "sunmile", "command": ["serve", "sunmile", ...], "log": "/.../sunmile.log"}
    {"signal": 9, "name": "sunmile"}
    -> {"started": "sunmile", "pid": 4711}
    -> {"ended": "sunmile", "pid": 4711, "code": -9}

When stdin ends, so do all that it started. It has no thread and no event loop, and signals
only processes that it started and has not yet waited for.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import sys
from contextlib import suppress
from typing import Any, NoReturn

PRELOADED = (
    "alembic.command",
    "alembic.autogenerate",
    "httptools",
    "psycopg",
    "services.serve",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "uvicorn.lifespan.on",
    "uvicorn.protocols.http.httptools_impl",
)


class _Zygote:
    def __init__(self) -> None:
        self.children: dict[str, int] = {}
        self.buffer = b""
        self.woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        # Who ends us by Ctrl-C ends our parent too; that closes stdin.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def run(self) -> None:
        self.say({"ready": True})
        while True:
            readable, _, _ = select.select([0, self.woken], [], [])
            if self.woken in readable:
                with suppress(BlockingIOError):
                    os.read(self.woken, 4096)
                self.reap()
            if 0 in readable:
                received = os.read(0, 65536)
                if not received:
                    return self.end()
                *lines, self.buffer = (self.buffer + received).split(b"\n")
                for line in lines:
                    self.do(json.loads(line))

    def do(self, asked: dict[str, Any]) -> None:
        if "start" in asked:
            name = asked["start"]
            pid = os.fork()
            if pid == 0:
                _be(asked["command"], asked["log"])
            self.children[name] = pid
            self.say({"started": name, "pid": pid})
        elif asked["name"] in self.children:
            os.kill(self.children[asked["name"]], asked["signal"])

    def reap(self) -> None:
        for name, pid in list(self.children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self.children[name]
                self.say({"ended": name, "pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def end(self) -> None:
        for pid in self.children.values():
            os.kill(pid, signal.SIGTERM)
        for pid in self.children.values():
            os.waitpid(pid, 0)

    def say(self, what: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):
            os.write(1, json.dumps(what).encode() + b"\n")


def _be(command: list[str], log: str) -> NoReturn:
    """Become ``pnclab COMMAND``; its output goes to ``log``."""
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDONLY)
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(nothing, 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        from scenarios.cli import main as pnclab

        sys.argv = ["pnclab", *command]
        pnclab()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Serve on stdin and stdout until stdin ends."""
    for name in PRELOADED:
        importlib.import_module(name)
    from services.serve import APPS

    for name in APPS.values():
        importlib.import_module(name)
    importlib.import_module("scenarios.cli")
    gc.collect()
    gc.freeze()
    _Zygote().run()
