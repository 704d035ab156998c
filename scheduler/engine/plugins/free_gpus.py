"""Filter: enough free GPUs now."""

from __future__ import annotations

from scheduler.engine.arrays import BoolArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class FreeGpus:
    """Wants as many free GPUs as the pod requests, or one with its share free."""

    name = "free_gpus"
    reason = "node has too few free GPUs"
    busy = True

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Compare the number of free GPUs."""
        demand = request.demand
        enough: BoolArray
        if demand.shares:
            enough = view.sharable(demand) | ~view.annotated
        else:
            enough = (view.free >= demand.count) | ~view.annotated
        return enough
