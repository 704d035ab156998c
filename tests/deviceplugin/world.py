"""A node with the whole plugin: real sockets, a kubelet, an API server, unmodified pynvml."""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import msgspec

from deviceplugin.config.source import ConfigReader, OneFile
from deviceplugin.main import run
from deviceplugin.settings import PluginSettings
from embedded.apiserver import ApiServer
from embedded.kubelet import ContainerView, Kubelet
from embedded.ports import free_port
from mock_nvml import MockNvml, write_proc, write_sysfs
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
