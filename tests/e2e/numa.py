"""A /sys/devices/system/node with as many NUMA nodes as a machine is to have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_MEMORY_KIB: Final = 8 << 20
_HUGE_PAGES: Final = "hugepages/hugepages-2048kB/nr_hugepages"


def write_numa_nodes(folder: Path, count: int) -> None:
    """Make the folder and, in it, `count` NUMA nodes, among which this machine's CPUs are divided.

    It holds what kubelet looks at: CPUs, memory, distances and huge pages of each node. Every node
    needs a CPU, or kubelet does not count it.
    """
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < count:
        raise ValueError(f"{count} NUMA nodes need as many CPUs, here are {len(cpus)}")
    for node in range(count):
        path = folder / f"node{node}"
        (path / _HUGE_PAGES).parent.mkdir(parents=True)
        (path / _HUGE_PAGES).write_text("0\n")
        own = cpus[node::count]
        (path / "cpulist").write_text(",".join(map(str, own)) + "\n")
        (path / "distance").write_text(
            " ".join("10" if other == node else "20" for other in range(count)) + "\n"
        )
        (path / "meminfo").write_text(
            f"Node {node} MemTotal:       {_MEMORY_KIB} kB\n"
            f"Node {node} MemFree:        {_MEMORY_KIB} kB\n"
        )
        for cpu in own:
            (path / f"cpu{cpu}").symlink_to(f"/sys/devices/system/cpu/cpu{cpu}")
    nodes = f"0-{count - 1}\n"
    for name in ("online", "possible", "has_cpu", "has_memory"):
        (folder / name).write_text(nodes)
