"""Score: how little the pods to come lose when the set is gone."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class LinkLoss:
    """The loss of what is left, in GB/s of bus bandwidth that the workload's mix could have had.

    The tables count the loss relative to the machine's own best. Times that best it can be
    compared between machines: a single GPU out of an NVSwitch costs more than out of a PCIe box.
    """

    name = "link_loss"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return minus the GB/s lost; nothing for nodes of unknown topology."""
        loss = np.nan_to_num(np.where(view.annotated, view.loss(request), 0.0))
        lost: FloatArray = -loss * view.ceiling
        return lost

    def normalize(self, view: View, raw: FloatArray) -> FloatArray:
        """1 is no loss, 0 the whole worth of the fastest machine among the candidates."""
        most = view.ceiling.max(initial=0.0)
        scaled: FloatArray = np.clip(1 + raw / most, 0, 1) if most > 0 else np.ones_like(raw)
        return scaled
