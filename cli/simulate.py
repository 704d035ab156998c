"""`gputopo simulate`: a trace replayed under the published protocol, policy by policy."""

from __future__ import annotations

import csv
import io
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import typer

from cli.usage import print_json
from scheduler.errors import SchedulerError
from scheduler.simulation.boards import Machines
from scheduler.simulation.errors import ReplayError
from scheduler.simulation.measures import Outcome, mean_outcome
from scheduler.simulation.policies.catalogue import COMPARED, POLICIES, check_policies
from scheduler.simulation.runs import run_once
from topology.errors import TopologyError
from traces.errors import TraceError
from traces.openb import Node, Task, read_nodes, read_tasks

if TYPE_CHECKING:
    from rich.table import Table

ALL: Final = "all"
SHOWN: Final = ("90", "100", "130")
"""The arrived loads of the results table."""

_MOST_SEEDS: Final = 1000
_MOST_LOAD: Final = 10.0


class Job(msgspec.Struct, frozen=True):
    """What a process is asked for."""

    policy: str
    seed: int
    load: float


class Run(msgspec.Struct, frozen=True):
    """A run as it is printed. `seconds` is its wall time, reading the lists apart.

    `bandwidth_gbs` is there with --links only.
    """

    seed: int
    unallocated_pct: dict[str, float]
    fragmented_pct: dict[str, float]
    failed: int
    seconds: float
    bandwidth_gbs: dict[str, float] | msgspec.UnsetType = msgspec.UNSET


class Mean(msgspec.Struct, frozen=True):
    """The mean of a policy's runs."""

    unallocated_pct: dict[str, float]
    fragmented_pct: dict[str, float]
    failed: float
    seconds: float
    bandwidth_gbs: dict[str, float] | msgspec.UnsetType = msgspec.UNSET


class Report(msgspec.Struct, frozen=True):
    """The runs of a policy and their mean."""

    policy: str
    runs: list[Run]
    mean: Mean


def simulate(
    *,
    nodes: Path = typer.Option(..., metavar="CSV", help="A node list in the openb format."),
    pods: Path = typer.Option(..., metavar="CSV", help="A pod list in the openb format."),
    policy: list[str] = typer.Option(
        ["gputopo"], help=f"May be repeated; {ALL}, or " + ", ".join(POLICIES) + "."
    ),
    seeds: str = typer.Option("42-51", metavar="A-B", help="One run a seed."),
    links: bool = typer.Option(
        False, "--links", help="Nodes are real machines by model, and sets have a bandwidth."
    ),
    machine: list[str] = typer.Option(
        [],
        metavar="MODEL[/GPUS]=MACHINE",
        help="The machine behind nodes of a model: a shipped name or a file. Implies --links.",
    ),
    load: float = typer.Option(1.3, help="Arrivals stop at this multiple of the cluster's GPUs."),
    processes: int = typer.Option(0, help="How many at once; 0: as many as there are CPUs."),
    json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    csv_file: Path | None = typer.Option(
        None, "--csv", metavar="FILE", help="Write policy, seed, load and figures, a row each."
    ),
) -> None:
    """Replay a trace: tasks arrive one by one, nothing departs."""
    try:
        names = check_policies(list(COMPARED) if ALL in policy else list(dict.fromkeys(policy)))
        wanted = _read_seeds(seeds)
        if not 0 < load <= _MOST_LOAD:
            raise ReplayError(f"--load: {load:g} is not above 0 and at most {_MOST_LOAD:g}")
        if processes < 0:
            raise ReplayError(f"--processes: {processes} is less than none")
        cluster = read_nodes(_read_text(nodes), str(nodes))
        tasks = read_tasks(_read_text(pods), str(pods))
        machines = _find_machines(cluster, machine) if links or machine else None
        jobs = [Job(name, seed, load) for name in names for seed in wanted]
        lists = _Lists(cluster, tasks, machines)
        runs = _run_all(lists, jobs, processes or os.cpu_count() or 1)
        reports = [_make_report(name, [runs[name, seed] for seed in wanted]) for name in names]
        if csv_file is not None:
            csv_file.write_text(_write_csv(reports), encoding="utf-8")
    except (SchedulerError, TopologyError, TraceError, OSError) as error:
        # main prints it as one line and ends with 2.
        raise typer.TyperException(" ".join(str(error).split())) from None
    if not json:
        _print_table(_draw_table(reports))
    elif len(reports) == 1 and ALL not in policy:
        print_json(reports[0])
    else:
        print_json({"policies": reports})


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(str(path), 0, "", f"not UTF-8 text ({error.reason})") from None


def _read_seeds(text: str) -> list[int]:
    """Read A-B or A, both ends included."""
    first, dash, last = text.partition("-")
    numbers = [first, last] if dash else [first, first]
    if not all(part.isascii() and part.isdigit() and len(part) < 10 for part in numbers):
        raise ReplayError(f"--seeds: {text!r} is neither A-B nor one number")
    low, high = map(int, numbers)
    if not low <= high < low + _MOST_SEEDS:
        raise ReplayError(f"--seeds: {text!r} is not a range of 1 to {_MOST_SEEDS} seeds")
    return list(range(low, high + 1))


