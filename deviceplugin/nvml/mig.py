"""MIG through pynvml: the mode, and the devices with what they consist of."""

from __future__ import annotations

from typing import Any, Final

import pynvml

from deviceplugin.errors import NvmlError
from deviceplugin.nvml.call import call, text
from deviceplugin.nvml.interface import Code, Device, MigDevice, MigEngines

_NO_MIG: Final = (Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND)
_HOLES: Final = (Code.NOT_FOUND, Code.INVALID_ARGUMENT)
"""What an index without a device answers; indexes are sparse after a device was destroyed."""
_MARK: Final = " MIG "
"""Stands between the product and the profile in the name of a MIG device, since driver 470."""


def read_mig_mode(device: Device) -> bool | None:
    """Return whether a GPU is in MIG mode now, None for a product or driver without MIG."""
    try:
        current, _ = call(pynvml.nvmlDeviceGetMigMode, device)
    except NvmlError as error:
        if error.code in _NO_MIG:
            return None
        raise
    return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)


def read_mig_devices(device: Device) -> tuple[MigDevice, ...]:
    """Return the MIG devices of a GPU in ascending index order; () if it is not cut.

    A device that is destroyed meanwhile is left out.
    """
    found: list[MigDevice] = []
    try:
        most = int(call(pynvml.nvmlDeviceGetMaxMigDeviceCount, device))
    except NvmlError as error:
        if error.code in _NO_MIG:
            return ()
        raise
    for index in range(most):
        try:
            handle = call(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, device, index)
            found.append(_read(handle, index))
        except NvmlError as error:
            if error.code not in _HOLES:
                raise
    return tuple(found)


def _read(handle: Any, index: int) -> MigDevice:
    attributes = call(pynvml.nvmlDeviceGetAttributes_v2, handle)
    return MigDevice(
        uuid=text(call(pynvml.nvmlDeviceGetUUID, handle)),
        index=index,
        gpu_instance=int(call(pynvml.nvmlDeviceGetGpuInstanceId, handle)),
        compute_instance=int(call(pynvml.nvmlDeviceGetComputeInstanceId, handle)),
        profile=_profile(text(call(pynvml.nvmlDeviceGetName, handle)), attributes),
        memory_mib=int(attributes.memorySizeMB),
        multiprocessors=int(attributes.multiprocessorCount),
        gpu_slices=int(attributes.gpuInstanceSliceCount),
        compute_slices=int(attributes.computeInstanceSliceCount),
        engines=MigEngines(
            copy=int(attributes.sharedCopyEngineCount),
            decoder=int(attributes.sharedDecoderCount),
            encoder=int(attributes.sharedEncoderCount),
            jpeg=int(attributes.sharedJpegCount),
            ofa=int(attributes.sharedOfaCount),
        ),
    )


def _profile(name: str, attributes: Any) -> str:
    """Return the profile: the driver's own word, else made of slices and memory.

    Only the name tells ``+me`` profiles without a privileged call.
    """
    _, mark, profile = name.rpartition(_MARK)
    if mark:
        return profile
    slices = int(attributes.gpuInstanceSliceCount)
    compute = int(attributes.computeInstanceSliceCount)
    part = "" if compute == slices else f"{compute}c."
    # Names count the share of the whole, which the driver's part has been taken off here.
    return f"{part}{slices}g.{-(-int(attributes.memorySizeMB) // 1024)}gb"
