"""The routes of the explain API: read-only, JSON in every answer, errors too."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scheduler.explain.access import Access
from scheduler.explain.desk import Desk
from scheduler.explain.errors import BadRequestError, ExplainError, TokenError
from scheduler.explain.metrics import ExplainMetrics
from scheduler.explain.openapi import document
from scheduler.explain.relay import Relay, read_body
from scheduler.explain.shapes import ErrorAnswer

JSON: Final = "application/json"

MOST: Final = 10_000
"""The greatest `top`: more nodes than a cluster has."""

Answer = Callable[[Request], Awaitable[object]]
Endpoint = Callable[[Request], Awaitable[Response]]

_log = structlog.get_logger("scheduler.explain")


def build(
    desk: Desk,
    access: Access | None = None,
    *,
    metrics: ExplainMetrics | None = None,
    relay: Relay | None = None,
) -> Starlette:
    """Return the ASGI application. Without `access` anybody who reaches it may ask.

    Where `relay` knows that another replica decides, that one is asked.
    """

    async def scores(request: Request) -> object:
        """Answer with the best nodes of a pod."""
        return desk.scores(*_pod(request), top=_top(request, 10))

    async def strategies(request: Request) -> object:
        """Answer with each strategy's best nodes."""
        return desk.strategies(*_pod(request), top=_top(request, 5))

    async def pod(request: Request) -> object:
        """Answer with the whole record of a pod."""
        return desk.pod(*_pod(request), top=_top(request, 10))

    async def pods(request: Request) -> object:
        """Answer with the pods that were asked about."""
        return desk.pods(_given(request, "outcome"), limit=_number(request, "limit", 1000))

    async def dry_run(request: Request) -> object:
        """Answer with where pods would go."""
        return await desk.dry_run(await read_body(request), top=_top(request, 10))

    async def nodes(request: Request) -> object:  # noqa: ARG001 -- asked alike
        """Answer with all nodes."""
        return await desk.nodes()

    async def node(request: Request) -> object:
        """Answer with one node."""
        return desk.node(request.path_params["node"])

    async def cluster(request: Request) -> object:  # noqa: ARG001 -- asked alike
        """Answer with what the cluster has and what is left."""
        return await desk.cluster()

    async def openapi(request: Request) -> object:  # noqa: ARG001 -- asked alike
        """Answer with the document of all this."""
        return document()

    routes: Mapping[str, tuple[str, Answer]] = {
        "/v1/pods": ("GET", pods),
        "/v1/pods/{namespace}/{name}": ("GET", pod),
        "/v1/pods/{namespace}/{name}/scores": ("GET", scores),
        "/v1/pods/{namespace}/{name}/strategies": ("GET", strategies),
        "/v1/dry-run": ("POST", dry_run),
        "/v1/nodes": ("GET", nodes),
        "/v1/nodes/{node}": ("GET", node),
        "/v1/cluster": ("GET", cluster),
        "/openapi.json": ("GET", openapi),
    }
    return Starlette(
        routes=[
            Route(
                path,
                _counting(path, _answering(answer, access, relay), metrics),
                methods=[method],
            )
            for path, (method, answer) in routes.items()
        ],
        exception_handlers={HTTPException: _refuse, Exception: _fail},
    )


def _counting(path: str, endpoint: Endpoint, metrics: ExplainMetrics | None) -> Endpoint:
    if metrics is None:
        return endpoint
    seconds = metrics.seconds.labels(path)

    async def counted(request: Request) -> Response:
        begun = time.perf_counter()
        status = 500
        try:
            response = await endpoint(request)
            status = response.status_code
            return response
        finally:
            seconds.observe(time.perf_counter() - begun)
            metrics.requests.labels(path, str(status)).inc()

    return counted


def _answering(answer: Answer, access: Access | None, relay: Relay | None) -> Endpoint:
    async def endpoint(request: Request) -> Response:
        try:
            if access is not None:
                await access.admit(request)
            handed_on = None if relay is None else await relay.hand_on(request)
            return _json(await answer(request)) if handed_on is None else handed_on
        except BadRequestError as error:
            return _json(ErrorAnswer(error.problem, error.place), error.status)
        except ExplainError as error:
            headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, TokenError) else {}
            return _json(ErrorAnswer(str(error)), error.status, headers)

    return endpoint


def _pod(request: Request) -> tuple[str, str]:
    return request.path_params["namespace"], request.path_params["name"]


def _top(request: Request, default: int) -> int:
    return _number(request, "top", default)


def _number(request: Request, name: str, default: int) -> int:
    text = _given(request, name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= MOST):
        raise BadRequestError(name, f"{text[:40]!r} is not a number from 1 to {MOST}")
    return int(text)


def _given(request: Request, name: str) -> str | None:
    values = request.query_params.getlist(name)
    if len(values) > 1:
        raise BadRequestError(name, "is given more than once")
    return values[0] if values else None


def _json(
    value: object, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    body = msgspec.json.encode(value)
    return Response(body, status, {"Cache-Control": "no-store", **(headers or {})}, JSON)


async def _refuse(request: Request, error: Exception) -> Response:
    """Answer a path that is not there or a method that is not taken."""
    status, headers = HTTPStatus.INTERNAL_SERVER_ERROR.value, None
    if isinstance(error, HTTPException):
        status, headers = error.status_code, error.headers
    text = f"{request.method} {request.url.path}: {HTTPStatus(status).phrase.lower()}"
    return _json(ErrorAnswer(text), status, headers)


async def _fail(request: Request, error: Exception) -> Response:
    """Answer what nobody expected; the log has the rest."""
    _log.error("failed", path=request.url.path, exc_info=error)
    return _json(ErrorAnswer("the answer could not be made; the log says why"), 500)
