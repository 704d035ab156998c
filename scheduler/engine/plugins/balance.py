"""Score: CPU and GPU of a node used up together."""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.milli import free_parts, scale_milli
from scheduler.engine.request import WHOLE_GPU_MILLI, PodRequest
from scheduler.engine.view import View

# Thousandths of a GPU; docs/simulation.md tells how they were found.
FREE_CPU: Final = 90.0
STRANDED: Final = 270.0
STRANDING: Final = 100.0


class Balance:
    """What the node's CPU says, in thousandths of a GPU, after the placement.

    With `g` and `c` the free parts of its GPUs and CPU, GPUs are stranded as far as `g` exceeds
    `c`: they will stay idle for want of CPU. Three costs: free CPU, so that used nodes are filled
    before others; the stranded part; and the GPUs that this placement strands, less those that it
    frees. The last is not for pods without GPUs: they only take CPU, and would be driven to nodes
    where it is plentiful instead of to those whose GPUs are taken.
    """

    name = "balance"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return minus the cost; nothing where the node's CPU is not known."""
        demand = request.demand
        idle = view.idle
        gpu_capacity = view.gpus * WHOLE_GPU_MILLI
        cpu = free_parts(view.cpu - request.asks.cpu_milli, view.cpu_capacity)
        after = np.maximum(free_parts(idle - demand.gpu_milli, gpu_capacity) - cpu, 0)
        cost = FREE_CPU * cpu + STRANDED * after
        if demand.count:
            before = free_parts(idle, gpu_capacity) - free_parts(view.cpu, view.cpu_capacity)
            cost += STRANDING * view.gpus * (after - np.maximum(before, 0))
        score: FloatArray = np.where(view.cpu_capacity > 0, -cost, 0.0)
        return score

    def normalize(self, view: View, raw: FloatArray) -> FloatArray:  # noqa: ARG002 -- the protocol's signature
        """Put it on the scale of thousandths."""
        return scale_milli(raw)
