"""The ecosystem's clock: kept, moved while everything runs, seen by all; who renews what then."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from scenarios.cli import main
from services.common.certificates import read_certificate
from services.common.clock import (
    EARLIEST,
    FILE,
    LATEST,
    LONGEST,
    Clock,
    ClockError,
    DurationError,
    OutOfRangeError,
    Setting,
    duration,
    duration_text,
    instant,
)
from services.ecosystem import load, to_document

DAY = timedelta(days=1)
A_MOMENT = timedelta(seconds=30)

# --------------------------------------------------------------------------------- durations


@pytest.mark.parametrize(
    ("text", "days"),
    {
        "30d": 30,
        "2w": 14,
        "1y": 365,
        "12h": 0.5,
        "10m": 10 / 1440,
        "90s": 90 / 86400,
        "-3d": -3,
        "+3d": 3,
        "1.5d": 1.5,
        "1y2w3d12h": 365 + 14 + 3.5,
        "P30D": 30,
        "P1Y2M3W4DT12H": 365 + 60 + 21 + 4.5,
        "-PT36H": -1.5,
        "PT10M": 10 / 1440,
        "P2M": 60,
        " 1d ": 1,
        "0s": 0,
    }.items(),
)
def test_durations(text: str, days: float) -> None:
    assert duration(text) == timedelta(days=days)


@pytest.mark.parametrize(
    "text",
    [
        *("", "d", "1", "1x", "1 d", "d1", "--1d", "P", "PT", "P1", "1M", "1D", "P1DT", "P1H"),
        *("1d\n1d", "1d2", "nan", "inf", "1e3d", "١d", "9999999999d", "999999999y", "300y", "P-1D"),
    ],
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(DurationError):
        duration(text)


@given(st.timedeltas(min_value=-LONGEST, max_value=LONGEST))
def test_a_duration_is_read_back(length: timedelta) -> None:
    assert duration(duration_text(length)) == length


@given(st.text(max_size=40) | st.text("+-PT0123456789.ywdhmsYMWDHS", max_size=30))
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    with contextlib.suppress(DurationError):
        assert abs(duration(text)) <= LONGEST


# --------------------------------------------------------------------------------- the file


def test_what_is_set_is_kept(tmp_path: Path) -> None:
    clock = Clock.kept_in(tmp_path / "not yet there")
    assert abs(clock.now() - datetime.now(UTC)) < A_MOMENT
    assert not (tmp_path / "not yet there").exists()
    moved = clock.advance(duration("400d"))
    assert not moved.backwards
    again = Clock.kept_in(tmp_path / "not yet there")
    assert again.setting == clock.setting
    assert again.setting.offset == 400 * DAY
    assert again.show_real().backwards
    # The first one sees it without being told.
    before = clock.moves
    assert abs(clock.now() - datetime.now(UTC)) < A_MOMENT
    assert clock.moves == before + 1
    assert not list((tmp_path / "not yet there").glob(f"{FILE}.*"))


def test_reading_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "not yet there"
    ten = timedelta(days=10)
    assert Clock.read_in(folder, ten).offset == ten
    assert not folder.exists()
    Clock.kept_in(folder, ten).advance(DAY)
    before = (folder / FILE).read_bytes()
    assert Clock.read_in(folder, ten).offset == 11 * DAY
    assert Clock.read_in(folder).offset == 11 * DAY
    assert Clock.read_in(folder, DAY).offset == DAY, "what the next start would show"
    assert (folder / FILE).read_bytes() == before
    (folder / FILE).write_text("[]")
    with pytest.raises(ClockError):
        Clock.read_in(folder)


def test_a_clock_that_stands(tmp_path: Path) -> None:
    clock, other = Clock.kept_in(tmp_path), Clock.kept_in(tmp_path)
    when = instant("2031-05-06T07:08:09.5")
    assert clock.show(when, standing=True).standing
    assert clock.now() == other.now() == when
    clock.advance(DAY)
    assert clock.now() == other.now() == when + DAY, "it goes on standing"
    clock.advance(DAY, standing=False)
    first = other.now()
    assert when + 2 * DAY <= first < other.now() < when + 2 * DAY + A_MOMENT
    clock.advance(timedelta(), standing=True)
    assert other.now() == other.now()
    clock.show(when)
    assert other.setting.standing is None


def test_what_a_start_asks_for_is_set_once(tmp_path: Path) -> None:
    """A party that is started again does not put everybody's clock back."""
    ten, twenty = 10 * DAY, 20 * DAY
    clock = Clock.kept_in(tmp_path, ten)
    assert clock.setting.offset == ten
    clock.advance(DAY)
    assert Clock.kept_in(tmp_path, ten).setting.offset == ten + DAY
    assert Clock.kept_in(tmp_path).setting.offset == ten + DAY, "nothing asked for"
    assert Clock.kept_in(tmp_path, twenty).setting.offset == twenty
    assert clock.setting.offset == twenty


