"""Visits that do not go as they should: what was signed is billed, once, and nothing is lost."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from pki.edition import ISO2
from services.charger import service as charger_service
from services.charger import session as charger_session
from services.charger.session import Facts, SeccSession, SessionOver
from services.charger.store import OpenRow
from services.common.auth import Caller
from services.common.certificates import der_of, fingerprint
from services.common.errors import PartyUnreachable, Refusal
from services.common.fields import MAX_RECEIPTS
from services.cpo import service as cpo_service
from services.cpo.service import AUTHORIZATION_CODES
from services.oem.store import VehicleRow
from services.vehicle.service import Car
from services.vehicle.store import pending
from v2g import exi
from v2g.messages import iso2
from v2g.signature import sign

if TYPE_CHECKING:
    from conftest import Parts, World

Code = iso2.ResponseCode
CHARGER, OPERATOR = "charger-1", "plugpark"


@pytest.fixture(scope="module")
def car(world: World) -> Car:
    """A car with a contract in it, its keys at hand."""
    built = world.car()
    world.contract(built["pcid"])
    assert world.charge(built["pcid"], 100)["outcome"] == "charged"
    found: Car = world.run(world.service("garage")._car(built["pcid"]))
    return found


class Visit:
    """A charger's session that is past AuthorizationRes, without a cable."""

    def __init__(self, world: World, car: Car, charger: str = CHARGER) -> None:
        assert car.contract is not None
        self.world, self.key = world, car.contract.key
        self.session = SeccSession(world.service(charger))
        self.facts = self.session.facts
        self.facts.session_id = secrets.token_bytes(8)
        self.facts.emaid = car.contract.emaid
        self.facts.contract_chain = tuple(der_of(one) for one in car.contract.chain)
        said = world.run(self.session._ask_operator())
        assert not isinstance(said, Refusal)
        assert said.accepted, said.reason
        assert said.authorization_reference is not None
        self.facts.authorization = said.authorization_reference
        self.facts.wanted_wh = 10**6
        self.session.state = "delivery"
        self.meter: Any = None

    def ask(self, body: Any, *, signed: bool = False) -> Any:
        """The body of the answer, also of a refusal."""
        signature = None
        if signed:
            signature = sign(iso2.SCHEMA, [(type(body).__name__, body)], self.key, ISO2)
        header = iso2.MessageHeader(SessionID=self.facts.session_id, Signature=signature)
        message = iso2.V2G_Message(Header=header, Body=iso2.Body(body))
        raw = exi.encode(iso2.SCHEMA, message)
        answer: Any
        try:
            answer = self.world.run(self.session.handle(message, raw))
        except SessionOver as over:
            answer = over.answer
        return answer.Body.BodyElement

    def power(self, progress: iso2.ChargeProgress) -> iso2.ResponseCode:
        body = iso2.PowerDeliveryReq(ChargeProgress=progress, SAScheduleTupleID=1)
        code: iso2.ResponseCode = self.ask(body).ResponseCode
        return code

    def start(self) -> Visit:
        assert self.power(iso2.ChargeProgress.Start) is Code.OK
        return self

    def loop(self) -> int:
        """A reading, not signed for."""
        answer = self.ask(iso2.ChargingStatusReq())
        assert answer.ResponseCode is Code.OK
        self.meter = answer.MeterInfo
        reading: int = answer.MeterInfo.MeterReading
        return reading

    def receipt(self, **changed: Any) -> iso2.ResponseCode:
        values = {
            "Id": "id1",
            "SessionID": self.facts.session_id,
            "SAScheduleTupleID": 1,
            "MeterInfo": self.meter,
        }
        answer = self.ask(iso2.MeteringReceiptReq(**{**values, **changed}), signed=True)
        code: iso2.ResponseCode = answer.ResponseCode
        return code

    def signed_loops(self, count: int) -> int:
        reading = 0
        for _ in range(count):
            reading = self.loop()
            assert self.receipt() is Code.OK
        return reading

    def leave(self) -> None:
        """The connection ends."""

        async def end() -> None:
            await self.session.settle()
            await self.session.confirmed()

        self.world.run(end())

    def record(self, world: World | None = None) -> Any:
        """The session as the operator knows it."""
        rows = (world or self.world).run((world or self.world).service(OPERATOR).sessions())
        return next(row for row in rows if row.session_id == self.facts.session_id.hex().upper())


