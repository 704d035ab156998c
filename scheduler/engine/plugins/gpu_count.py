"""Filter: enough healthy GPUs, free or not."""

from __future__ import annotations

from scheduler.engine.arrays import BoolArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class GpuCount:
    """Wants as many healthy GPUs as the pod requests."""

    name = "gpu_count"
    reason = "node has too few healthy GPUs"
    busy = False

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Compare the number of healthy GPUs."""
        enough: BoolArray = (view.healthy >= request.demand.count) | ~view.annotated
        return enough
