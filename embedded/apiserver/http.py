"""The HTTP edge: a request becomes a verb, its result or refusal becomes bytes. Bare ASGI.

No framework: the URL space of the API is a table of its own (`resources`), and a watch must be
able to end the moment the client goes away or the server does.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import structlog

from embedded.apiserver.api import Api, Page, decode_body
from embedded.apiserver.errors import ApiRefusal, bad_request
from embedded.apiserver.resources import BINDINGS, PODS, Resource, Target, discovery, parse_path
from embedded.apiserver.selectors import compile_selectors
from embedded.apiserver.watches import Bell, WatchRequest, watch

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_LIMIT = 3 << 20
"""Bytes of a request body; the real server's limit."""

_log = structlog.get_logger("embedded.apiserver")
_encode = msgspec.json.Encoder().encode
_MERGES = {
    "application/merge-patch+json",
    # Lists are replaced, not merged by key: enough for the patches of annotations and status
    # that our clients send.
    "application/strategic-merge-patch+json",
}
_VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.3+embedded",
    "platform": "embedded",
}
_PROBES = {"/readyz", "/livez", "/healthz"}
_HEADERS = [(b"content-type", b"application/json")]


class App:
    """The ASGI application on one `Api`."""

    def __init__(
        self, api: Api, bell: Bell, *, bookmark_seconds: float, default_watch_seconds: float = 1800
    ) -> None:
        self._api = api
        self._bell = bell
        self._bookmark_seconds = bookmark_seconds
        self._default_watch_seconds = default_watch_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        try:
            body = await _read_body(receive)
            answer = self._answer(scope, body)
        except ApiRefusal as refusal:
            await _reply(send, refusal.code, _encode(refusal.status()))
        except Exception:  # noqa: BLE001 -- an answer is due, and the server lives on
            _log.exception("request failed", path=scope["path"])
            lost = ApiRefusal(500, "InternalError", "the embedded API server failed")
            await _reply(send, 500, _encode(lost.status()))
        else:
            if isinstance(answer, WatchRequest):
                await self._watch(answer, receive, send)
            else:
                await _reply(send, *answer)

    def _answer(self, scope: Scope, body: bytes) -> tuple[int, bytes] | WatchRequest:
        method, path = scope["method"], scope["path"]
        fixed = _fixed_answer(path) if method in {"GET", "HEAD"} else None
        if fixed is not None:
            return 200, fixed
        target = parse_path(path)
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        if method == "GET":
            return self._read(target, query)
        dry_run = query.get("dryRun") == "All"
        if method == "POST":
            return self._post(target, decode_body(body), dry_run=dry_run)
        if not target.name or target.subresource == "binding":
            raise _not_allowed()
        if method == "PUT":
            return 200, self._api.update(target, decode_body(body), dry_run=dry_run).raw
        if method == "PATCH":
            _check_patch_type(dict(scope["headers"]).get(b"content-type", b"").decode("latin-1"))
            return 200, self._api.patch(target, decode_body(body), dry_run=dry_run).raw
        if method == "DELETE" and not target.subresource:
            return self._delete(target, query, body)
        raise _not_allowed()

    def _read(self, target: Target, query: dict[str, str]) -> tuple[int, bytes] | WatchRequest:
        if target.subresource in {"binding", BINDINGS}:
            raise _not_allowed()
        if target.name:
            return 200, self._api.get(target).raw
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        if query.get("watch") in {"true", "1"}:
            seconds = _number(query, "timeoutSeconds")
            return WatchRequest(
                target.resource,
                compile_selectors(target.resource, target.namespace, labels, fields),
                str(_number(query, "resourceVersion")),
                query.get("allowWatchBookmarks") in {"true", "1"},
                seconds or self._default_watch_seconds,
            )
        token = query.get("continue", "")
        version = _number(query, "resourceVersion")
        if token and version:
            raise bad_request("specifying resource version is not allowed when using continue")
        if version > self._api.store.version:
            raise ApiRefusal(
                504,
                "Timeout",
                f"Too large resource version: {version}, current: {self._api.store.version}",
            )
        page = self._api.list(target, labels, fields, _number(query, "limit"), token)
        return 200, _list_body(target.resource, page)

    def _post(self, target: Target, body: dict[str, Any], *, dry_run: bool) -> tuple[int, bytes]:
        if target.subresource in {"binding", BINDINGS}:
            self._api.bind(target, body, dry_run=dry_run)
            return 201, _encode(_success(201))
        if target.name or (target.resource.namespaced and not target.namespace):
            raise _not_allowed()
        return 201, self._api.create(target, body, dry_run=dry_run).raw

    def _delete(self, target: Target, query: dict[str, str], body: bytes) -> tuple[int, bytes]:
        # Options come in either place; clients in other languages use the query.
        options = decode_body(body) if body else {}
        if "gracePeriodSeconds" in query:
            options["gracePeriodSeconds"] = _number(query, "gracePeriodSeconds")
        gone = self._api.delete(target, options)
        if target.resource is PODS:
            return 200, gone.raw
        details = {"name": target.name, "kind": target.resource.plural}
        return 200, _encode({**_success(200), "details": details})

    async def _watch(self, asked: WatchRequest, receive: Receive, send: Send) -> None:
        heard = asyncio.Event()
        pieces = watch(self._api.store, self._bell, asked, self._bookmark_seconds, heard)
        try:
            first = await anext(pieces)
        except ApiRefusal as refusal:
            # Too old from the start: the real server says so inside a 200 stream, as an event.
            first = b'{"type":"ERROR","object":%b}\n' % _encode(refusal.status())
        streaming = asyncio.current_task()
        watching_client = asyncio.create_task(_until_gone(receive, streaming))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
            if first:
                await _send_piece(send, first)
            async for piece in pieces:
                await _send_piece(send, piece)
            await send({"type": "http.response.body", "body": b""})
        except asyncio.CancelledError:
            # Ours when the client has gone, the server's own when it stops: both end here.
            pass
        finally:
            watching_client.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pieces.aclose()


