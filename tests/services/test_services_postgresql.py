"""Databases that share, fill up, lock, vanish and come back; several workers of one party."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from services.common.database import Database
from services.common.engines import DatabaseError, shown
from services.common.errors import DatabaseUnavailable, Refusal
from services.common.events import Event, unit_of_work
from services.common.migrations import upgrade
from services.ecosystem import Ecosystem, EcosystemError, from_document, load, to_document
from services.rcp.store import TABLES, RootRow
from services.serve import StartError

NOW = datetime(2027, 1, 1, tzinfo=UTC)
ENGINES = ("sqlite", "postgresql")


def root(mark: str, **other: Any) -> RootRow:
    values: dict[str, Any] = {
        "fingerprint": mark,
        "type": "V2G",
        "subject": "CN=root",
        "certificate": b"DER",
        "valid_from": NOW,
        "valid_to": NOW,
        "published_by": "somebody",
        "published_at": NOW,
    }
    return RootRow(**{**values, **other})


def marks(session: Session) -> set[str]:
    return set(session.scalars(select(RootRow.fingerprint)))


@contextlib.contextmanager
def opened(url: str, schema: str = "root-pool") -> Iterator[Database]:
    database = Database(url, TABLES.metadata, schema=schema)
    try:
        upgrade(database, "rcp")
        database.open()
        yield database
    finally:
        database.close()


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return str(request.getfixturevalue("postgresql"))
    return f"sqlite:///{tmp_path}/pool.db"


# ---------------------------------------------------------- the same on both engines


def test_writes_are_one_after_the_other_over_processes(url: str) -> None:
    """Who looks first and writes then is right: of many that do so at once through two databases
    (as two workers have them), each adds exactly one."""

    def add(session: Session) -> None:
        session.add(root(str(len(marks(session)))))

    async def work(*databases: Database) -> None:
        await asyncio.gather(*(databases[n % 2].write(add) for n in range(100)))

    with opened(url) as one, opened(url) as other:
        asyncio.run(work(one, other))
        found = asyncio.run(one.read(marks))
    assert found == {str(number) for number in range(100)}


def test_a_read_sees_one_snapshot(url: str) -> None:
    with opened(url) as database:

        def read(session: Session) -> tuple[int, int]:
            before = len(marks(session))
            asyncio.run(database.write(lambda writing: writing.add(root("meanwhile"))))
            session.expire_all()
            return before, len(marks(session))

        assert asyncio.run(database.read(read)) == (0, 0)
        assert asyncio.run(database.read(marks)) == {"meanwhile"}


def test_a_read_changes_nothing(postgresql: str) -> None:
    """PostgreSQL itself keeps a read from writing."""
    with opened(postgresql) as database:

        def write(session: Session) -> None:
            session.add(root("1"))
            session.flush()

        with pytest.raises(DatabaseUnavailable, match="read-only"):
            asyncio.run(database.read(write))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"subject": "x" * 513}, "roots.subject: 513 characters, and 512 have room"),
        ({"subject": "a\0b"}, "no NUL"),
        ({"subject": "ä\0b"}, "no NUL"),
        ({"subject": "\ud800"}, "no lone surrogate"),
    ],
)
def test_a_text_that_does_not_fit_is_refused(url: str, values: Any, says: str) -> None:
    with opened(url) as database:
        with pytest.raises(Refusal, match=says) as refused:
            asyncio.run(database.write(lambda session: session.add(root("1", **values))))
        assert refused.value.status == 422
        asyncio.run(database.write(lambda session: session.add(root("2", subject="ä" * 512))))
        assert asyncio.run(database.read(marks)) == {"2"}


def test_what_cannot_be_looked_for_is_refused(postgresql: str) -> None:
    with opened(postgresql) as database:
        for name in ("a\0b", "\ud800"):
            with pytest.raises(Refusal) as refused:
                asyncio.run(database.read(lambda session, n=name: session.get(RootRow, n)))
            assert refused.value.status == 422


def test_an_event_of_any_text_can_be_kept(url: str, tmp_path: Path) -> None:
    from services.common.clock import Clock
    from services.common.events import Recorder

    with opened(url) as database, unit_of_work("r"):
        recorder = Recorder("root-pool", Clock())
        hostile = "\0\ud800é" * 1000
        recorder.record(
            Event(
                "http", hostile, hostile, hostile, hostile, data={hostile: [hostile, {"a": 1e400}]}
            )
        )
        asyncio.run(database.flush())
        (found,) = asyncio.run(database.events(run="r"))
    assert "\0" not in repr(found.data)
    assert (len(found.name), len(found.sender), len(found.summary)) == (128, 64, 1024)


def test_a_lock_is_held_by_one(url: str) -> None:
    """Over databases, as over workers; it is free again when its holder is gone."""

    async def work(one: Database, other: Database) -> None:
        async with one.alone("a") as first, other.alone("a") as second, one.alone("a") as third:
            assert (first, second, third) == (True, False, False)
            async with other.alone("b") as apart:
                assert apart
        async with other.alone("a") as free:
            assert free
            waiting = asyncio.create_task(_take(one))
            await asyncio.sleep(0.1)
            assert not waiting.done()
        assert await asyncio.wait_for(waiting, 5)

    async def _take(database: Database) -> bool:
        async with database.alone("a", wait=True) as mine:
            return mine

    with opened(url) as one, opened(url) as other:
        asyncio.run(work(one, other))

        async def left() -> None:
            lock = one.alone("gone")
            assert await lock.__aenter__()
            one.close()
            async with other.alone("gone") as mine:
                assert mine

        asyncio.run(left())


# -------------------------------------------------------------- PostgreSQL, away


def test_a_server_that_restarts_is_survived(postgresql_server: Any) -> None:
    """Whatever way it ends, and whatever is under way: nothing that was acknowledged is lost,
    nothing is written twice, and nobody sees an error."""
    with opened(postgresql_server.new()) as database:
        written: list[str] = []
        stop = threading.Event()

        async def write(who: int) -> None:
            number = 0
            while not stop.is_set():
                mark = f"{who}-{number}"
                await database.write(lambda session, m=mark: session.add(root(m)))
                written.append(mark)
                assert mark in await database.read(marks)
                number += 1

        async def work() -> None:
            await asyncio.gather(*(write(who) for who in range(4)))

        trouble: list[BaseException] = []

        def run() -> None:
            try:
                asyncio.run(work())
            except BaseException as error:
                trouble.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        for how in ("fast", "immediate", "immediate"):
            time.sleep(0.5)
            postgresql_server.restart(how)
        time.sleep(0.5)
        stop.set()
        thread.join(30)
        assert not trouble, trouble
        assert set(written) == asyncio.run(database.read(marks))
        assert len(written) > 20


def test_a_connection_that_breaks_while_it_commits(
    postgresql: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is asked what became of the transaction: committed is done, else again."""
    from sqlalchemy.engine.base import RootTransaction

    with opened(postgresql) as database:
        commit = RootTransaction.commit
        ways = ["after", "before"]

        def breaks(transaction: RootTransaction) -> None:
            connection = transaction.connection
            if not connection.get_execution_options().get("writing") or not ways:
                commit(transaction)
                return
            driver: Any = connection.connection.dbapi_connection
            if ways.pop() == "after":
                driver.commit()
            os.close(os.dup(driver.fileno()))
            driver.close()
            commit(transaction)

        monkeypatch.setattr(RootTransaction, "commit", breaks)
        for number in range(3):
            asyncio.run(database.write(lambda session, n=number: session.add(root(str(n)))))
        assert ways == []
        assert asyncio.run(database.read(marks)) == {"0", "1", "2"}


