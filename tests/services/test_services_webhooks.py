"""Webhooks: signed, at least once, in order, to whom they concern, and nowhere else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from pki.edition import ISO2
from pki.issuing import new_serial, self_issue
from pki.keys import SoftwareKey
from pki.profiles import Role, profile
from services.common.events import unit_of_work
from services.ecosystem import load

if TYPE_CHECKING:
    from conftest import World

PATH = "/v1/webhook/endpoints"
HEADERS = ("X-Operator-Signature", "X-Hubject-Signature", "payload-signature")


class Receiver:
    """Listens on loopback: keeps what comes, answers as ``answers`` say (200 when empty)."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        self.paths: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers), body))
                receiver.paths.append(self.path)
                status = receiver.answers.pop(0) if receiver.answers else 200
                self.send_response(status)
                if status == 307:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/payload"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _headers, body in self.got]


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


@pytest.fixture(scope="module")
def ecosystem(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load(data=tmp_path_factory.mktemp("hooks")).on_free_ports()


@pytest.fixture
def world(ecosystem: Any, serve: Any) -> Iterator[World]:
    with serve(ecosystem) as found:
        yield found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


def a_round(world: World) -> None:
    async def work() -> None:
        with unit_of_work("round"):
            await world.service("platform").webhooks.webhooks()

    world.ok("platform", "POST", "/jobs/run")


def subscribed(
    world: World,
    receiver: Receiver,
    client: str,
    *events: str,
    path: str = PATH,
    key: str = "enabledEvents",
) -> dict[str, Any]:
    body = {"url": receiver.url, key: list(events)}
    answer = world.call("platform", "POST", path, body, client=client)
    assert answer.status_code == 201, answer.text
    endpoint: dict[str, Any] = answer.json()
    return endpoint


def test_who_hears_of_a_contract(world: World) -> None:
    """Its operator and the car's maker, in order and signed; no other operator, no CPO."""
    wanted = {
        "sunmile": ["mo.contract.created.sent.to.oem", "mo.contract.deleted.sent.to.oem"],
        "nova-cars": ["oem.contract.created", "oem.contract.deleted"],
        "plugpark": ["oem.contract.created", "mo.contract.created.sent.to.oem"],
    }
    paths = {"sunmile": PATH, "nova-cars": "/opnc/v1/event/endpoints", "plugpark": PATH}
    others = [one.name for one in world.ecosystem.of_kind("mo") if one.name != "sunmile"]
    wanted[others[0]] = wanted["sunmile"]
    with receiving() as one, receiving() as two, receiving() as three, receiving() as four:
        receivers = dict(zip(wanted, (one, two, three, four), strict=True))
        made = {
            client: subscribed(
                world, receivers[client], client, *events, path=paths.get(client, PATH)
            )
            for client, events in wanted.items()
        }
        contract = world.contract(world.car()["pcid"])
        world.ok("contract-pool", "DELETE", f"/contracts/{contract['emaid']}")
        a_round(world)
        for client in ("sunmile", "nova-cars"):
            found = receivers[client].events
            assert [event["eventType"] for event in found] == wanted[client]
            assert found[0]["payload"]["pcid"] == contract["pcid"]
            assert found[0]["xsdMsgDefNamespace"] == "urn:iso:15118:2:2013:MsgDef"
            secret = made[client]["secret"].encode()
            for headers, body in receivers[client].got:
                right = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
                assert [headers[name] for name in HEADERS] == [right] * 3
        assert not receivers["plugpark"].got
        assert not receivers[others[0]].got
    for client, endpoint in made.items():
        world.ok("platform", "DELETE", f"{PATH}/{endpoint['id']}", client=client)


def test_again_after_an_hour_and_a_restart(ecosystem: Any, serve: Any, receiver: Receiver) -> None:
    """5xx: again with the same eventId, three times at most; what waits survives a restart."""
    receiver.answers = [503]
    with serve(ecosystem) as world:
        made = subscribed(world, receiver, "sunmile", "mo.contract.created.sent.to.oem")
        world.contract(world.car()["pcid"])
        a_round(world)
        assert len(receiver.got) == 1
        a_round(world)
        assert len(receiver.got) == 1
    with serve(ecosystem) as world:
        world.ok("platform", "PUT", "/clock", {"advance": "1h1m"})
        assert len(receiver.got) == 2
        assert receiver.got[0][1] == receiver.got[1][1]
        a_round(world)
        assert len(receiver.got) == 2
        receiver.answers = [500] * 9
        world.contract(world.car()["pcid"])
        for _ in range(6):
            world.ok("platform", "PUT", "/clock", {"advance": "1h1m"})
        assert len(receiver.got) == 2 + 4
        assert len({event["eventId"] for event in receiver.events[2:]}) == 1
        world.ok("platform", "PUT", "/clock", {"real": True})
        world.ok("platform", "DELETE", f"{PATH}/{made['id']}", client="sunmile")


@pytest.mark.parametrize("status", [400, 409, 307])
def test_what_ends_it(world: World, receiver: Receiver, status: int) -> None:
    """A refusal, and a redirect, which is not followed."""
    receiver.answers = [status]
    made = subscribed(world, receiver, "nova-cars", "oem.contract.created", key="events")
    world.contract(world.car()["pcid"])
    a_round(world)
    world.ok("platform", "PUT", "/clock", {"advance": "2h"})
    assert receiver.paths == ["/payload"]
    world.ok("platform", "PUT", "/clock", {"real": True})
    world.ok("platform", "DELETE", f"{PATH}/{made['id']}", client="nova-cars")


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/x", "http://169.254.169.254/latest", "http://[::ffff:10.0.0.1]/",
        "http://0.0.0.0/", "ftp://127.0.0.1/", "http://a:b@127.0.0.1/", "nonsense", "http://[",
    ],
)  # fmt: skip
def test_where_nothing_is_sent(world: World, url: str) -> None:
    body = {"url": url, "enabledEvents": ["root.cert.added"]}
    answer = world.call("platform", "POST", PATH, body, client="sunmile")
    assert answer.status_code == 400, answer.text
    assert answer.json()["errorMessages"]


