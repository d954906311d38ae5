"""A load of HTTP requests, in a process of its own: how many a second, and how long each took.

    python -m scenarios.bench.load < JSON > JSON

In go ``host``, ``port``, ``total``, ``callers``, ``keep_alive`` and ``requests``, a list of
``[method, path, headers, body in base64]`` that are sent in turn; out come ``seconds`` for all
of them, ``p50`` and ``p99`` of one in seconds, and how often each ``status`` came.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any


def wire(method: str, path: str, headers: dict[str, str], body: bytes, keep_alive: bool) -> bytes:
    """A request as it goes over the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}"]
    if not keep_alive:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Caller:
    """One who calls, one request after the other."""

    def __init__(self, host: str, port: int, keep_alive: bool) -> None:
        self.address = host, port
        self.keep_alive = keep_alive
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def call(self, request: bytes) -> int:
        """Send it and read the answer to its end; the status."""
        if self._writer is None or self._reader is None:
            self._reader, self._writer = await asyncio.open_connection(*self.address)
        self._writer.write(request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at >= 0:
            length = int(lower[at + 15 : lower.index(b"\r\n", at)])
            await self._reader.readexactly(length)
        elif b"transfer-encoding: chunked" in lower:
            while int((await self._reader.readline()).strip() or b"0", 16):
                await self._reader.readline()
        if not self.keep_alive or b"connection: close" in lower or head[:8] == b"HTTP/1.0":
            self._writer.close()
            self._reader = self._writer = None
        return int(head[9:12])


async def run(
    host: str, port: int, requests: Sequence[bytes], total: int, callers: int, keep_alive: bool
) -> dict[str, Any]:
    """Have ``callers`` send ``total`` requests between them."""
    numbers = iter(range(total))
    took: list[float] = []
    statuses: Counter[int] = Counter()

    async def one() -> None:
        caller = Caller(host, port, keep_alive)
        for number in numbers:
            began = time.perf_counter()
            statuses[await caller.call(requests[number % len(requests)])] += 1
            took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(callers)))
    seconds = time.perf_counter() - began
    took.sort()
    return {
        "seconds": seconds,
        "p50": took[len(took) // 2],
        "p99": took[min(len(took) - 1, len(took) * 99 // 100)],
        "status": dict(statuses),
    }


def main() -> None:
    wanted = json.load(sys.stdin)
    requests = [
        wire(method, path, headers, base64.b64decode(body), wanted["keep_alive"])
        for method, path, headers, body in wanted["requests"]
    ]
    found = run(
        wanted["host"],
        wanted["port"],
        requests,
        wanted["total"],
        wanted["callers"],
        wanted["keep_alive"],
    )
    json.dump(asyncio.run(found), sys.stdout)


if __name__ == "__main__":
    main()
