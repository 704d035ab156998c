"""Filter: enough free GPUs now."""

from __future__ import annotations

from scheduler.engine.arrays import BoolArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class FreeGpus:
    """Wants as many free GPUs as the pod requests."""

    name = "free_gpus"
    reason = "node has too few free GPUs"
    busy = True

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Compare the number of free GPUs."""
        enough: BoolArray = (view.free >= request.demand.count) | ~view.annotated
        return enough
