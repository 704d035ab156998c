"""What a test sees of a container: everything that kubelet had it created with."""

from __future__ import annotations

import msgspec


class Mount(msgspec.Struct, frozen=True):
    """A folder or file of the host in the container."""

    container_path: str
    host_path: str
    read_only: bool


class DeviceNode(msgspec.Struct, frozen=True):
    """A device node in the container; `permissions` out of r, w, m."""

    container_path: str
    host_path: str
    permissions: str


class ContainerView(msgspec.Struct, frozen=True):
    """One start of one container: whose it is, what it saw, and how it stands.

    `pod_uid` is kubelet's own: for a static pod it is not the one that the API server shows.
    `annotations` are kubelet's and the device plugins'. A restart is a new view with the next
    `attempt`. `exit_code` is None until it has ended.
    """

    namespace: str
    pod: str
    pod_uid: str
    container: str
    attempt: int
    env: dict[str, str]
    mounts: tuple[Mount, ...]
    devices: tuple[DeviceNode, ...]
    cdi_devices: tuple[str, ...]
    annotations: dict[str, str]
    running: bool
    exit_code: int | None
