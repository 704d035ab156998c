"""The part of /proc that belongs to a machine: the device nodes of MIG instances."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from topology.machines import Machine

_GPU_INSTANCES: Final = 15
_COMPUTE_INSTANCES: Final = 8
_FIRST: Final = 3
"""1 and 2 are the nodes for configuring and monitoring MIG."""


def cap_minor(gpu: int, gpu_instance: int, compute_instance: int | None = None) -> int:
    """Return the minor of an instance's node, by the driver's own numbering.

    >>> cap_minor(0, 0), cap_minor(0, 0, 0), cap_minor(1, 0)
    (3, 4, 138)
    """
    minor = _FIRST + (gpu * _GPU_INSTANCES + gpu_instance) * (_COMPUTE_INSTANCES + 1)
    return minor if compute_instance is None else minor + 1 + compute_instance


def write_proc(machine: Machine, root: Path) -> None:
    """Write the driver's table of all nodes that MIG instances could have, into the folder `root`.

    As on a real machine it names also instances that are not there now.
    """
    lines = ["config 1", "monitor 2"]
    for gpu in range(len(machine.gpus)):
        for gi in range(_GPU_INSTANCES):
            lines.append(f"gpu{gpu}/gi{gi}/access {cap_minor(gpu, gi)}")
            lines += [
                f"gpu{gpu}/gi{gi}/ci{ci}/access {cap_minor(gpu, gi, ci)}"
                for ci in range(_COMPUTE_INSTANCES)
            ]
    folder = root / "driver" / "nvidia-caps"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mig-minors").write_text("\n".join(lines) + "\n", encoding="ascii")
