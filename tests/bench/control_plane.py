"""kube-scheduler alone beside kube-scheduler with an extender: same pods, runs in turns.

Beside ours stands an extender that thinks of nothing: what is lost to it no extender in this
language can win back; what is lost beyond it is our own.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import msgspec

from tests.bench.fleet import Fleet
from tests.bench.rows import Row, fit_exponent, summarise
from tests.bench.schedulers import (
    NAME,
    Run,
    Schedulers,
    Way,
    add_hopeless,
    bind_all,
    running,
    time_verdict,
)
from tests.e2e.control_plane import ControlPlane

_TABLE: Final = "The whole scheduler on the real control plane"
_CPU: Final = "Where the whole scheduler's time goes, for each pod"
_CROWD: Final = "A crowd of waiting pods beside the others"
_GROWTH: Final = "Growth with the number of nodes (exponent of the best fit)"
CROWD: Final = 200
IDLE_SECONDS: Final = 5.0


class Plan(NamedTuple):
    """How much is measured at one size."""

    nodes: int
    pods: int
    rounds: int
    ways: tuple[Way, ...] = ("alone", "shortlist", "trivial")


class Measured(NamedTuple):
    """What came of one size: by way the runs and the verdicts' milliseconds, in their order."""

    runs: dict[Way, list[Run]]
    verdicts: dict[Way, list[float]]


_QUICK: Final = (Plan(100, 400, 2),)
_WHOLE: Final = (
    Plan(100, 500, 4, ("alone", "shortlist", "trivial", "classic")),
    Plan(500, 600, 3),
    Plan(1000, 700, 4, ("alone", "shortlist", "trivial", "classic")),
    Plan(5000, 400, 3),
)


async def measure(*, quick: bool) -> AsyncIterator[Row]:
    """Bind the same pods by each way in turn, on more and more nodes."""
    sizes: dict[int, Measured] = {}
    for plan in _QUICK if quick else _WHOLE:
        async with _cluster(plan.nodes) as (plane, folder, fleet):
            sizes[plan.nodes] = measured = await _take_turns(plane, folder, fleet, plan)
            for row in (*_rate_rows(plan, measured), *_cpu_rows(plan, measured)):
                yield row
            if plan.nodes == 1000 or quick:
                async for row in _measure_crowd(plane, folder, fleet, plan):
                    yield row
            if plan.nodes == 5000:
                yield await _measure_adaptive(plane, folder, fleet, plan)
    if not quick:
        for way in ("alone", "trivial", "shortlist"):
            yield _growth_row(sizes, way)


@asynccontextmanager
async def _cluster(nodes: int) -> AsyncIterator[tuple[ControlPlane, Path, Fleet]]:
    with tempfile.TemporaryDirectory(prefix="gt-", dir="/tmp") as name:
        folder = Path(name)
        plane = ControlPlane(folder)
        await asyncio.to_thread(plane.start)
        try:
            async with Fleet(plane) as fleet:
                await fleet.add_nodes([f"n{number:05}" for number in range(nodes)])
                yield plane, folder, fleet
        finally:
            plane.stop()


async def _take_turns(plane: ControlPlane, folder: Path, fleet: Fleet, plan: Plan) -> Measured:
    measured = Measured({way: [] for way in plan.ways}, {way: [] for way in plan.ways})
    for turn in range(plan.rounds):
        # Each round begins with another way, so that none always comes first.
        first = turn % len(plan.ways)
        for way in (*plan.ways[first:], *plan.ways[:first]):
            tag = f"{turn}-{way}"
            names = await _add_pods(fleet, tag, plan.pods)
            async with running(plane, folder, way) as schedulers:
                measured.runs[way].append(await bind_all(schedulers, fleet, plan.pods))
                measured.verdicts[way].append(await time_verdict(fleet, f"q{tag}", way))
            await fleet.clear_pods([*names, f"q{tag}"])
    return measured


async def _add_pods(fleet: Fleet, tag: str, count: int) -> list[str]:
    names = [f"p{tag}-{number:05}" for number in range(count)]
    await fleet.add_pods(names, 1, NAME)
    return names


def _rate_rows(plan: Plan, measured: Measured) -> Iterator[Row]:
    for way in plan.ways[1:]:
        rates = [run.rate for run in measured.runs[way]]
        yield _against(
            f"{plan.nodes:,} nodes, {plan.pods} pods of one GPU: {way}",
            rates,
            [run.rate for run in measured.runs["alone"]],
        )
    ours, trivial = ([run.rate for run in measured.runs[way]] for way in ("shortlist", "trivial"))
    yield _against(f"{plan.nodes:,} nodes: shortlist (beside: trivial)", ours, trivial)
    for way in plan.ways[1:]:
        milliseconds, spread = summarise(measured.verdicts[way])
        yield Row(
            table=_TABLE,
            name=f"{plan.nodes:,} nodes: verdict that a pod fits nowhere, {way}",
            ours=milliseconds,
            other=median(measured.verdicts["alone"]),
            unit="ms",
            spread=spread,
        )


