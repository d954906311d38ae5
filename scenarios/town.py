"""What scenarios play on: a running ecosystem, with words for what people do in it.

A scenario builds cars, lets drivers sign contracts, charges, moves the clock, sets faults,
stops parties. All of it goes through the parties' own doors; only stopping and starting a
party is done from outside, as it would be in the field.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from services.common.events import Event
from services.common.problems import NotAsExpectedError
from services.ecosystem import Ecosystem, PartyConfig

from .lab import Lab
from .parties import Parties
from .scenario import CHARGED, Ending
from .timing import move, settle

# Seconds within which a session that was charged must be settled or disputed.
SETTLED_WITHIN = 30.0
ENERGY_WH = 2000


class NotPlayable(NotAsExpectedError):
    """The ecosystem has not what the scenario needs."""


@dataclass(frozen=True)
class Car:
    """A car in a garage."""

    pcid: str
    oem: str
    garage: str


@dataclass(frozen=True)
class Driver:
    """Somebody with an account at a mobility operator."""

    id: str
    operator: str


@dataclass(frozen=True)
class Contract:
    """A contract of a driver for a car."""

    emaid: str
    operator: str
    driver: Driver
    car: Car


@dataclass(frozen=True)
class Visit:
    """A visit to a charger, and what became of its record."""

    ending: Ending
    emaid: str | None
    installed: bool
    energy_wh: int
    charger: str
    session: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cast:
    """Who plays which part in an ecosystem of two of each."""

    oem: PartyConfig
    other_oem: PartyConfig
    operator: PartyConfig
    """A mobility operator with a root of its own, where the trust model has that."""
    hosted_operator: PartyConfig
    """A mobility operator under the V2G root."""
    cpo: PartyConfig
    other_cpo: PartyConfig
    charger: PartyConfig
    other_charger: PartyConfig
    garage: PartyConfig

    @classmethod
    def of(cls, ecosystem: Ecosystem) -> Cast:
        """The first two of each kind. NotPlayable where there are fewer."""

        def two(kind: str) -> tuple[PartyConfig, PartyConfig]:
            found = ecosystem.of_kind(kind)
            if len(found) < 2:
                raise NotPlayable(
                    f"the scenarios need two parties of kind {kind}; the ecosystem has {len(found)}"
                )
            return found[0], found[1]

        oem, other_oem = two("oem")
        cpo, other_cpo = two("cpo")
        operators = sorted(
            ecosystem.of_kind("mo"), key=lambda party: party.options["root"] == "v2g"
        )
        if len(operators) < 2:
            raise NotPlayable("the scenarios need two mobility operators")
        chargers = {party.uses["cpo"]: party for party in reversed(ecosystem.of_kind("charger"))}
        for operator in (cpo, other_cpo):
            if operator.name not in chargers:
                raise NotPlayable(f"{operator.name} has no charger")
        garages = ecosystem.of_kind("vehicle")
        if not garages:
            raise NotPlayable("the scenarios need a party of kind vehicle")
        return cls(
            oem,
            other_oem,
            operators[0],
            operators[-1],
            cpo,
            other_cpo,
            chargers[cpo.name],
            chargers[other_cpo.name],
            garages[0],
        )


class Town:
    """One play of one scenario on a running ecosystem.

    ``spoiling`` says whether this play is the spoiled one or its twin, ``policies`` under
    which policies the parties run.
    """

    def __init__(
        self,
        ecosystem: Ecosystem,
        parties: Parties,
        lab: Lab,
        *,
        spoiling: bool = True,
        policies: dict[str, str] | None = None,
    ) -> None:
        self.ecosystem = ecosystem
        self.parties = parties
        self.lab = lab
        self.spoiling = spoiling
        self.policies = policies or {}
        self.cast = Cast.of(ecosystem)

    # ---------------------------------------------------------------- people

    async def car(self, oem: PartyConfig | None = None) -> Car:
        """A new car."""
        maker = (oem or self.cast.oem).name
        built = await self.lab.call(self.cast.garage.name, "POST", "/vehicles", {"oem": maker})
        return Car(built["pcid"], maker, self.cast.garage.name)

    async def driver(self, operator: PartyConfig | None = None, deposit: str = "50.00") -> Driver:
        """A new driver with an account at ``operator``."""
        name = (operator or self.cast.operator).name
        opened = await self.lab.call(
            name, "POST", "/drivers", {"name": "Ada Driver", "deposit": deposit}
        )
        return Driver(opened["id"], name)

    async def contract(
        self,
        car: Car,
        operator: PartyConfig | None = None,
        *,
        driver: Driver | None = None,
        **more: Any,
    ) -> Contract:
        """A contract for ``car`` with ``operator``, of a new driver unless one is given."""
        driver = driver or await self.driver(operator)
        signed = await self.lab.call(
            driver.operator, "POST", "/contracts", {"driver": driver.id, "pcid": car.pcid, **more}
        )
        return Contract(signed["emaid"], driver.operator, driver, car)

    async def contracted(self, operator: PartyConfig | None = None, **more: Any) -> Contract:
        """A new car with a contract that waits for it in the pool."""
        return await self.contract(await self.car(), operator, **more)

    async def installed(self, operator: PartyConfig | None = None, **more: Any) -> Contract:
        """A new car that has its contract in it already (it has charged once)."""
        contract = await self.contracted(operator, **more)
        visit = await self.visit(contract.car)
        self.must(
            visit.ending.outcome == CHARGED,
            f"the visit that should have installed the contract ended {visit.ending}",
        )
        return contract

    # ---------------------------------------------------------------- visits

    async def visit(
        self,
        car: Car,
        charger: PartyConfig | None = None,
        *,
        energy_wh: int = ENERGY_WH,
        installation: str = "auto",
        emaid: str | None = None,
        settle: bool = True,
    ) -> Visit:
        """Plug in and charge; with what became of the session's record, once it is settled."""
        place = charger or self.cast.charger
        told = time.time()
        body: dict[str, Any] = {
            "charger": place.name,
            "energy_wh": energy_wh,
            "installation": installation,
        }
        if emaid is not None:
            body["emaid"] = emaid
        said = await self.lab.call(
            car.garage, "POST", f"/vehicles/{quote(car.pcid, safe='')}/charge", body
        )
        session: dict[str, Any] = {}
        if said["outcome"] == CHARGED and settle:
            session = await self._settled(place.uses["cpo"], place.name, said["emaid"])
        status = session.get("status", "")
        reasons = [said["reason"], *await self._reasons(told)]
        if session.get("reason"):
            reasons.append(session["reason"])
        return Visit(
            Ending(
                said["outcome"],
                said["stage"],
                said["code"],
                status if status in ("settled", "disputed") else "",
                "; ".join(dict.fromkeys(reason for reason in reasons if reason)),
            ),
            said["emaid"],
            said["installed"],
            said["energy_wh"],
            place.name,
            session,
        )

    async def charge(self, car: Car, charger: PartyConfig | None = None, **more: Any) -> Ending:
        """The ending of a visit."""
        return (await self.visit(car, charger, **more)).ending

    async def _settled(self, cpo: str, charger: str, emaid: str) -> dict[str, Any]:
        """The newest session of a contract at a charger, when somebody has answered its record."""
        until = time.monotonic() + SETTLED_WITHIN
        while True:
            sessions = await self.lab.call(cpo, "GET", "/sessions")
            mine = [one for one in sessions if (one["charger"], one["emaid"]) == (charger, emaid)]
            if mine and mine[-1]["status"] not in ("charging", "ended"):
                found: dict[str, Any] = mine[-1]
                return found
            if time.monotonic() > until:
                return mine[-1] if mine else {}
            await asyncio.sleep(0.05)

    async def _reasons(self, since: float) -> list[str]:
        """Why somebody refused something since then, in this run: the parties' own verdicts."""
        if self.lab.run is None:
            return []
        return [
            event.summary
            for event in await self.lab.events(self.lab.run, parties=self.parties.names)
            if event.real >= since and event.kind == "verdict" and event.outcome != "ok"
        ]

    # ------------------------------------------------------ contracts and CAs

    async def revoke(self, contract: Contract, reason: str = "keyCompromise") -> None:
        await self._contract(contract, "revoke", {"reason": reason})

    async def cancel(self, contract: Contract) -> None:
        await self._contract(contract, "cancel")

    async def block(self, driver: Driver) -> None:
        await self.lab.call(
            driver.operator, "PUT", f"/drivers/{driver.id}/blocked", {"blocked": True}
        )

    async def make_default(self, contract: Contract) -> None:
        """The car pays with this contract unless another one is asked for."""
        await self.lab.call(
            contract.car.garage,
            "PUT",
            f"/vehicles/{contract.car.pcid}/default-contract",
            {"emaid": contract.emaid},
        )

    async def in_use(self, car: Car) -> dict[str, Any]:
        """The contract that the car pays with now."""
        seen = await self.lab.call(car.garage, "GET", f"/vehicles/{car.pcid}")
        found: dict[str, Any] | None = seen["contract"]
        if found is None:
            raise NotAsExpectedError(f"the car {car.pcid} has no contract")
        return found

    async def distrust(self, holder: PartyConfig, party: PartyConfig, role: str) -> None:
        """Take the root of ``party`` out of the trust store of ``holder``."""
        authorities = await self.lab.call(party.name, "GET", "/authorities")
        for one in authorities:
            if one["role"] == role:
                await self.lab.call(
                    holder.name, "DELETE", f"/trust-store/anchors/{one['fingerprint']}"
                )

    async def sell(self, contract: Contract, **options: Any) -> dict[str, Any]:
        """The car changes hands."""
        sold: dict[str, Any] = await self.lab.call(
            contract.car.garage, "POST", f"/vehicles/{contract.car.pcid}/sell", options
        )
        return sold

    async def afterwards(self, visit: Visit) -> Ending:
        """The ending of a visit whose record could not be settled at once, when it is."""
        if visit.ending.outcome != CHARGED:
            return visit.ending
        assert visit.emaid is not None
        cpo = self.ecosystem.party(visit.charger).uses["cpo"]
        session = await self._settled(cpo, visit.charger, visit.emaid)
        return replace(visit.ending, paid=session.get("status", ""))

    async def until(self, contract: Contract, status: str) -> None:
        """Wait until a contract has this status: what spans operators takes a round."""
        until = time.monotonic() + SETTLED_WITHIN
        path = f"/contracts/{quote(contract.emaid, safe='')}"
        while True:
            for party in self.ecosystem.of_kind("mo"):
                await self.lab.call(party.name, "POST", "/jobs/run")
            seen = await self.lab.call(contract.operator, "GET", path)
            if seen["status"] == status:
                return
            if time.monotonic() > until:
                raise NotAsExpectedError(
                    f"{contract.emaid} is {seen['status']}, not {status}, after "
                    f"{SETTLED_WITHIN:g} s"
                )
            await asyncio.sleep(0.1)

    async def _contract(self, contract: Contract, verb: str, body: Any = None) -> None:
        path = f"/contracts/{quote(contract.emaid, safe='')}/{verb}"
        await self.lab.call(contract.operator, "POST", path, body)

    async def authority(self, party: PartyConfig, role: str) -> dict[str, Any]:
        """The CA of ``role`` that ``party`` issues with now."""
        authorities = await self.lab.call(party.name, "GET", "/authorities")
        found: dict[str, Any] = next(one for one in authorities if one["role"] == role)
        return found

    async def revoke_authority(self, party: PartyConfig, role: str) -> None:
        """Revoke the CA of ``role`` that ``party`` has now."""
        await self.revoke_certificate(party, (await self.authority(party, role))["fingerprint"])

    async def revoke_certificate(self, party: PartyConfig, fingerprint: str) -> None:
        """Revoke a CA certificate that ``party`` issued."""
        body = {"fingerprint": fingerprint, "reason": "cACompromise"}
        await self.lab.call(party.name, "POST", "/revocations", body)

    async def roll_over(self, party: PartyConfig, role: str, *, cascade: bool = False) -> None:
        """A new key and certificate for the authority of ``role``; a root is published."""
        body: dict[str, Any] = {"cascade": cascade}
        if role.endswith("root"):
            body["publish"] = True
        await self.lab.call(party.name, "POST", f"/authorities/{role}/rollover", body)

    async def lose_key(self, party: PartyConfig, role: str) -> None:
        """The private key of an authority is destroyed."""
        await self.lab.call(party.name, "DELETE", f"/authorities/{role}/key")

    async def over_the_air(self, car: Car) -> None:
        """The car takes over the V2G roots that its maker has for it."""
        await self.lab.call(car.garage, "POST", f"/vehicles/{car.pcid}/over-the-air")

    async def invoices(self, driver: Driver) -> list[dict[str, Any]]:
        """What a driver was invoiced."""
        found: list[dict[str, Any]] = await self.lab.call(
            driver.operator, "GET", "/invoices", driver=driver.id
        )
        return found

    # ----------------------------------------------------- clock, faults, outages

    async def now(self) -> datetime:
        """Ecosystem time."""
        shown = await self.lab.call(self.cast.garage.name, "GET", "/clock")
        return datetime.fromisoformat(shown["now"])

    async def instant(self, from_now: timedelta) -> str:
        """An instant of ecosystem time as doors want it (ISO 8601)."""
        return (await self.now() + from_now).isoformat()

    async def advance(self, duration: str) -> None:
        """Move the ecosystem's clock (``30d``, ``-2d``); everybody does what is due then."""
        await move(self.lab, {"advance": duration}, self.parties.names)
        await settle(self.lab, self.parties.names)

    @contextlib.asynccontextmanager
    async def fault(
        self, party: PartyConfig, kind: str, parameters: dict[str, Any] | None = None, **more: Any
    ) -> AsyncIterator[None]:
        """``party`` misbehaves inside the block, where the play is the spoiled one.

        ``more`` are the fault's target and bounds: pcid, emaid, charger, calls ...
        """
        if not self.spoiling:
            yield
            return
        calls = more.pop("calls", None)
        body: dict[str, Any] = {"kind": kind, "target": more, "parameters": parameters or {}}
        if calls is not None:
            body["calls"] = calls
        made = await self.lab.call(party.name, "POST", "/faults", body)
        try:
            yield
        finally:
            if party.name in self.parties.names:
                await self.lab.call(party.name, "DELETE", f"/faults/{made['id']}")

    @contextlib.asynccontextmanager
    async def without(self, *parties: PartyConfig) -> AsyncIterator[None]:
        """``parties`` are down inside the block, where the play is the spoiled one."""
        if not self.spoiling:
            yield
            return
        async with self.parties.without(*(party.name for party in parties)):
            yield

    # ---------------------------------------------------------------- checking

    async def events(self) -> list[Event]:
        """What happened in this play so far."""
        assert self.lab.run is not None
        return await self.lab.events(self.lab.run, parties=self.parties.names)

    def must(self, holds: bool, reason: str) -> None:
        """NotAsExpectedError with ``reason`` where something in the story does not hold."""
        if not holds:
            raise NotAsExpectedError(reason)

    def one(self, kind: str) -> PartyConfig:
        """The first party of a kind."""
        found = self.ecosystem.of_kind(kind)
        if not found:
            raise NotPlayable(f"the ecosystem has no party of kind {kind}")
        return found[0]
