"""``pnclab pki``: the certificates of an ecosystem."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.tree import Tree

from pki.profiles import Role
from services.common.problems import WrongUseError
from services.ecosystem import Ecosystem

from ..layouts import LAYOUTS, PARTS
from .options import DataFolder, EcosystemFile, Json, TrustModelName, chosen_ecosystem
from .output import err, out, print_json, quiet_libraries

if TYPE_CHECKING:
    from ..lab import Lab

app = typer.Typer(help="The certificates of an ecosystem.", no_args_is_help=True)

# Kinds of parties that hold authorities, and those whose leaf is worth showing.
_AUTHORITIES = ("v2g-root", "oem", "mo")


@app.callback()
def _group() -> None:
    """The certificates of an ecosystem."""


@app.command("show")
def show(
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    trust_model: TrustModelName = None,
    json: Json = False,
) -> None:
    """Show who vouches for whom: roots, sub-CAs and leaves with roles and validity, and who
    holds which roots as anchors.

    Asks the running ecosystem; where none runs, it is started for the time of the question.
    """
    quiet_libraries()
    chosen = chosen_ecosystem(ecosystem, data, trust_model=trust_model)
    found = asyncio.run(_collect(chosen))
    if json:
        print_json(found)
        return
    for root in found["roots"]:
        tree = Tree(_label(root))
        _grow(tree, root, found["certificates"])
        out.print(tree)
        out.print()
    out.print(f"[bold]Trust model[/] {found['trust_model']}: {found['trust_says']}\n")
    anchors = Tree("[bold]Anchors[/]")
    for holder, roles in found["anchors"].items():
        anchors.add(f"{holder}: {', '.join(roles)}")
    out.print(anchors)


@app.command("rollover")
def rollover(
    party: Annotated[str, typer.Argument(help="The party whose authority it is.")],
    role: Annotated[str, typer.Argument(help="v2g-root, cpo-sub1, mo-root, mo-sub2 ...")],
    cascade: Annotated[
        bool, typer.Option("--cascade", help="The party's authorities below follow at once.")
    ] = False,
    publish: Annotated[
        bool,
        typer.Option("--publish/--no-publish", help="Whether a new root goes into the root pool."),
    ] = True,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """A new key and certificate for an authority of a running party, now. What the old one
    issued stays good."""
    body = {"cascade": cascade, "publish": publish}
    found = _asked(ecosystem, data, party, "POST", f"/authorities/{role}/rollover", body)
    if json:
        print_json(found)
        return
    for one in found["authorities"]:
        out.print(f"[bold]{one['subject']}[/] until {one['valid_to'][:10]}")
    if found["published"]:
        out.print("The root pool has it beside the old one.")
    elif found["authorities"][0]["role"].endswith("-root"):
        out.print(f"Nobody knows it yet: pnclab pki publish {party} {role}")


@app.command("publish")
def publish_root(
    party: Annotated[str, typer.Argument(help="The party whose root it is.")],
    role: Annotated[str, typer.Argument(help="v2g-root, oem-root or mo-root.")],
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Bring a running party's root to the root pool, after a rollover without that."""
    found = _asked(ecosystem, data, party, "POST", f"/authorities/{role}/publish", None)
    if json:
        print_json(found)
    else:
        out.print(f"[bold]{found['subject']}[/] is in the root pool.")


