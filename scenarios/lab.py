"""A hand on a running ecosystem: calls its parties' APIs as admin, collects their events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp

from services.common.events import RUN_HEADER, Event
from services.common.problems import NotAsExpectedError
from services.ecosystem import Ecosystem

from .streams import in_order

# Seconds; a visit to a charger, queueing for an outlet included, is one call.
TIMEOUT = 180.0
# Events in a page; seconds between attempts to follow a party that went away, and after which
# a stream without even a comment counts as broken.
MAX_PAGE = 1000
RECONNECT = 0.5
SILENCE = 45.0


class LabError(NotAsExpectedError):
    """A party refused or did not answer; ``status`` is 0 where there was no answer."""

    def __init__(self, party: str, status: int, code: str, message: str) -> None:
        super().__init__(f"{party}: {message}" if status == 0 else f"{party}: {code}: {message}")
        self.party = party
        self.status = status
        self.code = code


class Lab:
    """An async context manager around one HTTP client; ``run`` marks all it causes."""

    def __init__(
        self, ecosystem: Ecosystem, run: str | None = None, *, client: str | None = None
    ) -> None:
        """``client`` is whose login is used instead of an admin's."""
        self.ecosystem = ecosystem
        self.run = run
        found = (
            one
            for one in ecosystem.all_clients()
            if (one.role == "admin" if client is None else one.id == client)
        )
        admin = next(found, None)
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
        self, party: str, method: str, path: str, body: Any = None, **params: str | Sequence[str]
    ) -> Any:
        """Call ``path`` of ``party``; the JSON answer. LabError for anything but 2xx."""
        headers = {RUN_HEADER: self.run} if self.run else {}
        for attempt in range(2):
            headers["Authorization"] = f"Bearer {await self._token(party)}"
            try:
                return await self._send(
                    party, method, path, json=body, headers=headers, params=params or None
                )
            except LabError as error:
                if error.status != 401 or attempt:
                    raise
                self._tokens.pop(party, None)  # expired, since the clock was moved
        raise AssertionError("unreachable")

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

    async def events(
        self,
        run: str | None = None,
        *,
        parties: Sequence[str] | None = None,
        newest: int | None = None,
        **filters: str | Sequence[str],
    ) -> list[Event]:
        """The events of a run, or of all, from all parties (or ``parties``) in the order in
        which they began; ``filters`` are those of ``GET /events``; ``newest``: at most so many,
        the newest."""
        if run is not None:
            filters["run"] = run
        parts = await asyncio.gather(
            *(
                self.events_of(name, newest=newest, **filters)
                for name in parties or self.ecosystem.parties
            )
        )
        found = in_order(event for part in parts for event in part)
        return found if newest is None else found[-newest:]

    async def events_of(
        self, party: str, *, newest: int | None = None, **filters: str | Sequence[str]
    ) -> list[Event]:
        """One party's events, oldest first; LabError where it does not answer."""
        found: list[Event] = []
        order = {} if newest is None else {"newest_first": "true"}
        while newest is None or len(found) < newest:
            size = MAX_PAGE if newest is None else min(MAX_PAGE, newest - len(found))
            after = {"after": found[-1].id} if found else {}
            page = await self.call(
                party, "GET", "/events", **filters, **after, **order, limit=str(size)
            )
            found += [Event.from_dict(event) for event in page]
            if len(page) < size:
                break
        return found if newest is None else found[::-1]

    async def follow(
        self, party: str, *, last: int = 0, wait: bool = False, **filters: str | Sequence[str]
    ) -> AsyncIterator[Event]:
        """A party's events as they happen, for ever, beginning with the ``last`` that did.

        A party that goes away is waited for, and goes on where it was; LabError where it
        refuses, or does not answer at first and is not to be waited for.
        """
        seen: str | None = None
        while True:
            # Who was there when nothing had happened yet has all still to see.
            begin = last if seen is None else 0 if seen else MAX_PAGE
            try:
                async for identifier, event in self._followed(
                    party, seen, last=str(begin), **filters
                ):
                    seen = identifier or seen or ""
                    if event is not None:
                        yield event
            except LabError as error:
                if error.status == 401:
                    self._tokens.pop(party, None)
                elif error.status == 422 and seen:
                    seen = ""  # it was made anew meanwhile: it has not had this event
                elif error.status not in (0, 503) or (seen is None and not wait):
                    raise
            await asyncio.sleep(RECONNECT)

    async def _followed(
        self, party: str, seen: str | None, **params: str | Sequence[str]
    ) -> AsyncIterator[tuple[str, Event | None]]:
        """What comes on one stream: identifiers, most of them with an event."""
        assert self._session is not None, "a Lab is used as a context manager"
        url = self.ecosystem.party(party).url + "/events/stream"
        headers = {"Authorization": f"Bearer {await self._token(party)}"}
        if seen:
            headers["Last-Event-ID"] = seen
        # A stream has no end; when nothing comes, not even a comment, it is broken.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=SILENCE)
        try:
            async with self._session.get(
                url, params=params, headers=headers, timeout=timeout
            ) as response:
                if response.status != 200:
                    _read(party, response.status, await response.read())
                yield "", None
                rest = b""
                async for part in response.content.iter_any():
                    *blocks, rest = (rest + part).split(b"\n\n")
                    for block in blocks:
                        fields = dict(line.split(b": ", 1) for line in block.split(b"\n"))
                        if b"id" in fields:
                            data = fields.get(b"data")
                            event = Event.from_dict(json.loads(data)) if data else None
                            yield fields[b"id"].decode(), event
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise LabError(party, 0, "unreachable", f"no answer at {url}: {reason}") from None

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
        return _read(party, status, content)


def _read(party: str, status: int, content: bytes) -> Any:
    """The JSON of a 2xx answer, None where it is empty; LabError for any other."""
    try:
        answer: Any = json.loads(content) if content else None
        if 200 <= status < 300:
            return answer
        code, message = str(answer["code"]), str(answer["message"])
    except (ValueError, KeyError, TypeError):
        code, message = "unexpected_answer", f"HTTP status {status}: {content[:200]!r}"
    raise LabError(party, status, code, message)
