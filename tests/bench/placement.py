"""How full a cluster gets and how fast its sets are: our engine beside the published policies.

The lists of the openb trace are not part of the repository: OPENB names their folder. The figures
come out the same on every machine; docs/simulation.md has more of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from cli.simulation_jobs import Job, Lists, run_all
from cli.simulation_report import Mean, Report, make_report
from cli.trace_machines import OPENB_MACHINES, find_machines
from scheduler.simulation.policies.catalogue import COMPARED, OURS, PUBLISHED
from tests.bench.figures import NODES, PODS, RECORDED, RECORDED_FGD
from tests.bench.rows import Row
from tests.e2e.errors import MissingError
from traces.openb import read_nodes, read_tasks

LOADS: Final = ("100", "130")
LINKED: Final = "multigpu20"
FIRST_SEED: Final = 42
_LOAD: Final = 1.3
_FREE: Final = "Placement: GPUs left unallocated, % of the cluster (openb)"
_FAST: Final = (
    "Placement: predicted bus bandwidth of tasks of several GPUs, GB/s (openb, real machines)"
)


def find_lists() -> Path:
    """Return the folder of the lists. Raises MissingError if there is none."""
    folder = os.environ.get("OPENB", "")
    if not folder:
        raise MissingError("OPENB does not name the folder of the openb lists (see simulation.md)")
    if not (Path(folder) / NODES).is_file():
        raise MissingError(f"OPENB: {folder} has no {NODES}")
    return Path(folder)


def measure(*, quick: bool) -> Iterator[Row]:
    """Replay lists by the published protocol, and one on real machines."""
    folder = find_lists()
    every: Sequence[str] = ("fgd", "kube", OURS) if quick else COMPARED
    yield from _compare_free(folder, "default", every, seeds=1 if quick else 4)
    if quick:
        return
    for name in RECORDED:
        if name != "default" and (folder / f"{PODS}{name}.csv").is_file():
            yield from _compare_free(folder, name, ("fgd", OURS), seeds=2)
    if (folder / f"{PODS}{LINKED}.csv").is_file():
        yield from _compare_speed(folder, every, seeds=2)


def _compare_free(folder: Path, name: str, policies: Sequence[str], seeds: int) -> Iterator[Row]:
    means = _replay(folder, name, policies, seeds, linked=False)
    for at in LOADS:
        for policy in policies:
            if policy != OURS:
                yield Row(
                    table=_FREE,
                    name=f"{name}, {at} % arrived, beside {policy}",
                    ours=means[OURS].unallocated_pct[at],
                    other=means[policy].unallocated_pct[at],
                    unit="%",
                    note=_tell(name, policy, at, seeds),
                )


def _compare_speed(folder: Path, policies: Sequence[str], seeds: int) -> Iterator[Row]:
    means = _replay(folder, LINKED, policies, seeds, linked=True)
    for size in ("2", "4", "8"):
        for policy in policies:
            if policy != OURS:
                yield Row(
                    table=_FAST,
                    name=f"{LINKED}, tasks of {size} GPUs, beside {policy}",
                    ours=_bandwidths(means[OURS])[size],
                    other=_bandwidths(means[policy])[size],
                    unit="GB/s",
                    wanted="at least",
                    note=_count(seeds),
                )


def _bandwidths(mean: Mean) -> dict[str, float]:
    assert isinstance(mean.bandwidth_gbs, dict)
    return mean.bandwidth_gbs


def _tell(name: str, policy: str, at: str, seeds: int) -> str:
    """Return how many seeds, and what the policy's authors recorded of it."""
    told = _count(seeds)
    if policy == "fgd":
        told += f"; recorded by its authors: {RECORDED_FGD[name].split(' / ')[LOADS.index(at)]}"
    elif policy in PUBLISHED and at == "100":
        told += f"; recorded by FGD's authors: {RECORDED[name][PUBLISHED.index(policy)]:.2f}"
    return told


def _count(seeds: int) -> str:
    if seeds == 1:
        return f"seed {FIRST_SEED}"
    return f"mean of seeds {FIRST_SEED}-{FIRST_SEED + seeds - 1}"


def _replay(
    folder: Path, name: str, policies: Sequence[str], seeds: int, *, linked: bool
) -> dict[str, Mean]:
    nodes = read_nodes((folder / NODES).read_text(encoding="utf-8"), NODES)
    file = f"{PODS}{name}.csv"
    tasks = read_tasks((folder / file).read_text(encoding="utf-8"), file)
    machines = find_machines(nodes, OPENB_MACHINES) if linked else None
    numbers = range(FIRST_SEED, FIRST_SEED + seeds)
    jobs = [Job(policy, seed, _LOAD) for policy in policies for seed in numbers]
    done = run_all(Lists(nodes, tasks, machines), jobs, os.cpu_count() or 1)
    means = {}
    for policy in policies:
        report = make_report(policy, list(numbers), [done[policy, seed] for seed in numbers])
        assert isinstance(report, Report)
        means[policy] = report.mean
    return means
