"""A real kubelet in a mount namespace of its own, with whatever runtime listens on its socket."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

import yaml

from embedded.ports import free_port
from tests.e2e.components import binary_folder
from tests.e2e.process import Process
from tests.e2e.sandbox import KUBELET


class MountNamespace:
    """A mount namespace that lives as long as this object, with folders bound where they are told.

    `binds` map a place in the namespace to the folder that is seen there.
    """

    def __init__(self, binds: Mapping[Path, Path]) -> None:
        script = "".join(f"mount --bind '{seen}' '{place}' && " for place, seen in binds.items())
        # Whoever reads the line knows that the mounts are there; the end of its input ends it.
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", f"{script}echo && cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        if not self._holder.stdout.readline():
            raise OSError(f"cannot bind {dict(binds)}")

    def command(self, *command: str) -> list[str]:
        """Return a command that runs `command` in the namespace."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--", *command]

    def close(self) -> None:
        """Let go of it; it ends with the last process in it."""
        for pipe in (self._holder.stdin, self._holder.stdout):
            if pipe is not None:
                pipe.close()
        self._holder.wait()


class Kubelet:
    """kubelet of the node `name`, with all that is its own in `folder`, which is made.

    `runtime` is the CRI socket, `address` what the node is reached at. `topology_policy` is the
    topology manager's. `numa` names a folder that is shown as /sys/devices/system/node.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        kubeconfig: Path,
        runtime: Path,
        address: str = "127.0.0.1",
        topology_policy: str = "none",
        numa: Path | None = None,
        labels: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.root = folder / "kubelet"
        self.device_plugins_dir = self.root / "device-plugins"
        self.pod_resources_socket = self.root / "pod-resources" / "kubelet.sock"
        self.static_pods = folder / "static-pods"
        for path in (self.device_plugins_dir, self.static_pods, folder / "pod-logs"):
            path.mkdir(parents=True)
        binds = {KUBELET: self.root}
        if numa is not None:
            binds[Path("/sys/devices/system/node")] = numa
        self.namespace = MountNamespace(binds)
        self._health_port = free_port()
        config = folder / "kubelet.yaml"
        config.write_text(
            yaml.safe_dump(
                {
                    **_FIXED,
                    "address": address,
                    "port": free_port(),
                    "healthzPort": self._health_port,
                    "containerRuntimeEndpoint": f"unix://{runtime}",
                    "staticPodPath": str(self.static_pods),
                    "podLogsDir": str(folder / "pod-logs"),
                    "volumePluginDir": str(folder / "volume-plugins"),
                    "topologyManagerPolicy": topology_policy,
                    **(settings or {}),
                }
            )
        )
        told = ",".join(f"{key}={value}" for key, value in (labels or {}).items())
        self.process = Process(
            f"kubelet {name}",
            self.namespace.command(
                str(binary_folder() / "kubelet"),
                f"--config={config}",
                f"--kubeconfig={kubeconfig}",
                f"--hostname-override={name}",
                f"--node-ip={address}",
                f"--cert-dir={folder / 'pki'}",
                *((f"--node-labels={told}",) if told else ()),
                "--v=2",
            ),
            folder / "kubelet.log",
        )

    def start(self) -> None:
        """Start it, for the first time or again, and wait until it is healthy."""
        self.process.start()
        self.process.wait_for(self._is_healthy, 60)

    def restart(self) -> None:
        """Kill it and start it again; containers run on."""
        self.process.kill()
        self.start()

    def stop(self) -> None:
        """End it and let go of its namespace."""
        self.process.kill()
        self.namespace.close()

    def _is_healthy(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._health_port}/healthz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False


# What a machine that is nobody's node needs (nothing of the host is written or judged), and
# times that are short so that the cases are.
_FIXED: Final[dict[str, Any]] = {
    "apiVersion": "kubelet.config.k8s.io/v1beta1",
    "kind": "KubeletConfiguration",
    "readOnlyPort": 0,
    "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}},
    "authorization": {"mode": "Webhook"},
    "failCgroupV1": False,
    "failSwapOn": False,
    "cgroupDriver": "cgroupfs",
    "cgroupsPerQOS": False,
    "enforceNodeAllocatable": [],
    "makeIPTablesUtilChains": False,
    "localStorageCapacityIsolation": False,
    "evictionHard": {
        "memory.available": "1Mi",
        "nodefs.available": "0%",
        "imagefs.available": "0%",
    },
    "imageGCHighThresholdPercent": 100,
    "imageGCLowThresholdPercent": 99,
    "registerNode": True,
    "nodeStatusUpdateFrequency": "200ms",
    "nodeStatusReportFrequency": "200ms",
    "syncFrequency": "10s",
    "fileCheckFrequency": "1s",
    "shutdownGracePeriod": "0s",
}
