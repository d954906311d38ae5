"""``pnclab reset``: all parties go back to their known state."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import typer

from services.common.errors import Refusal
from services.common.problems import NotAsExpectedError
from services.ecosystem import Ecosystem

from .options import DataFolder, EcosystemFile, Json, chosen_ecosystem
from .output import out, print_json, quiet_libraries


def reset(
    mark: Annotated[
        bool,
        typer.Option("--mark", help="Go nowhere: what is now is the known state from now on."),
    ] = False,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Have all parties go back to their known state: rows, clock, faults.

    That is the one they had when `pnclab up --resettable` was ready the first time, or were
    last told to mark.
    """
    quiet_libraries()
    done = asyncio.run(_reset(chosen_ecosystem(ecosystem, data), mark))
    if json:
        print_json(done)
        return
    count, spent = len(done["parties"]), done["milliseconds"]
    if mark:
        out.print(f"{count} parties take what they have as their known state ({spent:.0f} ms).")
        return
    rows = sum(one["rows"] for one in done["parties"])
    since = min(one["marked_at"] for one in done["parties"])[:19].replace("T", " ")
    out.print(
        f"{count} parties are back in their state of [bold]{since}Z[/]: {rows} rows in "
        f"[bold]{spent:.0f} ms[/]."
    )


async def _reset(ecosystem: Ecosystem, mark: bool) -> dict[str, Any]:
    from services.common.known_state import reset_all

    from ..lab import Lab, LabError

    async with Lab(ecosystem) as lab:

        async def step(name: str, which: str) -> Any:
            try:
                answer = await lab.call(name, "POST", f"/reset?step={which}")
            except LabError as error:
                raise Refusal(error.status or 502, error.code, str(error)) from None
            return answer["parties"][0]

        began = time.monotonic()
        names = list(ecosystem.parties)
        if platforms := [name for name in names if ecosystem.party(name).kind == "platform"]:
            path = "/reset?step=mark" if mark else "/reset"
            answer: dict[str, Any] = await lab.call(platforms[0], "POST", path)
            return answer
        try:
            if mark:
                done = list(await asyncio.gather(*(step(name, "mark") for name in names)))
            else:
                done = await reset_all(names, step)
        except Refusal as refusal:
            raise NotAsExpectedError(refusal.message) from None
        spent = round((time.monotonic() - began) * 1000, 2)
    return {"milliseconds": spent, "parties": done}
