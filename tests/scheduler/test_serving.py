"""The server for strangers: whatever they send or do not send, they use up little."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from scheduler.serving import (
    MOST_CONNECTIONS,
    MOST_HEAD_BYTES,
    Wary,
    listen,
    make_server,
    serve,
)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Hasty(Wary):
    """Has no patience at all."""

    head_seconds = 0.05


@asynccontextmanager
async def serving(protocol: type[Wary], host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serve a greeting."""

    async def greet(request: Request) -> PlainTextResponse:
        """Say how much was sent."""
        return PlainTextResponse(f"{len(await request.body())} bytes")

    application = Starlette(routes=[Route("/", greet, methods=["GET", "POST"])])
    with listen(host, 0) as listener:
        running = asyncio.create_task(serve(make_server(application, protocol), listener))
        try:
            yield listener.getsockname()[1]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def ended(reader: asyncio.StreamReader) -> bool:
    """Wait for the end of a connection; return whether it came without a word."""
    try:
        async with asyncio.timeout(10):
            return await reader.read() == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_who_does_not_say_what_he_wants_is_not_waited_for(sent: bytes) -> None:
    """Neither at the beginning, nor in the middle of the head."""
    async with serving(Hasty) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(sent)
        assert await ended(reader)
        writer.close()


async def test_the_second_question_of_a_connection_is_not_waited_for_either() -> None:
    """Once it has begun; between questions a connection may idle."""
    async with serving(Hasty) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        assert (await reader.readuntil(b"0 bytes")).startswith(b"HTTP/1.1 200")
        writer.write(GET[:10])
        assert await ended(reader)
        writer.close()


async def test_a_head_without_end_is_cut_off() -> None:
    """It would fill the memory that decisions need."""
    async with serving(Wary) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"x" * (2 * MOST_HEAD_BYTES))
        assert await ended(reader)
        writer.close()


async def test_a_body_may_be_longer_than_a_head() -> None:
    """Only the head is bounded here."""
    body = b"x" * (2 * MOST_HEAD_BYTES)
    async with serving(Wary) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        writer.write(head + body)
        assert await reader.readuntil(f"{len(body)} bytes".encode())
        writer.close()


async def test_there_are_so_many_connections_and_no_more() -> None:
    """Who comes too late is sent away, until others have gone; the loopback is never shut."""
    stranger = ("127.0.0.2", 0)
    async with serving(Wary) as port:

        async def connect(
            source: tuple[str, int] = stranger,
        ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            """Connect from an address."""
            return await asyncio.open_connection("127.0.0.1", port, local_addr=source)

        held = [await connect() for _ in range(MOST_CONNECTIONS)]
        # The server has taken them all when the last one is answered.
        await answered(*held[-1])
        reader, late = await connect()
        assert await ended(reader)
        late.close()
        near = await connect(("127.0.0.1", 0))
        await answered(*near)
        near[1].close()
        for _, writer in held:
            writer.close()
            await writer.wait_closed()
        reader, writer = await connect()
        await answered(reader, writer)
        writer.close()


async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ask, and get an answer."""
    writer.write(GET)
    assert (await reader.readuntil(b"0 bytes")).startswith(b"HTTP/1.1 200")


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="the kernel has no IPv6")
async def test_everywhere_is_both_families() -> None:
    """A pod's addresses may be of either."""
    async with serving(Wary, "::") as port:
        for host in ("127.0.0.1", "::1"):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(GET)
            assert (await reader.readuntil(b"0 bytes")).startswith(b"HTTP/1.1 200")
            writer.close()
