"""One fleet, played under one trust model, and what came of it.

The parties run in this process and talk to each other over HTTP and the cable as ever. Three
things make a second play equal to the first: all keys and identifiers follow from the seed, the
clock stands, and one car is played after the other. Where a party listens does not matter:
certificates name the addresses of the ecosystem file.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from cryptography import x509
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pki.profiles import Role
from pki.trust import TrustModel
from services.common.certificates import der_of, from_pem
from services.common.clock import Clock
from services.common.party import Party
from services.common.problems import NotAsExpectedError
from services.cpo.store import SessionRow
from services.ecosystem import Ecosystem
from services.mo.store import ContractRow, InvoiceRow

from ..lab import Lab
from ..parties import Parties
from ..timing import move, settle
from . import counting
from .fleet import Vehicle, fleet
from .table import Row

BEGINS = datetime(2027, 1, 4, 6, tzinfo=UTC)
BETWEEN_VISITS = timedelta(days=7)
# A contract that expires between the visits.
SHORT = timedelta(days=3)
STEPS = ("build", "sign", "first", "second")
DEPOSIT = "500.00"
SETTLED_WITHIN = 30.0

# What is done, of how many: told while the fleet is played.
OnStep = Callable[[str, int, int], None]


@dataclass
class Played:
    """What became of a vehicle."""

    vehicle: Vehicle
    pcid: str = ""
    emaid: str = ""
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Scene:
    """A running ecosystem on which a fleet was played."""

    ecosystem: Ecosystem
    parties: Parties
    lab: Lab
    garage: str
    seed: str
    played: list[Played] = field(default_factory=list)

    def party(self, name: str) -> Party:
        found: Party = self.parties.app(name).state.party
        return found

    def service(self, name: str) -> Any:
        return self.parties.app(name).state.service

    def now(self) -> datetime:
        return self.party(self.garage).clock.now()


def prepared(ecosystem: Ecosystem, model: TrustModel, seed: str, folder: Path) -> Ecosystem:
    """``ecosystem`` as it is played: under ``model`` and the seed, on free ports, with its data
    in ``folder``, and the clock standing. Its own cars, and what is brought into it, stay out."""
    Clock.kept_in(folder).show(BEGINS, standing=True)
    alone = replace(
        ecosystem, trust_model=model, seed=seed, cars=(), bring=(), clock_offset=timedelta()
    )
    seen_at = {party.name: party.seen_at for party in ecosystem.parties.values()}
    placed = alone.in_folder(folder).on_free_ports()
    parties = {
        name: replace(party, public_url=seen_at[name]) for name, party in placed.parties.items()
    }
    return replace(placed, parties=parties)


async def play(
    ecosystem: Ecosystem,
    model: TrustModel,
    size: int,
    seed: str,
    *,
    on_step: OnStep,
    then: Callable[[Scene], Any] | None = None,
) -> list[Row]:
    """The rows of ``size`` vehicles under ``model``; ``then`` may go on with the scene and give
    further rows. NotAsExpectedError where books and events contradict each other."""
    with tempfile.TemporaryDirectory(prefix="pnclab-compare-") as folder:
        chosen = prepared(ecosystem, model, seed, Path(folder))
        planned = fleet(chosen, size, seed)
        async with Parties(chosen) as parties, Lab(chosen) as lab:
            garage = chosen.of_kind("vehicle")[0].name
            scene = Scene(chosen, parties, lab, garage, seed, [Played(one) for one in planned])
            await settle(lab, parties.names)
            await _know_all_roots(scene)
            await _play(scene, on_step)
            rows = await _rows(scene)
            if then is not None:
                rows += await then(scene)
            return rows


async def _know_all_roots(scene: Scene) -> None:
    """Have every party look which roots there are: who started first saw fewer."""
    for name in scene.ecosystem.parties:
        for keeper in scene.party(name).keepers.values():
            await keeper.renew()
    # A charger asks its operator, who may have looked after it.
    for charger in scene.ecosystem.of_kind("charger"):
        await scene.party(charger.name).keepers["trust-store"].renew()


async def _play(scene: Scene, on_step: OnStep) -> None:
    size = len(scene.played)
    for number, one in enumerate(scene.played, 1):
        on_step("cars, contracts, first visits", number, size)
        await _build(scene, one)
        await _sign(scene, one)
        await _visit(scene, one, "first", one.vehicle.first, one.vehicle.first_wh, "auto")
    await _settled(scene)
    for one in scene.played:
        if one.vehicle.fate == "revoked":
            scene.lab.run = _run(one, "fate")
            path = f"/contracts/{quote(one.emaid, safe='')}/revoke"
            await scene.lab.call(one.vehicle.operator, "POST", path, {"reason": "keyCompromise"})
    scene.lab.run = None
    body = {"instant": (BEGINS + BETWEEN_VISITS).isoformat(), "standing": True}
    await move(scene.lab, body, scene.parties.names)
    await settle(scene.lab, scene.parties.names)
    for number, one in enumerate(scene.played, 1):
        on_step("second visits", number, size)
        # What the contract in the car is worth is the question: it asks for no other one.
        await _visit(scene, one, "second", one.vehicle.second, one.vehicle.second_wh, "never")
    await _settled(scene)
    scene.lab.run = None


def _run(one: Played, step: str) -> str:
    return f"compare-{one.vehicle.number:04d}-{step}"


async def _build(scene: Scene, one: Played) -> None:
    scene.lab.run = _run(one, "build")
    built = await scene.lab.call(scene.garage, "POST", "/vehicles", {"oem": one.vehicle.maker})
    one.pcid = built["pcid"]


async def _sign(scene: Scene, one: Played) -> None:
    scene.lab.run = _run(one, "sign")
    operator = one.vehicle.operator
    driver = await scene.lab.call(
        operator,
        "POST",
        "/drivers",
        {"name": f"Driver {one.vehicle.number}", "deposit": DEPOSIT},
    )
    order = {"driver": driver["id"], "pcid": one.pcid}
    if one.vehicle.fate == "expired":
        order["valid_to"] = (BEGINS + SHORT).isoformat()
    signed = await scene.lab.call(operator, "POST", "/contracts", order)
    if signed["status"] != "active":
        raise counting.TooSlow(f"the contract {signed['emaid']} is {signed['status']}")
    one.emaid = signed["emaid"]


async def _visit(
    scene: Scene, one: Played, step: str, charger: str, energy_wh: int, installation: str
) -> None:
    scene.lab.run = _run(one, step)
    body = {"charger": charger, "energy_wh": energy_wh, "installation": installation}
    path = f"/vehicles/{quote(one.pcid, safe='')}/charge"
    said = await scene.lab.call(scene.garage, "POST", path, body)
    if said["outcome"] == "failed":
        raise counting.TooSlow(
            f"car {one.vehicle.number} at {charger}: {said['stage']}: {said['reason']}"
        )
    one.outcomes[step] = said


async def _settled(scene: Scene) -> None:
    """Wait until the record of every session was answered."""
    until = time.monotonic() + SETTLED_WITHIN
    while open_ := [row for row in await _sessions(scene) if row.status in ("charging", "ended")]:
        if time.monotonic() > until:
            raise counting.TooSlow(f"{len(open_)} sessions are not settled: {open_[0].id}")
        await asyncio.sleep(0.02)


async def _sessions(scene: Scene) -> list[SessionRow]:
    found: list[SessionRow] = []
    for operator in scene.ecosystem.of_kind("cpo"):
        found += await scene.party(operator.name).database.read(
            lambda session: list(session.scalars(select(SessionRow)))
        )
    return found


# ------------------------------------------------------------------------------- rows


async def _rows(scene: Scene) -> list[Row]:
    model = scene.ecosystem.trust_model.name
    found = counting.tally(scene.ecosystem, await _events(scene))
    rows = _fleet(model, scene.played)
    rows += counting.rows(model, scene.ecosystem, found, STEPS)
    rows += await _books(scene, model, sum(found.charged.values()))
    rows += await _anchors(scene, model)
    return rows + await _chains(scene, model)


def _fleet(model: str, played: Sequence[Played]) -> list[Row]:
    groups: Mapping[str, Callable[[Vehicle], str]] = {
        "cars made": lambda one: one.maker,
        "contracts signed": lambda one: one.operator,
    }
    rows = [Row(model, "fleet", "all", "vehicles", len(played))]
    for measure, name_of in groups.items():
        names = [name_of(one.vehicle) for one in played]
        rows += [Row(model, "fleet", n, measure, names.count(n)) for n in sorted(set(names))]
    fates = [one.vehicle.fate for one in played]
    return rows + [
        Row(model, "fleet", "all", f"contracts {fate} between the visits", fates.count(fate))
        for fate in sorted(set(fates))
    ]


async def _books(scene: Scene, model: str, charged: int) -> list[Row]:
    """What the books say; the events, the cars and both sides' databases must agree."""
    visits = [said for one in scene.played for said in one.outcomes.values()]
    by_cars = sum(said["outcome"] == "charged" for said in visits)
    settled = sum(row.status == "settled" for row in await _sessions(scene))
    invoices = 0
    for operator in scene.ecosystem.of_kind("mo"):
        invoices += await scene.party(operator.name).database.read(
            lambda session: session.scalar(select(func.count()).select_from(InvoiceRow)) or 0
        )
    if not charged == by_cars == settled == invoices:
        raise NotAsExpectedError(
            f"under {model} {charged} sessions were charged by the events, {by_cars} by the cars, "
            f"{settled} were settled and {invoices} invoiced"
        )
    return [
        Row(model, "sessions", "all", "contracts installed", sum(v["installed"] for v in visits)),
        Row(model, "sessions", "all", "settled", settled),
        Row(model, "sessions", "all", "energy, Wh", sum(v["energy_wh"] for v in visits)),
    ]


