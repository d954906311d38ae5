"""Parties are killed under load and started again; nothing that was acknowledged is missed.

``PNCLAB_KILL_ROUNDS`` says how often on SQLite (200 without it, 1000 by hand), a fifth of that on
PostgreSQL; ``PNCLAB_KILL_SEED`` repeats the choices of a run that was printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from pathlib import Path

import pytest

from scenarios.endurance import Result, endure
from scenarios.lab import Lab
from scenarios.processes import running_in_processes
from services.ecosystem import load
from services.serve import StartError

ROUNDS = int(os.environ.get("PNCLAB_KILL_ROUNDS", "200"))
SEED = int(os.environ.get("PNCLAB_KILL_SEED", random.SystemRandom().randrange(10**6)))


def play(folder: Path, rounds: int, database: str | None = None) -> Result:
    ecosystem = load(data=folder).on_free_ports()
    if database is not None:
        ecosystem = ecosystem.on_database(database)
    print(f"PNCLAB_KILL_SEED={SEED} PNCLAB_KILL_ROUNDS={ROUNDS}")
    return asyncio.run(endure(ecosystem, rounds, SEED))


def must_be_whole(result: Result, rounds: int) -> None:
    print(json.dumps(result.as_dict()))
    assert not result.defects, "\n".join([f"seed {result.seed}", *result.defects])
    # It was a play at all: everybody is killed now and then, and people get things done.
    assert sum(result.kills.values()) == rounds
    assert min(result.acknowledged.values()) > 0, result.acknowledged
    assert result.answers.get("charge: charged", 0) > rounds / 10


def test_parties_that_are_killed_under_load(tmp_path: Path) -> None:
    must_be_whole(play(tmp_path, ROUNDS), ROUNDS)


def test_parties_that_are_killed_under_load_on_postgresql(tmp_path: Path, postgresql: str) -> None:
    rounds = max(ROUNDS // 5, 1)
    must_be_whole(play(tmp_path, rounds, postgresql), rounds)


def test_processes_stop_and_start_under_the_running_rest(tmp_path: Path) -> None:
    """By their name: asked to end they end well, killed they do not; what they knew is there."""

    async def run() -> None:
        ecosystem = load(data=tmp_path).on_free_ports()
        async with running_in_processes(ecosystem) as processes, Lab(ecosystem) as lab:
            body = {"name": "Ada Driver", "deposit": "5.00"}
            driver = await lab.call("sunmile", "POST", "/drivers", body)
            first = processes.pids["sunmile"]
            assert await processes.stop("sunmile") == 0
            assert "sunmile" not in processes.pids
            assert not await lab.is_up()
            assert await processes.start("sunmile") != first
            await processes.ready(lab, "sunmile", 30)
            await processes.kill("sunmile")
            assert processes.codes["sunmile"] == -signal.SIGKILL
            await processes.start("sunmile")
            await processes.ready(lab, "sunmile", 30)
            found = await lab.call("sunmile", "GET", f"/drivers/{driver['id']}")
            assert found == driver
            await processes.stop("root-pool")
            (tmp_path / "root-pool.secret").write_bytes(b"short")
            await processes.start("root-pool")
            with pytest.raises(StartError, match=r"root-pool ended: .*has 32 bytes"):
                await processes.ready(lab, "root-pool", 30)

    asyncio.run(run())
