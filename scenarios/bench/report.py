"""Runs the rows, prints the table, writes the JSON, decides the exit code."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cryptography
from cryptography.hazmat.backends.openssl import backend
from rich.console import Console
from rich.table import Table

from scenarios.bench import certificates, demo, doors, exi
from scenarios.bench.measure import Bench, Measurement, NotAvailableError

RowFunction = Callable[[Bench], Iterator[Measurement]]

ROWS: tuple[tuple[str, RowFunction], ...] = (
    ("exi", exi.authorization),
    ("exi", exi.certificate_installation),
    ("pki", certificates.hierarchy),
    ("pki", certificates.contract_leaves),
    ("doors", doors.ocsp),
    ("doors", doors.requests_signed),
    ("doors", doors.bundles),
    ("demo", demo.whole),
)
PARTS = tuple(dict.fromkeys(part for part, _ in ROWS))

STYLES = {"met": "green", "missed": "bold red", "not run": "yellow", "-": "dim"}


def measure(parts: Sequence[str], console: Console) -> list[Measurement]:
    """The rows of these parts; a row that cannot run is there and says why."""
    measured: list[Measurement] = []
    with Bench() as bench:
        for part, function in ROWS:
            if part not in parts:
                continue
            title = (function.__doc__ or function.__name__).strip().splitlines()[0]
            with console.status(f"measuring: {title}"):
                try:
                    measured.extend(function(bench))
                except NotAvailableError as reason:
                    measured.append(Measurement(title, missing=str(reason)))
    return measured


def duration(seconds: float | None) -> str:
    """Three digits and the unit that fits."""
    if seconds is None:
        return ""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def wanted(row: Measurement) -> str:
    if row.wanted is not None:
        return f"≥ {row.wanted:g} ×"
    return f"≤ {row.limit:g} s" if row.limit is not None else ""


def table(measured: Sequence[Measurement]) -> Table:
    result = Table(title="pnclab bench: time for the same work, medians, one run", expand=False)
    for header, justify in (
        ("", "left"),
        ("ours", "right"),
        ("peer", "right"),
        ("", "left"),
        ("ratio", "right"),
        ("wanted", "right"),
        ("verdict", "left"),
        ("", "left"),
    ):
        result.add_column(header, justify="right" if justify == "right" else "left")
    for row in measured:
        result.add_row(
            row.name,
            duration(row.ours),
            duration(row.peer),
            row.peer_name,
            f"{row.ratio:.3g} ×" if row.ratio is not None else "",
            wanted(row),
            f"[{STYLES[row.verdict]}]{row.verdict}[/]",
            row.missing or row.note,
        )
    return result


def as_json(measured: Sequence[Measurement]) -> dict[str, Any]:
    return {
        "machine": {
            "cpus": os.cpu_count(),
            "load": os.getloadavg(),
            "system": platform.platform(),
            "python": platform.python_version(),
            "cryptography": cryptography.__version__,
            "openssl": backend.openssl_version_text(),
        },
        "rows": [asdict(row) | {"ratio": row.ratio, "verdict": row.verdict} for row in measured],
    }


def run(
    parts: Sequence[str] = PARTS, json_file: Path | None = None, console: Console | None = None
) -> int:
    """Measure, print, write. 0 if no row missed what is wanted of it, else 1."""
    console = console or Console()
    measured = measure(parts, console)
    console.print(table(measured))
    if json_file is not None:
        json_file.write_text(json.dumps(as_json(measured), indent=2) + "\n", encoding="utf-8")
    verdicts = [row.verdict for row in measured]
    if "not run" in verdicts:
        console.print(f"{verdicts.count('not run')} row(s) could not be measured here.")
    return 1 if "missed" in verdicts else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m scenarios.bench",
        description="How fast pnclab is beside its peers, measured now and here.",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument(
        "--only", choices=PARTS, action="append", help="measure this part only (repeatable)"
    )
    options = parser.parse_args(arguments)
    return run(tuple(options.only or PARTS), options.json)
