"""What becomes of GPUs in MIG mode under each strategy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from deviceplugin.resources.names import LEGACY_MIG_UUID

if TYPE_CHECKING:
    from deviceplugin.nvml_interface import MigDevice


def check_single(gpus: Iterable[str], mig: Mapping[str, tuple[MigDevice, ...]]) -> str:
    """Return why a node cannot be offered under the single strategy, "" if it can.

    All GPUs are in MIG mode or none is, each is cut, and all instances are alike.
    """
    uuids = tuple(gpus)
    cut = [uuid for uuid in uuids if uuid in mig]
    if not cut:
        return ""
    if len(cut) < len(uuids):
        whole = next(uuid for uuid in uuids if uuid not in mig)
        return f"MIG strategy single: {whole} is not in MIG mode, others are"
    empty = [uuid for uuid in uuids if not mig[uuid]]
    if empty:
        return f"MIG strategy single: {empty[0]} is in MIG mode and has no instance"
    kinds = {_kind(one): one.profile for uuid in uuids for one in mig[uuid]}
    if len(kinds) > 1:
        return f"MIG strategy single: instances differ: {', '.join(sorted(set(kinds.values())))}"
    return ""


def offered_alone(instance: MigDevice) -> bool:
    """Return whether the mixed strategy offers an instance: it has its GPU instance to itself."""
    return instance.compute_slices == instance.gpu_slices


def split_legacy(uuid: str) -> tuple[str, int, int] | None:
    """Return GPU, GPU instance and compute instance of a MIG uuid from before driver 470.

    >>> split_legacy("MIG-GPU-0-0-0-0-a/1/0")
    ('GPU-0-0-0-0-a', 1, 0)
    """
    found = LEGACY_MIG_UUID.fullmatch(uuid)
    return None if found is None else (found[1], int(found[2]), int(found[3]))


def _kind(one: MigDevice) -> tuple[object, ...]:
    return (one.profile, one.memory_mib, one.multiprocessors, one.gpu_slices, one.compute_slices)
