"""A real API server over real sockets for every test; nothing in between is mocked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from embedded.apiserver import ApiServer
from runtime.kube import KubeClient, connect


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Run an API server on a free port, with a bookmark every 50 ms."""
    server = ApiServer(bookmark_seconds=0.05)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> str:
    """Write a kubeconfig that leads to the server."""
    return str(server.write_kubeconfig(tmp_path / "kubeconfig"))


@pytest.fixture
def client(kubeconfig: str) -> Iterator[KubeClient]:
    """Connect a client for threads."""
    client = connect(kubeconfig)
    yield client
    client.close()