def meter(world: World) -> int:
    return int(world.ok(CHARGER, "GET", "/status")["meter_wh"])


# ------------------------------------------------------------------ receipts


def test_more_readings_than_a_record_has_receipts(world: World, car: Car) -> None:
    """The first and the last receipt vouch for all of it: billed, not charged for free."""
    visit = Visit(world, car).start()
    first = visit.signed_loops(1)
    last = visit.signed_loops(MAX_RECEIPTS + 2)
    assert visit.power(iso2.ChargeProgress.Stop) is Code.OK
    visit.leave()
    row = visit.record()
    assert (row.status, row.meter_start_wh, row.meter_stop_wh) == ("settled", first, last)
    assert len(row.receipts) == 2


def test_a_receipt_that_nobody_asked_for(world: World, car: Car) -> None:
    visit = Visit(world, car).start()
    visit.signed_loops(2)
    assert visit.receipt() is Code.FAILED_SequenceError
    visit.leave()
    assert visit.record().status == "settled"


def test_a_receipt_that_nobody_would_read(world: World, car: Car, monkeypatch: Any) -> None:
    """Longer than what the operator reads: it vouches for nothing, so it is not taken."""
    visit = Visit(world, car).start()
    monkeypatch.setattr(charger_session, "MAX_RECEIPT_TEXT", 100)
    visit.loop()
    assert visit.receipt() is Code.FAILED_MeteringSignatureNotValid
    visit.leave()


def test_stopping_without_the_last_receipt(world: World, car: Car) -> None:
    """Refused; what was signed before is billed, the rest is nobody's debt, and it is said."""
    visit = Visit(world, car).start()
    signed = visit.signed_loops(2)
    delivered = visit.loop()
    assert delivered > signed
    assert visit.power(iso2.ChargeProgress.Stop) is Code.FAILED_SequenceError
    visit.leave()
    row = visit.record()
    assert (row.status, row.meter_stop_wh) == ("settled", signed)
    assert meter(world) == delivered


def test_a_car_that_goes_away_pays_what_it_signed_for(world: World, car: Car) -> None:
    visit = Visit(world, car).start()
    signed = visit.signed_loops(3)
    assert meter(world) == signed  # in the write that took the receipt
    visit.loop()
    visit.leave()
    assert (visit.record().status, visit.record().meter_stop_wh) == ("settled", signed)


def test_a_stop_that_the_operator_refuses_is_kept(world: World, car: Car) -> None:
    """Shown with its reason, and not told again."""
    visit = Visit(world, car).start()
    visit.signed_loops(2)
    service = world.service(CHARGER)

    def rename(session: Any) -> None:
        row = session.get_one(OpenRow, visit.facts.session_id.hex().upper())
        row.record = f"no-such-{row.session_id}"

    world.run(world.party(CHARGER).database.write(rename))
    visit.leave()
    kept = world.ok(CHARGER, "GET", "/status")
    found = [one for one in kept["refused_stops"] if one["record"].startswith("no-such-")]
    assert len(found) == 1
    assert "has no session" in found[0]["reason"]
    assert found[0]["receipts"] == 2
    assert visit.facts.session_id.hex().upper() not in kept["sessions"]
    with world.unchanged(CHARGER):
        world.run(service.confirm_stops())


# ------------------------------------------------------------------ chargers that die


