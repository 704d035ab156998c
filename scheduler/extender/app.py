"""The routes of the extender: each verb at the root and below /v1."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from scheduler.errors import SchedulerError
from scheduler.extender.handlers import Handlers
from scheduler.extender.wire import BadBodyError, ErrorBody, encode
from scheduler.metrics import Metrics

JSON: Final = "application/json"

Endpoint = Callable[[Request], Awaitable[Response]]

_log = structlog.get_logger("scheduler.extender")


def build(handlers: Handlers, metrics: Metrics) -> Starlette:
    """Return the ASGI application. Filter and bind always answer 200: errors have their field."""

    async def filter_(request: Request) -> Response:
        """Answer POST filter."""
        return Response(handlers.filter(await request.body()), media_type=JSON)

    async def prioritize(request: Request) -> Response:
        """Answer POST prioritize."""
        body = await request.body()
        try:
            return Response(handlers.prioritize(body), media_type=JSON)
        except BadBodyError as error:
            return Response(encode(ErrorBody(str(error))), status_code=400, media_type=JSON)
        except SchedulerError as error:
            return Response(encode(ErrorBody(str(error))), status_code=503, media_type=JSON)

    async def bind(request: Request) -> Response:
        """Answer POST bind."""
        return Response(await handlers.bind(await request.body()), media_type=JSON)

    verbs = {"filter": filter_, "prioritize": prioritize, "bind": bind}
    return Starlette(
        routes=[
            Route(f"{prefix}/{verb}", _timed(verb, endpoint, metrics), methods=["POST"])
            for verb, endpoint in verbs.items()
            for prefix in ("", "/v1")
        ],
        exception_handlers={ClientDisconnect: _gone},
    )


def _timed(verb: str, endpoint: Endpoint, metrics: Metrics) -> Endpoint:
    seconds = metrics.seconds[verb]

    async def timed(request: Request) -> Response:
        begun = time.perf_counter()
        try:
            return await endpoint(request)
        finally:
            seconds.observe(time.perf_counter() - begun)

    return timed


async def _gone(request: Request, error: Exception) -> Response:  # noqa: ARG001 -- Starlette's signature
    """Answer somebody who hung up amid his body; nobody reads it."""
    _log.info("client went away", path=request.url.path)
    return Response(status_code=400)
