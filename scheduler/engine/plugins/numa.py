"""Score: GPUs on few NUMA nodes."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class Numa:
    """One over the number of NUMA nodes that the set lies on, 0 to 1.

    GPUs whose NUMA node is not known count as one more. Pods with at most one GPU, or a share, are
    on one everywhere. Nodes of unknown topology score 0.
    """

    name = "numa"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return 1 for a set on one NUMA node, a half on two."""
        nodes = view.numa_nodes(request.demand)
        return np.where(view.annotated, 1 / np.maximum(np.nan_to_num(nodes, nan=1.0), 1), 0.0)
