"""Score: nodes that have less to do."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class Load:
    """The part of the node that is idle, 0 to 1.

    A node of unknown load counts as the mean of the others, a half if all are unknown: it is
    neither shunned for a lost sample nor preferred for it.
    """

    name = "load"

    def score(self, view: View, request: PodRequest) -> FloatArray:  # noqa: ARG002 -- the protocol's signature
        """Return 1 - load."""
        load = view.load
        known = ~np.isnan(load)
        neutral = float(load[known].mean()) if known.any() else 0.5
        idle: FloatArray = np.clip(1 - np.where(known, load, neutral), 0, 1)
        return idle
