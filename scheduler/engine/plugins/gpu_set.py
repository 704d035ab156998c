"""Reserve: the set of the profile's policy."""

from __future__ import annotations

from scheduler.engine.request import PodRequest
from scheduler.engine.sets import SetChoice
from scheduler.engine.view import View


class GpuSetChoice:
    """Takes the set that the tables name for the node's free GPUs.

    A share is taken of the GPU that wastes least by it; of equals that are idle, from the one
    whose links the rest will miss least.
    """

    name = "gpu_set"

    def reserve(self, view: View, place: int, request: PodRequest) -> SetChoice | None:
        """Look the set up."""
        return view.choice(place, request)
