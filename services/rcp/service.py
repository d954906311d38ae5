"""What the root pool does: keep roots, and hand them out by type."""

from __future__ import annotations

from dataclasses import replace

from cryptography import x509
from sqlalchemy import select
from sqlalchemy.orm import Session

from pki.names import readable
from services.common.auth import Caller
from services.common.bringing import ECOSYSTEM_FILE, brought, taking_up
from services.common.certificates import b64, der_of, fingerprint
from services.common.errors import Refusal
from services.common.events import Event
from services.common.jobs import did
from services.common.notices import notice
from services.common.opcp import root_mark
from services.common.party import Party
from services.common.trust_stores import must_be_root

from .store import RootRow, by_beginning, roots

# Whose root is of which type.
TYPES = {"V2G": "v2g-root", "OEM": "oem", "MO": "mo"}

# The mark of the event that told of a root's end.
EXPIRED = "expired:"


class RootPool:
    def __init__(self, party: Party) -> None:
        self.party = party

    async def prepare(self) -> None:
        """The roots are brought by those whose they are; some by the ecosystem file."""
        known = {row.fingerprint for row in await self.list(None)}
        for one in brought(self.party.ecosystem, "root"):
            with taking_up(one):
                for certificate in one.material().certificates:
                    if fingerprint(certificate) not in known:
                        await self.publish(one.values["type"], certificate, ECOSYSTEM_FILE)

    async def publish(
        self, root_type: str, certificate: x509.Certificate, caller: Caller
    ) -> tuple[RootRow, bool]:
        """Keep a root; the same one again changes nothing. Returns it and whether it is new."""
        self._must_be_root(root_type, certificate, caller)
        mark = fingerprint(certificate)
        known = await self.party.database.read(lambda session: session.get(RootRow, mark))
        if known is not None:
            if known.type != root_type:
                raise Refusal(
                    409,
                    "other_type",
                    f"type: this root is already published as {known.type}, not {root_type}",
                )
            return known, False
        row = RootRow(
            fingerprint=mark,
            type=root_type,
            subject=readable(certificate.subject),
            certificate=der_of(certificate),
            valid_from=certificate.not_valid_before_utc,
            valid_to=certificate.not_valid_after_utc,
            published_by=caller.client,
            published_at=self.party.clock.now(),
        )
        self.party.recorder.record(
            Event(
                kind="state",
                name="root published",
                sender=caller.client,
                receiver=self.party.config.name,
                summary=f"{row.subject} is now a known {root_type} root",
                data={"type": root_type, "fingerprint": mark, "subject": row.subject},
            )
        )

        told = self._told("root.added", row)

        def keep(session: Session) -> tuple[RootRow, bool]:
            # Two may publish the same root at once: the second finds the first one's.
            existing = session.get(RootRow, mark)
            if existing is not None:
                return existing, False
            session.add(row)
            session.flush()
            self.party.database.tell(session, told)
            return row, True

        return await self.party.database.write(keep)

    async def get(self, text: str) -> RootRow:
        """The root of this fingerprint, or of the UUID that stands for its first half; 404."""
        mark = root_mark(text)
        found = None
        if mark is not None:
            found = await self.party.database.read(lambda session: by_beginning(session, mark))
        if found is None:
            raise Refusal(404, "no_such_root", f"no root {text[:64]!r} is published")
        return found

    async def tell_expired(self) -> None:
        """A round: subscribers hear once that a root has ended."""
        now = self.party.clock.now()
        marks = self.party.tables.mark_row

        def expired(session: Session) -> list[RootRow]:
            ended = [row for row in roots(session, None) if row.valid_to <= now]
            told = set(session.scalars(select(marks.mark).where(marks.mark.like(f"{EXPIRED}%"))))
            return [row for row in ended if EXPIRED + row.fingerprint not in told]

        for row in await self.party.database.read(expired):
            async with self.party.unit():
                event = self._told("root.expired", row)
                event = replace(event, marks=(*event.marks, EXPIRED + row.fingerprint))
                await self.party.database.write(
                    lambda session, told=event: self.party.database.tell(session, told)  # type: ignore[misc]
                )
                did(f"{row.subject} has ended")

    def _told(self, fact: str, row: RootRow) -> Event:
        return notice(
            self.party,
            fact,
            f"{row.subject}: {fact}",
            type=row.type,
            fingerprint=row.fingerprint,
            certificate=b64(row.certificate),
        )

    async def withdraw(self, mark: str) -> None:
        known = await self.party.database.read(lambda session: session.get(RootRow, mark.lower()))
        told = self._told("root.revoked", known) if known is not None else None

        def remove(session: Session) -> None:
            row = session.get(RootRow, mark.lower())
            if row is None or told is None:
                raise Refusal(404, "no_such_root", f"no root {mark} is published")
            session.delete(row)
            self.party.database.tell(session, told)

        await self.party.database.write(remove)

    async def list(self, root_type: str | None) -> list[RootRow]:
        """The roots of a type, all without one. Refusal 422 for a type that there is not."""
        if root_type is not None and root_type not in TYPES:
            raise _unknown_type(root_type)
        return await self.party.database.read(lambda session: roots(session, root_type))

    def _must_be_root(self, root_type: str, certificate: x509.Certificate, caller: Caller) -> None:
        if root_type not in TYPES:
            raise _unknown_type(root_type)
        if caller.role != TYPES[root_type] and not caller.is_admin:
            raise Refusal(
                403,
                "wrong_role",
                f"a {root_type} root is published by a {TYPES[root_type]}, not by a {caller.role}",
            )
        must_be_root(certificate, self.party.clock.now(), "certificate")


def _unknown_type(root_type: str) -> Refusal:
    return Refusal(422, "unknown_type", f"type: {root_type!r} is none of {', '.join(TYPES)}")
