"""``pnclab scenario``: what the library has, what a scenario says, how it goes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from services.common.problems import WrongUseError

from .options import EcosystemFile, Json, TrustModelName, chosen_ecosystem
from .output import err, fail, out, print_json, quiet_libraries

if TYPE_CHECKING:
    from services.ecosystem import Ecosystem

    from ..playing import Result
    from ..scenario import Scenario

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
        table.add_column(column, overflow="fold")
    for one in known.values():
        table.add_row(
            one.name, one.stage, escape("\n".join(_endings(one))), "yes" if one.twin else ""
        )
    out.print(table)


def _endings(one: Scenario) -> list[str]:
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

    Exit code 0 when all ended as declared, 1 when one did not, 2 when a file cannot be
    written or something is asked for that there is not; nothing is played then.
    """
    from ..playing import not_played
    from ..scenario import chosen, parts_of

    quiet_libraries()
    if bool(names) == everything:
        fail("name scenarios, or say --all", 2)
    wanted = chosen(names or [], everything)
    _check_writable(junit, report)
    ecosystem_value = chosen_ecosystem(ecosystem, trust_model=trust_model)
    parts = parts_of(wanted)
    results: list[Result] = []
    began = time.monotonic()
    try:
        asyncio.run(_play(ecosystem_value, wanted, database, results, quiet=json))
    finally:
        seconds = time.monotonic() - began
        # What was played is told also where it did not go on.
        done = {result.part.name: result for result in results}
        told = [done.get(part.name) or not_played(part) for part in parts]
        _write(told, seconds, ecosystem_value, junit, report, quiet=json)
    bad = [result for result in told if result.problems]
    skipped = [result for result in told if result.skipped]
    if json:
        print_json(
            {
                "as_declared": not bad,
                "played": len(told) - len(skipped),
                "not_as_declared": len(bad),
                "skipped": len(skipped),
                "seconds": round(seconds, 1),
                "results": [result.as_dict() for result in told],
            }
        )
    else:
        good = len(told) - len(bad) - len(skipped)
        out.print(
            f"\n{good} of {_count(len(told), 'play')} of {_count(len(wanted), 'scenario')} "
            f"ended as declared"
            + (f", [red]{len(bad)} did not[/]" if bad else "")
            + (f", {len(skipped)} skipped" if skipped else "")
            + f" ({seconds:.0f} s)."
        )
        for file, shows in ((report, "shows them"), (junit, "has them for a CI server")):
            if file is not None:
                out.print(f"[bold]{escape(str(file))}[/] {shows}.")
        if bad:
            again = dict.fromkeys(result.part.scenario.name for result in bad)
            out.print(f"Again: pnclab scenario run {' '.join(again)}")
    if bad:
        raise typer.Exit(1)


def _check_writable(junit: Path | None, report: Path | None) -> None:
    """WrongUseError where what is to be written cannot be; nothing was played then."""
    from ..report.scenarios import plays_folder

    if junit is not None and report is not None and junit.resolve() == report.resolve():
        raise WrongUseError(f"--junit and --report are one file: {junit}")
    for option, file in (("--junit", junit), ("--report", report)):
        if file is None:
            continue
        if not file.parent.is_dir():
            raise WrongUseError(f"{option}: there is no folder {file.parent}")
        if file.is_dir():
            raise WrongUseError(f"{option}: {file} is a folder, a file is wanted")
        _try(option, file)
    if report is not None:
        folder = plays_folder(report)
        if folder.exists() and not folder.is_dir():
            raise WrongUseError(f"--report: the plays go into {folder}, which is a file")
        if folder.is_dir():
            _try("--report", folder / f"{report.stem}.try")


def _try(option: str, file: Path) -> None:
    """Open ``file`` for writing, and leave it as it was."""
    there = file.exists()
    try:
        with file.open("ab"):
            pass
    except OSError as error:
        raise WrongUseError(f"{option}: cannot write {file}: {error.strerror}") from None
    if not there:
        file.unlink()


def _write(
    told: list[Result],
    seconds: float,
    ecosystem: Ecosystem,
    junit: Path | None,
    report: Path | None,
    *,
    quiet: bool,
) -> None:
    from ..junit import junit_xml
    from ..report.scenarios import write_report

    try:
        if junit is not None:
            junit.write_text(junit_xml(told, seconds), encoding="utf-8")
        if report is not None:
            with err.status("drawing the report") if not quiet else contextlib.nullcontext():
                write_report(told, ecosystem, report)
    except OSError as error:
        raise WrongUseError(f"cannot write {error.filename}: {error.strerror}") from None


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


async def _play(
    ecosystem: Ecosystem,
    wanted: list[Scenario],
    database: str | None,
    results: list[Result],
    *,
    quiet: bool,
) -> None:
    """Play, and put each result into ``results`` when it is there."""
    from ..playing import play
    from ..scenario import parts_of

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.completed} of {task.total} plays"),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=quiet or not err.is_terminal,
    ) as progress:
        task = progress.add_task("", total=len(parts_of(wanted)))
        async for result in play(ecosystem, wanted, database=database):
            results.append(result)
            progress.advance(task)
            if not quiet:
                _tell(result)


def _tell(result: Result) -> None:
    mark = "[green]✓[/]" if result.good else "[yellow]–[/]" if result.skipped else "[red]✕[/]"
    seen = [f"{name}: {ending}" if name else str(ending) for name, ending in result.seen.items()]
    head = f"{mark} [bold]{escape(result.part.name)}[/]"
    spent = f"[dim]{result.seconds:.1f} s[/]"
    if result.skipped or len(seen) <= 1:
        said = result.skipped or "".join(seen) or "did not get through"
        out.print(f"{head}: {escape(said)} {spent}")
    else:
        out.print(f"{head} {spent}")
        for line in seen:
            out.print(f"    {escape(line)}")
    for problem in result.problems:
        out.print(f"    [red]{escape(problem)}[/]")
