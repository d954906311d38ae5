"""An ecosystem in this process whose parties can be stopped and started one by one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Self

from fastapi import FastAPI

from services.common.problems import StartError
from services.ecosystem import Ecosystem
from services.serve import running

READY_WITHIN = 60.0


class Parties:
    """An async context manager: all parties run inside the block."""

    def __init__(self, ecosystem: Ecosystem, on_ready: Callable[[str], None] | None = None) -> None:
        self.ecosystem = ecosystem
        self._on_ready = on_ready
        self._running: dict[str, tuple[FastAPI, contextlib.AsyncExitStack]] = {}

    async def __aenter__(self) -> Self:
        try:
            await self.start(*self.ecosystem.parties)
        except BaseException:
            await self.stop(*self._running)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop(*self._running)

    async def start(self, *names: str) -> None:
        """Start parties and wait until they are ready. StartError says which one is not."""
        for name in names:
            stack = contextlib.AsyncExitStack()
            apps = await stack.enter_async_context(
                running(self.ecosystem, [name], ready_within=None)
            )
            self._running[name] = (apps[name], stack)
        await asyncio.gather(*(self._ready(name) for name in names))

    async def stop(self, *names: str) -> None:
        """Stop parties; what they hold in memory is gone, their data stays."""
        stacks = [self._running.pop(name)[1] for name in names]
        await asyncio.gather(*(stack.aclose() for stack in stacks))

    @contextlib.asynccontextmanager
    async def without(self, *names: str) -> AsyncIterator[None]:
        """``names`` are down until the block ends."""
        await self.stop(*names)
        try:
            yield
        finally:
            await self.start(*names)

    @property
    def names(self) -> Sequence[str]:
        """Who runs now."""
        return tuple(self._running)

    def app(self, name: str) -> FastAPI:
        """The application of a running party."""
        return self._running[name][0]

    async def _ready(self, name: str) -> None:
        preparation = self.app(name).state.preparation
        try:
            await asyncio.wait_for(preparation.ended.wait(), READY_WITHIN)
        except TimeoutError:
            raise StartError(
                f"{name} was not ready within {READY_WITHIN:g} s: {preparation.waiting_for}"
            ) from None
        if preparation.trouble is not None:
            raise StartError(f"{name}: {preparation.trouble}")
        if self._on_ready is not None:
            self._on_ready(name)
