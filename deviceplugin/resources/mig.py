"""What becomes of GPUs in MIG mode under each strategy. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from deviceplugin.nvml.interface import MigDevice


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


def legacy_uuid(gpu: str, instance: MigDevice) -> str:
    """Return what drivers before 470 called an instance; configurations may still do.

    >>> from deviceplugin.nvml.interface import MigDevice
    >>> legacy_uuid("GPU-1", MigDevice("MIG-2", 0, 7, 3, "1g.5gb"))
    'MIG-GPU-1/7/3'
    """
    return f"MIG-{gpu}/{instance.gpu_instance}/{instance.compute_instance}"


def _kind(one: MigDevice) -> tuple[object, ...]:
    return (one.profile, one.memory_mib, one.multiprocessors, one.gpu_slices, one.compute_slices)
