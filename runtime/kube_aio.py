"""The API server as bytes in and bytes out for one event loop; see `runtime.kube`."""

# ruff: noqa: ASYNC109 -- these bound one read; a whole call is bounded by asyncio.timeout

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any
from urllib.request import getproxies_environment

from runtime.errors import ApiError, UnreachableError
from runtime.kube_wire import (
    AUTH,
    CONNECT_TIMEOUT,
    JSON,
    MERGE_PATCH,
    PAGE,
    READ_TIMEOUT,
    LineSplitter,
    Query,
    access,
    error_of,
    headers,
    in_cluster,
    next_query,
    page_token,
    plain,
    said,
)


class AioKubeClient:
    """The API server for one event loop."""

    def __init__(
        self,
        api: Any,
        faults: tuple[type[BaseException], ...],
        timeouts: Callable[[float], Any],
    ) -> None:
        self._api = api
        self._faults = faults
        self._timeouts = timeouts

    async def get(
        self, path: str, query: Query | None = None, *, timeout: float = READ_TIMEOUT
    ) -> bytes:
        """Read an object or a list."""
        return await self._call("GET", path, query, timeout=timeout)

    async def post(
        self, path: str, body: object, query: Query | None = None, *, timeout: float = READ_TIMEOUT
    ) -> bytes:
        """Create. `body` is JSON bytes, or a struct or dict to be encoded."""
        return await self._call("POST", path, query, body, JSON, timeout=timeout)

    async def put(self, path: str, body: object, *, timeout: float = READ_TIMEOUT) -> bytes:
        """Replace."""
        return await self._call("PUT", path, None, body, JSON, timeout=timeout)

    async def patch(self, path: str, body: object, *, timeout: float = READ_TIMEOUT) -> bytes:
        """Merge-patch: null deletes a key."""
        return await self._call("PATCH", path, None, body, MERGE_PATCH, timeout=timeout)

    async def delete(
        self, path: str, body: object = None, *, timeout: float = READ_TIMEOUT
    ) -> bytes:
        """Delete; `body` may be DeleteOptions with preconditions."""
        return await self._call(
            "DELETE", path, None, body, None if body is None else JSON, timeout=timeout
        )

    async def list_pages(
        self,
        path: str,
        query: Query | None = None,
        limit: int = PAGE,
        *,
        timeout: float = READ_TIMEOUT,
    ) -> AsyncIterator[bytes]:
        """Read a list page by page. Raises GoneError when it takes longer than the server keeps."""
        asked = {**(query or {}), "limit": str(limit)}
        while True:
            page = await self.get(path, asked, timeout=timeout)
            yield page
            token = page_token(page)
            if not token:
                return
            asked = next_query(asked, token)

    async def watch_lines(
        self,
        path: str,
        query: Query | None = None,
        inactivity_timeout: float = 150.0,
        *,
        opened: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the lines of a watch as they come; closing the iterator closes the stream.

        `opened` is called when the server has begun to answer, which it may do without a line.
        Fails with UnreachableError after `inactivity_timeout` seconds without a byte.
        """
        asked = {**(query or {}), "watch": "true"}
        answer = await self._send("GET", path, asked, None, None, timeout=inactivity_timeout)
        if answer.status != 200:
            raise await self._refusal(answer)
        opened()
        splitter = LineSplitter()
        try:
            async for chunk in answer.response.content.iter_any():
                for line in splitter.feed(chunk):
                    yield line
        except self._faults as error:
            raise UnreachableError(f"watch: {said(error)}") from error
        finally:
            answer.response.close()

    async def close(self) -> None:
        """Close idle connections."""
        await self._api.close()

    async def _call(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: object = None,
        content: str | None = None,
        *,
        timeout: float,
    ) -> bytes:
        answer = await self._send(method, path, query, body, content, timeout=timeout)
        if not 200 <= answer.status < 300:
            raise await self._refusal(answer)
        return await self._read(answer)

    async def _send(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: object,
        content: str | None,
        *,
        timeout: float,
    ) -> Any:
        sent = plain(body)
        try:
            request = await self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers(content),
                body=sent,
                auth_settings=AUTH,
            )
            return await self._api.call_api(*request, _request_timeout=self._timeouts(timeout))
        except self._faults as error:
            raise UnreachableError(f"{method} {path}: {said(error)}") from error

    async def _read(self, answer: Any) -> bytes:
        try:
            return bytes(await answer.read())
        except self._faults as error:
            raise UnreachableError(f"answer: {said(error)}") from error

    async def _refusal(self, answer: Any) -> ApiError:
        return error_of(answer.status, answer.reason or "", await self._read(answer))


async def connect_aio(kubeconfig: str | None = None) -> AioKubeClient:
    """Connect as `connect` does, for the running event loop."""
    import aiohttp  # noqa: PLC0415 -- loaded by the process that uses this flavour
    from kubernetes.aio import config  # noqa: PLC0415 -- as above
    from kubernetes.aio.client import Configuration  # noqa: PLC0415 -- as above
    from kubernetes.aio.client.api_client import ApiClient  # noqa: PLC0415 -- as above
    from kubernetes.aio.client.exceptions import ApiException  # noqa: PLC0415 -- as above

    settings = Configuration()
    with access(kubeconfig):
        if not in_cluster(config, kubeconfig, settings):
            await config.load_kube_config(
                config_file=kubeconfig, client_configuration=settings, persist_config=False
            )
    # Else aiohttp looks for a netrc file at each request, in a thread: a third of what a pod costs
    # the extender. The API server's credentials never come from one; only a proxy may be there.
    settings.client_session_kwargs = {"trust_env": bool(getproxies_environment())}
    api = ApiClient(settings)
    api.user_agent = "gputopo"

    def timeouts(read: float) -> aiohttp.ClientTimeout:
        """Bound the handshake and each read, not the whole: a watch lives for minutes."""
        return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT, sock_read=read)

    # ApiException comes from the transport for TLS faults, ConfigException from token renewal.
    faults = (aiohttp.ClientError, TimeoutError, OSError, ApiException, config.ConfigException)
    return AioKubeClient(api, faults, timeouts)
