"""Schedulers to be compared on one control plane: each way starts, is watched at work, and goes."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal
from urllib.request import urlopen

import msgspec
import yaml

from embedded.ports import free_port
from embedded.processes import own_command
from tests.bench.fleet import GPUS, RESOURCE, Fleet
from tests.e2e.components import binary_folder
from tests.e2e.control_plane import SCHEDULER, ControlPlane, answers
from tests.e2e.process import Process

Way = Literal["alone", "trivial", "shortlist", "classic"]
"""Without an extender; with one that thinks of nothing; with ours as its manifests have it; with
ours and its prioritize verb."""

NAME: Final = "bench"
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_FILTERED: Final = r"gputopo_extender_filter_total\S*"
_FILTER_SECONDS: Final = r'gputopo_extender_seconds_sum\{verb="filter"\}'
_CYCLE_SECONDS: Final = r"scheduler_scheduling_algorithm_duration_seconds_sum"
_CYCLES: Final = r"scheduler_scheduling_algorithm_duration_seconds_count"


class Run(msgspec.Struct, frozen=True):
    """What came of binding some pods by one way.

    `rate` is pods bound a second, `cpu` milliseconds of processor for each pod by process,
    `cycle` and `filter` the mean milliseconds of kube-scheduler's serial part and of our share of
    it; `filter` is None where ours is not asked.
    """

    rate: float
    cpu: Mapping[str, float]
    cycle: float
    filter: float | None


class Schedulers:
    """A kube-scheduler, and by most ways an extender beside it. `percentage` 0 is adaptive."""

    def __init__(self, plane: ControlPlane, folder: Path, way: Way, percentage: int = 100) -> None:
        self._plane = plane
        self._folder = folder
        self._way = way
        self._percentage = percentage
        self._port, self._ops, self._secure = free_port(), free_port(), free_port()
        self._extender = self._make_extender()
        self._scheduler = self._make_scheduler()

    def start(self) -> None:
        """Start the extender, and kube-scheduler when that is ready."""
        if self._extender is not None:
            port = self._port if self._way == "trivial" else self._ops
            self._extender.start()
            self._extender.wait_for(lambda: answers(f"http://127.0.0.1:{port}/readyz"), 60)
        self._scheduler.start()

    def stop(self) -> None:
        """End both at once."""
        self._scheduler.stop(signal.SIGKILL)
        if self._extender is not None:
            self._extender.stop(signal.SIGKILL)

    def cpu(self) -> dict[str, float]:
        """Return milliseconds of processor so far, by process."""
        taken = {
            "kube-scheduler": self._scheduler,
            "API server": self._plane.api_server,
            "etcd": self._plane.etcd,
            "extender": self._extender,
        }
        return {
            name: _cpu_of(process.pid)
            for name, process in taken.items()
            if process is not None and process.pid is not None
        }

    def filters(self) -> float:
        """Return how often ours was asked to filter."""
        return sum(_numbers(self._ours(), _FILTERED))

    def filter_seconds(self) -> float:
        """Return how long that took."""
        return sum(_numbers(self._ours(), _FILTER_SECONDS))

    def cycle_ms(self) -> float:
        """Return the mean time of kube-scheduler's serial part, the call of filter included."""
        text = _fetch(f"https://127.0.0.1:{self._secure}/metrics")
        return 1000 * sum(_numbers(text, _CYCLE_SECONDS)) / max(sum(_numbers(text, _CYCLES)), 1)

    def _ours(self) -> str:
        if self._way not in {"shortlist", "classic"}:
            return ""
        return _fetch(f"http://127.0.0.1:{self._ops}/metrics")

    def _make_extender(self) -> Process | None:
        if self._way == "alone":
            return None
        log = self._folder / "extender.log"
        kubeconfig = self._plane.kubeconfig()
        if self._way == "trivial":
            command = [sys.executable, "-m", "tests.bench.trivial", str(kubeconfig)]
            return Process("extender", [*command, str(self._port)], log)
        command = own_command(
            "extender",
            f"--kubeconfig={kubeconfig}",
            f"--port={self._port}",
            f"--ops-port={self._ops}",
        )
        return Process("extender", command, log)

    def _make_scheduler(self) -> Process:
        config = self._folder / f"{self._way}.yaml"
        config.write_text(yaml.safe_dump(self._configuration()))
        command = [
            str(binary_folder() / "kube-scheduler"),
            f"--config={config}",
            f"--secure-port={self._secure}",
            f"--cert-dir={self._folder}",
            "--authorization-always-allow-paths=/metrics",
        ]
        return Process("kube-scheduler", command, self._folder / "kube-scheduler.log")

    def _configuration(self) -> dict[str, Any]:
        configuration: dict[str, Any] = {
            "apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration",
            "leaderElection": {"leaderElect": False},
            "clientConnection": {
                "kubeconfig": str(self._plane.kubeconfig(SCHEDULER)),
                "qps": 5000,
                "burst": 10000,
            },
            "percentageOfNodesToScore": self._percentage,
            "profiles": [{"schedulerName": NAME}],
        }
        if self._way == "alone":
            return configuration
        prioritize = {"prioritizeVerb": "prioritize", "weight": 5}
        extender = {
            "urlPrefix": f"http://127.0.0.1:{self._port}",
            "filterVerb": "filter",
            "bindVerb": "bind",
            **(prioritize if self._way == "classic" else {}),
            "httpTimeout": "5s",
            "nodeCacheCapable": True,
            "managedResources": [{"name": RESOURCE}],
        }
        return {**configuration, "extenders": [extender]}


