"""A node whose plugin is a process of its own, so that what it needs can be measured."""

from __future__ import annotations

import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Self

import msgspec

from deviceplugin.pods.holdings import PodResources
from embedded.apiserver import ApiServer
from embedded.kubelet import ContainerView, Kubelet
from embedded.ports import free_port
from embedded.processes import Daemon, own_command
from mock_nvml import gpu_uuid, write_sysfs
from runtime.kube import connect
from runtime.objects import Node
from tests.waiting import wait_until
from topology.catalogue import load_machine
from topology.wire import (
    ASSIGNMENT_KEY,
    STATE_KEY,
    Assignment,
    NodeState,
    decode_state,
    encode_assignment,
)

RESOURCE = "nvidia.com/gpu"
MACHINE = "hgx-h100-8x-ib"
GPUS = 8
SETTINGS = """\
probe_seconds: 0.2
recovery_hold_seconds: 0.5
recovery_longest_hold_seconds: 1.0
reinit_seconds: 0.5
publish_seconds: 0.05
read_back_seconds: 0.5
"""


class Sample(msgspec.Struct, frozen=True):
    """What the plugin's process has: resident memory in MiB, its peak, threads, open files."""

    cycles: int
    rss_mib: float
    peak_mib: float
    threads: int
    files: int


class SoakNode:
    """API server, kubelet and plugin. `events` of containers come by the kubelet's callback."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._temporary = tempfile.TemporaryDirectory(prefix="gts-")
        folder = Path(self._temporary.name)
        self.api = ApiServer()
        self.api.start()
        kubeconfig = self.api.write_kubeconfig(folder / "kubeconfig")
        self.client = connect(str(kubeconfig))
        self.started: dict[str, ContainerView] = {}
        self._changed = threading.Condition()
        self.kubelet = Kubelet(
            "n1", folder, self.client, status_period=0.05, on_started=self._on_started, seed=seed
        )
        self.kubelet.start()
        write_sysfs(load_machine(MACHINE), folder / "sys", seed="n1")
        (folder / "plugin.yaml").write_text(SETTINGS)
        self._faults = folder / "faults.yaml"
        self._faults.touch()
        self.log = folder / "plugin.log"
        self.plugin = Daemon(
            "device-plugin",
            own_command(
                "device-plugin",
                *("--node-name", "n1", "--kubeconfig", str(kubeconfig)),
                *("--device-plugins-dir", str(self.kubelet.device_plugins_dir)),
                *("--pod-resources-socket", str(self.kubelet.pod_resources_socket)),
                *("--sysfs-root", str(folder / "sys"), "--config", str(folder / "plugin.yaml")),
                *("--ops-host", "127.0.0.1", "--ops-port", str(free_port())),
                *("--mock-machine", MACHINE, "--mock-faults", str(self._faults)),
                *("--log-level", "error"),
            ),
            self.log,
        )
        self.plugin.start()
        wait_until(lambda: self.allocatable() == GPUS, timeout=60, what="8 GPUs")
        wait_until(lambda: self.state() is not None, timeout=60, what="the state")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.plugin.ask_stop()
        self.plugin.wait_stopped(time.monotonic() + 15)
        self.kubelet.stop()
        self.client.close()
        self.api.stop()
        self._temporary.cleanup()

    def sample(self, cycles: int) -> Sample:
        """Measure the plugin's process."""
        process = Path(f"/proc/{self.plugin.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Sample(
            cycles=cycles,
            rss_mib=round(int(status["VmRSS"].split()[0]) / 1024, 1),
            peak_mib=round(int(status["VmHWM"].split()[0]) / 1024, 1),
            threads=int(status["Threads"]),
            files=sum(1 for _ in (process / "fd").iterdir()),
        )

    def uuid(self, index: int) -> str:
        """Return a GPU's uuid."""
        return gpu_uuid("n1", index)

    def node(self) -> Node:
        """Return the Node."""
        return msgspec.json.decode(self.client.get("/api/v1/nodes/n1"), type=Node)

    def state(self) -> NodeState | None:
        """Return what the plugin has published."""
        text = (self.node().metadata.annotations or {}).get(STATE_KEY)
        return None if text is None else decode_state(text)

    def allocatable(self) -> int:
        """Return how many GPUs kubelet offers."""
        try:
            return int((self.node().status.allocatable or {}).get(RESOURCE, 0))
        except Exception:  # noqa: BLE001 - before the node is there
            return 0

    def fault(self, kind: str, **fields: Any) -> None:
        """Let something befall the mock machine."""
        entry = msgspec.json.encode({"kind": kind, **fields}).decode()
        with self._faults.open("a") as script:
            script.write(f"- {entry}\n")

    def annotate(self, text: str | None) -> None:
        """Cordon, or not any more."""
        body = {"metadata": {"annotations": {"gputopo.dev/cordon": text}}}
        self.client.patch("/api/v1/nodes/n1", body)

    def bind(self, name: str, count: int, uuids: tuple[str, ...] | None) -> str:
        """Make a pod and bind it; return its UID."""
        limits = {RESOURCE: str(count)}
        container = {"name": "c", "image": "x", "resources": {"limits": limits}}
        body = {
            "metadata": {"name": name, "namespace": "d"},
            "spec": {"containers": [container]},
        }
        made = msgspec.json.decode(self.client.post("/api/v1/namespaces/d/pods", body))
        uid = str(made["metadata"]["uid"])
        promised = {}
        if uuids is not None:
            promised[ASSIGNMENT_KEY] = encode_assignment(Assignment({"c": uuids}))
        binding = {
            "metadata": {"name": name, "namespace": "d", "uid": uid, "annotations": promised},
            "target": {"kind": "Node", "name": "n1"},
        }
        self.client.post(f"/api/v1/namespaces/d/pods/{name}/binding", binding)
        return uid

    def outcome(self, name: str, timeout: float = 30.0) -> frozenset[str] | None:
        """Wait for a pod; return the GPUs that its container sees, None if it was refused."""
        end = time.monotonic() + timeout
        while True:
            with self._changed:
                if name not in self.started:
                    self._changed.wait(0.05)
                view = self.started.get(name)
            if view is not None:
                return frozenset(view.env["NVIDIA_VISIBLE_DEVICES"].split(","))
            if self.phase(name) == "Failed":
                return None
            if time.monotonic() > end:
                raise AssertionError(f"pod {name} neither runs nor fails: {self.log.read_text()}")

    def phase(self, name: str) -> str:
        """Return a pod's phase."""
        pod = msgspec.json.decode(self.client.get(f"/api/v1/namespaces/d/pods/{name}"))
        return str(pod["status"].get("phase", ""))

    def delete(self, name: str) -> None:
        """Delete a pod."""
        self.client.delete(f"/api/v1/namespaces/d/pods/{name}")
        self.started.pop(name, None)

    def in_kubelets_books(self) -> dict[str, frozenset[str]]:
        """Return what PodResources says of each pod that has a GPU."""
        reader = PodResources(self.kubelet.pod_resources_socket)
        try:
            pods = reader.list(5.0).of(RESOURCE).pods
        finally:
            reader.close()
        return {
            key.partition("/")[2]: frozenset(one.uuids())
            for key, one in pods.items()
            if one.uuids()
        }

    def _on_started(self, view: ContainerView) -> None:
        with self._changed:
            self.started[view.pod] = view
            self._changed.notify_all()
