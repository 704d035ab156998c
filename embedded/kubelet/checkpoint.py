"""What kubelet writes down about devices, so that a new process knows it.

A JSON file beside the plugins' sockets, written anew at each change. Its inside is kubelet's own
business and changes between versions: nobody else may read it.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import msgspec

from embedded.kubelet.errors import KubeletError
from embedded.kubelet.poddevices import Grant

FILE_NAME = "kubelet_internal_checkpoint"


class Checkpoint(msgspec.Struct, frozen=True):
    """Who holds what, and the device IDs of each resource that was ever registered."""

    grants: tuple[Grant, ...] = ()
    registered: dict[str, tuple[str, ...]] = {}


class _Stored(msgspec.Struct, frozen=True):
    data: msgspec.Raw
    checksum: int


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the file; an absent one is empty. Raises KubeletError naming a file that is broken."""
    try:
        stored = msgspec.json.decode(path.read_bytes(), type=_Stored)
        if zlib.crc32(stored.data) != stored.checksum:
            raise KubeletError(f"{path}: checkpoint is corrupted")
        return msgspec.json.decode(stored.data, type=Checkpoint)
    except FileNotFoundError:
        return Checkpoint()
    except (msgspec.MsgspecError, OSError) as error:
        raise KubeletError(f"{path}: {error}") from error


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the file in one step."""
    data = msgspec.json.encode(checkpoint)
    whole = msgspec.json.encode(_Stored(data=msgspec.Raw(data), checksum=zlib.crc32(data)))
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(whole)
    fresh.replace(path)
