"""Back to the known state: nothing that happened since is left, whatever was under way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from services.ecosystem import load
from services.serve import mark

if TYPE_CHECKING:
    from conftest import World


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def world(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest, serve: Any
) -> Iterator[World]:
    """An ecosystem of its own, with faults, that can go back."""
    ecosystem = load(data=tmp_path_factory.mktemp("reset")).on_free_ports()
    ecosystem = replace(ecosystem, faults=True, resettable=True)
    if request.param == "postgresql":
        ecosystem = ecosystem.on_database(request.getfixturevalue("postgresql_server").new())
    with serve(ecosystem) as found:
        found.run(mark(found.ecosystem, found.apps))
        yield found


def everybody_back(world: World) -> float:
    """Have the platform have all go back; the milliseconds that took."""
    done = world.ok("platform", "POST", "/reset")
    assert {one["party"] for one in done["parties"]} == set(world.ecosystem.parties)
    return float(done["milliseconds"])


def whole_state(world: World) -> dict[tuple[str, str], tuple[int, str]]:
    """All rows, those of trust stores too."""
    found = {}
    for name in world.ecosystem.parties:
        policy = world.ecosystem.party(name).policy
        follows = policy.get("anchors")
        policy["anchors"] = "all"  # type: ignore[index]
        try:
            found.update(world.state(name))
        finally:
            if follows is None:
                del policy["anchors"]  # type: ignore[attr-defined]
            else:
                policy["anchors"] = follows  # type: ignore[index]
    return found


def differences(one: dict[Any, Any], other: dict[Any, Any]) -> list[Any]:
    return [mark for mark in other if other[mark] != one.get(mark)]


def test_all_that_happened_is_gone(world: World) -> None:
    """Contracts, registrations, balances, revocations, faults, clients, anchors and the clock;
    and the next car is built, gets its contract and charges."""
    everybody_back(world)
    before = whole_state(world)
    ledger = world.ok("sunmile", "GET", "/ledger")
    offset = world.ok("sunmile", "GET", "/clock")["offset_seconds"]
    car = world.car()
    contract = world.contract(car["pcid"])
    assert world.charge(car["pcid"])["outcome"] == "charged"
    other = world.contract(world.car()["pcid"])
    world.ok("sunmile", "POST", f"/contracts/{other['emaid']}/cancel")
    body = {"kind": "delay", "parameters": {"seconds": 0.1}}
    world.ok("contract-pool", "POST", "/faults", body)
    brought = world.ok("plugpark", "POST", "/clients", {"id": "guest", "role": "admin"})
    answer = world.http.post(
        f"{world.url('plugpark')}/oauth/token",
        data={
            "grant_type": "client_credentials",
            "client_id": "guest",
            "client_secret": brought["secret"],
        },
    )
    guest = {"Authorization": f"Bearer {answer.json()['access_token']}"}
    assert world.call("plugpark", "GET", "/clock", client=None, headers=guest).is_success
    world.ok("v2g-root", "POST", "/authorities/cpo-sub1/rollover", {})
    world.ok("sunmile", "PUT", "/clock", {"advance": "300d"})
    world._tokens.clear()  # they have expired
    assert differences(before, whole_state(world))

    everybody_back(world)
    assert differences(before, whole_state(world)) == []
    world._tokens.clear()
    assert world.ok("sunmile", "GET", "/ledger") == ledger
    assert world.ok("sunmile", "GET", "/clock")["offset_seconds"] == offset
    assert world.ok("contract-pool", "GET", "/faults") == []
    assert world.call("plugpark", "GET", "/clock", client=None, headers=guest).status_code == 401
    assert world.call("sunmile", "GET", f"/contracts/{contract['emaid']}").status_code == 404
    assert world.call("garage", "GET", f"/vehicles/{car['pcid']}").status_code == 404
    pcid = world.car()["pcid"]
    world.contract(pcid)
    assert world.charge(pcid)["outcome"] == "charged"
    # What happened was told, and the way back too.
    told = world.ok("sunmile", "GET", "/events?name=reset&newest_first=true&limit=1")
    assert told[0]["kind"] == "state"


def test_an_anchor_that_was_taken_out_is_trusted_again(world: World) -> None:
    """One version is not the content: two changes after the way back make the version that was
    known by heart."""
    everybody_back(world)
    anchors = world.ok("sunmile", "GET", "/trust-store")["anchors"]
    mark_of = anchors[0]["fingerprint"]
    world.ok("sunmile", "DELETE", f"/trust-store/anchors/{mark_of}")
    everybody_back(world)
    store = world.run(world.service("sunmile").contracts.judge.keeper.current())
    assert len(store.anchors) == len(anchors)


def test_fifty_times_under_load(world: World, no_traceback: list[str]) -> None:
    """What is under way ends with an answer that says why, never with a 500; after the last one
    all is as it was."""
    everybody_back(world)
    before = whole_state(world)
    statuses: Counter[tuple[int, str]] = Counter()
    spent: list[float] = []

    async def call(name: str, method: str, path: str, body: Any) -> Any:
        answer = await world.many.request(
            method,
            world.url(name) + path,
            json=body,
            headers={"Authorization": f"Bearer {world.token(name)}"},
        )
        code = answer.json().get("code", "") if answer.is_error else ""
        statuses[answer.status_code, code] += 1
        return answer.json() if answer.is_success else None

    async def load(until: asyncio.Event) -> None:
        while not until.is_set():
            car = await call("garage", "POST", "/vehicles", {})
            body = {"name": "Ada Driver", "deposit": "50.00"}
            driver = await call("sunmile", "POST", "/drivers", body)
            if car is None or driver is None:
                await asyncio.sleep(0.01)
                continue
            body = {"driver": driver["id"], "pcid": car["pcid"]}
            if await call("sunmile", "POST", "/contracts", body) is None:
                continue
            body = {"charger": "charger-1", "energy_wh": 500}
            await call("garage", "POST", f"/vehicles/{car['pcid']}/charge", body)

    async def work() -> None:
        until = asyncio.Event()
        loads = [asyncio.create_task(load(until)) for _ in range(4)]
        for _ in range(50):
            await asyncio.sleep(0.02)
            answer = await world.many.post(f"{world.url('platform')}/reset", headers=admin)
            assert answer.status_code == 200, answer.text
            spent.append(answer.json()["milliseconds"])
        until.set()
        await asyncio.gather(*loads)

    for name in world.ecosystem.parties:
        world.token(name)
    admin = {"Authorization": f"Bearer {world.token('platform')}"}
    asyncio.run_coroutine_threadsafe(work(), world.loop).result(300)
    everybody_back(world)
    spent.sort()
    print(
        f"\n50 resets of {len(world.ecosystem.parties)} parties under load: "
        f"median {spent[25]:.0f} ms, slowest {spent[-1]:.0f} ms; quiet: {everybody_back(world):.0f}"
        f" ms; {dict(statuses)}"
    )
    assert not [status for status, _ in statuses if status == 500]
    assert statuses[503, "reset"]
    assert differences(before, whole_state(world)) == []
    pcid = world.car()["pcid"]
    world.contract(pcid)
    assert world.charge(pcid)["outcome"] == "charged"


def test_a_step_by_itself(world: World) -> None:
    """Held, a party refuses all but what is needed to let it go; marked, it goes back there."""
    assert world.ok("sunmile", "POST", "/reset?step=hold")["parties"][0]["step"] == "hold"
    answer = world.call("sunmile", "GET", "/drivers")
    assert (answer.status_code, answer.json()["code"]) == (503, "reset")
    assert world.call("sunmile", "GET", "/healthz", client=None).is_success
    world.ok("sunmile", "POST", "/reset?step=release")
    driver = world.driver()
    world.ok("sunmile", "POST", "/reset?step=mark")
    later = world.driver()
    done = world.ok("sunmile", "POST", "/reset")
    assert done["parties"][0]["rows"] > 0
    assert world.call("sunmile", "GET", f"/drivers/{driver}").is_success
    assert world.call("sunmile", "GET", f"/drivers/{later}").status_code == 404


def test_a_restart_keeps_the_mark(world: World) -> None:
    known = world.party("plugpark").known_state
    marked = world.run(known.mark())
    assert world.run(known.mark(anew=False)) == marked


def test_who_may(world: World) -> None:
    for client, status in ((None, 401), ("plugpark", 403), ("sunmile", 403)):
        assert world.call("sunmile", "POST", "/reset", client=client).status_code == status
    assert world.call("sunmile", "POST", "/reset?step=sideways").status_code == 422


@pytest.mark.parametrize("step", ["", "?step=mark", "?step=hold"])
def test_not_where_it_is_not_switched_on(
    request: pytest.FixtureRequest, tmp_path: Any, serve: Any, step: str
) -> None:
    ecosystem = load(data=tmp_path).on_free_ports()
    with serve(ecosystem, "root-pool") as world:
        answer = world.call("root-pool", "POST", f"/reset{step}")
        assert answer.status_code == 403
        assert answer.json()["code"] == "not_resettable"
        assert "--resettable" in answer.json()["message"]
