"""The whole plugin: real sockets, a kubelet, an API server, unmodified pynvml."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import msgspec
import pytest

from deviceplugin.config.source import ConfigReader, OneFile
from deviceplugin.main import run
from deviceplugin.settings import PluginSettings
from embedded.apiserver import ApiServer
from embedded.kubelet import ContainerView, Kubelet
from embedded.ports import free_port
from mock_nvml import MockNvml, write_proc, write_sysfs
from runtime.errors import ConflictError
from runtime.kube import connect
from runtime.objects import Node
from tests.deviceplugin.nodes import RESOURCE
from tests.waiting import wait_until
from topology.catalogue import load_machine
from topology.model import NodeTopology
from topology.wire import (
    ASSIGNMENT_KEY,
    STATE_KEY,
    TOPOLOGY_KEY,
    Assignment,
    NodeState,
    decode_state,
    decode_topology,
    encode_assignment,
)


class World:
    """A node: API server, kubelet, a machine behind pynvml, and the plugin in a thread.

    `config` is the text of a configuration file that the plugin follows, None for none. `options`
    are further settings.
    """

    def __init__(self, machine_name: str = "dgx1-v100", config: str | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gt-"))
        self.api = ApiServer()
        self.api.start()
        self.kubeconfig = self.api.write_kubeconfig(self.folder / "kubeconfig")
        self.client = connect(str(self.kubeconfig))
        self.kubelet = Kubelet("n1", self.folder, self.client, status_period=0.05)
        self.kubelet.start()
        machine = load_machine(machine_name)
        self.mock = MockNvml(machine, seed="n1")
        self.mock.install()
        write_sysfs(machine, self.folder / "sys", seed="n1")
        write_proc(machine, self.folder / "proc")
        (self.folder / "dev").mkdir()
        self.config = self.folder / "config.yaml"
        if config is not None:
            self.config.write_text(config)
        self.port = free_port()
        self.options: dict[str, Any] = {}
        self.codes: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread()

    def start_plugin(self) -> None:
        """Start a plugin and wait until it is ready and its GPUs can be scheduled."""
        self.run_plugin()
        wait_until(lambda: self.probe("readyz") is None, what="readiness")
        wait_until(lambda: self.allocatable() == "8", what="8 GPUs in node.status")
        wait_until(lambda: STATE_KEY in self.annotations(), what="the state")

    def run_plugin(self) -> None:
        """Start a plugin."""
        options = {
            "node_name": "n1",
            "kubeconfig": str(self.kubeconfig),
            "device_plugins_dir": str(self.kubelet.device_plugins_dir),
            "pod_resources_socket": str(self.kubelet.pod_resources_socket),
            "sysfs_root": str(self.folder / "sys"),
            "proc_root": str(self.folder / "proc"),
            "dev_root": str(self.folder),
            "cdi_dir": str(self.folder / "cdi"),
            "config_poll_seconds": 0.05,
            "ops_host": "127.0.0.1",
            "ops_port": self.port,
            "probe_seconds": 0.1,
            "recovery_hold_seconds": 0.3,
            "reinit_seconds": 0.2,
            "publish_seconds": 0.05,
            "read_back_seconds": 0.5,
        }
        settings = PluginSettings.model_validate(options | self.options)
        reader = ConfigReader(OneFile(self.config)) if self.config.exists() else None
        self._stop = threading.Event()
        self._thread = threading.Thread(
            target=lambda: self.codes.append(run(settings, config=reader, stop=self._stop))
        )
        self._thread.start()

    def stop_plugin(self) -> None:
        """Ask the plugin to stop, and wait."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(15)

    def close(self) -> None:
        """End everything."""
        self.stop_plugin()
        self.kubelet.stop()
        self.client.close()
        self.api.stop()
        self.mock.uninstall()
        shutil.rmtree(self.folder)

    def probe(self, path: str) -> str | None:
        """Return why a probe fails, None if it does not."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5) as answer:
                answer.read()
        except HTTPError as error:
            return error.read().decode()
        except OSError as error:
            return str(error)
        return None

    def annotations(self) -> dict[str, str]:
        """Return the Node's annotations."""
        return self._node().metadata.annotations or {}

    def allocatable(self, resource: str = RESOURCE) -> str:
        """Return how many devices of a resource kubelet offers."""
        return (self._node().status.allocatable or {}).get(resource, "0")

    def state(self) -> NodeState:
        """Return the published state."""
        return decode_state(self.annotations()[STATE_KEY])

    def topology(self) -> NodeTopology:
        """Return the published topology."""
        return decode_topology(self.annotations()[TOPOLOGY_KEY])

    def bind(
        self,
        name: str,
        count: int,
        indexes: tuple[int, ...] | None,
        resource: str = RESOURCE,
        **annotations: str,
    ) -> str:
        """Make a pod and bind it here, with a set or without; return its UID."""
        limits = {resource: str(count)}
        body = {
            "metadata": {"name": name, "namespace": "d", "annotations": annotations},
            "spec": {"containers": [{"name": "c", "image": "x", "resources": {"limits": limits}}]},
        }
        made = msgspec.json.decode(self.client.post("/api/v1/namespaces/d/pods", body))
        uid = str(made["metadata"]["uid"])
        promised = {}
        if indexes is not None:
            uuids = tuple(self.topology().gpus[index].uuid for index in indexes)
            promised[ASSIGNMENT_KEY] = encode_assignment(Assignment({"c": uuids}))
        binding = {
            "metadata": {"name": name, "namespace": "d", "uid": uid, "annotations": promised},
            "target": {"kind": "Node", "name": "n1"},
        }
        self.client.post(f"/api/v1/namespaces/d/pods/{name}/binding", binding)
        return uid

    def container(self, name: str) -> ContainerView:
        """Wait until a pod's container has started; return what it saw."""
        wait_until(lambda: self._started(name), what=f"{name} to start")
        return self._started(name)[0]

    def sees(self, name: str) -> set[int]:
        """Return the GPUs that a pod's container was told of."""
        where = self.topology().position_of()
        visible = self.container(name).env["NVIDIA_VISIBLE_DEVICES"]
        return {where[uuid] for uuid in visible.split(",")}

    def phase(self, name: str) -> tuple[str, str]:
        """Return a pod's phase and message."""
        pod = msgspec.json.decode(self.client.get(f"/api/v1/namespaces/d/pods/{name}"))
        return pod["status"].get("phase", ""), pod["status"].get("message", "")

    def metric(self, line: str) -> float:
        """Return the value of a series as /metrics writes it."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            for text in answer.read().decode().splitlines():
                if text.startswith(line + " "):
                    return float(text.rsplit(" ", 1)[1])
        raise AssertionError(f"no series {line}")

    def _started(self, name: str) -> list[ContainerView]:
        return [view for view in self.kubelet.containers() if view.pod == name]

    def _node(self) -> Node:
        return msgspec.json.decode(self.client.get("/api/v1/nodes/n1"), type=Node)


@pytest.fixture
def world() -> Iterator[World]:
    """Return a node on which no plugin runs yet."""
    world = World()
    yield world
    world.close()


def test_a_pod_gets_exactly_its_set(world: World) -> None:
    """From Binding to environment: each container sees the set that its pod was bound with."""
    world.start_plugin()
    sets = {"a": (1, 6), "b": (0, 3, 5), "c": (2,)}
    uids = {name: world.bind(name, len(indexes), indexes) for name, indexes in sets.items()}
    for name, indexes in sets.items():
        assert world.sees(name) == set(indexes)
    wait_until(lambda: world.state().allocations.keys() == set(uids.values()), what="read-back")
    where = world.topology().position_of()
    assert {
        uid: {where[uuid] for uuid in uuids} for uid, uuids in world.state().allocations.items()
    } == {uids[name]: set(indexes) for name, indexes in sets.items()}
    exact = 'gputopo_plugin_preferred_allocations_total{outcome="exact"}'
    assert world.metric(exact) == 3
    honoured = 'gputopo_plugin_realised_total{outcome="honoured"}'
    wait_until(lambda: world.metric(honoured) == 3, what="the verdicts")


def test_a_pod_of_another_scheduler_leaves_promises_alone(world: World) -> None:
    """A pod bound without a set runs, on GPUs that were promised to nobody."""
    world.start_plugin()
    world.bind("foreign", 4, None)
    world.bind("ours", 4, tuple({*range(8)} - world.sees("foreign")))
    assert world.sees("foreign") | world.sees("ours") == set(range(8))


def test_a_strict_pod_is_refused_when_its_set_is_taken(world: World) -> None:
    """Strict fails with a message that says why; a pod that is not strict runs elsewhere."""
    world.start_plugin()
    world.bind("first", 2, (0, 3))
    assert world.sees("first") == {0, 3}
    world.bind("strict", 2, (3, 7), **{"gputopo.dev/strict": "true"})
    wait_until(lambda: world.phase("strict")[0] == "Failed", what="the refusal")
    assert "not_offered" in world.phase("strict")[1]
    world.bind("lenient", 2, (3, 7))
    assert 7 in world.sees("lenient")
    assert not world.sees("lenient") & {0, 3}
    assert world.metric('gputopo_plugin_drift_total{reason="not_offered"}') == 1


def test_gpus_of_ended_pods_are_published_as_free(world: World) -> None:
    """After a pod's deletion its GPUs leave the state."""
    world.start_plugin()
    uid = world.bind("a", 2, (0, 3))
    wait_until(lambda: uid in world.state().allocations, what="the allocation")
    world.client.delete("/api/v1/namespaces/d/pods/a")
    wait_until(lambda: not world.state().allocations, what="the end of the allocation")


