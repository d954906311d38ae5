"""The demonstration: one car, from the factory to a paid charge, in eight steps.

Plays on a running ecosystem through the parties' own interfaces and tells it as a
:class:`~scenarios.story.Story`. The texts are for people who have never seen Plug &
Charge; what happened is taken from the event streams and checked: a step that does not
come out as it must ends the demonstration with :class:`DemoError`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from services.common.events import Event
from services.common.problems import NotAsExpectedError
from services.ecosystem import Ecosystem, PartyConfig

from .lab import Lab
from .story import PartyView, Step, Story

TITLES = (
    "Who vouches for whom",
    "The factory builds a car",
    "A driver signs a contract",
    "The car plugs in and receives its contract",
    "The car proves who pays",
    "Energy flows, and the car signs for it",
    "The money follows",
    "The second visit, the refused third, and the neighbour",
)

TEXTS = (
    "Nobody at a charger knows anybody. So before anything happens, a few parties make keys "
    "and certify each other's: a root at the top of each tree, two authorities below it, "
    "and below those the certificates that are used in the field. Whoever trusts a root "
    "trusts what stands under it, for the purpose it was issued for.",
    "The car makes a key that never leaves it. Its maker certifies the key under the car's "
    "PCID (the provisioning certificate) and registers it in a pool, so that others can "
    "later encrypt something that only this car can open.",
    "The driver chooses a mobility operator, which opens an account under an EMAID and makes "
    "a contract certificate with a key. The key is encrypted for the car; the provisioning "
    "service checks the whole and signs it, and the contract waits in a pool.",
    "The car has no contract yet, so it asks for one with a request that it signs. Charger "
    "and operator pass it on unread; the pool finds the contract that waits for this car. "
    "The car checks who signed it, decrypts the key, compares it with the certificate, and "
    "only then believes.",
    "The car shows its contract certificate. The operator follows its chain up to a root it "
    "trusts and asks whether anything in it was revoked. The charger sends sixteen random "
    "bytes, the car signs them with the contract's key, and the mobility operator says "
    "whether it will pay under the tariff that is posted here.",
    "Every reading of the meter is signed by the car with the contract's key: a receipt "
    "that neither side can make up later.",
    "The charge point operator sends a record of the session with the receipts. The mobility "
    "operator recomputes the price, checks every receipt, invoices the driver and owes the "
    "operator: each posting has its counterpart, and the books add up to zero.",
    "The second time the contract is already in the car, and it charges at another operator's "
    "charger just the same. Then the contract is revoked. The certificate in the car has not "
    "changed, yet the third visit is refused, because whoever issued it now says so. The "
    "neighbour has another maker's car and a contract of a mobility operator whose sub-CAs hang "
    "under the V2G root: all find each other by the identifiers in the certificates.",
)

LEAD = (
    "With Plug & Charge a driver plugs in and that is all: no card, no app. The car itself "
    "tells the charger who pays, and proves it. For that the car carries a contract: a "
    "certificate whose key only this car has. This page shows one car’s way there, from the "
    "factory to an invoice, and the day on which its contract no longer counts. Read it from "
    "top to bottom as a story, or open any line to see the message behind it, decoded and in "
    "bytes."
)

# Seconds within which a visit must be settled.
SETTLED_WITHIN = 30.0


class DemoError(NotAsExpectedError):
    """A step did not come out as it must."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"step {step} ({TITLES[step - 1]}): {reason}")
        self.step = step


