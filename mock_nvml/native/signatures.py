"""What each C function takes, as data: the C stubs and the server are made of it."""

from __future__ import annotations

import ctypes
from typing import Any, Final

import msgspec
import pynvml


class Value(msgspec.Struct, frozen=True):
    """A number or a handle by value, as C declares it."""

    declaration: str


class Text(msgspec.Struct, frozen=True):
    """A text that the caller gives."""


class Buffer(msgspec.Struct, frozen=True):
    """Room for a text; its size is the next argument."""


class Struct(msgspec.Struct, frozen=True):
    """A pointer to one thing, read and written."""

    kind: Any


class Versioned(msgspec.Struct, frozen=True):
    """A pointer to a struct that begins with a version word, in which its size stands."""

    kinds: tuple[Any, ...]


class Array(msgspec.Struct, frozen=True):
    """A pointer, perhaps null, to as many things as argument `count` says before the call.

    `pointed` says whether that argument is itself a pointer.
    """

    kind: Any
    count: int
    pointed: bool = True


class Answer(msgspec.Struct, frozen=True):
    """A pointer to room that the caller knows to suffice for what `count` says after the call."""

    kind: Any
    count: int
    most: int


Argument = Value | Text | Buffer | Struct | Versioned | Array | Answer

HANDLE: Final = Value("void *")
U32: Final = Value("unsigned int")
U64: Final = Value("unsigned long long")
_TEXT: Final = (Buffer(), U32)
_OUT: Final = Struct(ctypes.c_uint)
_OUT64: Final = Struct(ctypes.c_ulonglong)
_OUT_HANDLE: Final = Struct(ctypes.c_void_p)
_COUNT: Final = _OUT

_GPU_NUMBERS: Final = (
    "Architecture",
    "BoardId",
    "Brand",
    "ComputeInstanceId",
    "ComputeMode",
    "CurrPcieLinkGeneration",
    "CurrPcieLinkWidth",
    "GpuInstanceId",
    "GpuMaxPcieLinkGeneration",
    "Index",
    "MaxMigDeviceCount",
    "MaxPcieLinkGeneration",
    "MaxPcieLinkWidth",
    "MinorNumber",
    "ModuleId",
    "NumaNodeId",
    "PersistenceMode",
    "PowerUsage",
)
"""What nvmlDeviceGet... writes as one unsigned int."""

_GPU_STRUCTS: Final = {
    "Attributes_v2": pynvml.c_nvmlDeviceAttributes,
    "BAR1MemoryInfo": pynvml.c_nvmlBAR1Memory_t,
    "GpuFabricInfo": pynvml.c_nvmlGpuFabricInfo_t,
    "MemoryInfo": pynvml.c_nvmlMemory_t,
    "PciInfo_v3": pynvml.nvmlPciInfo_t,
    "RowRemapperHistogram": pynvml.c_nvmlRowRemapperHistogramValues,
    "UtilizationRates": pynvml.c_nvmlUtilization_t,
}

_FABRIC: Final = Versioned(
    (
        pynvml.c_nvmlGpuFabricInfo_v2_t,
        pynvml.c_nvmlGpuFabricInfo_v3_t,
    )
)
_GPU_PROFILE: Final = Versioned((pynvml.c_nvmlGpuInstanceProfileInfo_v2_t,))
_COMPUTE_PROFILE: Final = Versioned((pynvml.c_nvmlComputeInstanceProfileInfo_v2_t,))
_GPU_PLACE: Final = pynvml.c_nvmlGpuInstancePlacement_t
_COMPUTE_PLACE: Final = pynvml.c_nvmlComputeInstancePlacement_t
_LINK: Final = (HANDLE, U32)

