"""``pnclab events`` and its assertions, on a running ecosystem, on one in many processes, on
what is left when nothing runs."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

sys.path.insert(0, str(Path(__file__).parents[1]))


from pki.edition import ISO2
from pki.keys import SoftwareKey
from scenarios.assertions import Evidence, UnmetExpectation, eventually, expect
from scenarios.lab import Lab
from scenarios.processes import running_in_processes
from scenarios.streams import in_order
from services.common.events import Event
from services.common.problems import WrongUseError
from services.ecosystem import Ecosystem, load, to_document
from services.serve import running
from v2g import exi
from v2g.messages import iso2
from v2g.signature import sign

PNCLAB = (sys.executable, "-I", "-c", "from scenarios.cli import main; main()")


def pnclab(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*PNCLAB, "events", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


async def play(ecosystem: Ecosystem, run: str) -> dict[str, Any]:
    """A car gets a contract and charges; what there is to know of it."""
    async with Lab(ecosystem, run) as lab:
        car = await lab.call("garage", "POST", "/vehicles", {})
        driver = await lab.call("sunmile", "POST", "/drivers", {"name": "A", "deposit": "20.00"})
        order = {"driver": driver["id"], "pcid": car["pcid"]}
        contract = await lab.call("sunmile", "POST", "/contracts", order)
        path = f"/vehicles/{car['pcid']}/charge"
        body = {"charger": "charger-1", "energy_wh": 2000}
        outcome = await lab.call("garage", "POST", path, body)
        assert outcome["outcome"] == "charged", outcome
    return {"pcid": car["pcid"], "emaid": contract["emaid"], "chain": contract["chain"],
            "fingerprint": contract["fingerprint"], "run": run}  # fmt: skip


@dataclass
class Played:
    """An ecosystem that ran, and is read from its databases: nothing answers any more."""

    folder: Path
    visit: dict[str, Any]
    events: list[Event]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("played")
    ecosystem = load(data=folder / "data").on_free_ports()
    (folder / "ecosystem.toml").write_text(to_document(ecosystem))

    async def work() -> tuple[dict[str, Any], list[Event]]:
        async with running(ecosystem):
            visit = await play(ecosystem, "run-1")
            async with Lab(ecosystem) as lab:
                return visit, await lab.events()

    visit, events = asyncio.run(work())
    return Played(folder, visit, events)


# ----------------------------------------------------------------- reading and following


def test_what_happened_stays_readable_when_nothing_runs(played: Played) -> None:
    before = {file: file.stat().st_size for file in (played.folder / "data").glob("*.db")}
    done = pnclab(played.folder, "--run", "run-1", "--limit", "0", "--json")
    assert done.returncode == 0, done.stderr
    found = [Event.from_dict(json.loads(line)) for line in done.stdout.splitlines()]
    mine = [event for event in played.events if event.run == "run-1"]
    assert {event.id for event in found} >= {event.id for event in mine}
    assert len(found) > 60
    assert {event.party for event in found} >= {"garage", "charger-1", "sunmile", "plugpark"}
    assert [event.id for event in found] == [event.id for event in in_order(found)]
    assert {file: file.stat().st_size for file in (played.folder / "data").glob("*.db")} == before


def test_lines_for_people(played: Played) -> None:
    done = pnclab(played.folder, "--name", "AuthorizationReq", "--kind", "cable")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}  garage -> charger-1  AuthorizationReq  ok  "
        r"AuthorizationRes: OK\n",
        done.stdout,
    ), done.stdout


def test_filters_of_the_command(played: Played, tmp_path: Path) -> None:
    file = tmp_path / "contract.pem"
    der = base64.b64decode(played.visit["chain"][0])
    file.write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    by_file = pnclab(played.folder, "--certificate", str(file), "--json").stdout
    by_print = pnclab(played.folder, "--certificate", played.visit["fingerprint"], "--json").stdout
    assert by_file == by_print
    names = [json.loads(line)["name"] for line in by_file.splitlines()]
    assert {"PaymentDetailsReq", "AuthorizationReq", "contract"} <= set(names)
    one = pnclab(played.folder, "--pcid", played.visit["pcid"], "--party", "nova-cars", "--json")
    assert {json.loads(line)["party"] for line in one.stdout.splitlines()} == {"nova-cars"}
    newest = pnclab(played.folder, "-n", "3", "--json").stdout.splitlines()
    assert len(newest) == 3
    future = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert pnclab(played.folder, "--since", future, "--json").stdout == ""
    assert pnclab(played.folder, "--until", future, "--real", "-n", "1", "--json").stdout != ""


WRONG = {
    "--kind colour": "--kind: 'colour' is none of",
    "--outcome good": "--outcome",
    "--emaid x": "--emaid: EMAID 'x'",
    "--session zz": "--session",
    "--certificate 12": "--certificate",
    "--certificate ecosystem.toml": "--certificate: ecosystem.toml: no certificate",
    "--mark colour:red": "--mark",
    "--since yesterday": "--since: 'yesterday' is not an instant",
    "--party nobody": "there is no party 'nobody'",
    "--limit -1": "limit",
    "assert": "nothing is asked",
    "assert --message X --never --count 1": "exclude each other",
    "assert --message X --at-least 3 --at-most 2": "--at-least 3 is more",
    "assert --message X --before soon": "is not an instant",
    "assert --message X --signed-by nobody": "a certificate, the SHA-256 of one, or an EMAID",
    "assert --message X --signed-by ecosystem.toml": "--signed-by: ecosystem.toml: no certificate",
    "assert --message X --within -1": "within",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_use(played: Played, line: str) -> None:
    done = pnclab(played.folder, *line.split())
    assert done.returncode == 2, done.stdout + done.stderr
    assert WRONG[line] in re.sub(r"\s+", " ", done.stderr)


def test_nothing_runs_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "ecosystem.toml").write_text(to_document(load(data=tmp_path).on_free_ports()))
    done = pnclab(tmp_path)
    assert done.returncode == 1
    assert "there is no database" in done.stderr
    done = pnclab(tmp_path, "--follow")
    assert done.returncode == 1
    assert "there is nobody to follow" in done.stderr


def test_following_and_a_party_in_between(tmp_path: Path) -> None:
    """Streams of all parties come together; the command is started before anything happens."""
    ecosystem = load(data=tmp_path / "data").on_free_ports()
    (tmp_path / "ecosystem.toml").write_text(to_document(ecosystem))
    seen: list[dict[str, Any]] = []

    async def work() -> list[Event]:
        async with running(ecosystem):
            process = subprocess.Popen(  # noqa: ASYNC220
                [*PNCLAB, "events", "--follow", "--run", "live", "--json"],
                cwd=tmp_path, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
            )  # fmt: skip
            assert process.stdout is not None
            lines = process.stdout

            def read() -> None:
                seen.extend(json.loads(line) for line in lines)

            reader = threading.Thread(target=read)
            reader.start()
            try:
                await play(ecosystem, "live")
                async with Lab(ecosystem) as lab:
                    until = time.monotonic() + 20
                    while time.monotonic() < until:
                        events = await lab.events("live")
                        if {event.id for event in events} <= {one["id"] for one in seen}:
                            break
                        await asyncio.sleep(0.3)
                    return events
            finally:
                process.terminate()
                await asyncio.to_thread(reader.join, 10)
                process.wait()
                lines.close()

    events = asyncio.run(work())
    told = [one["id"] for one in seen]
    assert len(told) == len(set(told)) > 60
    assert {event.id for event in events} <= set(told)
    place = {identifier: number for number, identifier in enumerate(told)}
    late = [
        one["id"]
        for one in seen
        if one["cause"] in place and place[one["cause"]] > place[one["id"]]
    ]
    assert len(late) <= len(told) // 20, "an event that comes long before its cause"


def test_the_lab_follows_over_a_restart(tmp_path: Path) -> None:
    """A party that stops and starts again: nothing is missed, and nothing told twice."""
    ecosystem = load(data=tmp_path).on_free_ports()

    async def deposit(lab: Lab, name: str) -> None:
        lab.run = name
        await lab.call("sunmile", "POST", "/drivers", {"name": "A", "deposit": "1.00"})

    async def work() -> list[str | None]:
        seen: list[str | None] = []
        async with Lab(ecosystem) as lab, running(ecosystem, ["root-pool", "v2g-root"]):

            async def follow() -> None:
                async for event in lab.follow("sunmile", wait=True, kind="ledger"):
                    seen.append(event.run)  # noqa: PERF401 - it has no end

            task = asyncio.create_task(follow())
            try:
                for turn in range(3):
                    async with running(ecosystem, ["sunmile"]):
                        await deposit(lab, f"turn-{turn}-0")
                        if turn:
                            await asyncio.sleep(1.2)
                        await deposit(lab, f"turn-{turn}-1")
                        if not turn:
                            await asyncio.sleep(1.2)
                await asyncio.sleep(0.2)
                async with running(ecosystem, ["sunmile"]):
                    until = time.monotonic() + 10
                    while "turn-2-1" not in seen and time.monotonic() < until:  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
            finally:
                task.cancel()
        return seen

    seen = asyncio.run(work())
    # It was not there yet for the first moments of the first turn.
    wanted = [f"turn-{turn}-{half}" for turn in range(3) for half in range(2)]
    assert seen == wanted[-len(seen) :]
    assert len(seen) >= 5


def test_one_run_over_many_processes(tmp_path: Path) -> None:
    """Every party in a process of its own: one run's events are one story, causes first."""
    ecosystem = load(data=tmp_path).on_free_ports()

    async def work() -> tuple[dict[str, Any], list[Event]]:
        async with running_in_processes(ecosystem):
            visit = await play(ecosystem, "far-and-wide")
            async with Lab(ecosystem) as lab:
                return visit, await lab.events("far-and-wide")

    visit, events = asyncio.run(work())
    place = {event.id: number for number, event in enumerate(events)}
    assert len(place) == len(events)
    # The last part of an identifier is the process's.
    assert len({event.id[-6:] for event in events}) >= 8
    for event in events:
        assert event.cause is None or place.get(event.cause, -1) < place[event.id]
    caused = [event for event in events if event.cause in place]
    assert len(caused) > 40
    assert len([one for one in caused if one.party != events[place[one.cause or ""]].party]) > 20
    order = [event.name for event in events if event.kind in ("cable", "issued", "ledger")]
    wanted = ["oem-provisioning", "contract", "SessionSetupReq", "CertificateInstallationReq",
              "PaymentDetailsReq", "AuthorizationReq", "PowerDeliveryReq", "MeteringReceiptReq",
              "SessionStopReq"]  # fmt: skip
    assert [name for name in dict.fromkeys(order) if name in wanted] == wanted
    expect(events).message("AuthorizationReq").signed_by(visit["emaid"]).once()


