"""kube-scheduler's side of the extender protocol, against a server that answers as told."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from embedded.kube_scheduler.extender import Extender, ExtenderError


class Answering:
    """A server that gives one answer to everything and keeps what it was asked."""

    def __init__(self, status: int, body: bytes) -> None:
        self.asked: list[tuple[str, object]] = []
        self.connections: set[object] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.asked.append((self.path, msgspec.json.decode(self.rfile.read(length))))
                outer.connections.add(self.client_address)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True


@contextlib.contextmanager
def answering(body: bytes, status: int = 200) -> Iterator[tuple[Answering, Extender]]:
    """Serve an answer and lend a client for it."""
    peer = Answering(status, body)
    thread = threading.Thread(target=peer.server.serve_forever, args=(0.05,))
    thread.start()
    client = Extender(f"http://127.0.0.1:{peer.server.server_address[1]}/v1", timeout=2)
    try:
        yield peer, client
    finally:
        client.close()
        peer.server.shutdown()
        peer.server.server_close()
        thread.join()


def test_filter_sends_names_and_keeps_its_connection() -> None:
    """The request has Go's field names; two calls use one connection."""
    with answering(b'{"NodeNames":["b"],"FailedNodes":null}') as (peer, client):
        for _ in range(2):
            assert client.filter({"metadata": {"name": "p"}}, ["a", "b"]).node_names == ("b",)
        path, asked = peer.asked[0]
        assert path == "/v1/filter"
        assert asked == {
            "Pod": {"metadata": {"name": "p"}},
            "Nodes": None,
            "NodeNames": ["a", "b"],
        }
        assert len(peer.connections) == 1


def test_refusals_of_both_kinds_are_told() -> None:
    """Failed and unresolvable nodes come back with their reasons; omitted ones have none."""
    body = b'{"FailedNodes":{"a":"x"},"FailedAndUnresolvableNodes":{"b":"y"}}'
    with answering(body) as (_, client):
        answer = client.filter({}, ["a", "b", "c"])
        refusals = [answer.refusal_of(name) for name in ("a", "b", "c")]
        assert [refusal.text for refusal in refusals][:2] == ["x", "y"]
        assert [refusal.resolvable for refusal in refusals] == [True, False, False]


def test_bind_names_the_pod_by_uid() -> None:
    """Bind sends what kube-scheduler sends."""
    with answering(b"{}") as (peer, client):
        client.bind("default", "p", "uid-1", "n1")
        expected = {
            "PodName": "p",
            "PodNamespace": "default",
            "PodUID": "uid-1",
            "Node": "n1",
        }
        assert peer.asked == [("/v1/bind", expected)]


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"Error":"no"}', 200, "filter: no"),
        (b"{}", 500, "status 500"),
        (b"garbage", 200, "unreadable"),
        (b'{"NodeNames":["z"]}', 200, "names z"),
    ],
)
def test_what_kube_scheduler_would_not_take_is_an_error(
    body: bytes, status: int, text: str
) -> None:
    """An Error, another status, garbage and a node that was not asked about are refused."""
    with answering(body, status) as (_, client), pytest.raises(ExtenderError, match=text):
        client.filter({}, ["a"])


def test_nobody_there_is_an_error_that_names_the_verb() -> None:
    """A dead extender is a failed try, not a crash."""
    with answering(b"{}") as (_, client):
        pass
    with pytest.raises(ExtenderError, match="bind:"):
        client.bind("default", "p", "1", "n1")
