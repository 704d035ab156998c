"""A cluster in which everything runs as on any other: our daemons are pods too."""

from __future__ import annotations

import contextlib
import ipaddress
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.e2e.containerd import Containerd
from tests.e2e.control_plane import ControlPlane
from tests.e2e.errors import StartError
from tests.e2e.kubelet import Kubelet
from tests.e2e.logs import keep_logs
from tests.e2e.sandbox import SERVICE_ADDRESS

_CGROUPS: Final = Path("/sys/fs/cgroup")
_ADDRESSES: Final = ipaddress.IPv4Network("172.31.0.0/24")
_PODS: Final = ipaddress.IPv4Network("10.244.0.0/16")
_TOLD: Final = (
    ("objects.yaml", ("get", "nodes,pods,daemonsets,replicasets,deployments,leases,configmaps")),
    ("events.txt", ("get", "events")),
)


class PodCluster:
    """A control plane with its controllers, and nodes whose pods are real containers.

    `machines` maps nodes to the mock machines that their plugins are to answer as. Only one can be
    up at a time: it has the address that pods know.
    """

    def __init__(self, machines: Mapping[str, str], archives: Sequence[Path]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gp-", dir="/tmp"))
        self.plane = ControlPlane(
            self.folder,
            nodes=list(machines),
            controllers=True,
            scheduler=True,
            service_address=SERVICE_ADDRESS,
        )
        self.kubelets: dict[str, Kubelet] = {}
        self.runtimes: dict[str, Containerd] = {}
        self._machines = dict(machines)
        self._archives = list(archives)

    def start(self) -> None:
        """Start everything and wait for the nodes. Raises StartError with the end of a log."""
        for number, name in enumerate(self._machines):
            self._make_node(number, name)
        # Side by side: most of it is waiting for one another's disk and processor.
        with ThreadPoolExecutor() as pool:
            begun = [pool.submit(self.plane.start)]
            begun += [
                pool.submit(runtime.start, self._archives) for runtime in self.runtimes.values()
            ]
            for one in begun:
                one.result()
        for kubelet in self.kubelets.values():
            kubelet.start()
        for name in self._machines:
            self.plane.await_node(name)

    def stop(self) -> None:
        """End everything and leave nothing."""
        for kubelet in self.kubelets.values():
            kubelet.process.kill()
        for runtime in self.runtimes.values():
            runtime.stop()
        for kubelet in self.kubelets.values():
            kubelet.stop()
        self.plane.stop()
        for number in range(len(self.kubelets)):
            _run("ip", "address", "del", f"{_address(number)}/32", "dev", "lo")
        shutil.rmtree(self.folder)

    def keep_logs(self) -> Path:
        """Copy all that tells what happened into a folder that stays; return it."""
        kept = keep_logs(self.folder, "pods")
        for name, arguments in _TOLD:
            output = "yaml" if name.endswith("yaml") else "wide"
            with contextlib.suppress(StartError):
                text = self.plane.kubectl(*arguments, "--all-namespaces", f"--output={output}")
                (kept / name).write_text(text)
        return kept

    def _make_node(self, number: int, name: str) -> None:
        folder = self.folder / name
        folder.mkdir()
        address = _address(number)
        _run("ip", "address", "add", f"{address}/32", "dev", "lo")
        _make_cgroups(name)
        kubelet = Kubelet(
            name,
            folder,
            kubeconfig=self.plane.kubeconfig(f"system:node:{name}"),
            runtime=folder / "containerd.sock",
            address=address,
            labels={"gputopo.dev/mock-machine": self._machines[name]},
            settings={
                "authentication": {
                    "anonymous": {"enabled": False},
                    "webhook": {"enabled": True},
                    # Else kubectl gets no logs: it asks the API server, which asks kubelet.
                    "x509": {"clientCAFile": str(self.plane.kubelet_client)},
                },
                # Without cgroups of the pods kubelet 1.36.5 dies of a nil pointer as soon as a
                # container with requests is started again (kuberuntime_manager.go, line 1015).
                "cgroupsPerQOS": True,
                "cgroupRoot": f"/{name}",
            },
        )
        self.kubelets[name] = kubelet
        pods = list(_PODS.subnets(new_prefix=24))[number + 1]
        self.runtimes[name] = Containerd(folder, kubelet.namespace, pods)


def _address(number: int) -> str:
    return str(_ADDRESSES[number + 1])


def _make_cgroups(name: str) -> None:
    """Make a cgroup in every hierarchy: two kubelets below one would end each other's pods."""
    hierarchies = [_CGROUPS]
    if not (_CGROUPS / "cgroup.procs").exists():
        hierarchies = [path.parent for path in _CGROUPS.glob("*/cgroup.procs")]
    for hierarchy in hierarchies:
        made = hierarchy / name
        made.mkdir(exist_ok=True)
        # The first version's cpuset takes no process before it was told its CPUs.
        if hierarchy.name == "cpuset":
            for setting in ("cpuset.cpus", "cpuset.mems"):
                (made / setting).write_text((hierarchy / setting).read_text())


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
