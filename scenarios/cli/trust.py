"""``pnclab trust``: who holds which roots, which stores are stale, and how they are renewed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from services.common.problems import WrongUseError
from services.ecosystem import Ecosystem

from .options import DataFolder, EcosystemFile, Json, chosen_ecosystem
from .output import err, out, print_json, quiet_libraries

if TYPE_CHECKING:
    from ..compare.table import Row
    from ..lab import Lab

app = typer.Typer(help="Who trusts which roots.", no_args_is_help=True)

Whose = Annotated[str, typer.Argument(help="A party's name, or a car's PCID.")]
Work = Callable[["Lab"], Coroutine[Any, Any, Any]]

# The root pool's type of a root, as what it is trusted.
_ROLES = {"V2G": "v2g-root", "OEM": "oem-root", "MO": "mo-root"}


@app.callback()
def _group() -> None:
    """Who trusts which roots."""


@app.command("show")
def show(
    whose: Annotated[
        str | None, typer.Argument(help="A party's name or a car's PCID; without one, all.")
    ] = None,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Show the trust stores: anchors, version, where they came from, when they were renewed, and
    which are stale against the root pool."""
    stores = _ask(ecosystem, data, lambda lab: _stores(lab, whose))
    if json:
        print_json(stores)
        return
    for store in stores:
        state = "[yellow]stale[/]" if store["stale"] else "current"
        table = Table(
            title=f"[bold]{_title(store)}[/] version {store['version']}, {state}, from "
            f"{store['source']}, renewed {store['renewed_at'][:19]} (policy {store['policy']})",
            title_justify="left",
        )
        for column in ("trusted as", "root", "until", "from", "fingerprint"):
            table.add_column(column)
        for anchor in store["anchors"]:
            withdrawn = " [yellow](not in the pool)[/]" if _is_extra(anchor, store) else ""
            table.add_row(
                anchor["role"],
                f"{_name(anchor['subject'])}{withdrawn}",
                anchor["valid_to"][:10],
                anchor["source"],
                anchor["fingerprint"][:16],
            )
        for missing in store["missing"]:
            table.add_row(
                missing["role"],
                f"{_name(missing['subject'])} [yellow](not held)[/]",
                missing["valid_to"][:10],
                "",
                missing["fingerprint"][:16],
            )
        out.print(table)


def _title(store: dict[str, Any]) -> str:
    """Whose store it is; a maker's is the one for its cars."""
    holder: str = store["holder"]
    return holder if holder != "cars" else f"{store['party']}, for its cars:"


@app.command("renew")
def renew(
    whose: Whose, ecosystem: EcosystemFile = None, data: DataFolder = None, json: Json = False
) -> None:
    """Compare a store with where it comes from, now: a party's with the root pool, a charger's
    with its operator, a car's with the root pool (a workshop)."""
    _say(_ask(ecosystem, data, lambda lab: _change(lab, whose, "POST", "/renew")), json)


