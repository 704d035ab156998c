"""Asking the API server for the Node's labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deviceplugin.config.node_label import PATIENCE, NodeLabel
from embedded.apiserver import ApiServer
from runtime.errors import SettingsError
from runtime.kube import KubeClient, connect
from tests.deviceplugin.nodes import FakeClock

LABEL = "nvidia.com/device-plugin.config"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Return an API server."""
    server = ApiServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: ApiServer, tmp_path: Path) -> Iterator[KubeClient]:
    """Return a client, with a node n1 whose label asks for `a`."""
    client = connect(str(server.write_kubeconfig(tmp_path / "kubeconfig")))
    client.post("/api/v1/nodes", {"metadata": {"name": "n1", "labels": {LABEL: "a"}}})
    yield client
    client.close()


def test_the_label_is_asked_for_again_after_a_while(client: KubeClient, tmp_path: Path) -> None:
    """Within the period the last answer stands; then a changed label is seen."""
    clock = FakeClock()
    label = NodeLabel(str(tmp_path / "kubeconfig"), "n1", period=5, clock=clock)
    assert label() == "a"
    client.patch("/api/v1/nodes/n1", {"metadata": {"labels": {LABEL: "b"}}})
    clock.now += 4
    assert label() == "a"
    clock.now += 2
    assert label() == "b"


def test_a_server_that_goes_away_changes_nothing(
    client: KubeClient, server: ApiServer, tmp_path: Path
) -> None:
    """What was read stays until another answer comes."""
    clock = FakeClock()
    label = NodeLabel(str(tmp_path / "kubeconfig"), "n1", period=5, clock=clock)
    assert label() == "a"
    server.go_away()
    clock.now += 10
    assert label() == "a"
    server.come_back()


def test_the_first_answer_is_waited_for(client: KubeClient, tmp_path: Path) -> None:
    """A node that is not there yet is asked for again, and told of in the end."""
    clock, slept = FakeClock(), list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock.now += seconds
        if len(slept) == 3:
            client.post("/api/v1/nodes", {"metadata": {"name": "n2", "labels": {LABEL: "c"}}})

    path = str(tmp_path / "kubeconfig")
    assert NodeLabel(path, "n2", clock=clock, sleep=sleep)() == "c"
    assert len(slept) == 3
    with pytest.raises(SettingsError, match="the labels of node n3"):
        NodeLabel(path, "n3", clock=clock, sleep=lambda seconds: _pass(clock, seconds))()


def _pass(clock: FakeClock, seconds: float) -> None:
    clock.now += seconds * PATIENCE
