"""V2GTP: the frames in which messages cross the cable (ISO 15118-2 section 7.8.3).

A frame is a header of eight bytes (protocol version 01, its complement FE, payload type,
payload length, big-endian) and a payload. :func:`frame` makes one, :class:`FrameReader`
takes bytes as they come and gives whole frames. Nothing is kept beyond the bound given.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

HEADER_BYTES = 8
VERSION = 0x01
MAX_PAYLOAD = 64 * 1024
"""Payloads beyond this are refused; the largest message of ISO 15118-2 stays far below."""


class PayloadType(IntEnum):
    """What a payload is."""

    EXI = 0x8001
    """An EXI document: supportedAppProtocol and all messages of ISO 15118-2."""
    SDP_REQUEST = 0x9000
    SDP_RESPONSE = 0x9001


class V2GTPError(ValueError):
    """Bytes that are no frame; ``code`` is a word for programs."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Frame:
    """One frame; ``payload_type`` may be one that we do not know."""

    payload_type: int
    payload: bytes

    def encoded(self) -> bytes:
        return frame(self.payload_type, self.payload)


def frame(payload_type: int, payload: bytes) -> bytes:
    """The bytes of a frame around ``payload``."""
    return (
        bytes((VERSION, VERSION ^ 0xFF))
        + int(payload_type).to_bytes(2, "big")
        + len(payload).to_bytes(4, "big")
        + payload
    )


class FrameReader:
    """Cuts a stream of bytes into frames; after an error the stream is lost."""

    def __init__(self, max_payload: int = MAX_PAYLOAD) -> None:
        self.max_payload = max_payload
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ``data`` completes.

        Raises V2GTPError as soon as a header is wrong or announces too much, before its
        payload is waited for.
        """
        self._pending += data
        frames = []
        while len(self._pending) >= 2:
            self._check_version()
            if len(self._pending) < HEADER_BYTES:
                break
            size = int.from_bytes(self._pending[4:8], "big")
            if size > self.max_payload:
                raise V2GTPError(
                    "too_long",
                    f"the header announces {size} bytes; at most {self.max_payload} are read",
                )
            if len(self._pending) < HEADER_BYTES + size:
                break
            frames.append(
                Frame(
                    int.from_bytes(self._pending[2:4], "big"),
                    bytes(self._pending[HEADER_BYTES : HEADER_BYTES + size]),
                )
            )
            del self._pending[: HEADER_BYTES + size]
        return frames

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._pending)

    def _check_version(self) -> None:
        version, inverse = self._pending[0], self._pending[1]
        if (version, inverse) != (VERSION, VERSION ^ 0xFF):
            raise V2GTPError(
                "wrong_version",
                f"a V2GTP header begins with 01 FE, this with {version:02X} {inverse:02X}",
            )
