"""How one party calls another: HTTP with a token, a hop in the event stream.

A party that is down or slow is an outcome (:class:`PartyUnreachable`), an error
answer likewise (:class:`PartyRefused`); neither is a traceback.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import aiohttp
from yarl import URL

from . import answers
from .errors import PartyRefused, PartyUnreachable
from .events import HOP_HEADER, RUN_HEADER, Event, current_unit, new_id, readable

if TYPE_CHECKING:
    from services.ecosystem import PartyConfig

    from .party import Party

T = TypeVar("T")

# Bounded, so that one slow party cannot take every socket of its callers.
MAX_CONNECTIONS = 200
# The whole exchange has one timeout, around it.
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)
DEFAULT_TIMEOUT = 10.0
MAX_ANSWER = 8 * 1024 * 1024


@dataclass(frozen=True)
class Answer:
    """A successful answer of ``party``."""

    party: str
    status: int
    content: bytes

    def read(self, shape: type[T]) -> T:
        """The body as a ``shape`` of :mod:`.answers`; PartyRefused (502) where it is not."""
        return answers.read(shape, self.party, self.content)


@dataclass(frozen=True)
class Exchanged:
    """An answer as it came, whatever its status."""

    status: int
    headers: tuple[tuple[str, str], ...]
    content: bytes


class Http:
    """A party's HTTP side as a caller."""

    def __init__(self, party: Party) -> None:
        self._party = party
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        # A session belongs to a running loop, so it is made with the first call.
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session

    async def send(
        self,
        receiver: str,
        method: str,
        url: str,
        *,
        name: str,
        summary: str = "",
        body: Any = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> tuple[int, bytes]:
        """:meth:`exchange`; status and body of the answer."""
        answer = await self.exchange(
            receiver,
            method,
            url,
            name=name,
            summary=summary,
            body=body,
            content=content,
            headers=headers,
            params=params,
            timeout=timeout,
        )
        return answer.status, answer.content

    async def exchange(
        self,
        receiver: str,
        method: str,
        url: str | URL,
        *,
        name: str,
        summary: str = "",
        body: Any = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Exchanged:
        """One HTTP exchange, recorded as a hop. A URL object is sent as it is encoded.

        Raises PartyUnreachable when nothing, or something that is not HTTP, answers.
        """
        unit = current_unit()
        sent = dict(headers or {})
        sent[HOP_HEADER] = hop = new_id()
        if unit.run:
            sent[RUN_HEADER] = unit.run
        if body is not None:
            content = json.dumps(body, separators=(",", ":")).encode()
            sent["Content-Type"] = "application/json"
        start = time.monotonic()
        answer, trouble = Exchanged(0, (), b""), ""
        try:
            async with asyncio.timeout(timeout):
                answer = await self._exchange(method, url, content, sent, params)
        except TimeoutError:
            trouble = f"no answer within {timeout:g} s"
            raise PartyUnreachable(receiver, str(url), trouble, slow=True) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            trouble = str(error) or type(error).__name__
            raise PartyUnreachable(receiver, str(url), trouble) from None
        finally:
            status, received = answer.status, answer.content
            spent = (time.monotonic() - start) * 1000
            asked, asked_raw = readable(content)
            answered, answered_raw = readable(received)
            self._party.recorder.record(
                Event(
                    kind="http",
                    name=name,
                    sender=self._party.config.name,
                    receiver=receiver,
                    summary=summary,
                    outcome="failed"
                    if trouble or status >= 500
                    else "refused"
                    if status >= 400
                    else "ok",
                    data={
                        "method": method,
                        "url": str(url),
                        "status": status,
                        "request": asked,
                        "response": answered,
                        "error": trouble or None,
                    },
                    request=asked_raw,
                    response=answered_raw,
                    cost={"bytes": len(content or b"") + len(received)},
                    milliseconds=round(spent, 2),
                    id=hop,
                )
            )
        return answer

    async def _exchange(
        self,
        method: str,
        url: str | URL,
        content: bytes | None,
        headers: dict[str, str],
        params: dict[str, str] | None,
    ) -> Exchanged:
        """Send, and once more when a kept connection turns out to be closed by the other side.

        What parties ask of each other may be asked twice: the same again has the same answer.
        """
        for attempt in range(2):
            try:
                async with self._opened().request(
                    method,
                    url,
                    data=content,
                    headers=headers,
                    params=params,
                    timeout=_NO_TIMEOUT,
                    allow_redirects=False,
                ) as response:
                    return Exchanged(
                        response.status, tuple(response.headers.items()), await _bounded(response)
                    )
            except aiohttp.ClientConnectorError:
                raise
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                if attempt:
                    raise
        raise AssertionError("unreachable")


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body; ValueError when it is larger than anybody's answer may be."""
    received = bytearray()
    async for part in response.content.iter_any():
        received += part
        if len(received) > MAX_ANSWER:
            raise ValueError(f"its answer has more than {MAX_ANSWER} bytes")
    return bytes(received)


class PartyClient:
    """Calls one other party by its own API, with a token of that party's."""

    def __init__(self, party: Party, target: PartyConfig) -> None:
        self._party = party
        self.target = target
        self._token: str | None = None

    async def call(
        self,
        method: str,
        path: str,
        *,
        name: str | None = None,
        summary: str = "",
        body: Any = None,
        params: dict[str, str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> Answer:
        """Call ``path``; the answer where it is 2xx.

        Raises PartyRefused for any other answer, PartyUnreachable for none.
        """
        for attempt in range(2):
            if self._token is None:
                self._token = await self._new_token(timeout)
            status, content = await self._party.http.send(
                self.target.name,
                method,
                self.target.url + path,
                name=name or f"{method} {path}",
                summary=summary,
                body=body,
                params=params,
                timeout=timeout,
                headers={"Authorization": f"Bearer {self._token}"},
            )
            if status == 401 and attempt == 0:
                self._token = None  # expired, or the party was made anew
                continue
            break
        if 200 <= status < 300:
            return Answer(self.target.name, status, content)
        raise _refusal(self.target.name, status, content)

    async def _new_token(self, timeout: float) -> str:
        from services.ecosystem import party_secret

        config = self._party.config
        status, content = await self._party.http.send(
            self.target.name,
            "POST",
            f"{self.target.url}/oauth/token",
            name="token",
            summary=f"{config.title} logs in",
            body={
                "grant_type": "client_credentials",
                "client_id": config.name,
                "client_secret": party_secret(config.name),
            },
            timeout=timeout,
        )
        if status != 200:
            raise _refusal(self.target.name, status, content)
        return answers.read(answers.Token, self.target.name, content).access_token


def _refusal(party: str, status: int, content: bytes) -> PartyRefused:
    try:
        body = json.loads(content)
        return PartyRefused(
            party, status, str(body["code"]), str(body["message"]), body.get("details")
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return PartyRefused(party, status, "unexpected_answer", f"HTTP status {status}", None)
