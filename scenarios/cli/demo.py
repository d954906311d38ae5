"""``pnclab demo``: play the eight steps, write the picture."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from services.ecosystem import Ecosystem
from services.serve import running

from ..demo import TITLES, Demo
from ..lab import Lab
from ..processes import running_in_processes
from ..story import Step, Story
from .options import EcosystemFile, Json, TrustModelName, chosen_ecosystem
from .output import err, fail, out, print_json, quiet_libraries


def demo(
    step: Annotated[bool, typer.Option("--step", help="Pause after each step.")] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the picture is written.")
    ] = Path("demo.html"),
    processes: Annotated[
        bool, typer.Option("--processes", help="Every party in a process of its own.")
    ] = False,
    ecosystem: EcosystemFile = None,
    trust_model: TrustModelName = None,
    json: Json = False,
) -> None:
    """Play one car's life, from the factory to a paid charge, and draw it.

    Starts a fresh ecosystem on free ports of loopback, plays the eight steps on it, writes
    demo.html and forgets the ecosystem.
    """
    quiet_libraries()
    began = time.monotonic()
    if not output.parent.is_dir():
        fail(f"--output: there is no folder {output.parent}", 2)
    chosen = chosen_ecosystem(ecosystem, trust_model=trust_model)
    story = asyncio.run(_play(chosen, processes=processes, pausing=step, quiet=json))
    # Imported here: no other command draws.
    from ..report import render

    drawing = time.monotonic()
    try:
        output.write_text(render(story), encoding="utf-8")
    except OSError as error:
        fail(f"--output: {output} cannot be written: {error.strerror}", 2)
    story.seconds["picture"] = round(time.monotonic() - drawing, 3)
    story.seconds["all"] = round(time.monotonic() - began, 3)
    if json:
        print_json({**story.summary(), "picture": str(output)})
    else:
        out.print(f"\n[bold]{output}[/] shows it all ({story.seconds['all']:.1f} s).")


async def _play(ecosystem: Ecosystem, *, processes: bool, pausing: bool, quiet: bool) -> Story:
    with tempfile.TemporaryDirectory(prefix="pnclab-demo-") as folder:
        fresh = ecosystem.in_folder(Path(folder)).on_free_ports()
        starting = time.monotonic()
        async with _started(fresh, processes=processes, quiet=quiet), Lab(fresh) as lab:
            started = round(time.monotonic() - starting, 3)
            tell = _Teller(pausing, quiet)
            story = await Demo(fresh, tell.step).play(lab)
        story.seconds = {"start": started, **story.seconds}
        return story


@contextlib.asynccontextmanager
async def _started(ecosystem: Ecosystem, *, processes: bool, quiet: bool) -> AsyncIterator[None]:
    how = "a process each" if processes else "one process"
    text = f"Starting {len(ecosystem.parties)} parties, {how}"
    with Progress(
        SpinnerColumn(),
        TextColumn(text),
        TextColumn("[dim]{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=err,
        transient=True,
        disable=quiet,
    ) as progress:
        task = progress.add_task("", total=len(ecosystem.parties))
        start = running_in_processes if processes else running
        context = start(ecosystem, on_ready=lambda _name: progress.advance(task))
        await context.__aenter__()
    try:
        yield
    finally:
        await context.__aexit__(None, None, None)


class _Teller:
    """Prints each step as it is finished, and pauses where that was asked for."""

    def __init__(self, pausing: bool, quiet: bool) -> None:
        self.pausing = pausing
        self.quiet = quiet

    async def step(self, step: Step) -> None:
        if self.quiet:
            return
        out.print(f"\n[bold]{step.number}. {step.title}[/]")
        if self.pausing:
            out.print(f"[dim]{step.text}[/]")
        out.print(f"   [green]✓[/] {step.result}")
        if self.pausing and step.number < len(TITLES):
            await asyncio.to_thread(_pause)


def _pause() -> None:
    with contextlib.suppress(EOFError):
        input("   (Enter goes on) ")
