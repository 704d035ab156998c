"""The API server as bytes in and bytes out, over the official client's low-level ApiClient.

Only the transport and the credentials of `kubernetes` 37 are used: requests go through
`param_serialize` and `call_api`, no generated API and no model is ever imported (126 MiB in a
process with CoreV1Api, 44 MiB without; 5,000 nodes as models take 2,182 ms, as structs 45 ms).
`KubeClient` serves the plugin's threads, `AioKubeClient` the scheduler's loop. The client is
imported by `connect`, so a process loads the flavour that it uses and no other.

Every call has a connect and a read timeout in seconds and raises errors of `runtime.errors`
only: ApiError and its children for an answer, UnreachableError for none.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from runtime.errors import ApiError, UnreachableError
from runtime.kube_aio import AioKubeClient, connect_aio
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
from runtime.lean_imports import put_off, without_init

_PACKAGES = ("kubernetes", "kubernetes.config", "kubernetes.utils")
"""The packages that would bring in what nobody here uses."""

_OAUTH = ("oauthlib", "oauthlib.oauth2", "requests_oauthlib")
"""What a kubeconfig needs that names OpenID Connect, and no other."""

__all__ = ["AioKubeClient", "KubeClient", "Query", "WatchStream", "connect", "connect_aio"]


class WatchStream:
    """The lines of one watch, as they come. `close` may be called from any thread.

    Iterating ends when the server ends the stream or `close` was called, and raises
    UnreachableError when it is cut or silent for too long.
    """

    def __init__(self, response: Any, faults: tuple[type[BaseException], ...]) -> None:
        self._response = response
        self._faults = faults
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        splitter = LineSplitter()
        try:
            for chunk in self._chunks():
                yield from splitter.feed(chunk)
        except self._faults as error:
            if not self._closed.is_set():
                raise UnreachableError(f"watch: {said(error)}") from error
        finally:
            self._response.close()

    def _chunks(self) -> Iterator[bytes]:
        if self._response.chunked:
            yield from self._response.read_chunked()
            return
        while chunk := self._response.read1(1 << 16):
            yield chunk

    def close(self) -> None:
        """End the stream, also while another thread waits for its next line."""
        self._closed.set()
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            self._response.shutdown()  # wakes a blocked read, which close() does not

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        with contextlib.suppress(*self._faults):
            self._response.close()


class KubeClient:
    """The API server for threads; safe to share between them."""

    def __init__(self, api: Any, faults: tuple[type[BaseException], ...]) -> None:
        self._api = api
        self._faults = faults

    def get(self, path: str, query: Query | None = None, *, timeout: float = READ_TIMEOUT) -> bytes:
        """Read an object or a list."""
        return self._call("GET", path, query, timeout=timeout)

    def post(
        self, path: str, body: object, query: Query | None = None, *, timeout: float = READ_TIMEOUT
    ) -> bytes:
        """Create. `body` is JSON bytes, or a struct or dict to be encoded."""
        return self._call("POST", path, query, body, JSON, timeout=timeout)

    def put(self, path: str, body: object, *, timeout: float = READ_TIMEOUT) -> bytes:
        """Replace."""
        return self._call("PUT", path, None, body, JSON, timeout=timeout)

    def patch(self, path: str, body: object, *, timeout: float = READ_TIMEOUT) -> bytes:
        """Merge-patch: null deletes a key."""
        return self._call("PATCH", path, None, body, MERGE_PATCH, timeout=timeout)

    def delete(self, path: str, body: object = None, *, timeout: float = READ_TIMEOUT) -> bytes:
        """Delete; `body` may be DeleteOptions with preconditions."""
        return self._call(
            "DELETE", path, None, body, None if body is None else JSON, timeout=timeout
        )

    def list_pages(
        self,
        path: str,
        query: Query | None = None,
        limit: int = PAGE,
        *,
        timeout: float = READ_TIMEOUT,
    ) -> Iterator[bytes]:
        """Read a list page by page. Raises GoneError when it takes longer than the server keeps."""
        asked = {**(query or {}), "limit": str(limit)}
        while True:
            page = self.get(path, asked, timeout=timeout)
            yield page
            token = page_token(page)
            if not token:
                return
            asked = next_query(asked, token)

    def watch_lines(
        self, path: str, query: Query | None = None, inactivity_timeout: float = 150.0
    ) -> WatchStream:
        """Open a watch; it fails after `inactivity_timeout` seconds without a byte.

        The server sends a bookmark about once a minute, so silence for longer is a dead peer.
        """
        asked = {**(query or {}), "watch": "true"}
        answer = self._send("GET", path, asked, None, None, timeout=inactivity_timeout)
        if answer.status != 200:
            raise self._refusal(answer)
        return WatchStream(answer.response, self._faults)

    def close(self) -> None:
        """Close idle connections."""
        self._api.close()

    def _call(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: object = None,
        content: str | None = None,
        *,
        timeout: float,
    ) -> bytes:
        answer = self._send(method, path, query, body, content, timeout=timeout)
        if not 200 <= answer.status < 300:
            raise self._refusal(answer)
        return self._read(answer)

    def _send(
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
            request = self._api.param_serialize(
                method,
                path,
                query_params=list((query or {}).items()),
                header_params=headers(content),
                body=sent,
                auth_settings=AUTH,
            )
            return self._api.call_api(*request, _request_timeout=(CONNECT_TIMEOUT, timeout))
        except self._faults as error:
            raise UnreachableError(f"{method} {path}: {said(error)}") from error

    def _read(self, answer: Any) -> bytes:
        try:
            return bytes(answer.read())
        except self._faults as error:
            raise UnreachableError(f"answer: {said(error)}") from error

    def _refusal(self, answer: Any) -> ApiError:
        return error_of(answer.status, answer.reason or "", self._read(answer))


def connect(kubeconfig: str | None = None) -> KubeClient:
    """Connect by a kubeconfig file; None means the pod's service account, else the user's file.

    Raises AccessError naming the file and what is wrong with it. Nothing is sent yet.
    """
    import urllib3  # noqa: PLC0415 -- loaded by the process that uses this flavour

    with without_init(*_PACKAGES):
        from kubernetes.client import Configuration  # noqa: PLC0415 -- as above
        from kubernetes.client.api_client import ApiClient  # noqa: PLC0415 -- as above
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415 -- as above
        from kubernetes.config import incluster_config as config  # noqa: PLC0415 -- as above

    settings = Configuration()
    with access(kubeconfig):
        if not in_cluster(config, kubeconfig, settings):
            with without_init(*_PACKAGES), put_off(*_OAUTH):
                from kubernetes.config import kube_config  # noqa: PLC0415 -- as above
            kube_config.load_kube_config(
                config_file=kubeconfig, client_configuration=settings, persist_config=False
            )
    # Callers retry with their own back-off; a hidden second try would double every timeout.
    settings.retries = False
    api = ApiClient(settings)
    api.user_agent = "gputopo"
    # ApiException comes from the transport for TLS faults, ConfigException from token renewal.
    faults = (urllib3.exceptions.HTTPError, OSError, ApiException, config.ConfigException)
    return KubeClient(api, faults)
