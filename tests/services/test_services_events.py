"""Events: what they are about, what they keep to themselves, in which order they are told."""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import queue
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from services.common import events as events_module
from services.common.certificates import b64, fingerprint, load_der
from services.common.clock import Clock
from services.common.database import Database
from services.common.doors import events as door
from services.common.event_log import START, EventLog, Wanted
from services.common.events import (
    EVENT_KINDS,
    MAX_PAYLOAD,
    Event,
    Recorder,
    readable,
    redacted,
    unit_of_work,
)
from services.common.examples import CERTIFICATE, ROOT
from services.common.marks import MAX_MARK, MAX_MARKS, MarkError, mark, marks_of, parse_mark
from services.common.migrations import upgrade
from services.rcp.store import TABLES

if TYPE_CHECKING:
    from conftest import World

PROVISIONING = fingerprint(load_der(base64.b64decode(CERTIFICATE)))


def stamped(**values: Any) -> Event:
    base = {"kind": "state", "name": "x", "sender": "a", "receiver": "b"}
    return Recorder("pool", Clock()).stamped(Event(**{**base, **values}))


# ------------------------------------------------------------------------------- marks


WIRES = [
    ("emaid", "DE-SUN-C12345678-5", "emaid:DESUNC12345678"),
    ("emaid", "desunc12345678", "emaid:DESUNC12345678"),
    ("pcid", "wnv0pnclab0000000001"[:18], "pcid:WNV0PNCLAB00000000"),
    ("session", "7AC30EA7926F5B37", "session:7ac30ea7926f5b37"),
    ("certificate", ":".join(["9B"] * 32), "certificate:" + "9b" * 32),
    ("charger", "DE*PLG*E0001*1", "charger:DEPLGE00011"),
    ("charger", "charger-1", "charger:charger-1"),
    ("evccid", "0242ac110002", "evccid:0242AC110002"),
]


@pytest.mark.parametrize(("kind", "wire", "wanted"), WIRES)
def test_two_spellings_are_one_mark(kind: str, wire: str, wanted: str) -> None:
    assert mark(kind, wire) == wanted
    assert parse_mark(f"{kind}:{wire}") == wanted


def test_marks_are_found_at_any_depth_by_the_names_of_fields() -> None:
    found = marks_of(
        {
            "request": {"contracts": [{"eMAID": {"value": "DESUNC12345678"}}], "note": "WNV1"},
            "url": "http://127.0.0.1:7103/provisioning-certificates/WNV0PNCLAB00000001?x=1",
            "verdict": {"path": [{"certificate": CERTIFICATE}, {"certificate": ROOT}]},
            "fault": {"id": "f1", "kind": "slow"},
            "session": "00" * 8,
        }
    )
    root = fingerprint(load_der(base64.b64decode(ROOT)))
    assert set(found) == {
        "emaid:DESUNC12345678",
        "pcid:WNV0PNCLAB00000001",
        f"certificate:{PROVISIONING}",
        "pcid:WNV00000000000001",  # whose provisioning certificate it is
        f"certificate:{root}",
        "fault:f1",
    }


HOSTILE = [
    {"emaid": [f"DESUNC{number:08d}" for number in range(10_000)]},
    {"pcid": "x" * 100_000, "emaid": "\0" * 14, "session": "\u202e", "charger": "a\nb"},
    {"certificate": "MII" + "A" * 1_000_000, "chain": ["=" * 200, "MI" * 100, CERTIFICATE[:-40]]},
    {"certificate": b"\x30\x82" + b"\xff" * 300, "url": "/vehicles/" * 5000},
    {"fault": {"id": {"id": {"id": "x"}}}, "driver": None, "cdr": 1e308, "": {"": ""}},
    [[[[[[[[[[{"emaid": "DESUNC12345678"}] * 50] * 50] * 50]]]]]]],
]