def test_a_server_that_stays_away_is_a_503(postgresql_server: Any) -> None:
    with opened(postgresql_server.new()) as database:
        asyncio.run(database.write(lambda session: session.add(root("1"))))
        postgresql_server.stop()
        try:
            for ask in (database.read, database.write):
                with pytest.raises(DatabaseUnavailable, match="nothing was changed") as said:
                    asyncio.run(ask(marks))
                assert "sesame" not in str(said.value)
        finally:
            postgresql_server.start()
        assert asyncio.run(database.read(marks)) == {"1"}


# ------------------------------------------------------------------ PostgreSQL, starts


def test_passwords_are_not_told(postgresql_server: Any, tmp_path: Path, serve: Any) -> None:
    """A server that refuses, a database that is not there, another encoding, a port where
    nobody listens: each start says so in a line, without the password."""
    good = postgresql_server.new()
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    cases = {
        good.replace("sesame-0f2a", "sesame-wrong"): "password authentication failed",
        f"{good}_not": "does not exist",
        postgresql_server.new(encoding="LATIN1"): "LATIN1; a database in UTF8 is wanted",
        good.replace(str(postgresql_server.port), str(closed)): "refused",
    }
    for url, says in cases.items():
        ecosystem = load(data=tmp_path).on_free_ports().on_database(url)
        with (
            pytest.raises((StartError, DatabaseError), match=says) as said,
            serve(ecosystem, "root-pool"),
        ):
            pass
        assert "sesame" not in str(said.value)
    assert "sesame" not in shown(good + "?password=sesame")


