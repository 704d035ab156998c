"""Score: rare models are kept for the pods that can run on nothing else."""

from __future__ import annotations

from typing import Final

from scheduler.engine.arrays import FloatArray
from scheduler.engine.milli import scale_milli
from scheduler.engine.request import WHOLE_GPU_MILLI, PodRequest
from scheduler.engine.view import View

PRESSURE: Final = 150.0
"""Thousandths of a GPU for each GPU of a model that bound pods could use up; see docs."""


class ModelFit:
    """The pressure on the node's GPU model from pods bound to models, by the GPUs asked for.

    Such pods find no other place when their model's GPUs are taken by pods that could run
    anywhere; the measure of waste knows how many they are, but not how few GPUs there are.
    """

    name = "model_fit"

    def score(self, view: View, request: PodRequest) -> FloatArray:
        """Return minus the cost in thousandths of a GPU."""
        asked = request.demand.gpu_milli / WHOLE_GPU_MILLI
        cost: FloatArray = view.pressure() * (-PRESSURE * asked)
        return cost

    def normalize(self, view: View, raw: FloatArray) -> FloatArray:  # noqa: ARG002 -- the protocol's signature
        """Put it on the scale of thousandths."""
        return scale_milli(raw)
