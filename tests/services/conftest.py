"""A whole ecosystem in this process: served on loopback by an event loop in a thread.

In this process, because the tests look behind the answers: into the databases (did a
refused call change anything?), into the log (was there a traceback?), into services.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import os
import socket
import sqlite3
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from fastapi import FastAPI

from pki.edition import ISO2
from services.common.party import Party
from services.ecosystem import Ecosystem, load
from services.serve import running
from services.vehicle.service import Car
from v2g import exi
from v2g.messages import iso2
from v2g.signature import sign

T = TypeVar("T")

# What happened, and what a platform makes of it by itself.
TOLD = (
    "events",
    "event_marks",
    "webhook_cursors",
    "webhook_contracts",
    "webhook_deliveries",
)


@dataclass
class World:
    """A running ecosystem and the means to call its parties as any client."""

    ecosystem: Ecosystem
    loop: asyncio.AbstractEventLoop
    http: httpx.Client
    many: httpx.AsyncClient
    apps: dict[str, FastAPI] = field(default_factory=dict)
    _tokens: dict[tuple[str, str], str] = field(default_factory=dict)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the ecosystem's loop; its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    def party(self, name: str) -> Party:
        party: Party = self.apps[name].state.party
        return party

    def service(self, name: str) -> Any:
        return self.apps[name].state.service

    def url(self, name: str) -> str:
        return self.ecosystem.party(name).url

    def token(self, party: str, client: str = "admin") -> str:
        if (party, client) not in self._tokens:
            answer = self.http.post(
                f"{self.url(party)}/oauth/token",
                data={
                    "grant_type": "client_credentials",
                    "client_id": client,
                    "client_secret": f"{client}-test-secret",
                },
            )
            assert answer.status_code == 200, answer.text
            self._tokens[party, client] = answer.json()["access_token"]
        return self._tokens[party, client]

    def call(
        self,
        party: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        client: str | None = "admin",
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> httpx.Response:
        """Call ``party`` as ``client`` (None: without a token)."""
        sent = dict(headers or {})
        if client is not None:
            sent["Authorization"] = f"Bearer {self.token(party, client)}"
        arguments: dict[str, Any] = {"json": body} if body is not None else {"content": content}
        return self.http.request(method, self.url(party) + path, headers=sent, **arguments)

    def all(
        self,
        party: str,
        method: str,
        wanted: Sequence[tuple[str, bytes | None, Mapping[str, Any]]],
        *,
        client: str | None = "admin",
    ) -> list[httpx.Response]:
        """Many calls (path, content, headers) at a time: a party writes them in one commit."""
        token = {} if client is None else {"Authorization": f"Bearer {self.token(party, client)}"}

        async def work() -> list[httpx.Response]:
            calls = [
                self.many.request(
                    method, self.url(party) + path, content=content, headers={**token, **headers}
                )
                for path, content, headers in wanted
            ]
            return list(await asyncio.gather(*calls))

        return self.run(work())

    def ok(self, party: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The JSON of a call that must succeed."""
        answer = self.call(party, method, path, body, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    # What most tests need first.

    def car(self, **body: Any) -> dict[str, Any]:
        car: dict[str, Any] = self.ok("garage", "POST", "/vehicles", body)
        return car

    def driver(self, deposit: str = "50.00") -> str:
        body = {"name": "Ada Driver", "deposit": deposit}
        return str(self.ok("sunmile", "POST", "/drivers", body)["id"])

    def contract(self, pcid: str, driver: str | None = None, **more: Any) -> dict[str, Any]:
        body = {"driver": driver or self.driver(), "pcid": pcid, **more}
        contract: dict[str, Any] = self.ok("sunmile", "POST", "/contracts", body)
        return contract

    def charge(self, pcid: str, energy_wh: int = 2000, **more: Any) -> dict[str, Any]:
        body = {"charger": "charger-1", "energy_wh": energy_wh, **more}
        outcome: dict[str, Any] = self.ok("garage", "POST", f"/vehicles/{pcid}/charge", body)
        return outcome

    def receipts(self, car: Car, session_id: bytes, *readings: int) -> list[str]:
        """What a car signs about readings of a session (base64 EXI)."""
        assert car.contract is not None
        found = []
        for reading in readings:
            body = iso2.MeteringReceiptReq(
                Id="id1",
                SessionID=session_id,
                SAScheduleTupleID=1,
                MeterInfo=iso2.MeterInfo(MeterID="DEPLGE00011", MeterReading=reading),
            )
            signature = sign(iso2.SCHEMA, [("MeteringReceiptReq", body)], car.contract.key, ISO2)
            header = iso2.MessageHeader(SessionID=session_id, Signature=signature)
            message = iso2.V2G_Message(Header=header, Body=iso2.Body(body))
            found.append(base64.b64encode(exi.encode(iso2.SCHEMA, message)).decode())
        return found

    # What a refused call must not change.

    def state(self, *parties: str) -> dict[tuple[str, str], tuple[int, str]]:
        """(party, table) -> rows and a digest over them. Left out are events, and trust stores
        that follow the pool: judging may renew them, whatever comes of it."""
        found = {}
        for name in parties or tuple(self.ecosystem.parties):
            url = self.ecosystem.party(name).database
            tables = (
                _tables(self.database(name))
                if url.startswith("sqlite")
                else _postgresql_tables(url, name)
            )
            follows = self.ecosystem.party(name).policy.get("anchors") == "follow"
            found.update(
                {
                    (name, table): seen
                    for table, seen in tables.items()
                    if not (follows and table in ("anchors", "trust_stores"))
                }
            )
        return found

    def database(self, name: str) -> Path:
        return Path(self.ecosystem.party(name).database.removeprefix("sqlite:///"))

    @contextmanager
    def unchanged(self, *parties: str) -> Iterator[None]:
        """Fails when the block changed a row of ``parties`` (default: of all)."""
        before = self.state(*parties)
        yield
        after = self.state(*parties)
        changed = [mark for mark in after if after[mark] != before.get(mark)]
        assert not changed, f"changed: {changed}"


def _tables(path: Path) -> dict[str, tuple[int, str]]:
    found = {}
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in names.fetchall():
            if table in TOLD:
                continue
            rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
            found[table] = (len(rows), hashlib.sha256(repr(rows).encode()).hexdigest())
    finally:
        connection.close()
    return found


def _postgresql_tables(url: str, schema: str) -> dict[str, tuple[int, str]]:
    import psycopg
    from psycopg.sql import SQL, Identifier

    found = {}
    with psycopg.connect(url) as connection:
        names = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (schema,)
        ).fetchall()
        for (table,) in names:
            if table in TOLD:
                continue
            query = SQL("SELECT * FROM {}").format(Identifier(schema, table))
            rows = sorted(repr(row) for row in connection.execute(query))
            found[table] = (len(rows), hashlib.sha256(repr(rows).encode()).hexdigest())
    return found


