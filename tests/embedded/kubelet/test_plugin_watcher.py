"""The plugin watcher: who is taken, who is asked again, and when."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from deviceplugin.pluginregistration.v1 import api_pb2, api_pb2_grpc
from embedded.kubelet.endpoint import PluginConnection
from embedded.kubelet.errors import PluginError
from embedded.kubelet.journal import Journal
from embedded.kubelet.plugin_watcher import PluginWatcher


class Plugin(api_pb2_grpc.RegistrationServicer):
    """A plugin that introduces itself, and remembers what it was told."""

    def __init__(self, path: Path, **info: Any) -> None:
        self.info = {
            "type": "DevicePlugin",
            "name": "nvidia.com/gpu",
            "supported_versions": ["v1beta1"],
            **info,
        }
        self.told: list[tuple[bool, str]] = []
        self.server = grpc.server(ThreadPoolExecutor(2))
        api_pb2_grpc.add_RegistrationServicer_to_server(self, self.server)
        self.server.add_insecure_port(f"unix:{path}")
        self.server.start()

    def GetInfo(self, request: Any, context: Any) -> api_pb2.PluginInfo:  # noqa: N802 -- kubelet's name
        """Introduce itself."""
        return api_pb2.PluginInfo(**self.info)

    def NotifyRegistrationStatus(  # noqa: N802 -- kubelet's name
        self, request: Any, context: Any
    ) -> api_pb2.RegistrationStatusResponse:
        """Hear the verdict."""
        self.told.append((request.plugin_registered, request.error))
        return api_pb2.RegistrationStatusResponse()


class World:
    """A folder and a watcher of it; `refusals` is how often the next registrations fail."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gt-"))
        self.registered: list[tuple[str, Path]] = []
        self.refusals = 0
        self.plugins: list[Plugin] = []
        self.watcher = PluginWatcher(self.folder, self.register, Journal(lambda: 0.0))

    def register(self, resource: str, socket: Path) -> None:
        """Take a plugin, or refuse it."""
        if self.refusals:
            self.refusals -= 1
            raise PluginError("the plugin does not answer")
        self.registered.append((resource, socket))

    def plugin(self, name: str = "a.sock", **info: Any) -> Plugin:
        """Start a plugin."""
        self.plugins.append(Plugin(self.folder / name, **info))
        return self.plugins[-1]


@pytest.fixture
def world() -> Iterator[World]:
    """Return an empty folder with its watcher."""
    world = World()
    yield world
    for plugin in world.plugins:
        plugin.server.stop(0).wait()
    shutil.rmtree(world.folder)


def test_a_plugin_is_taken_once(world: World) -> None:
    """And told so; the same socket is never asked again, one that is made anew is."""
    plugin = world.plugin()
    world.watcher.look()
    world.watcher.look()
    assert world.registered == [("nvidia.com/gpu", world.folder / "a.sock")]
    assert plugin.told == [(True, "")]
    plugin.server.stop(0).wait()
    world.watcher.look()
    world.plugin()
    world.watcher.look()
    assert len(world.registered) == 2


def test_the_endpoint_may_be_another_socket(world: World) -> None:
    """An empty one is the socket that was found."""
    world.plugin(endpoint="/somewhere/else.sock")
    world.watcher.look()
    assert world.registered == [("nvidia.com/gpu", Path("/somewhere/else.sock"))]


@pytest.mark.parametrize(
    ("info", "problem"),
    [
        ({"type": "DRAPlugin"}, "no handler registered for plugin type: DRAPlugin"),
        ({"supported_versions": ["v2"]}, "plugin validation failed: versions ['v2']"),
    ],
)
def test_who_does_not_fit_is_told_so(world: World, info: dict[str, Any], problem: str) -> None:
    """And not registered."""
    plugin = world.plugin(**info)
    world.watcher.look()
    assert world.registered == []
    ((taken, told),) = plugin.told
    assert not taken
    assert told.startswith(problem)


def test_a_failure_is_tried_again_after_a_pause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer each time; a plugin needs to do nothing."""
    now = [100.0]
    monkeypatch.setattr("embedded.kubelet.plugin_watcher.time.monotonic", lambda: now[0])
    world.refusals = 2
    plugin = world.plugin()
    for moment in (100.0, 100.4, 100.6, 101.4, 101.7):
        now[0] = moment
        world.watcher.look()
    assert [taken for taken, _ in plugin.told] == [False, False, True]


def test_what_is_no_socket_of_a_plugin_is_passed_over(world: World) -> None:
    """Files, hidden sockets, and a folder that is not there."""
    (world.folder / "file.sock").write_text("")
    world.plugin(".hidden.sock")
    world.watcher.look()
    assert world.registered == []
    PluginWatcher(world.folder / "nowhere", world.register, Journal(lambda: 0.0)).look()


def test_a_connection_that_was_closed_meanwhile_follows_nothing(tmp_path: Path) -> None:
    """An older one may end it between dial-back and stream: no thread dies of that."""
    connection = PluginConnection("nvidia.com/gpu", tmp_path / "a.sock")
    connection.close()

    class Nobody:
        """Takes no list."""

        def listed(self, resource: str, devices: Any) -> None:
            """Be told."""
            raise AssertionError(resource)

    assert connection.follow(Nobody()) == "closed"