def test_urls_in_the_ecosystem_file(tmp_path: Path) -> None:
    """One PostgreSQL URL for all, or for some; what is no URL of ours is refused, untold."""

    def document(**head: Any) -> dict[str, Any]:
        parties = [
            {"name": name, "kind": "rcp", "url": f"http://127.0.0.1:{port}"}
            for name, port in (("a", 1), ("b", 2))
        ]
        return {"ecosystem": {"data": str(tmp_path), **head}, "party": parties}

    shared = "postgresql://me:sesame@db/x"
    found = from_document(document(database=shared))
    assert {party.database for party in found.parties.values()} == {shared}
    assert {p.database for p in load(_written(tmp_path, found)).parties.values()} == {shared}
    mixed = document()
    mixed["party"][1]["database"] = shared
    assert [p.database for p in from_document(mixed).parties.values()] == [
        f"sqlite:///{tmp_path}/a.db",
        shared,
    ]
    for wrong in (
        "mysql://me:sesame@db/x",
        "postgresql+asyncpg://me:sesame@db/x",
        "sesame",
        "postgresql://",
        "sqlite://",
        "postgresql://me:sesame@db:99999/x",
        f"sqlite:///{tmp_path}/all.db",
    ):
        with pytest.raises(EcosystemError, match="database") as said:
            from_document(document(database=wrong))
        assert "sesame" not in str(said.value) or wrong == "sesame"


def _written(folder: Path, ecosystem: Ecosystem) -> Path:
    path = folder / "ecosystem.toml"
    path.write_text(to_document(ecosystem))
    return path


def test_a_whole_life_on_postgresql(postgresql: str, tmp_path: Path, serve: Any) -> None:
    """The default ecosystem, all parties on one URL; a second start finds everything."""
    ecosystem = load(data=tmp_path).on_free_ports().on_database(postgresql)
    with serve(ecosystem) as world:
        car = world.car()
        driver = world.driver()
        contract = world.contract(car["pcid"], driver)
        first = world.charge(car["pcid"])
        assert (first["outcome"], first["installed"]) == ("charged", True), first
    with serve(ecosystem) as world:
        again = world.charge(car["pcid"])
        assert (again["outcome"], again["installed"]) == ("charged", False), again
        assert again["emaid"] == contract["emaid"]
        invoices = world.ok("sunmile", "GET", f"/invoices?driver={driver}")
        assert len(invoices) == 2
        assert world.ok("sunmile", "GET", "/ledger")["total_cents"] == 0
        # More than 32 bits of watt-hours and cents have room.
        with world.party("sunmile").database.engine.connect() as connection:
            wide = connection.scalar(
                text(
                    "SELECT count(*) FROM information_schema.columns "
                    "WHERE table_schema = 'sunmile' AND data_type = 'integer'"
                )
            )
        assert wide == 0


HOSTILE = ("a\0b", "ä" * 300)


