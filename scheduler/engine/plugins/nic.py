"""Score: GPUs near a network interface, for GPUDirect."""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View
from topology.links import Level

NEAREST: Final = int(Level.PIX)
FARTHEST: Final = int(Level.SYS)


class Nic:
    """How near the set's GPUs are to their nearest NICs, 0 to 1, on average.

    1 is behind one PCIe switch, where a NIC reads GPU memory past the CPU; 0 across sockets, or no
    NIC at all. A pod with a share, or without GPUs, has no set: all nodes score 0.
    """

    name = "nic"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return the mean over the set's GPUs."""
        level = np.nan_to_num(view.nic_level(request.demand), nan=float(FARTHEST))
        near: FloatArray = np.clip((FARTHEST - level) / (FARTHEST - NEAREST), 0, 1)
        return np.where(view.annotated, near, 0.0)
