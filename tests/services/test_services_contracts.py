"""Contracts and money under unlucky order: what must hold whoever is first, or dies when."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509

from services.common.errors import Refusal
from services.common.events import Event, current_unit, unit_of_work
from services.mo.store import ContractRow


def rows(world: Any, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{world.database('sunmile')}?mode=ro", uri=True) as connection:
        return connection.execute(sql).fetchall()


def events(world: Any, name: str) -> int:
    return int(rows(world, f"SELECT count(*) FROM events WHERE name = '{name}'")[0][0])


def in_unit(work: Callable[[], Any]) -> Any:
    async def run() -> Any:
        with unit_of_work("test"):
            return await work()

    return run()


@pytest.fixture
def car(world: Any) -> dict[str, Any]:
    made: dict[str, Any] = world.car()
    return made


def test_an_order_that_was_revoked_meanwhile_is_not_certified(
    world: Any, car: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    contracts = world.service("sunmile").contracts
    certify = contracts._certify
    before = len(rows(world, "SELECT 1 FROM certificates WHERE role = 'contract'"))

    async def revoked_first(row: Any, recipient: Any) -> Any:
        await contracts.revoke(row.wire, "unspecified")
        return await certify(row, recipient)

    monkeypatch.setattr(contracts, "_certify", revoked_first)
    driver = world.driver()
    with pytest.raises(Refusal) as refused:
        world.run(in_unit(lambda: contracts.sign(driver, car["pcid"], None, None)))
    assert refused.value.code == "not_pending"
    assert len(rows(world, "SELECT 1 FROM certificates WHERE role = 'contract'")) == before
    (status,) = rows(world, f"SELECT status FROM contracts WHERE pcid = '{car['pcid']}'")[0]
    assert status == "revoked"


def test_revoking_the_certificate_ends_the_contract_and_empties_the_pool(
    world: Any, car: dict[str, Any]
) -> None:
    contract = world.contract(car["pcid"])
    world.ok(
        "sunmile",
        "POST",
        "/revocations",
        {"fingerprint": contract["fingerprint"], "reason": "keyCompromise"},
    )
    now = world.ok("sunmile", "GET", f"/contracts/{contract['emaid']}")
    assert now["status"] == "revoked"
    world.run(world.service("sunmile").contracts.resume())
    gone = world.call("contract-pool", "GET", f"/contracts/{contract['emaid']}")
    assert gone.status_code == 404


def test_a_contract_that_may_be_in_the_pool_is_taken_out(world: Any, car: dict[str, Any]) -> None:
    """The provisioning service stored it, and its answer was lost: the row says certified."""
    contract = world.contract(car["pcid"])
    service = world.service("sunmile")

    def as_before_the_answer(session: Any) -> None:
        session.get_one(ContractRow, contract["emaid"][:14]).status = "certified"

    world.run(in_unit(lambda: service.party.database.write(as_before_the_answer)))
    world.ok("sunmile", "POST", f"/contracts/{contract['emaid']}/revoke", {})
    gone = world.call("contract-pool", "GET", f"/contracts/{contract['emaid']}")
    assert gone.status_code == 404


def test_an_order_that_failed_half_way_is_taken_up_again(
    world: Any, car: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    contracts = world.service("sunmile").contracts
    driver = world.driver()
    complete = contracts._complete

    async def down(row: Any, recipient: Any = None) -> Any:
        raise Refusal(502, "party_unreachable", "nobody there")

    monkeypatch.setattr(contracts, "_complete", down)
    body = {"driver": driver, "pcid": car["pcid"]}
    failed = world.call("sunmile", "POST", "/contracts", body)
    assert failed.status_code == 502
    emaid = failed.json()["details"]["emaid"]
    monkeypatch.setattr(contracts, "_complete", complete)
    again = world.ok("sunmile", "POST", "/contracts", body)
    assert (again["emaid"], again["status"]) == (emaid, "active")
    assert len(world.ok("sunmile", "GET", f"/contracts?driver={driver}")) == 1


def test_a_certificate_does_not_outlive_its_profile(world: Any, car: dict[str, Any]) -> None:
    ends = (datetime.now(UTC) + timedelta(days=3650)).isoformat()
    contract = world.contract(car["pcid"], ends=ends)
    leaf = x509.load_der_x509_certificate(base64.b64decode(contract["chain"][0]))
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=732)


def authorization(world: Any, contract: dict[str, Any], **more: Any) -> dict[str, Any]:
    answer: dict[str, Any] = world.ok(
        "sunmile",
        "POST",
        "/authorizations",
        {
            "emaid": contract["emaid"],
            "evse_id": "DE*PLG*E0001*1",
            "tariff": {
                "id": "t",
                "currency": "EUR",
                "per_kwh": "0.49",
                "per_session": "0.35",
                **more.pop("tariff", {}),
            },
            **more,
        },
        client="plugpark",
    )
    return answer


def test_a_certificate_by_somebody_else_is_not_the_contracts(
    world: Any, car: dict[str, Any]
) -> None:
    contract = world.contract(car["pcid"])
    right = authorization(world, contract, certificate_fingerprint=contract["fingerprint"])
    assert right["allowed"] == "ALLOWED"
    wrong = authorization(world, contract, certificate_fingerprint=secrets.token_hex(32))
    assert (wrong["allowed"], wrong["code"]) == ("NOT_ALLOWED", "other_certificate")


def test_a_tariff_in_another_currency(world: Any, car: dict[str, Any]) -> None:
    contract = world.contract(car["pcid"])
    said = authorization(world, contract, tariff={"currency": "JPY"})
    assert (said["allowed"], said["code"]) == ("NOT_ALLOWED", "foreign_currency")


def test_a_record_many_times_at_once_is_told_once(world: Any, car: dict[str, Any]) -> None:
    contract = world.contract(car["pcid"])
    assert world.charge(car["pcid"])["outcome"] == "charged"
    (record,) = rows(world, f"SELECT record FROM cdrs WHERE emaid = '{contract['emaid'][:14]}'")[0]
    cdr = json.loads(record)
    told, invoiced = events(world, "invoice"), len(world.ok("sunmile", "GET", "/invoices"))
    second = authorization(world, contract)["authorization_reference"]
    third = authorization(world, contract)["authorization_reference"]
    answers = world.all(
        "sunmile",
        "POST",
        [
            (
                "/cdrs",
                json.dumps(
                    {**cdr, "id": f"again-{i}", "authorization_reference": reference}
                ).encode(),
                {"Content-Type": "application/json"},
            )
            for i, reference in enumerate((second, third))
        ],
        client="plugpark",
    )
    assert {answer.status_code for answer in answers} == {409}
    assert events(world, "invoice") == told
    assert len(world.ok("sunmile", "GET", "/invoices")) == invoiced
    assert world.ok("sunmile", "GET", "/ledger")["total_cents"] == 0


def test_a_revocation_list_is_signed_anew_when_something_was_revoked(
    world: Any, car: dict[str, Any]
) -> None:
    def number() -> int:
        encoded = world.call("sunmile", "GET", "/crl/mo-sub2").content
        crl = x509.load_der_x509_crl(encoded)
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    contract = world.contract(car["pcid"])
    first = number()
    assert number() == first
    world.ok("sunmile", "POST", f"/contracts/{contract['emaid']}/revoke", {})
    assert number() == first + 1


def test_a_write_that_is_cancelled_takes_its_events_once(world: Any) -> None:
    """The job that has begun commits; its events do not come a second time."""
    party = world.party("sunmile")

    async def run() -> int:
        with unit_of_work("cancelled"):
            party.recorder.record(Event("state", "cancelled once", "sunmile", "sunmile"))

            def slow(_session: Any) -> None:
                time.sleep(0.2)

            task = asyncio.create_task(party.database.write(slow))
            await asyncio.sleep(0.1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            left = len(current_unit().events)
            await party.database.flush()
            await asyncio.sleep(0.3)
            return left

    assert world.run(run()) == 0
    assert events(world, "cancelled once") == 1
