"""Filter: a free set that meets every demand."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import BoolArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class ObtainableSet:
    """Wants a set of free GPUs of the demanded kind whose links are all good enough."""

    name = "obtainable_set"
    reason = "no set of the node's free GPUs meets the pod's demands"
    busy = True

    def filter(self, view: View, request: PodRequest) -> BoolArray:
        """Look up whether the best obtainable set exists."""
        if not request.demand.count or request.demand.shares:
            # One GPU has no links, and FreeGpus saw that it is there.
            return np.ones(len(view), np.bool_)
        exists: BoolArray = ~np.isnan(view.quality(request.demand)) | ~view.annotated
        return exists
