"""The addresses at which parties were seen: certificates that name them outlive a change.

``addresses.json`` in the data folder lists them by party. Who judges a certificate of an earlier
start finds its responder by them, wherever that party is called now.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.ecosystem import Ecosystem

_NAME = "addresses.json"


def remember(ecosystem: Ecosystem) -> None:
    """Write down where the parties are seen now. OSError where the folder cannot be written."""
    ecosystem.data.mkdir(parents=True, exist_ok=True)
    with alone(ecosystem.data / f"{_NAME}.lock"):
        known = _read(ecosystem.data / _NAME)
        before = json.dumps(known)
        for party in ecosystem.parties.values():
            listed = known.setdefault(party.name, [])
            if party.seen_at not in listed:
                listed.append(party.seen_at)
        if json.dumps(known) != before:
            aside = ecosystem.data / f"{_NAME}.{os.getpid()}"
            aside.write_text(json.dumps(known, indent=1), encoding="utf-8")
            aside.replace(ecosystem.data / _NAME)


def remembered(ecosystem: Ecosystem) -> dict[str, tuple[str, ...]]:
    """By party, where it was seen at any start."""
    return {name: tuple(urls) for name, urls in _read(ecosystem.data / _NAME).items()}


def _read(file: Path) -> dict[str, list[str]]:
    # What cannot be read is not known: then a responder is not found, and the walker says so.
    with suppress(OSError, ValueError):
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {
                str(name): [url for url in urls if isinstance(url, str)]
                for name, urls in found.items()
                if isinstance(urls, list)
            }
    return {}


@contextmanager
def alone(file: Path) -> Iterator[None]:
    """One process at a time, of all that share the file."""
    with file.open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
