"""Score: fill nodes up before opening new ones."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import WHOLE_GPU_MILLI, PodRequest
from scheduler.engine.view import View


class Packing:
    """The share of the node's healthy GPUs that are in use once the pod is there, 0 to 1."""

    name = "packing"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return the share; 0 for nodes of unknown topology."""
        left = np.maximum(view.idle - request.demand.gpu_milli, 0)
        whole = np.maximum(view.healthy, 1) * WHOLE_GPU_MILLI
        share: FloatArray = np.where(view.annotated, 1 - left / whole, 0.0)
        return share
