"""kube-scheduler alone beside kube-scheduler with our extender: same pods, alternating runs."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import yaml

from embedded.ports import free_port
from embedded.processes import own_command
from tests.bench.fleet import GPUS, RESOURCE, Fleet
from tests.bench.rows import Row, summarise
from tests.e2e.components import binary_folder
from tests.e2e.control_plane import SCHEDULER, ControlPlane, answers
from tests.e2e.process import Process

Way = Literal["alone", "shortlist", "classic"]
"""Without an extender; ours as its manifests have it; ours with a prioritize verb."""

NAME: Final = "bench"
GOALS: Final = {100: 0.7}
"""Pods a second beside the same kube-scheduler alone; 1.0 where none is named."""

_TABLE: Final = "The whole scheduler on the real control plane"


def measure(*, quick: bool) -> Iterator[Row]:
    """Bind the same pods by each way in turn, on 100, 1,000 and 5,000 nodes."""
    for nodes, pods, pairs in _plan(quick):
        yield from asyncio.run(_measure_size(nodes, pods, pairs, classic=not quick))


def _plan(quick: bool) -> list[tuple[int, int, int]]:
    if quick:
        return [(100, 400, 2)]
    return [(100, 500, 4), (1000, 700, 3), (5000, 400, 2)]


async def _measure_size(nodes: int, pods: int, pairs: int, *, classic: bool) -> list[Row]:
    folder = Path(tempfile.mkdtemp(prefix="gt-", dir="/tmp"))
    plane = ControlPlane(folder)
    plane.start()
    try:
        async with Fleet(plane) as fleet:
            await fleet.add_nodes([f"n{number:05}" for number in range(nodes)])
            ways: list[Way] = ["alone", "shortlist", *(["classic"] if classic else [])]
            rates: dict[Way, list[float]] = {way: [] for way in ways}
            verdicts: dict[Way, list[float]] = {way: [] for way in ways}
            for turn in range(pairs):
                # The order of each pair is turned round, so that neither always comes first.
                for way in ways if turn % 2 == 0 else reversed(ways):
                    rate, verdict = await _run(plane, folder, fleet, way=way, pods=pods, turn=turn)
                    rates[way].append(rate)
                    verdicts[way].append(verdict)
    finally:
        plane.stop()
    rows = []
    for way in ways[1:]:
        ratios = [ours / other for ours, other in zip(rates[way], rates["alone"], strict=True)]
        median, spread = summarise(rates[way])
        ratio, ratio_spread = summarise(ratios)
        rows.append(
            Row(
                table=_TABLE,
                name=f"{nodes:,} nodes, {pods} pods of one GPU: {way}",
                ours=median,
                other=median / ratio,
                unit="pods/s",
                wanted="at least",
                goal=GOALS.get(nodes, 1.0) if way == "shortlist" else None,
                spread=spread,
                note=f"ratio of {pairs} pairs {ratio_spread[0]:.2f}-{ratio_spread[1]:.2f}",
            )
        )
        median, spread = summarise(verdicts[way])
        rows.append(
            Row(
                table=_TABLE,
                name=f"{nodes:,} nodes: verdict that a pod fits nowhere, {way}",
                ours=median,
                other=summarise(verdicts["alone"])[0],
                unit="ms",
                spread=spread,
            )
        )
    return rows


async def _run(
    plane: ControlPlane, folder: Path, fleet: Fleet, *, way: Way, pods: int, turn: int
) -> tuple[float, float]:
    """Return pods bound a second, and milliseconds to the verdict on a pod that fits nowhere."""
    names = [f"p{turn}-{way}-{number:05}" for number in range(pods)]
    await fleet.add_pods(names, 1, NAME)
    async with _schedulers(plane, folder, way):
        times = await fleet.watch_bound(pods, 120)
        assert len(times) == pods, f"{len(times)} of {pods} bound by {way}"
        rate = (pods - 1) / (times[-1] - times[0])
        verdict = await _time_verdict(fleet, f"q{turn}-{way}", way)
    await fleet.clear_pods([*names, f"q{turn}-{way}"])
    return rate, verdict


async def _time_verdict(fleet: Fleet, name: str, way: Way) -> float:
    """Return milliseconds from the pod's creation until its status says that it fits nowhere.

    By our ways it asks for two GPUs with a link that no machine has, so that only the extender can
    refuse it, on every node. Alone, kube-scheduler has to find for itself that no node has nine.
    """
    wanted, notes = (GPUS + 1, {}) if way == "alone" else (2, {"gputopo.dev/min-link": "NV6"})
    begun = time.monotonic()
    await fleet.add_pods([name], wanted, NAME, notes)
    refused = await fleet.watch_unschedulable(name, 60)
    return (refused - begun) * 1000


@asynccontextmanager
async def _schedulers(plane: ControlPlane, folder: Path, way: Way) -> AsyncIterator[None]:
    """Run kube-scheduler, and by our ways the extender, which is ready before."""
    port, ops = free_port(), free_port()
    running: list[Process] = []
    try:
        if way != "alone":
            extender = Process(
                "extender",
                own_command(
                    "extender",
                    f"--kubeconfig={plane.kubeconfig()}",
                    f"--port={port}",
                    f"--ops-port={ops}",
                ),
                folder / "extender.log",
            )
            extender.start()
            running.append(extender)
            await asyncio.to_thread(
                extender.wait_for, lambda: answers(f"http://127.0.0.1:{ops}/readyz"), 60
            )
        config = folder / f"{way}.yaml"
        config.write_text(yaml.safe_dump(_configuration(plane, way, port)))
        scheduler = Process(
            "kube-scheduler",
            [str(binary_folder() / "kube-scheduler"), f"--config={config}", "--secure-port=0"],
            folder / "kube-scheduler.log",
        )
        scheduler.start()
        running.append(scheduler)
        yield
    finally:
        for process in reversed(running):
            process.stop(signal.SIGKILL)


def _configuration(plane: ControlPlane, way: Way, port: int) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "leaderElection": {"leaderElect": False},
        "clientConnection": {
            "kubeconfig": str(plane.kubeconfig(SCHEDULER)),
            "qps": 5000,
            "burst": 10000,
        },
        "percentageOfNodesToScore": 100,
        "profiles": [{"schedulerName": NAME}],
    }
    if way != "alone":
        configuration["extenders"] = [
            {
                "urlPrefix": f"http://127.0.0.1:{port}",
                "filterVerb": "filter",
                "bindVerb": "bind",
                **({"prioritizeVerb": "prioritize", "weight": 5} if way == "classic" else {}),
                "httpTimeout": "5s",
                "nodeCacheCapable": True,
                "managedResources": [{"name": RESOURCE}],
            }
        ]
    return configuration


def main() -> int:
    """Print the rows as JSON lines; runs inside the sandbox."""
    for row in measure(quick="--quick" in sys.argv):
        sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
