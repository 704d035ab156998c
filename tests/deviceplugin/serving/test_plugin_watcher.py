"""Registration by kubelet's plugin watcher: the whole plugin, a kubelet that looks for it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from deviceplugin.metrics import Metrics
from deviceplugin.pluginregistration.v1 import api_pb2, api_pb2_grpc
from deviceplugin.serving.listing import Listing
from deviceplugin.serving.plugin_watcher import WatchedRegistrar
from deviceplugin.serving.server import PluginServer
from deviceplugin.v1beta1 import api_pb2 as plugin_pb2
from deviceplugin.v1beta1 import api_pb2_grpc as plugin_grpc
from tests.deviceplugin.nodes import RESOURCE
from tests.deviceplugin.world import World
from tests.waiting import wait_until


@pytest.fixture
def world() -> Iterator[World]:
    """Return a node whose plugin lies in plugins_registry, and runs."""
    world = World()
    world.options["plugins_registry_dir"] = str(world.kubelet.plugins_registry_dir)
    world.start_plugin()
    yield world
    world.close()


def sockets_in(folder: Path) -> list[str]:
    """Return the names of our sockets in a folder."""
    return sorted(one.name for one in folder.iterdir() if one.name.startswith("gputopo-"))


def test_kubelet_comes_by_itself(world: World) -> None:
    """No call of ours, no socket in the other folder; pods get their sets as ever."""
    assert len(sockets_in(world.kubelet.plugins_registry_dir)) == 1
    assert sockets_in(world.kubelet.device_plugins_dir) == []
    world.bind("a", 3, (0, 3, 7))
    assert world.sees("a") == {0, 3, 7}
    assert world.metric('gputopo_plugin_registrations_total{cause="start",result="ok"}') == 1


def test_a_restarted_kubelet_finds_the_same_socket(world: World) -> None:
    """Its folder is not wiped: the plugin does nothing at all."""
    before = sockets_in(world.kubelet.plugins_registry_dir)
    world.kubelet.stop()
    wait_until(lambda: world.probe("readyz"), what="the stream ends")
    world.kubelet.start()
    wait_until(lambda: world.probe("readyz") is None, what="kubelet is back")
    wait_until(lambda: world.allocatable() == "8", what="8 GPUs")
    assert sockets_in(world.kubelet.plugins_registry_dir) == before
    restarted = 'gputopo_plugin_registrations_total{cause="kubelet_socket",result="ok"}'
    assert world.metric(restarted) == 1


def test_a_socket_that_somebody_deletes_is_made_anew(world: World) -> None:
    """With another name, and kubelet takes that one."""
    folder = world.kubelet.plugins_registry_dir
    (before,) = sockets_in(folder)
    (folder / before).unlink()
    wait_until(lambda: sockets_in(folder) not in ([], [before]), what="another socket")
    wait_until(lambda: world.probe("readyz") is None, what="readiness")
    wait_until(lambda: world.allocatable() == "8", what="8 GPUs")


def test_nothing_stays_behind(world: World) -> None:
    """The socket goes with the plugin; one that a killed process left is swept at the start."""
    folder = world.kubelet.plugins_registry_dir
    world.stop_plugin()
    assert sockets_in(folder) == []
    assert world.codes == [0]


class Silent(plugin_grpc.DevicePluginServicer):
    """A plugin that nobody asks anything."""


class Alone:
    """A registrar without kubelet, whose steps are made by hand at times of its own."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.listing = Listing(plugin_pb2.ListAndWatchResponse(), lambda: None)
        self.metrics = Metrics()
        self.registrar = WatchedRegistrar(
            folder=folder,
            resource=RESOURCE,
            listing=self.listing,
            serve=lambda path, introduction: PluginServer(path, Silent(), introduction),
            metrics=self.metrics,
            patience=3.0,
            clock=lambda: self.now,
        )

    def name(self, now: float) -> str:
        """Make a step at a time; return the name of the socket then."""
        self.now = now
        self.registrar._step()
        assert self.registrar.server is not None
        return self.registrar.server.path.name.rpartition("-")[2]


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Return a folder whose path leaves room for a socket's name: 107 bytes in all."""
    with tempfile.TemporaryDirectory(prefix="gt-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def alone(short_path: Path) -> Iterator[Alone]:
    """Return a registrar that nobody comes to."""
    alone = Alone(short_path)
    yield alone
    if alone.registrar.server is not None:
        alone.registrar.server.stop()


def test_a_stream_that_ends_for_good_wants_a_new_socket(alone: Alone) -> None:
    """After some seconds: kubelet never asks an old socket again, but may only be restarting."""
    assert alone.name(0) == "1.sock"
    stream = alone.listing.open()
    assert alone.name(1) == "1.sock"
    assert alone.registrar.registered
    alone.listing.end(stream)
    assert alone.name(100) == "1.sock"
    assert alone.name(102) == "1.sock"
    assert alone.name(103.1) == "2.sock"


def test_the_pauses_grow_while_nobody_comes(alone: Alone) -> None:
    """A node without kubelet is not littered with sockets."""
    names = [alone.name(now) for now in (0, 3, 6, 9, 14, 21)]
    assert names == ["1.sock", "2.sock", "2.sock", "3.sock", "3.sock", "4.sock"]


def test_it_introduces_itself(alone: Alone) -> None:
    """Kind, resource, version, and no endpoint: it is this socket; a refusal is told on."""
    alone.name(0)
    assert alone.registrar.server is not None
    with grpc.insecure_channel(f"unix:{alone.registrar.server.path}") as channel:
        stub = api_pb2_grpc.RegistrationStub(channel)
        info = stub.GetInfo(api_pb2.InfoRequest(), timeout=5)
        assert (info.type, info.name, info.endpoint) == ("DevicePlugin", RESOURCE, "")
        assert list(info.supported_versions) == ["v1beta1"]
        stub.NotifyRegistrationStatus(
            api_pb2.RegistrationStatus(plugin_registered=False, error="not today"), timeout=5
        )
    assert alone.registrar.problem == "kubelet refuses: not today"
    failed = {"cause": "start", "result": "failed"}
    name = "gputopo_plugin_registrations_total"
    assert alone.metrics.registry.get_sample_value(name, failed) == 1


def test_a_folder_that_is_not_there_is_a_problem(short_path: Path) -> None:
    """Told by the readiness probe, tried again."""
    alone = Alone(short_path / "nowhere")
    assert alone.registrar._step() > 0
    assert "no socket can be made there" in alone.registrar.problem
