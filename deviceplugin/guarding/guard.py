"""What watches over the GPUs, wired: monitor, watchdog, cordon, and who tells of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec
import structlog

from deviceplugin.discovery.sysfs import read_gpus
from deviceplugin.discovery.topology import Discovery
from deviceplugin.guarding.conditions import ConditionLog
from deviceplugin.guarding.cordon import NODES_PATH, CordonKeeper, one_node_query
from deviceplugin.guarding.events import EventWriter
from deviceplugin.guarding.happenings import compare
from deviceplugin.guarding.monitor import Monitor
from deviceplugin.guarding.pulse import Pulse, Watchdog
from deviceplugin.guarding.recent import Recent
from deviceplugin.guarding.report import compose_report
from deviceplugin.health.xids import Response
from deviceplugin.metrics import Metrics
from deviceplugin.nvml.interface import Nvml
from deviceplugin.pods.holdings import Holdings
from deviceplugin.resources.inventory import Board, Inventory
from deviceplugin.settings import PluginSettings
from runtime.kube import KubeClient
from runtime.lifecycle import Workers
from runtime.objects import Node, Pod
from runtime.reflector import Reflector
from topology.model import NodeTopology
from topology.wire import NodeState

LAST_PAUSE: Final = 30.0
"""Seconds between two tries to watch the own Node; nothing urgent hangs on it."""

_log = structlog.get_logger("deviceplugin.guard")


class Guard:
    """All that keeps the board's inventory true, and tells Kubernetes and people of it.

    `open_nvml`, `close_nvml` and `discover` are the monitor's. `holdings` is what kubelet said
    last, None before its first answer.
    """

    def __init__(
        self,
        settings: PluginSettings,
        *,
        client: KubeClient,
        board: Board,
        metrics: Metrics,
        stopping: threading.Event,
        open_nvml: Callable[[], Nvml],
        close_nvml: Callable[[Nvml], None],
        discover: Callable[[Nvml], Discovery],
        warm: Callable[[NodeTopology], None],
        holdings: Callable[[], Holdings | None],
        pods: Callable[[], Mapping[str, Pod]],
        hold_seconds: float,
        xid_responses: Mapping[int, Response],
    ) -> None:
        self._last = Inventory()
        self._node_name = settings.node_name
        self._holdings = holdings
        self.board = board
        self.recent = Recent()
        self.conditions = ConditionLog()
        self.cordon = CordonKeeper(board, holdings=holdings, pods=pods)
        self.events = EventWriter(client, settings.node_name, metrics)
        pulse = Pulse()
        metrics.nvml_silence.set_function(pulse.silence)
        self.watchdog = Watchdog(
            pulse, board, patience=settings.nvml_patience_seconds, stopping=stopping
        )
        self.monitor = Monitor(
            open_nvml=open_nvml,
            close_nvml=close_nvml,
            discover=discover,
            board=board,
            metrics=metrics,
            stopping=stopping,
            hold_seconds=hold_seconds,
            longest_hold_seconds=settings.recovery_longest_hold_seconds,
            probe_seconds=settings.probe_seconds,
            reinit_seconds=settings.reinit_seconds,
            xid_responses=xid_responses,
            condition_responses=settings.condition_responses,
            pulse=pulse,
            recent=self.recent,
            warm=warm,
            plugged=lambda: read_gpus(Path(settings.sysfs_root)),
        )
        self._node_watch: Reflector[Node] = Reflector(
            client,
            NODES_PATH,
            Node,
            self.cordon,
            query=one_node_query(settings.node_name),
            name="node",
            last_pause=LAST_PAUSE,
        )
        board.listen(self._take)

    def remember(self, state: NodeState) -> None:
        """Take over what a former process said; before `start`. A restart heals no GPU."""
        self.conditions.adopt(state.conditions)
        if state.unhealthy:
            _log.info("GPUs were unhealthy before", unhealthy=state.unhealthy)
            self.monitor.adopt(state.unhealthy)

    def report(self, problem: str | None) -> bytes:
        """Return what ``/node`` answers; `problem` is what keeps the plugin from being ready."""
        holders: dict[str, tuple[str, ...]] = {}
        for pod in (self._holdings() or Holdings()).pods.values():
            for device in pod.uuids():
                holders[device] = (*holders.get(device, ()), pod.key)
        report = compose_report(
            self._node_name,
            self.board.read(),
            conditions=self.conditions.read(),
            holders=holders,
            reports=self.recent.read(),
            problem=problem,
        )
        return msgspec.json.encode(report)

    def start(self, workers: Workers) -> None:
        """Start the threads."""
        workers.start("events", self.events.run, self.events.stop)
        workers.start("monitor", self.monitor.run)
        workers.start("watchdog", self.watchdog.run)
        workers.start("node", self._node_watch.run, self._node_watch.stop)

    def _take(self, inventory: Inventory) -> None:
        self.conditions.take(inventory)
        before, self._last = self._last, inventory
        self.events.tell(compare(before, inventory))
