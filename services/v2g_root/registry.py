"""The registry of parties: who may ask the V2G root operator for certificates, and as whom.

It is seeded from the ecosystem file and changed by administrators. Two parties do not get one
WMI, provider id, operator id or EVSE id; who is suspended gets nothing new.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pki.identifiers import EVSEID, IdentifierError
from pki.policy import (
    KNOWN_BY,
    IdentifierKind,
    Registration,
    Registry,
    RegistryError,
    normal,
)
from services.common.auth import Caller
from services.common.bringing import ECOSYSTEM_FILE, brought
from services.common.errors import Refusal, wrong_identifier
from services.common.events import Event
from services.common.party import Party
from services.common.problems import NotAsExpectedError
from services.common.registration import registration_of
from services.ecosystem import KINDS, shape_of

from .store import IdentifierRow, RegistrationRow, registry


class Registrations:
    def __init__(self, party: Party) -> None:
        self.party = party

    async def seed(self) -> None:
        """Register the parties of the ecosystem file that never were; NotAsExpectedError where
        somebody else holds what one of them is to be known by."""
        now = self.party.clock.now()
        wanted = [
            registration_of(self.party, name, now)
            for name, config in self.party.ecosystem.parties.items()
            if config.kind != "v2g-root"
        ]

        wanted += [
            Registration(
                one.values["name"],
                one.values["role"],
                one.values.get("organisation", one.values["name"]),
                (one.values["identifier"].upper(),) if "identifier" in one.values else (),
                now,
            )
            for one in brought(self.party.ecosystem, "party")
        ]

        def keep(session: Session) -> None:
            known = registry(session)
            for one in wanted:
                if session.get(RegistrationRow, one.party) is None:
                    known = self._added(session, known, one, ECOSYSTEM_FILE.client)

        try:
            await self.party.database.write(keep)
        except RegistryError as error:
            raise NotAsExpectedError(
                f"the registry contradicts the ecosystem file: {error}; remove that registration, "
                "or start with an empty data folder"
            ) from None

    async def all(self) -> Registry:
        return await self.party.database.read(registry)

    async def get(self, name: str) -> Registration:
        """A registered party; Refusal 404."""
        found = (await self.all()).party(name)
        if found is None:
            raise _not_registered(name)
        return found

    async def register(
        self,
        name: str,
        kind: str,
        organisation: str,
        identifiers: Sequence[str],
        caller: Caller,
    ) -> tuple[Registration, bool]:
        """Register a party, or give one further identifiers; and whether it is new.

        Refusal 409 says who has a name or an identifier that is taken.
        """
        new = Registration(
            name, kind, organisation, self._identifiers(kind, identifiers), self.party.clock.now()
        )

        def keep(session: Session) -> tuple[Registration, bool]:
            known = registry(session)
            added = self._added(session, known, new, caller.client).party(name)
            assert added is not None
            return added, known.party(name) is None

        try:
            try:
                return await self.party.database.write(keep)
            except IntegrityError:
                # Somebody registered at the same time: now it can be seen who.
                return await self.party.database.write(keep)
        except RegistryError as error:
            raise Refusal(
                409,
                "identifier_taken",
                f"{error}: {name} cannot have it",
                {"holder": error.holder.party},
            ) from None

    async def suspend(self, name: str, suspended: bool, caller: Caller) -> Registration:
        """Suspend a party, or take that back; a second time changes nothing."""
        now = self.party.clock.now()
        words = "suspended" if suspended else "reinstated"
        told = self._told(caller.client, f"party {words}", f"{name} is {words}", name)

        def change(session: Session) -> Registration:
            row = session.get(RegistrationRow, name)
            if row is None or row.removed_at is not None:
                raise _not_registered(name)
            if (row.suspended_at is None) == suspended:
                row.suspended_at = now if suspended else None
                self.party.database.tell(session, told)
                session.flush()
            found = registry(session).party(name)
            assert found is not None
            return found

        return await self.party.database.write(change)

    async def remove(self, name: str, caller: Caller) -> None:
        """Take a party out: its identifiers are free again. Refusal 404."""
        now = self.party.clock.now()
        told = self._told(
            caller.client, "party removed", f"{name} is not registered any more", name
        )

        def change(session: Session) -> None:
            row = session.get(RegistrationRow, name)
            if row is None or row.removed_at is not None:
                raise _not_registered(name)
            row.removed_at = now
            session.execute(delete(IdentifierRow).where(IdentifierRow.party == name))
            self.party.database.tell(session, told)

        await self.party.database.write(change)

    def _added(self, session: Session, known: Registry, new: Registration, who: str) -> Registry:
        before = known.party(new.party)
        after = known.adding(new)
        added = after.party(new.party)
        assert added is not None
        if added == before:
            return after
        if before is None:
            session.merge(
                RegistrationRow(
                    party=new.party,
                    kind=new.kind,
                    organisation=new.organisation,
                    registered_by=who,
                    since=new.since,
                    suspended_at=None,
                    removed_at=None,
                )
            )
        for value in added.identifiers[len(before.identifiers) if before else 0 :]:
            assert new.known_by is not None
            session.add(
                IdentifierRow(
                    kind=new.known_by.value, value=value, party=new.party, since=new.since
                )
            )
        if who != ECOSYSTEM_FILE.client:
            summary = f"{new.party} is registered as {new.kind}: {', '.join(new.identifiers)}"
            told = self._told(who, "party registered", summary, new.party)
            self.party.database.tell(session, told)
        session.flush()
        return after

    def _identifiers(self, kind: str, values: Sequence[str]) -> tuple[str, ...]:
        """The identifiers as they are compared; Refusal 422 for what has another form."""
        if kind not in KINDS or kind == "v2g-root":
            raise Refusal(
                422,
                "unknown_kind",
                f"kind: {kind!r} is none of {', '.join(k for k in KINDS if k != 'v2g-root')}",
            )
        known_by = KNOWN_BY.get(kind)
        if known_by is None:
            if values:
                raise Refusal(
                    422, "no_identifiers", f"identifiers: a {kind} is known by its name only"
                )
            return ()
        if not values:
            raise Refusal(
                422, "no_identifiers", f"identifiers: a {kind} is known by its {known_by}"
            )
        for value in values:
            self._must_have_form(known_by, value)
        return tuple(dict.fromkeys(normal(known_by, value) for value in values))

    def _must_have_form(self, kind: IdentifierKind, value: str) -> None:
        if kind is IdentifierKind.EVSE_ID:
            try:
                EVSEID.parse(value)
            except IdentifierError as error:
                raise wrong_identifier(error, "identifiers") from None
        elif (wanted := shape_of(kind.value, value)) is not None:
            raise Refusal(
                422, f"not_a_{kind.value}", f"identifiers: {value!r} has another form: {wanted}"
            )

    def _told(self, who: str, name: str, summary: str, party: str) -> Event:
        return self.party.recorder.stamped(
            Event(
                kind="state",
                name=name,
                sender=who,
                receiver=self.party.config.name,
                summary=summary,
                data={"party": party},
            )
        )


def _not_registered(name: str) -> Refusal:
    return Refusal(404, "not_registered", f"no party {name} is registered")
