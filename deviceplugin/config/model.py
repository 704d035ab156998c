"""The configuration file as it is written: the reference's keys, and ours beside them.

Ours are marked so; the reference passes over keys that it does not know.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from deviceplugin.config.names import ResourceName, check_device, check_gpu
from deviceplugin.health.xids import Response

VERSION = "v1"


class MigStrategy(StrEnum):
    """How GPUs in MIG mode are offered."""

    NONE = "none"  # as if MIG were off
    SINGLE = "single"  # the instances, all alike, as the resource of whole GPUs
    MIXED = "mixed"  # a resource for each profile


class ListStrategy(StrEnum):
    """How a container is told of its devices; several may be combined."""

    ENVVAR = "envvar"
    VOLUME_MOUNTS = "volume-mounts"
    CDI_ANNOTATIONS = "cdi-annotations"
    CDI_CRI = "cdi-cri"


class IdStrategy(StrEnum):
    """What a device is called in what a container is told."""

    UUID = "uuid"
    INDEX = "index"


class SharedPolicy(StrEnum):
    """Which replica or MIG instance is preferred."""

    DISTRIBUTED = "distributed"  # on the GPU that is used least
    PACKED = "packed"  # on the GPU that is used most and has room


class Discovery(StrEnum):
    """Where GPUs are found; both mean NVML here."""

    AUTO = "auto"
    NVML = "nvml"


class XidPolicy(StrEnum):
    """Whose table says what an XID does."""

    REFERENCE = "reference"  # NVIDIA's plugin: six are ignored, every other one is the GPU's end
    CATALOGUE = "catalogue"  # NVIDIA's catalogue of XIDs: by the action that it recommends


_ELSEWHERE = {
    "tegra": "Tegra",
    "vfio": "passing GPUs through to virtual machines",
    "vgpu": "sharing GPUs among virtual machines (vGPU)",
    "wsl": "WSL",
}


def _refuse_elsewhere(value: object) -> object:
    if isinstance(value, str) and value in _ELSEWHERE:
        raise ValueError(f"{_ELSEWHERE[value]} is not supported: NVML on Linux is what there is")
    return value


def _not_empty(value: object) -> object:
    if value in ([], ""):
        raise ValueError("the list is empty")
    return value


def _words(value: object) -> object:
    """Read a list of words from a text or from a list of words and numbers."""
    if isinstance(value, str):
        return [word for word in map(str.strip, value.split(",")) if word]
    if isinstance(value, list):
        return [str(word) if type(word) is int else word for word in value]
    return value


_Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class _Part(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, validate_default=False
    )


class PluginFlags(_Part):
    """`flags.plugin`: what Allocate answers."""

    pass_device_specs: bool = False
    device_list_strategy: Annotated[
        tuple[ListStrategy, ...],
        AfterValidator(lambda value: tuple(dict.fromkeys(value))),
        BeforeValidator(_words),
        BeforeValidator(_not_empty),
    ] = (ListStrategy.ENVVAR,)
    device_id_strategy: IdStrategy = Field(default=IdStrategy.UUID, alias="deviceIDStrategy")
    cdi_annotation_prefix: str = "cdi.k8s.io/"
    nvidia_ctk_path: str = Field(default="/usr/bin/nvidia-ctk", alias="nvidiaCTKPath")
    container_driver_root: str = "/driver-root"
    shared_devices_allocation_policy: SharedPolicy = SharedPolicy.DISTRIBUTED
    # The reference has these as flags and variables alone.
    cdi_disable_hooks: _Words = ()
    cdi_feature_flags: _Words = ()


class Flags(_Part):
    """`flags`. `gfd` and `useNodeFeatureAPI` are another program's; they are read over.

    `fail_on_init_error` None waits for the driver, as false does; only a plain true ends the
    plugin. `kubelet_socket` None is the one in the plugin's own folder; "" means never to register.
    """

    mig_strategy: MigStrategy = MigStrategy.NONE
    fail_on_init_error: bool | None = None
    nvidia_driver_root: str = "/"
    nvidia_dev_root: str | None = None
    gdrcopy_enabled: bool = False
    gds_enabled: bool = False
    mofed_enabled: bool = False
    mps_root: str = ""
    device_discovery_strategy: Annotated[Discovery, BeforeValidator(_refuse_elsewhere)] = (
        Discovery.AUTO
    )
    use_node_feature_api: bool | None = Field(default=None, alias="useNodeFeatureAPI")
    gfd: dict[str, Any] | None = None
    kubelet_socket: str | None = None
    plugin: PluginFlags = PluginFlags()

    @property
    def dev_root(self) -> str:
        """The folder under which the host has /dev."""
        return self.nvidia_driver_root if self.nvidia_dev_root is None else self.nvidia_dev_root


class Rule(_Part):
    """GPUs (by model) or MIG instances (by profile) that match get this resource."""

    pattern: Annotated[str, Field(min_length=1)]
    name: ResourceName


class Rules(_Part):
    """`resources`: the first rule that matches counts; what none matches gets its default."""

    gpus: tuple[Rule, ...] = ()
    mig: tuple[Rule, ...] = ()


def _read_devices(value: object) -> object:
    if value == "all" or value is None:
        return "all"
    if isinstance(value, bool) or not isinstance(value, int | list):
        raise ValueError("want all, a number of devices, or a list of them")  # noqa: TRY004
    if isinstance(value, int):
        if value < 1:
            raise ValueError("a number of devices is at least 1")
        return value
    if not value:
        raise ValueError("the list names no device")
    return tuple(check_device(word) for word in value)


class Replication(_Part):
    """Devices of a resource that are offered `replicas` times each, perhaps under a new name."""

    name: ResourceName
    rename: ResourceName | None = None
    devices: Annotated[Literal["all"] | int | tuple[str, ...], BeforeValidator(_read_devices)] = (
        "all"
    )
    replicas: Annotated[int, Field(ge=2)]


class Replications(_Part):
    """`sharing.timeSlicing` or `sharing.mps`.

    `fail_requests_greater_than_one` None is the way's own default. `distinct_gpus` (ours) refuses
    a container that would get two replicas of one GPU.
    """

    rename_by_default: bool = False
    fail_requests_greater_than_one: bool | None = None
    distinct_gpus: bool = Field(default=False, alias="distinctGPUs")
    resources: Annotated[tuple[Replication, ...], BeforeValidator(_not_empty)]


class Sharing(_Part):
    """`sharing`. With both ways present the list of `mps` counts, as in the reference."""

    time_slicing: Replications | None = None
    mps: Replications | None = None


class Imex(_Part):
    """`imex`: channel 0 for every container, or none."""

    channel_ids: tuple[int, ...] = Field(default=(), alias="channelIDs")
    required: bool = False

    @model_validator(mode="after")
    def _check_channels(self) -> Self:
        if self.channel_ids not in {(), (0,)}:
            raise ValueError("channelIDs is [] or [0]: there is one channel for a container")
        return self


class Selection(_Part):
    """`gpus` (ours): which GPUs of the node are offered; all that are included and not excluded."""

    include: tuple[Annotated[str, BeforeValidator(check_gpu)], ...] | None = None
    exclude: tuple[Annotated[str, BeforeValidator(check_gpu)], ...] = ()


class Health(_Part):
    """`health` (ours): what events do to a GPU.

    `policy` None leaves the plugin's own setting. `disable` and `enable` are what
    DP_DISABLE_HEALTHCHECKS and DP_ENABLE_HEALTHCHECKS say: ``all``, ``xids`` or XIDs, the latter
    being stronger. `xids` says what single XIDs do, before everything else. `hold_seconds` is how
    long a failed GPU must have passed before it is given out again.
    """

    policy: XidPolicy | None = None
    disable: _Words = ()
    enable: _Words = ()
    xids: dict[Annotated[int, Field(ge=1, le=9999)], Response] = {}
    hold_seconds: Annotated[float, Field(gt=0, le=86400)] | None = None


class Config(_Part):
    """The whole file."""

    version: Literal["v1"] = "v1"
    flags: Flags = Flags()
    resources: Rules = Rules()
    sharing: Sharing = Sharing()
    imex: Imex = Imex()
    gpus: Selection = Selection()
    health: Health = Health()

    @model_validator(mode="after")
    def _check_mps(self) -> Self:
        mps = self.sharing.mps
        if mps is None:
            return self
        if not self.flags.mps_root:
            raise ValueError("sharing.mps needs flags.mpsRoot")
        if self.flags.mig_strategy is MigStrategy.MIXED:
            raise ValueError("sharing.mps does not go with flags.migStrategy mixed")
        for one in mps.resources:
            if "/mig-" in one.name:
                raise ValueError(f"sharing.mps: {one.name}: MIG instances are not shared by MPS")
        return self