def test_a_charger_that_is_killed_bills_what_was_signed(parts: Parts) -> None:
    """No word was said at the end: after the next start the session ends where it was signed."""
    built = parts["garage"].car()
    parts["sunmile"].contract(built["pcid"])
    assert parts["garage"].charge(built["pcid"], 100)["outcome"] == "charged"
    garage = parts["garage"]
    one = garage.run(garage.service("garage")._car(built["pcid"]))
    visit = Visit(parts[CHARGER], one).start()
    signed = visit.signed_loops(3)
    visit.loop()
    with parts.without(CHARGER):
        pass  # the session object dies without having been settled
    world = parts[CHARGER]
    world.run(world.service(CHARGER).confirm_stops())
    row = visit.record(parts[OPERATOR])
    assert (row.status, row.meter_stop_wh) == ("settled", signed)
    assert meter(world) >= signed


def test_a_start_that_was_never_told_is_forgotten(parts: Parts) -> None:
    world = parts[CHARGER]
    facts = Facts(session_id=secrets.token_bytes(8), emaid="DESUNC12345678", authorization="none")
    with parts.without(OPERATOR), pytest.raises(PartyUnreachable):
        world.run(world.service(CHARGER).record_start(facts))
    assert facts.session_id.hex().upper() not in world.run(world.service(CHARGER).unfinished())


# ------------------------------------------------------------------ slow operators


