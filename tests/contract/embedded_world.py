"""The contract's node, made of the embedded API server and kubelet and a real plugin process."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import grpc
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from deviceplugin.podresources.v1 import api_pb2, api_pb2_grpc
from embedded.apiserver import ApiServer
from embedded.kubelet import ContainerView, Kubelet
from embedded.processes import free_port, own_command
from mock_nvml import gpu_uuid, write_sysfs
from runtime.errors import NotFoundError
from runtime.kube import connect
from runtime.objects import Node
from tests.contract.gate import Gate
from tests.contract.world import NAMESPACE, RESOURCE, PodPlan
from tests.waiting import wait_until
from topology.catalogue import load_machine
from topology.wire import (
    ASSIGNMENT_KEY,
    STATE_KEY,
    STRICT_KEY,
    Assignment,
    NodeState,
    decode_state,
    encode_assignment,
)

NODE: Final = "n1"
MACHINE: Final = "dgx1-v100"
GPUS: Final = 8

# Times are short so that the cases are; none of them is what a case is about.
SETTINGS: Final = {
    "probe_seconds": 0.1,
    "recovery_hold_seconds": 0.3,
    "reinit_seconds": 0.2,
    "publish_seconds": 0.05,
    "read_back_seconds": 0.3,
}


class EmbeddedWorld:
    """`tests.contract.world.World` without a cluster."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
        self._api = ApiServer()
        self._api.start()
        self._client = connect(str(self._api.write_kubeconfig(self._folder / "kubeconfig")))
        self._kubelet = Kubelet(NODE, self._folder, self._client, status_period=0.05)
        self._kubelet.start()
        machine = load_machine(MACHINE)
        write_sysfs(machine, self._folder / "sys", seed=NODE)
        self._uuids = tuple(gpu_uuid(NODE, index) for index in range(GPUS))
        self._faults = self._folder / "faults.yaml"
        where = urlsplit(self._api.url)
        self._gate = Gate((str(where.hostname), int(where.port or 0)))
        through = self._folder / "through-gate"
        through.write_text(
            (self._folder / "kubeconfig")
            .read_text()
            .replace(f":{where.port}", f":{self._gate.port}")
        )
        self._config = self._folder / "plugin.yaml"
        self._config.write_bytes(msgspec.yaml.encode(SETTINGS))
        self._port = free_port()
        self._plugin: subprocess.Popen[bytes] | None = None

    def bind(self, pod: PodPlan) -> str:
        """Create the pod and POST its Binding; return its UID."""
        notes = {STRICT_KEY: "true"} if pod.strict else {}
        made = msgspec.json.decode(
            self._client.post(
                f"/api/v1/namespaces/{NAMESPACE}/pods",
                {
                    "metadata": {
                        "name": pod.name,
                        "namespace": NAMESPACE,
                        "annotations": notes,
                    },
                    "spec": {
                        "containers": [
                            _container(name, count)
                            for name, count in pod.counts.items()
                            if name not in pod.sidecars
                        ],
                        "initContainers": [
                            {**_container(name, pod.counts[name]), "restartPolicy": "Always"}
                            for name in pod.sidecars
                        ],
                    },
                },
            )
        )
        uid = str(made["metadata"]["uid"])
        value = pod.raw
        if pod.sets is not None:
            sets = {
                name: tuple(self._uuids[gpu] for gpu in gpus) for name, gpus in pod.sets.items()
            }
            value = encode_assignment(Assignment(sets))
        self._client.post(
            f"{_path(pod.name)}/binding",
            {
                "metadata": {
                    "name": pod.name,
                    "namespace": NAMESPACE,
                    "uid": uid,
                    "annotations": {} if value is None else {ASSIGNMENT_KEY: value},
                },
                "target": {"kind": "Node", "name": NODE},
            },
        )
        return uid

    def delete(self, name: str) -> None:
        """Ask for the pod's end."""
        self._client.delete(_path(name))

    def phase(self, name: str) -> tuple[str, str]:
        """Return a pod's phase and message."""
        pod = self._pod(name)
        status = pod["status"] if pod else {}
        return str(status.get("phase", "")), str(status.get("message", ""))

    def uid(self, name: str) -> str:
        """Return a pod's UID."""
        return str(self._pod(name)["metadata"]["uid"])

    def crash(self, name: str, container: str) -> None:
        """Kill a container."""
        self._kubelet.crash_container(NAMESPACE, name, container)

    def running(self) -> dict[str, dict[str, frozenset[int]]]:
        """Map each pod to its running containers and the GPUs that their environment names."""
        found: dict[str, dict[str, frozenset[int]]] = {}
        for view in self._views():
            if view.running:
                found.setdefault(view.pod, {})[view.container] = self._visible(view)
        return found

    def starts(self, name: str) -> int:
        """Return how often a container of the pod was started."""
        return sum(view.pod == name for view in self._views())

    def held(self) -> dict[str, dict[str, frozenset[int]]]:
        """Return what PodResources List says."""
        with grpc.insecure_channel(f"unix:{self._kubelet.pod_resources_socket}") as channel:
            answer = api_pb2_grpc.PodResourcesListerStub(channel).List(
                api_pb2.ListPodResourcesRequest(), timeout=5, wait_for_ready=True
            )
        found: dict[str, dict[str, frozenset[int]]] = {}
        for pod in answer.pod_resources:
            for container in pod.containers:
                ids = [one for entry in container.devices for one in entry.device_ids]
                if ids:
                    found.setdefault(pod.name, {})[container.name] = self._places(ids)
        return found

    def state(self) -> NodeState | None:
        """Return what the Node's annotation says."""
        text = (self._node().metadata.annotations or {}).get(STATE_KEY)
        return None if text is None else decode_state(text)

    def allocatable(self) -> int:
        """Return how many GPUs node.status offers."""
        return int((self._node().status.allocatable or {}).get(RESOURCE, "0"))

    def uuids(self) -> tuple[str, ...]:
        """Return the GPUs' uuids in the node's order."""
        return self._uuids

    def count(self, name: str, **labels: str) -> float:
        """Return a metric of the plugin of now."""
        for family in text_string_to_metric_families(self._ask("metrics")):
            for sample in family.samples:
                if sample.name == f"gputopo_plugin_{name}" and sample.labels == labels:
                    return sample.value
        raise AssertionError(f"the plugin has no {name} {labels}")

    def ready(self) -> bool:
        """Return whether the plugin's readiness probe passes."""
        try:
            self._ask("readyz")
        except (URLError, OSError):
            return False
        return True

    def start_plugin(self) -> None:
        """Start the plugin and wait until its GPUs can be scheduled."""
        self._faults.write_text("[]")
        options = {
            "node-name": NODE,
            "kubeconfig": self._folder / "through-gate",
            "config": self._config,
            "device-plugins-dir": self._kubelet.device_plugins_dir,
            "pod-resources-socket": self._kubelet.pod_resources_socket,
            "sysfs-root": self._folder / "sys",
            "ops-host": "127.0.0.1",
            "ops-port": self._port,
            "mock-machine": MACHINE,
            "mock-faults": self._faults,
        }
        command = own_command(
            "device-plugin", *(f"--{name}={value}" for name, value in options.items())
        )
        with (self._folder / "log").open("ab") as log:
            self._plugin = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            self._wait_well()
        except AssertionError as error:
            error.add_note((self._folder / "log").read_text()[-4000:])
            raise

    def kill_plugin(self) -> None:
        """End the plugin's process at once."""
        self._end_plugin(signal.SIGKILL)

    def restart_kubelet(self) -> None:
        """End kubelet's process and start it again."""
        self._kubelet.restart()

    def renew_kubelet_socket(self) -> None:
        """Delete kubelet.sock and create it anew."""
        self._kubelet.wipe_socket()

    def delete_plugin_socket(self) -> None:
        """Delete the plugin's socket."""
        (path,) = self._kubelet.device_plugins_dir.glob("gputopo-*")
        path.unlink()

    def registrations(self) -> int:
        """Return how often kubelet has taken a registration so far."""
        return len(self._kubelet.journal.entries("registered"))

    def cut_plugin_off(self, *, silently: bool) -> None:
        """Take the API server from the plugin."""
        self._gate.set("silent" if silently else "shut")

    def delay_watches(self) -> None:
        """Let the plugin's watches fall silent."""
        self._gate.hold_watches(True)

    def reconnect_plugin(self) -> None:
        """Give the API server back to the plugin."""
        self._gate.hold_watches(False)
        self._gate.set("open")

    def lose_gpu(self, gpu: int) -> None:
        """Let a GPU fall off the bus."""
        self._befall({"kind": "lost", "gpu": gpu})

    def report_xid(self, gpu: int, xid: int) -> None:
        """Let the driver report an XID."""
        self._befall({"kind": "xid", "gpu": gpu, "xid": xid})

    def heal_gpus(self) -> None:
        """Let all GPUs be well again."""
        self._befall({"kind": "recover"})

    def clear(self) -> None:
        """Delete all pods, undo all faults, and wait until the node is as at the start."""
        self.reconnect_plugin()
        if self._plugin is None:
            self.start_plugin()
        else:
            self.heal_gpus()
        items = msgspec.json.decode(self._client.get(f"/api/v1/namespaces/{NAMESPACE}/pods"))
        for pod in items["items"]:
            with contextlib.suppress(NotFoundError):
                self.delete(pod["metadata"]["name"])
        wait_until(lambda: not self.held(), what="kubelet to free all GPUs")
        self._wait_well()

    def close(self) -> None:
        """End everything."""
        self._gate.set("open")
        self._end_plugin(signal.SIGTERM)
        self._kubelet.stop()
        self._client.close()
        self._gate.close()
        self._api.stop()
        shutil.rmtree(self._folder)

    def _wait_well(self) -> None:
        def well() -> bool:
            state = self.state()
            return state is not None and not state.unhealthy and self.ready()

        wait_until(well, timeout=20, what="the plugin to be ready, all GPUs healthy")
        wait_until(lambda: self.allocatable() == GPUS, what="8 GPUs in node.status")

    def _end_plugin(self, number: signal.Signals) -> None:
        if self._plugin is not None:
            self._plugin.send_signal(number)
            self._plugin.wait(20)
            self._plugin = None

    def _befall(self, fault: dict[str, Any]) -> None:
        told = msgspec.yaml.decode(self._faults.read_bytes())
        self._faults.write_bytes(msgspec.yaml.encode([*told, {"at": 0, **fault}]))

    def _ask(self, path: str) -> str:
        with urlopen(f"http://127.0.0.1:{self._port}/{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def _pod(self, name: str) -> dict[str, Any]:
        try:
            return dict(msgspec.json.decode(self._client.get(_path(name))))
        except NotFoundError:
            return {}

    def _node(self) -> Node:
        return msgspec.json.decode(self._client.get(f"/api/v1/nodes/{NODE}"), type=Node)

    def _views(self) -> tuple[ContainerView, ...]:
        return tuple(view for view in self._kubelet.containers() if view.namespace == NAMESPACE)

    def _visible(self, view: ContainerView) -> frozenset[int]:
        visible = view.env.get("NVIDIA_VISIBLE_DEVICES", "")
        return self._places(visible.split(",")) if visible else frozenset()

    def _places(self, ids: list[str]) -> frozenset[int]:
        return frozenset(self._uuids.index(one) for one in ids)


def _path(name: str) -> str:
    return f"/api/v1/namespaces/{NAMESPACE}/pods/{name}"


def _container(name: str, count: int) -> dict[str, Any]:
    limits = {RESOURCE: str(count)} if count else {}
    return {"name": name, "image": "x", "resources": {"limits": limits}}
