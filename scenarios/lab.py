"""A hand on a running ecosystem: calls its parties' APIs as admin, collects their events."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any, Self

import httpx

from services.common.events import RUN_HEADER, Event
from services.ecosystem import Ecosystem


class LabError(Exception):
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
        self._http = httpx.AsyncClient(
            timeout=30,
            trust_env=False,
            limits=httpx.Limits(max_connections=400, max_keepalive_connections=100),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._http.aclose()

    async def call(
        self, party: str, method: str, path: str, body: Any = None, **params: str
    ) -> Any:
        """Call ``path`` of ``party``; the JSON answer. LabError for anything but 2xx."""
        headers = {"Authorization": f"Bearer {await self._token(party)}"}
        if self.run:
            headers[RUN_HEADER] = self.run
        response = await self._send(
            party, method, path, json=body, headers=headers, params=params or None
        )
        return response.json() if response.content else None

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
            response = await self._send(
                party,
                "POST",
                "/oauth/token",
                json={
                    "grant_type": "client_credentials",
                    "client_id": self._admin.id,
                    "client_secret": self._admin.secret,
                },
            )
            self._tokens[party] = response.json()["access_token"]
        return self._tokens[party]

    async def _send(self, party: str, method: str, path: str, **kw: Any) -> httpx.Response:
        url = self.ecosystem.party(party).url + path
        try:
            response = await self._http.request(method, url, **kw)
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise LabError(party, 0, "unreachable", f"no answer at {url}: {reason}") from None
        if not response.is_success:
            try:
                body = response.json()
                code, message = str(body["code"]), str(body["message"])
            except (json.JSONDecodeError, KeyError, TypeError):
                code, message = "unexpected_answer", response.text[:200]
            raise LabError(party, response.status_code, code, message)
        return response
