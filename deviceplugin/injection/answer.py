"""The answer to Allocate for one container, by every strategy that is on. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from deviceplugin.config.model import Config, Flags, IdStrategy, ListStrategy
from deviceplugin.resources.devices import Device, Resource, Sharing, by_index
from deviceplugin.resources.facts import IMEX_CHANNEL, NodeFacts

VISIBLE_DEVICES: Final = "NVIDIA_VISIBLE_DEVICES"
"""The variable that the NVIDIA container runtime reads; ids joined by comma."""
IMEX_CHANNELS: Final = "NVIDIA_IMEX_CHANNELS"
MOUNTED_DEVICES: Final = "/var/run/nvidia-container-devices"
"""The folder whose entries name the devices, for a runtime that trusts no environment."""

VENDOR: Final = "k8s.device-plugin.nvidia.com"
GPU_CLASS: Final = "gpu"
IMEX_CLASS: Final = "imex-channel"
ALL: Final = "all"

MPS_FOLDER: Final = "/mps"
"""Where a container finds the pipes of MPS, by resource."""

CDI_STRATEGIES: Final = frozenset([ListStrategy.CDI_ANNOTATIONS, ListStrategy.CDI_CRI])


class Mount(msgspec.Struct, frozen=True):
    """A path of the host in the container."""

    container_path: str
    host_path: str
    read_only: bool = False


class DeviceNode(msgspec.Struct, frozen=True):
    """A device node for the container, to read and to write."""

    container_path: str
    host_path: str


class ContainerAnswer(msgspec.Struct, frozen=True):
    """What one container is to be given."""

    envs: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    devices: tuple[DeviceNode, ...] = ()
    annotations: dict[str, str] = {}
    cdi_devices: tuple[str, ...] = ()


def answer(
    devices: Sequence[Device], resource: Resource, config: Config, facts: NodeFacts
) -> ContainerAnswer:
    """Return what a container needs to see these devices.

    Whole GPUs are named in index order, since kubelet asks in the random order of a set. Of
    replicas and instances the first seen comes first; those of one GPU count once. With CDI
    strategies alone there are neither the variable nor mounts nor device nodes: the runtime would
    add everything twice.
    """
    if not devices:
        return ContainerAnswer()
    flags, strategies = config.flags, config.flags.plugin.device_list_strategy
    if resource.whole:
        devices = sorted(devices, key=by_index)
    names = name_devices(devices, flags.plugin.device_id_strategy)
    channels = tuple(map(str, config.imex.channel_ids)) if facts.has_channel else ()
    qualified: tuple[str, ...] = ()
    if CDI_STRATEGIES.intersection(strategies):
        qualified = qualify(names, channels, facts.modes)
    by_mps = resource.sharing is Sharing.MPS and any(device.replicas > 1 for device in devices)
    mps = _mps(resource.name, flags.mps_root) if by_mps else ContainerAnswer()
    plain = ContainerAnswer()
    if not CDI_STRATEGIES.issuperset(strategies):
        plain = _plain(devices, names, channels, flags, facts)
    return ContainerAnswer(
        envs=mps.envs | plain.envs,
        mounts=mps.mounts + plain.mounts,
        devices=plain.devices,
        annotations=(
            annotate(flags.plugin.cdi_annotation_prefix, qualified)
            if ListStrategy.CDI_ANNOTATIONS in strategies
            else {}
        ),
        cdi_devices=qualified if ListStrategy.CDI_CRI in strategies else (),
    )


def name_devices(devices: Iterable[Device], strategy: IdStrategy) -> tuple[str, ...]:
    """Return what the devices are called outside: uuids as they came, or indexes in their order."""
    if strategy is IdStrategy.UUID:
        return tuple(dict.fromkeys(device.uuid for device in devices))
    return tuple(dict.fromkeys(device.name for device in sorted(devices, key=by_index)))


def qualify(names: Iterable[str], channels: Iterable[str], modes: Iterable[str]) -> tuple[str, ...]:
    """Return CDI's full names: GPUs, then the IMEX channel, then what belongs to every GPU."""
    return (
        *(f"{VENDOR}/{GPU_CLASS}={cdi_name(name)}" for name in names),
        *(f"{VENDOR}/{IMEX_CLASS}={channel}" for channel in channels),
        *(f"{VENDOR}/{mode}={ALL}" for mode in modes),
    )


def cdi_name(name: str) -> str:
    """Return a device's name as CDI takes it: MIG uuids from before driver 470 have slashes."""
    return name.replace("/", "_")


def annotate(prefix: str, qualified: Sequence[str]) -> dict[str, str]:
    """Return the annotation that names CDI devices; the same devices, the same key."""
    joined = ",".join(qualified)
    text = hashlib.sha256(joined.encode()).hexdigest()
    unique = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:32]}"
    return {f"{prefix}nvidia-device-plugin_{unique}": joined}


def _mps(resource: str, root: str) -> ContainerAnswer:
    pipe, host = f"{MPS_FOLDER}/{resource}/pipe", root.rstrip("/")
    return ContainerAnswer(
        envs={"CUDA_MPS_PIPE_DIRECTORY": pipe},
        mounts=(
            Mount(pipe, f"{host}/{resource}/pipe"),
            Mount("/dev/shm", f"{host}/shm"),  # noqa: S108 -- where CUDA looks for it
        ),
    )


def _plain(
    devices: Sequence[Device],
    names: tuple[str, ...],
    channels: tuple[str, ...],
    flags: Flags,
    facts: NodeFacts,
) -> ContainerAnswer:
    strategies = flags.plugin.device_list_strategy
    envs: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    if ListStrategy.ENVVAR in strategies:
        envs[VISIBLE_DEVICES] = ",".join(names)
        if channels:
            envs[IMEX_CHANNELS] = ",".join(channels)
    if ListStrategy.VOLUME_MOUNTS in strategies:
        envs[VISIBLE_DEVICES] = MOUNTED_DEVICES
        entries = (*names, *(f"imex/{channel}" for channel in channels))
        mounts = tuple(Mount(f"{MOUNTED_DEVICES}/{entry}", "/dev/null") for entry in entries)
    nodes: tuple[DeviceNode, ...] = ()
    if flags.plugin.pass_device_specs:
        nodes = _nodes_of(devices, flags, facts, with_channel=bool(channels))
    switches = {
        "NVIDIA_GDS": flags.gds_enabled,
        "NVIDIA_GDRCOPY": flags.gdrcopy_enabled,
        "NVIDIA_MOFED": flags.mofed_enabled,
    }
    envs |= {name: "enabled" for name, on in switches.items() if on}
    return ContainerAnswer(envs=envs, mounts=mounts, devices=nodes)


def _nodes_of(
    devices: Iterable[Device], flags: Flags, facts: NodeFacts, *, with_channel: bool
) -> tuple[DeviceNode, ...]:
    paths = dict.fromkeys(facts.control_nodes)
    for device in sorted(devices, key=by_index):
        paths |= dict.fromkeys(facts.nodes.get(device.uuid, ()))
    if with_channel:
        paths[IMEX_CHANNEL] = None
    root = flags.dev_root.rstrip("/")
    return tuple(DeviceNode(path, root + path) for path in paths)
