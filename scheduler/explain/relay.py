"""Asks the replica that decides, in the name of one that does not.

The caller was let in here; the question goes on with our own token, never with the caller's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final

import aiohttp
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from yarl import URL

from scheduler.explain.errors import BadRequestError, LeaderError
from scheduler.explain.leader import Leader
from scheduler.explain.question import MOST_BYTES
from scheduler.explain.shapes import ErrorAnswer
from scheduler.explain.tokens import TokenFile

FORWARDED: Final = "X-Gputopo-Forwarded"
"""Set on what is handed on, so that replicas never send a question in circles."""

ANSWERED_BY: Final = "X-Gputopo-Answered-By"
"""Names who decides, on answers that were fetched from there."""

ANSWER_SECONDS: Final = 10.0

SILENT_SECONDS: Final = 45.0
"""How long a stream of events may be silent: something is sent every 15 s."""

STREAM: Final = "text/event-stream"

_PATIENCE: Final = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=SILENT_SECONDS)
_OURS: Final = frozenset({401, 403, 503})
"""What is said to the replica that asks, not to its caller, who was let in."""

_ASKED: Final = ("Content-Type", "Accept")
_ANSWERED: Final = ("Content-Type", "Cache-Control", "X-Accel-Buffering")


class _Question(msgspec.Struct, frozen=True):
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


class Relay:
    """Hands questions on. `port` is where each replica's API listens.

    With `reachable` false they listen on their own loopback: then it can only be said which one
    to ask.
    """

    def __init__(
        self, leader: Leader, *, port: int, reachable: bool, token: TokenFile | None
    ) -> None:
        self._leader = leader
        self._port = port
        self._reachable = reachable
        self._token = token
        self._session: aiohttp.ClientSession | None = None

    async def live(self) -> None:
        """Hold connections until cancelled: then streams end, and who follows them comes again."""
        # Open pages are a connection each, and must not stand in the way of questions.
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as self._session:
            await asyncio.Event().wait()

    async def hand_on(self, request: Request) -> Response | None:
        """Return the answer of who decides; None if that is us. Raises LeaderError.

        Whoever stopped deciding since the Lease was read says so: then it is read again, once.
        """
        if FORWARDED in request.headers:
            await self._stand_by(request.headers[FORWARDED])
            return None
        name = await self._leader.elsewhere()
        if name is None:
            return None
        question = await _question(request)
        response, problem = await self._try(name, question)
        if problem is None:
            return response
        now = await self._leader.elsewhere(anew=True)
        if now is None:
            return None
        if now != name:
            response, problem = await self._try(now, question)
        if problem is not None:
            raise problem
        return response

    async def leads(self) -> bool:
        """Return whether we decide, as far as is known."""
        return await self._leader.elsewhere() is None

    async def _stand_by(self, asker: str) -> None:
        """Raise LeaderError if we were taken for the one that decides and are not."""
        if await self._leader.elsewhere() is None:
            return
        # It may have been us for less time than the Lease is remembered.
        name = await self._leader.elsewhere(anew=True)
        if name is not None:
            raise LeaderError(f"{asker[:253]} took {self._leader.me} for who decides; {name} does")

    async def _try(
        self, name: str, question: _Question
    ) -> tuple[Response | None, LeaderError | None]:
        try:
            return await self._ask(name, question), None
        except LeaderError as error:
            self._leader.forget_address()
            return None, error

    async def _ask(self, name: str, question: _Question) -> Response:
        us = self._leader.me
        if not self._reachable:
            raise LeaderError(f"{us} does not decide; {name} does, on its loopback only")
        if self._session is None:
            raise LeaderError(f"{us} does not decide, {name} does; ask again")
        address = await self._leader.address(name)
        host = f"[{address}]" if ":" in address else address
        headers = {**question.headers, FORWARDED: us}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.token}"
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._session.request(
                    question.method,
                    URL(f"http://{host}:{self._port}{question.target}", encoded=True),
                    headers=headers,
                    data=question.body or None,
                    allow_redirects=False,
                    timeout=_PATIENCE,
                )
                if answer.status == 200 and answer.content_type == STREAM:
                    return self._stream(name, answer)
                async with answer:
                    body = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            said = str(error) or f"nothing within {ANSWER_SECONDS:g} s"
            raise LeaderError(f"{us} does not decide; {name} does, and is silent: {said}") from None
        if answer.status in _OURS:
            said = _problem(body, answer.status)
            raise LeaderError(f"{us} does not decide; {name} does, and tells it: {said}")
        return Response(body, answer.status, _kept(name, answer))

    def _stream(self, name: str, answer: aiohttp.ClientResponse) -> Response:
        async def passed_on() -> AsyncIterator[bytes]:
            """Pass on what comes, until another one decides."""
            async with answer:
                try:
                    async for chunk in answer.content.iter_any():
                        yield chunk
                        if await self._leader.elsewhere() != name:
                            return
                except (TimeoutError, aiohttp.ClientError, OSError):
                    return  # who follows comes again, and is told then

        return StreamingResponse(passed_on(), answer.status, _kept(name, answer))


async def read_body(request: Request) -> bytes:
    """Read a body of an object's size at most, the first time. Raises BadRequestError for more."""
    if not hasattr(request.state, "body"):
        parts, length = [], 0
        async for part in request.stream():
            length += len(part)
            if length > MOST_BYTES:
                raise BadRequestError("body", f"more than {MOST_BYTES} bytes")
            parts.append(part)
        request.state.body = b"".join(parts)
    body: bytes = request.state.body
    return body


async def _question(request: Request) -> _Question:
    query = request.url.query
    return _Question(
        request.method,
        f"{request.scope['raw_path'].decode()}{f'?{query}' if query else ''}",
        {name: request.headers[name] for name in _ASKED if name in request.headers},
        await read_body(request),
    )


def _kept(name: str, answer: aiohttp.ClientResponse) -> dict[str, str]:
    kept = {key: answer.headers[key] for key in _ANSWERED if key in answer.headers}
    return {**kept, ANSWERED_BY: name}


def _problem(body: bytes, status: int) -> str:
    try:
        return msgspec.json.decode(body, type=ErrorAnswer).error
    except msgspec.DecodeError:
        return f"HTTP {status}"