def test_a_name_that_changes_its_address(
    world: World, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Allowed when it is registered, and not any more when it is called."""
    hooks = world.service("platform").webhooks
    body = {"url": receiver.url.replace("127.0.0.1", "localhost")}
    made = world.ok(
        "platform",
        "POST",
        PATH,
        {**body, "enabledEvents": ["oem.contract.created"]},
        client="nova-cars",
    )
    monkeypatch.setattr(hooks.resolver, "allows", lambda _address: False)
    world.contract(world.car()["pcid"])
    a_round(world)
    assert not receiver.got
    world.ok("platform", "DELETE", f"{PATH}/{made['id']}", client="nova-cars")


def test_endpoints_are_their_owners(world: World, receiver: Receiver) -> None:
    made = subscribed(world, receiver, "sunmile", "root.cert.added")
    path = f"{PATH}/{made['id']}"
    assert world.call("platform", "GET", path, client="plugpark").status_code == 404
    assert world.call("platform", "DELETE", path, client="plugpark").status_code == 404
    changed = world.ok(
        "platform", "PUT", path, {"url": receiver.url, "status": "disabled"}, client="sunmile"
    )
    assert (changed["status"], changed["enabledEvents"]) == ("disabled", ["root.cert.added"])
    assert len(world.ok("platform", "GET", PATH, client="sunmile")) == 1
    assert world.ok("platform", "GET", PATH, client="plugpark") == []
    world.ok("platform", "DELETE", path, client="sunmile")
    body = {"url": receiver.url, "enabledEvents": ["no.such.event"]}
    assert world.call("platform", "POST", PATH, body, client="sunmile").status_code == 400


def short_lived_root(now: datetime) -> str:
    """A maker's root that ends in ten days, base64 of DER."""
    key, rules = SoftwareKey.generate(ISO2), profile(Role.OEM_ROOT, ISO2)
    certificate = self_issue(
        rules,
        subject=rules.subject("Short Cars Root CA", "Short Cars (pnclab test)", "DE"),
        signer=key,
        not_before=now - timedelta(hours=1),
        not_after=now + timedelta(days=10),
        serial=new_serial(os.urandom(20)),
    )
    return base64.b64encode(certificate.public_bytes(Encoding.DER)).decode()


def test_that_a_root_has_ended_is_told_once(world: World, receiver: Receiver) -> None:
    made = subscribed(world, receiver, "plugpark", "root.cert.expired")
    now = world.party("root-pool").clock.now().replace(microsecond=0)
    body = {"type": "OEM", "certificate": short_lived_root(now)}
    root = world.ok("root-pool", "POST", "/roots", body)
    world.ok("root-pool", "POST", "/jobs/run")
    a_round(world)
    assert receiver.got == []
    world.ok("platform", "PUT", "/clock", {"advance": "11d"})
    world._tokens.clear()  # they ended meanwhile
    for _again in range(2):
        world.ok("root-pool", "POST", "/jobs/run")
        a_round(world)
    assert [one["eventType"] for one in receiver.events] == ["root.cert.expired"]
    assert root["fingerprint"] in json.dumps(receiver.events[0]["payload"]).lower()
    world.ok("platform", "PUT", "/clock", {"real": True})
    world._tokens.clear()
    world.ok("platform", "DELETE", f"{PATH}/{made['id']}", client="plugpark")
