"""PreFilter: kubelet must be able to give the pod the set that is chosen."""

from __future__ import annotations

from scheduler.engine.request import PodRequest


class InitContainers:
    """Refuses init containers with GPUs, unless they share those of the pod's only container.

    kubelet gives an app container the devices of finished init containers in random order and
    without asking the plugin; only when it reuses all of them is the set known.
    """

    name = "init_containers"

    def pre_filter(self, request: PodRequest) -> str | None:
        """Return the constant reason if the pod's init containers break the rule."""
        if not request.init:
            return None
        counts = {container.count for container in (*request.init, *request.containers)}
        if len(request.containers) == 1 and len(counts) == 1:
            return None
        return (
            "init containers with GPUs are only possible "
            "with one container that requests as many GPUs"
        )
