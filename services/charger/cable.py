"""The charger's end of the cable: V2GTP frames over a TCP connection.

One connection is one session. Frames are bounded, a silent peer is dropped after the
sequence timeout, and whatever a peer sends costs its own session and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from services.common.events import Event, current_unit, unit_of_work
from services.common.listening import listening
from services.common.marks import marks_of
from v2g import exi
from v2g.messages import iso2, sap
from v2g.v2gtp import FrameReader, PayloadType, V2GTPError, frame

from .session import SeccSession, SessionOver

if TYPE_CHECKING:
    from .service import Charger, Plug

log = logging.getLogger("pnclab")

# V2G_SECC_Sequence_Timeout, seconds.
SEQUENCE_TIMEOUT = 60.0
MAX_SESSIONS = 1000
# How many events of a session may wait for the next write.
FLUSH_AT = 20


class Cable:
    """Listens for vehicles."""

    def __init__(self, charger: Charger) -> None:
        self.charger = charger
        self._listening = contextlib.ExitStack()
        self._servers: list[asyncio.Server] = []
        self._sessions: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Listen, at the same port of each address where the ecosystem is reached. StartError."""
        if self._servers:
            return
        party = self.charger.party
        opened = listening(
            f"{party.config.name}'s cable", party.config.cable_address, party.ecosystem.reach.listen
        )
        own, others = self._listening.enter_context(opened)
        for listener in (own, *others):
            self._servers.append(await asyncio.start_server(self._connected, sock=listener))

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        self._listening.close()
        await self.end_sessions()

    async def end_sessions(self) -> None:
        """Hang up on every car."""
        sessions = list(self._sessions)
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = _this_task()
        self._sessions.add(task)
        try:
            if len(self._sessions) <= MAX_SESSIONS:
                await _Connection(self.charger, reader, writer).run()
        except asyncio.CancelledError:
            pass
        except Exception:
            log.exception("%s: a session failed", self.charger.party.config.name)
        finally:
            self._sessions.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class _Connection:
    """One vehicle's connection: frames in, frames out, a hop of the event stream for each pair."""

    def __init__(
        self, charger: Charger, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.charger = charger
        self.reader = reader
        self.writer = writer
        self.session = SeccSession(charger)
        self.negotiated = False
        self.sender = "vehicle"
        self.plug: Plug | None = None

    async def run(self) -> None:
        try:
            await self._run()
        finally:
            if self.plug is not None:
                self.plug.disconnected(_this_task())

    async def _run(self) -> None:
        frames = FrameReader()
        with unit_of_work():
            try:
                while True:
                    data = await asyncio.wait_for(self.reader.read(65536), SEQUENCE_TIMEOUT)
                    if not data:
                        return
                    for found in frames.feed(data):
                        await self._answer(found.payload_type, found.payload)
            except SessionOver:
                pass
            except (V2GTPError, exi.EXIError) as error:
                self._broken(str(error))
            except TimeoutError:
                self._broken(f"nothing came for {SEQUENCE_TIMEOUT:g} s")
            except OSError as error:
                self._broken(f"the connection broke: {error}")
            finally:
                await self.session.settle()
                await self.charger.party.database.flush()
                await self.session.confirmed()

    async def _answer(self, payload_type: int, payload: bytes) -> None:
        start = time.monotonic()
        if payload_type != PayloadType.EXI:
            raise V2GTPError("payload_type", f"payload type 0x{payload_type:04X} is not EXI")
        over: SessionOver | None = None
        request: Any
        answer: Any
        try:
            if not self.negotiated:
                request = exi.decode(sap.SCHEMA, payload)
                if not isinstance(request, sap.supportedAppProtocolReq):
                    raise V2GTPError("wrong_message", "supportedAppProtocolReq is wanted first")
                answer = self.session.negotiate(request)
                self.negotiated = True
            else:
                request = exi.decode(iso2.SCHEMA, payload)
                self._recognise(request)
                answer = await self.session.handle(request, payload)
        except SessionOver as end:
            over, answer = end, end.answer
        schema = sap.SCHEMA if isinstance(request, sap.supportedAppProtocolReq) else iso2.SCHEMA
        encoded = exi.encode(schema, answer)
        self._record(schema, request, answer, payload, encoded, (time.monotonic() - start) * 1000)
        # Events are written with the last answer at latest, or when many wait; before
        # SessionSetupReq it is not known whose they are.
        if over is not None or (
            self.session.facts.evccid and len(current_unit().events) >= FLUSH_AT
        ):
            await self.charger.party.database.flush()
        self.writer.write(frame(PayloadType.EXI, encoded))
        await self.writer.drain()
        if over is not None:
            raise over

    def _recognise(self, request: iso2.V2G_Message) -> None:
        """Who plugged in: from here on the session belongs to that run."""
        body = request.Body.BodyElement
        if isinstance(body, iso2.SessionSetupReq):
            plug = self.charger.plugs.get(body.EVCCID.hex().upper())
            if plug is not None and self.plug is None:
                self.plug = plug
                plug.connected(_this_task())
                self.sender = plug.vehicle
                unit = current_unit()
                unit.run, unit.cause = plug.run, plug.cause
                # The handshake came before we knew whose it was.
                unit.events = [
                    replace(event, run=plug.run, cause=plug.cause, sender=plug.vehicle)
                    for event in unit.take()
                ]

    def _record(
        self, schema: exi.Schema, request: Any, answer: Any, asked: bytes, sent: bytes, ms: float
    ) -> None:
        code = _code(answer)
        party = self.charger.party
        facts = self.session.facts
        # From here on all that the session causes is about it and its contract.
        current_unit().about = marks_of(
            {
                "session": facts.session_id,
                "emaid": facts.emaid,
                "charger": (party.config.name, self.charger.evse_id),
                "certificate": facts.contract_chain[:1],
            }
        )
        party.recorder.record(
            Event(
                kind="cable",
                name=exi.message_name(request),
                sender=self.sender,
                receiver=party.config.name,
                summary=f"{exi.message_name(answer)}: {code}",
                outcome="refused" if code.upper().startswith("FAILED") else "ok",
                data={
                    "schema": schema.name,
                    "request": exi.to_xml(schema, request, indent=2),
                    "response": exi.to_xml(schema, answer, indent=2),
                    "response_name": exi.message_name(answer),
                    "code": code,
                    "reason": facts.refusal,
                    "session": facts.session_id.hex(),
                    "evccid": facts.evccid,
                },
                marks=marks_of(request, answer),
                request=asked,
                response=sent,
                cost={"bytes": len(asked) + len(sent)},
                milliseconds=round(ms, 2),
            )
        )

    def _broken(self, reason: str) -> None:
        party = self.charger.party
        party.recorder.record(
            Event(
                kind="cable",
                name="session broken",
                sender=self.sender,
                receiver=party.config.name,
                outcome="failed",
                summary=reason[:500],
                data={"reason": reason[:500]},
            )
        )


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _code(answer: Any) -> str:
    body: Any = answer.Body.BodyElement if isinstance(answer, iso2.V2G_Message) else answer
    return str(body.ResponseCode.value)
