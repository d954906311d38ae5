"""Two hundred cars install their contracts at the same time, through ``pnclab up``.

What this keeps true: no thread is held while another party is called, and a burst waits its
turn. With handlers that hold a thread, twenty concurrent requests through three hops stand
still for ever; without turns, the last of two hundred run into the timeouts of the calls
inside.
"""

from __future__ import annotations

import asyncio
import base64
import sys
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
from cryptography import x509

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import Up, b64

from pki.contract_key import EncryptedContractKey, decrypt_contract_key
from pki.edition import ISO2
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from v2g import exi
from v2g.certificate_installation import RootId, build_request, read_response
from v2g.messages import iso2

CARS = 200
VISITS = 40

Post = Callable[..., Coroutine[Any, Any, dict[str, Any]]]


async def _in_turns(calls: list[Awaitable[Any]], at_once: int = 16) -> list[Any]:
    gate = asyncio.Semaphore(at_once)

    async def one(call: Awaitable[Any]) -> Any:
        async with gate:
            return await call

    return await asyncio.gather(*(one(call) for call in calls))


async def _with_client(up: Up, play: Callable[[Post], Awaitable[Any]]) -> Any:
    limits = httpx.Limits(max_connections=CARS, max_keepalive_connections=CARS)
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as http:

        async def post(
            kind: str, path: str, body: dict[str, Any], client: str = "admin"
        ) -> dict[str, Any]:
            party = up.named(kind)
            answer = await http.post(
                up.url(party) + path,
                json=body,
                headers={"Authorization": f"Bearer {up.token(party, client)}"},
            )
            assert answer.is_success, f"{path}: {answer.status_code} {answer.text}"
            found: dict[str, Any] = answer.json()
            return found

        return await play(post)


def test_two_hundred_requests_at_the_operator_at_once(up: Up) -> None:
    """Cars of our own keys: every answer is opened with the key of the car it is for."""
    garage, charger = up.named("vehicle"), up.named("charger")

    async def play(post: Post) -> None:
        driver = await post("mo", "/drivers", {"name": "Fleet", "deposit": "1000.00"})
        keys = [SoftwareKey.generate(ISO2) for _ in range(CARS)]
        cars = await _in_turns(
            [
                post(
                    "oem",
                    "/vehicles",
                    {"csr": b64(certificate_request(Subject(common_name="car"), key))},
                    garage,
                )
                for key in keys
            ]
        )
        contracts = await _in_turns(
            [
                post("mo", "/contracts", {"driver": driver["id"], "pcid": car["pcid"]})
                for car in cars
            ]
        )
        requests = [_request(key, car) for key, car in zip(keys, cars, strict=True)]
        answers = await asyncio.gather(
            *(
                post("cpo", "/installations", {"certificate_installation_req": one}, charger)
                for one in requests
            )
        )
        for key, contract, answer in zip(keys, contracts, answers, strict=True):
            _must_open(key, contract["emaid"], answer)

    asyncio.run(_with_client(up, play))


def _request(key: SoftwareKey, car: dict[str, Any]) -> str:
    certificate = x509.load_der_x509_certificate(base64.b64decode(car["chain"][0]))
    roots = [RootId("CN=some root", 1)]  # the schema wants at least one
    return b64(exi.encode(iso2.SCHEMA, build_request(bytes(8), certificate, roots, key)))


def _must_open(key: SoftwareKey, emaid: str, answer: dict[str, Any]) -> None:
    assert answer["code"] == "OK", answer["reason"]
    data = read_response(base64.b64decode(answer["certificate_installation_res"])).data
    assert data.emaid == emaid
    contract = x509.load_der_x509_certificate(data.contract_chain[0])
    public = contract.public_key()
    opened = decrypt_contract_key(
        EncryptedContractKey(data.encrypted_private_key, data.dh_public_key), key, ISO2
    )
    assert opened.public_key == public


def test_many_cars_at_one_charger_at_once(up: Up) -> None:
    async def play(post: Post) -> list[dict[str, Any]]:
        driver = await post("mo", "/drivers", {"name": "Queue", "deposit": "1000.00"})
        cars = await _in_turns([post("vehicle", "/vehicles", {}) for _ in range(VISITS)])
        await _in_turns(
            [
                post("mo", "/contracts", {"driver": driver["id"], "pcid": car["pcid"]})
                for car in cars
            ]
        )
        visit = {"charger": up.named("charger"), "energy_wh": 0}
        return await asyncio.gather(
            *(post("vehicle", f"/vehicles/{car['pcid']}/charge", visit) for car in cars)
        )

    outcomes = asyncio.run(_with_client(up, play))
    words = {f"{one['outcome']} {one['stage']} {one['reason']}" for one in outcomes}
    assert all(one["installed"] for one in outcomes), words
    assert all(one["outcome"] == "charged" for one in outcomes), words
    assert len({one["emaid"] for one in outcomes}) == VISITS
