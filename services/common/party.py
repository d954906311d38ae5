"""What every party has: a name, a clock, a database, keys, a pen, a way to call others."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import select

from pki.edition import Edition
from pki.profiles import Role
from pki.trust import TrustModel
from services.ecosystem import Client, Ecosystem, PartyConfig

from . import jobs
from .auth import TokenIssuer
from .client import Http, PartyClient
from .clock import Clock
from .database import Database
from .entropy import Entropy
from .errors import Refusal
from .events import Recorder, current_unit, unit_of_work
from .faults import Faults
from .keystore import KeyStore, has_sealed_keys, sealing_secret
from .known_state import Gate, KnownState
from .migrations import upgrade
from .tables import Tables
from .web_tokens import PublishedKeys

if TYPE_CHECKING:
    from .trust_stores import Keeper

log = logging.getLogger("pnclab")

T = TypeVar("T")

# How many pieces of work that call other parties a party has under way at a time. More
# wait their turn before they begin, so that the timeouts of the calls inside count work
# and not queueing: a burst of hundreds is slow for its last, and fails for nobody.
TURNS = 16
# How many may follow the events of one process at a time.
MAX_STREAMS = 64


class Party:
    """One running party; its service, store and doors are built on this."""

    def __init__(self, ecosystem: Ecosystem, name: str, tables: Tables) -> None:
        self.ecosystem = ecosystem
        self.config: PartyConfig = ecosystem.party(name)
        self.tables = tables
        # The trust stores that this party keeps, by the name of their doors.
        self.keepers: dict[str, Keeper] = {}
        self.clock = Clock.kept_in(ecosystem.data, ecosystem.clock_offset)
        self.database = Database(self.config.database, tables.metadata, schema=name)
        secret = sealing_secret(
            self.config.secret_file, lost=has_sealed_keys(self.database, tables.key_row)
        )
        self.entropy = Entropy(name, ecosystem.seed, self.config.secret_file.with_suffix(".starts"))
        self.keys = KeyStore(self.database, tables.key_row, secret, self.entropy)
        self.recorder = Recorder(name, self.clock)
        self.http = Http(self)
        self.tokens = TokenIssuer(
            name,
            hmac.digest(secret, b"tokens", hashlib.sha256),
            ecosystem.all_clients(),
            self.clock,
            self._brought_clients,
            PublishedKeys(self),
        )
        self.faults = Faults(self, tables)
        self.turns = asyncio.Semaphore(TURNS)
        # Who follows the events, and what ends that: the party stops.
        self.streams = asyncio.Semaphore(MAX_STREAMS)
        self.stopping = asyncio.Event()
        self._clients: dict[str, PartyClient] = {}
        self._open = False
        self.gate = Gate(name)
        self.known_state = KnownState(self)
        # Who has work under way beside the requests and ends it; who knows rows by heart.
        self.at_hold: list[Callable[[], Awaitable[None]]] = []
        self.at_reset: list[Callable[[], Awaitable[None]]] = []

    @property
    def edition(self) -> Edition:
        return self.ecosystem.edition

    @property
    def trust(self) -> TrustModel:
        return self.ecosystem.trust_model

    def issuer(self, role: Role) -> Role | None:
        """The role of the CA that issues ``role`` of this party, None for a root."""
        # A provisioning service has a CA for operators without one: under the V2G root.
        hosted = self.config.options.get("root") == "v2g" or self.config.kind == "cps"
        return self.trust.issuer(role, hosted=hosted)

    @property
    def organisation(self) -> str:
        """What stands as O in this party's certificates: they say that they are tests."""
        return f"{self.config.organisation} (pnclab test)"

    def strict(self) -> bool:
        """Whether identifiers must be right to the letter here."""
        return self.config.policy.get("identifiers", "strict") == "strict"

    def client(self, name: str) -> PartyClient:
        """A client for the party of this name."""
        if name not in self._clients:
            self._clients[name] = PartyClient(self, self.ecosystem.party(name))
        return self._clients[name]

    def uses(self, kind: str) -> PartyClient:
        """A client for the party of this kind that this party's entry names."""
        return self.client(self.config.uses[kind])

    async def _brought_clients(self) -> list[Client]:
        rows = await self.database.read(
            lambda session: list(session.scalars(select(self.tables.client_row)))
        )
        return [Client(row.id, row.secret, row.role, row.scope_id) for row in rows]

    def open(self) -> None:
        """Bring the database up to date and start writing; a second time changes nothing."""
        if self._open:
            return
        self._open = True
        upgrade(self.database, self.config.kind)
        self.database.open()

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[None]:
        """A unit of work of what goes on by itself, in the run that is under way; what it told is
        kept, however it ends."""
        with unit_of_work(current_unit().run or "resume"):
            try:
                yield
            finally:
                await self.database.flush()

    async def take_up(
        self,
        rows: Iterable[T],
        work: Callable[[T], Awaitable[bool]],
        name: Callable[[T], str],
    ) -> None:
        """A round over what was left half way, each in a unit of work of its own.

        ``work`` says whether it did anything: what was only looked at is not told as done. What
        another party refuses, or does not answer, stays as it is until the next round.
        """
        for row in rows:
            async with self.unit():
                try:
                    done = await work(row)
                except Refusal as reason:
                    log.info("%s: %s waits: %s", self.config.name, name(row), reason.message)
                    jobs.waits(name(row), reason.message)
                else:
                    if done:
                        jobs.did(name(row))

    async def forget(self) -> None:
        """Look at everything again: the rows are others than a moment ago."""
        self.keys.forget()
        self.tokens.forget()
        self.faults.forget()
        for keeper in self.keepers.values():
            await keeper.forget()
        for forget in self.at_reset:
            await forget()

    async def close(self) -> None:
        await self.http.close()
        self.database.close()
