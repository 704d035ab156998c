"""Score: fill nodes up before opening new ones."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class Packing:
    """The share of the node's healthy GPUs that are in use once the pod is there, 0 to 1."""

    name = "packing"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return the share; 0 for nodes of unknown topology."""
        left = np.maximum(view.free - request.demand.count, 0)
        share: FloatArray = np.where(view.annotated, 1 - left / np.maximum(view.healthy, 1), 0.0)
        return share