@dataclass(frozen=True)
class Cast:
    """Who plays: the driver's car, its maker and operators, and the others next door."""

    oem: PartyConfig
    mo: PartyConfig
    cpo: PartyConfig
    charger: PartyConfig
    garage: PartyConfig
    away: PartyConfig
    """The charger of the second visit: another operator's, where there is one."""
    neighbour_oem: PartyConfig
    neighbour_mo: PartyConfig

    @classmethod
    def of(cls, ecosystem: Ecosystem) -> Cast:
        """The first of each kind, and the second where there are two."""

        def two(kind: str) -> tuple[PartyConfig, PartyConfig]:
            found = ecosystem.of_kind(kind)
            if not found:
                raise DemoError(1, f"the ecosystem has no party of kind {kind}")
            return found[0], found[1 if len(found) > 1 else 0]

        garage = two("vehicle")[0]
        charger = two("charger")[0]
        away = next(
            (
                other
                for other in ecosystem.of_kind("charger")
                if other.uses["cpo"] != charger.uses["cpo"]
            ),
            charger,
        )
        oem = ecosystem.party(garage.uses["oem"])
        others = [other for other in ecosystem.of_kind("oem") if other is not oem]
        mo, neighbour_mo = two("mo")
        return cls(
            oem,
            mo,
            ecosystem.party(charger.uses["cpo"]),
            charger,
            garage,
            away,
            others[0] if others else oem,
            neighbour_mo,
        )


