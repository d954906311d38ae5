"""Where in a TOML text a key stands: for telling people what is wrong with a file.

The library that reads TOML gives values without positions. :class:`Lines` reads the text once
more, only as far as headers and assignments go; :func:`located` puts file and line before a
message that begins with an entry and a key, such as ``[[party]] sunmile provider_id: ...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

Path = tuple[str | int, ...]
"""Keys from the top, and for the n-th table of an array its number from 1:
``("party", 3, "tariff", "per_kwh")``."""

_KEY = r"""(?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')"""
_DOTTED = rf"{_KEY}(?:\s*\.\s*{_KEY})*"
_HEADER = re.compile(rf"\s*(\[\[?)\s*({_DOTTED})\s*\]\]?\s*(?:#.*)?$")
_ASSIGNMENT = re.compile(rf"\s*({_DOTTED})\s*=")


class Lines:
    """Where in a TOML text a key stands. Only for telling people: what it does not find, such as
    a key within an inline table, is found where its table stands."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        counts: dict[Path, int] = {}
        here: Path = ()
        closing = ""
        for number, line in enumerate(text.splitlines(), 1):
            if closing:  # within a text of several lines
                closing = "" if closing in line else closing
                continue
            if header := _HEADER.match(line):
                here = self._path(header[2], counts)
                if header[1] == "[[":
                    counts[here] = counts.get(here, 0) + 1
                    here = (*here, counts[here])
                self._lines.setdefault(here, number)
            elif assignment := _ASSIGNMENT.match(line):
                self._lines.setdefault((*here, *_parts(assignment[1])), number)
                for quotes in ('"' * 3, "'" * 3):
                    closing = quotes if line.count(quotes) % 2 else closing

    def find(self, path: Path) -> int | None:
        """The line of ``path`` or of what it stands in, counted from 1."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path[:-1]
        return None

    @staticmethod
    def _path(dotted: str, counts: Mapping[Path, int]) -> Path:
        """A header's path: what names an array means its last table so far."""
        path: Path = ()
        *above, last = _parts(dotted)
        for part in above:
            path = (*path, part)
            if path in counts:
                path = (*path, counts[path])
        return (*path, last)


def _parts(dotted: str) -> list[str]:
    return [part.strip().strip("\"'") for part in re.findall(_KEY, dotted)]


# An entry (by number or by name) and, mostly, a key.
_SUBJECT = re.compile(r"\[(\[?)(\w+)\]\]?(?: ([^\s:]+))?(?: ([A-Za-z_][\w.-]*))?")


def located(message: str, file: str, text: str, document: Mapping[str, Any]) -> str:
    """``message`` with ``file`` and the line that it is about in front of it."""
    message = message.removeprefix(f"{file}: ")
    subject = _SUBJECT.match(message)
    line = Lines(text).find(_path(subject, document)) if subject else None
    return f"{file}:{line}: {message}" if line else f"{file}: {message}"


def _path(subject: re.Match[str], document: Mapping[str, Any]) -> Path:
    array, table, name, key = subject.groups()
    if not array:
        return (table, *(name or "").split("."))
    entries = document.get(table)
    number = 0
    if name and name.isdecimal():
        number = int(name)
    elif isinstance(entries, list):
        named = (i for i, one in enumerate(entries, 1) if _is_called(one, name))
        number = next(named, 0)
    return (table, number, *(key or "").split(".")) if number else (table, 1)


def _is_called(entry: Any, name: str | None) -> bool:
    return isinstance(entry, dict) and name in (entry.get("name"), entry.get("id"))


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint for a misspelt word, "" where nothing is near."""
    near = get_close_matches(word, list(known), 1, 0.7)
    return f" (did you mean {near[0]}?)" if near else ""
