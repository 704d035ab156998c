"""Which device nodes a MIG device needs, as /proc tells: N of /dev/nvidia-caps/nvidia-capN."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_MINOR: Final = re.compile(r"^DeviceFileMinor:\s*(\d+)\s*$", re.MULTILINE)
_CAPABILITIES: Final = Path("driver/nvidia/capabilities")
_TABLE: Final = Path("driver/nvidia-caps/mig-minors")


def read_cap_minor(
    proc_root: Path, gpu_minor: int, gpu_instance: int, compute_instance: int | None = None
) -> int | None:
    """Return the minor of a GPU instance's node, or of a compute instance's; None if untold.

    The instance's own file speaks first; it is there while the instance is. The driver's table
    has the numbers of every instance that there could be.
    """
    parts = [f"gi{gpu_instance}"]
    if compute_instance is not None:
        parts.append(f"ci{compute_instance}")
    own = proc_root / _CAPABILITIES / f"gpu{gpu_minor}" / "mig" / Path(*parts) / "access"
    try:
        found = _MINOR.search(own.read_text(encoding="ascii", errors="replace"))
    except OSError:
        found = None
    if found is not None:
        return int(found[1])
    wanted = "/".join([f"gpu{gpu_minor}", *parts, "access"])
    try:
        table = (proc_root / _TABLE).read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in table.splitlines():
        name, _, number = line.partition(" ")
        if name == wanted and number.strip().isdecimal():
            return int(number)
    return None
