"""Trust stores: the roots that somebody holds, kept in the database of whoever looks after them.

A store has a holder: a party (under its name), a car (under its PCID), a maker's set for all
its cars (:data:`CARS`). Its version counts up with each change of what is in it; *renewed* is
the instant (ecosystem time) at which it was last compared with where it comes from, whether
that changed anything or not. A store that nobody renews stays as it is, however old.

Renewing takes over what the supplier offers: new roots come, withdrawn ones go. What was
added by hand is not the supplier's and stays until it is removed by hand; what was removed
by hand and is still offered comes back with the next renewal.

A :class:`Keeper` renews one store by the holder's policy (:data:`services.ecosystem.POLICIES`,
``anchors``): *follow* compares with the supplier once a minute while it judges, and at once
when a root is unknown; *daily* when a day of ecosystem time is over; *manual* never by itself.
The first content always comes from the supplier.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from cryptography import x509
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from pki.names import readable
from pki.profiles import Role
from pki.trust import Anchor, Holder, TrustStore

from .answers import Certificate, Root
from .certificates import der_of, fingerprint, load_der
from .errors import Refusal
from .events import Event
from .jobs import did, waits
from .party import Party

log = logging.getLogger("pnclab")

T = TypeVar("T")

# The root pool's types.
ROOT_ROLES = {"V2G": Role.V2G_ROOT, "OEM": Role.OEM_ROOT, "MO": Role.MO_ROOT}

# The holder under which a vehicle maker keeps the roots that its cars get.
CARS = "cars"

# What the source of an anchor begins with that did not come from the supplier.
BY_HAND = "by hand"

# Seconds of elapsed time for which a store that follows its supplier is used before it is
# compared again, and until the next attempt after one that failed.
ANCHORS_REUSE = 60.0
ANCHORS_RETRY = 5.0
# Seconds that a first content may wait for the roots of those who start at the same time.
FIRST_PATIENCE = 20.0

A_DAY = timedelta(days=1)


@dataclass(frozen=True)
class HeldAnchor:
    """A root in a store, and where it came from."""

    certificate: x509.Certificate
    role: Role
    source: str
    added_at: datetime

    @property
    def by_hand(self) -> bool:
        return self.source.startswith(BY_HAND)


@dataclass(frozen=True)
class HeldStore:
    """A store as it lies in the database."""

    holder: str
    version: int
    source: str
    renewed_at: datetime
    anchors: tuple[HeldAnchor, ...]

    def value(self, kind: Holder) -> TrustStore:
        """The store as judgements take it."""
        anchors = tuple(Anchor(held.certificate, held.role) for held in self.anchors)
        return TrustStore(kind, anchors, self.source, self.version)


@dataclass(frozen=True)
class Change:
    """What a renewal or a command did to a store."""

    store: HeldStore
    added: tuple[x509.Certificate, ...] = ()
    removed: tuple[x509.Certificate, ...] = ()


@dataclass(frozen=True)
class Offer:
    """What a supplier offers now."""

    anchors: tuple[Anchor, ...]
    source: str


class TrustStores:
    """The stores in one party's database."""

    def __init__(self, party: Party) -> None:
        self.party = party
        self._stores: Any = party.tables.store_row
        self._anchors: Any = party.tables.anchor_row

    async def find(self, holder: str) -> HeldStore | None:
        return await self.party.database.read(lambda session: self.held(session, holder))

    async def get(self, holder: str) -> HeldStore:
        """The store of ``holder``; Refusal 404 where there is none."""
        store = await self.find(holder)
        if store is None:
            raise _no_store(holder)
        return store

    async def version(self, holder: str) -> int | None:
        row = self._stores
        query = select(row.version).where(row.holder == holder)
        return await self.party.database.read(lambda session: session.scalars(query).first())

    async def renew(self, holder: str, offer: Offer, *, quietly: bool = False) -> Change:
        """Take over what is offered; a store that does not exist yet is made. ``quietly``: where
        nothing is to change nothing is written, not even that it was compared."""
        if quietly:
            held = await self.find(holder)
            if held is not None and not any(self._differences(held, offer)):
                return Change(held)
        return await self._write(lambda session: self.take_over(session, holder, offer))

    async def add(
        self,
        holder: str,
        certificate: x509.Certificate,
        role: Role,
        who: str,
        source: str | None = None,
    ) -> Change:
        """Put a root into a store by hand: ``who`` does it, ``source`` says where it is from (as
        a rule from them); what it has already stays as it is.

        Refusal 422 for what is no root, 409 where the store has it in another role.
        """
        must_be_root(certificate, self.party.clock.now(), "certificate")
        by_hand = f"{BY_HAND}: {source or who}"[:256]

        def change(session: Session) -> Change:
            held = self._existing(session, holder)
            mark = fingerprint(certificate)
            for anchor in held.anchors:
                if fingerprint(anchor.certificate) == mark:
                    if anchor.role is not role:
                        raise Refusal(
                            409,
                            "other_role",
                            f"role: {holder} has this root as {anchor.role}, not as {role}",
                        )
                    return Change(held)
            self._put(session, holder, Anchor(certificate, role), by_hand)
            return self._changed(session, held, who, by_hand, (certificate,), ())

        return await self._write(change)

    async def remove(self, holder: str, mark: str, who: str) -> Change:
        """Take a root (by its fingerprint) out of a store: ``who`` does it by hand. Refusal 404
        where it is not in it."""

        def change(session: Session) -> Change:
            held = self._existing(session, holder)
            found = [a for a in held.anchors if fingerprint(a.certificate) == mark.lower()]
            if not found:
                raise Refusal(404, "no_such_anchor", f"{holder} holds no anchor {mark}")
            self._drop(session, holder, found[0].certificate)
            gone = (found[0].certificate,)
            by_hand = f"{BY_HAND}: {who}"[:256]
            return self._changed(session, held, who, by_hand, (), gone)

        return await self._write(change)

    # Within a transaction of the caller.

    def held(self, session: Session, holder: str, *, lock: bool = False) -> HeldStore | None:
        """The store of ``holder`` as this transaction sees it."""
        row = session.get(self._stores, holder, with_for_update=lock or None)
        if row is None:
            return None
        query = select(self._anchors).where(self._anchors.holder == holder)
        query = query.order_by(self._anchors.added_at, self._anchors.fingerprint)
        return HeldStore(
            holder,
            row.version,
            row.source,
            row.renewed_at,
            tuple(
                HeldAnchor(load_der(one.certificate), Role(one.role), one.source, one.added_at)
                for one in session.scalars(query)
            ),
        )

    def take_over(self, session: Session, holder: str, offer: Offer) -> Change:
        """:meth:`renew` within a write."""
        now = self.party.clock.now()
        held = self.held(session, holder, lock=True)
        if held is None:
            session.add(self._stores(holder=holder, version=0, source=offer.source, renewed_at=now))
            session.flush()
            held = HeldStore(holder, 0, offer.source, now, ())
        coming, going = self._differences(held, offer)
        for certificate in going:
            self._drop(session, holder, certificate)
        for anchor in coming:
            self._put(session, holder, anchor, offer.source)
        added = tuple(anchor.certificate for anchor in coming)
        row = session.get_one(self._stores, holder)
        row.source, row.renewed_at = offer.source, now
        who = offer.source.partition(" ")[0]
        return self._changed(session, held, who, offer.source, added, going)

    def forget(self, session: Session, holder: str) -> None:
        """Take a store away with all that is in it."""
        session.execute(delete(self._anchors).where(self._anchors.holder == holder))
        session.execute(delete(self._stores).where(self._stores.holder == holder))

    # ------------------------------------------------------------------ inside

    @staticmethod
    def _differences(
        held: HeldStore, offer: Offer
    ) -> tuple[tuple[Anchor, ...], tuple[x509.Certificate, ...]]:
        """What comes and what goes when ``held`` takes over what is offered."""
        have = {anchor.certificate for anchor in held.anchors}
        offered = {anchor.certificate: anchor for anchor in offer.anchors}
        return (
            tuple(anchor for one, anchor in offered.items() if one not in have),
            tuple(
                anchor.certificate
                for anchor in held.anchors
                if anchor.certificate not in offered and not anchor.by_hand
            ),
        )

    async def _write(self, change: Callable[[Session], T]) -> T:
        try:
            return await self.party.database.write(change)
        except IntegrityError:
            # Another worker made the same store at the same time: now there is one.
            return await self.party.database.write(change)

    def _existing(self, session: Session, holder: str) -> HeldStore:
        held = self.held(session, holder, lock=True)
        if held is None:
            raise _no_store(holder)
        return held

    def _put(self, session: Session, holder: str, anchor: Anchor, source: str) -> None:
        session.add(
            self._anchors(
                holder=holder,
                fingerprint=fingerprint(anchor.certificate),
                role=anchor.role.value,
                certificate=der_of(anchor.certificate),
                source=source,
                added_at=self.party.clock.now(),
            )
        )

    def _drop(self, session: Session, holder: str, certificate: x509.Certificate) -> None:
        row = session.get(self._anchors, (holder, fingerprint(certificate)))
        if row is not None:
            session.delete(row)

    def _changed(
        self,
        session: Session,
        before: HeldStore,
        who: str,
        source: str,
        added: Sequence[x509.Certificate],
        removed: Sequence[x509.Certificate],
    ) -> Change:
        """Count the version up and tell who changed what, and where that comes from."""
        if added or removed:
            row = session.get_one(self._stores, before.holder)
            row.version = before.version + 1
            told = self._told(before.holder, row.version, who, source, added, removed)
            self.party.database.tell(session, told)
        session.flush()
        after = self.held(session, before.holder)
        assert after is not None
        return Change(after, tuple(added), tuple(removed))

    def _told(
        self,
        holder: str,
        version: int,
        who: str,
        source: str,
        added: Sequence[x509.Certificate],
        removed: Sequence[x509.Certificate],
    ) -> Event:
        changes = [f"{readable(one.subject)} comes" for one in added]
        changes += [f"{readable(one.subject)} goes" for one in removed]
        return self.party.recorder.stamped(
            Event(
                kind="state",
                name="trust store changed",
                sender=who,
                receiver=self.party.config.name,
                summary=f"The trust store of {holder} is now version {version}: "
                f"{'; '.join(changes)}",
                data={
                    "holder": holder,
                    "version": version,
                    "source": source,
                    "added": [fingerprint(one) for one in added],
                    "removed": [fingerprint(one) for one in removed],
                },
            )
        )