async def _events(scene: Scene) -> list[counting.Told]:
    """What all parties keep about the fleet's runs."""
    found: list[counting.Told] = []
    for name in scene.ecosystem.parties:
        party = scene.party(name)
        await party.database.flush()
        table = party.tables.metadata.tables["events"]
        wanted = ("kind", "name", "sender", "receiver", "outcome", "run", "cost", "data")

        def read(session: Session, table: Any = table, wanted: Any = wanted) -> list[counting.Told]:
            query = select(*(table.c[one] for one in wanted)).where(table.c.run.like("compare-%"))
            return [counting.told(dict(row)) for row in session.execute(query).mappings()]

        found += await party.database.read(read)
    return found


async def _anchors(scene: Scene, model: str) -> list[Row]:
    """Anchors that one of each kind of holder has, by their role; the most there are."""
    most: dict[tuple[str, str], int] = {}

    def see(kind: str, roles: Sequence[str]) -> None:
        for role in set(roles):
            most[kind, role] = max(most.get((kind, role), 0), roles.count(role))

    for name, config in scene.ecosystem.parties.items():
        keeper = scene.party(name).keepers.get("trust-store")
        if keeper is not None:
            held = await keeper.stores.get(keeper.holder)
            see(config.kind, [anchor.role.value for anchor in held.anchors])
    for one in scene.played:
        held = await scene.service(scene.garage).stores.get(one.pcid)
        see("vehicle", [anchor.role.value for anchor in held.anchors])
    return [
        Row(model, "anchors", kind, f"anchors held, {role}", number)
        for (kind, role), number in sorted(most.items())
    ]


async def _chains(scene: Scene, model: str) -> list[Row]:
    """How large the chains are that are sent: certificates and bytes, of all of a kind."""
    sizes: dict[tuple[str, Role], list[Sequence[x509.Certificate]]] = {}
    for operator in scene.ecosystem.of_kind("mo"):
        contracts = await scene.party(operator.name).database.read(
            lambda session: list(session.scalars(select(ContractRow)))
        )
        sizes[operator.name, Role.CONTRACT] = [from_pem(row.chain) for row in contracts]
    for charger in scene.ecosystem.of_kind("charger"):
        row = await scene.service(charger.name).certificate()
        sizes[charger.name, Role.SECC] = [from_pem(row.chain)]
    for service in scene.ecosystem.of_kind("cps"):
        sizes[service.name, Role.CPS] = [scene.service(service.name).chain]
    rows = []
    for (who, role), chains in sizes.items():
        about = f"{role.value} chains"
        rows += [
            Row(model, "chains", who, f"{about}, certificates", sum(map(len, chains))),
            Row(
                model,
                "chains",
                who,
                f"{about}, bytes",
                sum(len(der_of(one)) for chain in chains for one in chain),
            ),
        ]
    return [row for row in rows if row.count]