def test_kubelet_may_restart_and_lose_sockets(world: World) -> None:
    """A restarted kubelet, a renewed kubelet.sock, a deleted own socket: all are survived."""
    world.start_plugin()
    world.bind("a", 2, (0, 3))
    assert world.sees("a") == {0, 3}
    for number, disturb in enumerate(
        (world.kubelet.restart, world.kubelet.wipe_socket, lambda: _unlink_own(world))
    ):
        before = len(world.kubelet.journal.entries("registered"))
        disturb()
        wait_until(
            lambda before=before: len(world.kubelet.journal.entries("registered")) > before,
            what="a registration",
        )
        wait_until(lambda: world.allocatable() == "8", what="8 GPUs in node.status")
        wait_until(lambda: world.probe("readyz") is None, what="readiness")
        # A pod that comes while kubelet has just lost the plugin would fail for good, as on a
        # real node: the scheduler holds it back, and so do we.
        world.bind(f"p{number}", 1, (4 + number,))
        assert world.sees(f"p{number}") == {4 + number}
    assert world.sees("a") == {0, 3}


def test_a_new_process_takes_over(world: World) -> None:
    """The socket goes with the process; the next one reads back what pods hold, and goes on."""
    world.start_plugin()
    uid = world.bind("a", 2, (0, 3))
    wait_until(lambda: uid in world.state().allocations, what="the allocation")
    before = world.state().generation
    world.stop_plugin()
    assert world.codes == [0]
    assert not list(world.kubelet.device_plugins_dir.glob("gputopo-*"))
    wait_until(lambda: world.allocatable() == "0", what="no GPUs in node.status")
    world.start_plugin()
    assert world.state().allocations.keys() == {uid}
    assert world.state().generation >= before
    world.bind("b", 2, (1, 2))
    assert world.sees("b") == {1, 2}