@pytest.mark.parametrize("told", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_values_have_bounded_marks(told: Any) -> None:
    begun = time.monotonic()
    found = marks_of(told)
    assert time.monotonic() - begun < 1.0
    assert len(found) <= MAX_MARKS
    for one in found:
        assert len(one) <= MAX_MARK
        assert one.isprintable()


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.text(max_size=40)
    | st.sampled_from([CERTIFICATE, "DESUNC12345678", "WNV0PNCLAB00000001", "00ff", "charger-1"]),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(
                ["emaid", "pcid", "chain", "certificate", "url", "fault", "session", "x"]
            )
            | st.text(max_size=10),
            inner,
            max_size=5,
        )
    ),
    max_leaves=25,
)


@settings(max_examples=150, deadline=None)
@given(_json)
def test_every_mark_is_its_own_normal_form(told: Any) -> None:
    found = marks_of(redacted(told))
    assert len(found) <= MAX_MARKS
    assert len(set(found)) == len(found)
    for one in found:
        assert parse_mark(one) == one


@pytest.mark.parametrize("text", ["", "emaid", "emaid:", "colour:red", "certificate:12", "x:" * 99])
def test_what_is_no_mark_is_refused_with_what_is_wanted(text: str) -> None:
    with pytest.raises(MarkError, match=r"wanted|kind"):
        parse_mark(text)


# --------------------------------------------------------------------------- redaction


_EC = ec.generate_private_key(ec.SECP256R1())
_RSA = rsa.generate_private_key(65537, 2048)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.c2lnbmF0dXJlLW9mLWl0"


def _private(key: Any, encoding: Encoding, form: PrivateFormat) -> bytes:
    return bytes(key.private_bytes(encoding, form, NoEncryption()))


_DER_KEYS = {
    "PKCS#8, EC": _private(_EC, Encoding.DER, PrivateFormat.PKCS8),
    "SEC 1": _private(_EC, Encoding.DER, PrivateFormat.TraditionalOpenSSL),
    "PKCS#8, RSA": _private(_RSA, Encoding.DER, PrivateFormat.PKCS8),
    "PKCS#1": _private(_RSA, Encoding.DER, PrivateFormat.TraditionalOpenSSL),
}
_PEM_KEYS = {
    "PEM, PKCS#8": _private(_EC, Encoding.PEM, PrivateFormat.PKCS8).decode(),
    "PEM, SEC 1": _private(_EC, Encoding.PEM, PrivateFormat.TraditionalOpenSSL).decode(),
}
# What gives a secret away by its look, and the part that must not be told.
TEXTS = {
    **{name: (pem, pem.splitlines()[1]) for name, pem in _PEM_KEYS.items()},
    "PEM without an end": (_PEM_KEYS["PEM, SEC 1"][:120], _PEM_KEYS["PEM, SEC 1"][40:110]),
    "PEM in one line": (
        json.dumps(_PEM_KEYS["PEM, SEC 1"]),
        _PEM_KEYS["PEM, SEC 1"].splitlines()[1],
    ),
    **{name: (b64(der), b64(der)[60:120]) for name, der in _DER_KEYS.items()},
    "a token": (f"the token {JWT} was not valid", JWT[40:]),
    "a header": (f"Authorization: Bearer {JWT}", JWT[10:30]),
    "an opaque bearer": ("bearer a1b2c3d4e5f6a7b8", "a1b2c3d4e5f6a7b8"),
    "a query": ("/token?client_id=x&client_secret=sunmile-test-secret&y=1", "sunmile-test"),
    "a form": ("grant_type=client_credentials&client_secret=s3cr3t-value", "s3cr3t-value"),
    "JSON in text": ('{"client_secret": "s3cr3t-value"}', "s3cr3t-value"),
}
FIELDS = [
    "token",
    "access_token",
    "accessToken",
    "Client-Secret",
    "client_secret",
    "password",
    "PassPhrase",
    "private_key",
    "privateKey",
    "authorization",
    "X-API-Key",
    "Set-Cookie",
    "refresh_token",
    "database_password",
    "mySecret",
]


def everything(event: Event) -> str:
    """All that is kept of an event, also what its bytes say."""
    raw = (event.request or b"") + (event.response or b"")
    return json.dumps(event.as_dict()) + raw.decode("latin-1")


