"""What the contract's worlds have in common: all that goes over the API server and the sockets.

A world starts an API server and a kubelet in its own way, and says how their parts fail. The
plugin is a process of ours, with its own way to the API server, which leads through a gate.
"""

from __future__ import annotations

import abc
import contextlib
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec

from deviceplugin.podresources.v1 import api_pb2, api_pb2_grpc
from mock_nvml import gpu_uuid, write_sysfs
from runtime.errors import KubeError, NotFoundError
from runtime.objects import Node
from tests.contract.gate import Gate
from tests.contract.node_parts import NodeParts, Start, write_kubeconfig
from tests.contract.plugin_process import PluginProcess
from tests.contract.pods import binding_body, pod_body, pod_path
from tests.contract.world import GPUS, NAMESPACE, NODE, RESOURCE, PodPlan, Setup
from tests.waiting import wait_until
from topology.catalogue import load_machine
from topology.wire import CORDON_KEY, STATE_KEY, NodeState, decode_state

# Times are short so that the cases are; none of them is what a case is about.
SETTINGS: Final = {
    "probe_seconds": 0.1,
    "recovery_hold_seconds": 0.3,
    "reinit_seconds": 0.2,
    "publish_seconds": 0.05,
    "read_back_seconds": 0.3,
    "config_poll_seconds": 0.1,
}
MIRROR_KEY: Final = "kubernetes.io/config.mirror"
"""Marks a pod that stands for a static one; only kubelet can end that."""


