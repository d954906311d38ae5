"""``pnclab scenario``: what the library has, what a scenario says, how it goes."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from services.common.problems import WrongUseError

from .options import EcosystemFile, Json, TrustModelName, chosen_ecosystem
from .output import err, fail, out, print_json, quiet_libraries

app = typer.Typer(
    name="scenario",
    help="Stories with a declared ending: list them, read one, play them.",
    no_args_is_help=True,
)


@app.command("list")
def list_scenarios(json: Json = False) -> None:
    """All scenarios: where each is decided, and how it must end."""
    from ..scenario import catalogue, described

    known = catalogue()
    if json:
        print_json([described(one) for one in known.values()])
        return
    table = Table(show_lines=False)
    for column in ("scenario", "decided at", "ends", "twin"):
        table.add_column(column)
    for one in known.values():
        table.add_row(one.name, one.stage, "\n".join(_endings(one)), "yes" if one.twin else "")
    out.print(table)


def _endings(one: Any) -> list[str]:
    lines = []
    for name, play in one.plays.items():
        for visit, ending in play.endings.items():
            label = ", ".join(part for part in (name, visit) if part)
            lines.append(f"{label}: {ending}" if label else str(ending))
    return lines


@app.command("show")
def show(name: str, json: Json = False) -> None:
    """What a scenario tells, under which policies, and how it must end."""
    from ..scenario import chosen, described

    for one in chosen([name], everything=False):
        if json:
            print_json(described(one))
            continue
        out.print(f"[bold]{one.name}[/]: {escape(one.text)}\n")
        for label, play in one.plays.items():
            policies = ", ".join(f"{key}={value}" for key, value in play.policies.items())
            out.print(f"  [bold]{label or 'played'}[/]{f' with {policies}' if policies else ''}")
            for visit, ending in play.endings.items():
                out.print(f"    {visit + ': ' if visit else ''}{escape(str(ending))}")
        if one.twin:
            out.print("  [bold]twin[/], without the spoiling")
            for visit, ending in one.twin.endings.items():
                out.print(f"    {visit + ': ' if visit else ''}{escape(str(ending))}")


@app.command("run")
def run(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names, or patterns such as 'revoked-*'.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    junit: Annotated[Path | None, typer.Option(help="Write the results as JUnit XML.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Write a page with every scenario; its plays go beside it."),
    ] = None,
    database: Annotated[
        str | None,
        typer.Option(help="A PostgreSQL server on which databases may be made; else SQLite."),
    ] = None,
    ecosystem: EcosystemFile = None,
    trust_model: TrustModelName = None,
    json: Json = False,
) -> None:
    """Play scenarios on fresh ecosystems, and compare each ending with the declared one.

    Exit code 0 when all ended as declared, 1 when one did not.
    """
    from ..scenario import chosen, parts_of

    quiet_libraries()
    if bool(names) == everything:
        fail("name scenarios, or say --all", 2)
    wanted = chosen(names or [], everything)
    for file in (junit, report):
        if file is not None and not file.parent.is_dir():
            raise WrongUseError(f"there is no folder {file.parent}")
    ecosystem_value = chosen_ecosystem(ecosystem, trust_model=trust_model)
    began = time.monotonic()
    results = asyncio.run(_play(ecosystem_value, wanted, database, quiet=json))
    order = {part.name: number for number, part in enumerate(parts_of(wanted))}
    results.sort(key=lambda result: order[result.part.name])
    seconds = time.monotonic() - began
    if junit is not None:
        from ..junit import junit_xml

        junit.write_text(junit_xml(results, seconds), encoding="utf-8")
    if report is not None:
        from ..report.scenarios import write_report

        write_report(results, ecosystem_value, report)
    bad = [result for result in results if result.problems]
    skipped = [result for result in results if result.skipped]
    if json:
        print_json(
            {
                "as_declared": not bad,
                "played": len(results) - len(skipped),
                "not_as_declared": len(bad),
                "skipped": len(skipped),
                "seconds": round(seconds, 1),
                "results": [result.as_dict() for result in results],
            }
        )
    else:
        good = len(results) - len(bad) - len(skipped)
        out.print(
            f"\n{good} plays of {len(wanted)} scenarios ended as declared, {len(bad)} did not"
            + (f", {len(skipped)} were skipped" if skipped else "")
            + f" ({seconds:.0f} s)."
        )
        if report is not None:
            out.print(f"[bold]{report}[/] shows them.")
    if bad:
        raise typer.Exit(1)


async def _play(ecosystem: Any, wanted: Any, database: str | None, *, quiet: bool) -> list[Any]:
    from ..playing import play
    from ..scenario import parts_of

    results = []
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.completed}/{task.total} plays"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=quiet,
    ) as progress:
        task = progress.add_task("", total=len(parts_of(wanted)))
        async for result in play(ecosystem, wanted, database=database):
            results.append(result)
            progress.advance(task)
            if not quiet:
                _tell(result)
    return results


def _tell(result: Any) -> None:
    mark = "[green]✓[/]" if result.good else "[yellow]–[/]" if result.skipped else "[red]✕[/]"
    seen = "; ".join(
        f"{name}: {ending}" if name else str(ending) for name, ending in result.seen.items()
    )
    out.print(
        f"{mark} [bold]{result.part.name}[/]: {escape(result.skipped or seen)} "
        f"[dim]{result.seconds:.1f} s[/]"
    )
    for problem in result.problems:
        out.print(f"    [red]{escape(problem)}[/]")
