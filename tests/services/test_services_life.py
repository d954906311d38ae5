"""The life of a contract: updates, several in a car, a move to another operator, the end.

What is asserted is read from the parties' databases and from what comes over the cable, not
only from the answer of the call that caused it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki.keys import SoftwareKey
from scenarios.lab import Lab
from scenarios.timing import Settled, settle
from services.common.errors import PartyUnreachable, Refusal
from services.common.events import unit_of_work
from services.ecosystem import load
from v2g import exi
from v2g.certificate_installation import RootId
from v2g.certificate_update import (
    NEVER,
    NEXT_TIME,
    build_update_request,
    read_update_request,
    read_update_response,
)
from v2g.messages import iso2

MO = {"DESUN": "sunmile", "NLGRD": "gridpass"}


@pytest.fixture(scope="module")
def life(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An ecosystem whose clock these tests may move."""
    with serve(load(data=tmp_path_factory.mktemp("life")).on_free_ports()) as found:
        yield found


@pytest.fixture
def years(serve: Any, tmp_path: Path) -> Iterator[Any]:
    """An ecosystem of one's own, for a test in which years pass."""
    with serve(load(data=tmp_path).on_free_ports()) as found:
        yield found


@pytest.fixture(scope="module")
def open_life(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The same with the other value of each policy on what to do when something fails."""
    ecosystem = load(data=tmp_path_factory.mktemp("open")).on_free_ports()
    ecosystem = ecosystem.with_policies(
        {
            "operator_unreachable": "allow",
            "installation_failed": "use-present",
            "unknown_car": "no-certificate",
            "unknown_root_code": "not-allowed",
            "expired_update": "allow",
            "renewals": "always",
        }
    )
    with serve(ecosystem) as found:
        yield found


def rows(world: Any, party: str, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(f"file:{world.database(party)}?mode=ro", uri=True) as connection:
        return connection.execute(sql).fetchall()


def one(world: Any, party: str, sql: str) -> Any:
    (found,) = rows(world, party, sql)
    return found[0]


def do_round(world: Any, work: Callable[[], Any]) -> None:
    """Run a party's round now."""

    async def run() -> None:
        with unit_of_work("round"):
            await work()

    world.run(run())


def until(what: Callable[[], bool], seconds: float = 40.0) -> None:
    """Wait for the rounds of several parties to get there."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.2)


def advance(world: Any, by: str) -> None:
    world.ok("sunmile", "PUT", "/clock", {"advance": by})
    world._tokens.clear()  # they have expired, with the rest


def contract_at(world: Any, mo: str, pcid: str, **more: Any) -> dict[str, Any]:
    driver = world.ok(mo, "POST", "/drivers", {"name": "Bo Driver", "deposit": "99.00"})["id"]
    body = {"driver": driver, "pcid": pcid, **more}
    made: dict[str, Any] = world.ok(mo, "POST", "/contracts", body)
    return made


def generations(world: Any, emaid: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.ok(MO[emaid[:5]], "GET", f"/contracts/{emaid}/generations")
    return found


def installed(world: Any, pcid: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.ok("garage", "GET", f"/vehicles/{pcid}/contracts")
    return found


def invoices(world: Any, mo: str, emaid: str) -> int:
    return int(one(world, mo, f"SELECT count(*) FROM invoices WHERE emaid = '{emaid}'"))


def charged(outcome: dict[str, Any]) -> dict[str, Any]:
    assert outcome["outcome"] == "charged", outcome
    return outcome


def pnc(world: Any, days: int) -> tuple[str, str]:
    """A car with an installed contract whose certificate ends in ``days``; PCID and EMAID."""
    pcid = world.car()["pcid"]
    ends = world.party("sunmile").clock.now() + timedelta(days=days)
    emaid = world.contract(pcid, valid_to=ends.isoformat())["emaid"]
    charged(world.charge(pcid, installation="always"))
    return pcid, emaid


def update_request(world: Any, pcid: str, **other: Any) -> bytes:
    """What a car of the garage would send; ``other`` takes the place of its own values."""
    car = world.run(world.service("garage")._car(pcid))
    values = {
        "emaid": car.contract.emaid,
        "contract_chain": car.contract.chain,
        "signer": car.contract.key,
        **other,
    }
    message = build_update_request(
        bytes(8),
        values["emaid"],
        values["contract_chain"],
        [RootId.of(root) for root in car.v2g_roots],
        values["signer"],
    )
    return exi.encode(iso2.SCHEMA, message)


def update(world: Any, request: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = world.ok(
        "contract-pool",
        "POST",
        "/updates",
        {"certificate_update_req": base64.b64encode(request).decode()},
    )
    return answer


# ------------------------------------------------------------------------------------- updates


def test_a_contract_that_ends_soon_is_updated_before_it_does(life: Any) -> None:
    pcid, emaid = pnc(life, days=20)
    before = installed(life, pcid)
    outcome = charged(life.charge(pcid))
    assert outcome["updated"]
    assert not outcome["installed"]
    assert outcome["code"] == "OK"
    assert "CertificateUpdateReq" in outcome["stages"]
    assert "CertificateInstallationReq" not in outcome["stages"]
    assert outcome["emaid"] == emaid
    after = installed(life, pcid)
    # Both are there, the new one is in use, and it is another key.
    assert [found["in_use"] for found in after] == [True, False]
    assert after[1]["chain"] == before[0]["chain"]
    new, old = (
        x509.load_der_x509_certificate(base64.b64decode(found["chain"][0])) for found in after
    )
    assert new.not_valid_after_utc - old.not_valid_after_utc > timedelta(days=365)
    assert new.public_key() != old.public_key()
    first, second = generations(life, emaid)
    assert (first["status"], second["status"]) == ("superseded", "active")
    assert second["update_for"] == first["fingerprint"]
    # The same driver pays for both visits, by receipts of either certificate.
    assert invoices(life, "sunmile", emaid) == 2
    # The next visit asks for nothing.
    assert "ServiceDetailReq" not in charged(life.charge(pcid))["stages"]


def test_a_contract_that_ends_later_is_not_updated(life: Any) -> None:
    pcid, emaid = pnc(life, days=25)
    assert not charged(life.charge(pcid))["updated"]
    assert len(generations(life, emaid)) == 1


def test_the_charger_says_that_a_certificate_expires_soon(life: Any) -> None:
    pcid, _ = pnc(life, days=20)
    outcome = charged(life.charge(pcid, installation="never"))
    assert outcome["code"] == "OK_CertificateExpiresSoon"
    later, _ = pnc(life, days=23)
    assert charged(life.charge(later, installation="never"))["code"] == "OK"


def test_the_older_certificate_is_good_until_the_switch(life: Any) -> None:
    pcid, emaid = pnc(life, days=20)
    wish = life.ok("sunmile", "POST", f"/contracts/{emaid}/renewals", {})
    assert wish["renewed"], wish
    # The car does not know yet, and charges with what it has; it is paid for.
    assert not charged(life.charge(pcid, installation="never"))["updated"]
    assert invoices(life, "sunmile", emaid) == 2
    assert charged(life.charge(pcid))["updated"]
    assert len(generations(life, emaid)) == 2  # what waited was fetched, nothing new was issued


def test_a_revoked_older_certificate_is_refused_and_the_new_one_charges(life: Any) -> None:
    pcid, emaid = pnc(life, days=20)
    charged(life.charge(pcid))
    first, second = generations(life, emaid)
    life.ok(
        "sunmile",
        "POST",
        "/revocations",
        {"fingerprint": first["fingerprint"], "reason": "superseded"},
    )
    assert [found["status"] for found in generations(life, emaid)] == ["revoked", "active"]
    assert life.ok("sunmile", "GET", f"/contracts/{emaid}")["status"] == "active"
    said = life.ok(
        "sunmile",
        "POST",
        "/authorizations",
        {
            "emaid": emaid,
            "certificate_fingerprint": first["fingerprint"],
            "evse_id": "DE*PLG*E0001*1",
            "tariff": {
                "id": "t",
                "currency": "EUR",
                "per_kwh": "0.49",
                "per_session": "0.35",
            },
        },
        client="plugpark",
    )
    assert (said["allowed"], said["code"]) == ("NOT_ALLOWED", "contract_revoked")
    charged(life.charge(pcid))
    assert second["status"] == "active"


def test_revoking_a_contract_revokes_all_its_certificates(life: Any) -> None:
    pcid, emaid = pnc(life, days=20)
    charged(life.charge(pcid))
    life.ok("sunmile", "POST", f"/contracts/{emaid}/revoke", {"reason": "keyCompromise"})
    assert [found["status"] for found in generations(life, emaid)] == ["revoked", "revoked"]
    prints = ", ".join(f"'{found['fingerprint']}'" for found in generations(life, emaid))
    revoked = rows(
        life, "sunmile", f"SELECT reason FROM certificates WHERE fingerprint IN ({prints})"
    )
    assert revoked == [("keyCompromise",), ("keyCompromise",)]
    refused = life.charge(pcid)
    assert (refused["stage"], refused["code"]) == (
        "PaymentDetailsReq",
        "FAILED_CertificateRevoked",
    )
    assert (
        rows(life, "contract-pool", f"SELECT 1 FROM contract_data WHERE emaid='{emaid[:14]}'") == []
    )


def test_an_update_that_comes_too_early_says_when(life: Any) -> None:
    pcid = life.car()["pcid"]
    emaid = life.contract(pcid)["emaid"]  # two years
    charged(life.charge(pcid))
    with life.unchanged("sunmile", "provisioning-service", "contract-pool"):
        outcome = life.charge(pcid, installation="update")
    assert (outcome["stage"], outcome["code"]) == (
        "CertificateUpdateReq",
        "FAILED_NoCertificateAvailable",
    )
    (found,) = installed(life, pcid)
    days = (
        datetime.fromisoformat(found["retry_at"]) - life.party("garage").clock.now()
    ) / timedelta(days=1)
    assert 700 < days < 704  # two years less 28 days
    assert len(generations(life, emaid)) == 1


def test_the_pool_judges_who_asks_for_an_update(life: Any) -> None:
    pcid, emaid = pnc(life, days=20)
    other, _ = pnc(life, days=20)
    theirs = life.run(life.service("garage")._car(other)).contract
    stranger = SoftwareKey.generate(life.party("garage").edition)
    cases = [
        ({"signer": stranger}, "FAILED_SignatureError", NEXT_TIME),
        ({"signer": theirs.key}, "FAILED_SignatureError", NEXT_TIME),
        ({"emaid": theirs.emaid}, "FAILED_CertChainError", NEVER),
    ]
    with life.unchanged("sunmile", "provisioning-service", "contract-pool", "garage"):
        for changed, code, retry in cases:
            said = update(life, update_request(life, pcid, **changed))
            assert (said["code"], said["retry_counter"]) == (code, retry), said
            response = read_update_response(base64.b64decode(said["certificate_update_res"]))
            assert response.code.value == code
            assert response.retry_counter == retry
    assert len(generations(life, emaid)) == 1


@pytest.mark.parametrize("content", [b"\x80", b"", b"\x80\x98\x02", bytes(300)])
def test_bytes_that_are_no_update_request(life: Any, content: bytes) -> None:
    body = {"certificate_update_req": base64.b64encode(content).decode()}
    answer = life.call("contract-pool", "POST", "/updates", body)
    assert answer.status_code == 400
    assert answer.json()["code"] in ("wrong_exi", "wrong_message", "empty")


def test_an_update_request_of_a_revoked_contract(life: Any) -> None:
    pcid, emaid = pnc(life, days=20)
    request = update_request(life, pcid)
    life.ok("sunmile", "POST", f"/contracts/{emaid}/revoke", {})
    said = update(life, request)
    assert (said["code"], said["retry_counter"]) == ("FAILED_CertificateRevoked", NEVER)


def test_an_update_request_of_a_cancelled_contract(life: Any) -> None:
    pcid, emaid = pnc(life, days=20)
    life.ok("sunmile", "POST", f"/contracts/{emaid}/cancel")
    outcome = life.charge(pcid)
    assert (outcome["stage"], outcome["code"]) == (
        "CertificateUpdateReq",
        "FAILED_ContractCanceled",
    )
    assert installed(life, pcid)[0]["retry_never"]
    # It was told never to ask again, and does not.
    again = life.charge(pcid)
    assert (again["stage"], again["code"]) == ("AuthorizationReq", "FAILED_ContractCanceled")


def test_the_same_update_asked_twice_is_the_same_certificate(life: Any) -> None:
    pcid, emaid = pnc(life, days=20)
    request = update_request(life, pcid)
    first, second = update(life, request), update(life, request)
    assert first["code"] == second["code"] == "OK"
    assert len(generations(life, emaid)) == 2
    chains = [
        read_update_response(base64.b64decode(said["certificate_update_res"])).data.contract_chain
        for said in (first, second)
    ]
    assert chains[0] == chains[1]
    assert read_update_request(request).contract_chain != chains[0]


def test_many_updates_of_one_contract_at_once_issue_one_certificate(life: Any) -> None:
    pcid, emaid = pnc(life, days=20)
    body = {"certificate_update_req": base64.b64encode(update_request(life, pcid)).decode()}
    said = life.all(
        "contract-pool",
        "POST",
        [("/updates", json.dumps(body).encode(), {"Content-Type": "application/json"})] * 12,
    )
    assert {answer.status_code for answer in said} == {200}
    assert len(generations(life, emaid)) == 2
    assert "OK" in {answer.json()["code"] for answer in said}
    assert update(life, update_request(life, pcid))["code"] == "OK"


def test_a_contract_is_renewed_in_time_without_anybody_asking(years: Any) -> None:
    """The round brings the next certificate into the pool while the present one is good."""
    pcid = years.car()["pcid"]
    emaid = years.contract(pcid)["emaid"]
    charged(years.charge(pcid))
    advance(years, "710d")
    do_round(years, years.service("sunmile").renewals.in_time)
    first, second = generations(years, emaid)
    assert second["status"] == "active"
    assert (
        one(
            years,
            "contract-pool",
            f"SELECT update_for FROM contract_data WHERE emaid='{emaid[:14]}'",
        )
        == first["fingerprint"]
    )
    assert charged(years.charge(pcid))["updated"]
    # And again after the old one's end, without the older one left in the car.
    advance(years, "30d")
    do_round(years, years.service("garage").life.resume)
    assert len(installed(years, pcid)) == 1
    assert (
        one(years, "garage", f"SELECT count(*) FROM keys WHERE reference LIKE 'car/{pcid}/c%'") == 1
    )
    charged(years.charge(pcid))


def test_what_is_not_to_be_renewed_is_not_told_as_done(life: Any) -> None:
    """A certificate that ends in 20 days since its order says so."""
    ends = life.party("sunmile").clock.now() + timedelta(days=20)
    life.contract(life.car()["pcid"], valid_to=ends.isoformat())

    async def again() -> Settled:
        async with Lab(life.ecosystem) as lab:
            await settle(lab, list(life.ecosystem.parties))
            return await settle(lab, list(life.ecosystem.parties))

    settled = asyncio.run(again())
    assert (settled.done, settled.turns, settled.finished) == ([], 1, True)


def test_an_expired_contract_is_installed_anew(years: Any) -> None:
    """A year passes in one step: no update for what has expired, an installation instead."""
    pcid = years.car()["pcid"]
    emaid = years.contract(pcid)["emaid"]
    charged(years.charge(pcid))
    advance(years, "760d")
    refused = years.charge(pcid, installation="never")
    assert (refused["stage"], refused["code"]) == (
        "PaymentDetailsReq",
        "FAILED_CertificateExpired",
    )
    said = update(years, update_request(years, pcid))
    assert (said["code"], said["retry_counter"]) == ("FAILED_CertificateExpired", NEVER)
    until(lambda: generations(years, emaid)[-1]["number"] == 2)
    until(lambda: generations(years, emaid)[-1]["status"] == "active")
    outcome = charged(years.charge(pcid))
    assert outcome["installed"]
    assert outcome["emaid"] == emaid


# ------------------------------------------------------------------------- several, and moving


def test_two_contracts_and_the_default_wins(life: Any) -> None:
    pcid = life.car()["pcid"]
    sun = life.contract(pcid)["emaid"]
    grid = contract_at(life, "gridpass", pcid)["emaid"]
    # The pool hands them out one by one, its default first.
    life.ok("contract-pool", "PUT", f"/cars/{pcid}/default", {"emaid": grid})
    pool = life.ok("contract-pool", "GET", f"/cars/{pcid}")
    assert pool["default"] == grid[:14]
    assert [found["emaid"] for found in pool["contracts"]] == [grid[:14], sun[:14]]
    assert charged(life.charge(pcid))["emaid"] == grid
    assert charged(life.charge(pcid, installation="always"))["emaid"] == sun
    # In the car the default wins over what was installed last.
    assert charged(life.charge(pcid))["emaid"] == sun
    life.ok("garage", "PUT", f"/vehicles/{pcid}/default-contract", {"emaid": grid})
    assert charged(life.charge(pcid))["emaid"] == grid
    assert [(found["emaid"], found["default"]) for found in installed(life, pcid)] == [
        (sun, False),
        (grid, True),
    ]
    # Who is named pays.
    assert charged(life.charge(pcid, emaid=sun))["emaid"] == sun
    assert invoices(life, "sunmile", sun) == 3
    assert invoices(life, "gridpass", grid) == 2
    # Removed with its key; what is left pays.
    life.ok("garage", "DELETE", f"/vehicles/{pcid}/contracts/{grid}")
    assert (
        one(life, "garage", f"SELECT count(*) FROM keys WHERE reference LIKE 'car/{pcid}/c%'") == 1
    )
    assert one(life, "garage", f"SELECT default_emaid FROM cars WHERE pcid='{pcid}'") is None
    assert charged(life.charge(pcid, installation="never"))["emaid"] == sun


def test_a_default_that_is_none(life: Any) -> None:
    pcid, other = life.car()["pcid"], life.car()["pcid"]
    emaid = life.contract(pcid)["emaid"]
    charged(life.charge(pcid))
    with life.unchanged("garage", "contract-pool"):
        for party, path, body, status, code in (
            ("contract-pool", f"/cars/{other}/default", {"emaid": emaid}, 404, "other_car"),
            (
                "contract-pool",
                f"/cars/{pcid}/default",
                {"emaid": "DESUNC00000000"},
                404,
                "unknown_emaid",
            ),
            (
                "garage",
                f"/vehicles/{pcid}/default-contract",
                {"emaid": "DESUNC00000000"},
                404,
                "unknown_emaid",
            ),
            ("garage", "/vehicles/X/default-contract", {"emaid": None}, 404, "unknown_pcid"),
        ):
            answer = life.call(party, "PUT", path, body)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
        foreign = life.call(
            "contract-pool", "PUT", f"/cars/{pcid}/default", {"emaid": emaid}, client="gridpass"
        )
        assert (foreign.status_code, foreign.json()["code"]) == (403, "not_yours")
        unknown = life.call("garage", "DELETE", f"/vehicles/{pcid}/contracts/DESUNC00000000")
        assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_emaid")
        named = life.call(
            "garage",
            "POST",
            f"/vehicles/{pcid}/charge",
            {"charger": "charger-1", "emaid": "NLGRDC00000000"},
        )
        assert (named.status_code, named.json()["code"]) == (404, "unknown_emaid")


def test_a_driver_moves_to_another_operator(life: Any) -> None:
    pcid = life.car()["pcid"]
    old = life.contract(pcid)["emaid"]
    charged(life.charge(pcid))
    life.ok("sunmile", "PUT", f"/contracts/{old}/release", {"provider_id": "NLGRD"})
    new = contract_at(life, "gridpass", pcid, replaces=old)["emaid"]
    take_over = life.service("gridpass").transfers.take_over
    # Until the car has the new one, the old one is good.
    do_round(life, take_over)
    assert life.ok("sunmile", "GET", f"/contracts/{old}")["status"] == "active"
    assert charged(life.charge(pcid))["emaid"] == old
    assert charged(life.charge(pcid, installation="always"))["emaid"] == new
    do_round(life, take_over)
    ended = life.ok("sunmile", "GET", f"/contracts/{old}")
    assert (ended["status"], ended["in_pool"]) == ("cancelled", False)
    assert life.ok("gridpass", "GET", f"/contracts/{new}")["replaced"]
    assert (
        rows(life, "contract-pool", f"SELECT 1 FROM contract_data WHERE emaid='{old[:14]}'") == []
    )
    # The car hears of it over the air.
    said = life.ok("garage", "POST", f"/vehicles/{pcid}/contracts/refresh")
    assert (said["dropped"], said["waiting"]) == ([old], [])
    assert [found["emaid"] for found in installed(life, pcid)] == [new]
    assert charged(life.charge(pcid))["emaid"] == new


def test_nobody_ends_a_contract_that_was_not_released(life: Any) -> None:
    pcid = life.car()["pcid"]
    old = life.contract(pcid)["emaid"]
    path = f"/contracts/{old}/transfer"
    body = {"to_emaid": "NLGRDC00000000", "pcid": pcid}
    with life.unchanged("sunmile"):
        refused = life.call("sunmile", "POST", path, body, client="gridpass")
        assert (refused.status_code, refused.json()["code"]) == (403, "not_released")
        own = life.call("sunmile", "PUT", f"/contracts/{old}/release", {"provider_id": "DESUN"})
        assert (own.status_code, own.json()["code"]) == (422, "unknown_operator")
    life.ok("sunmile", "PUT", f"/contracts/{old}/release", {"provider_id": "NLGRD"})
    with life.unchanged("sunmile"):
        car = life.call("sunmile", "POST", path, {**body, "pcid": "WNV0"}, client="gridpass")
        assert (car.status_code, car.json()["code"]) == (409, "other_car")
    # A wish to replace a contract of nobody, or one's own.
    driver = life.driver()
    for emaid, code in ((old, "own_contract"), ("FRXXXC12345678", "unknown_operator")):
        answer = life.call(
            "sunmile", "POST", "/contracts", {"driver": driver, "pcid": pcid, "replaces": emaid}
        )
        assert (answer.status_code, answer.json()["code"]) == (422, code)


# ----------------------------------------------------------------------------------- the ends


def test_a_blocked_account_is_refused_and_everybody_knows_why(life: Any) -> None:
    pcid = life.car()["pcid"]
    driver = life.driver()
    emaid = life.contract(pcid, driver)["emaid"]
    charged(life.charge(pcid))
    life.ok("sunmile", "PUT", f"/drivers/{driver}/blocked", {"blocked": True})
    outcome = life.charge(pcid)
    assert (outcome["stage"], outcome["code"]) == ("AuthorizationReq", "FAILED")
    for party in ("sunmile", "plugpark", "charger-1"):
        said = rows(
            life,
            party,
            "SELECT summary FROM events WHERE kind='verdict' AND outcome='refused' "
            "AND summary LIKE '%account is blocked%'",
        )
        assert said, party
    assert invoices(life, "sunmile", emaid) == 1
    life.ok("sunmile", "PUT", f"/drivers/{driver}/blocked", {"blocked": False})
    charged(life.charge(pcid))


def test_a_lost_car(life: Any) -> None:
    pcid = life.car()["pcid"]
    emaid = life.contract(pcid)["emaid"]
    grid = contract_at(life, "gridpass", pcid)["emaid"]
    charged(life.charge(pcid))
    life.ok("garage", "POST", f"/vehicles/{pcid}/lost")
    assert life.ok("nova-cars", "GET", f"/vehicles/{pcid}")["status"] == "lost"
    gone = life.call("provisioning-pool", "GET", f"/provisioning-certificates/{pcid}")
    assert gone.status_code == 404
    assert (
        one(life, "nova-cars", f"SELECT reason FROM certificates WHERE request_key='pcid:{pcid}'")
        == "keyCompromise"
    )
    # Nothing is installed into it any more; its contracts are its operators' affair.
    outcome = life.charge(pcid, installation="always")
    assert (outcome["stage"], outcome["code"]) == (
        "CertificateInstallationReq",
        "FAILED_CertChainError",
    )
    for mo, wanted in (("sunmile", emaid), ("gridpass", grid)):
        assert [found["emaid"] for found in life.ok(mo, "POST", f"/cars/{pcid}/lost")] == [wanted]
        assert life.ok(mo, "POST", f"/cars/{pcid}/lost") == []
    refused = life.charge(pcid)
    assert (refused["stage"], refused["code"]) == (
        "PaymentDetailsReq",
        "FAILED_CertificateRevoked",
    )


def test_a_car_is_sold_without_its_contract(life: Any) -> None:
    pcid = life.car()["pcid"]
    seller = life.contract(pcid)["emaid"]
    waiting = contract_at(life, "gridpass", pcid)["emaid"]
    charged(life.charge(pcid))
    old = life.ok("garage", "GET", f"/vehicles/{pcid}")["chain"][0]
    sale = life.ok("garage", "POST", f"/vehicles/{pcid}/sell", {})
    assert sale["todo"] == []
    assert sale["done_at"]
    for mo, emaid in (("sunmile", seller), ("gridpass", waiting)):
        found = life.ok(mo, "GET", f"/contracts/{emaid}")
        assert (found["status"], found["in_pool"]) == ("revoked", False)
    assert installed(life, pcid) == []
    assert (
        one(life, "garage", f"SELECT count(*) FROM keys WHERE reference LIKE 'car/{pcid}/c%'") == 0
    )
    car = life.ok("garage", "GET", f"/vehicles/{pcid}")
    registered = life.ok("provisioning-pool", "GET", f"/provisioning-certificates/{pcid}")
    assert car["chain"][0] == registered["certificate"] != old
    fingerprint = x509.load_der_x509_certificate(base64.b64decode(old)).fingerprint
    assert (
        one(
            life,
            "nova-cars",
            "SELECT reason FROM certificates WHERE fingerprint="
            f"'{fingerprint(hashes.SHA256()).hex()}'",
        )
        == "superseded"
    )
    # The buyer's contract goes in with the new key, and the buyer pays.
    buyer = contract_at(life, "gridpass", pcid)["emaid"]
    assert charged(life.charge(pcid))["emaid"] == buyer
    assert (invoices(life, "sunmile", seller), invoices(life, "gridpass", buyer)) == (1, 1)


def test_a_car_is_sold_with_its_contract(life: Any) -> None:
    """What was kept goes on paying: the seller sees it on the invoice."""
    pcid = life.car()["pcid"]
    seller = life.contract(pcid)["emaid"]
    charged(life.charge(pcid))
    life.ok("garage", "POST", f"/vehicles/{pcid}/sell", {"keep_contract": True})
    assert charged(life.charge(pcid))["emaid"] == seller
    assert invoices(life, "sunmile", seller) == 2
    # The new key opens nothing that was made for the old one: the operator renews it first.
    outcome = charged(life.charge(pcid, installation="always"))
    assert outcome["emaid"] == seller
    assert [found["status"] for found in generations(life, seller)] == ["superseded", "active"]


def test_a_sale_goes_on_after_its_maker_was_away(life: Any, monkeypatch: Any) -> None:
    pcid = life.car()["pcid"]
    seller = life.contract(pcid)["emaid"]
    charged(life.charge(pcid))
    maker = life.service("nova-cars")

    async def broken(_row: Any) -> Any:
        raise Refusal(502, "party_unreachable", "the pool is away")

    with monkeypatch.context() as patch:
        patch.setattr(maker, "_rekey", broken)
        answer = life.call("garage", "POST", f"/vehicles/{pcid}/sell", {})
        assert answer.status_code == 502
        assert one(life, "garage", f"SELECT todo FROM sales WHERE pcid='{pcid}'") == '["rekey"]'
        again = life.call("garage", "POST", f"/vehicles/{pcid}/sell", {})
        assert (again.status_code, again.json()["code"]) == (409, "being_sold")
    assert life.ok("sunmile", "GET", f"/contracts/{seller}")["status"] == "revoked"
    do_round(life, maker.resume)
    do_round(life, life.service("garage").life.resume)
    assert one(life, "garage", f"SELECT todo FROM sales WHERE pcid='{pcid}'") == "[]"
    assert (
        one(life, "nova-cars", f"SELECT status FROM vehicles WHERE pcid='{pcid}'") == "registered"
    )
    registered = life.ok("provisioning-pool", "GET", f"/provisioning-certificates/{pcid}")
    assert life.ok("garage", "GET", f"/vehicles/{pcid}")["chain"][0] == registered["certificate"]


def test_a_car_does_not_move_to_another_maker(life: Any) -> None:
    car = life.car()
    with life.unchanged("terra-motors", "provisioning-pool", "nova-cars"):
        moved = life.call(
            "terra-motors",
            "PUT",
            f"/vehicles/{car['pcid']}/provisioning-key",
            {"csr": "AAAA"},
            client="garage",
        )
        assert (moved.status_code, moved.json()["code"]) == (422, "foreign_wmi")
        assert "begins with WNV; this maker's WMI is WTM" in moved.json()["message"]
        entry = life.call(
            "provisioning-pool",
            "PUT",
            "/provisioning-certificates",
            {"certificate": car["chain"][0], "issuers": car["chain"][1:]},
            client="terra-motors",
        )
        assert (entry.status_code, entry.json()["code"]) == (403, "not_yours")
        removed = life.call(
            "provisioning-pool",
            "DELETE",
            f"/provisioning-certificates/{car['pcid']}",
            client="terra-motors",
        )
        assert removed.status_code == 403
        lost = life.call("terra-motors", "POST", f"/vehicles/{car['pcid']}/lost")
        assert (lost.status_code, lost.json()["code"]) == (422, "foreign_wmi")


# -------------------------------------------------------------------- several of each, policies


@pytest.mark.parametrize("charger", ["charger-1", "charger-3"])
@pytest.mark.parametrize("mo", ["sunmile", "gridpass"])
def test_two_operators_settle_with_two(life: Any, mo: str, charger: str) -> None:
    """Also a contract under the V2G root (gridpass); the record names its operator."""
    pcid = life.car()["pcid"]
    emaid = contract_at(life, mo, pcid)["emaid"]
    charged(life.charge(pcid, charger=charger))
    cpo = life.ecosystem.party(charger).uses["cpo"]
    (found,) = rows(life, mo, f"SELECT cpo, record, status FROM cdrs WHERE emaid='{emaid[:14]}'")
    record = json.loads(found[1])
    assert (found[0], found[2]) == (cpo, "settled")
    scope = life.ecosystem.party(cpo).scope_id
    assert record["country_code"] + record["party_id"] == scope
    assert "offline" not in record


def test_a_record_of_another_operator_is_refused(life: Any) -> None:
    pcid = life.car()["pcid"]
    emaid = life.contract(pcid)["emaid"]
    charged(life.charge(pcid))
    (found,) = rows(life, "sunmile", f"SELECT record FROM cdrs WHERE emaid='{emaid[:14]}'")
    record = {**json.loads(found[0]), "country_code": "NL", "party_id": "VLT", "id": "x"}
    with life.unchanged("sunmile"):
        answer = life.call("sunmile", "POST", "/cdrs", record, client="plugpark")
        assert (answer.status_code, answer.json()["code"]) == (403, "not_yours")


def offline(world: Any, patch: Any) -> None:
    """No operator answers an authorization."""
    for cpo in ("plugpark", "voltway"):
        for mo in MO.values():
            client = world.party(cpo).client(mo)
            call = client.call

            async def away(method: str, path: str, _call: Any = call, **more: Any) -> Any:
                if path == "/authorizations":
                    raise PartyUnreachable("the operator", "http://away", "nobody there")
                return await _call(method, path, **more)

            patch.setattr(client, "call", away)


def test_without_the_operators_word_nobody_charges(life: Any, monkeypatch: Any) -> None:
    pcid = life.car()["pcid"]
    life.contract(pcid)
    charged(life.charge(pcid))
    with monkeypatch.context() as patch:
        offline(life, patch)
        outcome = life.charge(pcid)
    assert (outcome["stage"], outcome["code"]) == ("AuthorizationReq", "FAILED")


def test_without_the_operators_word_by_policy(open_life: Any, monkeypatch: Any) -> None:
    pcid = open_life.car()["pcid"]
    driver = open_life.driver()
    emaid = open_life.contract(pcid, driver)["emaid"]
    charged(open_life.charge(pcid))
    with monkeypatch.context() as patch:
        offline(open_life, patch)
        charged(open_life.charge(pcid))
    assert invoices(open_life, "sunmile", emaid) == 2
    assert one(open_life, "plugpark", "SELECT count(*) FROM sessions WHERE offline") == 1
    # What the operator would have refused it does not pay.
    open_life.ok("sunmile", "PUT", f"/drivers/{driver}/blocked", {"blocked": True})
    with monkeypatch.context() as patch:
        offline(open_life, patch)
        charged(open_life.charge(pcid))
    assert rows(
        open_life,
        "plugpark",
        "SELECT status FROM sessions WHERE offline ORDER BY started_at",
    ) == [("settled",), ("disputed",)]
    (reason,) = rows(open_life, "plugpark", "SELECT reason FROM sessions WHERE status='disputed'")
    assert "the driver's account is blocked" in reason[0]
    assert open_life.ok("sunmile", "GET", "/ledger")["total_cents"] == 0


def test_a_car_whose_update_is_refused_goes_on_by_policy(open_life: Any) -> None:
    pcid, emaid = pnc(open_life, days=20)
    open_life.ok("sunmile", "POST", f"/contracts/{emaid}/cancel")
    # Cancelled: no update; it goes on with what it has, and that is refused by the operator.
    outcome = open_life.charge(pcid)
    assert outcome["failed_before"].startswith("CertificateUpdateReq: FAILED_ContractCanceled")
    assert (outcome["stage"], outcome["code"]) == ("AuthorizationReq", "FAILED_ContractCanceled")
    good, _ = pnc(open_life, days=400)
    open_life.ok("contract-pool", "DELETE", f"/contracts/{installed(open_life, good)[0]['emaid']}")
    after = charged(open_life.charge(good, installation="always"))
    assert after["failed_before"].startswith("CertificateInstallationReq: FAILED_NoCert")
    assert not after["installed"]


def test_a_car_that_no_pool_knows_by_policy(life: Any, open_life: Any) -> None:
    for world, code in (
        (life, "FAILED_CertChainError"),
        (open_life, "FAILED_NoCertificateAvailable"),
    ):
        pcid = world.car()["pcid"]
        world.ok("provisioning-pool", "DELETE", f"/provisioning-certificates/{pcid}")
        outcome = world.charge(pcid)
        assert (outcome["stage"], outcome["code"]) == ("CertificateInstallationReq", code)


def test_an_expired_certificate_asks_for_its_update_by_policy(open_life: Any) -> None:
    pcid, emaid = pnc(open_life, days=20)
    request = update_request(open_life, pcid)
    advance(open_life, "25d")
    said = update(open_life, request)
    assert said["code"] == "OK", said
    assert generations(open_life, emaid)[-1]["status"] == "active"
    advance(open_life, "-25d")


def test_renewals_at_any_time_by_policy(open_life: Any) -> None:
    pcid = open_life.car()["pcid"]
    emaid = open_life.contract(pcid)["emaid"]
    charged(open_life.charge(pcid))
    assert charged(open_life.charge(pcid, installation="update"))["updated"]
    assert len(generations(open_life, emaid)) == 2


def test_update_without_a_contract_is_refused_before_the_cable(life: Any) -> None:
    pcid = life.car()["pcid"]
    answer = life.call(
        "garage",
        "POST",
        f"/vehicles/{pcid}/charge",
        {"charger": "charger-1", "installation": "update"},
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "no_contract")
