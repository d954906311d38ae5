"""``pnclab clock``: the ecosystem's time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Annotated, Any

import typer

from services.common.clock import (
    Clock,
    ClockError,
    DurationError,
    Moved,
    OutOfRangeError,
    duration,
    duration_text,
    instant,
)
from services.ecosystem import Ecosystem

from .options import DataFolder, EcosystemFile, Json, chosen_ecosystem
from .output import err, fail, out, print_json, quiet_libraries

app = typer.Typer(help="The ecosystem's time.", no_args_is_help=True)

REAL = "real"

Parties = Annotated[
    list[str] | None,
    typer.Option("--party", help="Only this party, again for more; all of them where left out."),
]
Standing = Annotated[
    bool | None,
    typer.Option(
        "--standing/--running", help="Whether time stands from then on, until it is set again."
    ),
]


@app.callback()
def _group() -> None:
    """The ecosystem's time: validity, tokens, OCSP and renewal follow it."""


@app.command("show")
def show(
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    party: Parties = None,
    json: Json = False,
) -> None:
    """Show what the clock shows: at the parties that run, else in the data folder."""
    quiet_libraries()
    chosen = chosen_ecosystem(ecosystem, data)
    found = asyncio.run(_show(chosen, _names(chosen, party)))
    if json:
        print_json(found)
        return
    out.print(_shown(found))
    if not found["running"]:
        out.print("[dim]No party runs; this is what the next start will have.[/]")
    for name, clock in found["parties"].items():
        if clock["differs"]:
            out.print(f"[yellow]{name} has another time:[/] {_shown(clock)}")


@app.command("set")
def set_to(
    to: Annotated[
        str, typer.Argument(metavar="INSTANT", help="ISO 8601, UTC without a zone; or: real.")
    ],
    standing: Standing = None,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    party: Parties = None,
    json: Json = False,
) -> None:
    """Set the clock to an instant, or back to real time, and have everybody renew what is due."""
    body: dict[str, Any] = {REAL: True}
    if to != REAL:
        try:
            body = {"instant": instant(to).isoformat()}
        except ClockError as error:
            fail(f"INSTANT: {error}", 2)
    _move(body, standing, ecosystem, data, party, json)


@app.command("advance", context_settings={"ignore_unknown_options": True})
def advance(
    by: Annotated[
        str,
        typer.Argument(metavar="DURATION", help="30d, 2w, 1y, 12h, 10m, P30D; -3d goes back."),
    ],
    standing: Standing = None,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    party: Parties = None,
    json: Json = False,
) -> None:
    """Move the clock by a duration, and have everybody renew what is due."""
    try:
        duration(by)
    except DurationError as error:
        fail(f"DURATION: {error}", 2)
    _move({"advance": by}, standing, ecosystem, data, party, json)


def _move(
    body: dict[str, Any],
    standing: bool | None,
    file: Any,
    data: Any,
    party: list[str] | None,
    json: bool,
) -> None:
    quiet_libraries()
    chosen = chosen_ecosystem(file, data)
    if standing is not None:
        body["standing"] = standing
    found = asyncio.run(_moved(chosen, body, _names(chosen, party), quiet=json))
    if json:
        print_json(found)
    else:
        _print_moved(chosen, found)


def _names(ecosystem: Ecosystem, wanted: list[str] | None) -> list[str]:
    return [ecosystem.party(name).name for name in wanted or ecosystem.parties]


# -------------------------------------------------------------------------------- asking


async def _show(ecosystem: Ecosystem, names: list[str]) -> dict[str, Any]:
    from ..lab import Lab
    from ..timing import same, up_and_down

    async with Lab(ecosystem) as lab:
        up, down = await up_and_down(lab, names)
        clocks = {name: await lab.call(name, "GET", "/clock") for name in up}
    if not clocks:
        setting = Clock.read_in(ecosystem.data, ecosystem.clock_offset)
        return {
            "running": False,
            "now": setting.now().isoformat(),
            "offset_seconds": setting.offset.total_seconds(),
            "standing": setting.standing is not None,
            "parties": {},
            "down": down,
        }
    first = clocks[up[0]]
    parties = {name: {**clock, "differs": not same(first, clock)} for name, clock in clocks.items()}
    return {"running": True, **first, "parties": parties, "down": down}


