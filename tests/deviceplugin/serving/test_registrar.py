"""Registration against a kubelet on real sockets: every way in which it can go away."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from deviceplugin.errors import RegistrationError
from deviceplugin.metrics import Metrics
from deviceplugin.serving import sockets
from deviceplugin.serving.listing import Listing, list_devices
from deviceplugin.serving.registrar import Registrar
from deviceplugin.serving.server import PluginServer, ask_options
from deviceplugin.v1beta1 import api_pb2, api_pb2_grpc
from tests.deviceplugin.nodes import RESOURCE, machine, stock_of
from tests.waiting import wait_until


class Lister(api_pb2_grpc.DevicePluginServicer):
    """The plugin's side, as far as registration needs it."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing

    def GetDevicePluginOptions(self, request: Any, context: Any) -> api_pb2.DevicePluginOptions:  # noqa: N802 -- kubelet's name
        """Answer the dial-back."""
        return api_pb2.DevicePluginOptions(get_preferred_allocation_available=True)

    def ListAndWatch(  # noqa: N802 -- kubelet's name
        self, request: Any, context: grpc.ServicerContext
    ) -> Iterator[api_pb2.ListAndWatchResponse]:
        """Stream the list."""
        stream = self.listing.open()
        context.add_callback(lambda: self.listing.end(stream))
        return iter(stream)


class FakeKubelet(api_pb2_grpc.RegistrationServicer):
    """kubelet's registration: dials back inside Register, watches, forgets at the stream's end.

    `refusals` is how many registrations it refuses first, `watches` whether it opens the stream.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[api_pb2.RegisterRequest] = []
        self.refusals = 0
        self.failed_dials = 0
        self.watches = True
        self.lists: list[list[str]] = []
        self._channels: list[grpc.Channel] = []
        self._server: grpc.Server | None = None

    def start(self) -> None:
        """Delete every socket in the folder, as kubelet does, and serve."""
        for path in self.folder.iterdir():
            if path.is_socket():
                path.unlink()
        self._server = grpc.server(ThreadPoolExecutor(4))
        api_pb2_grpc.add_RegistrationServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self.folder}/kubelet.sock")
        self._server.start()

    def stop(self) -> None:
        """End all connections; the socket goes too."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None
        self.hang_up()

    def hang_up(self) -> None:
        """End the streams while the sockets stay."""
        channels, self._channels = self._channels, []
        for channel in channels:
            channel.close()

    def Register(  # noqa: N802 -- kubelet's name
        self, request: api_pb2.RegisterRequest, context: grpc.ServicerContext
    ) -> api_pb2.Empty:
        """Dial back, then answer."""
        if self.refusals:
            self.refusals -= 1
            context.abort(grpc.StatusCode.INTERNAL, "not now")
        if not ask_options(self.folder / request.endpoint, 5):
            self.failed_dials += 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "cannot dial back")
        # Noted before the stream opens: who sees the stream finds the request here.
        watches = self.watches
        self.requests.append(request)
        if watches:
            channel = grpc.insecure_channel(f"unix:{self.folder}/{request.endpoint}")
            self._channels.append(channel)
            stream = api_pb2_grpc.DevicePluginStub(channel).ListAndWatch(api_pb2.Empty())
            threading.Thread(target=self._watch, args=(stream,), daemon=True).start()
        return api_pb2.Empty()

    def _watch(self, stream: Any) -> None:
        try:
            for message in stream:
                self.lists.append([device.ID for device in message.devices])
        except grpc.RpcError:
            pass