def test_the_car_does_not_wait_for_the_operators(
    world: World, car: Car, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PowerDeliveryRes comes once the end is written down, however slow the operator is."""
    visit = Visit(world, car).start()
    visit.signed_loops(2)
    service = world.service(CHARGER)
    call, told = service.cpo.call, []

    async def slow(*args: Any, **more: Any) -> Any:
        told.append(args[1])
        await asyncio.sleep(1.0)
        return await call(*args, **more)

    monkeypatch.setattr(service.cpo, "call", slow)
    began = time.monotonic()
    assert visit.power(iso2.ChargeProgress.Stop) is Code.OK
    assert time.monotonic() - began < 0.8
    visit.leave()
    assert visit.record().status == "settled"
    world.run(service.confirm_stops())
    assert len(told) == 1


def test_a_charger_does_not_wait_long_for_the_mobility_operator(
    world: World, car: Car, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is answered as ``ended``, the record is settled by the same sending."""
    visit = Visit(world, car).start()
    visit.signed_loops(2)
    operator = world.service(OPERATOR)
    send = operator._send_record

    async def slow(row: Any) -> Any:
        await asyncio.sleep(1.0)
        return await send(row)

    monkeypatch.setattr(cpo_service, "RECORD_PATIENCE", 0.1)
    monkeypatch.setattr(operator, "_send_record", slow)
    began = time.monotonic()
    visit.leave()
    assert time.monotonic() - began < 0.8
    assert visit.record().status == "ended"
    world.run(operator.send_unsent())
    assert visit.record().status == "settled"


def test_the_operators_word_is_not_left_in_the_air(world: World, car: Car) -> None:
    """A car that leaves while its authorization is asked: the task is over when it is settled."""
    visit = Visit(world, car)

    async def leave() -> bool:
        task: asyncio.Task[Any] = asyncio.create_task(asyncio.sleep(60))
        visit.session._authorizing = task
        await asyncio.sleep(0)
        await visit.session.settle()
        return task.done()

    assert world.run(leave())


# ------------------------------------------------------------------ sessions at the operator


def start_body(visit: Visit) -> dict[str, Any]:
    return {
        "evse_id": "DE*PLG*E0001*1",
        "session_id": secrets.token_hex(8),
        "emaid": visit.facts.emaid,
        "authorization_reference": visit.facts.authorization,
        "meter_start_wh": 0,
    }


def test_a_start_told_twice_is_one_session(world: World, car: Car) -> None:
    body = start_body(Visit(world, car))
    first = world.ok(OPERATOR, "POST", "/sessions", body, client=CHARGER)
    again = world.ok(OPERATOR, "POST", "/sessions", body, client=CHARGER)
    assert again == first
    other = {**body, "authorization_reference": "another"}
    answer = world.call(OPERATOR, "POST", "/sessions", other, client=CHARGER)
    assert (answer.status_code, answer.json()["code"]) == (409, "session_taken")
    stop = {"meter_stop_wh": 0, "receipts": []}
    world.ok(OPERATOR, "POST", f"/sessions/{first['id']}/stop", stop, client=CHARGER)


def test_sessions_of_which_the_charger_knows_nothing_are_closed(
    world: World, car: Car, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpo_service, "LONG_SESSION", timedelta(0))
    visit = Visit(world, car).start()
    lost = world.ok(OPERATOR, "POST", "/sessions", start_body(visit), client=CHARGER)
    world.run(world.service(OPERATOR).ask_after_sessions())
    status = {one["id"]: one["status"] for one in world.ok(OPERATOR, "GET", "/sessions")}
    assert (status[lost["id"]], visit.record().status) == ("void", "charging")
    # An end that comes all the same is taken.
    visit.signed_loops(2)
    visit.leave()
    assert visit.record().status == "settled"
    stop = {"meter_stop_wh": 0, "receipts": []}
    ended = world.ok(OPERATOR, "POST", f"/sessions/{lost['id']}/stop", stop, client=CHARGER)
    assert ended["status"] == "disputed"


def test_the_certificate_that_was_shown_is_named(
    world: World, car: Car, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the charger to the mobility operator; what that one may answer has its code."""
    assert car.contract is not None
    client = world.party(OPERATOR).client("sunmile")
    sent: list[Any] = []
    call = client.call

    async def watched(method: str, path: str, **more: Any) -> Any:
        sent.append((path, more.get("body")))
        return await call(method, path, **more)

    monkeypatch.setattr(client, "call", watched)
    Visit(world, car)
    bodies = [body for path, body in sent if path == "/authorizations"]
    wanted = fingerprint(car.contract.chain[0])
    assert [body["certificate_fingerprint"] for body in bodies] == [wanted]
    assert AUTHORIZATION_CODES["other_certificate"] == "FAILED_CertificateNotAllowedAtThisEVSE"
    assert AUTHORIZATION_CODES["foreign_currency"] == "FAILED"


# ------------------------------------------------------------------ outlets


GARAGE, OTHER = "garage", "another-garage"


def caller(name: str) -> Caller:
    return Caller(name, "vehicle")


@pytest.fixture
def outlets(world: World) -> Any:
    """The charger's service, and how many outlets are free."""
    service = world.service(CHARGER)
    free = service._outlets._value
    yield service
    assert service._outlets._value == free


def test_a_car_that_queues_twice_takes_one_outlet(world: World, outlets: Any) -> None:
    async def work() -> None:
        taken = outlets._outlets._value
        for _ in range(taken):
            await outlets._outlets.acquire()
        queued = [asyncio.create_task(outlets.plug_in("0A" * 6, GARAGE)) for _ in range(2)]
        await asyncio.sleep(0.05)
        for _ in range(taken):
            outlets._outlets.release()
        first, second = await asyncio.gather(*queued)
        assert first is second
        assert await outlets.plug_in("0A" * 6, GARAGE) is first
        assert outlets._outlets._value == taken - 1
        await outlets.unplug("0A" * 6, caller(GARAGE))

    world.run(work())


def test_only_the_owner_pulls_the_plug(world: World, outlets: Any) -> None:
    async def work() -> None:
        await outlets.plug_in("0B" * 6, GARAGE)
        with pytest.raises(Refusal, match="did not plug in"):
            await outlets.unplug("0B" * 6, caller(OTHER))
        with pytest.raises(Refusal, match="by another party"):
            await outlets.plug_in("0B" * 6, OTHER)
        assert "0B" * 6 in outlets.plugs
        await outlets.unplug("0B" * 6, caller(GARAGE))
        await outlets.unplug("0B" * 6, caller(GARAGE))

    world.run(work())


def test_a_plug_that_nobody_uses_is_released(
    world: World, outlets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its garage died: the outlet is free after a while, not while a session is on the cable."""

    async def work() -> None:
        plug = await outlets.plug_in("0C" * 6, GARAGE)
        await outlets.release_quiet()
        assert "0C" * 6 in outlets.plugs
        monkeypatch.setattr(charger_service, "PLUG_PATIENCE", 0.0)
        session = asyncio.create_task(asyncio.sleep(60))
        plug.connected(session)
        await outlets.release_quiet()
        assert "0C" * 6 in outlets.plugs
        plug.disconnected(session)
        session.cancel()
        await outlets.release_quiet()
        assert "0C" * 6 not in outlets.plugs

    world.run(work())


# ------------------------------------------------------------------ cars


def test_a_car_whose_maker_did_not_answer_keeps_its_key(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The maker built it, its answer was lost: the same PCID again gives the same car."""
    garage = world.service("garage")
    maker = world.party("garage").client("nova-cars")
    call: Callable[..., Any] = maker.call
    wanted = "WNV" + "".join(secrets.choice("0123456789ABCDEF") for _ in range(15))

    async def lost(method: str, path: str, **more: Any) -> Any:
        await call(method, path, **more)
        raise PartyUnreachable("nova-cars", "http://x", "the answer was lost")

    with monkeypatch.context() as patch:
        patch.setattr(maker, "call", lost)
        answer = world.call("garage", "POST", "/vehicles", {"pcid": wanted})
        assert answer.status_code == 502
    if waiting(world):  # a round of the garage may be quicker than we are
        assert wanted not in world.ok("garage", "GET", "/vehicles")
        built = world.ok("garage", "POST", "/vehicles", {"pcid": wanted})
        assert built["pcid"] == wanted
    assert waiting(world) == []
    found = world.run(garage._car(wanted))
    row = world.run(
        world.party("nova-cars").database.read(lambda session: session.get(VehicleRow, wanted))
    )
    assert row is not None
    assert found.chain[0].public_key() == found.key.public_key
    world.contract(wanted)
    assert world.charge(wanted, 100)["outcome"] == "charged"


def test_a_car_that_was_left_half_way_is_completed_by_a_round(parts: Parts) -> None:
    world = parts["garage"]
    before = set(world.ok("garage", "GET", "/vehicles"))
    with parts.without("nova-cars"):
        assert world.call("garage", "POST", "/vehicles", {}).status_code == 502
        with parts.without("garage"):
            pass
        world = parts["garage"]
        assert len(waiting(world)) == 1
        assert set(world.ok("garage", "GET", "/vehicles")) == before
    world.run(world.service("garage").resume())
    assert waiting(world) == []
    assert len(set(world.ok("garage", "GET", "/vehicles")) - before) == 1


def test_a_car_that_its_maker_refuses_is_not_pending(world: World) -> None:
    with world.unchanged("garage"):
        answer = world.call("garage", "POST", "/vehicles", {"pcid": "NO SUCH PCID"})
    assert answer.status_code == 422


def test_a_car_is_at_one_charger_at_a_time(world: World, car: Car) -> None:
    garage = world.service("garage")

    async def twice() -> list[Any]:
        visits = [garage.charge(car.pcid, CHARGER, 100, "auto") for _ in range(2)]
        return await asyncio.gather(*visits, return_exceptions=True)

    found = world.run(twice())
    assert {one.code for one in found if isinstance(one, Refusal)} == {"plugged_in"}
    assert [one.outcome for one in found if not isinstance(one, Refusal)] == ["charged"]


def waiting(world: World) -> list[Any]:
    return world.run(world.party("garage").database.read(pending))
