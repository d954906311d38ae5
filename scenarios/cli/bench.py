"""``pnclab bench``: what it costs, side by side with peers in the same run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bench(
    output: Annotated[
        Path | None, typer.Option("--json", help="Also write the figures to this file.")
    ] = None,
) -> None:
    """Measure against peers in the same run; exits 1 where a wanted ratio is missed."""
    # Imported here: the peers' tools are looked for on import of the rows.
    from scenarios.bench import run

    raise typer.Exit(run(json_file=output))