class World:
    """A folder with a kubelet and a registrar."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kubelet = FakeKubelet(folder)
        self.metrics = Metrics()
        self.ready = threading.Event()
        self.ready.set()
        resource = stock_of(machine(2)).resource(RESOURCE)
        self.listing = Listing(list_devices(resource, numa_hints=True), self._wake)
        self.sweeps = 0
        self._servicer = Lister(self.listing)
        self.registrar = Registrar(
            folder=folder,
            resource=RESOURCE,
            listing=self.listing,
            serve=self._serve,
            metrics=self.metrics,
            ready=self.ready.is_set,
            poll_seconds=0.02,
            stream_timeout=0.2,
        )
        self._thread = threading.Thread(target=self.registrar.run)

    def start(self) -> None:
        """Start the registrar and wait until kubelet watches."""
        self._thread.start()
        wait_until(lambda: self.registrar.registered, what="the first registration")

    def _serve(self, path: Path) -> PluginServer:
        server = PluginServer(path, self._servicer)
        if self.sweeps:
            self.sweeps -= 1
            path.unlink()
        return server

    def run(self) -> None:
        """Start the registrar."""
        self._thread.start()

    def stop(self) -> None:
        """End the registrar, then kubelet."""
        self.registrar.stop()
        if self._thread.ident is not None:
            self._thread.join(10)
        self.kubelet.stop()

    def own_sockets(self) -> list[Path]:
        """Return the plugin's sockets that exist."""
        return sorted(self.folder.glob("gputopo-*.sock"))

    def count(self, cause: str, result: str = "ok") -> float:
        """Return how often the plugin registered for this cause."""
        labels = {"cause": cause, "result": result}
        value = self.metrics.registry.get_sample_value("gputopo_plugin_registrations_total", labels)
        return value or 0

    def _wake(self) -> None:
        self.registrar.wake()


@pytest.fixture
def world() -> Iterator[World]:
    """Return a world whose paths are short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="gt-"))
    world = World(folder)
    yield world
    world.stop()
    shutil.rmtree(folder)


def test_register_says_what_kubelet_needs(world: World) -> None:
    """Register names version, the socket's base name, the resource and the preference option."""
    world.kubelet.start()
    world.start()
    request = world.kubelet.requests[0]
    assert request.version == "v1beta1"
    assert request.resource_name == RESOURCE
    assert request.options.get_preferred_allocation_available
    assert [path.name for path in world.own_sockets()] == [request.endpoint]
    wait_until(lambda: world.kubelet.lists == [["g0", "g1"]], what="the device list")


def test_a_kubelet_that_restarts_is_registered_with_again(world: World) -> None:
    """Sockets wiped, kubelet.sock new: the plugin serves a new socket and registers it."""
    world.kubelet.start()
    world.start()
    world.kubelet.stop()
    wait_until(lambda: not world.registrar.registered, what="the loss to be noticed")
    world.kubelet.start()
    wait_until(lambda: world.registrar.registered, what="the new registration")
    first, last = world.kubelet.requests[0], world.kubelet.requests[-1]
    assert first.endpoint != last.endpoint
    assert [path.name for path in world.own_sockets()] == [last.endpoint]


def test_a_kubelet_that_comes_late_is_waited_for(world: World) -> None:
    """Without kubelet.sock nothing is served or tried; its creation starts everything."""
    world.run()
    wait_until(lambda: "kubelet.sock" in world.registrar.problem, what="the registrar to look")
    assert world.own_sockets() == []
    world.kubelet.start()
    wait_until(lambda: world.registrar.registered, what="the registration")


def test_an_ended_stream_leads_to_a_registration_on_the_same_socket(world: World) -> None:
    """Kubelet forgets a plugin whose stream ends: it registers again with what it has."""
    world.kubelet.start()
    world.start()
    world.kubelet.hang_up()
    wait_until(lambda: world.count("stream_ended") >= 1, what="a registration")
    wait_until(lambda: world.registrar.registered, what="a new stream")
    assert len({request.endpoint for request in world.kubelet.requests}) == 1


def test_a_deleted_own_socket_is_made_anew(world: World) -> None:
    """Somebody deletes the plugin's socket: a new one is served and registered."""
    world.kubelet.start()
    world.start()
    world.own_sockets()[0].unlink()
    wait_until(lambda: world.count("own_socket") == 1, what="a registration")
    wait_until(lambda: world.registrar.registered, what="a new stream")
    assert [path.name for path in world.own_sockets()] == [world.kubelet.requests[-1].endpoint]


def test_a_socket_that_was_swept_away_is_never_registered(world: World) -> None:
    """What a starting kubelet deleted just now is made anew: it would dial back for 10 s."""
    world.sweeps = 2
    world.kubelet.start()
    world.start()
    (request,) = world.kubelet.requests
    assert [path.name for path in world.own_sockets()] == [request.endpoint]
    assert world.kubelet.failed_dials == 0


