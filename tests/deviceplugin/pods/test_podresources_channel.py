"""kubelet's PodResources over its real socket, which comes and goes with kubelet."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from deviceplugin.errors import PodResourcesError
from deviceplugin.podresources.v1 import api_pb2, api_pb2_grpc
from deviceplugin.pods.holdings import PodResources, Reading


class Lister(api_pb2_grpc.PodResourcesListerServicer):
    """A node without pods, after so many refusals. The other calls are not made here."""

    def __init__(self, refusals: int = 0) -> None:
        self.refusals = refusals

    def List(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.ListPodResourcesRequest, context: grpc.ServicerContext
    ) -> api_pb2.ListPodResourcesResponse:
        """Show nothing, or refuse."""
        if self.refusals:
            self.refusals -= 1
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "rejected by rate limit")
        return api_pb2.ListPodResourcesResponse()

    Get = GetAllocatableResources = None  # type: ignore[assignment]  # see above


@pytest.fixture
def socket() -> Iterator[Path]:
    """Return a short path for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="gt"))
    yield folder / "kubelet.sock"
    shutil.rmtree(folder)


def _serve(socket: Path, lister: Lister | None = None) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(2))
    api_pb2_grpc.add_PodResourcesListerServicer_to_server(lister or Lister(), server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    return server


def test_a_kubelet_that_is_back_is_asked_at_once(socket: Path) -> None:
    """However often the socket was found dead, the first call to the new one succeeds."""
    asked = PodResources(str(socket))
    for _ in range(5):
        with pytest.raises(PodResourcesError, match="UNAVAILABLE"):
            asked.list(1)
        server = _serve(socket)
        assert asked.list(1) == Reading()
        server.stop(0).wait()
    asked.close()


def test_other_agents_may_use_up_the_rate(socket: Path) -> None:
    """A refusal by rate is tried again within the timeout, and then told."""
    lister = Lister(refusals=3)
    server = _serve(socket, lister)
    asked = PodResources(str(socket))
    assert asked.list(5) == Reading()
    lister.refusals = 1000
    with pytest.raises(PodResourcesError, match=r"rate limit|DEADLINE_EXCEEDED"):
        asked.list(0.1)
    asked.close()
    server.stop(0).wait()
