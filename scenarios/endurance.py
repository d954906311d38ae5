"""Endurance: parties are killed at random moments under load, and nothing may be missed.

Every party is a process of its own. *People* buy cars, sign contracts, charge and revoke, all at
once and all the time; meanwhile, one round after the other, some party is killed (SIGKILL) and
started again. What people were told is done goes into a journal. When the rounds are over, what
was left half way gets time to complete, and the journal and the parties' books are compared:

* what was acknowledged is there: cars, contracts, revocations, the energy of every visit;
* no issuer used a serial number twice, in its books or in what was told when it was issued;
* no contract and no car is half made;
* books balance: each operator's ledger is zero in sum, what one party owes is what the other one
  is owed, a session is settled once, and every invoice has its charge detail record;
* the cars charge.

The moments, the parties and the people's choices come from one seed. That makes a run similar
to another one with the same seed, not equal: processes take the time that they take.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from pki.identifiers import EMAID
from services.ecosystem import Ecosystem

from .lab import Lab, LabError
from .processes import Processes, running_in_processes

PEOPLE = 3
# Seconds between the readiness of the party that was killed and the next kill, at most.
LONGEST_CALM = 0.5
READY_WITHIN = 60.0
SETTLE_WITHIN = 180.0
# Beyond this much ecosystem time an operator asks its chargers after sessions without an end.
AFTERWARDS = "15m"
# Cars that charge once more at the end.
PROOFS = 20

_LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"


@dataclass(frozen=True)
class Order:
    """A contract that was acknowledged."""

    emaid: str
    operator: str
    driver: str
    pcid: str


@dataclass
class Journal:
    """What people were told is done."""

    cars: dict[str, str] = field(default_factory=dict)
    """PCID: who built it."""
    orders: dict[str, Order] = field(default_factory=dict)
    """By EMAID, 14 characters."""
    revoked: set[str] = field(default_factory=set)
    revoking: set[str] = field(default_factory=set)
    """Asked for, maybe done."""
    charged: Counter[str] = field(default_factory=Counter)
    """EMAID: watt-hours of the visits that went well."""
    visits: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """How calls ended, by what was asked."""
    defects: list[str] = field(default_factory=list)
    """What no kill excuses."""


@dataclass
class Result:
    """How a run went; it went well when there are no ``defects``."""

    rounds: int
    seed: int
    seconds: float
    kills: dict[str, int]
    acknowledged: dict[str, int]
    answers: dict[str, int]
    restart_seconds: dict[str, float]
    defects: list[str]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def endure(
    ecosystem: Ecosystem,
    rounds: int,
    seed: int,
    *,
    on_ready: Callable[[str], None] | None = None,
    on_round: Callable[[int, str], None] | None = None,
) -> Result:
    """Play ``rounds`` kills on ``ecosystem``, whose databases are empty; how it went.

    Raises StartError when a party does not come back.
    """
    begun = time.monotonic()
    async with (
        running_in_processes(ecosystem, on_ready=on_ready) as processes,
        Lab(ecosystem, run="endurance") as lab,
    ):
        played = _Played(ecosystem, lab, processes, seed)
        await played.open_accounts()
        people = [asyncio.create_task(played.live(number)) for number in range(PEOPLE)]
        try:
            await played.kill_and_restart(rounds, on_round)
        finally:
            played.over = True
            await asyncio.wait(people, timeout=60)
            for one in people:
                one.cancel()
            ends = await asyncio.gather(*people, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end
        await played.settle()
        await played.check()
        played.read_logs()
    journal = played.journal
    return Result(
        rounds=rounds,
        seed=seed,
        seconds=round(time.monotonic() - begun, 1),
        kills=dict(sorted(played.kills.items())),
        acknowledged={
            "cars": len(journal.cars),
            "contracts": len(journal.orders),
            "revocations": len(journal.revoked),
            "visits": journal.visits,
            "energy_wh": sum(journal.charged.values()),
        },
        answers=dict(sorted(journal.answers.items())),
        restart_seconds=played.restart_seconds(),
        defects=journal.defects,
    )


def _quartiles(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values) or [0.0]
    return {
        name: round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 2)
        for name, share in (("median", 0.5), ("most", 1.0))
    }


class _Played:
    def __init__(self, ecosystem: Ecosystem, lab: Lab, processes: Processes, seed: int) -> None:
        self.ecosystem = ecosystem
        self.lab = lab
        self.processes = processes
        self.seed = seed
        self.journal = Journal()
        self.kills: Counter[str] = Counter()
        self.restarts: list[float] = []
        self.over = False
        self.drivers: dict[str, str] = {}
        self.garages = [party.name for party in ecosystem.of_kind("vehicle")]
        self.makers = list(ecosystem.of_kind("oem"))
        self.operators = list(ecosystem.of_kind("mo"))
        self.chargers = [party.name for party in ecosystem.of_kind("charger")]

    def restart_seconds(self) -> dict[str, float]:
        return _quartiles(self.restarts)

    # ---------------------------------------------------------------- the kills

    async def kill_and_restart(
        self, rounds: int, on_round: Callable[[int, str], None] | None
    ) -> None:
        choice = random.Random(self.seed)  # noqa: S311 - a play, not a secret
        names = list(self.ecosystem.parties)
        for number in range(1, rounds + 1):
            await asyncio.sleep(choice.uniform(0, LONGEST_CALM))
            name = choice.choice(names)
            begun = time.monotonic()
            await self.processes.kill(name)
            await self.processes.start(name)
            await self.processes.ready(self.lab, name, READY_WITHIN)
            self.restarts.append(time.monotonic() - begun)
            self.kills[name] += 1
            if on_round is not None:
                on_round(number, name)

    # --------------------------------------------------------------- the people

    async def open_accounts(self) -> None:
        for operator in self.operators:
            body = {"name": "Endurance", "deposit": "100000.00"}
            driver = await self.lab.call(operator.name, "POST", "/drivers", body)
            self.drivers[operator.name] = driver["id"]

    async def live(self, number: int) -> None:
        """Buy a car, sign, charge a few times, maybe revoke and sign anew; then the next car."""
        choice = random.Random(f"{self.seed}/{number}")  # noqa: S311
        while not self.over:
            pcid = await self._buy(choice)
            emaid = await self._sign(choice, pcid) if pcid else None
            for _visit in range(choice.randint(1, 3)):
                if emaid is not None:
                    await self._charge(choice, pcid or "", "auto")
            if emaid is not None and choice.random() < 0.3:
                await self._revoke(emaid)
                if await self._sign(choice, pcid or "") is not None:
                    await self._charge(choice, pcid or "", "always")

    async def _buy(self, choice: random.Random) -> str | None:
        maker = choice.choice(self.makers)
        pcid = f"{maker.scope_id}" + "".join(choice.choices(_LETTERS, k=15))
        garage = choice.choice(self.garages)
        body = {"oem": maker.name, "pcid": pcid}
        # The car may be there already, when only the answer was lost.
        if await self._insist("build", garage, "/vehicles", body, done=("pcid_taken",)) is None:
            return None
        self.journal.cars[pcid] = maker.name
        return pcid

    async def _sign(self, choice: random.Random, pcid: str) -> str | None:
        operator = choice.choice(self.operators)
        driver = self.drivers[operator.name]
        scope = operator.scope_id or ""
        instance = "C" + "".join(choice.choices(_LETTERS, k=8))
        body: dict[str, Any] = {"driver": driver, "pcid": pcid}
        if choice.random() < 0.7:
            body["emaid"] = EMAID.with_check_digit(scope[:2], scope[2:], instance).wire
        answer = await self._insist("sign", operator.name, "/contracts", body)
        if answer is None:
            return None
        emaid = str(answer["emaid"])[:14]
        self.journal.orders[emaid] = Order(emaid, operator.name, driver, pcid)
        return emaid

    async def _revoke(self, emaid: str) -> None:
        self.journal.revoking.add(emaid)
        operator = self.journal.orders[emaid].operator
        body = {"reason": "keyCompromise"}
        path = f"/contracts/{emaid}/revoke"
        if await self._insist("revoke", operator, path, body) is not None:
            self.journal.revoked.add(emaid)

    async def _charge(self, choice: random.Random, pcid: str, installation: str) -> None:
        body = {
            "charger": choice.choice(self.chargers),
            "energy_wh": choice.randrange(500, 3001, 500),
            "installation": installation,
        }
        path = f"/vehicles/{pcid}/charge"
        try:
            outcome = await self.lab.call(self.garages[0], "POST", path, body)
        except LabError as error:
            self._noted("charge", error)
            await asyncio.sleep(0.1)
            return
        self.journal.answers[f"charge: {outcome['outcome']}"] += 1
        if outcome["outcome"] == "charged":
            self.journal.visits += 1
            self.journal.charged[outcome["emaid"][:14]] += outcome["energy_wh"]

    async def _insist(
        self, what: str, party: str, path: str, body: Any, *, done: Sequence[str] = ()
    ) -> Any:
        """Ask until it is done; None when the play is over first."""
        while True:
            try:
                answer = await self.lab.call(party, "POST", path, body)
            except LabError as error:
                if error.code in done and error.status == 409:
                    self.journal.answers[f"{what}: done before"] += 1
                    return {}
                self._noted(what, error)
                # A responder that is down makes a chain refused, by a policy that is closed.
                if 400 <= error.status < 500 and "revocation.unavailable" not in str(error):
                    self.journal.defects.append(f"{what}: {error}")
                    return None
            else:
                self.journal.answers[f"{what}: ok"] += 1
                return answer
            if self.over:
                return None
            await asyncio.sleep(0.1)

    def _noted(self, what: str, error: LabError) -> None:
        self.journal.answers[f"{what}: {error.code}"] += 1
        if error.status == 500 or error.code == "internal_error":
            self.journal.defects.append(f"{what}: {error}")

    # ----------------------------------------------------------- what is left half way

    async def settle(self) -> None:
        """Let what was left half way complete; what does not in time is a defect."""
        first = next(iter(self.ecosystem.parties))
        await self.lab.call(first, "PUT", "/clock", {"advance": AFTERWARDS})
        until = time.monotonic() + SETTLE_WITHIN
        while left := await self._left():
            if time.monotonic() > until:
                self.journal.defects += [f"not completed: {one}" for one in left]
                return
            await asyncio.sleep(0.2)

    async def _left(self) -> list[str]:
        """What still waits for something, in words."""
        left: list[str] = []
        for name in self.ecosystem.parties:
            for job in (await self.lab.call(name, "POST", "/jobs/run"))["jobs"]:
                left += [f"{name}: {one['what']}: {one['why']}" for one in job["waits"]]
        for operator in self.operators:
            for contract in await self.lab.call(operator.name, "GET", "/contracts"):
                if contract["status"] in ("pending", "certified"):
                    left.append(f"{operator.name}: {contract['emaid']} is {contract['status']}")
        for operator in self.ecosystem.of_kind("cpo"):
            for session in await self.lab.call(operator.name, "GET", "/sessions"):
                if session["status"] in ("charging", "ended"):
                    left.append(f"{operator.name}: session {session['id']} {session['status']}")
        for charger in self.chargers:
            status = await self.lab.call(charger, "GET", "/status")
            left += [f"{charger}: session {session} is untold" for session in status["sessions"]]
        return left

    # ---------------------------------------------------------------- the checks

    async def check(self) -> None:
        checks: tuple[Callable[[], Awaitable[None]], ...] = (
            self._cars_are_there,
            self._contracts_are_there,
            self._books_balance,
            self._serials_are_unique,
            self._cars_charge,
        )
        for one in checks:
            try:
                await one()
            except LabError as error:
                self._must(False, f"{one.__name__.strip('_')}: {error}")

    def read_logs(self) -> None:
        """A traceback in a party's log is a defect, whatever came of it."""
        for name in self.ecosystem.parties:
            said = self.processes.log(name).read_text(errors="replace")
            if "Traceback" in said:
                self._must(False, f"{name}: {said[said.index('Traceback') :][:3000]}")

    def _must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.journal.defects.append(otherwise)

    async def _cars_are_there(self) -> None:
        here: set[str] = set()
        for garage in self.garages:
            here |= set(await self.lab.call(garage, "GET", "/vehicles"))
        pools = {maker.name: maker.uses["pcp"] for maker in self.makers}
        for pcid, maker in self.journal.cars.items():
            self._must(pcid in here, f"the car {pcid} is not in its garage")
            try:
                built = await self.lab.call(maker, "GET", f"/vehicles/{pcid}")
                path = f"/provisioning-certificates/{pcid}"
                await self.lab.call(pools[maker], "GET", path)
            except LabError as error:
                self._must(False, f"the car {pcid}: {error}")
            else:
                status = built["status"]
                self._must(status == "registered", f"the car {pcid} is {status} at {maker}")

    async def _contracts_are_there(self) -> None:
        found: dict[str, dict[str, Any]] = {}
        for operator in self.operators:
            revoked = {
                one["fingerprint"]
                for one in await self.lab.call(operator.name, "GET", "/certificates")
                if one["revoked_at"]
            }
            for contract in await self.lab.call(operator.name, "GET", "/contracts"):
                contract["certificate_revoked"] = contract["fingerprint"] in revoked
                found[contract["emaid"][:14]] = contract
        for emaid, order in self.journal.orders.items():
            contract = found.get(emaid, {})
            if not contract:
                self._must(False, f"the contract {emaid} is gone")
                continue
            for key in ("driver", "pcid"):
                wanted = getattr(order, key)
                self._must(contract[key] == wanted, f"{emaid}: {key} {contract[key]}, not {wanted}")
            if emaid in self.journal.revoked:
                wanted_status: tuple[str, ...] = ("revoked",)
            elif emaid in self.journal.revoking:
                wanted_status = ("active", "revoked")
            else:
                wanted_status = ("active",)
            status = contract["status"]
            self._must(status in wanted_status, f"the contract {emaid} is {status}")
            self._must(
                contract["certificate_revoked"] == (status == "revoked"),
                f"the contract {emaid} is {status}, its certificate "
                f"{'' if contract['certificate_revoked'] else 'not '}revoked",
            )
        for emaid, contract in found.items():
            pool = self.ecosystem.party(self._operator_of(emaid)).uses["ccp"]
            try:
                await self.lab.call(pool, "GET", f"/contracts/{emaid}")
                pooled = True
            except LabError as error:
                if error.status != 404:
                    raise
                pooled = False
            wanted = contract["status"] == "active"
            self._must(
                pooled == wanted,
                f"the contract {emaid} is {contract['status']} and "
                f"{'' if pooled else 'not '}in the pool",
            )

    def _operator_of(self, emaid: str) -> str:
        operator = self.ecosystem.by_scope("mo", emaid[:5])
        assert operator is not None
        return operator.name

    async def _books_balance(self) -> None:
        invoices: dict[str, dict[str, Any]] = {}
        paid: Counter[str] = Counter()
        owed: dict[tuple[str, str], Decimal] = {}
        for operator in self.operators:
            ledger = await self.lab.call(operator.name, "GET", "/ledger")
            self._must(ledger["total_cents"] == 0, f"{operator.name}: the ledger is not zero")
            entries: defaultdict[str, int] = defaultdict(int)
            for posting in ledger["postings"]:
                entries[posting["entry"]] += posting["cents"]
            for entry, total in entries.items():
                self._must(total == 0, f"{operator.name}: the entry {entry} sums up to {total}")
            for account, cents in ledger["accounts"].items():
                if account.startswith("cpo:"):
                    owed[account.removeprefix("cpo:"), operator.name] = Decimal(-cents) / 100
            for invoice in await self.lab.call(operator.name, "GET", "/invoices"):
                known = invoice["cdr"] in invoices
                self._must(not known, f"{operator.name}: two invoices for {invoice['cdr']}")
                invoices[invoice["cdr"]] = invoice
                paid[invoice["emaid"][:14]] += invoice["energy_wh"]
        settled: dict[str, dict[str, Any]] = {}
        receivable: dict[tuple[str, str], Decimal] = {}
        for operator in self.ecosystem.of_kind("cpo"):
            for session in await self.lab.call(operator.name, "GET", "/sessions"):
                status = session["status"]
                if status == "settled":
                    settled[session["id"]] = session
                # Who was cut off before the first receipt signed for nothing, and pays nothing.
                self._must(
                    status != "disputed" or not session["energy_wh"],
                    f"{session['id']}: disputed, {session['reason']}",
                )
            for payer, amount in (
                await self.lab.call(operator.name, "GET", "/receivables")
            ).items():
                receivable[operator.name, payer] = Decimal(str(amount))
        self._must(
            {key: amount for key, amount in owed.items() if amount}
            == {key: amount for key, amount in receivable.items() if amount},
            f"what operators owe, {owed}, is not what is receivable, {receivable}",
        )
        for cdr in settled.keys() ^ invoices.keys():
            where = "settled without an invoice" if cdr in settled else "invoiced, not settled"
            self._must(False, f"the session {cdr} is {where}")
        for cdr in settled.keys() & invoices.keys():
            seen, wanted = invoices[cdr], settled[cdr]
            self._must(
                (seen["energy_wh"], Decimal(seen["charging"]))
                == (wanted["energy_wh"], Decimal(wanted["total_cost"])),
                f"the session {cdr}: {wanted} was invoiced as {seen}",
            )
        for emaid, energy in self.journal.charged.items():
            self._must(
                paid[emaid] >= energy,
                f"{emaid}: {energy} Wh were charged and only {paid[emaid]} Wh invoiced",
            )
        for charger in self.chargers:
            refused = (await self.lab.call(charger, "GET", "/status"))["refused_stops"]
            self._must(not refused, f"{charger}: ends of sessions were refused: {refused}")

    async def _serials_are_unique(self) -> None:
        issuers = [
            party.name
            for party in self.ecosystem.parties.values()
            if party.kind in ("v2g-root", "oem", "mo")
        ]
        books: dict[tuple[str, str], str] = {}
        for name in issuers:
            for one in await self.lab.call(name, "GET", "/certificates"):
                # A sub-CA under another party's root stands in two books, as the same one.
                mark = (one["issuer"], one["serial"])
                known = books.setdefault(mark, one["fingerprint"])
                self._must(
                    known == one["fingerprint"],
                    f"{name}: the serial number {one['serial']} was used twice",
                )
        fingerprints = set(books.values())
        for event in await self.lab.events("endurance"):
            if event.kind == "issued":
                fingerprint = event.data.get("fingerprint")
                self._must(
                    fingerprint is None or fingerprint in fingerprints,
                    f"{event.party}: told of the certificate {fingerprint}, which is not in its "
                    "books",
                )

    async def _cars_charge(self) -> None:
        """Cars with a good contract charge, as they are."""
        good: dict[str, str] = {}
        for emaid, order in self.journal.orders.items():
            if emaid not in self.journal.revoking:
                good[order.pcid] = emaid
        choice = random.Random(self.seed)  # noqa: S311
        some = choice.sample(sorted(good), min(PROOFS, len(good)))

        async def charges(pcid: str) -> None:
            body = {"charger": choice.choice(self.chargers), "energy_wh": 500}
            car = await self.lab.call(self.garages[0], "GET", f"/vehicles/{pcid}")
            usable = car["contract"] and car["contract"]["emaid"][:14] not in self.journal.revoking
            if not usable:
                body["installation"] = "always"
            path = f"/vehicles/{pcid}/charge"
            outcome = await self.lab.call(self.garages[0], "POST", path, body)
            self._must(
                outcome["outcome"] == "charged",
                f"the car {pcid} does not charge: {outcome['stage']} {outcome['reason']}",
            )

        for pcid in some:
            await charges(pcid)
