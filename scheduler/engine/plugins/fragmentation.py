"""Score: how much less of the free GPU is of no use to the pods to come."""

from __future__ import annotations

from typing import Final

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.milli import scale_milli
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View

LIMIT: Final = 1000.0
"""Thousandths of a GPU: to gain more on a node that has much of no use says little more."""


class Fragmentation:
    """The gain in waste over shares, CPU and models (FGD's measure), limited and not rounded.

    FGD cuts its score to whole points, one of which is 40 thousandths of a GPU; what the points
    hide is then decided by the order of nodes. Here all of it counts, and packing is in the open.
    """

    name = "fragmentation"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return thousandths of a GPU: small gains as they are, large ones bent to the limit."""
        gain: FloatArray = LIMIT * np.tanh(view.gains(request) / LIMIT)
        return gain

    def normalize(self, view: View, raw: FloatArray) -> FloatArray:  # noqa: ARG002 -- the protocol's signature
        """Put it on the scale of thousandths."""
        return scale_milli(raw)
