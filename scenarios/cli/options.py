"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from pki.trust import TRUST_MODELS
from services.common.clock import Clock
from services.ecosystem import Ecosystem, EcosystemError, load

EcosystemFile = Annotated[
    Path | None,
    typer.Option(
        "--ecosystem",
        "-e",
        help="The ecosystem file; ./ecosystem.toml where there is one, else the default.",
    ),
]
DataFolder = Annotated[
    Path | None,
    typer.Option("--data", help="Where databases and sealing secrets lie; overrides the file."),
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        "--policy", help="NAME=VALUE for every party that has it, e.g. identifiers=lenient."
    ),
]
TrustModelName = Annotated[
    str | None,
    typer.Option("--trust-model", help=f"Overrides the file: {', '.join(TRUST_MODELS)}."),
]
At = Annotated[
    str | None,
    typer.Option("--at", help="Start the ecosystem's clock at this instant (ISO 8601)."),
]
Faults = Annotated[
    bool, typer.Option("--faults", help="Let the parties have faults (`pnclab fault`).")
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON on stdout.")]


# Certificates know 1950 to 9999; the roots' forty years must fit behind the clock.
_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def chosen_ecosystem(
    file: Path | None,
    data: Path | None = None,
    policies: Sequence[str] | None = None,
    trust_model: str | None = None,
    at: str | None = None,
    *,
    faults: bool = False,
) -> Ecosystem:
    """The ecosystem that the options name. EcosystemError says what does not fit."""
    if file is None and Path("ecosystem.toml").is_file():
        file = Path("ecosystem.toml")
    ecosystem = load(file, data=data)
    if trust_model is not None:
        if trust_model not in TRUST_MODELS:
            raise EcosystemError(
                f"--trust-model: {trust_model!r} is none of {', '.join(TRUST_MODELS)}"
            )
        ecosystem = replace(ecosystem, trust_model=TRUST_MODELS[trust_model])
    chosen = {}
    for policy in policies or ():
        name, equals, value = policy.partition("=")
        if not equals:
            raise EcosystemError(f"--policy {policy!r}: NAME=VALUE is wanted")
        chosen[name] = value
    if at is not None:
        ecosystem = replace(ecosystem, clock_offset=Clock.showing(_instant(at)).offset)
    if faults:
        ecosystem = replace(ecosystem, faults=True)
    return ecosystem.with_policies(chosen)


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise EcosystemError(
            f"--at: {text!r} is not an instant such as 2027-01-31T12:00Z"
        ) from None
    found = found if found.tzinfo else found.replace(tzinfo=UTC)
    if not _EARLIEST <= found <= _LATEST:
        raise EcosystemError(f"--at: {text} lies outside the years 1970 to 2200")
    return found
