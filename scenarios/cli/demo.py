"""``pnclab demo``: play the eight steps, write the picture."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer

from .options import EcosystemFile, Json, TrustModelName, chosen_ecosystem
from .output import fail, out, print_json, quiet_libraries


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
    from ..report import render
    from .demo_play import play

    story = asyncio.run(play(chosen, processes=processes, pausing=step, quiet=json))
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