def test_no_text_makes_a_500(postgresql: str, tmp_path: Path, serve: Any) -> None:
    """PostgreSQL is stricter than SQLite: in every path, query and text field of every door."""
    ecosystem = load(data=tmp_path).on_free_ports().on_database(postgresql)
    with serve(ecosystem) as world:
        kinds = {party.kind: name for name, party in ecosystem.parties.items()}
        bad: list[str] = []
        for name in kinds.values():
            document = world.http.get(f"{ecosystem.party(name).url}/openapi.json").json()
            for path, methods in document["paths"].items():
                if path.startswith(("/clock", "/events/stream", "/oauth")):
                    continue
                for method, operation in methods.items():
                    for value in HOSTILE:
                        sent = _hostile(world, name, path, method, operation, document, value)
                        if sent.status_code >= 500 and sent.status_code not in (502, 503, 504):
                            bad.append(f"{name} {method} {path} {value[:8]!r}: {sent.text[:200]}")
                        if "database_unavailable" in sent.text:
                            bad.append(f"{name} {method} {path} {value[:8]!r}: {sent.text[:200]}")
        assert not bad, "\n".join(bad)


def _hostile(
    world: Any, name: str, path: str, method: str, operation: Any, document: Any, value: str
) -> httpx.Response:
    """One call in which every text that the operation takes is ``value``."""
    quoted = quote(value, safe="")
    for parameter in operation.get("parameters", []):
        path = path.replace("{" + parameter["name"] + "}", quoted)
    query = {one["name"]: value for one in operation.get("parameters", []) if one["in"] == "query"}
    body = None
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if "$ref" in content.get("schema", {}):
        shape = document["components"]["schemas"][content["schema"]["$ref"].rsplit("/", 1)[1]]
        body = {
            field: value if _is_text(schema) else (schema.get("examples") or [None])[0]
            for field, schema in shape["properties"].items()
        }
    answer: httpx.Response = world.http.request(
        method,
        world.ecosystem.party(name).url + path,
        params=query,
        json=body,
        headers={"Authorization": f"Bearer {world.token(name)}"},
    )
    return answer


def _is_text(schema: dict[str, Any]) -> bool:
    kinds = [schema, *schema.get("anyOf", [])]
    return any(one.get("type") == "string" for one in kinds)


# -------------------------------------------------------------- SQLite, in trouble


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB, or a skip."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "pnclab-test", folder], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_loses_nothing(small_disk: Path) -> None:
    """Each write that does not fit is refused with a sentence, also when many are at once; what
    was acknowledged is there, and it goes on when there is room again."""
    with opened(f"sqlite:///{small_disk}/pool.db") as database:
        said: set[str] = set()

        async def fill(rounds: int, size: int) -> tuple[set[str], set[str]]:
            written, refused = set(), set()

            async def one(mark: str) -> None:
                content = os.urandom(size)
                try:
                    await database.write(
                        lambda session: session.add(root(mark, certificate=content))
                    )
                except DatabaseUnavailable as error:
                    said.add(str(error))
                    refused.add(mark)
                else:
                    written.add(mark)

            for number in range(rounds):
                await asyncio.gather(*(one(f"{size}-{number}-{n}") for n in range(20)))
            return written, refused

        ballast = small_disk / "ballast"
        written, refused = asyncio.run(fill(1, 100))
        assert (len(written), len(refused)) == (20, 0)
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        more, refused = asyncio.run(fill(4, 20_000))
        assert refused
        assert said == {
            "the database did not do its part: database or disk is full; nothing was changed"
        }
        assert asyncio.run(database.read(marks)) == written | more
        ballast.unlink()
        again, refused = asyncio.run(fill(1, 20_000))
        assert not refused
        assert asyncio.run(database.read(marks)) == written | more | again


def test_one_that_does_not_fit_fails_alone(small_disk: Path) -> None:
    """Of a batch in which one change is larger than the disk, the others are written."""
    with opened(f"sqlite:///{small_disk}/pool.db") as database:

        async def work() -> list[Any]:
            sizes = [100] * 5 + [10_000_000] + [100] * 5
            return await asyncio.gather(
                *(
                    database.write(
                        lambda session, n=n, s=size: session.add(root(str(n), certificate=bytes(s)))
                    )
                    for n, size in enumerate(sizes)
                ),
                return_exceptions=True,
            )

        ends = asyncio.run(work())
        assert [type(one) for one in ends].count(DatabaseUnavailable) == 1
        assert isinstance(ends[5], DatabaseUnavailable)
        wanted = {str(n) for n in range(11)} - {"5"}
        assert asyncio.run(database.read(marks)) == wanted


