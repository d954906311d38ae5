"""``pnclab scenario``: what it says, what it writes, and what it refuses before it plays."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from scenarios import playing
from scenarios.cli import main
from scenarios.playing import Result
from scenarios.scenario import catalogue, parts_of
from services.common.problems import NotAsExpectedError


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    """Call the command in this process; (exit code, stdout, stderr)."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pnclab", "scenario", *words])
        with pytest.raises(SystemExit) as end:
            main()
        said = capfd.readouterr()
        code = end.value.code
        return (code if isinstance(code, int) else 0), said.out, said.err

    return call


@pytest.fixture
def nothing_is_played(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(*_: Any, **__: Any) -> Any:
        raise AssertionError("it was played")

    monkeypatch.setattr(playing, "play", play)


def pretend(monkeypatch: pytest.MonkeyPatch, *, bad: str = "", stops_after: int = 99) -> None:
    """Plays that take no time: they end as declared but for ``bad``; then it does not go on."""

    async def play(_ecosystem: Any, scenarios: Any, **_: Any) -> AsyncIterator[Result]:
        for rank, part in enumerate(reversed(parts_of(scenarios))):
            if rank == stops_after:
                raise NotAsExpectedError("sunmile was not ready within 60 s")
            result = Result(part, "run-1", seen=part.declared.endings, seconds=0.1)
            if part.name == bad:
                result.problems = ["code: 'OK' is declared, 'FAILED' was seen"]
            yield result

    monkeypatch.setattr(playing, "play", play)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "name scenarios, or say --all"),
        (("first-charge", "--all"), "name scenarios, or say --all"),
        (("no-such-thing",), "there is no scenario 'no-such-thing'"),
        (("first-charge", "--report", "TMP/no/such/r.html"), "--report: there is no folder"),
        (("first-charge", "--junit", "TMP/no/such/r.xml"), "--junit: there is no folder"),
        (("first-charge", "--report", "TMP"), "is a folder, a file is wanted"),
        (("first-charge", "--junit", "TMP/r", "--report", "TMP/r"), "are one file"),
        (("first-charge", "--report", "TMP/taken.html"), "which is a file"),
        (("first-charge", "--junit", "/proc/version"), "--junit: cannot write /proc/version"),
    ],
)
@pytest.mark.usefixtures("nothing_is_played")
def test_wrong_use_is_one_line_and_nothing_is_played(
    run: Any, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    (tmp_path / "taken-plays").write_text("")
    before = sorted(tmp_path.iterdir())
    code, out, err = run("run", *(word.replace("TMP", str(tmp_path)) for word in words))
    assert code == 2
    assert says in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_disk_that_is_full_in_the_end_is_said(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch)
    code, _, err = run("run", "first-charge", "--junit", "/dev/full")
    assert code == 2
    assert "cannot write" in err
    assert "No space left on device" in err


def test_what_is_seen_and_written(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch)
    junit, report = tmp_path / "j.xml", tmp_path / "r.html"
    words = ("run", "revoked-*", "root-rollover", "--junit", str(junit), "--report", str(report))
    code, out, _ = run(*words)
    assert code == 0
    assert "✓ revoked-contract, twin: charged, OK, billed 0.1 s" in out
    assert "    new car: charged, OK, billed" in out
    assert "6 of 6 plays of 3 scenarios ended as declared (" in out
    assert str(report) in out
    cases = ET.parse(junit).findall(".//testcase")
    # In the order of the library, however they were played.
    assert [case.get("classname") for case in cases][:2] == ["revoked-contract"] * 2
    assert len(cases) == 6
    assert "All ended as declared" in report.read_text()


def test_one_that_does_not_end_as_declared(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, bad="revoked-contract, twin")
    code, out, _ = run("run", "revoked-contract")
    assert code == 1
    assert "✕ revoked-contract, twin" in out
    assert "    code: 'OK' is declared, 'FAILED' was seen" in out
    assert "1 of 2 plays of 1 scenario ended as declared, 1 did not (" in out
    assert "Again: pnclab scenario run revoked-contract" in out


def test_json_is_one_value_and_nothing_else(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, bad="revoked-contract, twin")
    code, out, err = run("run", "revoked-contract", "--json")
    assert code == 1
    assert err == ""
    told = json.loads(out)
    assert (told["as_declared"], told["played"], told["not_as_declared"]) == (False, 2, 1)
    assert [(one["twin"], one["as_declared"]) for one in told["results"]] == [
        (False, True),
        (True, False),
    ]


def test_what_was_played_is_written_also_where_it_does_not_go_on(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pretend(monkeypatch, stops_after=1)
    junit = tmp_path / "j.xml"
    code, _, err = run("run", "revoked-contract", "--junit", str(junit))
    assert code == 1
    assert "sunmile was not ready" in err
    spoiled, twin = ET.parse(junit).findall(".//testcase")
    assert spoiled.find("skipped") is not None
    assert twin.find("skipped") is None


def test_list_and_show_know_all(run: Any) -> None:
    _, out, _ = run("list")
    _, told, _ = run("list", "--json")
    names = [one["name"] for one in json.loads(told)]
    assert names == list(catalogue())
    assert all(name in out for name in names)
    _, out, _ = run("show", "operator-down")
    assert "fail-open with operator_unreachable=allow" in out
    assert "Closed: without the promise to pay nobody charges." in out
    code, _, err = run("show", "nothing")
    assert code == 2
    assert "pnclab scenario list" in err


def test_a_real_run_leaves_its_report(tmp_path: Path) -> None:
    junit, report = tmp_path / "j.xml", tmp_path / "r.html"
    done = subprocess.run(
        [
            sys.executable, "-W", "error::ResourceWarning", "-m", "scenarios.cli", "scenario",
            "run", "car-without-contract", "--junit", junit, "--report", report,
        ],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 2 plays of 1 scenario ended as declared" in done.stdout
    (suite,) = ET.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("2", "0", "0")
    assert "refused at CertificateInstallationReq" in (suite[0][0].text or "")
    play = (tmp_path / "r-plays" / "car-without-contract-played.html").read_text()
    assert "FAILED_NoCertificateAvailable" in play
    assert "How far it came" in play
    assert "r-plays/car-without-contract-twin.html" in report.read_text()
