"""What there is to say about the node at this moment, for the publisher to pull."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec
import structlog

from deviceplugin.metrics import Metrics
from deviceplugin.pods.holdings import Holdings, Reading
from deviceplugin.publishing.state import Held, carry_over, compose_state, judge_realised, on_gpus
from deviceplugin.resources.stock import Stock
from runtime.objects import Pod
from topology.errors import WireError
from topology.model import NodeTopology
from topology.wire import DeviceCondition, NodeState, encode_topology

_log = structlog.get_logger("deviceplugin.books")


class Books:
    """Composes topology and state, and counts each pod once by whether it got its promised set.

    One thread uses it. `reading` is None until kubelet has answered once: an empty state would
    tell the scheduler that every GPU is free. `conditions` is what is said of each device.
    """

    def __init__(
        self,
        *,
        stock: Callable[[], Stock],
        reading: Callable[[], Reading | None],
        pods: Callable[[], Mapping[str, Pod]],
        metrics: Metrics,
        conditions: Callable[[], dict[str, DeviceCondition]] = dict,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stock = stock
        self._reading = reading
        self._pods = pods
        self._metrics = metrics
        self._conditions = conditions
        self._clock = clock
        self._held: dict[str, Held] = {}
        self._judged: set[str] = set()
        self._encoded: tuple[NodeTopology, str | None] | None = None

    def topology(self) -> str | None:
        """Return the topology's text, None before the first discovery or if it is too large."""
        topology = self._stock().inventory.topology
        if not topology.gpus:
            return None
        if self._encoded is None or self._encoded[0] is not topology:
            self._encoded = (topology, self._encode(topology))
        return self._encoded[1]

    def state(self) -> NodeState | None:
        """Return the state as it is now, None while too little is known."""
        stock, reading, pods = self._stock(), self._reading(), self._pods()
        if not stock.inventory.topology.gpus or reading is None:
            return None
        holdings = on_gpus(reading.everything(), stock.inventory)
        self._judge(holdings, pods)
        self._held = carry_over(self._held, holdings, pods, self._clock())
        believed = Holdings({key: held.pod for key, held in self._held.items()})
        state = compose_state(stock, believed, pods)
        return msgspec.structs.replace(state, conditions=self._conditions())

    def _judge(self, holdings: Holdings, pods: Mapping[str, Pod]) -> None:
        verdicts = judge_realised(holdings, pods)
        for uid, honoured in verdicts.items():
            if uid in self._judged:
                continue
            self._metrics.realised.labels("honoured" if honoured else "mismatched").inc()
            if not honoured:
                _log.warning("pod runs with another set than it was bound with", uid=uid)
        # A pod that kubelet does not show for a while, as after its restart, is not judged twice.
        alive = {pod.metadata.uid for pod in pods.values()}
        self._judged = (self._judged | verdicts.keys()) & alive

    def _encode(self, topology: NodeTopology) -> str | None:
        try:
            return encode_topology(topology)
        except WireError as error:
            _log.error("topology cannot be published", problem=str(error))
            return None