def test_a_failed_gpu_is_withheld_and_comes_back(world: World) -> None:
    """XID 79: one GPU less in node.status, its reason in the state; then all is well again."""
    world.start_plugin()
    uuid = world.topology().gpus[5].uuid
    world.mock.inject("lost", gpu=world.topology().gpus[5].index)
    wait_until(lambda: world.allocatable() == "7", what="7 GPUs in node.status")
    wait_until(lambda: world.state().unhealthy.keys() == {uuid}, what="the reason")
    world.bind("a", 2, (4, 7))
    assert world.sees("a") == {4, 7}
    world.mock.inject("recover")
    wait_until(lambda: world.allocatable() == "8", timeout=20, what="8 GPUs in node.status")
    wait_until(lambda: not world.state().unhealthy, what="the state to say so")


def test_the_api_server_may_go_away(world: World) -> None:
    """Meanwhile the plugin stays ready; afterwards what has happened is published."""
    world.start_plugin()
    uid = world.bind("a", 2, (0, 3))
    wait_until(lambda: uid in world.state().allocations, what="the allocation")
    world.api.go_away()
    world.mock.inject("xid", gpu=0, xid=48)
    failed = 'gputopo_plugin_api_writes_total{result="failed"}'
    wait_until(lambda: world.metric(failed) > 0, what="a write that fails")
    assert world.probe("readyz") is None
    world.api.come_back()
    wait_until(lambda: world.state().generation > 1, timeout=20, what="the newest state")


def test_without_nvml_the_node_is_not_offered(world: World) -> None:
    """No driver: alive, not ready, nothing advertised; once it is there, all by itself."""
    world.mock.inject("call", function="nvmlInitWithFlags", code="DRIVER_NOT_LOADED")
    world.run_plugin()
    wait_until(lambda: "DRIVER_NOT_LOADED" in (world.probe("readyz") or ""), what="the problem")
    assert world.probe("healthz") is None
    assert world.allocatable() == "0"
    world.mock.inject("recover")
    wait_until(lambda: world.probe("readyz") is None, timeout=20, what="readiness")


@pytest.mark.parametrize("what", ["kubeconfig", "policy", "port"])
def test_a_start_that_cannot_succeed_ends_with_one(world: World, what: str) -> None:
    """No credentials, an unknown profile, a taken port: exit code 1."""
    settings = PluginSettings(
        node_name="n1",
        kubeconfig="/nowhere" if what == "kubeconfig" else str(world.kubeconfig),
        policy="best" if what == "policy" else "training",
        device_plugins_dir=str(world.kubelet.device_plugins_dir),
        ops_host="127.0.0.1",
        ops_port=int(world.api.url.rpartition(":")[2]),
    )
    assert run(settings, stop=threading.Event()) == 1


def _unlink_own(world: World) -> None:
    for path in world.kubelet.device_plugins_dir.glob("gputopo-*"):
        path.unlink()


def test_binding_twice_is_refused_by_the_server(world: World) -> None:
    """The world of these tests is honest: a bound pod cannot be bound again."""
    world.start_plugin()
    world.bind("a", 1, (0,))
    with pytest.raises(ConflictError):
        world.client.post(
            "/api/v1/namespaces/d/pods/a/binding",
            {"metadata": {"name": "a", "namespace": "d"}, "target": {"name": "n1"}},
        )