@asynccontextmanager
async def running(
    plane: ControlPlane, folder: Path, way: Way, percentage: int = 100
) -> AsyncIterator[Schedulers]:
    """Run the schedulers of one way."""
    schedulers = Schedulers(plane, folder, way, percentage)
    try:
        await asyncio.to_thread(schedulers.start)
        yield schedulers
    finally:
        schedulers.stop()


async def bind_all(schedulers: Schedulers, fleet: Fleet, pods: int) -> Run:
    """Watch the pods that are there be bound. They have to be made before kube-scheduler starts."""
    before = schedulers.cpu()
    times = await fleet.watch_bound(pods, 120)
    after = schedulers.cpu()
    assert len(times) == pods, f"{len(times)} of {pods} bound"
    asked = schedulers.filters()
    return Run(
        rate=(pods - 1) / (times[-1] - times[0]),
        cpu={name: (after[name] - before[name]) / pods for name in after},
        cycle=schedulers.cycle_ms(),
        filter=schedulers.filter_seconds() * 1000 / asked if asked else None,
    )


async def time_verdict(fleet: Fleet, name: str, way: Way) -> float:
    """Return milliseconds from the pod's creation until its status says that it fits nowhere."""
    begun = time.monotonic()
    await add_hopeless(fleet, [name], way)
    refused = await fleet.watch_unschedulable(name, 60)
    return (refused - begun) * 1000


async def add_hopeless(fleet: Fleet, names: list[str], way: Way) -> None:
    """Create pods that fit nowhere.

    By our ways they ask for two GPUs with a link that no machine has, so that only the extender
    can refuse them, on every node. Else kube-scheduler finds for itself that no node has nine.
    """
    ours = way in {"shortlist", "classic"}
    notes = {"gputopo.dev/min-link": "NV6"} if ours else {}
    await fleet.add_pods(names, 2 if ours else GPUS + 1, NAME, notes)


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / _TICKS


def _numbers(text: str, name: str) -> list[float]:
    return [float(value) for value in re.findall(rf"^{name} (\S+)$", text, re.MULTILINE)]


def _fetch(url: str) -> str:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    secure = {"context": context} if url.startswith("https") else {}
    with urlopen(url, timeout=10, **secure) as answer:  # noqa: S310 -- our own server's address
        return str(answer.read().decode())
