"""The plumbing of every party, piece by piece: database, keys, tokens, events, money."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from alembic.util.exc import CommandError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError, StatementError
from sqlalchemy.orm import Session

from pki.edition import ISO2
from pki.keys import SoftwareKey
from services.common import answers, fields
from services.common.auth import Client, TokenIssuer
from services.common.certificates import unb64
from services.common.clock import Clock
from services.common.database import Database
from services.common.errors import DatabaseUnavailable, PartyRefused, PartyUnreachable, Refusal
from services.common.events import (
    MAX_PAYLOAD,
    Event,
    Recorder,
    new_id,
    readable,
    redacted,
    unit_of_work,
)
from services.common.jobs import Jobs, Report
from services.common.keystore import KeyStore, SealingError, sealing_secret
from services.common.migrations import STORES, SchemaError, check, upgrade
from services.common.money import cents, decimal, price, with_markup
from services.ecosystem import Tariff
from services.mo import store as mo_store
from services.rcp.store import TABLES, RootRow

if TYPE_CHECKING:
    from conftest import World

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def root(mark: str, when: datetime = NOW) -> RootRow:
    return RootRow(
        fingerprint=mark,
        type="V2G",
        subject="CN=x",
        certificate=b"",
        valid_from=when,
        valid_to=when,
        published_by="x",
        published_at=when,
    )


def event(name: str, **more: Any) -> Event:
    return Event(kind="state", name=name, sender="a", receiver="b", **more)


@dataclass
class Store:
    """An open database of a root pool."""

    database: Database
    path: Path
    recorder: Recorder

    def marks(self) -> set[str]:
        """What is on disk, read past the engine."""
        with sqlite3.connect(self.path) as connection:
            found = {row[0] for row in connection.execute("SELECT fingerprint FROM roots")}
        connection.close()
        return found

    def told(self) -> list[str]:
        with sqlite3.connect(self.path) as connection:
            found = [row[0] for row in connection.execute("SELECT name FROM events ORDER BY id")]
        connection.close()
        return found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    path = tmp_path / "pool.db"
    database = Database(f"sqlite:///{path}", TABLES.metadata)
    upgrade(database, "rcp")
    database.open()
    yield Store(database, path, Recorder("pool", Clock()))
    database.close()


# -------------------------------------------------------------------- the writer


def test_a_failing_write_is_undone_alone(store: Store) -> None:
    """Among a hundred writes in one batch: the duplicates fail, all others are there."""

    async def work() -> list[Any]:
        marks = [str(number % 60) for number in range(100)]
        writes = [
            store.database.write(lambda session, mark=mark: session.add(root(mark)))
            for mark in marks
        ]
        return await asyncio.gather(*writes, return_exceptions=True)

    done = asyncio.run(work())
    assert [type(one) for one in done[:60]] == [type(None)] * 60
    assert {type(one) for one in done[60:]} == {IntegrityError}
    assert store.marks() == {str(number) for number in range(60)}


def test_a_write_that_does_half_and_fails(store: Store) -> None:
    def half(session: Session) -> None:
        session.add(root("half"))
        session.flush()
        raise Refusal(409, "no", "on second thought")

    async def work() -> None:
        with pytest.raises(Refusal):
            await store.database.write(half)
        await store.database.write(lambda session: session.add(root("whole")))

    asyncio.run(work())
    assert store.marks() == {"whole"}


def test_who_loses_finds_the_winner(store: Store) -> None:
    """The loser of a race looks for the winner's row as soon as it hears of its failure."""

    async def one(number: int) -> bool:
        try:
            await store.database.write(lambda session: session.add(root("same")))
        except IntegrityError:
            found = await store.database.read(lambda session: session.get(RootRow, "same"))
            assert found is not None, "lost against nobody"
            return False
        return True

    async def work() -> list[bool]:
        return await asyncio.gather(*(one(number) for number in range(50)))

    assert sum(asyncio.run(work())) == 1


def test_nobody_is_answered_before_the_commit(store: Store) -> None:
    async def work() -> None:
        for number in range(20):
            await store.database.write(lambda session, n=number: session.add(root(str(n))))
            assert str(number) in store.marks()

    asyncio.run(work())