class ApiWorld(abc.ABC):
    """`tests.contract.world.World` but for what depends on how API server and kubelet are made.

    `starts_so_far`, and the verbs for kubelet and the API server, are the worlds' own. A world
    closes itself by `end_plugin`, and then ends what it has started.
    """

    def __init__(self, setup: Setup, parts: NodeParts) -> None:
        self._setup = setup
        self._parts = parts
        self._client = parts.client
        self._uuids = tuple(gpu_uuid(NODE, index) for index in range(GPUS))
        write_sysfs(load_machine(setup.machine), parts.folder / "sys", seed=NODE)
        self._faults = parts.folder / "faults.yaml"
        self._gate = Gate(parts.plain)
        self._way = write_kubeconfig(parts.folder / "through-gate", self._gate.port)
        self._offer = parts.folder / "offer.yaml"
        self.configure("")
        self._config = parts.folder / "plugin.yaml"
        settings = {**SETTINGS, "numa_hints": setup.numa_hints}
        if setup.watched:
            settings["plugins_registry_dir"] = str(parts.plugins_registry_dir)
        self._sockets = parts.plugins_registry_dir if setup.watched else parts.device_plugins_dir
        self._config.write_bytes(msgspec.yaml.encode(settings))
        self._plugin: PluginProcess | None = None

    # What a world says of itself.

    @abc.abstractmethod
    def starts_so_far(self) -> Iterable[Start]:
        """Return every start of a container in NAMESPACE so far, oldest first."""

    @abc.abstractmethod
    def crash(self, name: str, container: str) -> None:
        """Kill a container; kubelet starts it again."""

    @abc.abstractmethod
    def stop_kubelet(self) -> None:
        """End kubelet's process; containers run on."""

    @abc.abstractmethod
    def start_kubelet(self) -> None:
        """Start kubelet's process again; nothing happens if it runs."""

    @abc.abstractmethod
    def renew_kubelet_socket(self) -> None:
        """Delete kubelet.sock and create it anew, within one life of kubelet."""

    @abc.abstractmethod
    def pause_api_server(self, *, silently: bool) -> None:
        """Take the API server from everybody: it answers nothing, or is not there to be asked."""

    @abc.abstractmethod
    def resume_api_server(self) -> None:
        """Let the API server go on; nothing happens if it was not paused."""

    @abc.abstractmethod
    def expire_versions(self) -> None:
        """Restart the API server; nothing can be watched from a version of before (410 Gone)."""

    @abc.abstractmethod
    def close(self) -> None:
        """End everything."""

    # Pods.

    def bind(self, pod: PodPlan) -> str:
        """Create the pod and POST its Binding; return its UID."""
        made = msgspec.json.decode(
            self._client.post(f"/api/v1/namespaces/{NAMESPACE}/pods", pod_body(pod))
        )
        uid = str(made["metadata"]["uid"])
        self._client.post(f"{pod_path(pod.name)}/binding", binding_body(pod, uid, self._uuids))
        return uid

    def delete(self, name: str) -> None:
        """Ask for the pod's end."""
        with contextlib.suppress(NotFoundError):
            self._client.delete(pod_path(name))

    def add_static_pod(self, pod: PodPlan) -> str:
        """Put a pod into kubelet's folder of static pods; return the name that it goes by."""
        fresh = self._parts.static_pods / f".{pod.name}.new"
        fresh.write_bytes(msgspec.json.encode(pod_body(pod)))
        # In one step: kubelet must not read half of it. Names with a dot in front it passes over.
        fresh.replace(self._static_file(pod.name))
        return f"{pod.name}-{NODE}"

    def remove_static_pod(self, pod: PodPlan) -> None:
        """Take a pod out of that folder."""
        self._static_file(pod.name).unlink()

    def phase(self, name: str) -> tuple[str, str]:
        """Return a pod's phase and message."""
        status = self._pod(name).get("status", {})
        return str(status.get("phase", "")), str(status.get("message", ""))

    def uid(self, name: str) -> str:
        """Return a pod's UID, "" if there is no such pod."""
        return str(self._pod(name).get("metadata", {}).get("uid", ""))

    def device_health(self, name: str) -> dict[int, str]:
        """Return what a pod's status says of its containers' GPUs."""
        status = self._pod(name).get("status", {})
        return {
            self._uuids.index(one["resourceID"]): str(one["health"])
            for container in status.get("containerStatuses", ())
            for told in container.get("allocatedResourcesStatus", ())
            if told["name"] == RESOURCE
            for one in told["resources"]
        }

    # Containers and devices.

    def running(self) -> dict[str, dict[str, frozenset[int]]]:
        """Map each pod to its running containers and the GPUs that their environment names."""
        found: dict[str, dict[str, frozenset[int]]] = {}
        for start in self.starts_so_far():
            if start.running:
                visible = start.env.get("NVIDIA_VISIBLE_DEVICES", "")
                gpus = self._places(visible.split(",")) if visible else frozenset()
                found.setdefault(start.pod, {})[start.container] = gpus
        return found

    def starts(self, name: str) -> int:
        """Return how often a container of the pod was started."""
        return sum(start.pod == name for start in self.starts_so_far())

    def held(self) -> dict[str, dict[str, frozenset[int]]]:
        """Return what PodResources List says."""
        with grpc.insecure_channel(f"unix:{self._parts.pod_resources_socket}") as channel:
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

    def uuids(self) -> tuple[str, ...]:
        """Return the GPUs' uuids in the node's order."""
        return self._uuids

    def state(self) -> NodeState | None:
        """Return what the Node's annotation says."""
        text = (self._node().metadata.annotations or {}).get(STATE_KEY)
        return None if text is None else decode_state(text)

    def configure(self, text: str) -> None:
        """Give the plugin another configuration of what is offered."""
        fresh = self._offer.with_suffix(".new")
        fresh.write_text(text)
        # In one step: the plugin may look at any time.
        fresh.replace(self._offer)

    def allocatable(self, resource: str = RESOURCE) -> int:
        """Return how many devices of a resource node.status offers."""
        return int((self._node().status.allocatable or {}).get(resource, "0"))

    # The plugin and its way to the API server.

    def count(self, name: str, **labels: str) -> float:
        """Return a metric of the plugin of now, summed over labels that are not named."""
        return self._running_plugin().count(name, **labels)

    def ready(self) -> bool:
        """Return whether the plugin's readiness probe passes."""
        return self._running_plugin().ready()

    def registrations(self) -> int:
        """Return how often kubelet has taken a registration of the plugin of now."""
        return int(self.count("registrations_total", result="ok"))

    def start_plugin(self) -> None:
        """Start the plugin and wait until its GPUs can be scheduled."""
        self._faults.write_text("[]")
        self._plugin = self._new_plugin()
        self._wait_well()

    def kill_plugin(self) -> None:
        """End the plugin's process at once."""
        self.end_plugin(signal.SIGKILL)

    def replace_plugin(self) -> None:
        """Start a second plugin, wait until kubelet watches it, then end the first one well."""
        second = self._new_plugin()
        wait_until(second.ready, timeout=20, what="kubelet to watch the second plugin")
        self.end_plugin(signal.SIGTERM)
        self._plugin = second

    def end_plugin(self, number: signal.Signals) -> None:
        """End the plugin of now, if there is one."""
        plugin, self._plugin = self._plugin, None
        if plugin is not None:
            plugin.end(number)

    def delete_plugin_socket(self) -> None:
        """Delete the plugin's socket."""
        (path,) = self._sockets.glob("gputopo-*")
        path.unlink()

    def cordon(self, text: str | None) -> None:
        """Annotate the Node."""
        body = {"metadata": {"annotations": {CORDON_KEY: text}}}
        self._client.patch(f"/api/v1/nodes/{NODE}", body)

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

    def restart_kubelet(self) -> None:
        """End kubelet's process and start it again."""
        self.stop_kubelet()
        self.start_kubelet()

    # Faults, and the way back.

    def lose_gpu(self, gpu: int) -> None:
        """Let a GPU fall off the bus."""
        self._befall({"kind": "lost", "gpu": gpu})

    def report_xid(self, gpu: int, xid: int) -> None:
        """Let the driver report an XID."""
        self._befall({"kind": "xid", "gpu": gpu, "xid": xid})

    def partition(self, gpu: int, profiles: tuple[str, ...] | None) -> None:
        """Cut a GPU into MIG instances anew; None turns MIG off."""
        self._befall({"kind": "mig", "gpu": gpu, "profiles": profiles})

    def heal_gpus(self) -> None:
        """Let all GPUs be well again."""
        self._befall({"kind": "recover"})

    def clear(self) -> None:
        """Delete all pods, undo all faults, and wait until the node is as at the start."""
        self.resume_api_server()
        self.start_kubelet()
        self.reconnect_plugin()
        self.configure("")
        if self._plugin is None:
            self.start_plugin()
        else:
            self.heal_gpus()
        for path in self._parts.static_pods.iterdir():
            path.unlink()
        for pod in self._pods():
            if MIRROR_KEY not in pod["metadata"].get("annotations", {}):
                self.delete(pod["metadata"]["name"])
        wait_until(lambda: not self._pods(), timeout=20, what="all pods to be gone")
        wait_until(lambda: not self.held(), what="kubelet to free all GPUs")
        self._wait_well()

    # Inside.

    def _new_plugin(self) -> PluginProcess:
        parts = self._parts
        return PluginProcess(
            {
                "node-name": NODE,
                "kubeconfig": self._way,
                "config": self._config,
                "config-file": self._offer,
                "device-plugins-dir": parts.device_plugins_dir,
                "pod-resources-socket": parts.pod_resources_socket,
                "sysfs-root": parts.folder / "sys",
                "mock-machine": self._setup.machine,
                "mock-faults": self._faults,
            },
            parts.folder / "plugin.log",
        )

    def _running_plugin(self) -> PluginProcess:
        assert self._plugin is not None, "no plugin runs"
        return self._plugin

    def _wait_well(self) -> None:
        plugin = self._running_plugin()

        def well() -> bool:
            try:
                state = self.state()
            except KubeError:
                return False
            return state is not None and not state.unhealthy and plugin.ready()

        try:
            wait_until(well, timeout=20, what="the plugin to be ready, all GPUs healthy")
            wait_until(lambda: self.allocatable() == GPUS, what=f"{GPUS} GPUs in node.status")
        except AssertionError as error:
            error.add_note(plugin.tail())
            raise

    def _befall(self, fault: dict[str, Any]) -> None:
        told = msgspec.yaml.decode(self._faults.read_bytes())
        self._faults.write_bytes(msgspec.yaml.encode([*told, {"at": 0, **fault}]))

    def _static_file(self, name: str) -> Path:
        return self._parts.static_pods / f"{name}.json"

    def _pod(self, name: str) -> dict[str, Any]:
        try:
            return dict(msgspec.json.decode(self._client.get(pod_path(name))))
        except NotFoundError:
            return {}

    def _pods(self) -> list[dict[str, Any]]:
        listed = msgspec.json.decode(self._client.get(f"/api/v1/namespaces/{NAMESPACE}/pods"))
        return list(listed["items"])

    def _node(self) -> Node:
        return msgspec.json.decode(self._client.get(f"/api/v1/nodes/{NODE}"), type=Node)

    def _places(self, ids: Iterable[str]) -> frozenset[int]:
        # A replica's id has its number after the uuid; instances have no place.
        uuids = (one.split("::")[0] for one in ids)
        return frozenset(self._uuids.index(uuid) for uuid in uuids if uuid in self._uuids)
