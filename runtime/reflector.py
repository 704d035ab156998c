"""List and watch as a thread (`Reflector`) and as an asyncio task (`AioReflector`).

Both drive a `runtime.reflection.Reflection`, which holds all rules, until they are stopped. A
failure never ends them; an exception of the sink does, since it is a mistake of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import structlog

from runtime.errors import KubeError
from runtime.kube import KubeClient, WatchStream
from runtime.kube_aio import AioKubeClient
from runtime.reflection import LAST_PAUSE, ListStep, PauseStep, Reflection, Sink, WatchStep

__all__ = ["AioReflector", "Reflector", "Sink"]

T = TypeVar("T")

INACTIVITY = 150.0
"""Seconds of silence after which a watch is taken for dead: two missed bookmarks and a half."""

_log = structlog.get_logger("runtime.reflector")


class Reflector(Generic[T]):
    """Keeps a sink in step with a collection, in the thread that calls `run`.

    `synced` is set once the first complete list was delivered, and stays set.
    """

    def __init__(
        self,
        client: KubeClient,
        path: str,
        kind: type[T],
        sink: Sink[T],
        *,
        query: Mapping[str, str] | None = None,
        name: str = "",
        rng: random.Random | None = None,
        inactivity_timeout: float = INACTIVITY,
        last_pause: float = LAST_PAUSE,
        consistent: bool = False,
    ) -> None:
        self._client = client
        self._path = path
        self._inactivity = inactivity_timeout
        self._log = _log.bind(reflector=name or path)
        self._stream: WatchStream | None = None
        self._stopping = threading.Event()
        self.synced = threading.Event()
        self.state = Reflection(
            kind,
            sink,
            rng=rng or random.Random(),  # noqa: S311 -- jitter, no secret
            query=query,
            report=lambda line: self._log.warning("unreadable", problem=line),
            last_pause=last_pause,
            consistent=consistent,
        )

    def run(self) -> None:
        """Reflect until `stop` is called."""
        while not self._stopping.is_set():
            step = self.state.step()
            try:
                match step:
                    case PauseStep(seconds):
                        self._stopping.wait(seconds)
                    case ListStep(query):
                        for page in self._client.list_pages(self._path, query):
                            self.state.page(page)
                        self.state.listed()
                        self.synced.set()
                    case WatchStep(query):
                        self._watch(query)
            except KubeError as error:
                if not self._stopping.is_set():
                    self._log.warning("interrupted", step=type(step).__name__, error=str(error))
                    self.state.failed(error)

    def stop(self) -> None:
        """Make `run` return soon, from any thread."""
        self._stopping.set()
        stream = self._stream
        if stream is not None:
            stream.close()

    def _watch(self, query: Mapping[str, str]) -> None:
        with self._client.watch_lines(self._path, query, self._inactivity) as stream:
            begun = time.monotonic()
            self._stream = stream
            try:
                if self._stopping.is_set():
                    return
                for line in stream:
                    self.state.line(line)
            finally:
                self._stream = None
                self.state.lived(time.monotonic() - begun)
        self.state.ended()


class AioReflector(Generic[T]):
    """Keeps a sink in step with a collection, in the task that runs `run`; cancel it to stop.

    `synced` is set once the first complete list was delivered, and stays set. `following` is
    called with True when a watch is open, and with False when it has ended, and before the first
    one: until the next one is open the sink may be behind.
    """

    def __init__(
        self,
        client: AioKubeClient,
        path: str,
        kind: type[T],
        sink: Sink[T],
        *,
        query: Mapping[str, str] | None = None,
        name: str = "",
        rng: random.Random | None = None,
        inactivity_timeout: float = INACTIVITY,
        last_pause: float = LAST_PAUSE,
        consistent: bool = False,
        following: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._path = path
        self._inactivity = inactivity_timeout
        self._log = _log.bind(reflector=name or path)
        self._following = following
        self.synced = asyncio.Event()
        self.state = Reflection(
            kind,
            sink,
            rng=rng or random.Random(),  # noqa: S311 -- jitter, no secret
            query=query,
            report=lambda line: self._log.warning("unreadable", problem=line),
            last_pause=last_pause,
            consistent=consistent,
        )

    async def run(self) -> None:
        """Reflect until cancelled."""
        # What was listed is old until the watch is open, which a server may put off at length.
        self._following(False)
        while True:
            step = self.state.step()
            try:
                match step:
                    case PauseStep(seconds):
                        await asyncio.sleep(seconds)
                    case ListStep(query):
                        async for page in self._client.list_pages(self._path, query):
                            self.state.page(page)
                        self.state.listed()
                        self.synced.set()
                    case WatchStep(query):
                        await self._watch(query)
            except KubeError as error:
                self._log.warning("interrupted", step=type(step).__name__, error=str(error))
                self.state.failed(error)

    async def _watch(self, query: Mapping[str, str]) -> None:
        begun = time.monotonic()
        lines = self._client.watch_lines(
            self._path, query, self._inactivity, opened=lambda: self._following(True)
        )
        try:
            async with contextlib.aclosing(lines):
                async for line in lines:
                    self.state.line(line)
        finally:
            self._following(False)
            self.state.lived(time.monotonic() - begun)
        self.state.ended()