class Keeper:
    """Keeps one store: its content at hand, renewed as ``policy`` says."""

    def __init__(
        self,
        party: Party,
        holder: str,
        kind: Holder,
        supply: Callable[[], Awaitable[Offer]],
        policy: str,
        readers: Sequence[str] = (),
    ) -> None:
        """``readers`` are roles of parties that may look at it, beside the party itself."""
        self.party = party
        self.readers = tuple(readers)
        self.holder = holder
        self.policy = policy
        self.store = TrustStore(kind)
        self.stores = TrustStores(party)
        self._supply = supply
        self._refresh_due = 0.0
        self._refreshing = asyncio.Lock()
        self._first_try: float | None = None

    async def prepare(self) -> None:
        """Have a content: the one that is kept, or a first one from the supplier.

        Refusal while the supplier does not answer a first time. Later starts go on with what
        there is.
        """
        await self._reload()
        if await self.stores.version(self.holder) is not None:
            if self.policy == "follow":
                await self._compare()
            return
        offer = await self._supply()
        self._must_be_whole(offer)
        await self._taken(offer)

    async def renew(self) -> Change:
        """Compare with the supplier now; Refusal where it does not answer."""
        return await self._taken(await self._supply())

    async def fresh(self) -> HeldStore:
        """The store to hand on to somebody else: one that follows is compared first."""
        if self.policy == "follow":
            try:
                return (await self._taken(await self._supply(), quietly=True)).store
            except Refusal as reason:
                log.info("%s: the anchors stay: %s", self.party.config.name, reason.message)
        return await self.stores.get(self.holder)

    async def current(self) -> TrustStore:
        """The store to judge by: as policy says, and as other workers have left it."""
        if self.policy == "follow" and time.monotonic() >= self._refresh_due:
            await self._compare()
        await self._reload()
        return self.store

    async def look_again(self, seen: int) -> bool:
        """A root was unknown to the store of version ``seen``: whether it has changed since, by
        asking again if need be. Only a store that follows asks; Refusal where nobody answers."""
        if self.policy != "follow":
            return False
        # Of many that judge at once, another one may have asked meanwhile.
        if self.store.version == seen:
            await self._taken(await self._supply(), quietly=True)
        return self.store.version != seen

    async def forget(self) -> None:
        """Take over what lies in the database, whatever its version."""
        self.store = TrustStore(self.store.holder)
        self._refresh_due = 0.0
        await self._reload()

    async def renew_daily(self) -> None:
        """A round: a day is over, also when the clock was moved back behind the last renewal."""
        if self.policy != "daily":
            return
        held = await self.stores.find(self.holder)
        if held is None or is_due(held.renewed_at, self.party.clock.now()):
            async with self.party.unit():
                try:
                    tell_of(await self.renew())
                except Refusal as reason:
                    log.info("%s: the anchors stay: %s", self.party.config.name, reason.message)
                    waits(f"the trust store of {self.holder}", reason.message)

    async def _compare(self) -> None:
        """Renew what is too old; those who judge meanwhile wait for the one answer."""
        async with self._refreshing:
            if time.monotonic() < self._refresh_due:
                return
            try:
                await self._taken(await self._supply(), quietly=True)
            except Refusal as reason:
                self._refresh_due = time.monotonic() + ANCHORS_RETRY
                log.info("%s: the anchors stay: %s", self.party.config.name, reason.message)

    async def _taken(self, offer: Offer, *, quietly: bool = False) -> Change:
        change = await self.stores.renew(self.holder, offer, quietly=quietly)
        self.store = change.store.value(self.store.holder)
        self._refresh_due = time.monotonic() + ANCHORS_REUSE
        return change

    async def _reload(self) -> None:
        version = await self.stores.version(self.holder)
        if version is None or version == self.store.version:
            return
        held = await self.stores.find(self.holder)
        if held is not None:
            self.store = held.value(self.store.holder)

    def _must_be_whole(self, offer: Offer) -> None:
        """A store that does not follow would miss for ever who publishes a moment later: its
        first content waits a while until every root of the ecosystem is offered."""
        if self._first_try is None:
            self._first_try = time.monotonic()
        if self.policy == "follow" or time.monotonic() > self._first_try + FIRST_PATIENCE:
            return
        for role in self.party.trust.held[self.store.holder]:
            wanted = roots_expected(self.party, role)
            there = sum(1 for anchor in offer.anchors if anchor.role is role)
            if there < wanted:
                raise Refusal(
                    503,
                    "roots_missing",
                    f"{offer.source} has {there} of {wanted} roots of type {role}; "
                    f"policy anchors={self.policy} waits for the rest",
                )