@app.command("lose-key")
def lose_key(
    party: Annotated[str, typer.Argument(help="The party whose authority it is.")],
    role: Annotated[str, typer.Argument(help="v2g-root, cpo-sub1, mo-root, mo-sub2 ...")],
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Destroy the private key of an authority of a running party: for good. What needs it is
    refused until a rollover; what was issued lives on."""
    found = _asked(ecosystem, data, party, "DELETE", f"/authorities/{role}/key", None)
    if json:
        print_json(found)
    else:
        out.print(f"The private key of [bold]{found['subject']}[/] is gone.")


@app.command("export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the files go.")],
    layout: Annotated[
        str, typer.Option("--layout", help=f"Names and forms of {', '.join(LAYOUTS)}.")
    ] = "pem",
    only: Annotated[
        str | None, typer.Option("--only", help=f"Some of {','.join(PARTS)}, instead of all.")
    ] = None,
    charger: Annotated[
        str | None, typer.Option("--charger", help="The charger whose EVSEID it has; the first.")
    ] = None,
    oem: Annotated[str | None, typer.Option("--oem", help="Who makes the car; the first.")] = None,
    car: Annotated[
        str | None, typer.Option("--car", help="The new car's PCID; its maker's choice.")
    ] = None,
    contract: Annotated[
        str | None, typer.Option("--contract", help="Whose contract it gets; the first operator's.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option("--password", envvar="PNCLAB_KEY_PASSWORD", help="Of keys; the stack's own."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Write what a bench needs into a folder, as a stack wants it: roots and chains, and a
    charger, a car, its contract and a provisioning service with keys that are made for it.

    Keys of the ecosystem's parties stay with them. Asks the running ecosystem; where none runs,
    it is started for that time.
    """
    from ..exporting import Wanted, gather, note, write_messages
    from ..layouts import must_be_free, write

    quiet_libraries()
    if layout not in LAYOUTS:
        raise WrongUseError(f"--layout: {layout!r} is none of {', '.join(LAYOUTS)}")
    parts = tuple(only.split(",")) if only else PARTS
    for part in parts:
        if part not in PARTS:
            raise WrongUseError(f"--only: {part!r} is none of {', '.join(PARTS)}")
    chosen, wanted = chosen_ecosystem(ecosystem, data), LAYOUTS[layout]
    secret = wanted.password if password is None else password
    if not secret and layout != "pem":
        raise WrongUseError("--password: this layout has containers, and they need one")
    if not force:
        must_be_free(wanted, folder)

    async def ask() -> Any:
        async with _at_hand(chosen) as lab:
            return await gather(lab, Wanted(parts, charger, oem, car, contract))

    bench = asyncio.run(ask())
    written = write(bench, wanted, folder, secret)
    try:
        written += write_messages(bench, folder)
        text = note(bench, chosen, wanted, written, secret)
        (folder / "README.md").write_text(text, encoding="utf-8")
    except OSError as error:
        raise WrongUseError(f"{error.filename}: {error.strerror}") from None
    if json:
        files = [{"path": one.path, "what": one.what, "form": one.form} for one in written]
        print_json({"folder": str(folder), "layout": layout, **bench.facts, "files": files})
        return
    for name, value in bench.facts.items():
        out.print(f"{name}: [bold]{value}[/]")
    out.print(f"{len(written)} files in {folder}; {folder / 'README.md'} says what is where.")


def _asked(file: Any, data: Any, party: str, method: str, path: str, body: Any) -> Any:
    """Ask a running party; LabError (exit 1) where it refuses or does not run."""
    from ..lab import Lab

    quiet_libraries()
    chosen = chosen_ecosystem(file, data)
    name = chosen.party(party).name

    async def ask() -> Any:
        async with Lab(chosen) as lab:
            return await lab.call(name, method, path, body)

    return asyncio.run(ask())


@contextlib.asynccontextmanager
async def _at_hand(ecosystem: Ecosystem) -> AsyncIterator[Lab]:
    from services.serve import running

    from ..lab import Lab

    async with Lab(ecosystem) as lab:
        if await lab.is_up():
            yield lab
            return
        with err.status("No ecosystem is running; starting it for this question …"):
            async with running(ecosystem):
                yield lab


async def _collect(ecosystem: Ecosystem) -> dict[str, Any]:
    found: dict[str, dict[str, Any]] = {}
    async with _at_hand(ecosystem) as lab:
        for party in ecosystem.parties.values():
            if party.kind in _AUTHORITIES:
                for issued in await lab.call(party.name, "GET", "/certificates"):
                    # A sub-CA may be in two books: its issuer's says whether it was revoked.
                    known = found.get(issued["fingerprint"])
                    if known is None or issued["revoked_at"]:
                        found[issued["fingerprint"]] = issued
    certificates = list(found.values())
    subjects = {one["subject"] for one in certificates}
    roots = [
        one
        for one in certificates
        if one["subject"] == one["issuer"] or one["issuer"] not in subjects
    ]
    model = ecosystem.trust_model
    return {
        "trust_model": model.name,
        "trust_says": model.says,
        "anchors": {
            holder.value: sorted(role.value for role in roles)
            for holder, roles in model.held.items()
        },
        "roots": roots,
        "certificates": certificates,
    }


def _grow(branch: Tree, parent: dict[str, Any], certificates: list[dict[str, Any]]) -> None:
    for one in certificates:
        if one["issuer"] == parent["subject"] and one is not parent:
            _grow(branch.add(_label(one)), one, certificates)


def _label(certificate: dict[str, Any]) -> str:
    name = certificate["subject"].split(",")[0].removeprefix("CN=")
    role = Role(certificate["role"])
    days = f"{certificate['valid_from'][:10]} to {certificate['valid_to'][:10]}"
    since = certificate["revoked_at"]
    revoked = f" [bold red]revoked {since[:10]}[/]" if since else ""
    strong = "bold" if role.is_ca else "default"
    return f"[{strong}]{name}[/]  {role.label}  [dim]{days}[/]{revoked}"