def test_a_recreated_kubelet_socket_alone_is_enough(world: World) -> None:
    """Another file at kubelet.sock means another kubelet, though the stream still lives."""
    world.kubelet.start()
    world.start()
    path = world.folder / "kubelet.sock"
    path.rename(world.folder / "away.sock")
    other = FakeKubelet(world.folder)
    server = grpc.server(ThreadPoolExecutor(4))
    api_pb2_grpc.add_RegistrationServicer_to_server(other, server)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    wait_until(lambda: other.requests, what="a registration with the new kubelet")
    wait_until(lambda: world.count("kubelet_socket") == 1, what="its count")
    server.stop(0).wait()
    other.hang_up()


def test_a_refused_registration_is_tried_again(world: World) -> None:
    """Refusals are counted and tried again with back-off until one is accepted."""
    world.kubelet.refusals = 3
    world.kubelet.start()
    world.start()
    assert world.count("start", "failed") == 1
    assert world.count("retry", "failed") == 2
    wait_until(lambda: world.count("retry") == 1, what="the count of the accepted one")
    assert world.registrar.problem == ""


def test_a_stream_that_never_opens_leads_to_a_registration(world: World) -> None:
    """A kubelet that accepts and then does not watch is asked again."""
    world.kubelet.watches = False
    world.kubelet.start()
    world.run()
    wait_until(lambda: len(world.kubelet.requests) == 1, what="the first registration")
    assert not world.registrar.registered
    world.kubelet.watches = True
    wait_until(lambda: world.registrar.registered, what="a stream")
    # The stream opens inside Register; the count comes when that has returned.
    wait_until(lambda: world.count("stream_missing") >= 1, what="the count")


def test_nothing_is_advertised_before_there_is_something(world: World) -> None:
    """While NVML does not work the plugin does not register: no zombie node."""
    world.ready.clear()
    world.kubelet.start()
    world.run()
    assert world.own_sockets() == []
    assert not world.kubelet.requests
    world.ready.set()
    wait_until(lambda: world.registrar.registered, what="the registration")


def test_stopping_removes_the_socket(world: World) -> None:
    """After a stop no socket of ours is left and kubelet sees the stream end."""
    world.kubelet.start()
    world.start()
    world.registrar.stop()
    wait_until(lambda: not world.own_sockets(), what="the socket to go")
    wait_until(lambda: world.listing.active == 0, what="the stream's end")


def test_sockets_of_dead_processes_are_swept_at_start(world: World) -> None:
    """A former process's socket goes; one that still answers, and foreign files, stay."""
    dead = world.folder / sockets.own_name(1, "00c0ffee", 1)
    alive = world.folder / sockets.own_name(1, "0badcafe", 1)
    foreign = world.folder / "nvidia-gpu.sock"
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.bind(str(dead))
        two.bind(str(foreign))
    server = PluginServer(alive, Lister(world.listing))
    assert sockets.sweep(world.folder) == (dead.name,)
    assert not dead.exists()
    assert alive.exists()
    assert foreign.exists()
    server.stop()


def test_a_path_too_long_for_a_socket_is_said_so(tmp_path: Path) -> None:
    """A folder too deep for a unix socket is one clear error."""
    deep = tmp_path / ("d" * 60) / ("e" * 60) / "p.sock"
    listing = Listing(api_pb2.ListAndWatchResponse())
    with pytest.raises(RegistrationError, match="107 bytes"):
        PluginServer(deep, Lister(listing))


def test_a_missing_folder_is_an_error(world: World) -> None:
    """A socket cannot be made in a folder that is not there."""
    with pytest.raises(RegistrationError, match="nowhere"):
        PluginServer(world.folder / "nowhere" / "p.sock", Lister(world.listing))


def test_a_server_knows_whether_it_answers(world: World) -> None:
    """Liveness is a call on the own socket, which fails once the server is gone."""
    path = world.folder / "p.sock"
    server = PluginServer(path, Lister(world.listing))
    assert server.answers()
    server.stop()
    assert not ask_options(path, 0.2)
    assert not path.exists()


def test_names_differ_from_process_to_process() -> None:
    """Kubelets after 1.36 tell instances by the file name; in containers the pid is always 1."""
    assert sockets.own_name(1, sockets.new_token(), 1) != sockets.own_name(
        1, sockets.new_token(), 1
    )


def test_a_file_is_told_from_its_successor(tmp_path: Path) -> None:
    """The identity of a path changes when the file is another, and is None without one."""
    path = tmp_path / "x"
    assert sockets.identify(path) is None
    path.write_text("a")
    first = sockets.identify(path)
    path.unlink()
    path.write_text("b")
    assert sockets.identify(path) != first
