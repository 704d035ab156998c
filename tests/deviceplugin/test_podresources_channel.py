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
from deviceplugin.holdings import Holdings, PodResources
from deviceplugin.podresources.v1 import api_pb2, api_pb2_grpc
from tests.deviceplugin.nodes import RESOURCE


class Lister(api_pb2_grpc.PodResourcesListerServicer):
    """A node without pods. The other calls are not made here."""

    def List(  # noqa: N802 -- the RPC's name
        self, request: api_pb2.ListPodResourcesRequest, context: grpc.ServicerContext
    ) -> api_pb2.ListPodResourcesResponse:
        """Show nothing."""
        return api_pb2.ListPodResourcesResponse()

    Get = GetAllocatableResources = None  # type: ignore[assignment]  # see above


@pytest.fixture
def socket() -> Iterator[Path]:
    """Return a short path for a socket."""
    folder = Path(tempfile.mkdtemp(prefix="gt"))
    yield folder / "kubelet.sock"
    shutil.rmtree(folder)


def _serve(socket: Path) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(2))
    api_pb2_grpc.add_PodResourcesListerServicer_to_server(Lister(), server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    return server


def test_a_kubelet_that_is_back_is_asked_at_once(socket: Path) -> None:
    """However often the socket was found dead, the first call to the new one succeeds."""
    asked = PodResources(str(socket), RESOURCE)
    for _ in range(5):
        with pytest.raises(PodResourcesError, match="UNAVAILABLE"):
            asked.list(1)
        server = _serve(socket)
        assert asked.list(1) == Holdings()
        server.stop(0).wait()
    asked.close()
