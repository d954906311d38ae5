"""``pnclab bench``: what it costs, side by side with peers in the same run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .options import Json
from .output import err, out, print_json


def bench(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the figures to this file.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure against peers in the same run; exits 1 where a wanted ratio is missed."""
    import json as json_module

    from ..bench import run

    if not json:
        raise typer.Exit(run(json_file=output, console=out))
    with tempfile.TemporaryDirectory() as folder:
        file = output or Path(folder) / "bench.json"
        code = run(json_file=file, console=err)
        print_json(json_module.loads(file.read_text()))
    raise typer.Exit(code)