def test_the_years_of_a_clock(tmp_path: Path) -> None:
    clock = Clock.kept_in(tmp_path)
    for wanted in (EARLIEST, LATEST):
        clock.show(wanted)
        assert abs(clock.now() - wanted) < A_MOMENT
    before = clock.setting
    for by in (DAY, timedelta.max, timedelta.min):
        with pytest.raises(OutOfRangeError):
            clock.advance(by)
    for when in (EARLIEST - DAY, datetime.max.replace(tzinfo=UTC)):
        with pytest.raises(OutOfRangeError):
            clock.show(when)
    assert clock.setting == before
    for text in ("yesterday", "1969-12-31", "2200-01-02", "0001-01-01T00:00:00+23:59", "", "12:00"):
        with pytest.raises(ClockError):
            instant(text)


BROKEN = {
    "empty": b"",
    "no JSON": b"{",
    "half": b'{"offset": 31536000.0, "stan',
    "no object": b"[]",
    "NUL": b"\x00" * 64,
    "deep": b"[" * 4000,
    "an offset that is text": b'{"offset": "1d"}',
    "an offset that is true": b'{"offset": true}',
    "an offset without end": b'{"offset": 1e999}',
    "an offset out of range": b'{"offset": 1e10}',
    "no instant": b'{"offset": 0, "standing": "noon"}',
    "a standing number": b'{"offset": 0, "standing": 7}',
    "an instant out of range": b'{"offset": 0, "standing": "0001-01-01T00:00:00Z"}',
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file(tmp_path: Path, name: str, no_traceback: list[str]) -> None:
    """It stops a start; while a party runs, the last good value stays, and is told once."""
    clock = Clock.kept_in(tmp_path)
    clock.advance(400 * DAY)
    good = clock.setting
    (tmp_path / FILE).write_bytes(BROKEN[name])
    assert clock.setting == good
    assert clock.setting == good
    assert len(no_traceback) == 1
    assert FILE in no_traceback.pop()
    with pytest.raises(ClockError, match=FILE):
        Clock.kept_in(tmp_path)
    clock.advance(DAY)  # whoever moves it mends it
    assert Clock.kept_in(tmp_path).setting.offset == 401 * DAY


def test_a_file_that_goes_away(tmp_path: Path, no_traceback: list[str]) -> None:
    clock = Clock.kept_in(tmp_path)
    clock.advance(400 * DAY)
    (tmp_path / FILE).unlink()
    assert clock.setting.offset == 400 * DAY
    assert "gone" in no_traceback.pop()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    clock = Clock.kept_in(tmp_path / "data")
    with pytest.raises(ClockError, match="cannot be written"):
        clock.advance(DAY)
    assert abs(clock.now() - datetime.now(UTC)) < A_MOMENT


@given(
    offset=st.timedeltas(min_value=-LONGEST, max_value=LONGEST),
    standing=st.none() | st.timedeltas(timedelta(), LONGEST),
)
def test_a_setting_is_read_back(offset: timedelta, standing: timedelta | None) -> None:
    setting = Setting(offset, None if standing is None else EARLIEST + standing)
    found = Setting.decoded(setting.encoded())
    assert found.standing == setting.standing
    assert abs(found.offset - setting.offset) < timedelta(milliseconds=1)


def test_moves_at_once_are_not_lost(tmp_path: Path) -> None:
    """Eight threads and a process move the same clock; every move counts."""
    Clock.kept_in(tmp_path).advance(DAY)
    script = (
        "import sys; from pathlib import Path; from datetime import timedelta\n"
        "from services.common.clock import Clock\n"
        "for _ in range(10): Clock.kept_in(Path(sys.argv[1])).advance(timedelta(days=1))"
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)])

    def work() -> None:
        clock = Clock.kept_in(tmp_path)
        for _ in range(5):
            clock.advance(DAY)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert process.wait(60) == 0
    assert Clock.kept_in(tmp_path).setting.offset == (1 + 8 * 5 + 10) * DAY


