"""Filter: the model and memory that a pod demands."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import BoolArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class GpuKind:
    """Wants enough GPUs of the demanded kind; a node of unknown topology shows none."""

    name = "gpu_kind"
    reason = "node has too few GPUs of the model and memory that the pod demands"
    busy = False

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Compare the number of GPUs of the kind, free or not."""
        demand = request.demand
        if not demand.count or not (demand.models or demand.memory_mib):
            # Nothing is demanded, so a node of too few GPUs is GpuCount's to refuse.
            return np.ones(len(view), np.bool_)
        enough: BoolArray = view.allowed(demand) >= demand.count
        return enough
