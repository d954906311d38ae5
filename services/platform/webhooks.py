"""Webhooks: who hears of what, and how it reaches them.

**What is told.** A pool writes a fact with each change (:mod:`services.common.notices`). A round
of the platform reads the facts of the three pools behind a cursor each, and writes a delivery for
every endpoint that has the event enabled and may hear of it, with the cursor, in one transaction:
nothing is lost while the platform is down, and nothing is written twice. :data:`FACTS` says which
events a fact is, and whose they are.

**At least once.** A delivery is tried until somebody takes it (2xx). What is answered 5xx, or not
in time, or not at all, is tried three times more, each after ``webhook_retry`` of ecosystem time
(an hour; under ``[ecosystem]``); any other answer ends it, a redirect too, which is not followed.
Every attempt of an event has the same ``eventId``. First attempts are made in the order in which
things happened.

**Where to.** Only to addresses of ``webhooks`` under ``[ecosystem]``, loopback by default. That is
asked of a URL when it is registered, and of the address that its name has when the connection is
made, so that a name that changes its address leads nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import BaseModel
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pki.names import common_name
from services.common import opcp
from services.common.auth import Caller
from services.common.certificates import fingerprint, load_der, unb64
from services.common.errors import Refusal
from services.common.events import Event
from services.common.jobs import did, waits
from services.common.opcp import ISO2
from services.common.party import Party

from .store import ContractRow, CursorRow, DeliveryRow, EndpointRow

POOLS = ("rcp", "pcp", "ccp")
# Seconds for an attempt, bytes that are read of an answer, attempts after the first one.
TIMEOUT = 5.0
MAX_ANSWER = 65_536
RETRIES = 3
MAX_ENDPOINTS = 100
PAGE = 200
SIGNATURE_HEADERS = ("X-Operator-Signature", "X-Hubject-Signature", "payload-signature")
_IDS = uuid.UUID("6f0c3c55-3f0e-5d5c-9d42-3a2f1c5f7b10")

ALL, OPERATOR, MAKER = "all", "mo", "oem"


@dataclass(frozen=True)
class Told:
    """An event that a fact is, and who hears of it: all, the contract's operator, the car's
    maker. Nobody else does, a charge point operator never hears of a contract."""

    event: str
    whom: str


FACTS: Mapping[str, tuple[Told, ...]] = {
    "root.added": (Told("root.cert.added", ALL),),
    "root.revoked": (Told("root.cert.revoked", ALL),),
    "root.expired": (Told("root.cert.expired", ALL),),
    "prov.updated": (Told("mo.prov.cert.updated", OPERATOR),),
    "prov.deleted": (Told("mo.prov.cert.deleted", OPERATOR),),
    "prov.reset": (
        Told("mo.prov.cert.factory.reset", OPERATOR),
        Told("mo.prov.cert.updated.factory.reset", OPERATOR),
    ),
    "contract.created": (
        Told("mo.contract.created.sent.to.oem", OPERATOR),
        Told("oem.contract.created", MAKER),
    ),
    "contract.updated": (
        Told("mo.contract.updated.sent.to.oem", OPERATOR),
        Told("oem.contract.updated", MAKER),
    ),
    "contract.deleted": (
        Told("mo.contract.deleted.sent.to.oem", OPERATOR),
        Told("oem.contract.deleted", MAKER),
    ),
    "contract.delivered": (Told("mo.contract.delivered.to.oem", OPERATOR),),
    # They may be enabled, and never happen here: a maker neither rejects nor queues.
    "contract.rejected": (Told("mo.contract.rejected.by.oem", OPERATOR),),
    "contract.queued": (Told("mo.contract.queued.to.oem", OPERATOR),),
}
EVENTS = tuple(told.event for events in FACTS.values() for told in events)


class Notice(BaseModel):
    """One of GET /notices of a pool."""

    id: str
    at: str
    fact: str
    payload: dict[str, Any]


def signature(secret: str, body: bytes) -> str:
    """``sha256=`` and the HMAC-SHA256 of a body in hex."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class _NotAllowed(OSError):
    """An address that nothing is sent to."""


