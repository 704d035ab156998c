"""The port for probes and Prometheus: ``/metrics``, ``/healthz``, ``/readyz``.

A plain threaded server on its own port, so that it answers while the daemon's own work is stuck,
and says so. The answers of the two checks are computed at each request; they must not block.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Final

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

Check = Callable[[], str | None]
"""None means fine, else the reason why not in one line."""

EVERYWHERE: Final = "::"
"""Every address of the machine, of both families: a pod's may be of either."""

_log = structlog.get_logger("runtime.ops")
_JSON = "application/json"
_TEXT = "text/plain; charset=utf-8"


def family_of(host: str) -> tuple[str, socket.AddressFamily]:
    """Return an address to listen on and its family; an IPv6 one takes IPv4 too, if it may."""
    # A kernel that was started without IPv6 has no "::"; its pods have IPv4 addresses only.
    if host == EVERYWHERE and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"
    return host, socket.AF_INET6 if ":" in host else socket.AF_INET


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A restarted daemon takes the same port while the old connections are in TIME_WAIT.
    allow_reuse_address = True
    request_queue_size = 32

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        host, self.address_family = family_of(host)
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            # The system's default may be to leave IPv4 out.
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


class OpsServer:
    """Serves metrics and the two probes on a thread of its own.

    `documents` are JSON by path. `host` may be EVERYWHERE. `port` 0 takes a free one; `start`
    returns what was taken and raises OSError when it is not to be had. A check that raises counts
    as a reason.
    """

    def __init__(
        self,
        host: str,
        port: int = 0,
        *,
        registry: CollectorRegistry,
        healthy: Check = lambda: None,
        ready: Check = lambda: None,
        documents: Mapping[str, Callable[[], bytes]] | None = None,
    ) -> None:
        self._host = host
        self._asked_port = port
        self._answers: dict[str, Check] = {"/healthz": healthy, "/readyz": ready}
        self._documents = dict(documents or {})
        self._registry = registry
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def port(self) -> int:
        """The port that is listened on, 0 before `start`."""
        return self._server.server_address[1] if self._server else 0

    def start(self) -> int:
        """Listen and return the port."""
        handler = type("Handler", (_Handler,), {"ops": self})
        self._server = _Server(self._host, self._asked_port, handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="ops", daemon=True
        )
        self._thread.start()
        _log.info("listening", host=self._host, port=self.port)
        return self.port

    def stop(self) -> None:
        """Stop listening; may be called twice."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()
        self._server = self._thread = None

    def answer(self, path: str, accept: str) -> tuple[HTTPStatus, str, bytes]:
        """Answer a GET: status, content type, body."""
        path = path.partition("?")[0]
        if path == "/metrics":
            encode, content = choose_encoder(accept)
            return HTTPStatus.OK, content, encode(self._registry)
        document = self._documents.get(path)
        if document is not None:
            return HTTPStatus.OK, _JSON, document()
        check = self._answers.get(path)
        if check is None:
            paths = ("/metrics", *self._documents, *self._answers)
            text = f"want {', '.join(paths[:-1])} or {paths[-1]}\n"
            return HTTPStatus.NOT_FOUND, _TEXT, text.encode()
        try:
            reason = check()
        except Exception as error:  # noqa: BLE001 -- a probe gets an answer, whatever it is
            _log.exception("check failed", path=path)
            reason = f"the check itself failed: {error}"
        if reason is None:
            return HTTPStatus.OK, _TEXT, b"ok\n"
        return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, reason.encode() + b"\n"


class _Handler(BaseHTTPRequestHandler):
    ops: ClassVar[OpsServer]
    protocol_version = "HTTP/1.1"
    server_version = "gputopo"
    sys_version = ""
    timeout = 10  # a probe that says nothing must not hold its thread for ever

    def do_GET(self) -> None:
        self._reply(with_body=True)

    def do_HEAD(self) -> None:
        self._reply(with_body=False)

    def _reply(self, *, with_body: bool) -> None:
        status, content, body = self.ops.answer(self.path, self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", content)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
        """Say nothing: a probe every few seconds is no news."""