# -------------------------------------------------------------------------------- order


def made(identifier: str, real: float, cause: str | None = None, **more: Any) -> Event:
    return Event(
        kind="state", name=identifier, sender="a", receiver="b",
        id=identifier, real=real, cause=cause, **more,
    )  # fmt: skip


def test_a_cause_comes_first_even_where_clocks_disagree() -> None:
    events = [
        made("visit", 10.0, milliseconds=9000),
        made("call", 3.0, "visit"),
        made("inside", 2.0, "call"),
        made("deep", 0.5, "inside"),
        made("before", 0.1),
        made("orphan", 0.2, "nobody"),
    ]
    for seed in range(20):
        mixed = events[:]
        random.Random(seed).shuffle(mixed)
        names = [event.id for event in in_order(mixed)]
        assert names == ["before", "orphan", "visit", "call", "inside", "deep"]


def test_causes_in_a_circle_end() -> None:
    events = [made("a", 1.0, "b"), made("b", 2.0, "c"), made("c", 3.0, "a"), made("d", 4.0, "d")]
    assert sorted(event.id for event in in_order(events)) == ["a", "b", "c", "d"]


# --------------------------------------------------------------------------- assertions


def unmet(ask: Callable[[], Any]) -> str:
    with pytest.raises(UnmetExpectation) as error:
        ask()
    return str(error.value)