def test_events_lie_in_the_transaction_of_what_they_tell(store: Store) -> None:
    """Written with the change; kept in the unit when it fails; written then by a flush."""

    async def work() -> None:
        with unit_of_work("r") as unit:
            store.recorder.record(event("first"))
            await store.database.write(lambda session: session.add(root("1")))
            assert (store.told(), unit.events) == (["first"], [])
            store.recorder.record(event("second"))
            with pytest.raises(IntegrityError):
                await store.database.write(lambda session: session.add(root("1")))
            assert store.told() == ["first"]
            assert [one.name for one in unit.events] == ["second"]
            await store.database.flush()
            assert (store.told(), unit.events) == (["first", "second"], [])

    asyncio.run(work())
    found = asyncio.run(store.database.events(run="r"))
    assert [one.name for one in found] == ["first", "second"]
    assert [one.run for one in found] == ["r", "r"]
    assert asyncio.run(store.database.events(after=found[0].id)) == found[1:]
    assert asyncio.run(store.database.events(kind="http")) == []
    assert asyncio.run(store.database.events(limit=1)) == found[:1]


def test_a_database_that_is_locked(store: Store) -> None:
    """Somebody else holds the write lock for too long: an error for each who waits; then on."""
    patience = text("PRAGMA busy_timeout = 100")
    asyncio.run(store.database.write(lambda session: session.execute(patience)))

    async def work() -> list[Any]:
        writes = [store.database.write(lambda session: None) for _ in range(3)]
        return await asyncio.wait_for(asyncio.gather(*writes, return_exceptions=True), 10)

    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert {type(one) for one in asyncio.run(work())} == {DatabaseUnavailable}
    other.execute("ROLLBACK")
    other.close()
    assert asyncio.run(work()) == [None] * 3


def test_what_was_queued_is_written_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "pool.db"
    database = Database(f"sqlite:///{path}", TABLES.metadata)
    upgrade(database, "rcp")
    database.open()

    async def work() -> None:
        writes = [
            database.write(lambda session, n=number: session.add(root(str(n))))
            for number in range(300)
        ]
        await asyncio.gather(*writes)

    asyncio.run(work())
    database.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM roots").fetchone() == (300,)
    connection.close()


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """A process that is killed with its database open: what it said is there is there."""
    import subprocess
    import sys

    script = """
import asyncio, os, sys
from services.common.database import Database
from services.common.migrations import upgrade
from services.rcp.store import TABLES, RootRow
from datetime import UTC, datetime
database = Database(sys.argv[1], TABLES.metadata)
upgrade(database, "rcp"); database.open()
now = datetime.now(UTC)
async def work():
    for n in range(10_000):
        await database.write(lambda s: s.add(RootRow(fingerprint=str(n), type="V2G", subject="",
            certificate=b"", valid_from=now, valid_to=now, published_by="", published_at=now)))
        print(n, flush=True)
asyncio.run(work())
"""
    path = tmp_path / "pool.db"
    command = [sys.executable, "-c", script, f"sqlite:///{path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = -1
        for line in process.stdout:
            said = int(line)
            if said == 20:
                process.kill()
    with sqlite3.connect(path) as connection:
        marks = {int(row[0]) for row in connection.execute("SELECT fingerprint FROM roots")}
    connection.close()
    assert said >= 20
    assert set(range(said + 1)) <= marks


def test_instants_keep_their_instant(store: Store) -> None:
    """In any zone in, in UTC out; an instant without a zone is refused."""
    zoned = NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))

    async def work() -> datetime:
        await store.database.write(lambda session: session.add(root("1", zoned)))
        found = await store.database.read(lambda session: session.get_one(RootRow, "1"))
        naive = NOW.replace(tzinfo=None)
        with pytest.raises(StatementError, match="without a time zone"):
            await store.database.write(lambda session: session.add(root("2", naive)))
        return found.valid_from

    found = asyncio.run(work())
    assert (found, found.utcoffset()) == (NOW, timedelta())


# ------------------------------------------------------------------- migrations


@pytest.mark.parametrize("kind", STORES)
def test_the_migrations_make_the_tables(tmp_path: Path, kind: str) -> None:
    """No drift between the code and the migrations; a second upgrade changes nothing."""
    database = opened(tmp_path, kind)
    upgrade(database, kind)
    check(database, kind)
    before = schema(tmp_path)
    upgrade(database, kind)
    assert schema(tmp_path) == before
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE events"))
    with pytest.raises(CommandError):
        check(database, kind)
    database.close()


def opened(folder: Path, kind: str) -> Database:
    import importlib

    tables = importlib.import_module(STORES[kind]).TABLES
    return Database(f"sqlite:///{folder / 'x.db'}", tables.metadata)