@pytest.mark.parametrize("name", TEXTS)
def test_what_looks_like_a_secret_is_not_told(name: str) -> None:
    text, secret = TEXTS[name]
    assert secret in text
    event = stamped(
        name=text,
        sender=text,
        receiver=text,
        summary=text,
        data={"a": [{"b": text}], text: 1, "url": "/x?y=" + text},
        request=text.encode(),
        response=b"\x00\x01 " + text.encode() if not text.startswith("MI") else None,
        marks=(),
    )
    assert secret not in everything(event)


@pytest.mark.parametrize("name", _DER_KEYS)
def test_a_private_key_in_bytes_is_not_kept(name: str) -> None:
    event = stamped(request=_DER_KEYS[name], response=_DER_KEYS[name])
    assert event.request == event.response == b"(redacted)"


@pytest.mark.parametrize("field", FIELDS)
def test_what_is_named_like_a_secret_is_not_told(field: str) -> None:
    event = stamped(data={"request": [{field: "hunter2-ä", "id": "shown"}]})
    assert "hunter2" not in everything(event)
    assert event.data["request"][0]["id"] == "shown"


def test_the_private_members_of_a_web_key() -> None:
    told = redacted({"keys": [{"kty": "EC", "crv": "P-256", "x": "shown", "d": "hidden"}]})
    assert told["keys"][0] == {"kty": "EC", "crv": "P-256", "x": "shown", "d": "(redacted)"}


def test_what_is_no_secret_stays() -> None:
    sealed = _EC.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    ).decode()
    told = {
        "certificate": CERTIFICATE,
        "encrypted_private_key": b64(bytes(48)),
        "sealed": sealed,
        "token_type": "Bearer",
        "summary": "the bearer token is not valid; the secret of a good basic password",
        "emaid": "DESUNC12345678",
    }
    assert redacted(told) == told
    der = base64.b64decode(CERTIFICATE)
    assert stamped(request=der, response=sealed.encode()).request == der


@settings(max_examples=100, deadline=None)
@given(
    _json,
    st.sampled_from(FIELDS),
    st.text(alphabet="abcdefghijkmnpqrstuvwxyz23456789", min_size=12, max_size=40),
    st.integers(0, 4),
)
def test_secrets_are_found_wherever_they_are(
    other: Any, field: str, secret: str, depth: int
) -> None:
    told: Any = {field: secret, "other": other}
    for _ in range(depth):
        told = [other, {"x": told}]
    event = stamped(data={"request": told})
    assume(secret not in json.dumps(other))
    assert secret not in everything(event)
    assert not any(secret.lower() in one.lower() for one in event.marks)


