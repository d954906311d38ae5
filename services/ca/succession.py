"""Who issues after whom: authorities are renewed, rolled over, and lose their keys.

A role has one authority that issues, and older ones: their certificates stay good, and they go
on answering for what they issued (OCSP, CRLs) until they end. A new authority has a key and a
name of its own ("... Sub-CA 2 G2"), so that nobody mistakes one for the other.

A root that is to be in the root pool says so in its own row until it is there: where the pool
is away, a round brings it, and who asks for the rollover again goes on with that one.

*Renewal* is a job: sub-CAs in time (:mod:`.validity`), from the top down, also those that
another party issues. *Rollover* is a decision, for roots the only way: by command, now. A key
that is *lost* is destroyed: whatever needs it is refused (503 ``key_lost``) until somebody
rolls over; what was issued lives on.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from sqlalchemy.orm import Session

from pki.names import readable
from pki.profiles import Role
from services.common import answers
from services.common.certificates import b64, der_of, fingerprint
from services.common.errors import Refusal
from services.common.events import Event
from services.common.jobs import did, waits

from . import store
from .validity import life, renewed_below

if TYPE_CHECKING:
    from .service import CertificateAuthority, OpenAuthority

log = logging.getLogger("pnclab")


@dataclass(frozen=True)
class RolledOver:
    """What a rollover made, from the top down, and whether the root pool has the new root."""

    authorities: Sequence[OpenAuthority]
    published: bool


class Succession:
    """The authorities of one party as they follow each other."""

    def __init__(self, ca: CertificateAuthority) -> None:
        self.ca = ca
        self.party = ca.party

    # ----------------------------------------------------------------- renewal

    async def keep_current(self) -> None:
        """A round: renew sub-CAs in time, from the top down, and the OCSP signers; publish the
        roots that are to be."""
        await self.ca.look()
        for role in self.ca.roles:
            own = self.ca.authority(role)
            if role.is_root:
                self._tell_of_the_end(own)
                continue
            try:
                if await self._is_due(own):
                    async with self.party.database.alone("succession", wait=True):
                        await self.ca.look()
                        own = self.ca.authority(role)
                        if await self._is_due(own):
                            await self._follow(own, "renewed")
            except Refusal as reason:
                waits(role.value, reason.message)
                log.info("%s: %s waits: %s", self.party.config.name, role.value, reason.message)
        for own in self.ca.authorities():
            if own.has_delegated_responder and own.valid_at(self.party.clock.now()):
                try:
                    await self.ca.ocsp_signer(own)
                except Refusal as reason:
                    waits(f"OCSP signer of {own.title}", reason.message)
        for own in await self._unpublished():
            try:
                await self.publish(own)
            except Refusal as reason:
                waits(f"publishing {own.title}", reason.message)
            else:
                did(f"{own.title} is in the root pool")

    async def _is_due(self, own: OpenAuthority) -> bool:
        now, role = self.party.clock.now(), own.role
        ends = own.certificate.not_valid_after_utc
        if not own.valid_at(now):
            return True
        if ends - now >= renewed_below(self.party, role):
            return False
        # It must be worth it: nothing outlives its issuer.
        above = await self._end_above(role)
        if above is not None and min(now + life(self.party, role), above) <= ends:
            waits(own.title, f"it ends on {ends:%F} together with its issuer; roll that over")
            return False
        return True

    async def _end_above(self, role: Role) -> datetime | None:
        """When the authority ends that would issue ``role`` now."""
        above = self.party.issuer(role)
        assert above is not None
        if above in self.ca.roles:
            return self.ca.authority(above).certificate.not_valid_after_utc
        answer = await self.party.uses("v2g-root").call(
            "GET",
            "/authorities",
            name="authorities",
            summary=f"{self.party.config.title} asks how long its issuer lives",
        )
        for found in answer.read(list[answers.IssuingAuthority]):
            if found.role == above.value:
                return found.valid_to
        return None

    def _tell_of_the_end(self, root: OpenAuthority) -> None:
        left = root.certificate.not_valid_after_utc - self.party.clock.now()
        if left < renewed_below(self.party, root.role):
            waits(
                root.title,
                f"it ends on {root.certificate.not_valid_after_utc:%F}; a root is not renewed by "
                "itself: roll it over",
            )

    async def _follow(
        self, old: OpenAuthority, how: str, *, to_publish: bool = False
    ) -> OpenAuthority:
        """Make the authority after ``old``."""
        new = await self.ca.create(old.role, to_publish=to_publish)
        self.party.recorder.record(
            Event(
                kind="state",
                name=f"authority {how}",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                summary=f"{readable(new.certificate.subject)} follows "
                f"{readable(old.certificate.subject)}, which ends on "
                f"{old.certificate.not_valid_after_utc:%F}",
                data={
                    "role": new.role.value,
                    "number": new.number,
                    "fingerprint": fingerprint(new.certificate),
                    "before": fingerprint(old.certificate),
                },
            )
        )
        did(f"{new.title} until {new.certificate.not_valid_after_utc:%F}")
        if new.has_delegated_responder:
            await self.ca.ocsp_signer(new)
        return new

    # ---------------------------------------------------------------- rollover

    async def roll_over(self, role: Role, *, publish: bool, cascade: bool) -> RolledOver:
        """A new key and certificate for ``role`` now, and with ``cascade`` for this party's
        authorities below it; a new root goes into the root pool beside the old one, unless it
        is not to be published.

        Where the pool does not take it, the Refusal names the new root: it stands, and a round
        publishes it. Asked again meanwhile, that rollover goes on: no other root is made.
        """
        to_publish = role.is_root and publish
        async with self.party.database.alone("succession", wait=True):
            await self.ca.look()
            waiting = [own for own in await self._unpublished() if own.role is role]
            if to_publish and waiting:
                made = [waiting[-1]]
            else:
                old = self.ca.authority(role)
                made = [await self._follow(old, "rolled over", to_publish=to_publish)]
            if cascade:
                made += [await self._under_the_new(below) for below in self._below(role)]
        if to_publish:
            try:
                await self.publish(made[0])
            except Refusal as refusal:
                refusal.details["root"] = fingerprint(made[0].certificate)
                raise
        return RolledOver(made, to_publish)

    async def _under_the_new(self, role: Role) -> OpenAuthority:
        """The authority of ``role`` below a new one: made anew, unless it hangs there already."""
        own, issuer = self.ca.authority(role), self.party.issuer(role)
        assert issuer is not None
        if own.certificate.issuer == self.ca.authority(issuer).certificate.subject and not own.lost:
            return own
        return await self._follow(own, "rolled over")

    async def remake_below(self, role: Role) -> list[OpenAuthority]:
        """New authorities below ``role``, from the top down: what stands above them is new."""
        async with self.party.database.alone("succession", wait=True):
            await self.ca.look()
            return [
                await self._follow(self.ca.authority(below), "rolled over")
                for below in self._below(role)
            ]

    def _below(self, role: Role) -> list[Role]:
        """This party's roles whose chain goes through ``role``, from the top down."""
        found = {role}
        for other in self.ca.roles:
            if self.party.issuer(other) in found:
                found.add(other)
        return [other for other in self.ca.roles if other in found - {role}]

    async def publish(self, root: OpenAuthority) -> None:
        """Bring a root to the root pool; one that is there already changes nothing."""
        if not root.role.is_root:
            raise Refusal(
                422, "not_a_root", f"role: a {root.role.value} is no root; only roots are published"
            )
        await self.party.uses("rcp").call(
            "POST",
            "/roots",
            name="publish root",
            summary=f"{self.party.config.title} publishes its root",
            body={
                "type": root.role.family.upper(),
                "certificate": b64(der_of(root.certificate)),
            },
        )

        def done(session: Session) -> None:
            session.get_one(self.ca.tables.authority, root.id).to_publish = False

        if any(own.id == root.id for own in await self._unpublished()):
            await self.party.database.write(done)

    async def _unpublished(self) -> list[OpenAuthority]:
        """The roots that are to be in the pool and are not, oldest first; not those that ended."""
        waiting = await self.party.database.read(
            lambda session: store.unpublished(self.ca.tables, session)
        )
        now = self.party.clock.now()
        return [
            own
            for own in self.ca.authorities()
            if own.id in waiting and now < own.certificate.not_valid_after_utc
        ]

    async def publish_first(self) -> None:
        """At a start: the root that this party began with is in the pool. Later ones are
        published by who rolls over; one that has ended is of no use to anybody."""
        now = self.party.clock.now()
        for own in self.ca.authorities():
            first = own.role.is_root and own.number == 1
            if first and now < own.certificate.not_valid_after_utc:
                await self.publish(own)

    # ---------------------------------------------------------------- lost keys

    async def lose_key(self, role: Role) -> OpenAuthority:
        """Destroy the key of the authority of ``role`` that issues now; a second time changes
        nothing.

        Its OCSP responder lives on with a key of its own until its certificate ends. A root
        signs for itself as long as it can: its responder's certificate is its last signature.
        """
        await self.ca.look()
        own = self.ca.authority(role)
        if own.lost:
            return own
        if role.is_root and own.valid_at(self.party.clock.now()):
            await self.ca.ocsp_signer(own)
        told = self.party.recorder.stamped(
            Event(
                kind="state",
                name="key lost",
                sender=self.party.config.name,
                receiver=self.party.config.name,
                outcome="failed",
                summary=f"The private key of {readable(own.certificate.subject)} is lost",
                data={
                    "role": role.value,
                    "number": own.number,
                    "fingerprint": fingerprint(own.certificate),
                },
            )
        )

        def destroy(session: Session) -> None:
            if self.party.keys.destroy(session, own.reference):
                self.party.database.tell(session, told)

        await self.party.database.write(destroy)
        await self.ca.look()
        return self.ca.authority(role)