def schema(folder: Path) -> list[Any]:
    with sqlite3.connect(folder / "x.db") as connection:
        found = connection.execute("SELECT name, sql FROM sqlite_master ORDER BY name").fetchall()
        found += connection.execute("SELECT * FROM alembic_version").fetchall()
    connection.close()
    return found


@pytest.mark.parametrize("revision", ["rcp_9999", "oem_0001"])
def test_a_schema_of_a_newer_version_or_another_party(tmp_path: Path, revision: str) -> None:
    database = opened(tmp_path, "rcp")
    upgrade(database, "rcp")
    with database.engine.begin() as connection:
        connection.execute(text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    before = schema(tmp_path)
    with pytest.raises(SchemaError, match=f"{revision}.*newer version or by another kind"):
        upgrade(database, "rcp")
    assert schema(tmp_path) == before
    database.close()


# ------------------------------------------------------------------------- keys


def test_keys_are_sealed_at_rest(store: Store, tmp_path: Path) -> None:
    """Neither PKCS#8 nor the scalar lies in the database, its journal or the secret's file."""
    secret_file = tmp_path / "pool.secret"
    secret = sealing_secret(secret_file)
    assert stat.S_IMODE(os.stat(secret_file).st_mode) == 0o600
    assert sealing_secret(secret_file) == secret
    assert len(secret) == 32
    keys = KeyStore(store.database, TABLES.key_row, secret)
    generated = [SoftwareKey.generate(ISO2) for _ in range(5)]

    async def keep() -> None:
        for number, key in enumerate(generated):
            await store.database.write(
                lambda session, n=number, k=key: keys.put(session, f"key/{n}", k)
            )

    asyncio.run(keep())
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert any(b"key/4" in content for content in files)
    for key in generated:
        loaded = serialization.load_der_private_key(key.pkcs8(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        scalar = loaded.private_numbers().private_value.to_bytes(32, "big")
        for form in (key.pkcs8(), scalar, scalar[::-1], scalar.hex().encode(), secret[:16]):
            assert not any(form in content for content in files if content != secret)


def test_keys_open_only_under_their_secret_and_name(store: Store) -> None:
    secret = os.urandom(32)
    keys = KeyStore(store.database, TABLES.key_row, secret)

    async def work() -> None:
        one = await keys.generate("one", ISO2)
        two = await keys.generate("two", ISO2)
        fresh = KeyStore(store.database, TABLES.key_row, secret)
        assert (await fresh.get("one")).public_key == one.public_key
        assert (await fresh.get_or_generate("one", ISO2)).public_key == one.public_key
        with pytest.raises(KeyError):
            await fresh.get("three")
        stranger = KeyStore(store.database, TABLES.key_row, os.urandom(32))
        with pytest.raises(SealingError, match="'one' was sealed under another secret"):
            await stranger.get("one")

        def swap(session: Session) -> None:
            first, second = (session.get_one(TABLES.key_row, name) for name in ("one", "two"))
            first.sealed, second.sealed = second.sealed, first.sealed

        await store.database.write(swap)
        for name in ("one", "two"):
            with pytest.raises(SealingError, match=name):
                await KeyStore(store.database, TABLES.key_row, secret).get(name)
        # A key that is put again is the new one, also for who had the old one open.
        new = SoftwareKey.generate(ISO2)
        await store.database.write(lambda session: keys.put(session, "two", new))
        assert (await keys.get("two")).public_key == new.public_key != two.public_key

    asyncio.run(work())


def test_a_secret_of_another_length(tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(b"short")
    with pytest.raises(SealingError, match="this file has 5"):
        sealing_secret(tmp_path / "s")


def test_one_secret_for_all_who_start_at_once(tmp_path: Path) -> None:
    found: list[bytes] = []
    ready = threading.Barrier(8)

    def start() -> None:
        ready.wait()
        found.append(sealing_secret(tmp_path / "s"))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


# ----------------------------------------------------------------------- tokens


CLIENTS = [Client("ada", "s3cret", "mo", "DESUN"), Client("bob", "other", "admin")]


def test_tokens_by_the_ecosystems_clock() -> None:
    """Issued at one ecosystem time, they expire a day later by that time, not by the machine's."""
    secret = os.urandom(32)
    then = Clock(timedelta(days=3650))
    issuer = TokenIssuer("here", secret, CLIENTS, then)
    token = issuer.issue(issuer.client("ada", "s3cret")).access_token
    caller = TokenIssuer("here", secret, CLIENTS, then).check(token)
    assert (caller.client, caller.role, caller.scope_id) == ("ada", "mo", "DESUN")
    late = Clock(timedelta(days=3651, seconds=1))
    for clock, code in ((late, "expired_token"), (Clock(), "")):
        issuer = TokenIssuer("here", secret, CLIENTS, clock)
        if not code:
            assert issuer.check(token) == caller
            continue
        with pytest.raises(Refusal) as refusal:
            issuer.check(token)
        assert (refusal.value.status, refusal.value.code) == (401, code)


def test_tokens_are_for_one_party_and_one_secret() -> None:
    secret = os.urandom(32)
    issuer = TokenIssuer("here", secret, CLIENTS, Clock())
    token = issuer.issue(issuer.client("bob", "other")).access_token
    for audience, key in (("there", secret), ("here", os.urandom(32))):
        with pytest.raises(Refusal) as refusal:
            TokenIssuer(audience, key, CLIENTS, Clock()).check(token)
        assert (refusal.value.status, refusal.value.code) == (401, "invalid_token")
    for client, password in (("bob", "s3cret"), ("eve", "other"), ("", ""), ("bob", "\ud800")):
        with pytest.raises(Refusal) as refusal:
            issuer.client(client, password)
        assert refusal.value.code == "invalid_client"


# ----------------------------------------------------------------------- events


def test_secrets_are_blanked_out_wherever_they_are() -> None:
    told = redacted(
        {
            "Client_Secret": "x",
            "list": [{"access_token": "x", "name": "y"}],
            "deep": {"private_key": {"d": "x"}},
            "Authorization": None,
        }
    )
    assert "x" not in json.dumps(told)
    assert told["list"][0]["name"] == "y"


def test_whatever_was_sent_can_be_told() -> None:
    """What comes out is JSON that everybody reads: no NaN, no lone surrogate, not too deep."""
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    told = redacted({"a": float("nan"), "b": "\ud800", "\udfff": 1e400, "deep": deep, "n": 10**40})
    assert json.loads(json.dumps(told, allow_nan=False, ensure_ascii=False).encode()) == told


def test_json_that_is_too_long_to_keep_is_not_cut() -> None:
    """Cut JSON could not be redacted; bytes that are none are kept as far as they go."""
    long = json.dumps({"client_secret": "hush", "fill": "x" * MAX_PAYLOAD}).encode()
    value, raw = readable(long)
    assert raw is None
    assert "hush" not in value
    assert str(len(long)) in value
    assert readable(b"\xff" * 10) == (None, b"\xff" * 10)
    assert readable(b"[" * 10_000)[0] is None
    assert readable(b"") == readable(None) == (None, None)
    with unit_of_work():
        kept = Recorder("a", Clock()).record(event("x", request=bytes(MAX_PAYLOAD + 1)))
    assert kept.request is not None
    assert len(kept.request) == MAX_PAYLOAD


def test_events_go_out_and_come_back() -> None:
    with unit_of_work("r"):
        one = Recorder("a", Clock()).record(event("x", request=b"\x00", data={"a": [1]}))
    assert Event.from_dict(json.loads(json.dumps(one.as_dict()))) == one
    many = [new_id() for _ in range(1000)]
    assert sorted(many) == many
    assert len(set(many)) == 1000


def test_no_secret_in_any_event_of_a_whole_life(world: World) -> None:
    """After a car's life and everything else that the tests have sent: neither client secrets,
    tokens, sealing secrets nor private keys are in what any party has told."""
    car = world.car()
    contract = world.contract(car["pcid"])
    assert world.charge(car["pcid"])["outcome"] == "charged"
    world.ok("sunmile", "POST", f"/contracts/{contract['emaid']}/revoke", {})
    assert world.charge(car["pcid"])["outcome"] == "refused"
    secrets: dict[str, bytes] = {}
    for name in world.ecosystem.parties:
        party = world.party(name)
        secrets[f"secret file of {name}"] = party.config.secret_file.read_bytes()
        row = party.keys._row
        keys = world.run(
            party.database.read(
                lambda session, row=row: list(session.scalars(select(row.reference)))
            )
        )
        for reference in keys:
            pkcs8 = world.run(party.keys.get(reference))._key.pkcs8()
            numbers = serialization.load_der_private_key(pkcs8, None).private_numbers()  # type: ignore[union-attr]
            secrets[f"{name}: {reference}"] = numbers.private_value.to_bytes(32, "big")  # type: ignore[union-attr]
    for client in world.ecosystem.all_clients():
        secrets[f"client secret of {client.id}"] = client.secret.encode()
    for (party_name, client_name), token in world._tokens.items():
        secrets[f"token of {client_name} for {party_name}"] = token.encode()
    for name in world.ecosystem.parties:
        for one in world.party(name)._clients.values():
            if one._token:
                secrets[f"token of {name} for {one.target.name}"] = one._token.encode()
    assert len(secrets) > 40
    assert sum("car/" in name for name in secrets) >= 2
    told = 0
    for name in world.ecosystem.parties:
        connection = sqlite3.connect(f"file:{world.database(name)}?mode=ro", uri=True)
        for row in connection.execute("SELECT * FROM events"):
            told += 1
            whole = b"\x00".join(
                value if isinstance(value, bytes) else str(value).encode() for value in row
            )
            for what, secret in secrets.items():
                assert secret not in whole, f"{what} is told by {name}"
                assert secret.hex().encode() not in whole, f"{what} is told by {name}"
        connection.close()
    assert told > 50


# ------------------------------------------------------------------------ money


def test_money_is_rounded_once_and_halves_go_up() -> None:
    assert [cents(Decimal(text)) for text in ("0.005", "0.0049", "-0.005", "1.015")] == [
        1,
        0,
        -1,
        102,
    ]
    assert [decimal(amount) for amount in (0, 5, 1234, -5, -123456)] == [
        "0.00",
        "0.05",
        "12.34",
        "-0.05",
        "-1234.56",
    ]
    tariff = Tariff("t", "EUR", Decimal("0.49"), Decimal("0.35"))
    assert price(tariff, 0) == 35
    assert price(tariff, 8000) == 427
    # 0.354 + 0.494 = 0.848; rounding each part would make 0.84.
    assert price(Tariff("t", "EUR", Decimal("0.494"), Decimal("0.354")), 1000) == 85
    assert price(tariff, 10**12) == 49_000_000_000 + 35
    assert with_markup(427, Decimal(8)) == 461
    assert with_markup(0, Decimal(8)) == 0
    assert with_markup(50, Decimal(1)) == 51  # 50.5: half a cent goes up


@pytest.mark.parametrize("energy", [0, 1, 999, 1000, 123_456, 10**12])
@pytest.mark.parametrize("per_kwh", ["0", "0.000001", "0.49", "9999.999999"])
def test_cents_are_the_nearest(energy: int, per_kwh: str) -> None:
    tariff = Tariff("t", "EUR", Decimal(per_kwh), Decimal("0.35"))
    exact = Decimal("0.35") + Decimal(per_kwh) * energy / 1000
    assert abs(Decimal(price(tariff, energy)) / 100 - exact) <= Decimal("0.005")


def test_a_ledger_entry_must_balance() -> None:
    with pytest.raises(ValueError, match="does not balance"):
        mo_store.post(Session(), "x", NOW, "EUR", {"a": 1, "b": -2}, "")


# ------------------------------------------------------------- fields and answers


FIELDS: list[tuple[Any, Any, bool]] = [
    (fields.Name, "x" * 64, True),
    (fields.Name, "x" * 65, False),
    (fields.Name, "", False),
    (fields.Name, "\ud800", False),
    (fields.Wh, 10**12, True),
    (fields.Wh, 10**12 + 1, False),
    (fields.Wh, -1, False),
    (fields.Price, "0.123456", True),
    (fields.Price, "0.1234567", False),
    (fields.Price, "NaN", False),
    (fields.Currency, "EUR", True),
    (fields.Currency, "EUR\n", False),
    (fields.SessionId, "0" * 16, True),
    (fields.SessionId, "0" * 17, False),
    (fields.Instant, "2026-01-01T00:00:00+14:00", True),
    (fields.Instant, "2026-01-01T00:00:00", False),
    (fields.Instant, "9999-12-31T23:59:59-01:00", False),
    (fields.Instant, "0001-01-01T00:00:00+01:00", False),
]


@pytest.mark.parametrize(("field", "value", "good"), FIELDS)
def test_fields_and_their_bounds(field: Any, value: Any, good: bool) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(field)
    if good:
        adapter.validate_python(value)
    else:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)


def test_base64_with_white_space_and_without_content() -> None:
    assert unb64(" AA\nAA ", "x") == bytes(3)
    for text_, code in (
        ("?", "not_base64"),
        ("AAA", "not_base64"),
        ("", "empty"),
        ("é", "not_base64"),
    ):
        with pytest.raises(Refusal, match="x: ") as refusal:
            unb64(text_, "x")
        assert (refusal.value.status, refusal.value.code) == (400, code)


@pytest.mark.parametrize(
    ("shape", "content"),
    [
        (answers.Chain, b'{"chain": []}'),
        (answers.Chain, b'{"chain": ["AAAA"]}'),
        (answers.Chain, b'{"chain": [5]}'),
        (answers.Chain, b'{"chain": null}'),
        (answers.Chain, b"[]"),
        (answers.Chain, b""),
        (answers.Chain, b"\xff"),
        (answers.Installation, b'{"certificate_installation_res": "?"}'),
        (answers.ContractCheck, b'{"accepted": true, "iso15118_2": "MAYBE", "reason": ""}'),
        (answers.RecordState, b'{"status": "paid", "reason": ""}'),
        (answers.Session, b'{"id": "../../x"}'),
        (list[answers.Root], b'[{"type": "V2G"}]'),
    ],
)
def test_answers_of_another_shape(shape: Any, content: bytes) -> None:
    with pytest.raises(PartyRefused) as refused:
        answers.read(shape, "somebody", content)
    assert (refused.value.status, refused.value.code) == (502, "unexpected_answer")
    assert "somebody refused: " in refused.value.message


def test_whose_mistake_it_was() -> None:
    """What somebody behind us refused is the caller's 4xx; what went wrong there is a 502."""
    for status, wanted in ((400, 400), (404, 404), (409, 409), (422, 422), (401, 502), (403, 502)):
        assert PartyRefused("p", status, "c", "m", None).status == wanted
    for status in (500, 503, 302, 204):
        assert PartyRefused("p", status, "c", "m", None).status == 502
    assert PartyUnreachable("p", "u", "r").status == 502
    assert PartyUnreachable("p", "u", "r", slow=True).status == 504


def test_a_database_that_fails_is_a_503(world: World, no_traceback: list[str]) -> None:
    """A table that is gone: an answer with a code, and the party goes on."""
    party = world.party("root-pool")
    rename = "ALTER TABLE {} RENAME TO {}"

    async def change(statement: str) -> None:
        await party.database.write(lambda session: session.execute(text(statement)))

    world.run(change(rename.format("roots", "gone")))
    try:
        answer = world.call("root-pool", "GET", "/roots")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    finally:
        world.run(change(rename.format("gone", "roots")))
    assert world.ok("root-pool", "GET", "/roots")
    assert any("the database failed" in line for line in no_traceback)
    no_traceback.clear()


def test_what_a_job_told_before_it_failed_is_kept(world: World, no_traceback: list[str]) -> None:
    """And of what it takes up one by one: each in a unit of its own."""
    party = world.party("plugpark")

    def tell(name: str) -> None:
        party.recorder.record(Event("state", name, "plugpark", "plugpark"))

    async def fail(row: str) -> bool:
        tell(f"half way: {row}")
        raise RuntimeError("it broke")

    async def work() -> None:
        tell("half way: the job")
        await party.take_up(["one"], fail, str)

    async def run() -> list[Report]:
        ready = asyncio.Event()
        ready.set()
        return await Jobs(party, [work], ready).run()

    (report,) = world.run(run())
    assert [(one.what, one.why) for one in report.waits] == [("work", "it failed: it broke")]
    names = {one["name"] for one in world.ok("plugpark", "GET", "/events?kind=state")}
    assert {"half way: the job", "half way: one"} <= names
    assert no_traceback
    no_traceback.clear()


def test_what_was_only_looked_at_is_not_done(world: World) -> None:
    party = world.party("plugpark")

    async def work() -> None:
        """A round: every second one is due."""

        async def due(row: int) -> bool:
            return row % 2 == 0

        await party.take_up(range(4), due, str)

    async def run() -> list[Report]:
        ready = asyncio.Event()
        ready.set()
        return await Jobs(party, [work], ready).run()

    assert world.run(run())[0].done == ["0", "2"]


def test_the_log_is_heard(no_traceback: list[str]) -> None:
    """The net under all these tests has no hole: an error in the log is seen."""
    logging.getLogger("pnclab").error("heard")
    assert no_traceback == ["pnclab: heard"]
    no_traceback.clear()


def test_inserting_past_the_orm_is_still_one_transaction(store: Store) -> None:
    def two(session: Session) -> None:
        values = {c.name: getattr(root("1"), c.name) for c in RootRow.__table__.columns}
        session.execute(insert(RootRow), [values])
        session.execute(text("SELECT * FROM nothing"))

    with pytest.raises(DatabaseUnavailable):
        asyncio.run(store.database.write(two))
    assert store.marks() == set()