def test_reading_is_cheap(tmp_path: Path) -> None:
    """now() is called for every event: a thousand of them take milliseconds."""
    clock = Clock.kept_in(tmp_path)
    clock.advance(DAY)
    began = os.times().user + os.times().system
    for _ in range(1000):
        clock.now()
    assert os.times().user + os.times().system - began < 0.2


# --------------------------------------------------------------------- a running ecosystem

# From those that others ask to those that ask.
ORDER = (
    "v2g-root",
    "rcp",
    "oem",
    "mo",
    "pcp",
    "cps",
    "ccp",
    "cpo",
    "charger",
    "vehicle",
    "platform",
)


def settle(world: Any) -> list[str]:
    """Run the jobs of all parties, those that others need first, until nothing is left to do."""
    world._tokens.clear()
    names = sorted(
        world.ecosystem.parties, key=lambda name: ORDER.index(world.ecosystem.party(name).kind)
    )
    done: list[str] = []
    for _ in range(6):
        now: list[str] = []
        for name in names:
            for job in world.ok(name, "POST", "/jobs/run")["jobs"]:
                now += [f"{name}: {what}" for what in job["done"]]
        if not now:
            return done
        done += now
    raise AssertionError(f"still at it: {now}")


def authorities(world: Any, party: str) -> dict[str, Any]:
    return {one["role"]: one for one in world.ok(party, "GET", "/authorities")}


