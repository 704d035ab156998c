"""Score: how little the pods to come lose when the set is gone."""

from __future__ import annotations

import numpy as np

from scheduler.engine.arrays import FloatArray
from scheduler.engine.request import PodRequest
from scheduler.engine.view import View


class LinkLoss:
    """The loss of what is left, in GB/s of bus bandwidth that the workload's mix could have had.

    The tables count the loss relative to the machine's own best. What that best is worth is what
    it has above what pods get anyway: on the machine's own worst set, or on the slowest machine
    among the candidates. So a GPU out of an NVSwitch costs more than one out of a PCIe box, and
    where links make no difference nothing is lost by them: counting GPUs is fragmentation's part.
    """

    name = "link_loss"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return minus the GB/s lost; nothing for nodes of unknown topology."""
        loss = view.loss(request)
        lost: FloatArray = np.where(np.isnan(loss), 0.0, -loss * _worth(view))
        return lost

    def normalize(self, view: View, raw: FloatArray) -> FloatArray:
        """1 is no loss, 0 the whole worth of the fastest machine among the candidates."""
        most = _worth(view).max(initial=0.0)
        scaled: FloatArray = np.clip(1 + raw / most, 0, 1) if most > 0 else np.ones_like(raw)
        return scaled


def _worth(view: View) -> FloatArray:
    """Return the bandwidth that a machine's best set has above what pods get anyway."""
    linked = view.ceiling[view.ceiling > 0]
    anyway = np.minimum(view.floor, linked.min(initial=np.inf))
    worth: FloatArray = np.where(view.ceiling > 0, view.ceiling - anyway, 0.0)
    return worth
