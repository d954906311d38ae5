"""Faults: a party misbehaves on purpose, for a given car, contract, charger, caller, time.

Every party has a :class:`Faults`. At each point where something can go wrong its code asks
``fault = await party.faults.at("bundle", pcid=..., emaid=...)`` and, where a fault is due, does
what the kind says (:mod:`.fault_kinds`). Asking counts the hit, takes one of the calls that
the fault is good for, and marks the unit of work: a ``fault`` event tells of the hit, and
every event of that unit from then on carries ``data["fault"]``.

Faults are rows of the party's database: they survive a restart, and all workers share them. A
hit is one conditional UPDATE, so a fault for N calls is hit N times whatever comes in at once.
Where the ecosystem has no faults, asking costs nothing; where it has, each worker reads the
table at most once in :data:`REREAD` seconds and takes a change of its own at once, so that
another worker's change is noticed within that time.

When a fault acts (its window) is ecosystem time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import CursorResult, delete, func, or_, select, update
from sqlalchemy.orm import Session

from pki.identifiers import EMAID, PCID, IdentifierError

from .errors import Refusal, wrong_identifier
from .events import Event, current_unit
from .fault_kinds import KINDS, Kind

if TYPE_CHECKING:
    from .party import Party
    from .tables import Tables

# Seconds after which a worker looks again what others set or cleared.
REREAD = 1.0
MAX_FAULTS = 100

_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")

About = str | None | Collection[str]
"""What is known at a point about a target: one value, several that are meant, or nothing."""


@dataclass(frozen=True)
class Fault:
    """A fault that was set."""

    id: str
    kind: str
    target: Mapping[str, str]
    parameters: Mapping[str, Any]
    calls_left: int | None
    begins: datetime | None
    ends: datetime | None
    hits: int
    set_by: str
    set_at: datetime

    def __getitem__(self, parameter: str) -> Any:
        return self.parameters[parameter]

    def is_due(self, now: datetime) -> bool:
        """Whether it has calls left and its window is open."""
        return (
            self.calls_left != 0
            and (self.begins is None or self.begins <= now)
            and (self.ends is None or now < self.ends)
        )

    def is_about(self, known: Mapping[str, About]) -> bool:
        """Whether everything that it is aimed at is among what is ``known``."""
        return all(
            any(_MATCHES[name](wanted, seen) for seen in _several(known.get(name)))
            for name, wanted in self.target.items()
        )


def _several(value: About) -> Collection[str]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def _same_emaid(wanted: str, seen: str) -> bool:
    try:
        return EMAID.parse(seen, strict=False).normal == wanted
    except IdentifierError:
        return False


def _same_path(wanted: str, seen: str) -> bool:
    """``seen`` is "METHOD /path"; ``wanted`` a path or its beginning, a method may precede."""
    method, _, path = wanted.rpartition(" ")
    seen_method, _, seen_path = seen.partition(" ")
    return method in ("", seen_method) and (
        seen_path == path or seen_path.startswith(path.rstrip("/") + "/")
    )


_MATCHES: Mapping[str, Callable[[str, str], bool]] = {
    "pcid": lambda wanted, seen: seen.upper() == wanted,
    "emaid": _same_emaid,
    "charger": lambda wanted, seen: seen == wanted,
    "caller": lambda wanted, seen: seen == wanted,
    "path": _same_path,
}


class Faults:
    """The faults of one party."""

    def __init__(self, party: Party, tables: Tables) -> None:
        self.party = party
        self.enabled = party.ecosystem.faults
        # What faults need to remember in this process: former challenges, borrowed keys.
        self.memory: dict[Any, Any] = {}
        self._row = tables.fault_row
        self._client_row = tables.client_row
        self._known: tuple[Fault, ...] = ()
        self._read_again = 0.0
        self._changes = 0

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kinds that this party has."""
        mine = self.party.config.kind
        return {name: kind for name, kind in KINDS.items() if mine in kind.parties}

    # --------------------------------------------------------------- at a point

    async def at(
        self, point: str, *, when: Callable[[Fault], bool] | None = None, **known: About
    ) -> Fault | None:
        """The oldest fault that is due at ``point``, its hit counted; None where there is none.

        ``known`` is what the work is about, by the names of targets; ``when`` says which
        faults can act here at all.
        """
        for fault in await self.due(point):
            if fault.is_about(known) and (when is None or when(fault)) and await self._hit(fault):
                return fault
        return None

    async def due(self, point: str) -> list[Fault]:
        """The faults that may act at ``point`` now, oldest first; no hit is counted."""
        if not self.enabled:
            return []
        if time.monotonic() >= self._read_again:
            await self._read()
        now = self.party.clock.now()
        return [one for one in self._known if KINDS[one.kind].point == point and one.is_due(now)]

    async def _hit(self, fault: Fault) -> bool:
        """Count a hit; False where others used up its calls, or cleared it, meanwhile."""
        row, mark = self._row, {"id": fault.id, "kind": fault.kind}
        told = self.party.recorder.stamped(
            Event(
                kind="fault",
                name="fault hit",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                outcome="failed",
                summary=f"{self.party.config.title} was told to misbehave, {fault.kind}: "
                f"{KINDS[fault.kind].does}",
                data={"fault": mark, "parameters": dict(fault.parameters), **fault.target},
            )
        )
        hit = (
            update(row)
            .where(row.id == fault.id, or_(row.calls_left.is_(None), row.calls_left > 0))
            .values(hits=row.hits + 1, calls_left=row.calls_left - 1)
        )

        def count(session: Session) -> bool:
            done = cast("CursorResult[Any]", session.execute(hit)).rowcount == 1
            if done:
                self.party.database.tell(session, told)
            return done

        counted = await self.party.database.write(count)
        if counted:
            current_unit().fault = mark
        if not counted or fault.calls_left is not None:
            self._read_again = 0.0
        return counted

    # ------------------------------------------------------ setting and clearing

    async def set(
        self,
        kind: str,
        *,
        target: Mapping[str, str],
        parameters: Mapping[str, object],
        calls: int | None,
        begins: datetime | None,
        ends: datetime | None,
        by: str,
    ) -> Fault:
        """Set a fault. Refusal 409 where the ecosystem has none, 422 names what does not fit."""
        if not self.enabled:
            raise Refusal(
                409,
                "faults_off",
                "this ecosystem has no faults; `faults = true` under [ecosystem], or the option "
                "--faults of `pnclab up` and `pnclab serve`, lets it have some",
            )
        found = self._kind(kind)
        try:
            values = found.read(parameters)
        except ValueError as error:
            raise Refusal(422, "wrong_parameter", str(error)) from None
        aimed = await self._target(kind, found, target)
        now = self.party.clock.now()
        if ends is not None and ends <= max(now, begins or now):
            raise Refusal(
                422,
                "wrong_window",
                f"ends: {ends.isoformat()} is past or not after its begin; now is {now:%F %T}Z",
            )
        fault = Fault(
            id=self.party.entropy("fault/id", 4).hex(),
            kind=kind,
            target=aimed,
            parameters=values,
            calls_left=calls,
            begins=begins,
            ends=ends,
            hits=0,
            set_by=by,
            set_at=now,
        )
        told = self._told("fault set", f"{by} sets the fault {kind}", fault)

        def keep(session: Session) -> None:
            if (session.scalar(select(func.count()).select_from(self._row)) or 0) >= MAX_FAULTS:
                raise Refusal(
                    409,
                    "too_many_faults",
                    f"{self.party.config.name} has {MAX_FAULTS} faults, used-up ones included; "
                    "clear some",
                )
            session.add(self._row(**vars(fault)))
            self.party.database.tell(session, told)

        await self.party.database.write(keep)
        await self._read(changed=True)
        return fault

    async def all(self) -> list[Fault]:
        """All that are set, oldest first; also those that are used up or over."""
        query = select(self._row).order_by(self._row.set_at, self._row.id)
        names = list(Fault.__dataclass_fields__)
        return [
            Fault(**{name: getattr(row, name) for name in names})
            for row in await self.party.database.read(lambda session: list(session.scalars(query)))
        ]

    async def clear(self, identifier: str, by: str) -> None:
        """Take a fault away; Refusal 404 where there is none of this identifier."""
        known = await self.all()
        fault = next((one for one in known if one.id == identifier), None)
        if fault is None:
            there = ", ".join(f"{one.id} ({one.kind})" for one in known[:20]) or "none"
            raise Refusal(404, "no_such_fault", f"no fault has this identifier; there are: {there}")
        await self._clear([fault], by)

    async def clear_all(self, by: str) -> int:
        """Take all faults away; how many there were."""
        known = await self.all()
        await self._clear(known, by)
        return len(known)

    async def _clear(self, faults: Iterable[Fault], by: str) -> None:
        told = [
            (one.id, self._told("fault cleared", f"{by} clears the fault {one.kind}", one))
            for one in faults
        ]

        def remove(session: Session) -> None:
            for identifier, event in told:
                gone = session.execute(delete(self._row).where(self._row.id == identifier))
                if cast("CursorResult[Any]", gone).rowcount:
                    self.party.database.tell(session, event)

        await self.party.database.write(remove)
        await self._read(changed=True)

    def _told(self, name: str, summary: str, fault: Fault) -> Event:
        return self.party.recorder.stamped(
            Event(
                kind="fault",
                name=name,
                sender=fault.set_by,
                receiver=self.party.config.name,
                summary=f"{summary} at {self.party.config.title}",
                data={
                    "fault": {"id": fault.id, "kind": fault.kind},
                    "parameters": dict(fault.parameters),
                    "calls": fault.calls_left,
                    "hits": fault.hits,
                    **fault.target,
                },
            )
        )

    async def _read(self, *, changed: bool = False) -> None:
        """Look what is set now. What a slower look finds that began before a change is old."""
        self._changes += changed
        began, self._read_again = self._changes, time.monotonic() + REREAD
        found = await self.all()
        if began == self._changes:
            self._known = tuple(one for one in found if one.kind in KINDS)

    def forget(self) -> None:
        """Look again what is set."""
        self.memory.clear()
        self._known, self._read_again = (), 0.0
        self._changes += 1

    # -------------------------------------------------------- what may be asked

    def _kind(self, name: str) -> Kind:
        mine = self.kinds
        if name in mine:
            return mine[name]
        there = f"there are: {', '.join(mine)}"
        if name in KINDS:
            raise Refusal(
                422,
                "wrong_party",
                f"kind: {name} is a fault of {', '.join(KINDS[name].parties)}; "
                f"{self.party.config.name} is a {self.party.config.kind}, {there}",
            )
        raise Refusal(422, "unknown_kind", f"kind: there is no fault {name!a}; {there}")

    async def _target(self, name: str, kind: Kind, target: Mapping[str, str]) -> dict[str, str]:
        """``target`` with its identifiers in the form in which they are compared."""
        for key in target:
            if key not in kind.targets:
                raise Refusal(
                    422,
                    "wrong_target",
                    f"target.{key}: {name} cannot be aimed by it; it can by: "
                    f"{', '.join(kind.targets) or 'nothing'}",
                )
        aimed = dict(target)
        for key, shape in (("pcid", PCID), ("emaid", EMAID)):
            if key in aimed:
                try:
                    aimed[key] = shape.parse(aimed[key], strict=False).normal
                except IdentifierError as error:
                    raise wrong_identifier(error, f"target.{key}") from None
        if "charger" in aimed:
            chargers = [one.name for one in self.party.ecosystem.of_kind("charger")]
            _one_of("charger", aimed["charger"], chargers)
        if "caller" in aimed:
            _one_of("caller", aimed["caller"], await self._clients())
        if "path" in aimed:
            aimed["path"] = _path(aimed["path"])
        return aimed

    async def _clients(self) -> list[str]:
        row = self._client_row
        added = await self.party.database.read(
            lambda session: list(session.scalars(select(row.id).order_by(row.id)))
        )
        return [client.id for client in self.party.ecosystem.all_clients()] + added


def _one_of(field: str, value: str, there: list[str]) -> None:
    if value not in there:
        raise Refusal(
            422,
            f"unknown_{field}",
            f"target.{field}: there is no {value!a}; there are: {', '.join(there)}",
        )


def _path(text: str) -> str:
    method, _, path = text.rpartition(" ")
    if (
        (method and method.upper() not in _METHODS)
        or not path.startswith("/")
        or not path.isprintable()
    ):
        raise Refusal(
            422,
            "wrong_path",
            f"target.path: {text!a} is no path such as /contracts or PUT /contracts",
        )
    return f"{method.upper()} {path}".strip()
