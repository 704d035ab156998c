"""Which device nodes the host has, and which of them belong to a device."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from deviceplugin.config.model import Config
from deviceplugin.resources.inventory import Inventory

CONTROL_NODES: Final = (
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
)
IMEX_CHANNEL: Final = "/dev/nvidia-caps-imex-channels/channel0"

GDS: Final = "gds"
MOFED: Final = "mofed"
GDRCOPY: Final = "gdrcopy"

_MODE_NODES: Final = {
    GDS: ("dev/nvidia-fs[0-9]*",),
    MOFED: ("dev/infiniband/uverbs*", "dev/infiniband/rdma_cm"),
    GDRCOPY: ("dev/gdrdrv",),
}
"""The device nodes of each mode, as patterns below the root."""


class NodeFacts(msgspec.Struct, frozen=True):
    """What Allocate needs to know of the host, read beforehand.

    `control_nodes` are those of all GPUs that exist. `nodes` are the device nodes of each GPU or
    MIG instance by uuid. `has_channel` says whether the host has IMEX channel 0. `mode_nodes` are
    the device nodes of the modes that are switched on and that the host has. `mps_ready` are the
    resources whose MPS control daemon has made its pipe.
    """

    control_nodes: tuple[str, ...] = ()
    nodes: dict[str, tuple[str, ...]] = {}
    has_channel: bool = False
    mode_nodes: dict[str, tuple[str, ...]] = {}
    mps_ready: frozenset[str] = frozenset()

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes that have anything to inject."""
        return tuple(self.mode_nodes)


def read_facts(root: Path, mps: Path, inventory: Inventory, config: Config) -> NodeFacts:
    """Look at the host's /dev, which is below `root`, and at MPS' folders, which are in `mps`."""
    switches = {
        GDS: config.flags.gds_enabled,
        MOFED: config.flags.mofed_enabled,
        GDRCOPY: config.flags.gdrcopy_enabled,
    }
    found = {mode: _find(root, _MODE_NODES[mode]) for mode, on in switches.items() if on}
    return NodeFacts(
        control_nodes=tuple(path for path in CONTROL_NODES if (root / path[1:]).exists()),
        nodes=device_nodes(inventory),
        has_channel=(root / IMEX_CHANNEL[1:]).exists(),
        mode_nodes={mode: nodes for mode, nodes in found.items() if nodes},
        mps_ready=frozenset(
            str(path.parent.parent.relative_to(mps)) for path in mps.glob("*/*/pipe/control")
        )
        if config.sharing.mps
        else frozenset(),
    )


def device_nodes(inventory: Inventory) -> dict[str, tuple[str, ...]]:
    """Return the device nodes of every GPU and MIG instance, by uuid. Pure.

    An instance needs its GPU's node and one for each of its two capabilities.
    """
    nodes: dict[str, tuple[str, ...]] = {}
    for gpu in inventory.topology.gpus:
        own = f"/dev/nvidia{gpu.minor}"
        nodes[gpu.uuid] = (own,)
        for one in inventory.mig.get(gpu.uuid, ()):
            minors = (one.gpu_minor, one.compute_minor)
            nodes[one.uuid] = (
                own,
                *(f"/dev/nvidia-caps/nvidia-cap{minor}" for minor in minors if minor is not None),
            )
    return nodes


def missing_channel(config: Config, facts: NodeFacts) -> str:
    """Return the problem when a required IMEX channel is not there, "" otherwise."""
    if config.imex.required and config.imex.channel_ids and not facts.has_channel:
        return f"imex.required: there is no {IMEX_CHANNEL}"
    return ""


def _find(root: Path, patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(
        f"/{path.relative_to(root)}" for pattern in patterns for path in sorted(root.glob(pattern))
    )
