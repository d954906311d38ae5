"""``pnclab fault``: have the parties of a running ecosystem misbehave, and stop it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from services.common.problems import NotAsExpectedError, WrongUseError
from services.ecosystem import Ecosystem

from .options import EcosystemFile, Json, chosen_ecosystem
from .output import err, out, print_json, quiet_libraries

if TYPE_CHECKING:
    from services.common.fault_kinds import Kind

    from ..lab import Lab

app = typer.Typer(help="Have parties misbehave on purpose.", no_args_is_help=True)

T = TypeVar("T")

_WINDOW = "ISO 8601, by the ecosystem's clock."


@app.command()
def kinds(
    party: Annotated[
        str | None, typer.Argument(help="Only those of this party, or kind of party.")
    ] = None,
    ecosystem: EcosystemFile = None,
    json: Json = False,
) -> None:
    """Say which kinds of fault there are: whose, aimed by what, and what they bring about."""
    from services.common.fault_kinds import ANY_PARTY, KINDS

    kind_of_party = _kind_of(chosen_ecosystem(ecosystem), party) if party else None
    found = {name: kind for name, kind in KINDS.items() if kind_of_party in (None, *kind.parties)}
    if json:
        print_json([_as_dict(name, kind) for name, kind in found.items()])
        return
    for name, kind in found.items():
        whose = "any party" if kind.parties == ANY_PARTY else ", ".join(kind.parties)
        out.print(f"[bold]{name}[/]  ({whose})")
        out.print(f"    {kind.does}")
        out.print(f"    brings about: {kind.provokes}")
        if kind.targets:
            out.print(f"    aimed by: {', '.join(kind.targets)}")
        for key, parameter in kind.parameters.items():
            out.print(f"    {key}: {parameter.meaning}; {parameter.wanted}", markup=False)


@app.command("list")
def show(
    party: Annotated[str | None, typer.Argument(help="Only this party's.")] = None,
    ecosystem: EcosystemFile = None,
    json: Json = False,
) -> None:
    """List the faults that are set, with what is left of them and how often they were hit."""
    chosen = chosen_ecosystem(ecosystem)
    found, trouble = _everywhere(chosen, party, lambda lab, name: lab.call(name, "GET", "/faults"))
    rows = [{"party": name, **fault} for name, faults in found.items() for fault in faults]
    if json:
        print_json(rows)
    elif rows:
        table = Table()
        for column in ("party", "id", "kind", "aimed at", "parameters", "window", "left", "hits"):
            table.add_column(column)
        for row in rows:
            table.add_row(
                row["party"],
                row["id"],
                row["kind"],
                _pairs(row["target"]) or "anything",
                _pairs(row["parameters"]),
                " to ".join(str(row[end] or "…") for end in ("begins", "ends"))
                if row["begins"] or row["ends"]
                else "always",
                "no end" if row["calls_left"] is None else str(row["calls_left"]),
                str(row["hits"]),
            )
        out.print(table)
    elif found:
        out.print("No fault is set.")
    _say(trouble)


@app.command("set")
def set_fault(
    party: Annotated[str, typer.Argument(help="Who misbehaves: a party's name.")],
    kind: Annotated[str, typer.Argument(help="How: a name from `pnclab fault kinds`.")],
    pcid: Annotated[str | None, typer.Option(help="Only for this car.")] = None,
    emaid: Annotated[str | None, typer.Option(help="Only for this contract.")] = None,
    charger: Annotated[str | None, typer.Option(help="Only at this charger.")] = None,
    caller: Annotated[str | None, typer.Option(help="Only for calls by this client.")] = None,
    path: Annotated[
        str | None, typer.Option(help="Only at this path: /contracts, 'PUT /contracts'.")
    ] = None,
    calls: Annotated[
        int | None, typer.Option(help="Used up after so many hits; else it has no end.", min=1)
    ] = None,
    begins: Annotated[str | None, typer.Option("--from", help=_WINDOW)] = None,
    ends: Annotated[str | None, typer.Option("--until", help=_WINDOW)] = None,
    param: Annotated[
        list[str] | None, typer.Option("--param", help="NAME=VALUE, e.g. seconds=4.6.")
    ] = None,
    ecosystem: EcosystemFile = None,
    json: Json = False,
) -> None:
    """Have a party misbehave: how, at whom, how often, from when until when."""
    chosen = chosen_ecosystem(ecosystem)
    found = _kind(chosen.party(party).kind, kind)
    target = {"pcid": pcid, "emaid": emaid, "charger": charger, "caller": caller, "path": path}
    body = {
        "kind": kind,
        "target": {key: value for key, value in target.items() if value is not None},
        "calls": calls,
        "begins": _instant("--from", begins),
        "ends": _instant("--until", ends),
        "parameters": _parameters(found, param or ()),
    }
    fault = _run(chosen, lambda lab: lab.call(party, "POST", "/faults", body))
    if json:
        print_json({"party": party, **fault})
        return
    out.print(f"{party}: [bold]{kind}[/] is set, its identifier is [bold]{fault['id']}[/]")
    out.print(f"It {found.does}.", markup=False)
    out.print(f"To be expected: {found.provokes}.", markup=False)


@app.command()
def clear(
    party: Annotated[str | None, typer.Argument(help="Only this party's.")] = None,
    fault: Annotated[str | None, typer.Argument(help="Only the fault of this identifier.")] = None,
    ecosystem: EcosystemFile = None,
    json: Json = False,
) -> None:
    """Clear one fault, all faults of a party, or all faults of all parties."""
    chosen = chosen_ecosystem(ecosystem)
    if party is not None and fault is not None:
        chosen.party(party)
        _run(chosen, lambda lab: lab.call(party, "DELETE", f"/faults/{fault}"))
        found: dict[str, Any] = {party: {"cleared": 1}}
        trouble: dict[str, str] = {}
    else:
        found, trouble = _everywhere(
            chosen, party, lambda lab, name: lab.call(name, "DELETE", "/faults")
        )
    cleared = {name: answer["cleared"] for name, answer in found.items()}
    if json:
        print_json(cleared)
    else:
        number = sum(cleared.values())
        out.print(f"{number} fault{'' if number == 1 else 's'} cleared.")
    _say(trouble)


# ------------------------------------------------------------------- the ecosystem


def _run(ecosystem: Ecosystem, work: Callable[[Lab], Coroutine[Any, Any, T]]) -> T:
    from ..lab import Lab

    quiet_libraries()

    async def run() -> T:
        async with Lab(ecosystem) as lab:
            return await work(lab)

    return asyncio.run(run())


def _everywhere(
    ecosystem: Ecosystem,
    party: str | None,
    ask: Callable[[Lab, str], Coroutine[Any, Any, Any]],
) -> tuple[dict[str, Any], dict[str, str]]:
    """What ``party``, or each party, answers; and what was in the way at those that did not."""
    names = [ecosystem.party(party).name] if party else list(ecosystem.parties)

    async def all_of_them(lab: Lab) -> list[Any]:
        return await asyncio.gather(
            *(ask(lab, name) for name in names), return_exceptions=len(names) > 1
        )

    answers = dict(zip(names, _run(ecosystem, all_of_them), strict=True))
    for answer in answers.values():
        if isinstance(answer, BaseException) and not isinstance(answer, NotAsExpectedError):
            raise answer
    trouble = {
        name: str(answer)
        for name, answer in answers.items()
        if isinstance(answer, NotAsExpectedError)
    }
    return {name: answers[name] for name in answers if name not in trouble}, trouble


def _say(trouble: Mapping[str, str]) -> None:
    for reason in trouble.values():
        err.print(f"[bold red]error:[/] {reason}")
    if trouble:
        raise typer.Exit(1)


# ------------------------------------------------------------------- what was typed


def _kind_of(ecosystem: Ecosystem, party: str) -> str:
    from services.ecosystem import KINDS as PARTY_KINDS

    return party if party in PARTY_KINDS else ecosystem.party(party).kind


def _kind(kind_of_party: str, name: str) -> Kind:
    from services.common.fault_kinds import KINDS

    mine = [one for one, kind in KINDS.items() if kind_of_party in kind.parties]
    if name in mine:
        return KINDS[name]
    whose = f"a fault of {', '.join(KINDS[name].parties)}" if name in KINDS else "no fault"
    raise WrongUseError(f"{name!r} is {whose}; a {kind_of_party} has: {', '.join(mine)}")


def _parameters(kind: Kind, given: Sequence[str]) -> dict[str, float | int | str]:
    values = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals:
            raise WrongUseError(f"--param {pair!r}: NAME=VALUE is wanted")
        if name not in kind.parameters:
            there = ", ".join(kind.parameters) or "none"
            raise WrongUseError(f"--param: there is no {name!r}; there are: {there}")
        try:
            values[name] = kind.parameters[name].parse(text)
        except ValueError as error:
            raise WrongUseError(f"--param {name}: {error}") from None
    return values


def _instant(option: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise WrongUseError(
            f"{option}: {text!r} is not an instant such as 2027-01-31T12:00Z"
        ) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat()


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def _as_dict(name: str, kind: Kind) -> dict[str, Any]:
    return {
        "kind": name,
        "parties": list(kind.parties),
        "does": kind.does,
        "provokes": kind.provokes,
        "targets": list(kind.targets),
        "parameters": {
            key: {
                "default": parameter.default,
                "wanted": parameter.wanted,
                "meaning": parameter.meaning,
            }
            for key, parameter in kind.parameters.items()
        },
    }
