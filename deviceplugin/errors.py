"""What can go wrong in the device plugin.

PluginError(Exception)
├── AllocationError(ValueError)  kubelet's question has no answer; reaches kubelet as a gRPC status
│   ├── RequestError             the question contradicts itself
│   ├── UnknownDeviceError       a device id that this node does not have
│   ├── UnhealthyDeviceError     a GPU that has failed
│   ├── HeldDeviceError          a GPU that another live pod has
│   ├── SharingError             more replicas than the sharing rules allow a container
│   └── StrictRefusalError       a strict pod cannot have its exact set
├── PlatformError                a kind of machine that is not supported
├── RegistrationError            kubelet cannot be told of the plugin
├── PodResourcesError            kubelet does not say who holds what
├── NvmlError                    a call of NVML failed: its code and name
├── DriverMismatchError          the NVML that is loaded belongs to another driver
└── DiscoveryError               no topology can be made of what NVML and sysfs say
"""

from __future__ import annotations

from collections.abc import Iterable


class PluginError(Exception):
    """The root of this package's errors."""


class AllocationError(PluginError, ValueError):
    """A question of kubelet that has no answer."""


class RequestError(AllocationError):
    """The question contradicts itself."""


class UnknownDeviceError(AllocationError):
    """`uuid` is no GPU of this node."""

    def __init__(self, uuid: str) -> None:
        super().__init__(f"no GPU {uuid!r} on this node")
        self.uuid = uuid


class UnhealthyDeviceError(AllocationError):
    """`uuid` has failed and must not be given out."""

    def __init__(self, uuid: str) -> None:
        super().__init__(f"GPU {uuid} is unhealthy")
        self.uuid = uuid


class HeldDeviceError(AllocationError):
    """`uuid` is with the live pod `holder` (``namespace/name``, "" if it is not known which)."""

    def __init__(self, uuid: str, holder: str = "") -> None:
        super().__init__(f"GPU {uuid} is held by pod {holder}" if holder else f"GPU {uuid} is held")
        self.uuid = uuid
        self.holder = holder


class SharingError(AllocationError):
    """A container asks for more replicas than the sharing rules allow."""


class StrictRefusalError(AllocationError):
    """A strict pod cannot have the set it was bound with. `drift` names the reason."""

    def __init__(self, wanted: Iterable[str] | None, drift: str) -> None:
        named = ", ".join(wanted) if wanted is not None else "a set that is not known"
        super().__init__(f"the pod is strict and cannot have {named}: {drift}")
        self.drift = drift


class PlatformError(PluginError):
    """The plugin does not run on this kind of machine."""


class RegistrationError(PluginError):
    """kubelet refused the plugin, or its socket cannot be used."""


class PodResourcesError(PluginError):
    """kubelet's PodResources did not answer in time or refused."""


class NvmlError(PluginError):
    """A call of NVML failed. `code` is NVML's, `name` its word for it (``GPU_IS_LOST``).

    `call` names what was asked, `detail` what else there is to say.
    """

    def __init__(self, code: int, name: str, call: str = "", detail: str = "") -> None:
        where = f"NVML {call}: " if call else "NVML: "
        super().__init__(f"{where}{name} ({code})" + (f": {detail}" if detail else ""))
        self.code = code
        self.name = name
        self.call = call


class DriverMismatchError(PluginError):
    """The driver was exchanged beneath the process; a new one finds the right library."""


class DiscoveryError(PluginError):
    """NVML does not answer at all, or its answers contradict each other."""
