"""Score: fill GPUs that are in use before idle ones."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import WHOLE_GPU_MILLI, PodRequest
from scheduler.engine.view import View


class GpuPacking:
    """How full the pod's GPUs would be, 0 to 1: for a share, the GPU that it would be given.

    Whole GPUs are always full; then all nodes score alike.
    """

    name = "gpu_packing"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return the part in use once the pod is there."""
        return 1 - left_on_device(view, request)


def left_on_device(view: View, request: PodRequest) -> FloatArray:
    """Return the part of the pod's GPUs that stays free, 0 to 1; 0 where it has none."""
    demand = request.demand
    if not demand.shares:
        return np.zeros(len(view))
    free = view.device_shares(request)
    left: FloatArray = np.maximum(free - demand.share_milli, 0) / WHOLE_GPU_MILLI
    return left
