"""Every call of every kind of party with every role: who may not is refused, and told nothing.

The table is made from the doors (`services.roles`) and stands in docs/roles.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from services.common.auth import OWN
from services.ecosystem import KINDS, load
from services.roles import as_markdown, common_doors, doors_of, one_of_each_kind

if TYPE_CHECKING:
    from conftest import World

EST = re.compile("simple(re)?enroll|cacerts")
# Never ends.
NOT_CALLED = {("/events/stream", "GET")}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, serve: Any) -> Iterator[World]:
    with serve(load(data=tmp_path_factory.mktemp("roles")).on_free_ports()) as found:
        yield found


@pytest.fixture(scope="module")
def known(world: World) -> dict[str, str]:
    """Somebody's car and contract."""
    car = world.car()
    contract = world.contract(car["pcid"])
    return {"pcid": car["pcid"], "emaid": contract["emaid"]}


def filled(path: str, known: dict[str, str]) -> str:
    """A path with values for its parameters: those of somebody where it is about that."""
    return re.sub(r"\{(\w+)(:\w+)?\}", lambda found: known.get(found[1], "unknown"), path)


def test_the_table_is_current(tmp_path: Path) -> None:
    kept = Path(__file__).parents[2] / "docs/roles.md"
    assert kept.read_text() == as_markdown(one_of_each_kind(tmp_path)), (
        "python -m services.roles > docs/roles.md"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_call_with_every_role(world: World, known: dict[str, str], kind: str) -> None:
    name = world.ecosystem.of_kind(kind)[0].name
    party = world.party(name)
    clients = {one: world.ecosystem.of_kind(one)[0].name for one in KINDS}
    issue = party.tokens.issue
    everybody = {client.id: client for client in world.ecosystem.all_clients()}
    clients["admin"] = "admin"
    tokens = {role: issue(everybody[client]).access_token for role, client in clients.items()}
    # Another one of the same kind, where the call is for the party itself.
    elsewhere = next(one for one in world.ecosystem.parties if one not in (name, "platform"))
    bad = {
        "none": None,
        "garbage": "e.y.J",
        "expired": issue(everybody["admin"], life=timedelta(seconds=-1)).access_token,
        "another party's": world.token(elsewhere),
    }
    common = common_doors()  # at one party is enough
    wrong = []
    for door in doors_of(world.apps[name]):
        key = (door.path, door.method)
        if door.roles is None or key in NOT_CALLED or (key in common and kind != "rcp"):
            continue
        path = filled(door.path, known)
        secrets = [value for value in known.values() if value not in path]

        def call(token: str | None, method: str = door.method, path: str = path) -> tuple[int, str]:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            answer = world.http.request(method, world.url(name) + path, headers=headers)
            return answer.status_code, answer.text

        for which, token in bad.items():
            status, text = call(token)
            if status != 401 or any(secret in text for secret in secrets):
                wrong.append((door.method, path, which, status, text))
        allowed = {kind if role == OWN else role for role in door.roles} or set(KINDS)
        for role in set(KINDS) - allowed:
            status, text = call(tokens[role])
            if status != 403 or any(secret in text for secret in secrets):
                wrong.append((door.method, path, role, status, text))
        if EST.search(path):
            continue  # who may enrol is decided by the label of the path
        for role in allowed:
            status, text = call(tokens[role])
            if status == 401 or (status == 403 and "wrong_role" in text):
                wrong.append((door.method, path, role, status, text))
    assert not wrong, "\n".join(map(str, wrong[:40]))
