"""A gate that knows HTTP: it holds a Binding, keeps its answer back or loses it, holds watches.

One stands between each daemon of the scheduler and whom it talks to, on either kind of cluster, so
a case can make a window wide that is microseconds in life. A request that was taken outlives the
one who sent it: a process may die while its Binding is still on the way.
"""

from __future__ import annotations

import asyncio
import itertools
import ssl
import threading
from collections.abc import Coroutine
from typing import Any, Final, Literal

import aiohttp
import msgspec
from aiohttp import web

Kind = Literal["binding", "bind", "filter", "watch", "lease", "other"]
Mode = Literal["open", "hold", "withhold", "lose"]
"""Passed on at once; not passed on; passed on and the answer kept; passed on and then cut."""

# Hop-by-hop, or made anew for the next hop; and compressed answers could not be looked into.
_OWN_HEADERS: Final = {
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "transfer-encoding",
}
_GONE: Final = b'"code":410'
_START_SECONDS: Final = 10.0
# Bytes of answers that are remembered: some seconds of a small cluster.
_TOLD: Final = 1 << 20


class Held(msgspec.Struct, frozen=True):
    """A request that waits in the gate, before it was passed on (`hold`) or after."""

    kind: Kind
    path: str
    body: bytes
    passed: bool


class HttpGate:
    """Forwards from a loopback port of its own to `target`, such as ``https://127.0.0.1:6443``.

    `trust` verifies a TLS target. A `token` says who asks: Go's clients send theirs over TLS only.
    Its methods may be called from any thread.
    """

    def __init__(
        self, target: str, trust: ssl.SSLContext | None = None, token: str | None = None
    ) -> None:
        self._target = target.rstrip("/")
        self._trust = trust
        self._token = token
        self._modes: dict[Kind, Mode] = {}
        self._numbers = itertools.count()
        self._held: dict[int, tuple[Held, web.BaseRequest]] = {}
        self._streams: dict[int, web.BaseRequest] = {}
        self._seen: dict[Kind, int] = {}
        self._gone = 0
        self._vain = 0
        self._last_lease = b""
        self._told = b""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="http gate", daemon=True)
        self._thread.start()
        self.port = int(self._call(self._open()))
        self.url = f"http://127.0.0.1:{self.port}"

    def set(self, kind: Kind, mode: Mode) -> None:
        """Change what becomes of one kind of request, those that wait included."""
        self._call(self._set(kind, mode))

    def cut_watches(self) -> None:
        """End the watches of now, and hold those that are asked for again."""
        self._call(self._cut_watches())

    def release(self) -> None:
        """Let everything pass that waits, and all that comes."""
        self._call(self._release())

    def held(self) -> tuple[Held, ...]:
        """Return the requests that wait, oldest first."""
        return tuple(held for held, _ in tuple(self._held.values()))

    def abandoned(self, kind: Kind) -> int:
        """Return how many requests of a kind wait although whoever sent them has hung up."""
        return sum(
            held.kind == kind and (request.transport is None or request.transport.is_closing())
            for held, request in tuple(self._held.values())
        )

    def seen(self, kind: Kind) -> int:
        """Return how many requests of a kind have come so far."""
        return self._seen.get(kind, 0)

    @property
    def gone(self) -> int:
        """How many watches were answered with 410 so far."""
        return self._gone

    @property
    def vain(self) -> int:
        """How many requests found nobody at the target so far."""
        return self._vain

    def passed(self, version: str) -> bool:
        """Tell whether an object of this resourceVersion has lately been read or watched."""
        told = version.encode()
        # As JSON has it, and as protobuf does: the field's number, the length, the text.
        written = b'"resourceVersion":"%b"' % told, b"\x32%c%b" % (len(told), told)
        return any(text in self._told for text in written)

    @property
    def last_lease(self) -> bytes:
        """The last Lease that was written through here and taken, in whatever encoding."""
        return self._last_lease

    def close(self) -> None:
        """Cut everything."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _call(self, task: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(task, self._loop).result(_START_SECONDS)

    async def _open(self) -> int:
        self._changed = asyncio.Condition()
        # A pool without a limit: watches fill any other.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=self._trust or False),
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers={"Accept-Encoding"},
        )
        # The handler of a client that has died goes on: its request is on the way.
        self._runner = web.ServerRunner(
            web.Server(self._serve, handler_cancellation=False, access_log=None),
            shutdown_timeout=0.1,
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def _close(self) -> None:
        self._abort_streams()
        await self._release()
        await self._runner.cleanup()
        await self._session.close()

    async def _set(self, kind: Kind, mode: Mode) -> None:
        async with self._changed:
            self._modes[kind] = mode
            self._changed.notify_all()

    async def _cut_watches(self) -> None:
        await self._set("watch", "hold")
        self._abort_streams()

    def _abort_streams(self) -> None:
        for request in tuple(self._streams.values()):
            _abort(request)

    async def _release(self) -> None:
        async with self._changed:
            self._modes.clear()
            self._changed.notify_all()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        kind = _kind_of(request)
        self._seen[kind] = self._seen.get(kind, 0) + 1
        body = await request.read()
        await self._wait_while("hold", Held(kind, request.path, body, passed=False), request)
        headers = {
            name: value
            for name, value in request.headers.items()
            if name.lower() not in _OWN_HEADERS
        }
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        # As it is when it is passed on: what comes of it may be seen, and the mode changed, before.
        loses = self._modes.get(kind) == "lose"
        try:
            async with self._session.request(
                request.method,
                f"{self._target}{request.rel_url}",
                data=body or None,
                headers=headers,
                allow_redirects=False,
            ) as answer:
                if kind == "watch":
                    return await self._stream(request, answer)
                data = await answer.read()
        except aiohttp.ClientError:
            # Nobody there: the client is to see just that.
            self._vain += 1
            _abort(request)
            return web.Response(status=502)
        if kind == "lease" and answer.status < 300 and request.method in {"PUT", "POST"}:
            self._last_lease = body
        if loses:
            _abort(request)
        await self._wait_while("withhold", Held(kind, request.path, body, passed=True), request)
        if request.method == "GET":
            self._note(data)
        return web.Response(status=answer.status, body=data, headers=_kept(answer))

    async def _stream(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse
    ) -> web.StreamResponse:
        stream = web.StreamResponse(status=answer.status, headers=_kept(answer))
        number = next(self._numbers)
        self._streams[number] = request
        first = True
        try:
            await stream.prepare(request)
            async for chunk in answer.content.iter_any():
                self._gone += first and (answer.status == 410 or _GONE in chunk)
                first = False
                async with self._changed:
                    await self._changed.wait_for(lambda: self._modes.get("watch") != "hold")
                await stream.write(chunk)
                self._note(chunk)
            await stream.write_eof()
        except (ConnectionError, aiohttp.ClientError):
            # A stream that was cut on one side must not look ended on the other.
            _abort(request)
        finally:
            del self._streams[number]
        return stream

    def _note(self, data: bytes) -> None:
        self._told = (self._told + data)[-_TOLD:]

    async def _wait_while(self, mode: Mode, waiting: Held, request: web.BaseRequest) -> None:
        if self._modes.get(waiting.kind) != mode:
            return
        number = next(self._numbers)
        self._held[number] = waiting, request
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: self._modes.get(waiting.kind) != mode)
        finally:
            del self._held[number]


def _kind_of(request: web.BaseRequest) -> Kind:
    if request.query.get("watch") in {"true", "1"}:
        return "watch"
    last = request.path.rpartition("/")[2]
    if "/leases" in request.path:
        return "lease"
    if request.method == "POST" and last in {"binding", "bind", "filter"}:
        return last  # type: ignore[return-value]  # one of the literals
    return "other"


def _kept(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {
        name: value for name, value in answer.headers.items() if name.lower() not in _OWN_HEADERS
    }


def _abort(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()