@app.command("add")
def add(
    whose: Whose,
    file: Annotated[Path, typer.Argument(help="The root: PEM, DER or base64.")],
    role: Annotated[str, typer.Option("--as", help="v2g-root, mo-root or oem-root.")] = "v2g-root",
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Put a root into a store by hand; it stays until it is removed by hand."""
    from services.common.certificates import b64, der_of

    from ..bringing import read_file

    found = read_file(file).certificates
    if role not in _ROLES.values():
        raise WrongUseError(f"--as: {role!r} is none of {', '.join(_ROLES.values())}")
    if len(found) != 1:
        raise WrongUseError(f"{file}: one root is wanted, seen are {len(found)} certificates")
    body = {"role": role, "certificate": b64(der_of(found[0])), "source": file.name[:64]}
    _say(_ask(ecosystem, data, lambda lab: _change(lab, whose, "POST", "/anchors", body)), json)


@app.command("remove")
def remove(
    whose: Whose,
    fingerprint: Annotated[str, typer.Argument(help="SHA-256 of the root, or how it begins.")],
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Take a root out of a store."""

    async def work(lab: Lab) -> Any:
        store = await lab.call(*await _doors(lab, whose))
        marks = [one["fingerprint"] for one in store["anchors"]]
        meant = [mark for mark in marks if mark.startswith(fingerprint.lower())]
        if len(meant) != 1:
            raise WrongUseError(
                f"{fingerprint}: {len(meant)} anchors of {whose} begin so; there are: "
                f"{', '.join(mark[:16] for mark in marks) or 'none'}"
            )
        return await _change(lab, whose, "DELETE", f"/anchors/{meant[0]}")

    _say(_ask(ecosystem, data, work), json)


@app.command("ota")
def ota(
    oem: Annotated[str, typer.Argument(help="The vehicle maker's name.")],
    pcid: Annotated[str | None, typer.Argument(help="A car; without one, all of its cars.")] = None,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Send a maker's set of V2G roots to its cars over the air. `renew OEM` renews the set."""

    async def work(lab: Lab) -> list[Any]:
        maker = lab.ecosystem.party(oem)
        if maker.kind != "oem":
            raise WrongUseError(f"{oem} is no vehicle maker but a {maker.kind}")
        cars = [
            (garage, car)
            for garage, car in await _cars(lab)
            if car.startswith(maker.scope_id or "") and pcid in (None, car)
        ]
        if pcid is not None and not cars:
            raise WrongUseError(f"{pcid}: no car of {oem} is in a garage of this ecosystem")
        return [
            await lab.call(garage, "POST", f"/vehicles/{quote(car, safe='')}/over-the-air")
            for garage, car in cars
        ]

    changes = _ask(ecosystem, data, work)
    if json:
        print_json(changes)
    else:
        for change in changes:
            _say(change, json=False)


# ----------------------------------------------------------------------------- how


def _ask(file: Path | None, data: Path | None, work: Work) -> Any:
    from ..lab import Lab

    quiet_libraries()
    chosen = chosen_ecosystem(file, data)

    async def ask() -> Any:
        async with Lab(chosen) as lab:
            return await work(lab)

    return asyncio.run(ask())


async def _cars(lab: Lab) -> list[tuple[str, str]]:
    return [
        (garage.name, pcid)
        for garage in lab.ecosystem.of_kind("vehicle")
        for pcid in await lab.call(garage.name, "GET", "/vehicles")
    ]


async def _doors(lab: Lab, whose: str) -> tuple[str, str, str]:
    """Where a store is looked at: party, method, path."""
    party = lab.ecosystem.parties.get(whose)
    if party is not None:
        path = _path_of(lab.ecosystem, whose)
        if path is None:
            raise WrongUseError(f"{whose} is a {party.kind} and holds no trust store")
        return whose, "GET", path
    for garage, pcid in await _cars(lab):
        if pcid == whose.upper():
            return garage, "GET", f"/vehicles/{quote(pcid, safe='')}/trust-store"
    raise WrongUseError(f"{whose}: neither a party nor a car of this ecosystem")


def _path_of(ecosystem: Ecosystem, party: str) -> str | None:
    from services.common.judging import HOLDERS

    kind = ecosystem.party(party).kind
    if kind == "oem":
        return "/over-the-air"
    return "/trust-store" if kind in HOLDERS and kind != "vehicle" else None


async def _change(lab: Lab, whose: str, method: str, path: str, body: Any = None) -> Any:
    party, _get, store = await _doors(lab, whose)
    return await lab.call(party, method, store + path, body)


async def _stores(lab: Lab, whose: str | None) -> list[dict[str, Any]]:
    from services.common.judging import HOLDERS

    from ..lab import LabError

    if whose is not None:
        doors = [await _doors(lab, whose)]
    else:
        doors = [
            (name, "GET", path)
            for name in lab.ecosystem.parties
            if (path := _path_of(lab.ecosystem, name)) is not None
        ]
        doors += [
            (garage, "GET", f"/vehicles/{quote(pcid, safe='')}/trust-store")
            for garage, pcid in await _cars(lab)
        ]
    out_of_reach: list[str] = []
    pools: dict[str, list[dict[str, Any]]] = {}
    found = []
    for party, method, path in doors:
        try:
            store = await lab.call(party, method, path)
        except LabError as error:
            if whose is not None or error.status:
                raise
            out_of_reach.append(party)
            continue
        config = lab.ecosystem.party(party)
        pool = config.uses["rcp"]
        if pool not in pools:
            pools[pool] = await lab.call(pool, "GET", "/roots")
        # A maker's set is for cars.
        kind = "vehicle" if path == "/over-the-air" else config.kind
        held = lab.ecosystem.trust_model.held[HOLDERS[kind]]
        offered = [
            {"role": _ROLES[root["type"]], **{k: root[k] for k in _OF_A_ROOT}}
            for root in pools[pool]
            if _ROLES[root["type"]] in held
        ]
        found.append({"party": party, **_compared(store, offered)})
    if out_of_reach:
        err.print(f"Not shown, since they do not answer: {', '.join(out_of_reach)}")
    return found


_OF_A_ROOT = ("fingerprint", "subject", "valid_to")


def _compared(store: dict[str, Any], offered: list[dict[str, Any]]) -> dict[str, Any]:
    """A store with what the pool has and it has not, and the other way round."""
    have = {anchor["fingerprint"] for anchor in store["anchors"]}
    there = {root["fingerprint"] for root in offered}
    missing = [root for root in offered if root["fingerprint"] not in have]
    withdrawn = [
        anchor["fingerprint"]
        for anchor in store["anchors"]
        if anchor["fingerprint"] not in there and not anchor["source"].startswith("by hand")
    ]
    return {
        **store,
        "missing": missing,
        "withdrawn": withdrawn,
        "stale": bool(missing or withdrawn),
    }


def _is_extra(anchor: dict[str, Any], store: dict[str, Any]) -> bool:
    return anchor["fingerprint"] in store["withdrawn"]


def _name(subject: str) -> str:
    return subject.split(",")[0].removeprefix("CN=")


def _say(change: dict[str, Any], json: bool) -> None:
    if json:
        print_json(change)
        return
    out.print(
        f"{change['holder']}: version {change['version']}, {len(change['anchors'])} anchors "
        f"({len(change['added'])} came, {len(change['removed'])} went), from {change['source']}"
    )


# ------------------------------------------------------------------------- two models


@app.command("compare")
def compare(
    models: Annotated[list[str], typer.Argument(help="Trust models: single-root operator-roots.")],
    vehicles: Annotated[int, typer.Option("--vehicles", help="How many cars the fleet has.")] = 200,
    seed: Annotated[
        str, typer.Option("--seed", help="The fleet and all keys follow from it.")
    ] = "pnclab",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write all counts as CSV.")
    ] = None,
    ecosystem: EcosystemFile = None,
    json: Json = False,
) -> None:
    """Play one seeded fleet under each trust model, and try what each party's keys can forge.

    The parties run in this process, beside whatever else runs; nothing is kept but the counts.
    Equal seeds give equal files, byte for byte.
    """
    from dataclasses import asdict

    from ..compare.study import compare as compared
    from ..compare.table import as_csv

    quiet_libraries()
    chosen = chosen_ecosystem(ecosystem)
    if output is not None and not output.parent.is_dir():
        raise WrongUseError(f"--output: there is no folder {output.parent}")
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=err, transient=True,
    ) as progress:  # fmt: skip
        tasks = {
            model: progress.add_task(f"{model}: the parties start", total=None) for model in models
        }

        def on_progress(model: str, what: str, done: int, total: int) -> None:
            progress.update(
                tasks[model], description=f"{model}: {what}", completed=done, total=total
            )

        rows = compared(chosen, models, vehicles, seed, on_progress)
    if output is not None:
        output.write_text(as_csv(rows), encoding="utf-8")
    if json:
        print_json([asdict(row) for row in rows])
        return
    _compared_counts(rows, models)
    _compared_forgeries(rows, models)
    if output is not None:
        err.print(f"{len(rows)} counts in {output}")


def _compared_counts(rows: Sequence[Row], models: Sequence[str]) -> None:
    from ..compare.study import side_by_side

    table = Table(title="One fleet", title_justify="left")
    table.add_column("counted")
    for model in models:
        table.add_column(model, justify="right")
    for label, numbers in side_by_side(rows, models):
        style = "bold" if len(set(numbers)) > 1 else None
        table.add_row(label, *(f"{number:,}" for number in numbers), style=style)
    out.print(table)


def _compared_forgeries(rows: Sequence[Row], models: Sequence[str]) -> None:
    from ..compare.study import forgeries

    table = Table(
        title="What was believed of forgeries, and with whose keys (all else was refused)",
        title_justify="left",
    )
    for column in ("keys of", "forgery", *models):
        table.add_column(column)
    before = ""
    for who, what, words in forgeries(rows, models):
        table.add_row("" if who == before else who, what, *words)
        before = who
    out.print(table)