SIGNATURES: Final[dict[str, tuple[Argument, ...]]] = {
    "nvmlInitWithFlags": (U32,),
    "nvmlInit_v2": (),
    "nvmlShutdown": (),
    "nvmlSystemGetDriverVersion": _TEXT,
    "nvmlSystemGetNVMLVersion": _TEXT,
    "nvmlSystemGetCudaDriverVersion": (_OUT,),
    "nvmlSystemGetCudaDriverVersion_v2": (_OUT,),
    "nvmlSystemGetTopologyGpuSet": (U32, _COUNT, Array(pynvml.c_nvmlDevice_t, 1)),
    "nvmlDeviceGetCount_v2": (_COUNT,),
    "nvmlDeviceGetHandleByIndex_v2": (U32, _OUT_HANDLE),
    "nvmlDeviceGetHandleByUUID": (Text(), _OUT_HANDLE),
    "nvmlDeviceGetHandleByPciBusId_v2": (Text(), _OUT_HANDLE),
    "nvmlDeviceGetName": (HANDLE, *_TEXT),
    "nvmlDeviceGetUUID": (HANDLE, *_TEXT),
    "nvmlDeviceGetSerial": (HANDLE, *_TEXT),
    **{f"nvmlDeviceGet{name}": (HANDLE, _OUT) for name in _GPU_NUMBERS},
    **{f"nvmlDeviceGet{name}": (HANDLE, Struct(kind)) for name, kind in _GPU_STRUCTS.items()},
    "nvmlDeviceGetMemoryInfo_v2": (HANDLE, Versioned((pynvml.c_nvmlMemory_v2_t,))),
    "nvmlDeviceGetGpuFabricInfoV": (HANDLE, _FABRIC),
    "nvmlDeviceGetCudaComputeCapability": (HANDLE, _OUT, _OUT),
    "nvmlDeviceGetClockInfo": (HANDLE, U32, _OUT),
    "nvmlDeviceGetTemperature": (HANDLE, U32, _OUT),
    "nvmlDeviceGetTemperatureThreshold": (HANDLE, U32, _OUT),
    "nvmlDeviceGetCurrentClocksEventReasons": (HANDLE, _OUT64),
    "nvmlDeviceGetCurrentClocksThrottleReasons": (HANDLE, _OUT64),
    "nvmlDeviceGetEccMode": (HANDLE, _OUT, _OUT),
    "nvmlDeviceGetTotalEccErrors": (HANDLE, U32, U32, _OUT64),
    "nvmlDeviceGetRemappedRows": (HANDLE, _OUT, _OUT, _OUT, _OUT),
    "nvmlDeviceGetRetiredPages": (HANDLE, U32, _COUNT, Array(ctypes.c_ulonglong, 2)),
    "nvmlDeviceGetComputeRunningProcesses_v3": (
        HANDLE,
        _COUNT,
        Array(pynvml.c_nvmlProcessInfo_v3_t, 1),
    ),
    "nvmlDeviceGetFieldValues": (HANDLE, U32, Array(pynvml.c_nvmlFieldValue_t, 1, pointed=False)),
    "nvmlDeviceGetTopologyCommonAncestor": (HANDLE, HANDLE, _OUT),
    "nvmlDeviceGetTopologyNearestGpus": (HANDLE, U32, _COUNT, Array(pynvml.c_nvmlDevice_t, 2)),
    "nvmlDeviceGetP2PStatus": (HANDLE, HANDLE, U32, _OUT),
    "nvmlDeviceGetCpuAffinity": (HANDLE, U32, Array(ctypes.c_ulonglong, 1, pointed=False)),
    "nvmlDeviceGetCpuAffinityWithinScope": (
        HANDLE,
        U32,
        Array(ctypes.c_ulonglong, 1, pointed=False),
        U32,
    ),
    "nvmlDeviceGetMemoryAffinity": (
        HANDLE,
        U32,
        Array(ctypes.c_ulonglong, 1, pointed=False),
        U32,
    ),
    "nvmlDeviceGetNvLinkState": (*_LINK, _OUT),
    "nvmlDeviceGetNvLinkVersion": (*_LINK, _OUT),
    "nvmlDeviceGetNvLinkCapability": (*_LINK, U32, _OUT),
    "nvmlDeviceGetNvLinkErrorCounter": (*_LINK, U32, _OUT64),
    "nvmlDeviceGetNvLinkRemotePciInfo_v2": (*_LINK, Struct(pynvml.nvmlPciInfo_t)),
    "nvmlDeviceGetNvLinkRemoteDeviceType": (*_LINK, _OUT),
    "nvmlDeviceGetSupportedEventTypes": (HANDLE, _OUT64),
    "nvmlDeviceRegisterEvents": (HANDLE, U64, HANDLE),
    "nvmlEventSetCreate": (_OUT_HANDLE,),
    "nvmlEventSetFree": (HANDLE,),
    "nvmlEventSetWait_v2": (HANDLE, Struct(pynvml.c_nvmlEventData_t), U32),
    "nvmlDeviceGetMigMode": (HANDLE, _OUT, _OUT),
    "nvmlDeviceSetMigMode": (HANDLE, U32, _OUT),
    "nvmlDeviceGetMigDeviceHandleByIndex": (HANDLE, U32, _OUT_HANDLE),
    "nvmlDeviceIsMigDeviceHandle": (HANDLE, _OUT),
    "nvmlDeviceGetDeviceHandleFromMigDeviceHandle": (HANDLE, _OUT_HANDLE),
    "nvmlDeviceGetGpuInstanceProfileInfo": (
        HANDLE,
        U32,
        Struct(pynvml.c_nvmlGpuInstanceProfileInfo_t),
    ),
    "nvmlDeviceGetGpuInstanceProfileInfoV": (HANDLE, U32, _GPU_PROFILE),
    "nvmlDeviceGetGpuInstanceProfileInfoByIdV": (HANDLE, U32, _GPU_PROFILE),
    "nvmlDeviceGetGpuInstancePossiblePlacements_v2": (HANDLE, U32, Array(_GPU_PLACE, 3), _COUNT),
    "nvmlDeviceGetGpuInstanceRemainingCapacity": (HANDLE, U32, _COUNT),
    "nvmlDeviceCreateGpuInstance": (HANDLE, U32, _OUT_HANDLE),
    "nvmlDeviceCreateGpuInstanceWithPlacement": (HANDLE, U32, Struct(_GPU_PLACE), _OUT_HANDLE),
    "nvmlDeviceGetGpuInstances": (HANDLE, U32, Answer(ctypes.c_void_p, 3, 8), _COUNT),
    "nvmlDeviceGetGpuInstanceById": (HANDLE, U32, _OUT_HANDLE),
    "nvmlGpuInstanceDestroy": (HANDLE,),
    "nvmlGpuInstanceGetInfo": (HANDLE, Struct(pynvml.c_nvmlGpuInstanceInfo_t)),
    "nvmlGpuInstanceGetComputeInstanceProfileInfo": (
        HANDLE,
        U32,
        U32,
        Struct(pynvml.c_nvmlComputeInstanceProfileInfo_t),
    ),
    "nvmlGpuInstanceGetComputeInstanceProfileInfoV": (HANDLE, U32, U32, _COMPUTE_PROFILE),
    "nvmlGpuInstanceGetComputeInstanceRemainingCapacity": (HANDLE, U32, _COUNT),
    "nvmlGpuInstanceGetComputeInstancePossiblePlacements": (
        HANDLE,
        U32,
        Array(_COMPUTE_PLACE, 3),
        _COUNT,
    ),
    "nvmlGpuInstanceCreateComputeInstance": (HANDLE, U32, _OUT_HANDLE),
    "nvmlGpuInstanceCreateComputeInstanceWithPlacement": (
        HANDLE,
        U32,
        Struct(_COMPUTE_PLACE),
        _OUT_HANDLE,
    ),
    "nvmlComputeInstanceDestroy": (HANDLE,),
    "nvmlGpuInstanceGetComputeInstances": (HANDLE, U32, Answer(ctypes.c_void_p, 3, 8), _COUNT),
    "nvmlGpuInstanceGetComputeInstanceById": (HANDLE, U32, _OUT_HANDLE),
    "nvmlComputeInstanceGetInfo_v2": (HANDLE, Struct(pynvml.c_nvmlComputeInstanceInfo_t)),
}
"""Every function of the mock but nvmlErrorString, which answers with no status."""
