"""containerd and runc in the mount namespace of a kubelet: pods are real containers there.

Everything lies in one folder. What is compiled into containerd, its shims and the network plugins
(/run and /var/lib/cni) is bound to folders of its own, so that two nodes never see each other's.
Pods have their own network: a pair of interfaces each, whose other end, with the route to the
pod, is on the cluster's side; nothing is forwarded or translated.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.e2e.errors import MissingError, StartError
from tests.e2e.images.archives import PAUSE
from tests.e2e.kubelet import MountNamespace
from tests.e2e.process import Process
from tests.e2e.sandbox import NETWORKS

_NETWORK_PLUGINS: Final = Path("/usr/lib/cni")
_NEEDED: Final = ("host-local", "loopback", "ptp")


class Containerd:
    """containerd of one node, in the mount namespace of its kubelet.

    `pods` is the node's own part of the pod network, such as 10.244.1.0/24.
    """

    def __init__(
        self, folder: Path, namespace: MountNamespace, pods: ipaddress.IPv4Network
    ) -> None:
        check()
        self._folder = folder / "containerd"
        self._namespace = namespace
        self.socket = folder / "containerd.sock"
        for name in ("root", "state", "run", "cni-cache", "cni"):
            (self._folder / name).mkdir(parents=True)
        config = self._folder / "config.toml"
        config.write_text(_config(self._folder, self.socket))
        network = self._folder / "cni" / "10-pods.conflist"
        network.write_text(json.dumps(_network(self._folder, pods)))
        self.process = Process(
            "containerd",
            namespace.command("containerd", f"--config={config}"),
            folder / "containerd.log",
        )

    def start(self, archives: Sequence[Path]) -> None:
        """Start it and give it images. Raises StartError with the end of its log."""
        for place, seen in ((Path("/run"), "run"), (NETWORKS, "cni-cache")):
            self._run("mount", "--bind", str(self._folder / seen), str(place))
        # In memory: unpacked images are 200 MB, and nobody has to delete them.
        self._run("mount", "-t", "tmpfs", "tmpfs", str(self._folder / "root"))
        self.process.start()
        self.process.wait_for(self._answers, 60)
        for archive in archives:
            self.ctr("images", "import", "--snapshotter=overlayfs", str(archive))

    def ctr(self, *arguments: str) -> str:
        """Ask containerd about what belongs to kubelet. Raises StartError with its complaint."""
        return self._run("ctr", f"--address={self.socket}", "--namespace=k8s.io", *arguments)

    def running(self) -> set[str]:
        """Return the ids of the containers that have a process, sandboxes included."""
        lines = (line.split() for line in self.ctr("tasks", "list").splitlines()[1:])
        return {fields[0] for fields in lines if fields[2] == "RUNNING"}

    def stop(self) -> None:
        """End every container, then containerd itself."""
        if self.process.pid is not None:
            for container in self.ctr("tasks", "list", "--quiet").split():
                # One that ended meanwhile is what was wanted.
                self._try(
                    "ctr",
                    f"--address={self.socket}",
                    "--namespace=k8s.io",
                    *("tasks", "delete", "--force", container),
                )
        self.process.stop()

    def _answers(self) -> bool:
        return (
            self.socket.exists()
            and not self._try("ctr", f"--address={self.socket}", "version").returncode
        )

    def _run(self, *command: str) -> str:
        done = self._try(*command)
        if done.returncode:
            raise StartError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def _try(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._namespace.command(*command), capture_output=True, text=True, check=False
        )


def check() -> None:
    """Raise MissingError if the network plugins are not there."""
    if not all((_NETWORK_PLUGINS / name).is_file() for name in _NEEDED):
        raise MissingError("not installed: containernetworking-plugins (a Debian package)")


def _config(folder: Path, socket: Path) -> str:
    # No cgroup of this machine may be taken for containerd's own, no profile be loaded into its
    # kernel, and no process be made less likely to be killed than it is.
    return f"""\
version = 2
root = "{folder / "root"}"
state = "{folder / "state"}"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs"]

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
disable_apparmor = true
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{_NETWORK_PLUGINS}"
conf_dir = "{folder / "cni"}"
"""


def _network(folder: Path, pods: ipaddress.IPv4Network) -> dict[str, Any]:
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": False,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(folder / "addresses"),
                    "ranges": [[{"subnet": str(pods)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
