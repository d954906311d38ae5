"""``pnclab sizes``: what is sent, against the limits of those who carry it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from .options import DataFolder, EcosystemFile, Json, chosen_ecosystem
from .output import err, out, print_json, quiet_libraries

if TYPE_CHECKING:
    from ..sizes import Case, Measure


def sizes(
    present: Annotated[
        bool,
        typer.Option("--running", help="Only the ecosystem that runs, as it is, not fresh ones."),
    ] = False,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    json: Json = False,
) -> None:
    """Measure EXI answers, chains and OCSP answers against the limits of OCPP versions and stacks:
    for each trust model and operator, with usual and with compact certificates.

    Fresh ecosystems are started for it, one after the other; their certificates name the same
    addresses as those of the file.
    """
    from ..lab import Lab
    from ..sizes import KINDS, all_cases, as_json, cases, pairs

    quiet_libraries()
    chosen = chosen_ecosystem(ecosystem, data)

    async def ask() -> list[Case]:
        if present:
            async with Lab(chosen) as lab:
                return await cases(lab)
        with err.status("Starting …") as status:
            return await all_cases(chosen, status.update)

    found = asyncio.run(ask())
    if json:
        print_json(as_json(found))
        return
    for kind, about in KINDS.items():
        table = Table(title=f"{about.title} ({about.text})", title_justify="left")
        for column in ("trust model", "operator", "certificates", "bytes", about.text):
            table.add_column(column, justify="right" if column in ("bytes", about.text) else "left")
        for limit in about.limits:
            table.add_column(f"≤ {limit.most}")
        for case in found:
            one = case.measure(kind)
            table.add_row(
                case.trust_model,
                case.operator,
                case.certificates,
                f"{one.size}",
                f"{one.counted}",
                *_marks(one),
            )
        out.print(table)
        out.print("; ".join(f"{limit.most}: {limit.who}" for limit in about.limits) + "\n")
    for usual, compact in pairs(found):
        kind = "installation-response"
        before, after = usual.measure(kind), compact.measure(kind)
        out.print(
            f"{usual.trust_model}, {usual.operator}: compact certificates make a "
            f"CertificateInstallationRes {before.size - after.size} bytes smaller "
            f"({before.counted - after.counted} characters of base64)."
        )


def _marks(one: Measure) -> list[str]:
    from ..sizes import KINDS

    too_small = one.too_large_for
    return [
        "[bold red]too large[/]" if limit in too_small else "fits"
        for limit in KINDS[one.kind].limits
    ]