def tell_of(change: Change) -> None:
    """To who asked for a run of jobs: a store has changed; one that was only compared has not."""
    if change.added or change.removed:
        store = change.store
        did(
            f"the trust store of {store.holder} is now version {store.version}: "
            f"{len(change.added)} roots come, {len(change.removed)} go"
        )


def is_due(renewed_at: datetime, now: datetime) -> bool:
    """Whether a day of ecosystem time is over since; a renewal in the future is none."""
    return not timedelta() <= now - renewed_at < A_DAY


def roots_expected(party: Party, role: Role) -> int:
    """How many roots of a type the parties of this ecosystem publish."""
    ecosystem = party.ecosystem
    if role is Role.V2G_ROOT:
        return len(ecosystem.of_kind("v2g-root"))
    if role is Role.OEM_ROOT:
        return len(ecosystem.of_kind("oem"))
    if Role.MO_ROOT not in party.trust.roots:
        return 0
    return sum(1 for one in ecosystem.of_kind("mo") if one.options.get("root", "own") == "own")


def pool(party: Party, kind: Holder) -> Callable[[], Awaitable[Offer]]:
    """The root pool as a supplier: the roots that the trust model gives this kind of holder."""

    async def supply() -> Offer:
        roots = await published(party, f"{party.config.title} asks for the known roots")
        held = party.trust.held[kind]
        return Offer(
            tuple(
                Anchor(root.certificate, ROOT_ROLES[root.type])
                for root in roots
                if ROOT_ROLES.get(root.type) in held
            ),
            party.config.uses["rcp"],
        )

    return supply


