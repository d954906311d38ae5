"""The V2G roots in each car: put in by the factory, renewed over the air or in a workshop.

A car believes what ends at a root in its own store, and nothing else. It takes over its
maker's set of roots over the air (policy ``over_the_air``: once a day of ecosystem time, or by
command); a workshop puts in what the root pool has.
"""

from __future__ import annotations

import logging

from cryptography import x509
from sqlalchemy import select

from pki.identifiers import PCID, IdentifierError
from pki.trust import Holder
from services.common.client import PartyClient
from services.common.errors import Refusal
from services.common.jobs import waits
from services.common.party import Party
from services.common.trust_stores import (
    Change,
    Offer,
    OfferedStore,
    TrustStores,
    certificates_of,
    is_due,
    pool,
    tell_of,
)

from .store import CarRow

log = logging.getLogger("pnclab")

# ListOfRootCertificateIDs names no more; the newest ones go into a car.
MAX_ROOTS = 20


class CarStores(TrustStores):
    """The trust stores of the cars in one garage, under their PCIDs."""

    def __init__(self, party: Party) -> None:
        super().__init__(party)
        self.policy = party.config.policy["over_the_air"]
        self._pool = pool(party, Holder.VEHICLE)

    async def roots(self, pcid: str) -> tuple[x509.Certificate, ...]:
        """The roots that a car believes in."""
        store = await self.find(pcid)
        return certificates_of(store.anchors) if store else ()

    async def from_maker(self, maker: PartyClient, source: str) -> Offer:
        """The set of roots that a maker has for its cars now."""
        answer = await maker.call(
            "GET",
            "/over-the-air",
            name="roots for cars",
            summary=f"Which V2G roots {maker.target.title} has for its cars",
        )
        return _newest(answer.read(OfferedStore).offer(source))

    async def workshop(self, pcid: str) -> Change:
        """Put in what the root pool has now."""
        await self.get(pcid)
        return await self.renew(pcid, _newest(await self._pool()))

    async def over_the_air(self, pcid: str) -> Change:
        """Take over the maker's set. Refusal 409 where nobody here made the car."""
        await self.get(pcid)
        maker = self._maker(pcid)
        if maker is None:
            raise Refusal(
                409,
                "no_maker",
                f"no vehicle maker of this ecosystem has the WMI of {pcid}: nobody sends it roots",
            )
        return await self.renew(pcid, await self._sent(maker))

    async def renew_daily(self) -> None:
        """A round: each car that has not heard of its maker for a day takes over its set."""
        if self.policy != "auto":
            return
        row, now = self._stores, self.party.clock.now()
        query = select(row.holder, row.renewed_at).join(CarRow, CarRow.pcid == row.holder)
        known = await self.party.database.read(lambda session: session.execute(query).all())
        due: dict[str, list[str]] = {}
        for pcid, renewed_at in known:
            if is_due(renewed_at, now) and (maker := self._maker(pcid)) is not None:
                due.setdefault(maker.target.name, []).append(pcid)
        for name, pcids in due.items():
            async with self.party.unit():
                try:
                    offer = await self._sent(self.party.client(name))
                    for pcid in pcids:
                        tell_of(await self.renew(pcid, offer))
                except Refusal as reason:
                    log.info("%s: cars keep their roots: %s", name, reason.message)
                    waits(f"the roots of {len(pcids)} cars of {name}", reason.message)

    def _maker(self, pcid: str) -> PartyClient | None:
        try:
            wmi = PCID.parse(pcid, strict=False).wmi
        except IdentifierError:
            return None
        maker = self.party.ecosystem.by_scope("oem", wmi)
        return self.party.client(maker.name) if maker else None

    async def _sent(self, maker: PartyClient) -> Offer:
        return await self.from_maker(maker, f"{maker.target.name} over the air")


def _newest(offer: Offer) -> Offer:
    return Offer(offer.anchors[-MAX_ROOTS:], offer.source)
