"""The demonstration as a user runs it: one process, and every party in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PNCLAB = (sys.executable, "-I", "-c", "from scenarios.cli import main; main()")

STEPS = (
    "Who vouches for whom",
    "The factory builds a car",
    "A driver signs a contract",
    "The car plugs in and receives its contract",
    "The car proves who pays",
    "Energy flows, and the car signs for it",
    "The money follows",
    "The second visit, the refused third, and the neighbour",
)


def demo(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PNCLAB, "demo", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=180,
        stdin=subprocess.DEVNULL,
    )


def told(folder: Path, *options: str) -> dict[str, Any]:
    done = demo(folder, "--json", *options)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    story: dict[str, Any] = json.loads(done.stdout)
    return story


def must_be_whole(story: dict[str, Any], folder: Path) -> None:
    assert [step["title"] for step in story["steps"]] == list(STEPS)
    assert all(step["events"] > 0 for step in story["steps"])
    facts = story["facts"]
    assert facts["third_visit"] == "FAILED_CertificateRevoked"
    assert [invoice["energy_wh"] for invoice in facts["invoices"]] == [8000, 5000]
    # 0.35 + 8 kWh x 0.49 = 4.27, and 8 % on top; away 5 kWh x 0.64 = 3.20.
    assert [invoice["charging"] for invoice in facts["invoices"]] == ["4.27", "3.20"]
    assert [invoice["total"] for invoice in facts["invoices"]] == ["4.61", "3.46"]
    assert facts["balance"] == "41.93"
    assert sum(facts["accounts_cents"].values()) == 0
    assert list(facts["receivables"].values()) == ["7.47"]
    page = (folder / "demo.html").read_text()
    for title in STEPS:
        assert title in page
    assert facts["emaid"] in page


def test_demo_in_one_process(tmp_path: Path) -> None:
    must_be_whole(told(tmp_path), tmp_path)
    assert [found.name for found in tmp_path.iterdir()] == ["demo.html"]


def test_demo_with_every_party_in_its_own_process_and_database(tmp_path: Path) -> None:
    must_be_whole(told(tmp_path, "--processes"), tmp_path)


def test_demo_under_the_other_trust_model(tmp_path: Path) -> None:
    story = told(tmp_path, "--trust-model", "single-root")
    must_be_whole(story, tmp_path)
    assert story["trust_model"] == "One V2G root"


def test_demo_for_people(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.returncode == 0, done.stderr
    for number, title in enumerate(STEPS, 1):
        assert f"{number}. {title}" in done.stdout
    assert "demo.html" in done.stdout


def test_demo_step_by_step_goes_on_with_enter(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PNCLAB, "demo", "--step"],
        cwd=tmp_path,
        input="\n" * 7,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Enter goes on") == 7


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--output", "/nowhere/at/all.html"), 2, "there is no folder"),
        (("--ecosystem", "absent.toml"), 2, "absent.toml"),
        (("--trust-model", "blockchain"), 2, "blockchain"),
        (("--colour",), 2, "No such option"),
    ],
)
def test_wrong_use(tmp_path: Path, options: tuple[str, ...], code: int, words: str) -> None:
    done = demo(tmp_path, *options)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