@dataclass(frozen=True)
class OfferedAnchor:
    """One of ``anchors`` in a store's body."""

    role: Role
    certificate: Certificate


@dataclass(frozen=True)
class OfferedStore:
    """A store as another party hands it out: GET /charger-anchors, GET /over-the-air."""

    anchors: list[OfferedAnchor]

    def offer(self, source: str) -> Offer:
        return Offer(tuple(Anchor(one.certificate, one.role) for one in self.anchors), source)


async def published(party: Party, summary: str) -> list[Root]:
    """The roots that the pool has now."""
    answer = await party.uses("rcp").call("GET", "/roots", name="roots", summary=summary)
    return answer.read(list[Root])


def must_be_root(certificate: x509.Certificate, now: datetime, field: str) -> None:
    """Refusal 422 unless this is a root: signed by its own key, a CA, not expired."""
    try:
        certificate.verify_directly_issued_by(certificate)
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except Exception as error:  # the library documents no common type
        raise Refusal(
            422,
            "not_a_root",
            f"{field}: {readable(certificate.subject)} is no root: it is not signed by "
            f"its own key, or says nothing about being a CA ({error})",
        ) from None
    if not is_ca:
        raise Refusal(422, "not_a_root", f"{field}: basicConstraints says that it is no CA")
    if certificate.not_valid_after_utc <= now:
        raise Refusal(
            422,
            "expired",
            f"{field}: this root expired at {certificate.not_valid_after_utc:%F %T}Z",
        )


def certificates_of(anchors: Iterable[HeldAnchor]) -> tuple[x509.Certificate, ...]:
    return tuple(anchor.certificate for anchor in anchors)


def _no_store(holder: str) -> Refusal:
    return Refusal(404, "no_trust_store", f"no trust store of {holder} is kept here")
