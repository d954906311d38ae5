"""``pnclab endure``: kill parties under load and see whether anything was missed."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .options import DatabaseUrl, EcosystemFile, Json, Policies, TrustModelName, chosen_ecosystem
from .output import err, out, print_json, quiet_libraries


def endure(
    ecosystem: EcosystemFile = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="How many kills.")] = 50,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Of the choices; made up and said without it.")
    ] = None,
    database: DatabaseUrl = None,
    policy: Policies = None,
    trust_model: TrustModelName = None,
    json: Json = False,
) -> None:
    """Kill parties at random moments under load and start them again; then compare their books
    with what was acknowledged.

    Each party is a process of its own, on free ports and in a folder that is thrown away; a
    --database is to be empty, and is left as it is. Exit code 1 when anything was missed.
    """
    from services.common.problems import StartError

    from ..endurance import Result
    from ..endurance import endure as play

    quiet_libraries()
    chosen = chosen_ecosystem(ecosystem, None, policy, trust_model, None)
    seed = secrets.randbelow(10**6) if seed is None else seed
    with (
        tempfile.TemporaryDirectory(prefix="pnclab-") as folder,
        Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=err,
            transient=True,
            disable=json,
        ) as progress,
    ):
        chosen = chosen.in_folder(Path(folder)).on_free_ports()
        if database is not None:
            chosen = chosen.on_database(database)
        starting = progress.add_task("parties ready", total=len(chosen.parties))
        killing = progress.add_task("killed and restarted", total=rounds)

        async def run() -> Result:
            return await play(
                chosen,
                rounds,
                seed,
                on_ready=lambda _name: progress.advance(starting),
                on_round=lambda _number, _name: progress.advance(killing),
            )

        try:
            result = asyncio.run(run())
        except StartError as error:
            raise StartError(f"{error} (seed {seed})") from None
    if json:
        print_json(result.as_dict())
    else:
        _print(result)
    raise typer.Exit(1 if result.defects else 0)


def _print(result: Any) -> None:
    out.print(f"{result.rounds} kills in {result.seconds:g} s, seed {result.seed}")
    for title, counts in (
        ("killed", result.kills),
        ("acknowledged", result.acknowledged),
        ("seconds until a party is back", result.restart_seconds),
        ("answers", result.answers),
    ):
        out.print(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    for defect in result.defects:
        out.print(f"[bold red]missed:[/] {defect}", markup=True)
    if not result.defects:
        out.print("[green]✓[/] everything that was acknowledged is there, and the books balance")