@pytest.mark.parametrize(
    "part",
    ["eyJ", "eyJ.", "bearer ", "bearer\t", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "secret",
     "secret=", "token: ", "authorization: ", "MII", "M ", "\0", "client_secret\"", "passw"],
)  # fmt: skip
def test_looking_for_secrets_takes_time_in_proportion(part: str) -> None:
    text = part * (60_000 // len(part))
    begun = time.process_time()
    for hostile in (text, text + " " * 60_000, " " * 60_000 + text):
        redacted(hostile)
    assert time.process_time() - begun < 0.5


def test_a_secret_beyond_what_is_kept_is_not_cut_into_view() -> None:
    long = b"x=1&" * 20_000 + b"client_secret=s3cr3t"
    event = stamped(request=long)
    assert event.request == b"(redacted)"
    assert len(stamped(request=bytes(MAX_PAYLOAD * 2)).request or b"") == MAX_PAYLOAD
    assert readable(json.dumps({"a": "x" * MAX_PAYLOAD}).encode())[1] is None


def test_an_event_can_be_written_whatever_was_sent() -> None:
    event = stamped(
        name="\ud800\0",
        summary="\udfff\0",
        data={"\ud800": float("nan"), "deep": [[[]]], "\0": "\0"},
    )
    text = json.dumps(event.as_dict(), allow_nan=False)
    text.encode()
    assert "\0" not in event.name + event.summary + json.dumps(event.data, ensure_ascii=False)


def test_every_kind_that_is_told_is_known() -> None:
    services = Path(events_module.__file__).parents[1]
    kinds = set()
    for file in services.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Event":
                kinds |= {
                    one.value.value
                    for one in node.keywords
                    if one.arg == "kind" and isinstance(one.value, ast.Constant)
                }
    assert {"http", "cable", "issued", "verdict"} <= kinds <= set(EVENT_KINDS)


# ------------------------------------------------------------------- the order of writing


def opened(where: Path | str) -> Database:
    url = where if isinstance(where, str) else f"sqlite:///{where}"
    database = Database(url, TABLES.metadata, schema="pool")
    upgrade(database, "rcp")
    database.open()
    return database


async def tell(database: Database, *names: str, **more: Any) -> None:
    recorder = Recorder("pool", Clock())
    with unit_of_work():
        for name in names:
            recorder.record(Event(kind="state", name=name, sender="a", receiver="b", **more))
        await database.flush()


def test_events_come_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    database = opened(tmp_path / "x.db")
    # An identifier of long ago, written last: as a call that took long.
    asyncio.run(tell(database, "first", id="f" * 26))
    asyncio.run(tell(database, "second", id="0" * 26))
    found = asyncio.run(database.events())
    assert [event.name for event in found] == ["first", "second"]
    assert [event.name for event in asyncio.run(database.events(after="f" * 26))] == ["second"]
    back = asyncio.run(database.events(newest_first=True, limit=1))
    assert [event.name for event in back] == ["second"]
    older = asyncio.run(database.events(newest_first=True, after="0" * 26))
    assert [event.name for event in older] == ["first"]
    database.close()


def test_marks_go_with_the_event_and_not_without(tmp_path: Path) -> None:
    database = opened(tmp_path / "x.db")
    asyncio.run(tell(database, "told", data={"emaid": "DE-SUN-C12345678-5"}))

    async def undone() -> None:
        recorder = Recorder("pool", Clock())
        event = recorder.stamped(
            Event(kind="state", name="not", sender="a", receiver="b", data={"cdr": "X1"})
        )

        def change(session: Any) -> None:
            database.tell(session, event)
            raise ZeroDivisionError

        with unit_of_work(), pytest.raises(ZeroDivisionError):
            await database.write(change)

    asyncio.run(undone())
    with sqlite3.connect(tmp_path / "x.db") as connection:
        marks = connection.execute("SELECT mark FROM event_marks").fetchall()
    connection.close()
    assert marks == [("emaid:DESUNC12345678",)]
    found = asyncio.run(database.events(marks=("emaid:DESUNC12345678",)))
    assert [event.name for event in found] == ["told"]
    assert found[0].marks == ("emaid:DESUNC12345678",)
    assert asyncio.run(database.events(marks=("emaid:DESUNC12345678", "cdr:X1"))) == []
    database.close()


def follow(database: Database, seen: list[str], wanted: int) -> None:
    """Read on from the last event, as a stream does, until ``wanted`` were seen."""
    log, place = EventLog(TABLES.metadata), START
    until = time.monotonic() + 30

    async def portion() -> Any:
        def query(session: Any) -> Any:
            here = log.settled(session)
            if here <= place:
                return place, []
            found = log.select(session, Wanted(), after=place, until=here, limit=7)
            return (here if len(found) < 7 else log.place_of(session, found[-1].id)), found

        return await database.read(query)

    while len(seen) < wanted and time.monotonic() < until:
        place, found = asyncio.run(portion())
        seen += [event.name for event in found]


def test_who_reads_on_misses_none_of_several_writers(tmp_path: Path) -> None:
    """Two engines on one file, as two processes have them, and a reader in between."""
    must_not_miss(lambda: opened(tmp_path / "x.db"))


def test_who_reads_on_misses_none_on_postgresql(postgresql: str) -> None:
    must_not_miss(lambda: opened(postgresql))


def test_a_transaction_that_began_earlier_and_ends_later_is_not_passed_over(
    postgresql: str,
) -> None:
    """On PostgreSQL a number is given before the commit: events wait for the ones before."""
    database = opened(postgresql)
    log, recorder = database.log, Recorder("pool", Clock())
    early = recorder.stamped(Event(kind="state", name="early", sender="a", receiver="b"))
    with database.engine.connect() as connection, Session(connection) as slow:
        log.insert(slow, [early])
        asyncio.run(tell(database, "late"))

        def settled(session: Any) -> list[str]:
            here = log.settled(session)
            return [event.name for event in log.select(session, Wanted(), until=here)]

        assert asyncio.run(database.read(settled)) == []
        assert [event.name for event in asyncio.run(database.events())] == ["late"]
        slow.commit()
    assert asyncio.run(database.read(settled)) == ["early", "late"]
    database.close()


def must_not_miss(open_one: Any, writers: int = 3, each: int = 60) -> None:
    databases = [open_one() for _ in range(writers)]
    seen: list[str] = []
    reader = threading.Thread(target=follow, args=(databases[0], seen, writers * each))
    reader.start()

    def write(number: int) -> None:
        async def all_of_them() -> None:
            for turn in range(0, each, 2):
                names = [f"{number}-{turn}", f"{number}-{turn + 1}"]
                await tell(databases[number], *names)

        asyncio.run(all_of_them())

    threads = [threading.Thread(target=write, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in (*threads, reader):
        thread.join(60)
    for database in databases:
        database.close()
    wanted = {f"{number}-{turn}" for number in range(writers) for turn in range(each)}
    assert set(seen) == wanted
    assert len(seen) == len(wanted)
    for number in range(writers):
        mine = [int(name.partition("-")[2]) for name in seen if name.startswith(f"{number}-")]
        assert mine == sorted(mine)


# ------------------------------------------------------------------------------ the doors


@pytest.fixture(scope="module")
def visit(world: World) -> dict[str, Any]:
    """A car that has charged, in run ``visit-1``."""
    run = {"Pnclab-Run": "visit-1"}
    car = world.ok("garage", "POST", "/vehicles", {}, headers=run)
    driver = world.ok("sunmile", "POST", "/drivers", {"name": "A", "deposit": "9.00"}, headers=run)
    body = {"driver": driver["id"], "pcid": car["pcid"]}
    contract = world.ok("sunmile", "POST", "/contracts", body, headers=run)
    asked = {"charger": "charger-1", "energy_wh": 2000}
    path = f"/vehicles/{car['pcid']}/charge"
    outcome = world.ok("garage", "POST", path, asked, headers=run)
    assert outcome["outcome"] == "charged"
    return {"car": car, "contract": contract, "driver": driver["id"], "run": "visit-1"}


def asked(world: World, party: str, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.ok(party, "GET", f"/events?{query}")
    return found


def test_messages_of_a_session_are_about_its_contract(world: World, visit: Any) -> None:
    contract = visit["contract"]
    found = asked(world, "charger-1", f"certificate={contract['fingerprint']}&kind=cable")
    names = [event["name"] for event in found]
    assert names[:3] == ["CertificateInstallationReq", "PaymentDetailsReq", "AuthorizationReq"]
    assert "MeteringReceiptReq" in names
    assert names[-1] == "SessionStopReq"
    same = asked(world, "charger-1", f"emaid={contract['emaid'].lower()}&kind=cable")
    assert [event["id"] for event in same] == [event["id"] for event in found]
    session = found[0]["data"]["session"]
    assert {event["data"]["session"] for event in found} == {session}
    of_it = asked(world, "charger-1", f"session={session.upper()}&kind=cable&run=visit-1")
    assert of_it[0]["name"] == "SessionSetupReq"
    both = f"mark=session:{session}&mark=pcid:{visit['car']['pcid']}"
    assert [event["name"] for event in asked(world, "charger-1", both)] == [
        "CertificateInstallationReq"
    ]


def test_the_story_of_a_car_over_all_parties(world: World, visit: Any) -> None:
    pcid = visit["car"]["pcid"]
    for party in ("nova-cars", "provisioning-pool", "sunmile", "provisioning-service",
                  "contract-pool", "garage"):  # fmt: skip
        assert asked(world, party, f"pcid={pcid}"), party


def test_calls_are_correlated_by_their_cause(world: World, visit: Any) -> None:
    """From the driver's visit down to the operator's word: each under the call that caused it."""
    found = {}
    for party in world.ecosystem.parties:
        found.update(
            {event["id"]: event for event in asked(world, party, "run=visit-1&limit=1000")}
        )
    word = next(
        e for e in found.values() if e["party"] == "sunmile" and e["name"] == "authorization"
    )
    line = [word]
    while (cause := found.get(line[-1]["cause"])) is not None:
        line.append(cause)
    assert [(event["party"], event["name"]) for event in line] == [
        ("sunmile", "authorization"),
        ("plugpark", "authorize"),
        ("charger-1", "authorize"),
        ("garage", "plug in"),
    ]
    began = {i: e["real"] - (e["milliseconds"] or 0) / 1000 for i, e in found.items()}
    caused = [event for event in found.values() if event["cause"] in found]
    assert len(caused) > 30
    for event in caused:
        assert began[event["id"]] >= began[event["cause"]] - 0.005


WRONG = {
    "kind=colour": "kind",
    "outcome=good": "outcome",
    "run=": "run",
    "name=" + "x" * 129: "name",
    "sender=%00": "sender",
    "receiver=%0A": "receiver",
    "mark=emaid": "mark",
    "mark=colour:red": "mark",
    "mark=emaid:DESUNC12345678&mark=session:zz": "mark",
    "&".join(["mark=cdr:x"] * 17): "mark",
    "certificate=12": "certificate",
    "certificate=" + CERTIFICATE[:64]: "certificate",
    "emaid=x": "emaid",
    "pcid=" + "x" * 65: "pcid",
    "session=12345678901234567": "session",
    "since=yesterday": "since",
    "until=2027-13-01": "until",
    "since=0001-01-01T00:00:00%2B23:59": "since",
    "real_since=-1": "real_since",
    "real_until=1e9": "real_until",
    "after=nobody": "after",
    "emiad=DESUNC12345678": "emiad",
    "limit=0": "limit",
    "limit=1001": "limit",
    "limit=1e400": "limit",
    "after=" + "0" * 41: "after",
    "newest_first=perhaps": "newest_first",
}


@pytest.mark.parametrize("query", WRONG)
@pytest.mark.parametrize("path", ["/events", "/events/stream"])
def test_a_wrong_filter_is_refused_by_its_name(world: World, path: str, query: str) -> None:
    answer = world.call(
        "charger-1", "GET", f"{path}?{query}&seconds=1" if "stream" in path else f"{path}?{query}"
    )
    if "stream" in path and WRONG[query] in ("limit", "newest_first"):
        query = "wrong there"
    assert answer.status_code == 422, answer.text
    if query != "wrong there":
        assert WRONG[query] in answer.json()["message"]


def test_times_bound_what_is_found(world: World, visit: Any) -> None:
    found = asked(world, "sunmile", "run=visit-1&limit=1000")
    middle = found[len(found) // 2]
    for field, value in (
        ("", middle["at"]),
        ("real_", datetime.fromtimestamp(middle["real"], UTC).isoformat()),
    ):
        text = value.replace("+00:00", "Z")
        later = asked(world, "sunmile", f"run=visit-1&{field}since={text}&limit=1000")
        earlier = asked(world, "sunmile", f"run=visit-1&{field}until={text}&limit=1000")
        assert len(later) + len(earlier) == len(found)
        if not field:  # a float does not come back to the microsecond
            assert middle["id"] in {event["id"] for event in later}
        # A "+" that nobody wrote as %2B.
        plus = f"run=visit-1&{field}since={value}&limit=1000"
        assert len(asked(world, "sunmile", plus)) == len(later)


def test_pages_cover_everything_once_in_both_directions(world: World, visit: Any) -> None:
    whole = [event["id"] for event in asked(world, "sunmile", "limit=1000")]
    for order in ("", "&newest_first=true"):
        pages: list[str] = []
        while True:
            after = f"&after={pages[-1]}" if pages else ""
            page = asked(world, "sunmile", f"limit=7{after}{order}")
            pages += [event["id"] for event in page]
            if len(page) < 7:
                break
        assert sorted(pages) == sorted(whole)
        assert pages == (whole[::-1] if order else whole)


@pytest.mark.parametrize("path", ["/events", "/events/stream?seconds=1"])
def test_events_are_for_the_party_itself_and_admins(world: World, path: str) -> None:
    assert world.call("sunmile", "GET", path, client=None).status_code == 401
    other = world.call("sunmile", "GET", path, client="plugpark")
    assert (other.status_code, other.json()["code"]) == (403, "not_yours")
    assert world.call("sunmile", "GET", path, client="sunmile").status_code == 200


def test_no_event_of_a_visit_tells_a_secret(world: World, visit: Any) -> None:
    secrets = [f"{name}-test-secret" for name in (*world.ecosystem.parties, "admin")]
    # How a JWT begins; less of it stands in any base64 now and then.
    secrets += ["eyJhbGciOi", "eyJ0eXAiOi", "PRIVATE KEY", *world._tokens.values()]
    looked = 0
    for name in world.ecosystem.parties:
        for event in asked(world, name, "limit=1000"):
            looked += 1
            text = everything(Event.from_dict(event))
            assert not [secret for secret in secrets if secret in text], event
    assert looked > 100


def test_a_query_string_is_not_kept(world: World) -> None:
    answer = world.call("sunmile", "GET", "/contracts?access_token=abc123def456&limit=hunter2")
    assert answer.status_code in (200, 422)
    for event in asked(world, "sunmile", "newest_first=true&limit=20"):
        assert "hunter2" not in json.dumps(event)
        assert "abc123" not in json.dumps(event)


# ----------------------------------------------------------------------------- the stream


class Stream:
    """An open stream of server-sent events, read in a thread."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.blocks: queue.Queue[dict[str, str] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        block: dict[str, str] = {}
        try:
            for line in self.response.iter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    block[name] = value
                else:
                    self.blocks.put(block)
                    block = {}
        except httpx.HTTPError:
            pass
        self.blocks.put(None)

    def block(self, within: float = 10.0) -> dict[str, str] | None:
        return self.blocks.get(timeout=within)

    def event(self, within: float = 10.0) -> dict[str, Any] | None:
        while (block := self.block(within)) is not None:
            if "data" in block:
                event: dict[str, Any] = json.loads(block["data"])
                assert block["id"] == event["id"]
                assert block["event"] == event["kind"]
                return event
        return None

    def begun(self) -> str:
        """Wait until it follows; where it begins."""
        while (block := self.block()) is not None:
            if "id" in block and "data" not in block:
                return block["id"]
        raise AssertionError("the stream ended")


@contextmanager
def streaming(
    world: World, party: str, query: str = "", headers: dict[str, str] | None = None
) -> Iterator[Stream]:
    sent = {"Authorization": f"Bearer {world.token(party)}", **(headers or {})}
    url = f"{world.url(party)}/events/stream?{query}"
    with (
        httpx.Client(timeout=30, trust_env=False) as http,
        http.stream("GET", url, headers=sent) as response,
    ):
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield Stream(response)


def deposit(world: World, run: str) -> None:
    body = {"name": "Ada", "deposit": "5.00"}
    world.ok("sunmile", "POST", "/drivers", body, headers={"Pnclab-Run": run})


def test_a_stream_tells_what_happens_as_it_happens(world: World) -> None:
    with streaming(world, "sunmile", "kind=ledger&run=live-1") as stream:
        stream.begun()
        deposit(world, "live-0")
        begun = time.monotonic()
        deposit(world, "live-1")
        event = stream.event()
        assert event is not None
        assert event["run"] == "live-1"
        assert event["name"] == "deposit"
        assert time.monotonic() - begun < 3


def test_a_stream_goes_on_where_it_was(world: World) -> None:
    with streaming(world, "sunmile", "kind=ledger") as stream:
        place = stream.begun()
        deposit(world, "on-1")
        first = stream.event()
        assert first is not None
    for name in ("on-2", "on-3"):
        deposit(world, name)
    for identifier, wanted in ((first["id"], ["on-2", "on-3"]), (place, ["on-1", "on-2", "on-3"])):
        for query, headers in (("", {"Last-Event-ID": identifier}), (f"&after={identifier}", {})):
            with streaming(world, "sunmile", "kind=ledger&seconds=1" + query, headers) as stream:
                seen = []
                while (event := stream.event()) is not None:
                    seen.append(event["run"])
            assert [run for run in seen if run.startswith("on-")] == wanted


def test_a_stream_begins_with_the_last_that_happened(world: World) -> None:
    for name in ("last-1", "last-2", "last-3"):
        deposit(world, name)
    with streaming(world, "sunmile", "kind=ledger&last=2&seconds=0.5") as stream:
        seen = []
        while (event := stream.event()) is not None:
            seen.append(event["run"])
    assert seen == ["last-2", "last-3"]


def test_a_stream_also_tells_what_another_process_wrote(world: World) -> None:
    with streaming(world, "sunmile", "run=elsewhere") as stream:
        stream.begun()
        tables = world.party("sunmile").tables
        other = Database(world.ecosystem.party("sunmile").database, tables.metadata)
        other.open()

        async def elsewhere() -> None:
            with unit_of_work("elsewhere"):
                # Its clock goes a day behind: the identifier sorts before all others.
                early = f"{0:026x}"
                Recorder("sunmile", Clock()).record(
                    Event(kind="state", name="far", sender="a", receiver="b", id=early)
                )
                await other.flush()

        asyncio.run(elsewhere())
        other.close()
        event = stream.event()
        assert event is not None
        assert event["name"] == "far"


def test_a_silent_stream_says_that_it_lives(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "KEEP_ALIVE", 0.3)
    with streaming(world, "gridpass", "run=nothing") as stream:
        place = stream.begun()
        block = stream.block()
        assert block is not None
        assert "data" not in block
        assert block["id"] >= ""
        assert place is not None


@pytest.mark.parametrize("identifier", ["nobody", "0" * 41, "'; DROP TABLE events; --", "é"])
def test_a_wrong_last_event_id(world: World, identifier: str) -> None:
    answer = world.call(
        "sunmile",
        "GET",
        "/events/stream?seconds=1",
        headers={"Last-Event-ID": identifier.encode("latin-1").decode("latin-1")}
        if identifier.isascii()
        else {"Last-Event-ID": "%E9"},
    )
    assert answer.status_code == 422
    assert "last-event-id" in answer.json()["message"].lower()


def test_streams_are_bounded_and_given_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # Who has gone away is noticed when something is sent.
    monkeypatch.setattr(door, "KEEP_ALIVE", 0.3)
    party = world.party("terra-motors")
    party.streams = asyncio.Semaphore(1)
    with streaming(world, "terra-motors") as stream:
        stream.begun()
        refused = world.call("terra-motors", "GET", "/events/stream?seconds=1")
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
    until = time.monotonic() + 10
    while party.streams.locked() and time.monotonic() < until:
        time.sleep(0.1)
    assert world.call("terra-motors", "GET", "/events/stream?seconds=0.1").status_code == 200


def test_a_stream_ends_when_its_party_stops(tmp_path: Path, serve: Any) -> None:
    from services.ecosystem import load

    ecosystem = load(data=tmp_path).on_free_ports()
    ended: list[float] = []
    with serve(ecosystem, "root-pool") as world:

        def read() -> None:
            with streaming(world, "root-pool") as stream:
                stream.begun()
                ready.set()
                while stream.block(30) is not None:
                    pass
                ended.append(time.monotonic())

        ready = threading.Event()
        thread = threading.Thread(target=read)
        thread.start()
        assert ready.wait(10)
        stopping = time.monotonic()
    thread.join(10)
    assert ended
    assert ended[0] - stopping < 2.0
    assert time.monotonic() - stopping < 3.0, "it was not waited for"
