"""Puts the commands together and turns errors into one line and an exit code.

What only one command needs is imported by that command when it runs: services and the
database take two seconds, `pnclab exi` needs none of them.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from services.common.problems import NotAsExpectedError, WrongUseError

from . import (
    bench,
    bring,
    clock,
    demo,
    endure,
    events,
    exi,
    fault,
    init,
    pki,
    reset,
    run,
    scenario,
    sizes,
    trust,
)
from .output import VERSION, fail

app = typer.Typer(
    name="pnclab",
    help="A Plug & Charge certificate ecosystem on one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("up")(run.up)
app.command("serve")(run.serve)
app.command("reset")(reset.reset)
app.command("bench")(bench.bench)
app.command("endure")(endure.endure)
app.command("init")(init.init)
app.command("check")(init.check)
app.command("sizes")(sizes.sizes)
app.add_typer(pki.app, name="pki")
app.add_typer(clock.app, name="clock")
app.add_typer(exi.app, name="exi")
app.add_typer(events.app, name="events")
app.add_typer(fault.app, name="fault")
app.add_typer(trust.app, name="trust")
app.add_typer(bring.app, name="bring")
app.add_typer(scenario.app, name="scenario")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pnclab {VERSION}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """A Plug & Charge certificate ecosystem on one machine."""


def main() -> None:
    """The entry point of the command ``pnclab``."""
    try:
        app()
    except WrongUseError as error:
        fail(str(error), 2)
    except NotAsExpectedError as error:
        fail(str(error), 1)
    except BrokenPipeError:
        # Whoever read our output has gone away; nothing is left to say.
        sys.stderr.close()
        sys.exit(1)