def test_the_question_of_the_readme(played: Played) -> None:
    visit = played.visit
    asked = expect(played.events).message("AuthorizationReq").sent_by("garage")
    asked = asked.received_by("charger-1").before(datetime.now(UTC) + timedelta(hours=1))
    for who in (visit["emaid"], visit["fingerprint"], base64.b64decode(visit["chain"][0])):
        found = asked.signed_by(who).once()
        assert found[0].kind == "cable"
    said = unmet(asked.signed_by("DEXXXC12345678").once)
    assert "nearly:" in said
    assert "not signed by the contract DEXXXC12345678: no certificate of it" in said
    assert "2" in unmet(lambda: asked.exactly(2))
    assert "expected never" in unmet(asked.never)


def test_a_message_is_what_its_bytes_say(played: Played) -> None:
    """Neither a label in an event nor the lack of one makes a difference."""
    cable = [event for event in played.events if event.kind == "cable"]
    for event in cable:
        for name in (event.name, event.data["response_name"]):
            assert len(expect([event]).message(name).once()) == 1
    (good,) = expect(cable).message("AuthorizationReq").once()
    other = next(event for event in cable if event.name == "ChargeParameterDiscoveryReq")
    lying = replace(other, name="AuthorizationReq", data={"response_name": "AuthorizationRes"})
    for name in ("AuthorizationReq", "AuthorizationRes"):
        expect([lying]).message(name).never()
    expect([lying]).message("ChargeParameterDiscoveryRes").once()
    expect([replace(good, name="state")]).message("AuthorizationReq").once()
    expect([replace(good, request=None)]).message("AuthorizationReq").never()
    expect([replace(good, request=b"nothing")]).message("AuthorizationReq").never()


