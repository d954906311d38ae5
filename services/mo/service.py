"""A mobility operator: its CA, its contracts, its accounts, its settlement."""

from __future__ import annotations

from pki.profiles import Role
from services.ca.enrolment import Counter, Enrolment
from services.ca.importing import take_up
from services.ca.responder import Responder
from services.ca.service import CertificateAuthority
from services.common.party import Party

from .accounts import Accounts
from .contracts import Contracts, end_revoked
from .platform import PlatformOrders
from .renewals import Renewals
from .settlement import Settlement
from .store import CA
from .transfers import Transfers


class MobilityOperator:
    def __init__(self, party: Party) -> None:
        self.party = party
        # Under some trust models there is no root of its own.
        own_root = party.issuer(Role.MO_SUB1) is Role.MO_ROOT
        roles = (Role.MO_SUB1, Role.MO_SUB2)
        self.ca = CertificateAuthority(
            party,
            CA,
            (Role.MO_ROOT, *roles) if own_root else roles,
            on_revoked=end_revoked,
        )
        self.accounts = Accounts(party)
        self.contracts = Contracts(party, self.ca)
        self.responder = Responder(self.ca)
        self.enrolment = Enrolment(
            self.ca,
            (Counter("mo", Role.CONTRACT, ("mo",), self.contracts.enrolled),),
            anchors=lambda: [one.certificate for one in self.contracts.judge.store.anchors],
        )
        self.renewals = Renewals(party, self.contracts)
        self.platform = PlatformOrders(party, self.contracts, self.renewals)
        self.transfers = Transfers(party, self.contracts)
        self.settlement = Settlement(party, self.contracts)

    async def prepare(self) -> None:
        await self.ca.prepare()
        await self.ca.succession.publish_first()
        await self.contracts.judge.prepare()
        await take_up(self.ca)
