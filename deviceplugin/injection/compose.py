"""Makes the CDI files of a node. Pure.

A container that is given a GPU gets its device nodes; every such container gets the control nodes
and the driver's files as well. Where no driver is seen the nodes are all: then the runtime's own
hook, or the image, brings the libraries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Final

from deviceplugin.config.model import Config, Flags
from deviceplugin.injection.answer import ALL, GPU_CLASS, IMEX_CLASS, VENDOR, cdi_name
from deviceplugin.injection.driver import DriverFiles
from deviceplugin.injection.spec import BindMount, CdiDevice, Edits, Hook, Node, Spec
from deviceplugin.resources.facts import IMEX_CHANNEL, NodeFacts
from deviceplugin.resources.stock import Stock

READ_ONLY: Final = ("ro", "nosuid", "nodev", "rbind", "rprivate")
NOT_TWICE: Final = "NVIDIA_VISIBLE_DEVICES=void"
"""Tells a runtime that knows the variable too that the devices have been injected."""

ALL_HOOKS: Final = "all"
SYMLINKS: Final = "create-symlinks"
LDCACHE: Final = "update-ldcache"


def compose(stock: Stock, driver: DriverFiles) -> dict[str, Spec]:
    """Return the specs by class; a class without devices has none."""
    flags, facts = stock.config.flags, stock.facts
    specs = {
        GPU_CLASS: _spec(GPU_CLASS, _gpus(stock), _common(flags, facts, driver)),
        IMEX_CLASS: _spec(IMEX_CLASS, _channels(stock.config, facts)),
    }
    for mode, nodes in facts.mode_nodes.items():
        edits = Edits(device_nodes=_nodes(nodes, flags))
        specs[mode] = _spec(mode, [CdiDevice(ALL, edits)])
    return {name: spec for name, spec in specs.items() if spec.devices}


def _spec(name: str, devices: Sequence[CdiDevice], edits: Edits | None = None) -> Spec:
    return Spec(f"{VENDOR}/{name}", tuple(devices), edits or Edits())


def _gpus(stock: Stock) -> list[CdiDevice]:
    """Return every GPU and instance, offered or not, under its uuid and its index.

    A container that is started again is given the names of before, whatever the configuration
    says by then.
    """
    inventory, names = stock.inventory, dict[str, str]()
    for gpu in sorted(inventory.topology.gpus, key=lambda gpu: gpu.index):
        names[gpu.uuid] = gpu.uuid
        names[str(gpu.index)] = gpu.uuid
        for one in inventory.mig.get(gpu.uuid, ()):
            names[one.uuid] = one.uuid
            names[f"{gpu.index}:{one.index}"] = one.uuid
    return [
        CdiDevice(
            cdi_name(name),
            Edits(device_nodes=_nodes(stock.facts.nodes.get(uuid, ()), stock.config.flags)),
        )
        for name, uuid in names.items()
    ]


def _channels(config: Config, facts: NodeFacts) -> list[CdiDevice]:
    if not facts.has_channel:
        return []
    edits = Edits(device_nodes=_nodes([IMEX_CHANNEL], config.flags))
    return [CdiDevice(str(channel), edits) for channel in config.imex.channel_ids]


def _common(flags: Flags, facts: NodeFacts, driver: DriverFiles) -> Edits:
    root = flags.nvidia_driver_root.rstrip("/")
    files = (*driver.libraries, *driver.others)
    return Edits(
        env=(NOT_TWICE,),
        device_nodes=_nodes(facts.control_nodes, flags),
        mounts=tuple(BindMount(root + path, path, READ_ONLY) for path in files),
        hooks=tuple(_hooks(flags, driver)),
    )


def _nodes(paths: Iterable[str], flags: Flags) -> tuple[Node, ...]:
    root = flags.dev_root.rstrip("/")
    return tuple(Node(path, root + path if root else "") for path in paths)


def _hooks(flags: Flags, driver: DriverFiles) -> Iterator[Hook]:
    """Yield what makes the libraries be found: their other names, and the loader's cache."""
    off = flags.plugin.cdi_disable_hooks
    if not driver.libraries or ALL_HOOKS in off:
        return
    if driver.links and SYMLINKS not in off:
        words = [word for link, target in driver.links for word in ("--link", f"{target}::{link}")]
        yield _hook(flags, SYMLINKS, words)
    if LDCACHE not in off:
        folders = dict.fromkeys(str(PurePosixPath(path).parent) for path in driver.libraries)
        words = [word for folder in folders for word in ("--folder", folder)]
        yield _hook(flags, LDCACHE, words)


def _hook(flags: Flags, name: str, words: Sequence[str]) -> Hook:
    program = flags.plugin.nvidia_ctk_path
    own = PurePosixPath(program).name
    # The toolkit's older program has the hooks under a word of their own.
    args = (own, "hook", name, *words) if own == "nvidia-ctk" else (own, name, *words)
    return Hook("createContainer", program, args)
