"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from pki.profiles import STYLES, Role
from pki.trust import TRUST_MODELS
from services.common.clock import Clock, ClockError, instant
from services.common.reach import CLIENT_CERTIFICATES
from services.ecosystem import Ecosystem, EcosystemError, lifetime, load, style
from services.ecosystem import backdate as read_backdate

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
Resettable = Annotated[
    bool,
    typer.Option("--resettable", help="Let the parties go back to a known state (`pnclab reset`)."),
]
Backdate = Annotated[
    str | None,
    typer.Option(
        "--backdate", help="Certificates begin that much earlier, e.g. 400d; overrides the file."
    ),
]
Lifetimes = Annotated[
    list[str] | None,
    typer.Option(
        "--lifetime",
        help="ROLE=DURATION instead of the profile's life, e.g. contract=10m; over the file's.",
    ),
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        "--database", help="A PostgreSQL URL for all parties, each in a schema of its own."
    ),
]
Listen = Annotated[
    str | None,
    typer.Option(
        "--listen",
        help="Further IP addresses, with commas between, at which every party listens at its own "
        "port, and chargers' cables at theirs: 192.0.2.7, 0.0.0.0, ::.",
    ),
]
PublicUrl = Annotated[
    str | None,
    typer.Option(
        "--public-url",
        help="What stands in certificates and answers, each party's port behind it "
        "(https://192.0.2.7), or with {name} or {port} in it; the first address of --listen.",
    ),
]
Https = Annotated[
    bool | None,
    typer.Option(
        "--https/--no-https",
        help="TLS at the addresses of --listen, with a certificate of the ecosystem's own CA.",
    ),
]
HttpsCertificate = Annotated[
    Path | None,
    typer.Option("--https-certificate", help="TLS with this certificate and chain instead (PEM)."),
]
HttpsKey = Annotated[
    Path | None,
    typer.Option("--https-key", help="Its private key, where it lies in a file of its own (PEM)."),
]
ClientCa = Annotated[
    Path | None,
    typer.Option("--client-ca", help="Clients show a certificate by one of these CAs (PEM)."),
]
ClientCertificates = Annotated[
    str | None,
    typer.Option(
        "--client-certificates", help=f"With --client-ca: {' or '.join(CLIENT_CERTIFICATES)}."
    ),
]
Certificates = Annotated[
    str | None,
    typer.Option("--certificates", help=f"{' or '.join(STYLES)}; compact ones are small."),
]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON on stdout.")]


def chosen_ecosystem(
    file: Path | None,
    data: Path | None = None,
    policies: Sequence[str] | None = None,
    trust_model: str | None = None,
    at: str | None = None,
    *,
    faults: bool = False,
    resettable: bool = False,
    backdate: str | None = None,
    lifetimes: Sequence[str] | None = None,
    database: str | None = None,
    reach: Mapping[str, Any] | None = None,
    certificates: str | None = None,
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
    if database is not None:
        ecosystem = ecosystem.on_database(database)
    chosen = {}
    for policy in policies or ():
        name, equals, value = policy.partition("=")
        if not equals:
            raise EcosystemError(f"--policy {policy!r}: NAME=VALUE is wanted")
        chosen[name] = value
    if at is not None:
        ecosystem = replace(ecosystem, clock_offset=Clock.showing(_instant(at)).setting.offset)
    if backdate is not None:
        ecosystem = replace(ecosystem, backdate=read_backdate(backdate, "--backdate"))
    if lifetimes:
        ecosystem = replace(ecosystem, lifetimes=_lifetimes(ecosystem, lifetimes))
    if certificates is not None:
        ecosystem = replace(ecosystem, certificates=style(certificates, "--certificates"))
    if reach:
        ecosystem = ecosystem.with_reach(reach)
    if faults:
        ecosystem = replace(ecosystem, faults=True)
    if resettable:
        ecosystem = replace(ecosystem, resettable=True)
    return ecosystem.with_policies(chosen)


def _instant(text: str) -> datetime:
    try:
        return instant(text)
    except ClockError as error:
        raise EcosystemError(f"--at: {error}") from None


def _lifetimes(ecosystem: Ecosystem, wanted: Sequence[str]) -> dict[Role, timedelta]:
    lives = dict(ecosystem.lifetimes)
    for entry in wanted:
        role, equals, text = entry.partition("=")
        if not equals:
            raise EcosystemError(f"--lifetime {entry!r}: ROLE=DURATION is wanted")
        found, life = lifetime(role, text, ecosystem.edition, f"--lifetime {role}")
        lives[found] = life
    return lives
