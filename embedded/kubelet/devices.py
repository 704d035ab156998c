"""The values that kubelet's device handling is about."""

from __future__ import annotations

from typing import Protocol

import msgspec

from embedded.kubelet.errors import PluginError


class Device(msgspec.Struct, frozen=True):
    """A device as its plugin lists it; `numa` holds the NUMA nodes it is on, if told."""

    id: str
    healthy: bool = True
    numa: tuple[int, ...] = ()


class Options(msgspec.Struct, frozen=True):
    """What a plugin answers to GetDevicePluginOptions."""

    pre_start_required: bool = False
    get_preferred_allocation_available: bool = False


class Mount(msgspec.Struct, frozen=True):
    """A host path that a container gets to see."""

    container_path: str
    host_path: str
    read_only: bool = False


class DeviceNode(msgspec.Struct, frozen=True):
    """A device file that a container gets, with the letters of ``rwm`` that it may."""

    container_path: str
    host_path: str
    permissions: str


class Injection(msgspec.Struct, frozen=True):
    """What an Allocate answer puts into a container."""

    env: dict[str, str] = {}
    mounts: tuple[Mount, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    annotations: dict[str, str] = {}
    cdi_devices: tuple[str, ...] = ()


class Endpoint(Protocol):
    """A registered device plugin, as the device manager calls it.

    Every call raises PluginError with kubelet's wording.
    """

    def preferred_allocation(
        self, available: list[str], must_include: list[str], size: int
    ) -> list[str]:
        """Ask which devices the plugin would like to give; an empty answer means no wish."""

    def allocate(self, devices: list[str]) -> Injection:
        """Tell the plugin what is given and learn what to inject. Waits without a deadline."""

    def pre_start(self, devices: list[str]) -> None:
        """Announce a container start; at most 30 seconds."""


class StoppedEndpoint:
    """What stands for a plugin after its stream has ended: it answers without a call."""

    def __init__(self, resource: str) -> None:
        self.resource = resource

    def preferred_allocation(
        self, available: list[str], must_include: list[str], size: int
    ) -> list[str]:
        """Refuse."""
        del available, must_include, size
        raise self._stopped()

    def allocate(self, devices: list[str]) -> Injection:
        """Refuse."""
        del devices
        raise self._stopped()

    def pre_start(self, devices: list[str]) -> None:
        """Refuse."""
        del devices
        raise self._stopped()

    def _stopped(self) -> Exception:
        return PluginError(f"endpoint has been stopped: {self.resource}")


def merge_injections(parts: list[Injection]) -> Injection:
    """Put together what several resources inject; the first one to name a key or path wins."""
    env: dict[str, str] = {}
    annotations: dict[str, str] = {}
    mounts: dict[str, Mount] = {}
    nodes: dict[str, DeviceNode] = {}
    cdi: dict[str, None] = {}
    for part in parts:
        env = {**part.env, **env}
        annotations = {**part.annotations, **annotations}
        mounts = {**{mount.container_path: mount for mount in part.mounts}, **mounts}
        nodes = {**{node.container_path: node for node in part.device_nodes}, **nodes}
        cdi.update(dict.fromkeys(part.cdi_devices))
    return Injection(
        env=env,
        mounts=tuple(mounts.values()),
        device_nodes=tuple(nodes.values()),
        annotations=annotations,
        cdi_devices=tuple(cdi),
    )
