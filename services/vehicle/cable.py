"""The vehicle's end of the cable: one request, one answer, in the time the standard gives."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

from v2g import exi
from v2g.messages import iso2, sap
from v2g.v2gtp import FrameReader, PayloadType, V2GTPError, frame

# V2G_EVCC_Msg_Timeout, seconds; ISO 15118-2 table 109 by way of public stacks.
MESSAGE_TIMEOUTS: Mapping[str, float] = {
    "CertificateInstallationReq": 5.0,
    "CertificateUpdateReq": 5.0,
    "PaymentDetailsReq": 5.0,
    "PowerDeliveryReq": 5.0,
    "ServiceDetailReq": 5.0,
}
OTHER_TIMEOUT = 2.0


class CableError(Exception):
    """The other end did not answer, or not with a message; ``stage`` is the request."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage
        self.reason = reason


class Cable:
    """A connection to a charger."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._frames = FrameReader()

    @classmethod
    async def plug_in(cls, address: str) -> Cable:
        """Connect to ``host:port``; CableError when nobody is there."""
        host, _, port = address.rpartition(":")
        try:
            reader, writer = await asyncio.wait_for(
                asyncio.open_connection(host, int(port)), OTHER_TIMEOUT
            )
        except (OSError, TimeoutError, ValueError) as error:
            raise CableError("plug-in", f"nobody answers at {address}: {error}") from None
        return cls(reader, writer)

    async def unplug(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def negotiate(self, request: sap.supportedAppProtocolReq) -> sap.supportedAppProtocolRes:
        answer = await self._exchange("supportedAppProtocolReq", sap.SCHEMA, request)
        if not isinstance(answer, sap.supportedAppProtocolRes):
            raise CableError("supportedAppProtocolReq", f"answered with {exi.message_name(answer)}")
        return answer

    async def ask(self, message: iso2.V2G_Message) -> tuple[iso2.V2G_Message, bytes]:
        """Send a message; the answer and its EXI bytes. CableError for any other outcome."""
        name = exi.message_name(message)
        answer = await self._exchange(name, iso2.SCHEMA, message)
        got, wanted = exi.message_name(answer), name.removesuffix("Req") + "Res"
        if got != wanted:
            raise CableError(name, f"answered with {got}, not {wanted}")
        return answer, self._last

    async def _exchange(self, name: str, schema: exi.Schema, message: Any) -> Any:
        self._writer.write(frame(PayloadType.EXI, exi.encode(schema, message)))
        timeout = MESSAGE_TIMEOUTS.get(name, OTHER_TIMEOUT)
        try:
            payload = await asyncio.wait_for(self._next(), timeout)
            self._last = payload
            return exi.decode(schema, payload)
        except TimeoutError:
            raise CableError(name, f"no answer within {timeout:g} s") from None
        except (V2GTPError, exi.EXIError, OSError) as error:
            raise CableError(name, str(error)) from None

    async def _next(self) -> bytes:
        await self._writer.drain()
        while True:
            data = await self._reader.read(65536)
            if not data:
                raise V2GTPError("closed", "the charger closed the connection")
            found = self._frames.feed(data)
            if found:
                if found[0].payload_type != PayloadType.EXI or len(found) > 1:
                    raise V2GTPError("payload_type", "one EXI answer is wanted")
                return found[0].payload