def test_a_file_that_cannot_be_written(tmp_path: Path, serve: Any) -> None:
    """A start on it says so; nothing in it changes."""
    path = tmp_path / "root-pool.db"
    with opened(f"sqlite:///{path}") as database:
        asyncio.run(database.write(lambda session: session.add(root("1"))))
    before = path.read_bytes()
    readonly = Database(f"sqlite:///file:{path}?mode=ro&uri=true", TABLES.metadata)
    readonly.open()
    with pytest.raises(DatabaseUnavailable, match="readonly database; nothing was changed"):
        asyncio.run(readonly.write(lambda session: session.add(root("2"))))
    assert asyncio.run(readonly.read(marks)) == {"1"}
    readonly.close()
    assert path.read_bytes() == before

    newer = replace(load(data=tmp_path / "new"))
    parties = {
        name: replace(party, database=f"sqlite:///file:{tmp_path}/{name}.none?mode=ro&uri=true")
        for name, party in newer.parties.items()
    }
    with (
        pytest.raises(
            StartError, match=r"root-pool: its database .* cannot be used: unable to open"
        ),
        serve(replace(newer, parties=parties).on_free_ports(), "root-pool"),
    ):
        pass


def test_a_locked_file_stops_a_start_with_a_sentence(
    tmp_path: Path, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.common.engines.LOCK_PATIENCE", 0.2)
    ecosystem = load(data=tmp_path).on_free_ports()
    other = sqlite3.connect(tmp_path / "root-pool.db", isolation_level=None)
    other.execute("PRAGMA journal_mode=WAL")
    other.execute("BEGIN IMMEDIATE")
    with (
        pytest.raises(StartError, match=r"root-pool: its database .*root-pool\.db.* is locked"),
        serve(ecosystem, "root-pool"),
    ):
        pass
    other.execute("ROLLBACK")
    other.close()
    with serve(ecosystem, "root-pool") as world:
        assert world.ok("root-pool", "GET", "/roots") == []


# ------------------------------------------------------------------------ workers

_PNCLAB = (sys.executable, "-I", "-c", "from scenarios.cli import main; main()")


@contextlib.contextmanager
def workers(ecosystem: Ecosystem, folder: Path, name: str, number: int) -> Iterator[Any]:
    """``pnclab serve NAME --workers NUMBER`` as a user starts it; yields its process."""
    log = folder / f"{name}.log"
    file = str(_written(folder, ecosystem))
    with log.open("ab") as said:
        process = subprocess.Popen(
            [*_PNCLAB, "serve", name, "-e", file, "--workers", str(number)],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
    try:
        _until(lambda: _healthy(ecosystem, name), f"{name} is ready", process, log)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()[-3000:]
    assert "Traceback" not in log.read_text(), log.read_text()[-3000:]


def _until(
    holds: Callable[[], bool], what: str, process: Any = None, log: Path | None = None
) -> None:
    until = time.monotonic() + 60
    while not holds():
        assert process is None or process.poll() is None, log and log.read_text()[-3000:]
        assert time.monotonic() < until, f"not within 60 s: {what}"
        time.sleep(0.1)


def _healthy(ecosystem: Ecosystem, name: str) -> bool:
    try:
        url = ecosystem.party(name).url + "/healthz"
        answer = httpx.get(url, timeout=5, trust_env=False)
        return answer.status_code == 200 and answer.json()["name"] == name
    except (httpx.HTTPError, ValueError):
        return False


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.fixture(params=ENGINES)
def placed(request: pytest.FixtureRequest, tmp_path: Path) -> Ecosystem:
    """The default ecosystem on free ports, on either engine."""
    ecosystem = load(data=tmp_path / "data").on_free_ports()
    if request.param == "postgresql":
        return ecosystem.on_database(request.getfixturevalue("postgresql"))
    return ecosystem


def test_an_operator_with_three_workers(placed: Ecosystem, tmp_path: Path, serve: Any) -> None:
    """A hundred contracts at once, some asked for by several at the same time: each is one
    contract and active, no serial number is used twice, and workers that are killed meanwhile
    are replaced."""
    mo = "sunmile"
    others = [name for name in placed.parties if name != mo]
    # The operator waits for the others, and some of them for it.
    with serve(placed, *others) as world, workers(placed, tmp_path, mo, 3) as process:
        assert len(_children(process.pid)) == 3
        driver = world.ok(mo, "POST", "/drivers", {"name": "Many", "deposit": "5.00"})["id"]
        cars = [world.car()["pcid"] for _ in range(20)]
        asked = [{"driver": driver, "pcid": cars[n % 20], "emaid": _emaid(n)} for n in range(100)]
        # Every tenth is asked for by four at once.
        asked += [body for body in asked[::10] for _ in range(3)]

        async def sign(body: dict[str, Any]) -> dict[str, Any]:
            for _attempt in range(20):
                try:
                    answer = await http.post(
                        placed.party(mo).url + "/contracts", json=body, headers=headers
                    )
                except httpx.HTTPError:
                    await asyncio.sleep(0.2)  # its worker was killed
                    continue
                assert answer.is_success, answer.text
                found: dict[str, Any] = answer.json()
                return found
            raise AssertionError("no answer")

        async def play() -> list[dict[str, Any]]:
            killing = asyncio.create_task(kill())
            done = await asyncio.gather(*(sign(body) for body in asked))
            await killing
            await http.aclose()
            return done

        async def kill() -> None:
            for _ in range(3):
                await asyncio.sleep(0.7)
                os.kill(_children(process.pid)[0], signal.SIGKILL)

        # No kept connections, so that they spread over the workers.
        http = httpx.AsyncClient(
            timeout=120,
            trust_env=False,
            limits=httpx.Limits(max_connections=40, max_keepalive_connections=0),
        )
        said = httpx.post(
            placed.party(mo).url + "/oauth/token",
            json={
                "grant_type": "client_credentials",
                "client_id": "admin",
                "client_secret": "admin-test-secret",
            },
            trust_env=False,
        )
        headers = {"Authorization": f"Bearer {said.json()['access_token']}"}
        done = asyncio.run(play())
        assert Counter(one["status"] for one in done) == {"active": 130}
        assert len({one["fingerprint"] for one in done}) == 100

        _until(lambda: len(_children(process.pid)) == 3, "three workers again")
        contracts = world.ok(mo, "GET", "/contracts")
        assert Counter(one["status"] for one in contracts) == {"active": 100}
        issued = world.ok(mo, "GET", "/certificates")
        serials = Counter((one["issuer"], one["serial"]) for one in issued)
        assert max(serials.values()) == 1
        assert sum(one["role"] == "contract" for one in issued) == 100
        # What is made once was made once, whoever of the workers began with it.
        roles = Counter(one["role"] for one in issued if one["role"].startswith("mo-"))
        assert set(roles.values()) == {1}, roles


def _emaid(number: int) -> str:
    from pki.identifiers import EMAID

    return EMAID.with_check_digit("DE", "SUN", f"C{number:08d}").wire


def test_workers_end_with_their_supervisor(tmp_path: Path) -> None:
    """Also when that is killed; and one that cannot start ends all with a line that says why."""
    ecosystem = load(data=tmp_path / "data").on_free_ports()
    file = str(_written(tmp_path, ecosystem))
    command = [*_PNCLAB, "serve", "root-pool", "-e", file, "--workers", "2"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    _until(lambda: _healthy(ecosystem, "root-pool"), "root-pool is ready", process)
    children = _children(process.pid)
    assert len(children) == 2
    process.kill()
    process.wait()
    _until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "workers end")

    (tmp_path / "data" / "root-pool.secret").write_bytes(b"short")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode in (1, 2)
    assert "a sealing secret has 32 bytes" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("name", "number", "says"),
    [
        ("charger-1", "2", "a charger has one process: the cars that are plugged in"),
        ("garage", "3", "a vehicle has one process"),
        ("root-pool", "0", "0 is not within 1 and 64"),
        ("root-pool", "65", "65 is not within 1 and 64"),
    ],
)
def test_who_cannot_have_workers(tmp_path: Path, name: str, number: str, says: str) -> None:
    command = [*_PNCLAB, "serve", name, "--data", str(tmp_path), "--workers", number]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (ended.returncode, says in ended.stderr) == (2, True), ended.stderr
