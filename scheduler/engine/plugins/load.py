"""Score: nodes that have less to do."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class Load:
    """The part of the node that is idle, 0 to 1; a half where its load is not known."""

    name = "load"

    def score(self, view: View, request: PodRequest) -> FloatArray:  # noqa: ARG002 -- the protocol's signature
        """Return 1 - load."""
        idle: FloatArray = np.clip(1 - np.nan_to_num(view.load, nan=0.5), 0, 1)
        return idle
