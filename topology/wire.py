"""The annotations: versioned JSON to and from the model.

Unknown fields are ignored, so that newer writers do not break older readers; an unknown version
or a broken value raises WireError with the place, and the caller treats it as absent.
"""

from __future__ import annotations

from typing import Final

import msgspec

from topology.errors import ModelError, WireError
from topology.links import Level
from topology.model import Clique, Gpu, LevelMatrix, Nic, NodeTopology

TOPOLOGY_KEY: Final = "gputopo.dev/topology"
STATE_KEY: Final = "gputopo.dev/state"
ASSIGNMENT_KEY: Final = "gputopo.dev/gpus"
PROFILE_KEY: Final = "gputopo.dev/profile"
MIN_LINK_KEY: Final = "gputopo.dev/min-link"
GPU_MODEL_KEY: Final = "gputopo.dev/gpu-model"
GPU_MEMORY_KEY: Final = "gputopo.dev/gpu-memory"
STRICT_KEY: Final = "gputopo.dev/strict"

VERSION: Final = 1
MAX_TOPOLOGY_BYTES: Final = 16 * 1024

# One letter a level keeps 16 GPUs and 16 NICs far below 16 KiB.
_LETTER = {
    Level.SELF: ".",
    Level.PIX: "i",
    Level.PXB: "x",
    Level.PHB: "h",
    Level.NODE: "n",
    Level.SYS: "s",
}
_LEVEL = {letter: level for level, letter in _LETTER.items()}


class NodeState(msgspec.Struct, frozen=True):
    """What the node's plugin knows to be true now.

    `unhealthy` maps the uuid of each GPU that must not be given out to the reason. `allocations`
    maps a pod (its UID, or ``namespace/name`` where the UID is unknown) to the uuids that kubelet
    really gave it. `resources` names what the plugin advertises. `generation` grows with each change.
    """

    generation: int
    resources: tuple[str, ...] = ()
    unhealthy: dict[str, str] = {}
    allocations: dict[str, tuple[str, ...]] = {}


class Assignment(msgspec.Struct, frozen=True):
    """The set chosen for a pod: container name to GPU uuids, and why in a few numbers.

    `scores` is a summary for people (bus bandwidth in GB/s, node score). `trace` is a W3C
    traceparent, "" if there is none.
    """

    containers: dict[str, tuple[str, ...]]
    scores: dict[str, float] = {}
    trace: str = ""

    def uuids(self) -> frozenset[str]:
        """Return all GPUs of the pod."""
        return frozenset(uuid for uuids in self.containers.values() for uuid in uuids)
