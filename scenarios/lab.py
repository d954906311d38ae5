"""A hand on a running ecosystem: calls its parties' APIs as admin, collects their events."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self

import aiohttp

from services.common.events import RUN_HEADER, Event
from services.common.problems import NotAsExpectedError
from services.ecosystem import Ecosystem

# Seconds; a visit to a charger, queueing for an outlet included, is one call.
TIMEOUT = 180.0


class LabError(NotAsExpectedError):
    """A party refused or did not answer; ``status`` is 0 where there was no answer."""

    def __init__(self, party: str, status: int, code: str, message: str) -> None:
        super().__init__(f"{party}: {message}" if status == 0 else f"{party}: {code}: {message}")
        self.party = party
        self.status = status
        self.code = code


class Lab:
    """An async context manager around one HTTP client; ``run`` marks all it causes."""

    def __init__(self, ecosystem: Ecosystem, run: str | None = None) -> None:
        self.ecosystem = ecosystem
        self.run = run
        admin = next((c for c in ecosystem.clients if c.role == "admin"), None)
        if admin is None:
            raise LabError("ecosystem", 0, "no_admin", "the ecosystem has no client of role admin")
        self._admin = admin
        self._tokens: dict[str, str] = {}
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def call(
        self, party: str, method: str, path: str, body: Any = None, **params: str
    ) -> Any:
        """Call ``path`` of ``party``; the JSON answer. LabError for anything but 2xx."""
        headers = {"Authorization": f"Bearer {await self._token(party)}"}
        if self.run:
            headers[RUN_HEADER] = self.run
        return await self._send(
            party, method, path, json=body, headers=headers, params=params or None
        )

    async def healthy(self, party: str) -> None:
        """LabError unless ``party`` answers and is ready."""
        await self._send(party, "GET", "/healthz")

    async def is_up(self) -> bool:
        """Whether all parties answer and are ready, now."""
        try:
            await asyncio.gather(*(self.healthy(name) for name in self.ecosystem.parties))
        except LabError:
            return False
        return True

    async def events(self, run: str) -> list[Event]:
        """A run's events from all parties, in the order in which they began."""
        parts = await asyncio.gather(
            *(self._events_of(name, run) for name in self.ecosystem.parties)
        )
        return sorted(
            (event for part in parts for event in part),
            key=lambda event: event.real - (event.milliseconds or 0) / 1000,
        )

    async def _events_of(self, party: str, run: str) -> list[Event]:
        found: list[Event] = []
        after = ""
        while True:
            page = await self.call(party, "GET", "/events", run=run, after=after, limit="1000")
            found += [Event.from_dict(event) for event in page]
            if len(page) < 1000:
                return found
            after = page[-1]["id"]

    async def _token(self, party: str) -> str:
        if party not in self._tokens:
            answer = await self._send(
                party,
                "POST",
                "/oauth/token",
                json={
                    "grant_type": "client_credentials",
                    "client_id": self._admin.id,
                    "client_secret": self._admin.secret,
                },
            )
            self._tokens[party] = answer["access_token"]
        return self._tokens[party]

    async def _send(self, party: str, method: str, path: str, **options: Any) -> Any:
        """One exchange; the JSON of a 2xx answer, None where it is empty."""
        assert self._session is not None, "a Lab is used as a context manager"
        url = self.ecosystem.party(party).url + path
        try:
            async with self._session.request(method, url, **options) as response:
                status, content = response.status, await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise LabError(party, 0, "unreachable", f"no answer at {url}: {reason}") from None
        try:
            answer: Any = json.loads(content) if content else None
            if 200 <= status < 300:
                return answer
            code, message = str(answer["code"]), str(answer["message"])
        except (ValueError, KeyError, TypeError):
            code, message = "unexpected_answer", f"HTTP status {status}: {content[:200]!r}"
        raise LabError(party, status, code, message)