def _against(name: str, rates: Sequence[float], others: Sequence[float]) -> Row:
    """Return the median of the pairs' ratios, beside ours in pods a second."""
    ratios = [ours / other for ours, other in zip(rates, others, strict=True)]
    ratio, (least, most) = summarise(ratios)
    rate, spread = summarise(rates)
    return Row(
        table=_TABLE,
        name=name,
        ours=rate,
        other=rate / ratio,
        unit="pods/s",
        wanted="at least",
        spread=spread,
        note=f"ratio of {len(ratios)} pairs {least:.2f}-{most:.2f}",
    )


def _cpu_rows(plan: Plan, measured: Measured) -> Iterator[Row]:
    ours, alone, trivial = (measured.runs[way] for way in ("shortlist", "alone", "trivial"))
    for process in ours[0].cpu:
        beside, whose = (trivial, "trivial") if process == "extender" else (alone, "alone")
        yield Row(
            table=_CPU,
            name=f"{plan.nodes:,} nodes: processor, {process} (beside: {whose})",
            ours=median(run.cpu[process] for run in ours),
            other=median(run.cpu[process] for run in beside),
            unit="ms",
        )
    yield Row(
        table=_CPU,
        name=f"{plan.nodes:,} nodes: kube-scheduler's serial part (beside: alone)",
        ours=median(run.cycle for run in ours),
        other=median(run.cycle for run in alone),
        unit="ms",
        note=f"with trivial {median(run.cycle for run in trivial):.2f} ms",
    )
    yield Row(
        table=_CPU,
        name=f"{plan.nodes:,} nodes: filter in it",
        ours=median(run.filter or 0.0 for run in ours),
        unit="ms",
    )


async def _measure_adaptive(plane: ControlPlane, folder: Path, fleet: Fleet, plan: Plan) -> Row:
    """Let kube-scheduler look at the part of the nodes that it takes by default."""
    rates: dict[Way, list[float]] = {"alone": [], "shortlist": []}
    for turn in range(plan.rounds):
        for way in ("alone", "shortlist") if turn % 2 == 0 else ("shortlist", "alone"):
            names = await _add_pods(fleet, f"a{turn}-{way}", plan.pods)
            async with running(plane, folder, way, percentage=0) as schedulers:
                rates[way].append((await bind_all(schedulers, fleet, plan.pods)).rate)
            await fleet.clear_pods(names)
    name = f"{plan.nodes:,} nodes, percentageOfNodesToScore adaptive, {plan.pods} pods: shortlist"
    return _against(name, rates["shortlist"], rates["alone"])


async def _measure_crowd(
    plane: ControlPlane, folder: Path, fleet: Fleet, plan: Plan
) -> AsyncIterator[Row]:
    """Bind pods while others that fit nowhere wait; see what these cost when nothing happens."""
    rates: dict[str, list[float]] = {"with": [], "without": []}
    idle: list[float] = []
    way: Way = "shortlist"
    for turn in range(plan.rounds):
        for crowded in ("with", "without") if turn % 2 == 0 else ("without", "with"):
            crowd = [f"w{turn}-{number:03}" for number in range(CROWD * (crowded == "with"))]
            names = await _add_pods(fleet, f"c{turn}-{crowded}", plan.pods)
            await add_hopeless(fleet, crowd, way)
            async with running(plane, folder, way) as schedulers:
                rates[crowded].append((await bind_all(schedulers, fleet, plan.pods)).rate)
                if crowd:
                    await fleet.watch_unschedulable(crowd[-1], 60)
                    await _settle(schedulers)
                    before = schedulers.filters()
                    await asyncio.sleep(IDLE_SECONDS)
                    idle.append((schedulers.filters() - before) / IDLE_SECONDS)
            await fleet.clear_pods([*names, *crowd])
    row = _against(
        f"{plan.nodes:,} nodes, {plan.pods} pods of one GPU while {CROWD} wait (beside: none wait)",
        rates["with"],
        rates["without"],
    )
    yield msgspec.structs.replace(row, table=_CROWD)
    calls, spread = summarise(idle)
    yield Row(
        table=_CROWD,
        name=f"{plan.nodes:,} nodes: filter calls a second while {CROWD} wait and nothing happens",
        ours=calls,
        unit="/s",
        spread=spread,
    )


async def _settle(schedulers: Schedulers) -> None:
    """Wait until nobody is tried any more: each pod is once again when its own status has changed.

    At most twice as long as is measured then: pods that are tried without end shall be seen.
    """
    asked = -1.0
    for _ in range(int(2 * IDLE_SECONDS)):
        if asked == (asked := schedulers.filters()):
            return
        await asyncio.sleep(1)


def _growth_row(sizes: dict[int, Measured], way: Way) -> Row:
    seconds = [1 / median(run.rate for run in one.runs[way]) for one in sizes.values()]
    named = "ours (shortlist)" if way == "shortlist" else way
    return Row(
        table=_GROWTH,
        name=f"the whole scheduler's time for a pod, {min(sizes)} to {max(sizes):,} nodes: {named}",
        ours=fit_exponent(list(sizes), seconds),
        unit="",
    )


async def _print_rows(*, quick: bool) -> None:
    async with aclosing(measure(quick=quick)) as rows:
        async for row in rows:
            sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
            sys.stdout.flush()


def main() -> int:
    """Print the rows as JSON lines; runs inside the sandbox."""
    asyncio.run(_print_rows(quick="--quick" in sys.argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
