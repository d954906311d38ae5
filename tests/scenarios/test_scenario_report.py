"""What is told about played scenarios: the page, the plays' pages, JUnit XML."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from scenarios.junit import junit_xml
from scenarios.playing import Result, not_played
from scenarios.report import render
from scenarios.report.plays import chunks, compared, findings, outline, play_label, story_of
from scenarios.report.scenarios import write_report
from scenarios.scenario import Ending, Part, catalogue, charged, parts_of, refused
from services.common.events import Event
from services.ecosystem import load

ECOSYSTEM = load(None)
CAR = "WNVD9PV4VY6FPU9RFP"
HOSTILE = '"><script>alert(1)</script>{{ 7*7 }} \x00\x1b[31m\ud800 ]]> &'


# ------------------------------------------------------------------------- results of hand


def event(kind: str, name: str, sender: str, receiver: str, end: float, **more: Any) -> Event:
    party = more.pop("party", receiver if kind == "cable" or sender == "outside" else sender)
    return Event(
        kind, name, sender, receiver, party=party, real=1_780_000_000 + end,
        id=f"{end:08.3f}{name}", at=datetime(2026, 1, 2, tzinfo=UTC), **more,
    )  # fmt: skip


def outside(name: str, party: str, end: float, **request: Any) -> Event:
    return event("http", name, "outside", party, end, data={"request": request, "status": 200})


def plugs(
    end: float, outcome: str = "charged", stage: str = "SessionStopReq", **more: Any
) -> Event:
    said = {"outcome": outcome, "stage": stage, "code": "OK", "energy_wh": 2000, **more}
    request = {"charger": "charger-1", "energy_wh": 2000}
    return event(
        "http", f"POST /vehicles/{CAR}/charge", "outside", "garage", end,
        data={"request": request, "response": said, "status": 200},
    )  # fmt: skip


def cable(name: str, end: float, code: str = "OK") -> Event:
    return event(
        "cable", name, "garage", "charger-1", end, milliseconds=1.0, response=b"\x80\x98",
        outcome="refused" if code.startswith("FAILED") else "ok",
        data={"request": "<a/>", "response": "<b/>", "code": code, "response_name": "b"},
    )  # fmt: skip


def refusal(end: float, sentence: str = "it has been revoked") -> Event:
    finding = {"rule": "revocation.revoked", "severity": "error", "sentence": sentence}
    return event(
        "verdict", "contract", "plugpark", "plugpark", end, outcome="refused", summary=sentence,
        data={"what": "the contract", "verdict": {"accepted": False, "findings": [finding]}},
    )  # fmt: skip


def two_visits(*, second: str = "charged") -> list[Event]:
    """Build, charge, revoke, come again."""
    before = [
        event("http", "build car", "garage", "nova-cars", 0.9, milliseconds=500.0),
        outside("POST /vehicles", "garage", 1.0),
        outside("POST /contracts", "sunmile", 2.0),
        event("http", "plug in", "garage", "charger-1", 3.0, milliseconds=1.0),
        cable("supportedAppProtocolReq", 3.1),
        cable("ChargingStatusReq", 3.4),
        plugs(3.5, installed=True),
        event("ledger", "invoice", "sunmile", "D1", 3.6, summary="1.44 EUR"),
        outside("GET /sessions", "plugpark", 3.7),
        event("state", "contract revoked", "sunmile", "sunmile", 4.0, summary="revoked"),
        outside(f"POST /contracts/{CAR}/revoke", "sunmile", 4.1),
        event("http", "plug in", "garage", "charger-1", 5.0, milliseconds=1.0),
        cable("supportedAppProtocolReq", 5.1),
    ]
    if second == "charged":
        return [*before, cable("ChargingStatusReq", 5.4), plugs(5.5)]
    code = "FAILED_CertificateRevoked"
    return [
        *before,
        refusal(5.3),
        cable("PaymentDetailsReq", 5.4, code),
        plugs(5.5, "refused", "PaymentDetailsReq", code=code, reason="the charger said so"),
    ]


def part(name: str, spoiling: bool = True, play: str | None = None) -> Part:
    one = catalogue()[name]
    return Part(one, next(iter(one.plays)) if play is None else play, spoiling)


def result(
    played: Part,
    events: Sequence[Event] = (),
    seen: Mapping[str, Ending] | None = None,
    **more: Any,
) -> Result:
    return Result(
        played, "run-1", "2026-01-02T00:00:00+00:00",
        played.declared.endings if seen is None else seen, seconds=1.5, events=list(events), **more,
    )  # fmt: skip


REVOKED = refused("PaymentDetailsReq", "FAILED_CertificateRevoked", "revoked")


@pytest.fixture
def results() -> list[Result]:
    wrong = part("first-charge")
    return [
        result(part("revoked-contract"), two_visits(second="refused"), {"": REVOKED}),
        result(part("revoked-contract", False), two_visits()),
        result(
            wrong, two_visits(), {"": refused("AuthorizationReq", "FAILED")},
            problems=["outcome: 'charged' is declared, 'refused' was seen"],
        ),
        not_played(part("operator-down", True, "fail-open")),
    ]  # fmt: skip


# --------------------------------------------------------------------------- plays in steps


def test_a_visit_is_a_step_and_so_is_what_lies_between_visits() -> None:
    told = chunks(two_visits())
    assert [chunk.visit is not None for chunk in told] == [False, True, False, True]
    assert [e.name for e in told[2].events] == ["contract revoked", f"POST /contracts/{CAR}/revoke"]
    assert "invoice" in [e.name for e in told[1].events]  # it came before the scenario went on
    assert sum(len(chunk.events) for chunk in told) == len(two_visits())


def test_a_fault_that_is_cleared_belongs_to_the_visit_before() -> None:
    cleared = outside("DELETE /faults/f1", "sunmile", 6.0)
    again = outside("DELETE /faults/f1", "sunmile", 4.2)
    assert len(chunks([*two_visits(), cleared])) == 4
    assert again in chunks([*two_visits(), again])[2].events


def test_no_events_are_no_steps() -> None:
    assert chunks([]) == []
    assert story_of(result(part("first-charge")), ECOSYSTEM).steps == []


def test_the_story_says_how_each_visit_went_and_why() -> None:
    story = story_of(
        result(part("revoked-contract"), two_visits(second="refused"), {"": REVOKED}), ECOSYSTEM
    )
    assert [(step.number, step.title, step.outcome) for step in story.steps] == [
        (1, "What was there before", "ok"),
        (2, "Visit 1", "ok"),
        (3, "In between", "ok"),
        (4, "Visit 2", "refused"),
    ]
    assert story.steps[1].result == "charged 2 kWh, after a contract was installed"
    assert story.steps[3].result == (
        "refused at PaymentDetailsReq: FAILED_CertificateRevoked. It has been revoked"
    )
    assert {party.name for party in story.parties} == {
        "garage", "nova-cars", "sunmile", "charger-1", "plugpark",
    }  # fmt: skip
    html = render(story)
    assert "How far it came" not in html  # there is an accepted visit to compare with
    assert "Two visits, side by side" in html


def test_the_last_visits_have_the_names_that_the_scenario_gives_them() -> None:
    seen = {"first": charged(), "second": charged()}
    steps = story_of(result(part("sub-ca-rollover"), two_visits(), seen), ECOSYSTEM).steps
    assert [s.title for s in steps if s.title.startswith("Visit")] == [
        "Visit 1: first",
        "Visit 2: second",
    ]
    # The outcomes do not agree, so nobody knows which visit is meant.
    other = {"first": REVOKED, "second": charged()}
    steps = story_of(result(part("sub-ca-rollover"), two_visits(), other), ECOSYSTEM).steps
    assert [s.title for s in steps if s.title.startswith("Visit")] == ["Visit 1", "Visit 2"]


def test_a_refusal_by_the_car_shows_where_although_all_answers_were_good() -> None:
    events = [
        cable("supportedAppProtocolReq", 1.0),
        cable("CertificateInstallationReq", 2.0),
        event(
            "verdict", "contract data signature", "garage", "garage", 2.1, outcome="refused",
            summary="not what was signed",
        ),
        plugs(3.0, "refused", "in the car", code="refused by the car"),
    ]  # fmt: skip
    html = render(story_of(result(part("tampered-bundle"), events), ECOSYSTEM))
    assert "How far it came" in html
    assert '<div class="rung refused"><span>in the car</span>' in html
    assert "Refused in the car. Not what was signed" in html


def test_what_happened_under_a_fault_is_marked() -> None:
    mark = {"id": "f1", "kind": "delay"}
    slow = event(
        "http", "installations", "plugpark", "contract-pool", 3.3, milliseconds=5.0,
        data={"status": 200, "fault": mark},
    )  # fmt: skip
    hit = event(
        "fault", "fault hit", "contract-pool", "contract-pool", 3.29, outcome="failed",
        summary="told to misbehave", data={"fault": mark},
    )  # fmt: skip
    with_fault = render(
        story_of(result(part("first-charge"), [*two_visits(), slow, hit]), ECOSYSTEM)
    )
    assert 'class="arrow http faulty"' in with_fault
    assert 'class="note fault faulty"' in with_fault
    assert "fault: delay" in with_fault
    assert "under a fault" in with_fault
    without = render(story_of(result(part("first-charge"), two_visits()), ECOSYSTEM))
    assert "under a fault" not in without
    assert "fault: delay" not in without


def test_a_finding_that_others_repeat_is_told_once() -> None:
    again = event(
        "verdict", "PaymentDetailsReq", "charger-1", "charger-1", 5.35, outcome="refused",
        summary="FAILED_CertificateRevoked: it has been revoked",
        data={"code": "FAILED_CertificateRevoked"},
    )  # fmt: skip
    assert [one.sentence for one in findings([again])] == ["it has been revoked"]
    found = findings([refusal(5.3), again, refusal(5.5, "it has expired")])
    assert [(one.party, one.sentence) for one in found] == [
        ("plugpark", "it has been revoked"),
        ("plugpark", "it has expired"),
    ]


def test_declared_and_seen_side_by_side(results: list[Result]) -> None:
    (row,) = compared(results[0])
    assert (row.same, row.because) == (True, "It has been revoked")
    (row,) = compared(results[2])
    assert not row.same
    assert row.declared == "charged, OK, billed"
    assert row.seen == "refused at AuthorizationReq, FAILED"
    (row,) = compared(results[3])
    assert (row.same, row.seen) == (False, "")


# -------------------------------------------------------------------------------- the pages


class Links(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.hrefs: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in {"meta", "br", "hr"}:
            self.open.append(tag)
        for name, value in attrs:
            assert name not in {"src", "srcset", "data", "action"}
            assert not name.startswith("on")
            if name == "id":
                assert value not in self.ids
                self.ids.add(value or "")
            if name == "href":
                self.hrefs.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in {"meta", "br", "hr"}:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()


def test_the_page_leads_to_each_play_and_each_play_back(
    results: list[Result], tmp_path: Path
) -> None:
    file = tmp_path / "all of it.html"
    write_report(results, ECOSYSTEM, file)
    html = file.read_text()
    read = Links(html)
    assert "script" not in read.tags
    assert "default-src 'none'" in html
    assert "1 play did not end as declared" in html
    assert "was not played, as it did not go on" in html
    assert "was seen" in html
    pages = {path.name for path in (tmp_path / "all of it-plays").iterdir()}
    assert pages == {
        "revoked-contract-played.html", "revoked-contract-twin.html", "first-charge-played.html",
    }  # fmt: skip
    led = [href for href in read.hrefs if not href.startswith("#")]
    assert sorted(led) == sorted(f"all%20of%20it-plays/{page}" for page in pages)
    assert {href[1:] for href in read.hrefs if href.startswith("#")} <= read.ids
    for page in pages:
        play = Links((tmp_path / "all of it-plays" / page).read_text())
        (back,) = (href for href in play.hrefs if not href.startswith("#"))
        target, _, anchor = back.partition("#")
        assert target == "../all%20of%20it.html"
        assert anchor in read.ids


def test_every_scenario_of_the_library_has_its_place(tmp_path: Path) -> None:
    everything = [not_played(one) for one in parts_of(catalogue().values())]
    write_report(everything, ECOSYSTEM, tmp_path / "r.html")
    html = (tmp_path / "r.html").read_text()
    read = Links(html)
    assert not (tmp_path / "r-plays").exists()
    assert sum(one.startswith("scenario-") for one in read.ids) == len(catalogue())
    assert "Nothing was played" in html
    assert len(html) < 500_000


def test_hostile_values_stay_text(tmp_path: Path) -> None:
    bad = result(
        part("first-charge"),
        [*two_visits(), refusal(5.6, HOSTILE.replace("\ud800", ""))],
        {HOSTILE.replace("\ud800", ""): charged()},
        problems=[HOSTILE.replace("\ud800", "")],
    )
    write_report([bad], ECOSYSTEM, tmp_path / "r.html")
    for file in (tmp_path / "r.html", *(tmp_path / "r-plays").iterdir()):
        html = file.read_text()
        Links(html)
        assert "<script>alert" not in html
        assert "&lt;script&gt;alert(1)" in html
        assert "{{ 7*7 }}" in html


def test_a_big_play_is_cut_to_size_and_says_so() -> None:
    whole = [
        replace(cable(f"Message{k}Req", 3.0 + k / 1000), request=bytes(3000)) for k in range(60)
    ]
    calls = [
        event(
            "http", f"call {k}", "plugpark", "sunmile", 3.2 + k / 1000, milliseconds=1.0,
            request=bytes(2000), data={"status": 200, "request": {"a": ["b"] * 9}},
        )
        for k in range(60)
    ]  # fmt: skip
    story = story_of(result(part("first-charge"), [*whole, *calls, plugs(5.5)]), ECOSYSTEM)
    html = render(story)
    assert "leaves out" not in html
    without = []
    while True:
        size = len(html.encode())
        html = render(story, most=size - 1)
        Links(html)
        assert html.count("To keep this page small it leaves out") == 1
        assert "Message59Req" in html  # the pictures stay
        if len(html.encode()) == size:
            break
        assert len(html.encode()) < size
        without.append(html.partition("it leaves out ")[2].partition("</p>")[0])
    assert len(without) == len(set(without)) >= 4
    assert without[-1] == "the lists of all hops with what was sent."
    assert 'href="#hop-' not in html


# -------------------------------------------------------------------------------- JUnit XML


def test_junit_as_ci_servers_read_it(results: list[Result]) -> None:
    text = junit_xml(results, 12.25)
    whole = ET.fromstring(text)
    assert whole.tag == "testsuites"
    (suite,) = whole
    assert suite.attrib == {
        "name": "pnclab scenarios", "tests": "4", "failures": "1", "errors": "0", "skipped": "1",
        "time": "12.250", "timestamp": "2026-05-28T20:26:40", "hostname": "localhost",
    }  # fmt: skip
    cases = list(suite)
    assert [case.tag for case in cases] == ["testcase"] * 4
    assert [(case.get("classname"), case.get("name")) for case in cases] == [
        ("revoked-contract", "played"),
        ("revoked-contract", "twin"),
        ("first-charge", "played"),
        ("operator-down", "fail-open"),
    ]
    assert [[child.tag for child in case] for case in cases] == [
        ["system-out"], ["system-out"], ["failure", "system-out"], ["skipped"],
    ]  # fmt: skip
    assert set(cases[0].attrib) == {"classname", "name", "time"}
    failure = cases[2][0]
    assert failure.attrib == {
        "message": "outcome: 'charged' is declared, 'refused' was seen",
        "type": "NotAsDeclared",
    }
    assert "declared: charged, OK, billed\nseen: refused at Auth" in (failure.text or "")
    assert "run: run-1" in (failure.text or "")
    assert cases[3][0].get("message") == "was not played, as it did not go on"
    assert "Visit 2: refused at PaymentDetailsReq" in (cases[0][0].text or "")


def test_junit_holds_whatever_somebody_said() -> None:
    bad = result(part("first-charge"), problems=[HOSTILE], seen={HOSTILE: charged()})
    text = junit_xml([bad], 1.0)
    text.encode()  # no lone surrogates
    failure = ET.fromstring(text).find(".//failure")
    assert failure is not None
    said = failure.get("message") or ""
    assert said.startswith('"><script>alert(1)</script>{{ 7*7 }} \ufffd\ufffd[31m\ufffd ]]> &')


def test_junit_of_nothing() -> None:
    (suite,) = ET.fromstring(junit_xml([], 0.0))
    assert (suite.get("tests"), suite.get("timestamp"), len(suite)) == ("0", None, 0)


def test_every_play_of_the_library_has_a_name_of_its_own() -> None:
    names = [(one.scenario.name, play_label(one)) for one in parts_of(catalogue().values())]
    assert len(set(names)) == len(names)
    assert outline(not_played(parts_of(catalogue().values())[0])) == []
