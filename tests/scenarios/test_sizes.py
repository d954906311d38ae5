"""``pnclab sizes``: what is measured, what fits where, what compact certificates save."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from scenarios.lab import Lab
from scenarios.sizes import KINDS, Case, all_cases, apart, as_json, cases, pairs
from services.ecosystem import EcosystemError, default_text, from_text, load, to_document
from services.serve import running

PNCLAB = (sys.executable, "-I", "-c", "from scenarios.cli import main; main()")


@pytest.fixture(scope="module")
def found() -> list[Case]:
    steps: list[str] = []
    measured = asyncio.run(all_cases(load(), steps.append, models=("operator-roots",)))
    assert steps == [
        "operator-roots, usual certificates …",
        "operator-roots, compact certificates …",
    ]
    return measured


def test_each_operator_and_style_is_measured(found: list[Case]) -> None:
    marks = [(case.operator, case.certificates) for case in found]
    assert marks == [(o, s) for s in ("usual", "compact") for o in ("sunmile", "gridpass")]
    for case in found:
        assert [one.kind for one in case.measures] == list(KINDS)
        # Six certificates, a signature and a key: between these there is no mistake.
        assert 3000 < case.measure("installation-response").size < 6000
        assert abs(_update_minus_installation(case)) <= 2


def _update_minus_installation(case: Case) -> int:
    return case.measure("update-response").size - case.measure("installation-response").size


def test_compact_answers_fit_where_usual_ones_do_not(found: list[Case]) -> None:
    """What MaEVe and CitrineOS take of an exiResponse."""
    for usual, compact in pairs(found):
        kind = "installation-response"
        assert [limit.most for limit in usual.measure(kind).too_large_for] == [5600]
        assert not compact.measure(kind).too_large_for
        assert usual.measure(kind).size - compact.measure(kind).size > 600
        assert all(not one.too_large_for for one in compact.measures)


def test_the_report_for_programs(found: list[Case]) -> None:
    report = json.loads(json.dumps(as_json(found)))
    first = report["cases"][0]["measures"]["installation-response"]
    assert first["counted"] == (first["bytes"] + 2) // 3 * 4
    assert [limit["fits"] for limit in first["limits"]] == [False, True, True]
    assert report["compact_saves"]["operator-roots/sunmile"]["installation-response"] > 900


def test_a_car_charges_with_compact_certificates(tmp_path: Path) -> None:
    """Issued, asked by OCSP, installed and used: all parties and the car accept them."""
    ecosystem = apart(load(), "single-root", "compact", tmp_path)

    async def work() -> dict[str, object]:
        async with running(ecosystem), Lab(ecosystem) as lab:
            assert len(await cases(lab)) == 2
            car = await lab.call("garage", "POST", "/vehicles", {})
            driver = await lab.call(
                "sunmile", "POST", "/drivers", {"name": "Ada Driver", "deposit": "50.00"}
            )
            order = {"driver": driver["id"], "pcid": car["pcid"]}
            await lab.call("sunmile", "POST", "/contracts", order)
            charge = {"charger": "charger-1", "energy_wh": 1000}
            done: dict[str, object] = await lab.call(
                "garage", "POST", f"/vehicles/{car['pcid']}/charge", charge
            )
            return done

    assert asyncio.run(work())["outcome"] == "charged"


def test_the_command_measures_what_runs(tmp_path: Path) -> None:
    ecosystem = apart(load(), "operator-roots", "usual", tmp_path)
    (tmp_path / "ecosystem.toml").write_text(to_document(ecosystem))

    async def work() -> subprocess.CompletedProcess[str]:
        async with running(ecosystem):
            return await asyncio.to_thread(
                subprocess.run,
                [*PNCLAB, "sizes", "--running"],
                cwd=tmp_path,
                capture_output=True,
                text=True,
            )

    done = asyncio.run(work())
    assert done.returncode == 0, done.stderr
    assert "exiResponse of OCPP 2.0.1; MaEVe, CitrineOS" in done.stdout
    assert "too large" in done.stdout
    # And where nothing runs, that is said.
    missing = subprocess.run(
        [*PNCLAB, "sizes", "--running"], cwd=tmp_path, capture_output=True, text=True
    )
    assert missing.returncode == 1
    assert "no answer at" in missing.stderr


def test_the_style_stands_in_the_file() -> None:
    text = default_text().replace("[ecosystem]\n", '[ecosystem]\ncertificates = "compact"\n', 1)
    ecosystem = from_text(text, "mine")
    assert ecosystem.certificates == "compact"
    assert from_text(to_document(ecosystem), "again").certificates == "compact"
    with pytest.raises(EcosystemError, match=r"certificates: 'compct' is none of usual, compact"):
        from_text(text.replace('"compact"', '"compct"'), "mine")
