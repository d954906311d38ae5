"""Plays the demonstration on the terminal: starts a fresh ecosystem, tells each step."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from services.ecosystem import Ecosystem
from services.serve import running

from ..demo import TITLES, Demo
from ..lab import Lab
from ..processes import running_in_processes
from ..story import Step, Story
from .output import err, out


async def play(ecosystem: Ecosystem, *, processes: bool, pausing: bool, quiet: bool) -> Story:
    """The story of one demonstration; its ecosystem is gone afterwards."""
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