def test_who_really_signed(played: Played) -> None:
    """The car's provisioning key signed the installation request, the service its answer."""
    installation = expect(played.events).message("CertificateInstallationReq")
    on_cable = installation.kind("cable")
    assert "it was made by WNV" in unmet(on_cable.signed_by(played.visit["emaid"]).once)
    provisioning = next(
        event
        for event in played.events
        if event.kind == "issued" and f"pcid:{played.visit['pcid']}" in event.marks
    )
    assert provisioning.response is not None
    on_cable.signed_by(provisioning.response[: _length(provisioning.response)]).once()
    # Passed on in base64 by charger and operator: the same bytes.
    installation.kind("http").signed_by(
        provisioning.response[: _length(provisioning.response)]
    ).exactly(2)
    answer = expect(played.events).message("CertificateInstallationRes").sent_by("charger-1")
    service = next(event for event in played.events if event.name == "cps" and event.response)
    assert service.response is not None
    answer.signed_by(service.response[: _length(service.response)]).once()
    payment = expect(played.events).message("PaymentDetailsReq").signed_by(played.visit["emaid"])
    assert "a PaymentDetailsReq is never signed" in unmet(payment.once)


def _length(der: bytes) -> int:
    return 4 + int.from_bytes(der[2:4])


@pytest.fixture(scope="module")
def authorization(played: Played) -> Event:
    return expect(played.events).message("AuthorizationReq").once()[0]


