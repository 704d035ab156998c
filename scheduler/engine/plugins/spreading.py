"""Score: keep nodes as empty as can be."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import WHOLE_GPU_MILLI, PodRequest
from scheduler.engine.view import View


class Spreading:
    """The share of the node's healthy GPUs that stay free once the pod is there, 0 to 1."""

    name = "spreading"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return the share; 0 for nodes of unknown topology."""
        left = np.maximum(view.idle - request.demand.gpu_milli, 0)
        share: FloatArray = left / (np.maximum(view.healthy, 1) * WHOLE_GPU_MILLI)
        return share
