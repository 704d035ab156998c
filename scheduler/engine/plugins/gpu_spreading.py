"""Score: leave pods that share a GPU as much of it as can be."""

from __future__ import annotations

from scheduler.engine.arrays import FloatArray
from scheduler.engine.plugins.gpu_packing import left_on_device
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class GpuSpreading:
    """How much of the pod's GPU would stay free, 0 to 1; nothing for pods with whole GPUs."""

    name = "gpu_spreading"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return the part that is free once the pod is there."""
        return left_on_device(view, request)
