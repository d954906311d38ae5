"""A party that is down, slow, or not what it should be: an outcome, never a traceback.

What was begun stands as unfinished, and is completed once when the party is back.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from services.charger.session import Facts
from services.common import judging
from services.cpo import service as cpo_service
from services.oem.store import pending
from services.vehicle import cable as vehicle_cable
from v2g.v2gtp import frame

if TYPE_CHECKING:
    from conftest import Parts, World


def new_car(parts: Parts) -> dict[str, Any]:
    return parts["garage"].car()


def order(parts: Parts, pcid: str) -> Any:
    """Order a contract; whatever the operator answers."""
    world = parts["sunmile"]
    return world.call("sunmile", "POST", "/contracts", {"driver": world.driver(), "pcid": pcid})


def charge(parts: Parts, pcid: str, **more: Any) -> dict[str, Any]:
    return parts["garage"].charge(pcid, 100, **more)


def contract_of(parts: Parts, pcid: str) -> dict[str, Any]:
    contracts = parts["sunmile"].ok("sunmile", "GET", "/contracts")
    found: dict[str, Any] = next(one for one in contracts if one["pcid"] == pcid)
    return found


def round_of(world: World, work: Callable[[], Any]) -> None:
    """One of the rounds that a party makes every few seconds, now."""
    world.run(work())


def said(answer: Any, status: int, code: str, party: str) -> None:
    """The answer is this refusal; ``party`` is the one at the far end that is the reason."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert body["details"]["party"] == party


@pytest.fixture(scope="module")
def charged(parts: Parts) -> str:
    """The PCID of a car that has a contract in it."""
    pcid: str = new_car(parts)["pcid"]
    assert order(parts, pcid).status_code == 201
    assert charge(parts, pcid)["outcome"] == "charged"
    return pcid


def test_the_provisioning_service_is_down(parts: Parts) -> None:
    """The contract stays certified, charges nowhere, and is completed by a later round."""
    pcid = new_car(parts)["pcid"]
    with parts.without("provisioning-service"):
        said(order(parts, pcid), 502, "party_unreachable", "provisioning-service")
        assert contract_of(parts, pcid)["status"] == "certified"
        assert charge(parts, pcid)["code"] == "FAILED_NoCertificateAvailable"
        round_of(parts["sunmile"], parts["sunmile"].service("sunmile").contracts.resume)
        assert contract_of(parts, pcid)["status"] == "certified"
    before = contract_of(parts, pcid)
    round_of(parts["sunmile"], parts["sunmile"].service("sunmile").contracts.resume)
    after = contract_of(parts, pcid)
    assert (after["status"], after["in_pool"]) == ("active", True)
    assert after["chain"] == before["chain"]
    assert charge(parts, pcid)["outcome"] == "charged"


def test_the_mobility_operator_restarts_with_a_contract_half_way(parts: Parts) -> None:
    """It gets ready without the provisioning service, and completes the contract later."""
    pcid = new_car(parts)["pcid"]
    with parts.without("provisioning-service"):
        assert order(parts, pcid).status_code == 502
        with parts.without("sunmile"):
            pass
        assert contract_of(parts, pcid)["status"] == "certified"
    round_of(parts["sunmile"], parts["sunmile"].service("sunmile").contracts.resume)
    assert contract_of(parts, pcid)["status"] == "active"


def test_the_contract_pool_is_down(parts: Parts, charged: str) -> None:
    """Signed and not stored: 502 from the far end, completed later; no installation meanwhile."""
    pcid = new_car(parts)["pcid"]
    with parts.without("contract-pool"):
        said(order(parts, pcid), 502, "party_unreachable", "contract-pool")
        outcome = charge(parts, pcid)
        assert (outcome["outcome"], outcome["stage"], outcome["code"]) == (
            "refused",
            "CertificateInstallationReq",
            "FAILED",
        )
        # Who has a contract in it does not need the pool.
        assert charge(parts, charged)["outcome"] == "charged"
    world = parts["provisioning-service"]
    round_of(world, world.service("provisioning-service").store_unstored)
    round_of(parts["sunmile"], parts["sunmile"].service("sunmile").contracts.resume)
    assert contract_of(parts, pcid)["status"] == "active"
    assert charge(parts, pcid)["outcome"] == "charged"


