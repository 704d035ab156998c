"""What the operator may set; every field but the node's name has a default for a real node."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from deviceplugin.health.record import LONGEST_HOLD
from deviceplugin.health.vitals import Condition
from deviceplugin.health.xids import Response
from runtime.ops import EVERYWHERE

Seconds = Annotated[float, Field(gt=0, le=3600)]
Port = Annotated[int, Field(ge=0, le=65535)]

# A domain-prefixed qualified name: kubelet refuses every other as an extended resource.
_RESOURCE = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"


class PluginSettings(BaseModel):
    """The device plugin's settings; times in seconds.

    `kubeconfig` None takes the pod's service account. `numa_hints` tells kubelet the NUMA node of
    each GPU where it is known; under a topology manager policy other than none kubelet then
    narrows its offer to one NUMA node, and a set that the scheduler chose across two cannot be
    had. `policy` names how a set is chosen for a pod that was bound without one.

    `sysfs_root`, `proc_root` and `dev_root` say where the host's /sys, /proc and the folder of its
    /dev are seen by this process; `cdi_dir` is where container runtimes look for CDI files,
    `mps_dir` where the host's `flags.mpsRoot` is seen.

    `plugins_registry_dir` is kubelet's folder of that name: with it kubelet's plugin watcher finds
    the plugin, None registers by a call. `feature_file` gets the node's labels, in a folder that
    node-feature-discovery reads; None writes none.

    `config_poll_seconds` is how often the configuration's content is looked at,
    `config_label_seconds` how often the API server is asked which one the Node's label names.
    `socket_poll_seconds` is how often the sockets are looked at. `pod_resources_seconds` is the
    patience with PodResources, `admission_seconds` with everything that is asked during one
    admission. `read_back_seconds` is the longest time between two readings of what pods really
    hold, `read_back_quiet_seconds` how long admissions must have rested before one.
    `publish_seconds` is the shortest time between two writes to the API server, `verify_seconds`
    how often the written annotations are looked at. `probe_seconds` is how often each GPU is asked
    whether it answers, `recovery_hold_seconds` how long a failed one must pass before it is
    given out again, `recovery_longest_hold_seconds` where the doubling for one that fails again and
    again ends,
    `reinit_seconds` the first pause before NVML is initialised again to look for a lost GPU.
    `nvml_patience_seconds` is how long one call of NVML may take before the GPU that it asks is
    called unhealthy. `xid_responses` overrides what an XID does, `condition_responses` what a
    condition does that the GPU itself tells.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    node_name: Annotated[str, Field(min_length=1, max_length=253)]
    kubeconfig: str | None = None
    resource: Annotated[str, Field(pattern=_RESOURCE, max_length=316)] = "nvidia.com/gpu"
    device_plugins_dir: str = "/var/lib/kubelet/device-plugins"
    plugins_registry_dir: str | None = None
    feature_file: str | None = None
    pod_resources_socket: str = "/var/lib/kubelet/pod-resources/kubelet.sock"
    sysfs_root: str = "/sys"
    proc_root: str = "/proc"
    dev_root: str = "/"
    cdi_dir: str = "/var/run/cdi"
    mps_dir: str = "/mps"
    ops_host: str = EVERYWHERE
    ops_port: Port = 8890
    numa_hints: bool = True
    policy: str = "training"
    log_level: str = "info"
    socket_poll_seconds: Seconds = 0.05
    pod_resources_seconds: Seconds = 1.0
    admission_seconds: Seconds = 2.0
    read_back_seconds: Seconds = 5.0
    read_back_quiet_seconds: Seconds = 0.1
    publish_seconds: Seconds = 0.5
    verify_seconds: Seconds = 60.0
    config_poll_seconds: Seconds = 1.0
    config_label_seconds: Seconds = 5.0
    probe_seconds: Seconds = 10.0
    recovery_hold_seconds: Seconds = 60.0
    recovery_longest_hold_seconds: Seconds = LONGEST_HOLD
    reinit_seconds: Seconds = 10.0
    nvml_patience_seconds: Seconds = 20.0
    condition_responses: dict[Condition, Response] = {}
    xid_responses: dict[Annotated[int, Field(ge=1, le=9999)], Response] = {}