def forged(event: Event, change: Callable[[Any], Any]) -> Event:
    """The event with another message in its bytes; its labels stay as they are."""
    assert event.request is not None
    message = exi.decode(iso2.SCHEMA, event.request)
    return replace(event, request=exi.encode(iso2.SCHEMA, change(message)))


def _challenge(message: Any) -> Any:
    body = message.Body.BodyElement.replace(GenChallenge=bytes(16))
    return message.replace(Body=iso2.Body(body))


def _other_key(message: Any) -> Any:
    body = message.Body.BodyElement
    key = SoftwareKey.generate(ISO2)
    signature = sign(iso2.SCHEMA, [("AuthorizationReq", body)], key, ISO2)
    return message.replace(Header=message.Header.replace(Signature=signature))


def _unsigned(message: Any) -> Any:
    return message.replace(Header=message.Header.replace(Signature=None))


FORGERIES: dict[str, tuple[Callable[[Event], Event], str]] = {
    "another challenge": (lambda e: forged(e, _challenge), "is not what was signed"),
    "another key": (lambda e: forged(e, _other_key), "was not made over this SignedInfo"),
    "no signature": (lambda e: forged(e, _unsigned), "carries no Signature"),
    # What cannot be read is no AuthorizationReq at all.
    "no bytes": (lambda e: replace(e, request=None), "there is none"),
    "empty": (lambda e: replace(e, request=b""), "there is none"),
    "noise": (lambda e: replace(e, request=random.Random(1).randbytes(400)), "there is none"),
    "cut": (lambda e: replace(e, request=(e.request or b"")[:60]), "there is none"),
    "too long": (lambda e: replace(e, request=bytes(65_536)), "there is none"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_labels_are_not_believed(played: Played, authorization: Event, name: str) -> None:
    """The event still says that it is about the contract; its bytes say otherwise."""
    forge, reason = FORGERIES[name]
    events = [e if e is not authorization else forge(e) for e in played.events]
    assert f"emaid:{played.visit['emaid'][:14]}" in authorization.marks
    asked = expect(events).message("AuthorizationReq").signed_by(played.visit["emaid"])
    said = unmet(asked.once)
    assert reason in said
    asked.never()


def test_a_certificate_that_only_claims_an_emaid_does_not_stand_for_it(played: Played) -> None:
    """What a car showed is no contract of the operator; what was issued or accepted is."""
    shown_only = [event for event in played.events if event.kind not in ("issued", "verdict")]
    asked = expect(shown_only).message("AuthorizationReq").signed_by(played.visit["emaid"])
    assert "no certificate of it is among the events" in unmet(asked.once)
    refused = [
        event if event.kind != "verdict" else replace(event, outcome="refused")
        for event in played.events
        if event.kind != "issued"
    ]
    assert "no certificate of it" in unmet(
        expect(refused).message("AuthorizationReq").signed_by(played.visit["emaid"]).once
    )
    beside = tuple(event for event in played.events if event.kind == "issued")
    expect(Evidence(tuple(shown_only), beside)).message("AuthorizationReq").signed_by(
        played.visit["emaid"]
    ).once()


def test_counts(played: Played) -> None:
    receipts = expect(played.events).message("MeteringReceiptReq").kind("cable")
    number = len(receipts.at_least(1))
    assert number > 1
    receipts.exactly(number)
    receipts.at_most(number)
    assert f"seen {number} times" in unmet(lambda: receipts.at_most(number - 1))
    assert f"expected at least {number + 1} times" in unmet(lambda: receipts.at_least(number + 1))
    expect([]).message("AuthorizationReq").never()
    assert "there are no events at all" in unmet(expect([]).message("X").once)


def test_the_nearest_are_shown_with_what_they_lack(played: Played) -> None:
    said = unmet(
        expect(played.events)
        .message("AuthorizationReq")
        .sent_by("my-car")
        .answered("FAILED")
        .about("pcid:WNV00000000000001")
        .after("2199-01-01")
        .once
    )
    assert "not sent by my-car: garage" in said
    assert "not answered FAILED: OK" in said
    assert "not about pcid:WNV00000000000001: it names no pcid" in said
    assert "not after 2199-01-01 00:00:00Z: at 20" in said
    assert "the nearest names among the events: AuthorizationReq" in unmet(
        expect(played.events).message("AuthorisationReq").once
    )


def test_wrong_questions(played: Played) -> None:
    asked = expect(played.events)
    wrong_ones: tuple[Callable[[], object], ...] = (
        lambda: asked.about("colour:red"),
        lambda: asked.before("soon"),
        lambda: asked.signed_by("nobody"),
        lambda: asked.signed_by(b"\x30\x82\x00\x00"),
        lambda: asked.signed_by("-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"),
        lambda: asked.sent_by("charger-1").message("AuthorizationRes"),
    )
    for wrong in wrong_ones:
        with pytest.raises(WrongUseError):
            wrong()


def test_what_others_sent_does_not_reach_the_terminal_as_it_is() -> None:
    event = made("x", 1.0, summary="\x1b]0;owned\x07\x1b[2J", at=datetime.now(UTC))
    said = unmet(lambda: expect([event]).name("x").sent_by("z").once())
    assert "\x1b" not in said
    assert "\\x1b[2J" in said


def test_eventually(tmp_path: Path) -> None:
    ecosystem = load(data=tmp_path).on_free_ports()

    async def work() -> None:
        async with running(ecosystem), Lab(ecosystem) as lab:
            task = asyncio.create_task(play(ecosystem, "soon"))
            found = await eventually(
                lab, lambda asked: asked.message("AuthorizationReq").once(), within=60, run="soon"
            )
            assert found[0].run == "soon"
            with pytest.raises(UnmetExpectation):
                await eventually(lab, lambda asked: asked.name("never").once(), within=0.1)
            await task

    asyncio.run(work())


# ------------------------------------------------------------------------ from the shell


def ask(played: Played, *arguments: str) -> subprocess.CompletedProcess[str]:
    return pnclab(played.folder, "assert", *arguments)


def test_assert_says_yes_and_no(played: Played) -> None:
    question = ("--message", "AuthorizationReq", "--from", "garage", "--to", "charger-1",
                "--signed-by", played.visit["emaid"], "--before", "2199-01-01")  # fmt: skip
    yes = ask(played, *question)
    assert (yes.returncode, yes.stdout.splitlines()[0]) == (0, "as expected")
    no = ask(played, *question[:-2], "--after", "2199-01-01")
    assert (no.returncode, no.stdout.splitlines()[0]) == (1, "not as expected")
    assert "not after 2199-01-01" in no.stdout
    never = ask(played, *question, "--never", "--json")
    assert never.returncode == 1
    told = json.loads(never.stdout)
    assert (told["holds"], told["expected"], told["seen"]) == (False, "never", 1)
    assert told["matched"][0]["name"] == "AuthorizationReq"


def test_assert_with_a_certificate_file(played: Played, tmp_path: Path) -> None:
    mine, other = tmp_path / "mine.pem", tmp_path / "other.der"
    der = base64.b64decode(played.visit["chain"][0])
    mine.write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    other.write_bytes(base64.b64decode(played.visit["chain"][1]))
    question = ("--message", "AuthorizationReq", "--count", "1", "--signed-by")
    assert ask(played, *question, str(mine)).returncode == 0
    said = ask(played, *question, str(other))
    assert said.returncode == 1
    assert f"it was made by {played.visit['emaid']}" in said.stdout


def test_assert_waits(played: Played) -> None:
    begun = time.monotonic()
    assert ask(played, "--message", "Nothing", "--within", "2").returncode == 1
    assert time.monotonic() - begun > 2
    begun = time.monotonic()
    assert ask(played, "--message", "AuthorizationReq", "--within", "60").returncode == 0
    assert time.monotonic() - begun < 30
