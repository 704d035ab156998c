"""What Prometheus sees of each GPU: series that come and go with it."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Gauge

from deviceplugin.pods.holdings import Holdings
from deviceplugin.resources.inventory import Inventory

Labels = tuple[str, ...]


class Table:
    """A gauge whose series are shown and taken away as a whole. Not for several threads.

    A series that stays is never away for a moment, in which it might be scraped.
    """

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._shown: frozenset[Labels] = frozenset()

    def show(self, rows: Mapping[Labels, float]) -> None:
        """Show these; those that are not named any more vanish."""
        for labels, value in rows.items():
            self._gauge.labels(*labels).set(value)
        for labels in self._shown - rows.keys():
            self._gauge.remove(*labels)
        self._shown = frozenset(rows)


class DeviceGauges:
    """The gauges of GPUs and of their MIG devices, all in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def table(name: str, words: str, *labels: str) -> Table:
            return Table(Gauge(f"gputopo_plugin_device_{name}", words, labels, registry=registry))

        self._healthy = table(
            "healthy", "1 for a GPU that may be given out, 0 for a failed one.", "uuid", "index"
        )
        self._degraded = table(
            "degraded", "1 for a GPU that works with a flaw, else 0.", "uuid", "index"
        )
        self._cordoned = table(
            "cordoned", "1 for a GPU that is to get no new pod, else 0.", "uuid", "index"
        )
        self._parts_healthy = table(
            "mig_healthy",
            "1 for a MIG device that may be given out, 0 for a failed one.",
            *("uuid", "index", "profile"),
        )
        self._info = table(
            "info", "1; what a GPU is.", "uuid", "index", "model", "pci", "numa_node"
        )
        self._allocated = table(
            "allocated",
            "1 for each GPU that a pod really has, as kubelet says.",
            *("uuid", "index", "namespace", "pod"),
        )

    def show(self, inventory: Inventory) -> None:
        """Show the GPUs of an inventory."""
        gpus = inventory.topology.gpus
        names = [(gpu.uuid, str(gpu.index)) for gpu in gpus]
        self._healthy.show({one: one[0] not in inventory.unhealthy for one in names})
        self._degraded.show({one: one[0] in inventory.degraded for one in names})
        self._cordoned.show({one: one[0] in inventory.cordoned for one in names})
        self._parts_healthy.show(
            {
                (one.uuid, f"{gpu.index}:{one.index}", one.profile): one.uuid
                not in inventory.unhealthy
                and gpu.uuid not in inventory.unhealthy
                for gpu in gpus
                for one in inventory.mig.get(gpu.uuid, ())
            }
        )
        self._info.show(
            {
                (
                    gpu.uuid,
                    str(gpu.index),
                    gpu.model,
                    gpu.pci,
                    "" if gpu.numa_node is None else str(gpu.numa_node),
                ): 1.0
                for gpu in gpus
            }
        )

    def show_holders(self, holdings: Holdings, inventory: Inventory) -> None:
        """Show which pod has which GPU; `holdings` name physical GPUs."""
        index = {gpu.uuid: str(gpu.index) for gpu in inventory.topology.gpus}
        self._allocated.show(
            {
                (uuid, index[uuid], *_split(pod.key)): 1.0
                for pod in holdings.pods.values()
                for uuid in pod.uuids()
                if uuid in index
            }
        )


def _split(key: str) -> tuple[str, str]:
    namespace, _, name = key.partition("/")
    return namespace, name
