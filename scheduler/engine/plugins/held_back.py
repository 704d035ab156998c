"""Filter: nodes that take no pods with GPUs for now."""

from __future__ import annotations

from scheduler.engine.arrays import BoolArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class HeldBack:
    """Keeps pods off a node without a working device plugin, or with GPUs of unknown holder.

    A pod bound to a node whose plugin is away may be rejected by kubelet for good.
    """

    name = "held_back"
    reason = "node is held back until its device plugin has reported which GPUs are in use"
    busy = False

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Pass nodes that are not held back."""
        passes: BoolArray = ~view.held_back
        if not request.demand.count:
            passes[:] = True
        return passes
