"""Score: how fast the best obtainable set talks."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class LinkQuality:
    """The predicted bus bandwidth of the set, in GB/s, as a share of the fastest candidate's.

    The scale is absolute: half the bandwidth is half the score whatever the machine's own best
    would be, so a faster machine wins. One GPU alone has no links: then all score 0.
    """

    name = "link_quality"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return GB/s; nothing for nodes of unknown topology."""
        quality: FloatArray = np.where(view.annotated, view.quality(request.demand), 0.0)
        return quality

    def normalize(self, view: View, raw: FloatArray) -> FloatArray:  # noqa: ARG002 -- the protocol's signature
        """Divide by the best."""
        best = raw.max(initial=0.0)
        scaled: FloatArray = raw / best if best > 0 else np.zeros_like(raw)
        return scaled
