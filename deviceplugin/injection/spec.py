"""The content of a CDI file, as far as we use it, and the lowest version that has all of it. Pure.

Runtimes refuse a file whose version is lower than its content needs, and older runtimes refuse
newer versions: so each file says the lowest one that is enough.
"""

from __future__ import annotations

from typing import Final

import msgspec

HOST_PATH: Final = "0.5.0"
"""Since when a node may have another path on the host, and a device's name begin with a digit."""
DOTTED_CLASS: Final = "0.6.0"
FIRST: Final = "0.3.0"


class Node(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A device node. `host_path` is "" where it is the same."""

    path: str
    host_path: str = ""
    permissions: str = ""


class BindMount(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A file or folder of the host in the container."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ()


class Hook(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A program of the host that the runtime runs while it makes the container."""

    hook_name: str
    path: str
    args: tuple[str, ...] = ()


class Edits(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is changed in a container."""

    env: tuple[str, ...] = ()
    device_nodes: tuple[Node, ...] = ()
    mounts: tuple[BindMount, ...] = ()
    hooks: tuple[Hook, ...] = ()


class CdiDevice(msgspec.Struct, frozen=True, rename="camel"):
    """A device that a container may be given by its name."""

    name: str
    container_edits: Edits


class Spec(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One file: the devices of a kind (``vendor/class``), and what each of them brings along."""

    kind: str
    devices: tuple[CdiDevice, ...]
    container_edits: Edits = Edits()

    def encode(self) -> bytes:
        """Return the file's content; the same spec, the same bytes."""
        body = {"cdiVersion": version_of(self), **msgspec.to_builtins(self)}
        return msgspec.json.format(msgspec.json.encode(body), indent=2) + b"\n"


def version_of(spec: Spec) -> str:
    """Return the lowest version of CDI that has everything the spec uses."""
    if "." in spec.kind.partition("/")[2]:
        return DOTTED_CLASS
    edits = (spec.container_edits, *(device.container_edits for device in spec.devices))
    moved = any(node.host_path for one in edits for node in one.device_nodes)
    digits = any(device.name[:1].isdigit() for device in spec.devices)
    return HOST_PATH if moved or digits else FIRST
