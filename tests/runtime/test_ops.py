"""The port for probes and Prometheus, over real HTTP."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from runtime.ops import EVERYWHERE, OpsServer


class Daemon:
    """What the checks ask."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.ill: str | None = None
        self.unready: str | None = "inventory is not synced"
        self.server = OpsServer(
            "127.0.0.1", registry=self.registry, healthy=self._health, ready=lambda: self.unready
        )

    def _health(self) -> str | None:
        if self.ill == "raise":
            raise RuntimeError("no idea")
        return self.ill

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Ask the server over a new connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=5)
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, body


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """Run a daemon with a running ops server."""
    daemon = Daemon()
    daemon.server.start()
    yield daemon
    daemon.server.stop()


def test_a_check_without_a_reason_is_ok(daemon: Daemon) -> None:
    """None is 200."""
    assert daemon.ask("/healthz") == (200, "ok\n")


def test_a_reason_is_503_and_said(daemon: Daemon) -> None:
    """Text is 503 with the text, and 200 again once it is gone."""
    assert daemon.ask("/readyz") == (503, "inventory is not synced\n")
    daemon.unready = None
    assert daemon.ask("/readyz?verbose") == (200, "ok\n")


def test_a_check_that_raises_is_503(daemon: Daemon) -> None:
    """A broken check is a reason, not a broken connection."""
    daemon.ill = "raise"
    assert daemon.ask("/healthz") == (503, "the check itself failed: no idea\n")


def test_metrics_are_served_in_the_asked_form(daemon: Daemon) -> None:
    """Prometheus gets its text form, and OpenMetrics when it asks for it."""
    Counter("binds", "Pods bound.", registry=daemon.registry).inc()
    status, text = daemon.ask("/metrics")
    assert (status, "binds_total 1.0" in text, "# EOF" in text) == (200, True, False)
    assert "# EOF" in daemon.ask("/metrics", Accept="application/openmetrics-text")[1]


def test_head_has_no_body(daemon: Daemon) -> None:
    """HEAD answers with the status alone."""
    assert daemon.ask("/readyz", "HEAD") == (503, "")


def test_other_paths_are_404(daemon: Daemon) -> None:
    """The answer says what there is."""
    status, text = daemon.ask("/")
    assert (status, "/metrics" in text) == (404, True)


def test_a_taken_port_is_an_error(daemon: Daemon) -> None:
    """Starting on a port that is in use raises OSError at once."""
    second = OpsServer("127.0.0.1", daemon.server.port, registry=CollectorRegistry())
    with pytest.raises(OSError, match="in use"):
        second.start()


def test_stop_closes_the_port_and_may_be_repeated(daemon: Daemon) -> None:
    """After stop nobody listens."""
    port = daemon.server.port
    daemon.server.stop()
    daemon.server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_everywhere_is_every_address_of_both_families(address: str) -> None:
    """A kubelet probes a pod at its address, which may be of either family."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = OpsServer(EVERYWHERE, registry=CollectorRegistry())
    server.start()
    try:
        with socket.socket(family) as probe:
            try:
                probe.bind((address, 0))
            except OSError:
                pytest.skip(f"this machine has no address {address}")
        connection = http.client.HTTPConnection(address, server.port, timeout=5)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.stop()


def test_without_ipv6_everywhere_is_every_ipv4_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that was started without IPv6 has no socket of that family."""
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    server = OpsServer(EVERYWHERE, registry=CollectorRegistry())
    port = server.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/healthz")
        assert connection.getresponse().status == 200
        connection.close()
    finally:
        server.stop()
