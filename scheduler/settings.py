"""What the operator may set; every field has a default that suits the shipped manifests."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

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


class ExtenderSettings(BaseModel):
    """The extender's settings.

    `bind_timeout_seconds` must stay below kube-scheduler's httpTimeout for the extender (5 s by
    default), or it gives up on binds that succeed. `hold_seconds` is how long a set planned in
    filter waits for its bind; a bind that comes later chooses anew, as one behind a volume that
    is being made will. `mix` maps request sizes to their share of the workload; empty
    takes the built-in one. `load` asks how busy nodes are; without it nobody is asked.
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
    default_profile: str = "training"
    profiles: dict[str, ProfileSettings] = {}
    mix: dict[Annotated[int, Field(ge=1, le=64)], Annotated[float, Field(ge=0)]] = {}
    load: LoadSettings | None = None
    log_level: str = "info"
