"""Filter: CPU, memory and places for pods, as kube-scheduler's own filter counts them."""

from __future__ import annotations

from scheduler.engine.arrays import BoolArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class NodeRoom:
    """Wants room for what the pod requests beside GPUs.

    Candidates that kube-scheduler sends have passed this; a trace's and a dry run's have not.
    """

    name = "node_room"
    reason = "node has too little free CPU or memory, or takes no more pods"
    busy = True

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Compare with what is free."""
        asks = request.asks
        enough: BoolArray = (view.cpu >= asks.cpu_milli) & (view.memory >= asks.memory_mib)
        enough &= view.pods > 0
        return enough
