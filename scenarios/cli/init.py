"""``pnclab init``, ``pnclab check``: an ecosystem file to begin with, what is wrong with one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from services.common.problems import WrongUseError
from services.ecosystem import Ecosystem, default_text, load

from .options import Json
from .output import out, print_json

File = Annotated[Path, typer.Argument(help="The ecosystem file.")]


def init(
    file: File = Path("ecosystem.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    only_check: Annotated[
        bool, typer.Option("--check", help="Write nothing: say what is wrong with the file.")
    ] = False,
    json: Json = False,
) -> None:
    """Write the default ecosystem as a commented file to change; with --check, check one."""
    if only_check:
        check(file, json)
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as text:
            text.write(default_text())
    except FileExistsError:
        raise WrongUseError(f"{file} is there already; --force overwrites it") from None
    except OSError as error:
        raise WrongUseError(f"{file}: {error.strerror}") from None
    if json:
        print_json({"file": str(file)})
    else:
        out.print(f"{file} is written. Change it, then: pnclab check {file}; pnclab up -e {file}")


def check(file: File = Path("ecosystem.toml"), json: Json = False) -> None:
    """Say what is wrong with an ecosystem file, each problem with line and key; starts nothing."""
    ecosystem = load(file)
    if json:
        print_json({"file": str(file), "name": ecosystem.name, "parties": list(ecosystem.parties)})
    else:
        out.print(f"{file} holds together: {_summary(ecosystem)}")


def _summary(ecosystem: Ecosystem) -> str:
    kinds: dict[str, int] = {}
    for party in ecosystem.parties.values():
        kinds[party.kind] = kinds.get(party.kind, 0) + 1
    parts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"{len(ecosystem.parties)} parties ({parts}), trust model {ecosystem.trust_model}"