@contextmanager
def serving(ecosystem: Ecosystem, *names: str) -> Iterator[World]:
    """Serve ``names`` of ``ecosystem`` (default: all) until the block ends."""
    loop = asyncio.new_event_loop()
    begun: threading.Event = threading.Event()
    stop = asyncio.Event()
    trouble: list[BaseException] = []

    options: dict[str, Any] = {"timeout": 60, "trust_env": False, "verify": False}
    with httpx.Client(**options) as http:
        limits = httpx.Limits(max_connections=16)
        world = World(ecosystem, loop, http, httpx.AsyncClient(**options, limits=limits))

        async def serve() -> None:
            try:
                async with running(ecosystem, names or None, ready_within=30) as apps:
                    world.apps.update(apps)
                    begun.set()
                    await stop.wait()
            except BaseException as error:
                trouble.append(error)
            finally:
                await world.many.aclose()
                begun.set()

        def work() -> None:
            loop.run_until_complete(serve())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

        thread = threading.Thread(target=work)
        thread.start()
        begun.wait()
        try:
            if trouble:
                raise trouble[0]
            yield world
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stop.set)
            thread.join(30)
        assert not trouble, trouble


class Parts:
    """An ecosystem whose parties can be stopped and started one by one, each on a loop of its
    own; something else may listen in their place."""

    def __init__(self, ecosystem: Ecosystem) -> None:
        self.ecosystem = ecosystem
        self._running: dict[str, tuple[World, ExitStack]] = {}

    @property
    def everybody(self) -> list[str]:
        """All parties, in an order in which each finds those that it waits for."""
        return sorted(self.ecosystem.parties, key=lambda name: name != "root-pool")

    def up(self, *names: str) -> None:
        for name in names:
            with ExitStack() as stack:
                world = stack.enter_context(serving(self.ecosystem, name))
                self._running[name] = (world, stack.pop_all())

    def down(self, *names: str) -> None:
        for name in names:
            self._running.pop(name)[1].close()

    def close(self) -> None:
        self.down(*reversed(list(self._running)))

    def __getitem__(self, name: str) -> World:
        return self._running[name][0]

    @contextmanager
    def without(self, *names: str) -> Iterator[None]:
        """``names`` are down until the block ends."""
        self.down(*names)
        try:
            yield
        finally:
            self.up(*names)

    @contextmanager
    def instead(self, name: str, answer: bytes | None) -> Iterator[None]:
        """In the place of ``name`` something answers every connection with these bytes; with
        None it takes connections and never says a word."""
        with self.without(name), impostor(self.ecosystem.party(name).address, answer):
            yield


@contextmanager
def impostor(address: tuple[str, int], answer: bytes | None) -> Iterator[tuple[str, int]]:
    """Listens at ``address``: answers whoever sends something with ``answer`` and hangs up, or
    (None) never answers."""
    held: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                held.append(connection)
                if answer is not None:
                    connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()

    with socket.create_server(address) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[:2]
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    for one in held:
        one.close()


def http_answer(body: bytes, status: str = "200 OK", headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}"
    return head.encode() + b"\r\n" + body


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    """The default ecosystem, each party by itself."""
    found = Parts(load(data=tmp_path_factory.mktemp("parts")).on_free_ports())
    try:
        found.up(*found.everybody)
        yield found
    finally:
        found.close()


@pytest.fixture(scope="session")
def serve() -> Any:
    """:func:`serving`, for tests that cannot import this file."""
    return serving


@pytest.fixture
def listen() -> Any:
    """:func:`impostor` and :func:`http_answer`, for tests that cannot import this file."""
    return impostor, http_answer


@pytest.fixture(scope="session")
def world(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[World]:
    """The default ecosystem, running; strict in everything. PNCLAB_TEST_POSTGRESQL=1 puts it on
    PostgreSQL."""
    ecosystem = load(data=tmp_path_factory.mktemp("ecosystem")).on_free_ports()
    if os.environ.get("PNCLAB_TEST_POSTGRESQL"):
        ecosystem = ecosystem.on_database(request.getfixturevalue("postgresql_server").new())
    with serving(ecosystem) as found:
        yield found


class _Errors(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(logging.Formatter("%(name)s: %(message)s").format(record))


@pytest.fixture(autouse=True)
def no_traceback() -> Iterator[list[str]]:
    """Whatever a test sends: no party logs an error. Who expects one clears the list."""
    errors = _Errors()
    logging.getLogger().addHandler(errors)
    try:
        yield errors.seen
    finally:
        logging.getLogger().removeHandler(errors)
    assert not errors.seen, "\n".join(errors.seen)
