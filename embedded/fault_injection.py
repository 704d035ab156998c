"""Breaks things on purpose while a demo runs, and watches how long each takes to be well again.

Each fault has a thread of its own that waits for its time. *Well* is asked of the cluster from
outside: process alive, readiness probe, the node's allocatable GPUs at the API server.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from embedded.annotations import PROBE_KEY
from embedded.cluster import Cluster, Node
from embedded.fault_script import ScriptedFault
from embedded.faults import Fault, FaultKind
from embedded.ledger import TakenGpu
from embedded.reports import FaultReport
from mock_nvml.state import gpu_uuid
from topology.model import MAX_GPUS

# A lost GPU waits for the next initialisation of NVML and for its hold time; the rest is quicker.
RECOVERY_SECONDS: Final = 60.0
NOTICE_SECONDS: Final = 20.0
_POLL: Final = 0.05
# Double-bit ECC: makes a GPU unhealthy, and a GPU that then passes its probes is taken back.
_XID: Final = 48


class FaultInjection:
    """The faults of a run. `start` arms them; times count from there."""

    def __init__(
        self,
        cluster: Cluster,
        faults: Sequence[Fault],
        stopping: threading.Event,
        script: Sequence[ScriptedFault] = (),
    ) -> None:
        self._cluster = cluster
        self._script = tuple(script)
        self._script_report: FaultReport | None = None
        self._stopping = stopping
        self._faults = tuple(faults)
        self._lock = threading.Lock()
        self._reports: dict[int, FaultReport] = {}
        self._taken: dict[int, TakenGpu] = {}
        self._notes: list[str] = []
        self._began = 0.0
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"fault {fault}", daemon=True)
            for number, fault in enumerate(self._faults)
        ]
        if self._script:
            self._threads.append(
                threading.Thread(target=self._play, name="fault script", daemon=True)
            )

    def start(self) -> None:
        """Arm the faults."""
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()

    def over(self) -> bool:
        """Tell whether every fault has happened and recovered, or was given up."""
        return not any(thread.is_alive() for thread in self._threads)

    def taken(self) -> tuple[TakenGpu, ...]:
        """Return the GPUs that faults took away."""
        with self._lock:
            return tuple(self._taken.values())

    def notes(self) -> tuple[str, ...]:
        """Return a line for each thing that happened so far."""
        with self._lock:
            return tuple(self._notes)

    def reports(self) -> tuple[FaultReport, ...]:
        """Return what each fault did; one that did not happen counts as not recovered."""
        with self._lock:
            reports = [
                self._reports.get(
                    number, FaultReport(fault.kind, fault.node, fault.at, "not reached", None)
                )
                for number, fault in enumerate(self._faults)
            ]
            if self._script:
                lost = FaultReport("script", "", self._script[0].at, "not played to its end", None)
                reports.append(self._script_report or lost)
            return tuple(reports)

    def touched(self) -> tuple[str, ...]:
        """Return the nodes that the script names."""
        return tuple(dict.fromkeys(fault.node for fault in self._script))

    def _play(self) -> None:
        """Let the script's faults happen at their times, then wait until all nodes are well."""
        for number, fault in enumerate(self._script):
            if self._stopping.wait(max(0.0, self._began + fault.at - time.monotonic())):
                return
            with self._lock:
                for gpu in fault.gpus:
                    key = -1 - number * MAX_GPUS - gpu
                    uuid = gpu_uuid(fault.node, gpu)
                    self._taken[key] = TakenGpu(fault.node, uuid, time.monotonic())
            entry = msgspec.json.encode(fault.entry).decode()
            _append(self._cluster.nodes[fault.node], f"- {entry}")
            self._note(f"{self._now():5.1f} s  {fault}")
        ended = time.monotonic()
        recovered = self._wait(self._all_well, RECOVERY_SECONDS)
        after = round(time.monotonic() - ended, 2) if recovered else None
        with self._lock:
            for key, taken in self._taken.items():
                if key < 0 and recovered:
                    self._taken[key] = msgspec.structs.replace(taken, until=time.monotonic())
            self._script_report = FaultReport(
                "script",
                ",".join(self.touched()),
                self._script[0].at,
                f"{len(self._script)} faults of the script",
                after,
            )
        told = "not all is well again" if after is None else f"all well again after {after:.1f} s"
        self._note(f"{self._now():5.1f} s  the script is over: {told}")

    def _all_well(self) -> bool:
        """Tell whether each touched node is ready and calls no GPU unhealthy."""
        for name in self.touched():
            state = self._cluster.observation.state_of(name)
            if state is None or state.unhealthy or not self._cluster.node_ready(name):
                return False
        return True

    def _run(self, number: int) -> None:
        fault = self._faults[number]
        if self._stopping.wait(max(0.0, self._began + fault.at - time.monotonic())):
            return
        at = round(time.monotonic() - self._began, 2)
        try:
            what, well = self._break(number)
        except Exception as error:  # noqa: BLE001 -- a fault that cannot be made is a result too
            self._finish(number, FaultReport(fault.kind, fault.node, at, f"failed: {error}", None))
            return
        if not fault.lasting and fault.kind is not FaultKind.GPU_XID:
            self._note(f"{at:5.1f} s  {what}")  # the others have said that they began
        ended = time.monotonic()
        recovered = self._wait(well, RECOVERY_SECONDS)
        after = round(time.monotonic() - ended, 2) if recovered else None
        self._finish(number, FaultReport(fault.kind, fault.node, at, what, after))
        told = "did not recover" if after is None else f"well again after {after:.1f} s"
        self._note(f"{self._now():5.1f} s  {fault}: {told}")

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _finish(self, number: int, report: FaultReport) -> None:
        with self._lock:
            self._reports[number] = report
            if number in self._taken and report.recovered_after is not None:
                taken = self._taken[number]
                self._taken[number] = msgspec.structs.replace(taken, until=time.monotonic())

    def _note(self, text: str) -> None:
        with self._lock:
            self._notes.append(text)

    def _wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end or self._stopping.wait(_POLL):
                return False
        return True

    def _break(self, number: int) -> tuple[str, Callable[[], bool]]:
        """Do it; return what was done, and how to ask whether all is well again."""
        fault = self._faults[number]
        if fault.kind is FaultKind.EXTENDER_KILLED:
            return self._kill_extender()
        if fault.kind is FaultKind.APISERVER_AWAY:
            return self._take_api_server(fault.lasting)
        node = self._cluster.nodes[fault.node]
        if fault.kind in (FaultKind.GPU_LOST, FaultKind.GPU_XID):
            return self._harm_gpu(number, node)
        breaks = {
            FaultKind.PLUGIN_KILLED: self._kill_plugin,
            FaultKind.PLUGIN_SOCKET_DELETED: self._delete_socket,
            FaultKind.KUBELET_RESTARTED: self._restart_kubelet,
            FaultKind.KUBELET_SOCKET_RECREATED: self._recreate_socket,
        }
        return breaks[fault.kind](node)

    def _kill_plugin(self, node: Node) -> tuple[str, Callable[[], bool]]:
        name, pid = node.spec.name, node.plugin.pid
        node.plugin.kill()

        def well() -> bool:
            return node.plugin.pid not in (None, pid) and self._cluster.node_ready(name)

        return f"device plugin of {name} killed (pid {pid})", well

    def _kill_extender(self) -> tuple[str, Callable[[], bool]]:
        daemon = self._cluster.extender
        pid = daemon.pid
        daemon.kill()

        def well() -> bool:
            return daemon.pid not in (None, pid) and self._cluster.extender_ready()

        return f"extender killed (pid {pid})", well

    def _delete_socket(self, node: Node) -> tuple[str, Callable[[], bool]]:
        folder = node.kubelet.device_plugins_dir
        sockets = [each for each in folder.iterdir() if each.is_socket()]
        own = [each for each in sockets if each.name != "kubelet.sock"]
        for each in own:
            each.unlink()
        well = self._registered_again(node)
        return f"socket of {node.spec.name}'s device plugin deleted", well

    def _restart_kubelet(self, node: Node) -> tuple[str, Callable[[], bool]]:
        well = self._registered_again(node)
        node.kubelet.restart()
        return f"kubelet of {node.spec.name} restarted", well

    def _recreate_socket(self, node: Node) -> tuple[str, Callable[[], bool]]:
        well = self._registered_again(node)
        node.kubelet.wipe_socket()
        return f"kubelet.sock of {node.spec.name} re-created", well

    def _registered_again(self, node: Node) -> Callable[[], bool]:
        """Well means: a registration more than there was, and all GPUs to be had."""
        before = len(node.kubelet.journal.entries("registered"))

        def well() -> bool:
            again = len(node.kubelet.journal.entries("registered")) > before
            return again and self._cluster.node_ready(node.spec.name)

        return well

    def _take_api_server(self, seconds: float) -> tuple[str, Callable[[], bool]]:
        self._cluster.api.go_away()
        self._note(f"{self._now():5.1f} s  API server away")
        self._stopping.wait(seconds)
        self._cluster.api.come_back()
        mark = f"{time.monotonic():.3f}"
        first = next(iter(self._cluster.nodes))
        path = f"/api/v1/nodes/{first}"
        self._cluster.client.patch(path, {"metadata": {"annotations": {PROBE_KEY: mark}}})

        def well() -> bool:
            # What was written after the return is seen by watch, and every daemon is ready.
            seen = self._cluster.observation.nodes().get(first)
            return (
                seen is not None
                and seen.metadata.annotation(PROBE_KEY) == mark
                and self._cluster.extender_ready()
                and all(self._cluster.node_ready(name) for name in self._cluster.nodes)
            )

        return f"API server away for {seconds:g} s", well

    def _harm_gpu(self, number: int, node: Node) -> tuple[str, Callable[[], bool]]:
        fault, name, gpu = self._faults[number], node.spec.name, 0
        whole = len(node.spec.machine.gpus)
        with self._lock:
            self._taken[number] = TakenGpu(name, gpu_uuid(name, gpu), time.monotonic())
        lost = fault.kind is FaultKind.GPU_LOST
        script = (
            f"- {{kind: lost, gpu: {gpu}}}" if lost else f"- {{kind: xid, gpu: {gpu}, xid: {_XID}}}"
        )
        _append(node, script)
        self._note(f"{self._now():5.1f} s  GPU {gpu} of {name} {'lost' if lost else 'has an XID'}")
        noticed = self._wait(
            lambda: self._cluster.observation.gpus_of(name) == whole - 1, NOTICE_SECONDS
        )
        if lost:
            left = self._began + fault.end - time.monotonic()
            self._stopping.wait(max(0.0, left))
            _append(node, f"- {{kind: recover, gpu: {gpu}}}")
        done = f"GPU {gpu} of {name} " + (
            f"lost for {fault.lasting:g} s" if lost else f"reported XID {_XID}"
        )
        told = "" if noticed else ", which nobody noticed"
        return done + told, lambda: noticed and self._cluster.node_ready(name)


def _append(node: Node, entry: str) -> None:
    """Add an entry to the node's fault script, which its mock NVML follows."""
    with node.faults.open("a") as script:
        script.write(entry + "\n")