async def _moved(
    ecosystem: Ecosystem, body: dict[str, Any], names: list[str], *, quiet: bool
) -> dict[str, Any]:
    from ..lab import Lab
    from ..timing import move, settle, up_and_down

    async with Lab(ecosystem) as lab:
        up, down = await up_and_down(lab, names)
        if not up:
            return _moved_file(ecosystem, body)
        with err.status("Moving the clock …") as status:
            if quiet:
                status.stop()
            answer = await move(lab, body, up)
            settled = await settle(
                lab, up, lambda turn, whose: status.update(f"Jobs, turn {turn}: {whose} …")
            )
    moved = {key: answer[key] for key in ("before", "now", "offset_seconds", "standing")}
    # What the one who was told first did at once belongs to the whole.
    first = [
        {"party": answer["set"][0], "job": job["job"], "what": what}
        for job in answer["jobs"]
        for what in job["done"]
    ]
    told = settled.as_dict()
    told["done"] = first + told["done"]
    return {"running": True, **moved, "warnings": answer["warnings"], **told, "down": down}


def _moved_file(ecosystem: Ecosystem, body: dict[str, Any]) -> dict[str, Any]:
    """Nobody runs: set the clock in the data folder."""
    clock = Clock.kept_in(ecosystem.data, ecosystem.clock_offset)
    standing = body.get("standing")
    try:
        moved: Moved
        if "instant" in body:
            moved = clock.show(instant(body["instant"]), standing=bool(standing))
        elif "advance" in body:
            moved = clock.advance(duration(body["advance"]), standing=standing)
        else:
            moved = clock.show_real(standing=bool(standing))
    except OutOfRangeError as error:
        fail(f"{error}; nothing has moved", 2)
    return {
        "running": False,
        "before": moved.before.isoformat(),
        "now": moved.after.isoformat(),
        "offset_seconds": clock.setting.offset.total_seconds(),
        "standing": moved.standing,
        "warnings": [],
        "done": [],
        "waits": [],
        "turns": 0,
        "finished": True,
        "down": list(ecosystem.parties),
    }


# -------------------------------------------------------------------------------- telling


def _shown(clock: dict[str, Any]) -> str:
    now = clock["now"][:19].replace("T", " ")
    if clock["standing"]:
        return f"[bold]{now}Z[/], standing"
    offset = timedelta(seconds=round(clock["offset_seconds"]))
    if not offset:
        return f"[bold]{now}Z[/], real time"
    side = "ahead of" if offset > timedelta() else "behind"
    return f"[bold]{now}Z[/], {duration_text(abs(offset))} {side} real time"


def _print_moved(ecosystem: Ecosystem, found: dict[str, Any]) -> None:
    out.print(f"{found['before'][:19].replace('T', ' ')}Z → {_shown(found)}")
    for warning in found["warnings"]:
        err.print(f"[yellow]warning:[/] {warning}")
    if not found["running"]:
        out.print(
            f"Nothing runs at the parties' addresses: the clock in {ecosystem.data} is set, the "
            "next start has it; what is due is renewed then."
        )
        return
    if found["done"]:
        out.print(f"\n[bold]Done[/] ({len(found['done'])}, in {found['turns']} turns)")
    else:
        out.print("Nothing was due.")
    for one in found["done"]:
        out.print(f"  {one['party']}: {one['what']}")
    if found["waits"]:
        out.print("\n[bold]Still waiting[/]")
    for one in found["waits"]:
        out.print(f"  [yellow]{one['party']}[/]: {one['what']}: {one['why']}")
    if not found["finished"]:
        err.print("[yellow]warning:[/] after so many turns there was still something to do")
    if found["down"]:
        out.print(
            f"\nNot running: {', '.join(found['down'])}. Those that share the data folder have "
            "this time when they start."
        )
