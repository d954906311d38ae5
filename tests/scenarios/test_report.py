"""The picture: complete, safe against what stands in messages, and in need of nothing."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from importlib import resources
from typing import Any

import pytest

from scenarios.report import render
from scenarios.report.chains import chains, hierarchy
from scenarios.report.decoded import parts, shortened
from scenarios.report.hops import Hop, Item, Loop, Note, Parallel, tree, triggers, walk
from scenarios.report.invoice import invoices
from scenarios.report.page import page
from scenarios.report.sequence import diagram
from scenarios.report.text import Names, plain, width, wrapped
from scenarios.report.visits import comparison
from scenarios.story import PartyView, Step, Story
from services.common.events import Event

HOSTILE = '"><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7*7 }}'
VOID = {"meta", "br", "hr", "img", "input", "link", "col"}
PARTIES = [
    PartyView("car", "vehicle", "The car", "Nova"),
    PartyView("post", "charger", "Charger", "Plug"),
    PartyView("plug", "cpo", "Plug, a charge point operator", "Plug"),
    PartyView("sun", "mo", "Sun, a mobility operator", "Sun"),
]
DN = "CN={}, O=Sun (pnclab test), C=DE, DC=MO"


# --------------------------------------------------------------------- a story made of hand


def event(kind: str, name: str, sender: str, receiver: str, end: float, **more: Any) -> Event:
    party = more.pop("party", receiver if kind == "cable" else sender)
    return Event(
        kind, name, sender, receiver, party=party, real=end, id=f"{end}{name}",
        at=datetime(2026, 1, 2, tzinfo=UTC), **more,
    )  # fmt: skip


def cable(
    name: str, end: float, code: str = "OK", ms: float = 1.0, meter: int | None = None
) -> Event:
    reading = "" if meter is None else f"<t:MeterReading>{meter}</t:MeterReading>"
    return event(
        "cable", f"{name}Req", "car", "post", end,
        outcome="refused" if code.startswith("FAILED") else "ok",
        milliseconds=ms, cost={"bytes": 12}, request=b"\x80\x98asked", response=b"\x80\x98told",
        data={
            "request": f"<b:{name}Req>{reading}</b:{name}Req>",
            "response": f"<b:{name}Res>{code}</b:{name}Res>",
            "response_name": f"{name}Res", "code": code, "reason": "",
        },
    )  # fmt: skip


def http(name: str, one: str, other: str, end: float, ms: float, **data: Any) -> Event:
    return event("http", name, one, other, end, milliseconds=ms, data={"status": 200, **data})


def verdict(end: float, *, accepted: bool, finding_on: str = "aa" * 32) -> Event:
    path = [
        {
            "label": label,
            "subject": DN.format(label),
            "fingerprint": digits * 32,
            "not_before": "2026-01-01T00:00:00+00:00",
            "not_after": "2028-01-01T00:00:00+00:00",
        }
        for label, digits in (("contract certificate", "aa"), ("sub-CA 2", "bb"), ("anchor", "cc"))
    ]
    finding = {
        "rule": "revocation.revoked", "severity": "error", "field": "status", "seen": "revoked",
        "wanted": "good", "source": "RFC 6960, 2.2",
        "certificate": {"label": "contract certificate", "subject": "", "fingerprint": finding_on},
        "sentence": "the contract certificate (): it has been revoked; status is revoked",
    }  # fmt: skip
    return event(
        "verdict", "contract", "plug", "plug", end,
        outcome="ok" if accepted else "refused",
        data={
            "what": "the contract certificate",
            "verdict": {
                "accepted": accepted, "reason": "because", "verifications": 5, "path": path,
                "findings": [] if accepted else [finding],
            },
        },
    )  # fmt: skip


def visit(start: float, *, accepted: bool, rounds: int = 4) -> list[Event]:
    code = "OK" if accepted else "FAILED_CertificateRevoked"
    ocpp = "Accepted" if accepted else "CertificateRevoked"
    # In the order in which parties write down: a hop when it has ended.
    told = [
        cable("supportedAppProtocol", start + 0.01, "OK_SuccessfulNegotiation"),
        verdict(start + 0.05, accepted=accepted),
        http(
            "check contract", "post", "plug", start + 0.06, 40.0,
            response={"accepted": accepted, "ocpp": ocpp},
        ),
        cable("PaymentDetails", start + 0.061, code, 42.0),
    ]  # fmt: skip
    if accepted:
        for k in range(rounds):
            told.append(cable("ChargingStatus", start + 0.1 + k * 0.02, meter=k * 1000))
            told.append(cable("MeteringReceipt", start + 0.11 + k * 0.02, meter=k * 1000))
        told.append(cable("SessionStop", start + 0.3))
    return told


def issued(role: str, name: str, issuer: str, end: float) -> Event:
    return event(
        "issued", role, "sun", "sun", end, response=b"no certificate", cost={"signatures": 1},
        data={"role": role, "subject": DN.format(name), "issuer": DN.format(issuer)},
    )  # fmt: skip


def invoiced(end: float) -> list[Event]:
    return [
        http(
            "authorize", "plug", "sun", end - 1, 5.0,
            request={"emaid": "DE1", "tariff": {"per_kwh": "0.49", "per_session": "0.35"}},
        ),
        http(
            "charge detail record", "plug", "sun", end + 0.001, 30.0,
            request={"id": "CDR1", "receipts": ["a", "b", "c"]},
            response={"id": "CDR1", "status": "settled"},
        ),
        event(
            "ledger", "invoice", "sun", "D1", end, cost={"verifications": 3},
            data={
                "driver": "D1", "emaid": "DE1", "cpo": "plug", "cdr": "CDR1", "evse_id": "DE*1",
                "energy_wh": 8000, "meter_start_wh": 0, "meter_stop_wh": 8000,
                "charging": "4.27", "service": "0.34", "total": "4.61", "currency": "EUR",
                "postings": {"driver:D1": "4.61", "cpo:plug": "-4.27", "revenue": "-0.34"},
            },
        ),
    ]  # fmt: skip


def story(*steps: Sequence[Event], **more: Any) -> Story:
    values: dict[str, Any] = {
        "title": "A small run", "run": "test-1", "began_at": "2026-01-02T03:04:05+00:00",
        "trust_model": "Own roots", "trust_says": "Each its own.", "parties": PARTIES,
        "facts": {"pcid": "WNV1", "emaid": "DE1", "driver": "Ada"}, "seconds": {"step 1": 0.5},
    }  # fmt: skip
    return Story(
        **{**values, **more},
        steps=[
            Step(number, f"Title {number}", f"Text {number}", f"result {number}", events=[*events])
            for number, events in enumerate(steps, start=1)
        ],
    )


@pytest.fixture(scope="module")
def whole() -> Story:
    return story(
        [issued("mo-root", "Root", "Root", 1.0), issued("mo-sub1", "Sub 1", "Root", 1.1)],
        [*visit(10, accepted=True), *invoiced(20)],
        [*visit(30, accepted=True), *visit(40, accepted=False)],
    )


# ------------------------------------------------------------------------------- HTML checks


class Page(HTMLParser):
    """Reads a page and notes what is wrong with it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: Counter[str] = Counter()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        self.wrong += [f"<{tag}> never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if len({name for name, _ in attrs}) != len(attrs):
            self.wrong.append(f"<{tag}> has an attribute twice")
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids[value or ""] += 1
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.wrong.append(f"</{tag}> closes {self.open[-1:]} at {self.getpos()}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def assert_sound(html: str) -> Page:
    """Balanced, ids unique, links lead somewhere, nothing is loaded, nothing runs but ours."""
    read = Page(html)
    assert read.wrong == []
    assert html.startswith("<!doctype html>")
    assert [name for name, count in read.ids.items() if count > 1] == []
    for tag, name, value in read.attributes:
        assert name not in {"src", "srcset", "data", "poster", "xlink:href", "action"}, (tag, name)
        assert not name.startswith("on"), (tag, name, value)
        if name == "href":
            assert value.startswith("#"), value
            assert value[1:] in read.ids, f"{value} leads nowhere"
        if name in {"style", "fill", "filter"}:
            assert "url(" not in value
    assert read.tags["script"] == 1
    assert not {"img", "link", "iframe", "object", "embed", "base", "form", "audio"} & set(
        read.tags
    )
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in html
    return read


# ----------------------------------------------------------------------------------- the page


def test_shows_every_step_and_is_sound(whole: Story) -> None:
    html = render(whole)
    read = assert_sound(html)
    text = "".join(read.text)
    for step in whole.steps:
        assert text.count(step.title) >= 2  # in the contents and over the step
        assert step.text in text
        assert f"step-{step.number}" in read.ids
    for party in PARTIES:
        assert party.title in text
    assert {"WNV1", "DE1", "Ada", "Own roots"} <= {each.strip() for each in read.text}
    assert len(html) < 200_000


@pytest.mark.parametrize(
    "empty",
    [
        pytest.param(story([]), id="a step without events"),
        pytest.param(story(), id="no steps"),
        pytest.param(story(parties=[], facts={}, seconds={}, began_at=""), id="nothing at all"),
        pytest.param(story([], [], seconds={"step 1": 0.0}), id="no time"),
    ],
)
def test_renders_what_little_there_is(empty: Story) -> None:
    assert_sound(render(empty))


def test_hostile_values_stay_text(whole: Story) -> None:
    hostile = replace(whole, title=HOSTILE, trust_says=HOSTILE, run=HOSTILE)
    hostile.parties = [PartyView("car", "vehicle", HOSTILE, HOSTILE), *PARTIES[1:]]
    hostile.facts = {"pcid": HOSTILE, "driver": HOSTILE}
    hostile.seconds = {HOSTILE: 1.0}
    bad = event(
        "http", HOSTILE, "car", "post", 50.0, milliseconds=1.0, summary=HOSTILE,
        request=HOSTILE.encode(),
        data={"method": HOSTILE, "url": HOSTILE, "status": HOSTILE, "request": {HOSTILE: HOSTILE}},
    )  # fmt: skip
    on_cable = cable("SessionSetup", 51.0, HOSTILE)
    on_cable = replace(
        on_cable, data={**on_cable.data, "request": f"<a b='{HOSTILE}'>{HOSTILE}</a>"}
    )
    root = issued("mo-root", HOSTILE, HOSTILE, 52.0)
    refused = verdict(53.0, accepted=False)
    refused.data["verdict"]["path"][0]["subject"] = f"CN={HOSTILE}"
    refused.data["verdict"]["findings"][0]["seen"] = HOSTILE
    note = event("state", HOSTILE, "plug", "plug", 54.0, summary=HOSTILE)
    ledger = invoiced(55.0)
    ledger[-1].data["evse_id"] = HOSTILE
    step = Step(4, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    step.events = [bad, on_cable, root, refused, note, *ledger]
    hostile.steps = [*whole.steps, step]
    html = render(hostile)
    read = assert_sound(html)
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert HOSTILE in "".join(read.text)  # shown as it is, and no template ran it


def test_templates_travel_with_the_package() -> None:
    folder = resources.files("scenarios.report") / "templates"
    for name in ("page.html", "pieces.html", "drawings.html", "style.css", "enhance.js"):
        assert (folder / name).is_file()


# ----------------------------------------------------------------------------- hops as a tree


def names_of(items: Sequence[Item]) -> list[Any]:
    told: list[Any] = []
    for item in items:
        if isinstance(item, Hop):
            told.append([item.event.name, *names_of(item.inside)])
        elif isinstance(item, Note):
            told.append(item.event.name)
        elif isinstance(item, Parallel):
            told.append((len(item.hops), item.hops[0].event.name))
        elif isinstance(item, Loop):
            told.append((len(item.rounds), names_of(item.rounds[0])))
    return told


def test_calls_stand_inside_the_call_that_they_serve() -> None:
    assert names_of(tree(visit(0, accepted=False))) == [
        ["supportedAppProtocolReq"],
        ["PaymentDetailsReq", ["check contract", "contract"]],
    ]


def test_a_child_that_seems_older_by_rounding_is_still_a_child() -> None:
    outer = cable("PaymentDetails", 10.0001, ms=100.0)
    inner = http("check contract", "post", "plug", 10.0, 100.2)
    assert inner.real - 0.1002 < outer.real - 0.1
    outer = replace(outer, milliseconds=100.3, real=10.0005)
    assert names_of(tree([inner, outer])) == [["PaymentDetailsReq", ["check contract"]]]


def test_noise_is_left_out() -> None:
    told = [
        http("token", "car", "post", 1.0, 1.0),
        event("http", "GET /invoices", "outside", "sun", 2.0),
        http("plug in", "car", "post", 3.0, 1.0),
    ]
    assert names_of(tree(told)) == [["plug in"]]


def test_the_same_question_at_once_is_one_group_and_in_turn_is_not() -> None:
    at_once = [http("OCSP", "plug", "sun", 1.0 + k / 1000, 10.0) for k in range(3)]
    in_turn = [http("OCSP", "plug", "sun", 2.0 + k, 10.0) for k in range(2)]
    assert names_of(tree([*at_once, *in_turn])) == [(3, "OCSP"), ["OCSP"], ["OCSP"]]


def test_what_repeats_is_a_loop_drawn_once(whole: Story) -> None:
    told = visit(0, accepted=True, rounds=6)
    items = tree(told)
    assert (6, [["ChargingStatusReq"], ["MeteringReceiptReq"]]) in names_of(items)
    assert len(list(walk(items))) == len(told)
    drawn = diagram(items, Names(PARTIES))
    assert drawn is not None
    assert [arrow.label for arrow in drawn.arrows].count("MeteringReceiptReq") == 1
    assert drawn.loops[0].label == "6 times"
    assert "from 0 to 5\u202f000 Wh" in drawn.loops[0].meta
    assert "3 more rounds of the same, 6 hops" in render(whole)


def test_two_rounds_are_no_loop() -> None:
    items = tree(visit(0, accepted=True, rounds=2))
    assert not any(isinstance(item, Loop) for item in items)


def test_what_set_things_going_is_told_where_it_began() -> None:
    ordered = event("http", "POST /vehicles", "outside", "car", 2.0)
    charge = event(
        "http",
        "POST /vehicles/W1/charge",
        "outside",
        "car",
        40.0,
        data={"request": {"energy_wh": 8000}},
    )
    told = story(
        [issued("mo-root", "Root", "Root", 0.5)],
        [http("build car", "car", "sun", 1.9, 100.0), ordered],
        [http("plug in", "car", "post", 20.0, 5.0)],
        [cable("SessionStop", 39.0), charge],
    )
    found = {number: [each.text for each in texts] for number, texts in triggers(told).items()}
    assert found == {
        2: ["A new car is ordered"],
        3: ["The driver plugs the car in and wants 8 kWh"],
    }


def test_drawn_shapes_stay_inside_and_rows_do_not_touch() -> None:
    drawn = diagram(tree(visit(0, accepted=False)), Names(PARTIES))
    assert drawn is not None
    for box in drawn.boxes:
        assert box.x >= 0
        assert box.x + box.width <= drawn.width
        assert all(width(line, 11.5) <= box.width for line in box.lines)
    rows = sorted(
        [(box.y, box.y + box.height) for box in drawn.boxes]
        + [(arrow.y - 16, arrow.y) for arrow in drawn.arrows if arrow.label]
    )
    for (_, end), (start, _) in itertools.pairwise(rows):
        assert end <= start
    assert diagram(tree([verdict(1.0, accepted=True)]), Names(PARTIES)) is None


# ------------------------------------------------------------------------------ other views


def test_a_refused_chain_blames_the_certificate_concerned() -> None:
    (chain,) = chains([verdict(1.0, accepted=False)], Names(PARTIES))
    assert chain.word == "refused"
    assert [card.blamed for card in chain.cards] == [True, False, False]
    remark = chain.cards[0].remarks[0]
    assert (remark.rule, remark.seen, remark.wanted) == ("revocation.revoked", "revoked", "good")
    html = render(story([verdict(1.0, accepted=False)]))
    assert 'class="chain refused"' in html
    assert "revocation.revoked" in html
    assert "✕" in html


def test_a_finding_on_no_certificate_of_the_path_is_not_lost() -> None:
    (chain,) = chains([verdict(1.0, accepted=False, finding_on="dd" * 32)], Names(PARTIES))
    assert not any(card.remarks for card in chain.cards)
    assert [remark.rule for remark in chain.elsewhere] == ["revocation.revoked"]


def test_the_same_verdict_twice_is_drawn_once() -> None:
    told = [verdict(1.0, accepted=True), verdict(2.0, accepted=True), verdict(3.0, accepted=False)]
    assert [(c.word, c.times) for c in chains(told, Names(PARTIES))] == [
        ("accepted", 2),
        ("refused", 1),
    ]


def test_the_hierarchy_hangs_under_its_roots_and_tells_what_came_later() -> None:
    told = story(
        [
            issued("mo-root", "Root", "Root", 1.0),
            issued("mo-sub1", "Sub 1", "Root", 1.1),
            issued("ocsp-signer", "OCSP signer", "Sub 1", 1.2),
        ],
        [issued("contract", "DE1", "Sub 1", 2.0)],
    )
    (root,) = hierarchy(told)
    (sub,) = root.below
    assert (root.name, sub.name, [s.name for s in sub.signers]) == (
        "Root",
        "Sub 1",
        ["OCSP signer"],
    )
    assert [(leaf.name, leaf.role, leaf.later) for leaf in sub.below] == [
        ("DE1", "Contract certificate", 2)
    ]


def test_the_two_visits_side_by_side(whole: Story) -> None:
    both = comparison(whole)
    assert both is not None
    assert (both.step, both.accepted.title, both.refused.title) == (
        3,
        "Second visit",
        "Third visit",
    )
    named = [(left and left.name, right and right.name) for left, right in both.rows]
    assert named[:2] == [
        ("supportedAppProtocolReq", "supportedAppProtocolReq"),
        ("PaymentDetailsReq", "PaymentDetailsReq"),
    ]
    assert all(right is None for _, right in named[2:])
    assert len(named) == 5
    values = {name: (left, right) for _, name, left, right in both.words}
    assert values["certificateStatus"] == ("Accepted", "CertificateRevoked")
    assert values["ResponseCode of PaymentDetailsRes"] == ("OK", "FAILED_CertificateRevoked")
    assert values["verdict"] == ("accepted", "revocation.revoked")
    assert (both.accepted.energy_wh, both.refused.energy_wh) == (3000, 0)
    assert comparison(story(visit(0, accepted=True))) is None
    assert comparison(story(visit(0, accepted=False))) is None


def test_the_invoice_adds_up() -> None:
    told = story(invoiced(20))
    (invoice,) = invoices(told, 1)
    assert [(line.what, line.amount) for line in invoice.lines] == [
        ("Energy", "3.92"),
        ("Session fee", "0.35"),
        ("Service of Sun", "0.34"),
    ]
    assert (invoice.total, invoice.debits, invoice.credits, invoice.difference) == (
        "4.61",
        "4.61",
        "4.61",
        "0.00",
    )
    assert (invoice.receipts, invoice.checked, invoice.booked) == (3, 3, "settled")
    assert [posting.account for posting in invoice.postings] == [
        "Ada's account",
        "Owed to Plug",
        "Sun's revenue",
    ]


def test_books_that_do_not_balance_are_shown_as_such() -> None:
    told = story(invoiced(20))
    told.steps[0].events[-1].data["postings"]["revenue"] = "-0.30"
    assert invoices(told, 1)[0].difference == "0.04"


def test_a_tariff_that_does_not_give_the_price_is_not_printed() -> None:
    told = story(invoiced(20))
    told.steps[0].events[-1].data["charging"] = "9.99"
    assert invoices(told, 1)[0].lines[0].what == "Charging at Plug"


# ------------------------------------------------------------------------- messages and bytes


def test_bytes_are_dumped_and_long_ones_cut_with_their_total() -> None:
    raw = bytes(range(256)) * 8
    (request, response) = parts(
        replace(cable("SessionSetup", 1.0), request=raw, response=b"AB\x00")
    )
    assert request.dump is not None
    assert response.dump is not None
    assert request.dump.total == 2048
    assert request.dump.whole == raw.hex()
    assert request.dump.lines[0].startswith("000000  00 01 02 03 04 05 06 07  08 09")
    assert request.dump.lines[-1].startswith("0007f0  f0 f1")
    shown = sum(1 for line in request.dump.lines if re.match(r"[0-9a-f]{6}  ", line)) * 16
    assert f"{2048 - shown} bytes left out" in "".join(request.dump.lines)
    assert response.dump.lines == (f"000000  {'41 42 00':<23}  {'':<23}  AB.",)
    assert response.dump.whole == ""


def test_decoded_text_is_complete_but_for_long_base64() -> None:
    told = cable("SessionSetup", 1.0)
    xml = f"<a:Msg Id='1'>\n <b>{'A' * 300}</b>\n <c>text</c>\n</a:Msg>"
    (request, _) = parts(replace(told, data={**told.data, "request": xml}))
    text = "".join(token for _, token in request.tokens)
    assert text == xml.replace("A" * 300, shortened("A" * 300))
    assert "(300 characters)" in text
    assert ("t", "Msg") in request.tokens


def test_broken_certificates_and_answers_do_not_stop_the_page() -> None:
    ocsp = replace(http("OCSP", "plug", "sun", 1.0, 1.0), request=b"x", response=b"y")
    root = replace(issued("mo-root", "Root", "Root", 1.0), response=b"\x30\x00")
    assert_sound(render(story([ocsp, root])))
    assert "no certificate that can be read" in render(story([root]))


def test_names_in_sentences_are_short() -> None:
    subject = "CN=Provider, O=Sun (pnclab test), C=DE, DC=CPS"
    assert plain(f"{subject} signs contract chain, key") == "Provider signs contract chain, key"
    assert plain("owes for DEPLG-2B1E3C3AE4B2D153 now") == "owes for DEPLG-2B1E… now"


def test_lines_fit_the_room_and_tell_where_they_are_cut() -> None:
    lines = wrapped("a sentence of many words that goes on and on " * 4, 12, 120, 3)
    assert len(lines) == 3
    assert all(width(line, 12) <= 120 for line in lines)
    assert lines[-1].endswith("…")
    assert wrapped("short", 12, 120, 3) == ["short"]


def test_totals_do_not_count_what_the_demonstration_itself_asked() -> None:
    outside = event("http", "GET /ledger", "outside", "sun", 2.0, cost={"bytes": 999_999})
    told = [*visit(0, accepted=False), outside]
    figures = {what: figure for figure, what in page(story(told)).totals}
    assert figures["message pairs over the cable"] == "2"
    assert figures["calls between parties"] == "1"
    assert figures["carried and issued"] == "24 B"
