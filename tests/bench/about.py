"""What stands above the tables: the machine, the versions, the seeds."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.bench import reference_allocator, reference_plugin
from tests.e2e import components

SEEDS: Final = "1 for clusters and calls, a machine's name for its free sets, 42 on for placement"
PACKAGES: Final = ("numpy", "msgspec", "grpcio", "uvicorn")


def describe_run() -> dict[str, str]:
    """Return machine, versions and seeds, in the order in which they are shown."""
    about = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / (1 << 30):.0f} GiB",
        "Linux": platform.release().split("-")[0],
        "load at the start": f"{load():.1f}",
        "Python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "Kubernetes": components.version(),
        "NVIDIA's plugin": reference_plugin.version(),
        "its allocator": reference_allocator.version(),
        "seeds": SEEDS,
    }
    commit = _git("rev-parse", "--short", "HEAD")
    changed = " and changes" if _git("status", "--porcelain", "--untracked-files=no") else ""
    return about | ({"commit": commit + changed} if commit else {})


def load() -> float:
    """Return how many processes wanted to run, on the mean of the last minute."""
    return os.getloadavg()[0]


def time_loop() -> float:
    """Return the milliseconds of a fixed loop: how fast and how quiet the machine is just now."""
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        sum(number * number for number in range(200_000))
        taken.append(1000 * (time.perf_counter() - begun))
    return statistics.median(taken)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=False)
    return done.stdout.strip()
