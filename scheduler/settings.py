"""What the operator may set; every field has a default that suits the shipped manifests."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from scheduler.engine.profiles import DEFAULT_PROFILE
from scheduler.explain.settings import ExplainSettings
from scheduler.load.settings import LoadSettings

Seconds = Annotated[float, Field(gt=0, le=600)]
Port = Annotated[int, Field(ge=0, le=65535)]


class ProfileSettings(BaseModel):
    """A named way to weigh nodes: it replaces the built-in profile of that name, or adds one.

    `weights` maps score plugins to their weights, `tolerance` is how far (in the total score, 0
    to 1) a node may lie below the best and still stand in the shortlist, `policy` names how a
    set is chosen within a node.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: dict[str, Annotated[float, Field(ge=0)]] = Field(min_length=1)
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.0
    policy: str = "training"


class PluginSettings(BaseModel):
    """A plugin of the user's own: from an entry point in the group `gputopo.plugins`, or a file.

    `class` may be left out where the file has but one; `options` are given to it by name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    entry_point: str = ""
    file: str = ""
    class_name: str = Field("", alias="class")
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _from_one_place(self) -> Self:
        if bool(self.entry_point) == bool(self.file):
            raise ValueError("either entry_point or file")
        return self


class PodClassSettings(BaseModel):
    """A class of pods that are expected, and how often it comes in proportion to the others.

    `cpu` is in cores, `gpu_share` a part of one GPU.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: Annotated[float, Field(gt=0)]
    gpus: Annotated[int, Field(ge=0, le=64)] = 1
    cpu: Annotated[float, Field(ge=0)] = 0.0
    gpu_share: Annotated[float, Field(ge=0.001, le=1)] = 1.0
    gpu_models: tuple[str, ...] = ()
    gpu_memory_mib: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _share_of_one(self) -> Self:
        if self.gpu_share < 1 and self.gpus != 1:
            raise ValueError("gpu_share: only of one GPU")
        return self


class ExtenderSettings(BaseModel):
    """The extender's settings.

    `bind_timeout_seconds` must stay below kube-scheduler's httpTimeout for the extender (5 s by
    default), or it gives up on binds that succeed. `hold_seconds` is how long a set planned in
    filter waits for its bind; a bind that comes later chooses anew, as one behind a volume that
    is being made will. `mix` maps request sizes to their share of the workload; empty
    takes the built-in one, and learns it where `workload` is learned. `load` asks how busy nodes
    are; without it nobody is asked.
    `workload` lists the classes of pods that are expected; empty learns them from those that come.
    `plugins` are the user's own; profiles weigh their scores by their names.
    `place_all_pods` has the extender place pods without GPUs too, by the same scores;
    kube-scheduler must then be told to ask for every pod (no managedResources).
    `explain` is about the record of decisions and the API that tells of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kubeconfig: str | None = None
    resource: str = "nvidia.com/gpu"
    host: str = "127.0.0.1"
    port: Port = 8888
    ops_host: str = "127.0.0.1"
    ops_port: Port = 8889
    hold_seconds: Seconds = 5.0
    bind_timeout_seconds: Seconds = 4.0
    shortlist: Annotated[int, Field(ge=1, le=10)] = 3
    default_profile: str = DEFAULT_PROFILE
    profiles: dict[str, ProfileSettings] = {}
    mix: dict[Annotated[int, Field(ge=1, le=64)], Annotated[float, Field(ge=0)]] = {}
    load: LoadSettings | None = None
    workload: list[PodClassSettings] = []
    plugins: list[PluginSettings] = []
    place_all_pods: bool = False
    explain: ExplainSettings = ExplainSettings()
    log_level: str = "info"
