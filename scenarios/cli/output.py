"""How commands speak: Rich for people on stderr and stdout, JSON for programs on stdout."""

from __future__ import annotations

import json
import logging
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from rich.console import Console

try:
    VERSION = version("pnclab")
except PackageNotFoundError:
    VERSION = "unknown"

# Into a pipe or file, lines are as long as they are; a terminal has its own width.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON value on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def fail(message: str, code: int) -> NoReturn:
    """One line on stderr, and the exit code."""
    err.print(f"[bold red]error:[/] {_plain(message)}")
    sys.exit(code)


def quiet_libraries() -> None:
    """Only what goes wrong is logged."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
