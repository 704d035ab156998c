"""A whole small cluster: API server, kubelets and scheduler here, our daemons as processes.

Everything lives in one short temporary folder (a unix socket's path has at most 107 bytes) and is
gone after `stop`, whatever happened.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.error import URLError
from urllib.request import urlopen

import msgspec
import structlog

from embedded.apiserver import ApiServer
from embedded.errors import ClusterError
from embedded.kube_scheduler.extender import Extender
from embedded.kube_scheduler.scheduler import Scheduler
from embedded.kubelet import Kubelet
from embedded.observation import Observation
from embedded.ports import free_port
from embedded.processes import Daemon, own_command
from embedded.workload import RESOURCE, SCHEDULER_NAME
from mock_nvml import write_sysfs
from runtime.kube import KubeClient, connect
from topology.machines import Machine

_log = structlog.get_logger("demo.cluster")

# A plugin's imports cost a second of CPU: so many start at a time on two cores.
_STARTING: Final = 4
# A plugin on a mock has nothing to lose: one that is slow to end is killed.
_STOP_SECONDS: Final = 6.0
# A daemon that ended that often before it was ever ready will not come up.
_MOST_STARTS: Final = 3
_LONGEST_TEMP: Final = 40
_REMOVING: Final = 8
# Real numbers suit machines that stay for years; a demo wants to see a GPU come back.
_PLUGIN_CONFIG: Final = "probe_seconds: 0.5\nrecovery_hold_seconds: 2.0\n"


class NodeSpec(msgspec.Struct, frozen=True):
    """A node to be: its name, its machine, and how a plugin process finds the machine."""

    name: str
    machine: Machine
    reference: str


class Node:
    """A node's parts: its folder, its kubelet, its device plugin's process."""

    def __init__(
        self, spec: NodeSpec, folder: Path, kubelet: Kubelet, plugin: Daemon, port: int
    ) -> None:
        self.spec = spec
        self.folder = folder
        self.kubelet = kubelet
        self.plugin = plugin
        self.faults = folder / "faults.yaml"
        self.ops_url = f"http://127.0.0.1:{port}"
        self.ready_url = f"{self.ops_url}/readyz"


class Cluster:
    """The cluster. `start` and `stop` belong to one thread; a failed `start` cleans up.

    On `mig_nodes` MIG devices are offered, each profile as a resource of its own.
    """

    def __init__(
        self,
        specs: Sequence[NodeSpec],
        *,
        seed: int = 0,
        logs: Path | None,
        mig_nodes: frozenset[str] = frozenset(),
    ) -> None:
        # Unix socket paths are short; some systems' temporary folders are not.
        place = None if len(tempfile.gettempdir()) <= _LONGEST_TEMP else "/tmp"  # noqa: S108 -- mkdtemp makes it ours
        self.folder = Path(tempfile.mkdtemp(prefix="gt-", dir=place))
        self.logs = logs or self.folder / "logs"
        self.kubeconfig = self.folder / "kubeconfig"
        self.api = ApiServer()
        self._specs = tuple(specs)
        self._seed = seed
        self._mig_nodes = mig_nodes
        self._undo: list[tuple[str, Callable[[], object]]] = []
        self.nodes: dict[str, Node] = {}
        self.client: KubeClient
        self.extender: Daemon
        self.scheduler: Scheduler
        self.observation: Observation

    def start(
        self,
        deadline: float,
        progress: Callable[[str], None],
        stopping: threading.Event,
    ) -> None:
        """Start everything and wait until every node advertises its GPUs.

        `deadline` is in seconds from now. Raises ClusterError naming what did not come up, with
        the end of its log; `progress` is told what goes on, `stopping` breaks it off.
        """
        end = time.monotonic() + deadline
        try:
            self._start_control_plane()
            self._start_nodes(end, progress, stopping)
            self._wait_for(self.extender, self.extender_ready, end, stopping)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop in the reverse order and remove the folder; may be called twice."""
        daemons = [node.plugin for node in self.nodes.values()]
        if hasattr(self, "extender"):
            daemons.append(self.extender)
        if hasattr(self, "scheduler"):
            self.scheduler.stop()
        for daemon in daemons:
            daemon.ask_stop()
        end = time.monotonic() + _STOP_SECONDS
        for daemon in daemons:
            if not daemon.wait_stopped(end):
                _log.warning("did not stop by itself", daemon=daemon.name)
        while self._undo:
            name, undo = self._undo.pop()
            try:
                undo()
            except Exception:  # noqa: BLE001 -- the rest must go all the same
                _log.exception("stop failed", part=name)
        self._remove_folder()

    def _remove_folder(self) -> None:
        # The disk is waited for at each of a sysfs tree's files: 4 s for 20 nodes one after the
        # other, 0.6 s side by side.
        with ThreadPoolExecutor(_REMOVING, thread_name_prefix="remove") as pool:
            for node in self.nodes.values():
                pool.submit(shutil.rmtree, node.folder, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def ready(self, url: str) -> bool:
        """Tell whether a daemon's readiness probe says yes."""
        try:
            with urlopen(url, timeout=1.0) as answer:  # noqa: S310 -- our own loopback address
                return bool(answer.status == 200)
        except (URLError, OSError, ValueError):
            return False

    def node_ready(self, name: str) -> bool:
        """Tell whether the node's plugin is ready and all its GPUs can be given out."""
        node = self.nodes[name]
        whole = self.observation.gpus_of(name) == len(node.spec.machine.gpus)
        return whole and node.plugin.pid is not None and self.ready(node.ready_url)

    def extender_ready(self) -> bool:
        """Tell whether the extender is ready."""
        return self.extender.pid is not None and self.ready(f"{self.extender_ops_url}/readyz")

    def _start_control_plane(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self.api.start()
        self._undo.append(("API server", self.api.stop))
        self.api.write_kubeconfig(self.kubeconfig)
        self.client = self._connect()
        self.observation = Observation(self.client, RESOURCE)
        self.observation.start()
        self._undo.append(("observation", self.observation.stop))
        port, ops_port, explain_port = free_port(), free_port(), free_port()
        self.extender_ops_url = f"http://127.0.0.1:{ops_port}"
        self.extender_url = f"http://127.0.0.1:{port}"
        self.explain_url = f"http://127.0.0.1:{explain_port}"
        self.extender = Daemon(
            "extender",
            own_command(
                "extender",
                *("--kubeconfig", str(self.kubeconfig)),
                *("--resource", RESOURCE),
                *("--host", "127.0.0.1", "--port", str(port)),
                *("--ops-host", "127.0.0.1", "--ops-port", str(ops_port)),
                *("--explain-host", "127.0.0.1", "--explain-port", str(explain_port)),
            ),
            self.logs / "extender.log",
        )
        self.extender.start()
        self.scheduler = Scheduler(
            self._connect(),
            Extender(self.extender_url),
            resource=RESOURCE,
            scheduler_name=SCHEDULER_NAME,
        )
        self.scheduler.start()

    def _start_nodes(
        self, end: float, progress: Callable[[str], None], stopping: threading.Event
    ) -> None:
        (self.folder / "plugin.yaml").write_text(_PLUGIN_CONFIG)
        for spec in self._specs:
            node = self.nodes[spec.name] = self._start_node(spec)
            progress(f"{len(self.nodes)} of {len(self._specs)} nodes started")
            self._wait_for(node.plugin, lambda: self._missing() < _STARTING, end, stopping)
        for name, node in self.nodes.items():
            self._wait_for(node.plugin, lambda name=name: self._advertises(name), end, stopping)  # type: ignore[misc]  # a default in a lambda binds the loop's value

    def _start_node(self, spec: NodeSpec) -> Node:
        folder = self.folder / spec.name
        folder.mkdir()
        sysfs = folder / "sys"
        write_sysfs(spec.machine, sysfs, seed=spec.name)
        kubelet = Kubelet(
            spec.name,
            folder,
            self._connect(),
            cpu="128",
            memory="1024Gi",
            seed=self._seed,
            labels={"gputopo.dev/machine": spec.machine.name},
        )
        kubelet.start()
        self._undo.append((f"kubelet {spec.name}", kubelet.stop))
        port = free_port()
        faults = folder / "faults.yaml"
        faults.touch()
        plugin = Daemon(
            f"device-plugin {spec.name}",
            own_command(
                "device-plugin",
                *("--node-name", spec.name),
                *("--kubeconfig", str(self.kubeconfig)),
                *("--resource", RESOURCE),
                *("--device-plugins-dir", str(kubelet.device_plugins_dir)),
                *("--pod-resources-socket", str(kubelet.pod_resources_socket)),
                *("--sysfs-root", str(sysfs)),
                *("--ops-host", "127.0.0.1", "--ops-port", str(port)),
                *("--config", str(self.folder / "plugin.yaml")),
                *("--mock-machine", spec.reference),
                *("--mock-faults", str(faults)),
                *(("--mig-strategy", "mixed") if spec.name in self._mig_nodes else ()),
            ),
            self.logs / f"{spec.name}.log",
        )
        plugin.start()
        return Node(spec, folder, kubelet, plugin, port)

    def _connect(self) -> KubeClient:
        client = connect(str(self.kubeconfig))
        self._undo.append(("client", client.close))
        return client

    def _advertises(self, name: str) -> bool:
        return self.observation.gpus_of(name) == len(self.nodes[name].spec.machine.gpus)

    def _missing(self) -> int:
        return sum(not self._advertises(name) for name in self.nodes)

    def _wait_for(
        self, daemon: Daemon, there: Callable[[], bool], end: float, stopping: threading.Event
    ) -> None:
        while not there():
            if stopping.is_set():
                raise ClusterError("stopped while starting")
            if time.monotonic() > end or daemon.starts > _MOST_STARTS:
                tail = daemon.tail() or "(its log is empty)"
                raise ClusterError(f"{daemon.name} did not come up; the end of its log:\n{tail}")
            stopping.wait(0.05)
