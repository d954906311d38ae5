"""The table of roles, made from the doors themselves: ``python -m services.roles > docs/roles.md``.

A test compares docs/roles.md with it, and calls every door with every role.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from fastapi.routing import APIRoute

from services.common.app import COMMON_DOORS
from services.common.openapi import routes_of, who_may
from services.ecosystem import KINDS, load
from services.serve import create_app

HEAD = """# Who may call what

Made from the doors by `python -m services.roles`; a test keeps it current. A token's role is the
kind of party that its client is; `admin` may make every call. *anybody*: without a token; *any
role*: with any token that is good at the party; *the party itself*: its own client. Having the
role is not all: an `oem` speaks for its WMI only, an `mo` for its provider id, a `cpo` for its
operator id, and a call about somebody else's car or contract is refused (403 `not_yours`, or 404
where even its existence is nobody's business).

A platform hands calls on with the token that came along; what it hands on is decided at the party
whose door it is, by its table below.
"""


@dataclass(frozen=True, order=True)
class Door:
    """A call and the roles that may make it (see :func:`~.common.openapi.who_may`)."""

    path: str
    method: str
    roles: tuple[str, ...] | None

    @property
    def who(self) -> str:
        if self.roles is None:
            return "anybody"
        return ", ".join(f"`{one}`" if one in KINDS else one for one in self.roles) or "any role"


def doors_of(app: FastAPI) -> list[Door]:
    """Every call that an application answers by itself."""
    return sorted(
        Door(route.path_format, method, who_may(route))
        for route in routes_of(app.routes)
        for method in route.methods or ()
    )


def common_doors() -> set[tuple[str, str]]:
    """(path, method) of those that every party has."""
    return {
        (route.path_format, method)
        for router in COMMON_DOORS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }


def one_of_each_kind(folder: Path) -> Mapping[str, FastAPI]:
    """An application of each kind of party of the default ecosystem, not running."""
    ecosystem = load(data=folder)
    return {
        kind: create_app(ecosystem, ecosystem.of_kind(kind)[0].name)
        for kind in KINDS
        if ecosystem.of_kind(kind)
    }


def as_markdown(apps: Mapping[str, FastAPI]) -> str:
    """docs/roles.md."""
    common = common_doors()
    parts = [HEAD]
    first = next(iter(apps.values()))
    parts += ["## At every party\n", _table(d for d in doors_of(first) if _key(d) in common)]
    for kind, app in apps.items():
        own = [door for door in doors_of(app) if _key(door) not in common]
        parts += [f"## {kind}: {KINDS[kind]}\n", _table(own)]
    return "\n".join(parts)


def _key(door: Door) -> tuple[str, str]:
    return door.path, door.method


def _table(doors: Iterable[Door]) -> str:
    rows = [f"| {door.method} | `{door.path}` | {door.who} |" for door in doors]
    return "\n".join(["| | call | who |", "|-|-|-|", *rows]) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sys.stdout.write(as_markdown(one_of_each_kind(Path(folder))))


if __name__ == "__main__":
    main()