def test_revoking_while_the_contract_pool_is_down(parts: Parts) -> None:
    """Revoked at once, 502 for what could not be told; it leaves the pool later."""
    pcid = new_car(parts)["pcid"]
    emaid = order(parts, pcid).json()["emaid"]
    world = parts["sunmile"]
    with parts.without("contract-pool"):
        answer = world.call("sunmile", "POST", f"/contracts/{emaid}/revoke", {})
        said(answer, 502, "party_unreachable", "contract-pool")
        found = contract_of(parts, pcid)
        assert (found["status"], found["in_pool"]) == ("revoked", True)
    round_of(world, world.service("sunmile").contracts.resume)
    assert contract_of(parts, pcid)["in_pool"] is False
    gone = parts["contract-pool"].call("contract-pool", "GET", f"/contracts/{emaid}")
    assert gone.status_code == 404


def test_the_contract_pool_is_silent(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool that never answers: the car is told FAILED before it stops waiting."""
    monkeypatch.setattr(cpo_service, "INSTALLATION_TIMEOUT", 0.5)
    pcid = new_car(parts)["pcid"]
    with parts.instead("contract-pool", None):
        began = time.monotonic()
        outcome = charge(parts, pcid)
        assert time.monotonic() - began < 4
        assert (outcome["outcome"], outcome["code"]) == ("refused", "FAILED")
        body = {"certificate_installation_req": "AAAA"}
        answer = parts["plugpark"].call("plugpark", "POST", "/installations", body)
        said(answer, 504, "party_too_slow", "contract-pool")


def test_the_provisioning_certificate_pool_is_down(parts: Parts) -> None:
    """No contract is written down; a car is pending at its maker, and registered later."""
    pcid = new_car(parts)["pcid"]
    with parts.without("provisioning-pool"):
        world = parts["sunmile"]
        driver = world.driver()
        with world.unchanged("sunmile"):
            body = {"driver": driver, "pcid": pcid}
            answer = world.call("sunmile", "POST", "/contracts", body)
        said(answer, 502, "party_unreachable", "provisioning-pool")
        answer = parts["garage"].call("garage", "POST", "/vehicles", {})
        said(answer, 502, "party_unreachable", "provisioning-pool")
    maker = parts["nova-cars"]
    rows = maker.run(maker.party("nova-cars").database.read(pending))
    assert len(rows) == 1
    round_of(maker, maker.service("nova-cars").resume)
    assert maker.run(maker.party("nova-cars").database.read(pending)) == []
    car = maker.ok("nova-cars", "GET", f"/vehicles/{rows[0].pcid}")
    assert (car["status"], len(car["chain"])) == ("registered", 3)


def test_the_operator_is_down(parts: Parts, charged: str) -> None:
    with parts.without("plugpark"):
        outcome = charge(parts, charged)
        assert (outcome["outcome"], outcome["stage"], outcome["code"]) == (
            "refused",
            "PaymentDetailsReq",
            "FAILED",
        )
    assert charge(parts, charged)["outcome"] == "charged"


def test_the_mobility_operator_is_down(parts: Parts, charged: str) -> None:
    """Nobody says that the contract is not revoked, nobody promises to pay: no energy."""
    with parts.without("sunmile"):
        outcome = charge(parts, charged)
        assert outcome["outcome"] == "refused"
        assert outcome["stage"] in ("PaymentDetailsReq", "AuthorizationReq")
        evse = {
            "emaid": "DESUNC12345678",
            "evse_id": "DE*PLG*E0001*1",
            "certificate_fingerprint": "0" * 64,
        }
        answer = parts["plugpark"].ok("plugpark", "POST", "/authorizations", evse)
        assert (answer["accepted"], answer["iso15118_2"]) == (False, "FAILED")
        assert "could not be reached" in answer["reason"]
    assert charge(parts, charged)["outcome"] == "charged"


def test_the_mobility_operator_is_silent(
    parts: Parts, charged: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging, "OCSP_TIMEOUT", 0.3)
    monkeypatch.setattr(cpo_service, "AUTHORIZATION_TIMEOUT", 0.5)
    with parts.instead("sunmile", None):
        outcome = charge(parts, charged)
        assert outcome["outcome"] == "refused"
        evse = {
            "emaid": "DESUNC12345678",
            "evse_id": "DE*PLG*E0001*1",
            "certificate_fingerprint": "0" * 64,
        }
        answer = parts["plugpark"].ok("plugpark", "POST", "/authorizations", evse)
        assert "did not answer in time" in answer["reason"]


def test_a_record_that_nobody_takes_is_sent_later(parts: Parts, charged: str) -> None:
    """The mobility operator goes down while a car charges: settled when it is back, once."""
    emaid = contract_of(parts, charged)["emaid"]
    operator = parts["plugpark"]
    evse = {"emaid": emaid, "evse_id": "DE*PLG*E0001*1"}
    as_charger = {"client": "charger-1"}
    chain = parts["garage"].ok("garage", "GET", f"/vehicles/{charged}")["contract"]["chain"]
    shown = hashlib.sha256(base64.b64decode(chain[0])).hexdigest()
    asked = {**evse, "certificate_fingerprint": shown}
    promise = operator.ok("plugpark", "POST", "/authorizations", asked, **as_charger)
    session_id = secrets.token_bytes(8)
    start = {
        **evse,
        "session_id": session_id.hex(),
        "authorization_reference": promise["authorization_reference"],
        "meter_start_wh": 5000,
    }
    session = operator.ok("plugpark", "POST", "/sessions", start, **as_charger)
    garage = parts["garage"]
    car = garage.run(garage.service("garage")._car(charged))
    receipts = garage.receipts(car, session_id, 5000, 6000)
    stop = {"meter_stop_wh": 6000, "receipts": receipts}
    path = f"/sessions/{session['id']}/stop"
    with parts.without("sunmile"):
        ended = operator.ok("plugpark", "POST", path, stop, **as_charger)
        assert ended["status"] == "ended"
        round_of(operator, operator.service("plugpark").send_unsent)
    before = parts["sunmile"].ok("sunmile", "GET", "/ledger")
    for _ in range(2):
        round_of(operator, operator.service("plugpark").send_unsent)
    sessions = operator.ok("plugpark", "GET", "/sessions")
    assert next(one["status"] for one in sessions if one["id"] == session["id"]) == "settled"
    after = parts["sunmile"].ok("sunmile", "GET", "/ledger")
    assert after["total_cents"] == 0
    assert before["accounts"]["cpo:plugpark"] - after["accounts"]["cpo:plugpark"] == 84


def test_a_stop_that_nobody_confirms_is_told_later(parts: Parts, charged: str) -> None:
    """The operator goes down while a car charges: the meter counts, the stop is told later."""
    emaid = contract_of(parts, charged)["emaid"]
    charger = parts["charger-1"]
    service = charger.service("charger-1")
    facts = Facts(session_id=secrets.token_bytes(8), emaid=emaid, authorization="none")
    meter = charger.run(service.record_start(facts))
    with parts.without("plugpark"):
        charger.run(service.record_receipt(facts.session_id, meter + 700, b"receipt"))
        charger.run(service.record_stop(facts.session_id, 0))
        round_of(charger, service.confirm_stops)
        assert charger.state("charger-1")["charger-1", "unconfirmed_stops"][0] == 1
    round_of(charger, service.confirm_stops)
    assert charger.state("charger-1")["charger-1", "unconfirmed_stops"][0] == 0
    assert charger.ok("charger-1", "GET", "/status")["meter_wh"] == meter + 700
    found = parts["plugpark"].ok("plugpark", "GET", "/sessions")[-1]
    assert (found["status"], found["energy_wh"]) == ("disputed", 700)


def test_the_charger_is_down(parts: Parts, charged: str) -> None:
    with parts.without("charger-1"):
        body = {"charger": "charger-1", "energy_wh": 100}
        answer = parts["garage"].call("garage", "POST", f"/vehicles/{charged}/charge", body)
        said(answer, 502, "party_unreachable", "charger-1")
    assert charge(parts, charged)["outcome"] == "charged"


CHARGERS: dict[str, tuple[bytes | None, str]] = {
    "silent": (None, "no answer within"),
    "closing": (b"", "closed"),
    "another protocol": (b"HTTP/1.1 200 OK\r\n\r\n", "begins with 01 FE"),
    "no EXI": (frame(0x8001, b"\xff" * 20), ""),
    "another payload type": (frame(0x9001, b""), "EXI answer"),
    "two answers": (frame(0x8001, b"") * 2, "EXI answer"),
}


@pytest.mark.parametrize("name", CHARGERS)
def test_what_answers_on_the_cable_is_no_charger(
    parts: Parts, charged: str, listen: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vehicle_cable, "OTHER_TIMEOUT", 0.3)
    answer, reason = CHARGERS[name]
    world = parts["garage"]
    garage = world.service("garage")
    car = world.run(garage._car(charged))
    impostor, _ = listen
    with impostor(("127.0.0.1", 0), answer) as (host, port):
        outcome = world.run(garage._session(car, f"{host}:{port}", 100, None))
    assert (outcome.outcome, outcome.stage) == ("failed", "supportedAppProtocolReq")
    assert reason in outcome.reason


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere", "127.0.0.1:x", "", ":0"])
def test_nobody_is_on_the_cable(parts: Parts, charged: str, address: str) -> None:
    world = parts["garage"]
    garage = world.service("garage")
    car = world.run(garage._car(charged))
    outcome = world.run(garage._session(car, address, 100, None))
    assert (outcome.outcome, outcome.stage) == ("failed", "plug-in")


TOKEN = b'{"access_token": "x"}'
IMPOSTORS: dict[str, tuple[bytes, str, dict[str, str], str]] = {
    "no HTTP": (b"", "", {"raw": "220 mail.example ESMTP\r\n"}, "party_unreachable"),
    "closing": (b"", "", {"raw": ""}, "party_unreachable"),
    "a page": (b"<html>hello</html>", "200 OK", {}, "unexpected_answer"),
    "a list": (b"[]", "200 OK", {}, "unexpected_answer"),
    "null": (b"null", "200 OK", {}, "unexpected_answer"),
    "deep": (b"[" * 50_000, "200 OK", {}, "unexpected_answer"),
    "only a token": (TOKEN, "200 OK", {}, "unexpected_answer"),
    "a redirection": (
        b"",
        "302 Found",
        {"headers": "Location: http://x/\r\n"},
        "unexpected_answer",
    ),
    "an error without a body": (b"", "500 Oh", {}, "unexpected_answer"),
    "an error that is none": (b'{"code": 1}', "400 Bad", {}, "unexpected_answer"),
    "too much": (b"A" * 9_000_000, "200 OK", {}, "party_unreachable"),
}


@pytest.mark.parametrize("name", IMPOSTORS)
def test_something_else_listens_where_a_party_should(
    parts: Parts, listen: Any, name: str, charged: str
) -> None:
    """For each caller of another party: 4xx or 502 with a code, nothing half done."""
    body, status, more, code = IMPOSTORS[name]
    _, http_answer = listen
    raw = (
        more["raw"].encode()
        if "raw" in more
        else http_answer(body, status, more.get("headers", ""))
    )
    with parts.instead("provisioning-pool", raw):
        world = parts["sunmile"]
        driver = world.driver()
        with world.unchanged("sunmile"):
            order_body = {"driver": driver, "pcid": charged}
            answer = world.call("sunmile", "POST", "/contracts", order_body)
        assert answer.json()["code"] == code, answer.text
        assert answer.status_code == 502 or name == "an error that is none", answer.text


def test_starting_without_the_others(parts: Parts) -> None:
    """A party that waits for another one says so, and is ready when it is there."""
    with parts.without("root-pool"):
        parts.down("terra-motors")
        starter = threading.Thread(target=parts.up, args=("terra-motors",))
        starter.start()
        url = parts.ecosystem.party("terra-motors").url
        until = time.monotonic() + 10
        health: Any = {}
        while time.monotonic() < until and "root-pool" not in str(health.get("waiting_for")):
            time.sleep(0.1)
            try:
                answer = parts["garage"].http.get(f"{url}/healthz")
            except httpx.TransportError:
                continue  # it does not listen yet
            assert answer.status_code == 503
            health = answer.json()
        assert "root-pool at" in health["waiting_for"]
        assert health["status"] == "starting"
    starter.join(20)
    assert parts["terra-motors"].ok("terra-motors", "GET", "/healthz")["status"] == "ready"


def test_half_a_request_is_none(world: World) -> None:
    """Who hangs up within its body has asked for nothing."""
    car = world.car()
    contract = world.contract(car["pcid"])
    host, port = world.ecosystem.party("sunmile").address
    token = world.token("sunmile")
    with world.unchanged("sunmile"):
        with socket.create_connection((host, port)) as connection:
            connection.sendall(
                f"POST /contracts/{contract['emaid']}/cancel HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Bearer {token}\r\nContent-Length: 9\r\n\r\n{{".encode()
            )
        time.sleep(0.3)
    assert world.ok("sunmile", "GET", f"/contracts/{contract['emaid']}")["status"] == "active"


def test_leaves_are_renewed_when_a_third_of_their_life_is_left(parts: Parts, charged: str) -> None:
    """Signer and charger certificates: kept at a restart, renewed at one near their end."""

    def certificates() -> tuple[str, str]:
        signer = parts["provisioning-service"].ok("provisioning-service", "GET", "/signer")
        charger = parts["charger-1"].ok("charger-1", "GET", "/status")
        return signer["chain"][0], charger["certificate"][0]

    names = ("provisioning-service", "charger-1")
    before = certificates()
    with parts.without(*names):
        pass
    assert certificates() == before
    now, ecosystem = parts.ecosystem.clock_offset, parts.ecosystem
    try:
        # All move: who certifies must live in the same time as who asks.
        parts.close()
        parts.ecosystem = replace(ecosystem, clock_offset=now + timedelta(days=65))
        parts.up(*parts.everybody)
        later = certificates()
        assert all(new != old for new, old in zip(later, before, strict=True))
        assert charge(parts, charged)["outcome"] == "charged"
    finally:
        parts.ecosystem = ecosystem


def test_a_car_whose_maker_could_not_register_it_keeps_its_key(parts: Parts, listen: Any) -> None:
    """The pool refuses the maker for a while: the order stands at both, under one key."""
    _, http_answer = listen
    refusal = http_answer(b'{"code": "chain_refused", "message": "not yet"}', "422 Unprocessable")
    pcid = "WNV0PENDANT0000001"
    with parts.instead("provisioning-pool", refusal):
        answer = parts["garage"].call("garage", "POST", "/vehicles", {"pcid": pcid})
        assert answer.status_code == 422, answer.text
    built = parts["garage"].ok("garage", "POST", "/vehicles", {"pcid": pcid})
    assert built["pcid"] == pcid
