"""The invoice and the books behind it, from the ledger's events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any

from scenarios.story import Story
from services.common.events import Event

from .text import Names, brief, day, opening


@dataclass(frozen=True)
class Line:
    """A line of the invoice: what, how it was computed, how much."""

    what: str
    how: str
    amount: str


@dataclass(frozen=True)
class Posting:
    """One side of a double entry, in the column where it belongs."""

    account: str
    debit: str
    credit: str


@dataclass
class Invoice:
    """All that an invoice shows, with its postings and the other side's books."""

    number: str
    issuer: str
    organisation: str
    driver: str
    emaid: str
    date: str
    place: str
    operator: str
    session: str
    energy: str
    meter: str
    currency: str
    total: str
    lines: list[Line] = field(default_factory=list)
    postings: list[Posting] = field(default_factory=list)
    debits: str = "0.00"
    credits: str = "0.00"
    difference: str = "0.00"
    receipts: int = 0
    checked: int = 0
    settled: str = ""
    booked: str = ""


def invoices(story: Story, number: int) -> list[Invoice]:
    """The invoices that step ``number`` wrote."""
    everything = [event for step in story.steps for event in step.events]
    here = [event for step in story.steps if step.number == number for event in step.events]
    return [
        _invoice(story, event, everything)
        for event in here
        if event.kind == "ledger" and event.name == "invoice"
    ]


def _invoice(story: Story, event: Event, everything: list[Event]) -> Invoice:
    data = event.data
    names = Names(story.parties)
    cdr = str(data.get("cdr") or "")
    currency = str(data.get("currency") or "")
    operator = names.short(str(data.get("cpo") or event.receiver))
    known: Mapping[str, Any] = next(
        (i for i in story.facts.get("invoices") or () if i.get("cdr") == cdr), {}
    )
    issuer = names.short(event.party or event.sender)
    made = Invoice(
        number=str(known.get("number") or ""),
        issuer=issuer,
        organisation=next(
            (p.organisation for p in names.all() if p.name == (event.party or event.sender)), ""
        ),
        driver=str(story.facts.get("driver") or data.get("driver") or ""),
        emaid=str(data.get("emaid") or ""),
        date=day(event.at.isoformat()) if event.at else "",
        place=str(data.get("evse_id") or ""),
        operator=operator,
        session=brief(cdr),
        energy=_kwh(data.get("energy_wh")),
        meter=f"{_kwh(data.get('meter_start_wh'))} to {_kwh(data.get('meter_stop_wh'))}",
        currency=currency,
        total=str(data.get("total") or ""),
        checked=int(event.cost.get("verifications", 0)),
    )
    made.lines = _lines(event, everything, operator, issuer)
    _post(made, data.get("postings"), story, names, issuer)
    for other in everything:
        if other.name == "charge detail record":
            request, response = other.data.get("request"), other.data.get("response")
            if isinstance(request, Mapping) and request.get("id") == cdr:
                made.receipts = len(request.get("receipts") or ())
            if isinstance(response, Mapping) and response.get("id") == cdr:
                made.booked = str(response.get("status") or "")
        elif other.name == "session settled" and other.data.get("cdr") == cdr:
            made.settled = str(other.data.get("total") or "")
    return made


def _lines(event: Event, everything: list[Event], operator: str, issuer: str) -> list[Line]:
    """The charging in the tariff's parts, if they add up to it; then the operator's service."""
    data = event.data
    lines = _by_tariff(event, everything) or [
        Line(f"Charging at {operator}", _kwh(data.get("energy_wh")), str(data.get("charging")))
    ]
    return [*lines, Line(f"Service of {issuer}", "", str(data.get("service") or "0.00"))]


def _by_tariff(event: Event, everything: list[Event]) -> list[Line]:
    tariff: Mapping[str, Any] | None = None
    for other in everything:
        request = other.data.get("request")
        if (
            other.name == "authorize"
            and other.real <= event.real
            and isinstance(request, Mapping)
            and isinstance(request.get("tariff"), Mapping)
            and request.get("emaid") == event.data.get("emaid")
        ):
            tariff = request["tariff"]
    if tariff is None:
        return []
    energy = Decimal(int(event.data.get("energy_wh") or 0)) / 1000
    try:
        per_kwh, per_session = Decimal(tariff["per_kwh"]), Decimal(tariff["per_session"])
        whole = Decimal(str(event.data.get("charging")))
    except (InvalidOperation, KeyError, TypeError):
        return []
    by_energy = whole - per_session
    if abs(by_energy - per_kwh * energy) > Decimal("0.01"):
        return []
    currency = event.data.get("currency") or ""
    return [
        Line("Energy", f"{energy:.3f} kWh at {per_kwh} {currency}", f"{by_energy:.2f}"),
        Line("Session fee", "once per visit", f"{per_session:.2f}"),
    ]


def _post(made: Invoice, postings: Any, story: Story, names: Names, issuer: str) -> None:
    if not isinstance(postings, Mapping):
        return
    debits = credits_ = Decimal(0)
    for account, amount in postings.items():
        value = Decimal(str(amount))
        debits += max(value, Decimal(0))
        credits_ += max(-value, Decimal(0))
        made.postings.append(
            Posting(
                _account(str(account), made.driver, names, issuer),
                f"{value:.2f}" if value > 0 else "",
                f"{-value:.2f}" if value < 0 else "",
            )
        )
    made.debits, made.credits = f"{debits:.2f}", f"{credits_:.2f}"
    made.difference = f"{debits - credits_:.2f}"


def _account(account: str, driver: str, names: Names, issuer: str) -> str:
    kind, _, name = account.partition(":")
    if kind == "driver":
        return f"{driver}'s account"
    if kind == "cpo":
        return f"Owed to {names.short(name)}"
    if kind == "revenue":
        return f"{issuer}'s revenue"
    return opening(account)


def _kwh(watt_hours: Any) -> str:
    try:
        return f"{Decimal(int(watt_hours)) / 1000:.3f} kWh"
    except (TypeError, ValueError):
        return ""