class Demo:
    """Plays the eight steps; ``on_step`` is awaited with each finished step."""

    def __init__(
        self,
        ecosystem: Ecosystem,
        on_step: Callable[[Step], Awaitable[None]] | None = None,
    ) -> None:
        self.ecosystem = ecosystem
        self.cast = Cast.of(ecosystem)
        self.run = f"demo-{secrets.token_hex(4)}"
        self.on_step = on_step
        self._seen = 0

    async def play(self, lab: Lab) -> Story:
        """All eight steps. DemoError where one does not come out as it must."""
        lab.run = self.run
        self.lab = lab
        self.story = Story(
            title="Plug & Charge, from the factory to a paid charge",
            run=self.run,
            began_at="",
            trust_model=self.ecosystem.trust_model.title,
            trust_says=self.ecosystem.trust_model.says,
            parties=[
                PartyView(
                    party.name,
                    party.kind,
                    party.title,
                    party.organisation,
                    party.scope_id or party.options.get("evse_id", ""),
                )
                for party in self.ecosystem.parties.values()
            ],
            lead=LEAD,
        )
        await self._trust()
        await self._car()
        await self._contract()
        await self._first_visit()
        await self._later_visits()
        return self.story

    # ------------------------------------------------------------------- steps

    async def _trust(self) -> None:
        start = time.monotonic()
        events = await self.lab.events("start")
        issued = [event for event in events if event.kind == "issued"]
        if not issued:
            # The ecosystem is older than this run: its certificates are there all the same.
            issued = await self._known_authorities()
        self.story.began_at = str(min(event.at for event in issued if event.at))
        roots = [event for event in issued if event.name.endswith("root")]
        others = len(issued) - len(roots)
        await self._tell(
            1,
            issued,
            f"{len(roots)} roots, {others} certificates under them "
            f"({self.ecosystem.trust_model.title.lower()})",
            start,
        )

    async def _known_authorities(self) -> list[Event]:
        return [
            Event.from_dict(
                {
                    "kind": "issued",
                    "name": authority["role"],
                    "sender": party.name,
                    "receiver": party.name,
                    "party": party.name,
                    "at": authority["valid_from"],
                    "data": {
                        **authority,
                        "not_before": authority["valid_from"],
                        "not_after": authority["valid_to"],
                    },
                    "response": authority["certificate"],
                }
            )
            for party in self.ecosystem.parties.values()
            if party.kind in ("v2g-root", "oem", "mo")
            for authority in await self.lab.call(party.name, "GET", "/authorities")
        ]

    async def _car(self) -> None:
        start = time.monotonic()
        car = await self.lab.call(
            self.cast.garage.name, "POST", "/vehicles", {"oem": self.cast.oem.name}
        )
        self.pcid: str = car["pcid"]
        self.story.facts["pcid"] = self.pcid
        await self._tell(
            2,
            await self._new_events(),
            f"{self.cast.oem.organisation} built the car {self.pcid}",
            start,
        )

    async def _contract(self) -> None:
        start = time.monotonic()
        driver = await self.lab.call(
            self.cast.mo.name, "POST", "/drivers", {"name": "Ada Driver", "deposit": "50.00"}
        )
        contract = await self.lab.call(
            self.cast.mo.name, "POST", "/contracts", {"driver": driver["id"], "pcid": self.pcid}
        )
        self.driver: str = driver["id"]
        self.emaid: str = contract["emaid"]
        self.story.facts |= {"driver": driver["name"], "emaid": self.emaid}
        self._must(3, contract["status"] == "active", f"the contract is {contract['status']}")
        await self._tell(
            3,
            await self._new_events(),
            f"{self.cast.mo.organisation} and {driver['name']} have a contract: {self.emaid}",
            start,
        )

    async def _first_visit(self) -> None:
        start = time.monotonic()
        outcome = await self._charge(8000)
        spent = time.monotonic() - start
        self._must(4, outcome["installed"], f"no contract was installed: {outcome['reason']}")
        self._must(
            5 if outcome["energy_wh"] == 0 else 6,
            outcome["outcome"] == "charged",
            f"{outcome['outcome']} at {outcome['stage']}: {outcome['code']} {outcome['reason']}",
        )
        await self._books(7, visits=1)
        parts = _chapters(await self._new_events())
        results = (
            f"the contract {outcome['emaid']} is in the car",
            "the contract's chain, the car's signature and the operator's word: it may charge",
            f"{_kwh(outcome['energy_wh'])}, each reading of the meter signed by the car",
            f"the driver pays {self.invoices[-1]['total']} {self.invoices[-1]['currency']}, "
            f"{self.cast.cpo.organisation} gets {self.invoices[-1]['charging']} "
            f"{self.invoices[-1]['currency']}; the books balance to the cent",
        )
        for number, part, result in zip((4, 5, 6, 7), parts, results, strict=True):
            await self._tell(number, part, result, start, spent * len(part) / sum(map(len, parts)))

    async def _later_visits(self) -> None:
        start = time.monotonic()
        second = await self._charge(5000, self.cast.away)
        self._must(
            8,
            second["outcome"] == "charged" and not second["installed"],
            f"the second visit was {second['outcome']} at {second['stage']}: {second['reason']}",
        )
        await self._books(8, visits=2)
        await self.lab.call(
            self.cast.mo.name,
            "POST",
            f"/contracts/{self.emaid}/revoke",
            {"reason": "cessationOfOperation"},
        )
        third = await self._charge(5000)
        self._must(
            8,
            (third["outcome"], third["code"]) == ("refused", "FAILED_CertificateRevoked"),
            f"the third visit was {third['outcome']}: {third['code']} {third['reason']}",
        )
        self.story.facts["third_visit"] = third["code"]
        neighbour = await self._neighbour()
        await self._tell(
            8,
            await self._new_events(),
            f"the second visit, at {self.cast.away.organisation}, charged "
            f"{_kwh(second['energy_wh'])} without an installation; the third was refused, as it "
            f"must be: the contract was revoked ({third['code']}); next door "
            f"{neighbour['emaid']} charged {_kwh(neighbour['energy_wh'])}",
            start,
        )

    async def _neighbour(self) -> Any:
        """Another maker's car with a contract of the other mobility operator charges."""
        car = await self.lab.call(
            self.cast.garage.name, "POST", "/vehicles", {"oem": self.cast.neighbour_oem.name}
        )
        operator = self.cast.neighbour_mo.name
        driver = await self.lab.call(
            operator, "POST", "/drivers", {"name": "Grace Neighbour", "deposit": "50.00"}
        )
        await self.lab.call(
            operator, "POST", "/contracts", {"driver": driver["id"], "pcid": car["pcid"]}
        )
        charged = await self._visit(car["pcid"], 5000, self.cast.away)
        self._must(
            8,
            charged["outcome"] == "charged",
            f"the neighbour's visit was {charged['outcome']} at {charged['stage']}: "
            f"{charged['reason']}",
        )
        self.story.facts["neighbour"] = charged["emaid"]
        return charged

    # ------------------------------------------------------------------- parts

    async def _charge(self, energy_wh: int, charger: PartyConfig | None = None) -> Any:
        return await self._visit(self.pcid, energy_wh, charger or self.cast.charger)

    async def _visit(self, pcid: str, energy_wh: int, charger: PartyConfig) -> Any:
        return await self.lab.call(
            self.cast.garage.name,
            "POST",
            f"/vehicles/{pcid}/charge",
            {"charger": charger.name, "energy_wh": energy_wh},
        )

    async def _books(self, step: int, *, visits: int) -> None:
        """The books of both sides must agree to the cent.

        A record is sent when the car has gone, so that the last invoice may take a moment.
        """
        mo = self.cast.mo.name
        cpos = {self.cast.cpo.name, self.cast.away.uses["cpo"]}
        until = time.monotonic() + SETTLED_WITHIN
        while True:
            self.invoices = await self.lab.call(mo, "GET", "/invoices", driver=self.driver)
            asked = {cpo: await self._receivable(cpo, mo) for cpo in cpos}
            owed = {cpo: _sum("charging", self.invoices, cpo) for cpo in cpos}
            if (len(self.invoices) == visits and asked == owed) or time.monotonic() > until:
                break
            await asyncio.sleep(0.1)
        ledger = await self.lab.call(mo, "GET", "/ledger")
        account = await self.lab.call(mo, "GET", f"/drivers/{self.driver}")
        self._must(
            step,
            len(self.invoices) == visits,
            f"{visits} visits, and {len(self.invoices)} invoices after {SETTLED_WITHIN:g} s",
        )
        self._must(step, ledger["total_cents"] == 0, "the ledger does not add up to zero")
        for cpo in cpos:
            booked = Decimal(-ledger["accounts"].get(f"cpo:{cpo}", 0)) / 100
            self._must(
                step, booked == asked[cpo], f"{mo} owes {booked}, {cpo} expects {asked[cpo]}"
            )
        charged = _sum("total", self.invoices)
        self._must(
            step,
            Decimal(account["balance"]) == Decimal("50.00") - charged,
            f"50.00 were paid in, {charged} invoiced, {account['balance']} are left",
        )
        self.story.facts |= {
            "invoices": self.invoices,
            "balance": account["balance"],
            "accounts_cents": ledger["accounts"],
            "receivables": {mo: str(sum(asked.values()))},
        }

    async def _receivable(self, cpo: str, mo: str) -> Decimal:
        """What ``cpo`` expects from ``mo``."""
        return Decimal((await self.lab.call(cpo, "GET", "/receivables")).get(mo, "0"))

    async def _new_events(self) -> list[Event]:
        """The run's events that no earlier step has told."""
        events = await self.lab.events(self.run)
        fresh = [event for event in events if event.real > self._told_until]
        self._told_until = max((event.real for event in events), default=self._told_until)
        return fresh

    _told_until = 0.0

    async def _tell(
        self,
        number: int,
        events: Sequence[Event],
        result: str,
        start: float,
        seconds: float | None = None,
    ) -> None:
        spent = time.monotonic() - start if seconds is None else seconds
        step = Step(
            number,
            TITLES[number - 1],
            TEXTS[number - 1],
            result,
            events=list(events),
            seconds=round(spent, 3),
        )
        self.story.steps.append(step)
        self.story.seconds[f"step {number}"] = step.seconds
        if self.on_step is not None:
            await self.on_step(step)

    def _must(self, step: int, holds: bool, reason: str) -> None:
        if not holds:
            raise DemoError(step, reason)


def _sum(field: str, invoices: Sequence[Any], cpo: str | None = None) -> Decimal:
    return sum((Decimal(one[field]) for one in invoices if cpo in (None, one["cpo"])), Decimal(0))


def _kwh(energy_wh: int) -> str:
    return f"{Decimal(energy_wh) / 1000:g} kWh"


# The first visit is one session; these mark where its chapters begin.
_SETTLING = {"invoice", "charge detail record", "session settled"}


def _chapters(events: Sequence[Event]) -> tuple[list[Event], ...]:
    """The first visit's events as steps 4 to 7: install, authorize, charge, settle."""
    installing: list[Event] = []
    proving: list[Event] = []
    charging: list[Event] = []
    settling: list[Event] = []
    current = installing
    for event in events:
        if event.name in _SETTLING:
            settling.append(event)
            continue
        if current is installing and event.name in ("check contract", "PaymentDetailsReq"):
            current = proving
        if current is proving and event.name == "ChargeParameterDiscoveryReq":
            current = charging
        current.append(event)
    return installing, proving, charging, settling