@pytest.fixture(scope="module")
def moving(serve: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An ecosystem whose time is moved; the tests below are one history, in this order."""
    with serve(load(data=tmp_path_factory.mktemp("moving")).on_free_ports()) as world:
        pcid = world.car()["pcid"]
        world.history = {"pcid": pcid, "emaid": world.contract(pcid)["emaid"]}
        assert world.charge(pcid)["outcome"] == "charged"
        yield world


def test_who_may_ask_and_what_is_wrong(moving: Any) -> None:
    shown = moving.ok("contract-pool", "GET", "/clock", client="garage")
    assert (shown["standing"], shown["offset_seconds"]) == (False, 0)
    before = moving.ok("v2g-root", "GET", "/clock")["offset_seconds"]
    for body, code in (
        ({}, "wrong_shape"),
        ({"standing": True}, "wrong_shape"),
        ({"instant": "2030-01-01T00:00:00Z", "advance": "1d"}, "wrong_shape"),
        ({"real": False}, "wrong_shape"),
        ({"real": True, "advance": "1d"}, "wrong_shape"),
        ({"instant": "2030-01-01T00:00:00"}, "wrong_shape"),
        ({"advance": "1d", "speed": 2}, "wrong_shape"),
        ({"advance": "tomorrow"}, "not_a_duration"),
        ({"advance": "200y"}, "clock_out_of_range"),
        ({"instant": "1969-12-31T00:00:00Z"}, "clock_out_of_range"),
        ({"instant": "2200-01-02T00:00:00Z"}, "clock_out_of_range"),
    ):
        answer = moving.call("v2g-root", "PUT", "/clock", body)
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert moving.ok("v2g-root", "GET", "/clock")["offset_seconds"] == before == 0


def test_a_year_passes_in_one_step(moving: Any) -> None:
    """Signers, chargers and OCSP responders are renewed, what was signed is signed again, and
    the contract, which is good for two years, charges: at once, and from the pool."""
    pcid = moving.history["pcid"]
    charger = moving.ok("charger-1", "GET", "/status")["certificate"]
    moved = moving.ok("plugpark", "PUT", "/clock", {"advance": "1y"})
    assert moved["warnings"] == []
    assert moved["offset_seconds"] == 365 * 86400
    assert {job["job"] for job in moved["jobs"]} >= {"send-unsent", "ask-after-sessions"}
    settle(moving)  # or the parties' own jobs, which have noticed the clock too
    day = moved["now"][:10]

    def renewed(party: str, role: str) -> bool:
        issued = moving.ok(party, "GET", f"/certificates?role={role}")
        return any(one["valid_from"][:10] >= day for one in issued)

    for party in ("sunmile", "gridpass", "v2g-root", "nova-cars", "terra-motors"):
        assert renewed(party, "ocsp-signer"), party
    assert renewed("v2g-root", "cps")
    assert renewed("v2g-root", "secc")
    signed = moving.ok("provisioning-service", "GET", "/events?name=contract%20data%20signed")
    assert any(one["at"][:10] >= day for one in signed)
    assert moving.ok("charger-1", "GET", "/status")["certificate"] != charger
    outcome = moving.charge(pcid)
    assert outcome["outcome"] == "charged", outcome
    outcome = moving.charge(pcid, charger="charger-3", installation="always")
    assert (outcome["outcome"], outcome["installed"]) == ("charged", True), outcome
    told = moving.ok("plugpark", "GET", "/events?kind=state")
    event = next(one for one in told if one["name"] == "clock moved")
    assert event["data"]["after"].startswith(event["at"][:13])
    # Nothing is left to do.
    assert settle(moving) == []


def test_tokens_follow_the_clock(moving: Any) -> None:
    token = {"Authorization": f"Bearer {moving.token('root-pool')}"}
    moving.ok("root-pool", "PUT", "/clock", {"advance": "25h"})
    answer = moving.http.get(f"{moving.url('root-pool')}/clock", headers=token)
    assert (answer.status_code, answer.json()["code"]) == (401, "expired_token")


def test_backwards_is_allowed_warned_and_corrupts_nothing(moving: Any) -> None:
    """Back over the renewals: older certificates serve again, nothing is lost, and what was
    revoked stays so. Forth again, the newer ones do."""
    settle(moving)
    pcid, revoked = moving.history["pcid"], moving.contract(moving.car()["pcid"])
    moving.ok("sunmile", "POST", f"/contracts/{revoked['emaid']}/revoke", {})
    certificates = moving.ok("v2g-root", "GET", "/certificates")
    crl = moving.http.get(f"{moving.url('sunmile')}/crl/mo-sub2").content
    charger = moving.ok("charger-1", "GET", "/status")["certificate"]
    moved = moving.ok("v2g-root", "PUT", "/clock", {"advance": "-360d"})
    assert "backwards by 360d" in moved["warnings"][0]
    settle(moving)
    outcome = moving.charge(pcid)
    assert outcome["outcome"] == "charged", outcome
    assert moving.ok("charger-1", "GET", "/status")["certificate"] != charger
    known = {one["fingerprint"] for one in moving.ok("v2g-root", "GET", "/certificates")}
    assert {one["fingerprint"] for one in certificates} <= known

    # A later list has a larger number, whatever it says of the time.
    def number(der: bytes) -> int:
        found = x509.load_der_x509_crl(der)
        return found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

    later = moving.http.get(f"{moving.url('sunmile')}/crl/mo-sub2").content
    assert number(later) > number(crl)
    entries = list(x509.load_der_x509_crl(later))
    assert any(one.revocation_date_utc <= moving.party("sunmile").clock.now() for one in entries)
    assert len(entries) == len(list(x509.load_der_x509_crl(crl)))
    listed = moving.ok("sunmile", "GET", f"/contracts/{revoked['emaid']}")
    assert listed["status"] == "revoked"
    sessions = moving.ok("plugpark", "GET", "/sessions")
    assert {one["status"] for one in sessions} == {"settled"}
    moving.ok("v2g-root", "PUT", "/clock", {"advance": "360d"})
    settle(moving)
    assert moving.ok("charger-1", "GET", "/status")["certificate"] == charger
    assert moving.charge(pcid)["outcome"] == "charged"


def test_a_session_over_which_the_clock_goes_back(moving: Any) -> None:
    """It does not end before it began: the record is settled."""
    plugpark = moving.service("plugpark")
    before = len(moving.ok("plugpark", "GET", "/sessions"))
    real_start = plugpark.start

    async def start(*arguments: Any, **more: Any) -> Any:
        row = await real_start(*arguments, **more)
        moving.party("plugpark").clock.advance(-timedelta(minutes=30))
        return row

    plugpark.start = start
    try:
        assert moving.charge(moving.history["pcid"])["outcome"] == "charged"
    finally:
        plugpark.start = real_start
    moving.ok("plugpark", "POST", "/jobs/run")
    sessions = moving.ok("plugpark", "GET", "/sessions")
    assert len(sessions) == before + 1
    assert {one["status"] for one in sessions} == {"settled"}


def test_time_that_stands(moving: Any) -> None:
    """Everything that happens while the clock stands happens at one instant, and works."""
    when = moving.ok("v2g-root", "GET", "/clock")["now"]
    moving.ok("v2g-root", "PUT", "/clock", {"instant": when, "standing": True})
    pcid = moving.car()["pcid"]
    moving.contract(pcid)
    assert moving.charge(pcid)["outcome"] == "charged"
    for name in ("garage", "sunmile"):
        assert moving.ok(name, "GET", "/clock")["now"] == when
    began = [one for one in moving.ok("garage", "GET", "/events?limit=1000") if one["at"] == when]
    assert len(began) > 10
    assert len({one["real"] for one in began}) > 10, "elapsed time goes on"
    moved = moving.ok("v2g-root", "PUT", "/clock", {"advance": "0s", "standing": False})
    assert not moved["standing"]


def test_five_years_in_one_step(moving: Any, tmp_path: Path) -> None:
    """Sub-CAs of four and two years have ended, a mobility operator's have half their life left:
    all are renewed, from the top down, and a new car charges with a new contract."""
    before = authorities(moving, "v2g-root")
    hosted = authorities(moving, "gridpass")
    old_signer = moving.ok("provisioning-service", "GET", "/signer")["chain"]
    moving.ok("garage", "PUT", "/clock", {"advance": "5y"})
    done = settle(moving)
    after = authorities(moving, "v2g-root")
    now = moving.party("v2g-root").clock.now()
    assert after["v2g-root"] == before["v2g-root"], "a root is not renewed by itself"
    for role in ("cpo-sub1", "cpo-sub2", "cps-sub1", "cps-sub2"):
        assert after[role]["fingerprint"] != before[role]["fingerprint"], role
        assert after[role]["subject"].startswith(before[role]["subject"].split(",")[0] + " G")
        assert datetime.fromisoformat(after[role]["valid_to"]) - now > 700 * DAY
    # A sub-CA that another party issues is renewed by asking that one again.
    sub1 = authorities(moving, "gridpass")["mo-sub1"]
    assert sub1["fingerprint"] != hosted["mo-sub1"]["fingerprint"]
    assert sub1["issuer"] == after["v2g-root"]["subject"]
    order = [done.index(one) for one in done if "Sub-CA" in one and "OCSP" not in one]
    assert order == sorted(order)
    oem = hosted_car(moving)
    assert moving.charge(oem, charger="charger-3")["outcome"] == "charged"
    # What was issued before is still answered for, by a responder of its own.
    everything = moving.ok("v2g-root", "GET", "/authorities?all=true")
    old = next(one for one in everything if one["fingerprint"] == before["cps-sub2"]["fingerprint"])
    assert (old["issues"], old["number"], old["key"]) == (False, 1, "held")
    # openssl agrees that the new chain is good at this time, and not at another.
    chain = moving.ok("charger-1", "GET", "/status")["certificate"]
    files = []
    for name, texts in (("root", [after["v2g-root"]["certificate"]]), ("chain", chain)):
        path = tmp_path / f"{name}.pem"
        path.write_bytes(b"".join(pem(one) for one in texts))
        files.append(str(path))
    for at, good in ((now, True), (now - 400 * DAY, False)):
        done_by = subprocess.run(
            [
                *("openssl", "verify", "-attime", str(int(at.timestamp()))),
                *("-CAfile", files[0], "-untrusted", files[1], files[1]),
            ],
            capture_output=True,
            check=False,
        )
        assert (done_by.returncode == 0) is good, done_by
    assert old_signer != moving.ok("provisioning-service", "GET", "/signer")["chain"]
    assert settle(moving) == []


def hosted_car(world: Any) -> str:
    """A car with a contract of the operator whose sub-CAs hang under the V2G root."""
    pcid: str = world.car(oem="terra-motors")["pcid"]
    body = {"name": "Ben Driver", "deposit": "50.00"}
    driver = world.ok("gridpass", "POST", "/drivers", body)["id"]
    world.ok("gridpass", "POST", "/contracts", {"driver": driver, "pcid": pcid})
    return pcid


def pem(text: str) -> bytes:
    return read_certificate(text, "certificate").public_bytes(Encoding.PEM)


def test_before_everything_began(moving: Any) -> None:
    """Nothing is valid then; everybody says so, nobody breaks, and it passes."""
    pcid, back = moving.history["pcid"], moving.ok("v2g-root", "GET", "/clock")
    moving.ok("v2g-root", "PUT", "/clock", {"instant": "2001-01-01T00:00:00Z"})
    moving._tokens.clear()
    waits = [
        one["why"]
        for name in ("v2g-root", "gridpass", "provisioning-service", "charger-1")
        for job in moving.ok(name, "POST", "/jobs/run")["jobs"]
        for one in job["waits"]
    ]
    assert any("within its issuer's" in why for why in waits), waits
    assert moving.charge(pcid)["outcome"] == "refused"
    answer = moving.call("garage", "POST", "/vehicles", {})
    assert answer.status_code == 422, answer.text
    moving.ok("v2g-root", "PUT", "/clock", {"instant": back["now"]})
    settle(moving)
    pcid = moving.car()["pcid"]
    moving.contract(pcid)
    assert moving.charge(pcid)["outcome"] == "charged"


def test_other_processes_see_it(serve: Any, tmp_path: Path) -> None:
    """Two processes on one data folder: who asks the one sees what was set at the other, and the
    other's jobs hear of it."""
    ecosystem = load(data=tmp_path / "data").on_free_ports()
    file = tmp_path / "ecosystem.toml"
    file.write_text(to_document(ecosystem))
    with serve(ecosystem, "root-pool") as world:
        command = ["-m", "scenarios.cli", "serve", "v2g-root", "--ecosystem", str(file)]
        process = subprocess.Popen([sys.executable, *command], stderr=subprocess.DEVNULL)
        try:
            wait_for(world, "v2g-root")
            signers = len(world.ok("v2g-root", "GET", "/certificates?role=ocsp-signer"))
            world.ok("root-pool", "PUT", "/clock", {"advance": "80d"})
            shown = world.call("v2g-root", "GET", "/clock")
            assert shown.json()["code"] == "expired_token"
            world._tokens.clear()
            assert world.ok("v2g-root", "GET", "/clock")["offset_seconds"] == 80 * 86400
            # Nobody asks: its jobs notice by themselves.
            until = datetime.now(UTC) + timedelta(seconds=10)
            while datetime.now(UTC) < until:
                found = world.ok("v2g-root", "GET", "/certificates?role=ocsp-signer")
                if len(found) == 2 * signers:
                    break
                threading.Event().wait(0.2)
            assert len(found) == 2 * signers == 8
            world.ok("v2g-root", "PUT", "/clock", {"real": True})
            world._tokens.clear()
            assert world.ok("root-pool", "GET", "/clock")["offset_seconds"] == 0
        finally:
            process.terminate()
            process.wait(20)
    assert json.loads((tmp_path / "data" / FILE).read_text())["offset"] == 0


def wait_for(world: Any, name: str) -> None:
    until = datetime.now(UTC) + timedelta(seconds=60)
    while datetime.now(UTC) < until:
        try:
            if world.http.get(f"{world.url(name)}/healthz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        threading.Event().wait(0.2)
    raise AssertionError(f"{name} did not start")


# ------------------------------------------------------------------------- the command


@dataclass(frozen=True)
class Said:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def pnclab(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Said]:
    """The command line, in this process: a start of its own takes seconds."""

    def run(file: Path, *arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["pnclab", *arguments, "--ecosystem", str(file)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code
        return Said(code if isinstance(code, int) else 0, said.out, said.err)

    return run


def test_the_command_where_nothing_runs(tmp_path: Path, pnclab: Any) -> None:
    """It says so, and sets the clock for the next start."""
    ecosystem = load(data=tmp_path / "data").on_free_ports()
    file = tmp_path / "ecosystem.toml"
    file.write_text(to_document(ecosystem))
    said = pnclab(file, "clock", "advance", "400d")
    assert (said.returncode, said.stderr) == (0, "")
    assert "Nothing runs" in said.stdout
    found = json.loads(pnclab(file, "clock", "show", "--json").stdout)
    assert (found["running"], found["offset_seconds"]) == (False, 400 * 86400)
    assert found["down"] == list(ecosystem.parties)
    found = json.loads(pnclab(file, "clock", "advance", "-3d", "--standing", "--json").stdout)
    assert found["standing"]
    assert Clock.kept_in(tmp_path / "data").setting.standing == instant(found["now"])
    for arguments, wanted in (
        (("set", "yesterday"), "INSTANT"),
        (("set", "2300-01-01"), "1970 to 2200"),
        (("advance", "soon"), "DURATION"),
        (("advance", "199y"), "nothing has moved"),
        (("show", "--party", "nobody"), "nobody"),
    ):
        said = pnclab(file, "clock", *arguments)
        assert (said.returncode, said.stdout) == (2, ""), said
        assert wanted in said.stderr
        assert "Traceback" not in said.stderr
    (tmp_path / "data" / FILE).write_text("{")
    said = pnclab(file, "up")
    assert (said.returncode, said.stdout) == (1, "")
    assert FILE in said.stderr
    assert "Traceback" not in said.stderr


def test_the_command_on_what_runs(serve: Any, tmp_path: Path, pnclab: Any) -> None:
    """Everybody who runs has the time and has renewed what is due; who does not run is named."""
    ecosystem = load(data=tmp_path / "data").on_free_ports()
    file = tmp_path / "ecosystem.toml"
    file.write_text(to_document(ecosystem))
    with serve(ecosystem, "root-pool", "v2g-root") as world:
        for days in (80, 160):
            said = pnclab(file, "clock", "advance", "80d", "--json")
            assert (said.returncode, said.stderr) == (0, "")
            found = json.loads(said.stdout)
            assert (found["running"], found["finished"], found["waits"]) == (True, True, [])
            assert found["offset_seconds"] == days * 86400
            assert {one["party"] for one in found["done"]} == {"v2g-root"}
            assert len(found["done"]) == 4
            assert set(found["down"]) == set(ecosystem.parties) - {"root-pool", "v2g-root"}
        said = pnclab(file, "clock", "set", "real")
        assert "backwards" in said.stderr
        assert "real time" in said.stdout
        said = pnclab(file, "pki", "rollover", "v2g-root", "cps-sub1", "--cascade", "--json")
        made = json.loads(said.stdout)["authorities"]
        assert [one["role"] for one in made] == ["cps-sub1", "cps-sub2"]
        assert pnclab(file, "pki", "lose-key", "v2g-root", "v2g-root").returncode == 0
        said = pnclab(file, "pki", "rollover", "v2g-root", "cps-sub1")
        assert (said.returncode, "key_lost" in said.stderr) == (1, True), said
        world._tokens.clear()
        assert world.ok("root-pool", "GET", "/clock")["offset_seconds"] == 0