def _find_machines(nodes: Sequence[Node], rules: Sequence[str]) -> Machines:
    # Here, as it brings the mock and discovery, which a replay without links does without.
    from cli.trace_machines import OPENB_MACHINES, find_machines

    return find_machines(nodes, [*OPENB_MACHINES, *rules])


class _Lists(msgspec.Struct, frozen=True):
    """What all jobs share."""

    nodes: tuple[Node, ...] = ()
    tasks: tuple[Task, ...] = ()
    machines: Machines | None = None


# Once in each process: the same for all of its jobs.
_lists = _Lists()


def _receive(lists: _Lists) -> None:
    global _lists  # noqa: PLW0603 -- how a pool's process keeps what its jobs share
    _lists = lists


def _run_one(job: Job) -> tuple[Job, Run]:
    started = time.perf_counter()
    outcome = run_once(
        _lists.nodes,
        _lists.tasks,
        job.policy,
        seed=job.seed,
        load=job.load,
        machines=_lists.machines,
    )
    seconds = round(time.perf_counter() - started, 3)
    run = Run(
        seed=job.seed,
        unallocated_pct=outcome.unallocated_pct,
        fragmented_pct=outcome.fragmented_pct,
        failed=outcome.failed,
        seconds=seconds,
        bandwidth_gbs=outcome.bandwidth_gbs or msgspec.UNSET,
    )
    return job, run


def _run_all(lists: _Lists, jobs: Sequence[Job], processes: int) -> dict[tuple[str, int], Run]:
    done = {}
    for job, run in _show_progress(_run_in_pool(lists, jobs, processes), len(jobs)):
        done[job.policy, job.seed] = run
    return done


def _run_in_pool(lists: _Lists, jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Run]]:
    processes = min(processes, len(jobs))
    if processes == 1:
        _receive(lists)
        yield from map(_run_one, jobs)
        return
    # Spawned, not forked: no thread's locks come along, and it is the same on every system.
    with ProcessPoolExecutor(
        processes,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_receive,
        initargs=(lists,),
    ) as pool:
        futures = [pool.submit(_run_one, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _show_progress(results: Iterator[tuple[Job, Run]], total: int) -> Iterator[tuple[Job, Run]]:
    """Pass results on, with a bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield from results
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Remaining())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("runs", total=total)
        for result in results:
            progress.update(bar, advance=1, description=result[0].policy)
            yield result


def _make_report(policy: str, runs: list[Run]) -> Report:
    outcomes = [
        Outcome(run.unallocated_pct, run.fragmented_pct, run.failed, run.bandwidth_gbs or {})
        for run in runs
    ]
    seconds = round(sum(run.seconds for run in runs) / len(runs), 3)
    means = mean_outcome(outcomes)
    mean = Mean(
        means.unallocated_pct,
        means.fragmented_pct,
        means.failed,
        seconds,
        means.bandwidth_gbs or msgspec.UNSET,
    )
    return Report(policy, runs, mean)


def _draw_table(reports: Sequence[Report]) -> Table:
    """Draw means: unallocated and fragmented GPU in percent of all, at some arrived loads."""
    from rich.table import Table

    table = Table(title="GPU % of the cluster, mean of the runs, by arrived load in %")
    table.add_column("policy", no_wrap=True)
    shown = [at for at in SHOWN if any(at in report.mean.unallocated_pct for report in reports)]
    for at in shown:
        table.add_column(f"free @{at}", justify="right")
    for at in shown[1:2]:
        table.add_column(f"wasted @{at}", justify="right")
    sizes = sorted(
        {size for report in reports for size in report.mean.bandwidth_gbs or {}},
        key=lambda size: (len(size), size),
    )
    for size in sizes:
        table.add_column(f"GB/s, {size}" + (" GPUs" if size.isdigit() else ""), justify="right")
    for name in ("failed", "s a run"):
        table.add_column(name, justify="right")
    for report in reports:
        figure = report.mean
        cells = [_cell(figure.unallocated_pct, at) for at in shown]
        cells += [_cell(figure.fragmented_pct, at) for at in shown[1:2]]
        cells += [_cell(figure.bandwidth_gbs or {}, size) for size in sizes]
        table.add_row(report.policy, *cells, f"{figure.failed:.0f}", f"{figure.seconds:.1f}")
    return table


def _cell(figures: dict[str, float], at: str) -> str:
    return f"{figures[at]:.2f}" if at in figures else "-"


def _print_table(table: Table) -> None:
    from rich.console import Console

    Console().print(table)


def _write_csv(reports: Sequence[Report]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["policy", "seed", "arrived_pct", "unallocated_pct", "fragmented_pct"])
    for report in reports:
        for run in report.runs:
            for at, free in run.unallocated_pct.items():
                writer.writerow([report.policy, run.seed, at, free, run.fragmented_pct[at]])
    return text.getvalue()