class _Resolver(AbstractResolver):
    """Names by the system, as far as their addresses are allowed."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._networks = tuple(ip_network(one) for one in allowed)

    def allows(self, address: str) -> bool:
        found = ip_address(address.split("%")[0])
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found.version == one.version and found in one for one in self._networks)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, port, family=family, type=socket.SOCK_STREAM
        )
        results = [
            ResolveResult(
                hostname=host, host=str(where[0]), port=port, family=kind, proto=proto, flags=0
            )
            for kind, _type, proto, _name, where in found
            if self.allows(str(where[0]))
        ]
        if not results:
            raise _NotAllowed(f"{host} has no address that [ecosystem] webhooks allows")
        return results

    async def close(self) -> None:
        pass


class Webhooks:
    def __init__(self, party: Party) -> None:
        self.party = party
        self.resolver = _Resolver(party.ecosystem.webhooks)
        self.retry: timedelta = party.ecosystem.webhook_retry
        self._reading = asyncio.Lock()

    # ---------------------------------------------------------------- endpoints

    async def must_be_allowed(self, url: str) -> None:
        """Refusal 400 unless a URL is one that events may be sent to."""
        try:
            parts = urlsplit(url)
            host, _port = parts.hostname, parts.port
        except ValueError:
            host, parts = None, urlsplit("")
        if parts.scheme not in ("http", "https") or not host or parts.username is not None:
            raise Refusal(400, "wrong_url", "url : an http or https URL without a login is wanted")
        try:
            await self.resolver.resolve(host)
        except (OSError, UnicodeError) as error:
            reason = error if isinstance(error, _NotAllowed) else "its name has no address"
            raise Refusal(400, "url_not_allowed", f"url : {reason}") from None

    async def add(self, row: EndpointRow) -> None:
        """Refusal 400 for a client with too many of them."""

        def keep(session: Session) -> None:
            query = select(EndpointRow.id).where(EndpointRow.owner == row.owner)
            if len(list(session.scalars(query))) >= MAX_ENDPOINTS:
                raise Refusal(400, "too_many", f"at most {MAX_ENDPOINTS} endpoints for a client")
            session.add(row)
            session.flush()

        await self.party.database.write(keep)

    async def of(self, caller: Caller) -> list[EndpointRow]:
        """The endpoints of a client; all for an admin."""
        query = select(EndpointRow).order_by(EndpointRow.created, EndpointRow.id)
        if not caller.is_admin:
            query = query.where(EndpointRow.owner == caller.client)
        return await self.party.database.read(lambda session: list(session.scalars(query)))

    async def get(self, identifier: str, caller: Caller) -> EndpointRow:
        """Refusal 404, for somebody else's too."""
        for row in await self.of(caller):
            if row.id == identifier:
                return row
        raise Refusal(404, "no_such_endpoint", "there is no webhook endpoint of this id")

    async def change(self, identifier: str, caller: Caller, **values: Any) -> EndpointRow:
        row = await self.get(identifier, caller)

        def keep(session: Session) -> EndpointRow:
            found = session.get(EndpointRow, row.id)
            if found is None:
                raise Refusal(404, "no_such_endpoint", "there is no webhook endpoint of this id")
            for name, value in values.items():
                setattr(found, name, value)
            session.flush()
            return found

        return await self.party.database.write(keep)

    async def remove(self, identifier: str, caller: Caller) -> None:
        """Take it away with what is still to be sent there."""
        row = await self.get(identifier, caller)

        def drop(session: Session) -> None:
            session.execute(delete(DeliveryRow).where(DeliveryRow.endpoint == row.id))
            session.execute(delete(EndpointRow).where(EndpointRow.id == row.id))

        await self.party.database.write(drop)

    # ------------------------------------------------------------------- rounds

    async def webhooks(self) -> None:
        """A round: read what happened at the pools, and send what is due."""
        await self.catch_up()
        await self._send_due()

    async def catch_up(self) -> None:
        """Read what happened at the pools; one that does not answer is asked the next time."""
        async with self._reading:
            for kind in POOLS:
                try:
                    while await self._read(kind):
                        pass
                except Refusal as reason:
                    waits(f"what happened at the {kind}", reason.message)

    async def _read(self, kind: str) -> bool:
        """Take over a page of facts; whether there may be more."""
        client = self.party.uses(kind)
        name = client.target.name
        cursor = await self.party.database.read(lambda session: session.get(CursorRow, name))
        after = cursor.last if cursor is not None else ""
        try:
            answer = await client.call(
                "GET",
                "/notices",
                name="notices",
                summary=f"{self.party.config.title} asks what happened",
                params={"after": after, "limit": str(PAGE)},
            )
        except Refusal as refusal:
            if refusal.code != "unknown_event":
                raise
            # The pool was made anew: all that it tells is new.
            await self.party.database.write(lambda session: self._move(session, name, ""))
            return True
        notices = answer.read(list[Notice])
        if not notices:
            return False

        def keep(session: Session) -> None:
            endpoints = list(session.scalars(select(EndpointRow).order_by(EndpointRow.id)))
            for one in notices:
                for row in self._deliveries(session, name, one, endpoints):
                    session.add(row)
                    session.flush()  # numbers are the order
            self._move(session, name, notices[-1].id)

        await self.party.database.write(keep)
        return len(notices) == PAGE

    @staticmethod
    def _move(session: Session, name: str, last: str) -> None:
        session.merge(CursorRow(party=name, last=last))
        session.flush()

    def _deliveries(
        self, session: Session, name: str, one: Notice, endpoints: Sequence[EndpointRow]
    ) -> list[DeliveryRow]:
        found = []
        for payload in self._payloads(session, one):
            for told in FACTS.get(one.fact, ()):
                mark = f"{name}/{one.id}/{told.event}/{payload.get('emaid', '')}"
                body = {
                    "timestamp": one.at,
                    "eventId": str(uuid.uuid5(_IDS, mark)),
                    "eventType": told.event,
                    "xsdMsgDefNamespace": ISO2,
                    "payload": payload,
                }
                found += [
                    DeliveryRow(
                        endpoint=endpoint.id,
                        event_id=body["eventId"],
                        event=told.event,
                        body=json.dumps(body, separators=(",", ":")),
                        attempts=0,
                        due_at=self.party.clock.now(),
                        state="waiting",
                        reason="",
                    )
                    for endpoint in endpoints
                    if endpoint.status == "enabled"
                    and told.event in endpoint.events
                    and _hears(endpoint, told, payload)
                ]
        return found

    def _payloads(self, session: Session, one: Notice) -> list[dict[str, Any]]:
        """What is told of a fact: of a root once, of a car once for each of its contracts."""
        if one.fact.startswith("root."):
            return [_of_root(one.payload)]
        pcid = str(one.payload.get("pcid", ""))
        if one.fact.startswith("prov."):
            query = select(ContractRow.emaid).where(ContractRow.pcid == pcid)
            return [{"emaid": emaid, "pcid": pcid} for emaid in session.scalars(query)]
        emaid = str(one.payload.get("emaid", ""))
        if one.fact == "contract.created":
            session.merge(ContractRow(emaid=emaid, pcid=pcid))
            session.flush()
        elif one.fact == "contract.deleted":
            session.execute(delete(ContractRow).where(ContractRow.emaid == emaid))
        told = {"emaid": emaid, "pcid": pcid, "signatureAlgorithm": "secp256r1"}
        if "certificate" in one.payload:
            told["contractCert"] = one.payload["certificate"]
        return [told]

    async def _send_due(self) -> None:
        now = self.party.clock.now()
        query = (
            select(DeliveryRow)
            .where(DeliveryRow.state == "waiting", DeliveryRow.due_at <= now)
            .order_by(DeliveryRow.number)
        )
        due = await self.party.database.read(lambda session: list(session.scalars(query)))
        lanes: dict[str, list[DeliveryRow]] = {}
        for row in due:
            lanes.setdefault(row.endpoint, []).append(row)
        if not lanes:
            return
        # A new connection for each attempt: each asks for the address again.
        connector = aiohttp.TCPConnector(
            resolver=self.resolver, use_dns_cache=False, force_close=True
        )
        async with aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        ) as session:
            await asyncio.gather(*(self._lane(session, rows) for rows in lanes.values()))

    async def _lane(self, session: aiohttp.ClientSession, rows: Sequence[DeliveryRow]) -> None:
        """The deliveries of one endpoint, one after the other."""
        endpoint = await self.party.database.read(
            lambda one: one.get(EndpointRow, rows[0].endpoint)
        )
        if endpoint is None or endpoint.status != "enabled":
            return
        for row in rows:
            status, reason = await self._attempt(session, endpoint, row)
            await self._keep(row, endpoint, status, reason)

    async def _attempt(
        self, session: aiohttp.ClientSession, endpoint: EndpointRow, row: DeliveryRow
    ) -> tuple[int, str]:
        """Send it once: the status, 0 where there was none, and why."""
        content = row.body.encode()
        headers = {"Content-Type": "application/json"}
        headers |= dict.fromkeys(SIGNATURE_HEADERS, signature(endpoint.secret, content))
        try:
            host = urlsplit(endpoint.url).hostname or ""
            await self.resolver.resolve(host)  # an address in the URL is never asked for
            async with asyncio.timeout(TIMEOUT):
                async with session.post(
                    endpoint.url, data=content, headers=headers, allow_redirects=False
                ) as answer:
                    await answer.content.read(MAX_ANSWER)
                    return answer.status, ""
        except TimeoutError:
            return 0, f"no answer within {TIMEOUT:g} s"
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return 0, (str(error) or type(error).__name__)[:200]

    async def _keep(
        self, row: DeliveryRow, endpoint: EndpointRow, status: int, reason: str
    ) -> None:
        attempts = row.attempts + 1
        if 200 <= status < 300:
            state = "delivered"
        elif 0 < status < 500 or attempts > RETRIES:
            state = "given up"
        else:
            state = "waiting"
        told = self.party.recorder.stamped(
            Event(
                kind="state",
                name="webhook",
                sender=self.party.config.name,
                receiver=endpoint.owner,
                outcome="ok" if state == "delivered" else "failed",
                summary=f"{row.event} to {endpoint.url}: {state} after attempt {attempts}",
                data={
                    "event_id": row.event_id,
                    "event": row.event,
                    "status": status,
                    "attempt": attempts,
                    "reason": reason,
                },
            )
        )
        due_at = self.party.clock.now() + self.retry

        def keep(session: Session) -> None:
            found = session.get(DeliveryRow, row.number)
            if found is None:
                return
            found.attempts, found.state, found.reason = attempts, state, reason
            found.due_at = due_at
            self.party.database.tell(session, told)

        await self.party.database.write(keep)
        did(f"{row.event} to {endpoint.owner}: {state}")


def _hears(endpoint: EndpointRow, told: Told, payload: Mapping[str, Any]) -> bool:
    """Whether an event is this client's business."""
    if told.whom == ALL or endpoint.role == "admin":
        return True
    if endpoint.role != told.whom:
        return False
    known_by = payload["emaid"][:5] if told.whom == OPERATOR else payload["pcid"][:3]
    return bool(known_by.upper() == endpoint.scope_id)


def _of_root(payload: Mapping[str, Any]) -> dict[str, Any]:
    certificate = load_der(unb64(str(payload["certificate"]), "certificate"))
    mark = fingerprint(certificate)
    return {
        "rootCertificateId": opcp.root_id(mark),
        "distinguishedName": opcp.distinguished_name(certificate.subject),
        "commonName": common_name(certificate.subject),
        "rootType": payload["type"],
        "rootSerialNumber": opcp.serial(certificate),
        "signatureAlgorithm": "secp256r1",
        "fingerprintSHA256": mark,
    }
