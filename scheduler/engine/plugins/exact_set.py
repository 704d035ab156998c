"""Filter: a node whose topology is unknown cannot promise anything about a set."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import BoolArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class ExactSet:
    """Wants a known topology for pods that are strict or demand a link."""

    name = "exact_set"
    reason = "node does not publish its GPU topology, which the pod's demands need"
    busy = False

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Pass all nodes of known topology, and all for pods without such demands."""
        if request.demand.strict or request.demand.min_link:
            return view.annotated
        return np.ones(len(view), np.bool_)
