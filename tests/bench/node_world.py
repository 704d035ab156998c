"""A node with embedded kubelet and API server for one plugin, ours or the reference."""

from __future__ import annotations

from mock_nvml import gpu_uuid
from tests.bench.nvml_box import NvmlBox
from tests.bench.reference_plugin import ReferencePlugin
from tests.contract.embedded_world import EmbeddedWorld
from tests.contract.plugin_process import PluginProcess
from tests.contract.world import GPUS, NODE, Setup
from tests.waiting import wait_until


class BenchWorld(EmbeddedWorld):
    """The contract's node, looked at from closer by; the plugin loads NVML as on a real node."""

    def __init__(self, box: NvmlBox) -> None:
        super().__init__(Setup())
        self._box = box
        # The contract's cases shorten all times; here they are as they ship.
        self._config.write_bytes(b"{}")

    def start_reference(self, *, remembered: bool) -> ReferencePlugin:
        """Start the reference plugin in the place of ours, and wait until kubelet knows it."""
        reference = ReferencePlugin(
            self._parts.device_plugins_dir,
            self._box.environment(remembered=remembered),
            self._parts.folder / "reference.log",
        )
        before = self.registered()
        reference.start()
        reference.wait_for(lambda: self.registered() > before)
        wait_until(lambda: self.allocatable() == GPUS, what="its GPUs in node.status")
        return reference

    def pid(self) -> int:
        """Return our plugin's process."""
        return self._running_plugin().pid

    def socket(self) -> str:
        """Return the address of our plugin's socket."""
        (path,) = self._parts.device_plugins_dir.glob("gputopo-*.sock")
        return f"unix:{path}"

    def pod_resources(self) -> str:
        """Return the address of kubelet's PodResources."""
        return f"unix:{self._parts.pod_resources_socket}"

    def registered(self) -> int:
        """Return how often kubelet has taken a registration."""
        return len(self._kubelet.journal.entries("registered"))

    def _new_plugin(self) -> PluginProcess:
        parts = self._parts
        return PluginProcess(
            {
                "node-name": NODE,
                "kubeconfig": self._way,
                "config": self._config,
                "device-plugins-dir": parts.device_plugins_dir,
                "pod-resources-socket": parts.pod_resources_socket,
                "sysfs-root": parts.folder / "sys",
            },
            parts.folder / "plugin.log",
            self._box.environment(),
        )


def places(ids: tuple[str, ...]) -> tuple[int, ...]:
    """Return which GPUs of the node these are."""
    own = [gpu_uuid(NODE, index) for index in range(GPUS)]
    return tuple(own.index(one) for one in ids)
