"""Two hundred cars install their contracts at the same time, through ``pnclab up``.

What this keeps true: no thread is held while another party is called. With handlers that hold
one, twenty concurrent requests through three hops stand still for ever.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import Up

CARS = 200


async def _in_turns(calls: list[Any], at_once: int) -> list[Any]:
    gate = asyncio.Semaphore(at_once)

    async def one(call: Any) -> Any:
        async with gate:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))


async def _play(up: Up) -> list[dict[str, Any]]:
    limits = httpx.Limits(max_connections=CARS, max_keepalive_connections=CARS)
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as http:

        async def post(kind: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
            party = up.named(kind)
            answer = await http.post(
                up.url(party) + path,
                json=body,
                headers={"Authorization": f"Bearer {up.token(party)}"},
            )
            assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
            found: dict[str, Any] = answer.json()
            return found

        driver = await post("mo", "/drivers", {"name": "Fleet", "deposit": "1000.00"})
        cars = await _in_turns([post("vehicle", "/vehicles", {}) for _ in range(CARS)], 16)
        await _in_turns(
            [
                post("mo", "/contracts", {"driver": driver["id"], "pcid": car["pcid"]})
                for car in cars
            ],
            16,
        )
        visit = {"charger": up.named("charger"), "energy_wh": 0}
        return await asyncio.gather(
            *(post("vehicle", f"/vehicles/{car['pcid']}/charge", visit) for car in cars)
        )


def test_two_hundred_installations_at_once(up: Up) -> None:
    outcomes = asyncio.run(_play(up))
    assert len(outcomes) == CARS
    assert all(outcome["installed"] for outcome in outcomes), _words(outcomes)
    assert all(outcome["outcome"] == "charged" for outcome in outcomes), _words(outcomes)
    assert len({outcome["emaid"] for outcome in outcomes}) == CARS


def _words(outcomes: list[dict[str, Any]]) -> list[str]:
    return sorted({f"{one['outcome']} {one['stage']} {one['reason']}" for one in outcomes})
