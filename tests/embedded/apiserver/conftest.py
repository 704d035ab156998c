"""The verbs without HTTP, and a server with it; both on the same store code."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.apiserver import ApiServer
from embedded.apiserver.api import Api
from embedded.apiserver.store import Store
from runtime.kube import KubeClient, connect

NOW = "2026-11-23T10:00:00Z"


@pytest.fixture
def api() -> Api:
    """Put the verbs on an empty store at a fixed time."""
    return Api(Store(), now=lambda: NOW, rng=random.Random(1))


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Run a server on a free port, with a bookmark every 50 ms."""
    server = ApiServer(bookmark_seconds=0.05)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: ApiServer, tmp_path: Path) -> Iterator[KubeClient]:
    """Connect our client to the server."""
    client = connect(str(server.write_kubeconfig(tmp_path / "kubeconfig")))
    yield client
    client.close()


@pytest.fixture
def a_pod() -> Any:
    """Make the least that is a pod, with changes to its metadata and spec."""

    def make(name: str = "p", spec: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
        return {
            "metadata": {"name": name, **meta},
            "spec": {"containers": [{"name": "c"}], **(spec or {})},
        }

    return make
