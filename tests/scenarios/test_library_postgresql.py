"""The scenario library with all parties on a PostgreSQL server: every play ends as declared."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from scenarios.playing import Result, play
from scenarios.scenario import Part, catalogue, parts_of
from services.ecosystem import load

PARTS = parts_of(catalogue().values())


@pytest.fixture(scope="module")
def results(postgresql_server: Any) -> dict[str, Result]:
    """Every play of the library, played once; each session has a database of its own."""
    server = postgresql_server.new()

    async def all_plays() -> list[Result]:
        scenarios = list(catalogue().values())
        return [result async for result in play(load(), scenarios, database=server)]

    return {result.part.name: result for result in asyncio.run(all_plays())}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_it_ends_as_declared_on_postgresql(results: dict[str, Result], part: Part) -> None:
    result = results[part.name]
    assert not result.skipped, result.skipped
    assert result.good, "\n".join(result.problems)
