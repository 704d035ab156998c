"""A server on loopback that plays Prometheus' part; nothing between it and ours is mocked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web

from tests.scheduler.load.answering import TLS, recorded

Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class FakePrometheus:
    """Answers queries by `answers`, the first whose key stands in the query, else with nothing.

    `reply` replaces all that: for servers that are slow, broken or somebody else. Every request
    is kept in `asked`.
    """

    def __init__(self) -> None:
        self.asked: list[web.Request] = []
        self.answers: dict[str, bytes] = {}
        self.reply: Reply | None = None
        self.url = ""
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self, tls: bool = False) -> None:
        """Serve on a free port, after `stop` on the same again."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        context = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(TLS / "server.pem", TLS / "server.key")
        site = web.TCPSite(
            self._runner, "127.0.0.1", self._port, ssl_context=context, reuse_address=True
        )
        await site.start()
        self._port = self._runner.addresses[0][1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._port}"

    async def stop(self) -> None:
        """End all connections, and refuse new ones."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        if self.reply is not None:
            return await self.reply(request)
        query = request.query["query"]
        for part, body in self.answers.items():
            if part in query:
                return web.Response(body=body, content_type="application/json")
        return web.Response(body=recorded("empty"), content_type="application/json")


def says(body: bytes, status: int = 200, kind: str = "application/json") -> Reply:
    """Reply with this, whatever is asked."""

    async def reply(_: web.Request) -> web.Response:
        """Say it."""
        return web.Response(body=body, status=status, content_type=kind)

    return reply


async def hangs(request: web.Request) -> web.StreamResponse:
    """Never reply; ends when the client goes."""
    await asyncio.Event().wait()
    raise AssertionError(request)


async def trickles(request: web.Request) -> web.StreamResponse:
    """Begin an answer, and never end it."""
    answer = web.StreamResponse()
    answer.content_type = "application/json"
    await answer.prepare(request)
    await answer.write(b'{"status":"success","data":{')
    await asyncio.Event().wait()
    raise AssertionError(request)


async def breaks_off(request: web.Request) -> web.StreamResponse:
    """Promise more than comes, and close."""
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b'{"status":"success","data":{')
    transport = request.transport
    assert transport is not None
    transport.close()
    return answer


async def never_ends(request: web.Request) -> web.StreamResponse:
    """Send for as long as somebody reads."""
    answer = web.StreamResponse()
    await answer.prepare(request)
    while True:
        await answer.write(b" " * 65536)


@pytest.fixture
async def prometheus() -> AsyncIterator[FakePrometheus]:
    """Run a server that has no samples yet."""
    server = FakePrometheus()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def tls_prometheus() -> AsyncIterator[FakePrometheus]:
    """Run one with a certificate of tls/ca.pem."""
    server = FakePrometheus()
    await server.start(tls=True)
    yield server
    await server.stop()