async def _until_gone(receive: Receive, streaming: asyncio.Task[Any] | None) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if streaming is not None:
        streaming.cancel()


async def _send_piece(send: Send, piece: bytes) -> None:
    await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _read_body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise bad_request("the client went away in the middle of its request")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > BODY_LIMIT:
            raise ApiRefusal(
                413, "RequestEntityTooLarge", f"limit is {BODY_LIMIT} bytes, request is larger"
            )
        if not message.get("more_body"):
            return b"".join(parts)


async def _reply(send: Send, code: int, body: bytes) -> None:
    headers = [*_HEADERS, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": code, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _fixed_answer(path: str) -> bytes | None:
    if path in _PROBES:
        return b'"ok"'
    found = _VERSION if path == "/version" else discovery(path)
    return None if found is None else _encode(found)


def _check_patch_type(content: str) -> None:
    if content.partition(";")[0].strip() not in _MERGES:
        raise ApiRefusal(
            415,
            "UnsupportedMediaType",
            f"the body of the request was in an unknown format ({content[:80]}) - "
            f"accepted media types include: {', '.join(sorted(_MERGES))}",
        )


def _list_body(resource: Resource, page: Page) -> bytes:
    meta: dict[str, Any] = {"resourceVersion": str(page.version)}
    if page.token:
        meta.update({"continue": page.token, "remainingItemCount": page.remaining})
    return b'{"kind":"%bList","apiVersion":"%b","metadata":%b,"items":[%b]}' % (
        resource.kind.encode(),
        resource.api_version.encode(),
        _encode(meta),
        b",".join([entry.raw for entry in page.entries]),
    )


def _number(query: dict[str, str], key: str) -> int:
    text = query.get(key) or "0"
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise bad_request(f"invalid {key}: {text[:40]!r}")
    return int(text)


def _success(code: int) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}


def _not_allowed() -> ApiRefusal:
    return ApiRefusal(
        405, "MethodNotAllowed", "the server does not allow this method on the requested resource"
    )
