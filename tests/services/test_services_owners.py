"""Whose it is: cars, contracts and prices are disposed of by those whom they belong to.

Who has the right role is not yet who may; and what was agreed is not what one side says
afterwards.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from pki.edition import ISO2
from pki.issuing import certificate_request
from pki.keys import SoftwareKey
from pki.names import Subject
from services.common.auth import Caller
from services.common.certificates import fingerprint, public_key_digest
from services.common.errors import Refusal
from services.common.events import unit_of_work
from services.common.statements import REKEY, SOLD, signed
from services.ecosystem import EcosystemError, default_text, from_text, load
from services.oem.store import VehicleRow
from v2g import exi
from v2g.certificate_installation import RootId, build_request
from v2g.certificate_update import NEVER, build_update_request
from v2g.messages import iso2

WAITS = "hand-over waits"


@pytest.fixture(scope="module")
def town(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with serve(load(data=tmp_path_factory.mktemp("owners")).on_free_ports()) as found:
        yield found


def within(world: Any, work: Callable[[], Any]) -> Any:
    """What a party does by itself, now."""

    async def run() -> Any:
        with unit_of_work("round"):
            return await work()

    return world.run(run())


def refused(world: Any, party: str, method: str, path: str, body: Any = None, **who: Any) -> Any:
    """Status and code of a call that changes nothing there."""
    with world.unchanged(party):
        answer = world.call(party, method, path, body, **who)
    return answer.status_code, answer.json().get("code")


def contract_at(world: Any, mo: str, pcid: str, **more: Any) -> str:
    driver = world.ok(mo, "POST", "/drivers", {"name": "Bo Driver", "deposit": "99.00"})["id"]
    body = {"driver": driver, "pcid": pcid, **more}
    return str(world.ok(mo, "POST", "/contracts", body)["emaid"])


def status(world: Any, mo: str, emaid: str) -> str:
    return str(world.ok(mo, "GET", f"/contracts/{emaid}")["status"])


def charged(outcome: dict[str, Any]) -> dict[str, Any]:
    assert outcome["outcome"] == "charged", outcome
    return outcome


# ----------------------------------------------------------------------------------- contracts


def test_whoever_speaks_for_nobody_ends_no_contract(town: Any) -> None:
    """A contract that was released to nobody is not one of a client without a scope."""
    pcid = town.car()["pcid"]
    emaid = town.contract(pcid)["emaid"]
    hand_over = town.service("sunmile").transfers.hand_over
    nobody = Caller("a-client-of-before", "mo", None)
    with town.unchanged("sunmile"), pytest.raises(Refusal) as refusal:
        within(town, lambda: hand_over(emaid, "NLGRDC00000000", pcid, nobody))
    assert refusal.value.code == "not_released"
    assert status(town, "sunmile", emaid) == "active"


@pytest.mark.parametrize("role", ["oem", "mo", "cpo"])
def test_a_client_that_speaks_for_an_identifier_says_for_which(town: Any, role: str) -> None:
    body = {"id": "somebody", "role": role}
    assert refused(town, "sunmile", "POST", "/clients", body) == (422, "scope_missing")
    text = default_text().replace('role = "admin"', f'role = "{role}"', 1)
    with pytest.raises(EcosystemError, match=r"\[\[client\]\] 1 scope_id: is missing"):
        from_text(text, "mine.toml")
    wrong = text.replace(f'role = "{role}"', f'role = "{role}"\nscope_id = "D"', 1)
    with pytest.raises(EcosystemError, match="'D' has another form"):
        from_text(wrong, "mine.toml")


def moving(world: Any) -> tuple[str, str, str]:
    """A car that charges with a contract, and a released one of another operator that waits."""
    pcid = world.car()["pcid"]
    old = world.contract(pcid)["emaid"]
    charged(world.charge(pcid))
    world.ok("sunmile", "PUT", f"/contracts/{old}/release", {"provider_id": "NLGRD"})
    return pcid, old, contract_at(world, "gridpass", pcid, replaces=old)


def test_a_contract_that_was_handed_out_has_taken_over_nothing(town: Any) -> None:
    """The pool delivered it, and the answer was lost on its way to the car."""
    pcid, old, new = moving(town)
    take_over = town.service("gridpass").transfers.take_over
    car = town.run(town.service("garage")._car(pcid))
    roots = [RootId.of(root) for root in car.v2g_roots]
    request = exi.encode(iso2.SCHEMA, build_request(bytes(8), car.chain[0], roots, car.key))
    body = {"certificate_installation_req": base64.b64encode(request).decode()}
    said = town.ok("contract-pool", "POST", "/installations", body)
    assert (said["code"], said["emaid"]) == ("OK", new)
    pool = town.ok("contract-pool", "GET", f"/contracts/{new}", client="gridpass")
    assert pool["delivered_at"]
    within(town, take_over)
    assert status(town, "sunmile", old) == "active"
    assert charged(town.charge(pcid))["emaid"] == old
    town.ok("contract-pool", "PUT", f"/cars/{pcid}/default", {"emaid": new})
    assert charged(town.charge(pcid, installation="always"))["emaid"] == new
    within(town, take_over)
    assert status(town, "sunmile", old) == "cancelled"


def test_a_hand_over_that_is_refused_is_asked_for_less_and_less(
    town: Any, monkeypatch: Any
) -> None:
    pcid, old, new = moving(town)
    town.ok("sunmile", "PUT", f"/contracts/{old}/release", {"provider_id": None})
    transfers = town.service("gridpass").transfers
    asked: list[float] = []
    client = town.party("gridpass").client("sunmile")
    call, now = client.call, [0.0]

    async def counted(method: str, path: str, **more: Any) -> Any:
        if path.endswith("/transfer"):
            asked.append(now[0])
        return await call(method, path, **more)

    monkeypatch.setattr(transfers, "elapsed", lambda: now[0])
    monkeypatch.setattr(transfers, "_pauses", {})
    monkeypatch.setattr(client, "call", counted)
    assert charged(town.charge(pcid, installation="always"))["emaid"] == new
    for _ in range(200):
        within(town, transfers.take_over)
        now[0] += 60
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    # Rounds are a minute apart here, those of the party itself come in between.
    assert pauses[-1] >= 3600
    assert len(asked) < 14, asked
    told = town.ok("gridpass", "GET", "/events?kind=state&limit=1000")
    assert sum(one["data"].get("emaid") == new for one in told if one["name"] == WAITS) == 1
    # Once its driver has released it again, it is handed over.
    town.ok("sunmile", "PUT", f"/contracts/{old}/release", {"provider_id": "NLGRD"})
    now[0] += 3600
    within(town, transfers.take_over)
    assert status(town, "sunmile", old) == "cancelled"


def test_a_renewal_that_was_revoked_half_way_is_followed_by_another(
    town: Any, monkeypatch: Any
) -> None:
    pcid = town.car()["pcid"]
    emaid = contract_at(town, "sunmile", pcid)
    contracts = town.service("sunmile").contracts

    async def away(_row: Any, _found: Any) -> None:
        raise Refusal(502, "party_unreachable", "the provisioning service is away")

    renew = f"/contracts/{emaid}/renewals"
    with monkeypatch.context() as patch:
        patch.setattr(contracts, "have_signed", away)
        assert town.call("sunmile", "POST", renew, {}).status_code == 502
        half_way = town.ok("sunmile", "GET", f"/contracts/{emaid}/generations")[-1]
        assert (half_way["number"], half_way["status"]) == (2, "certified")
        body = {"fingerprint": half_way["fingerprint"], "reason": "superseded"}
        town.ok("sunmile", "POST", "/revocations", body)
    sent: list[int] = []
    have_signed = contracts.have_signed

    async def watched(row: Any, found: Any) -> None:
        sent.append(found.number)
        await have_signed(row, found)

    monkeypatch.setattr(contracts, "have_signed", watched)
    assert status(town, "sunmile", emaid) == "active"
    within(town, town.service("sunmile").renewals.in_time)
    said = town.ok("sunmile", "POST", renew, {})
    assert (said["renewed"], said["generation"]) == (True, 3)
    found = town.ok("sunmile", "GET", f"/contracts/{emaid}/generations")
    assert [one["status"] for one in found] == ["superseded", "revoked", "active"]
    assert sent == [3]
    charged(town.charge(pcid))


def update_request(world: Any, pcid: str) -> dict[str, str]:
    car = world.run(world.service("garage")._car(pcid))
    roots = [RootId.of(root) for root in car.v2g_roots]
    message = build_update_request(
        bytes(8), car.contract.emaid, car.contract.chain, roots, car.contract.key
    )
    encoded = base64.b64encode(exi.encode(iso2.SCHEMA, message)).decode()
    return {"certificate_update_req": encoded}


def test_an_unknown_root_is_one_code_at_charger_operator_and_pool(
    serve: Any, tmp_path: Path
) -> None:
    chosen = {"anchors": "manual", "unknown_root": "refuse"}
    with serve(load(data=tmp_path).with_policies(chosen).on_free_ports()) as world:
        pcid = world.car()["pcid"]
        contract_at(world, "sunmile", pcid)
        charged(world.charge(pcid))
        request = update_request(world, pcid)
        contracts, cars = (
            world.ok(party, "GET", "/authorities")[0]["fingerprint"]
            for party in ("sunmile", "nova-cars")
        )
        for party in ("contract-pool", "plugpark", "charger-1"):
            world.ok(party, "DELETE", f"/trust-store/anchors/{contracts}")
        world.ok("contract-pool", "DELETE", f"/trust-store/anchors/{cars}")
        for policy, code in (
            ("chain-error", "FAILED_CertChainError"),
            ("not-allowed", "FAILED_CertificateNotAllowedAtThisEVSE"),
        ):
            for party in ("contract-pool", "plugpark", "charger-1"):
                world.party(party).config.policy["unknown_root_code"] = policy
            said = world.ok("contract-pool", "POST", "/updates", request)
            assert (said["code"], said["retry_counter"]) == (code, NEVER)
            # charger-1 judges by its own store, charger-2 has its operator judge.
            for charger in ("charger-1", "charger-2"):
                outcome = world.charge(pcid, charger=charger)
                assert (outcome["stage"], outcome["code"]) == ("PaymentDetailsReq", code)
            # The maker's root is unknown to the pool.
            outcome = world.charge(pcid, installation="always")
            assert (outcome["stage"], outcome["code"]) == ("CertificateInstallationReq", code)


# ---------------------------------------------------------------------------------------- cars


@pytest.fixture(scope="module")
def other_garage(town: Any) -> str:
    """Another client of the role of a car, at everybody who listens to one."""
    body = {"id": "other-garage", "role": "vehicle", "secret": "other-garage-test-secret"}
    for party in ("nova-cars", "sunmile", "gridpass"):
        town.ok(party, "POST", "/clients", body)
    return "other-garage"


def new_key(town: Any, pcid: str) -> tuple[SoftwareKey, str, str]:
    """A key, a request for it, and what a car says that gets it."""
    key = SoftwareKey.generate(ISO2)
    csr = base64.b64encode(certificate_request(Subject(common_name=pcid), key)).decode()
    return key, csr, f"{REKEY} {public_key_digest(key.public_key)}"


def statement(town: Any, key: SoftwareKey, says: str, pcid: str, to: str) -> dict[str, Any]:
    return {"statement": signed(town.party("garage"), key, says, pcid, to)}


def test_a_car_is_its_builders(town: Any, other_garage: str) -> None:
    pcid = town.car()["pcid"]
    stranger, csr, rekey = new_key(town, pcid)
    mine = town.run(town.service("garage")._car(pcid)).key
    put, lost = f"/vehicles/{pcid}/provisioning-key", f"/vehicles/{pcid}/lost"
    who = {"client": other_garage}
    not_yours = (403, "not_yours")
    maker = "nova-cars"
    assert refused(town, maker, "PUT", put, {"csr": csr}, **who) == not_yours
    assert refused(town, maker, "POST", lost, **who) == not_yours
    for key, says, to in (
        (stranger, rekey, maker),
        (mine, "lost", maker),  # something else
        (mine, f"{REKEY} {'0' * 32}", maker),  # another key
        (mine, rekey, "terra-motors"),  # to somebody else
    ):
        body = {"csr": csr, **statement(town, key, says, pcid, to)}
        assert refused(town, maker, "PUT", put, body, **who) == not_yours
    late = statement(town, mine, rekey, pcid, maker)
    town.ok("sunmile", "PUT", "/clock", {"advance": "2h"})
    assert refused(town, maker, "PUT", put, {"csr": csr, **late}, **who) == not_yours
    assert refused(town, maker, "POST", lost, {"statement": None}, **who) == not_yours
    # Whoever has its present key speaks for it, whoever built it.
    body = {"csr": csr, **statement(town, mine, rekey, pcid, maker)}
    assert town.ok(maker, "PUT", put, body, **who)["status"] == "registered"
    assert refused(town, maker, "POST", lost, statement(town, mine, "lost", pcid, maker), **who)
    body = statement(town, stranger, "lost", pcid, maker)
    assert town.ok(maker, "POST", lost, body, **who)["status"] == "lost"


def test_a_car_whose_builder_is_not_on_record(town: Any) -> None:
    """One that 0.1.0 built: its key speaks for it."""
    pcid = town.car()["pcid"]
    maker = town.party("nova-cars")

    def forget(session: Any) -> None:
        session.get_one(VehicleRow, pcid).built_by = None

    within(town, lambda: maker.database.write(forget))
    path = f"/vehicles/{pcid}/lost"
    assert refused(town, "nova-cars", "POST", path, client="garage") == (403, "not_yours")
    town.ok("garage", "POST", f"/vehicles/{pcid}/provisioning-key")
    assert town.ok("garage", "POST", path)["pcid"] == pcid


def test_who_says_that_a_car_was_sold(town: Any, other_garage: str) -> None:
    pcid = town.car()["pcid"]
    emaid = town.contract(pcid)["emaid"]
    key = town.run(town.service("garage")._car(pcid)).key
    path, who = f"/cars/{pcid}/sold", {"client": other_garage}
    other = statement(town, SoftwareKey.generate(ISO2), SOLD, pcid, "sunmile")
    elsewhere = statement(town, key, SOLD, pcid, "gridpass")
    for body in ({"statement": None}, other, elsewhere):
        assert refused(town, "sunmile", "POST", path, body, **who) == (403, "not_yours")
    assert refused(town, "sunmile", "POST", path, {}, **who) == (422, "wrong_shape")
    assert status(town, "sunmile", emaid) == "active"
    said = statement(town, key, SOLD, pcid, "sunmile")
    town.ok("sunmile", "PUT", "/clock", {"advance": "1m"})
    bought = town.contract(pcid)["emaid"]
    ended = town.ok("sunmile", "POST", path, said, **who)
    assert [one["emaid"] for one in ended] == [emaid]
    # What was signed after the sale is not the seller's, however often it is told.
    assert town.ok("sunmile", "POST", path, said, **who) == []
    assert status(town, "sunmile", bought) == "active"


# -------------------------------------------------------------------------------------- prices


@pytest.fixture
def begun(town: Any) -> Callable[..., dict[str, Any]]:
    """Sends the record of a session that a car really signed for, begun without our word."""

    def send(client: str = "plugpark", price: str = "0.49", **more: Any) -> dict[str, Any]:
        evse = {"plugpark": "DE*PLG*E0001*1", "newcomer": "FR*NEW*E0001*1"}[client]
        pcid = town.car()["pcid"]
        town.contract(pcid)
        charged(town.charge(pcid))
        car = town.run(town.service("garage")._car(pcid))
        tariff = {"id": "t", "currency": "EUR", "per_kwh": price, "per_session": "0.35"}
        for name in more.pop("promises", ()):
            body = {
                "emaid": car.contract.emaid,
                "certificate_fingerprint": fingerprint(car.contract.chain[0]),
                "evse_id": evse,
                "tariff": tariff | {"per_kwh": name},
            }
            town.ok("sunmile", "POST", "/authorizations", body, client=client)
        now = town.party("sunmile").clock.now() + more.pop("begun", timedelta())
        session = secrets.token_bytes(8)
        record = {
            "id": secrets.token_hex(8),
            "authorization_reference": f"offline-{secrets.token_hex(8)}",
            "emaid": car.contract.emaid,
            "evse_id": evse,
            "session_id": session.hex(),
            "started_at": now.isoformat(),
            "ended_at": (now + timedelta(minutes=30)).isoformat(),
            "meter_start_wh": 1000,
            "meter_stop_wh": 3000,
            "currency": "EUR",
            "total_cost": str(2 * Decimal(price) + Decimal("0.35")),
            "receipts": town.receipts(car, session, 1000, 3000),
            "offline": True,
            "tariff": tariff,
            "certificate_fingerprint": fingerprint(car.contract.chain[0]),
        }
        said: dict[str, Any] = town.ok("sunmile", "POST", "/cdrs", record, client=client)
        return said

    return send


def test_what_was_promised_is_not_replaced_by_what_is_asked(begun: Any) -> None:
    """The answer was lost; the promise stands."""
    dear = begun(price="9.49", promises=["0.49"])
    assert dear["status"] == "disputed"
    assert "there is a promise" in dear["reason"]
    assert begun(price="0.49", promises=["0.49"])["status"] == "settled"


def test_a_price_that_nobody_agreed_to(begun: Any) -> None:
    """Without a promise for it, a session costs what the last promise asked, at most."""
    dear = begun(price="0.50")
    assert dear["status"] == "disputed"
    assert "at a price that nobody agreed to" in dear["reason"]
    assert begun(price="0.40")["status"] == "settled"


def test_an_operator_to_whom_nothing_was_promised_yet(town: Any, begun: Any) -> None:
    body = {"id": "newcomer", "role": "cpo", "scope_id": "FRNEW"}
    town.ok("sunmile", "POST", "/clients", body | {"secret": "newcomer-test-secret"})
    dear = begun("newcomer", price="1.01")
    assert (dear["status"], "offline_price_limit is 1.00" in dear["reason"]) == ("disputed", True)
    assert begun("newcomer", price="1.00")["status"] == "settled"


@pytest.mark.parametrize("begun_at", [timedelta(days=-31), timedelta(minutes=10)])
def test_a_session_begun_long_ago_or_later_than_now(begun: Any, begun_at: timedelta) -> None:
    late = begun(begun=begun_at)
    assert (late["status"], "that is told within 30 days" in late["reason"]) == ("disputed", True)
