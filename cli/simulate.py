"""`gputopo simulate`: a trace replayed by a published protocol, policy by policy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from cli.simulation_jobs import Job, Lists, run_all
from cli.simulation_report import Report, draw_figures, draw_table, make_report, write_csv
from cli.usage import print_json
from scheduler.errors import SchedulerError
from scheduler.simulation.boards import Machines
from scheduler.simulation.errors import ReplayError
from scheduler.simulation.policies.catalogue import COMPARED, POLICIES, check_policies
from topology.errors import TopologyError
from traces.errors import TraceError
from traces.openb import Node, read_nodes, read_tasks

ALL: Final = "all"

_MOST_SEEDS: Final = 1000
_MOST_LOAD: Final = 10.0
_MOST_COPIES: Final = 1000
# What is known of the trace's load without departures, and what fills a cluster that tasks leave.
_ARRIVALS_LOAD: Final = 1.3
_DYNAMIC_LOAD: Final = 0.9


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
    dynamic: bool = typer.Option(
        False, "--dynamic", help="Tasks arrive and depart by the trace's times, and wait for room."
    ),
    copies: int = typer.Option(6, help="With --dynamic: how many times over the list arrives."),
    load: float | None = typer.Option(
        None,
        help="Arrivals stop at this multiple of the cluster's GPUs, 1.3 by default; with "
        "--dynamic the part of the GPUs that would be in use if nobody waited, 0.9 by default.",
    ),
    processes: int = typer.Option(0, help="How many at once; 0: as many as there are CPUs."),
    json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    csv_file: Path | None = typer.Option(
        None, "--csv", metavar="FILE", help="Write all figures, a row each."
    ),
    figures: Path | None = typer.Option(
        None, metavar="FOLDER", help="Write plots over the arrived load there, as SVG."
    ),
) -> None:
    """Replay a trace: tasks arrive one by one, and nothing departs but with --dynamic."""
    try:
        names = check_policies(list(COMPARED) if ALL in policy else list(dict.fromkeys(policy)))
        wanted = _read_seeds(seeds)
        if load is None:
            load = _DYNAMIC_LOAD if dynamic else _ARRIVALS_LOAD
        _check_numbers(load, processes, copies)
        if dynamic and figures is not None:
            raise ReplayError("--figures: with --dynamic there is no arrived load to plot over")
        cluster = read_nodes(_read_text(nodes), str(nodes))
        tasks = read_tasks(_read_text(pods), str(pods))
        machines = _find_machines(cluster, machine) if links or machine else None
        asked = [Job(name, seed, load, copies * dynamic) for name in names for seed in wanted]
        done = run_all(Lists(cluster, tasks, machines), asked, processes or os.cpu_count() or 1)
        reports = [make_report(name, wanted, [done[name, at] for at in wanted]) for name in names]
        if csv_file is not None:
            csv_file.write_text(write_csv(reports), encoding="utf-8")
        if figures is not None:
            _write_figures(figures, pods.stem, [one for one in reports if isinstance(one, Report)])
    except (SchedulerError, TopologyError, TraceError, OSError) as error:
        # main prints it as one line and ends with 2.
        raise typer.TyperException(" ".join(str(error).split())) from None
    if not json:
        from rich.console import Console

        Console().print(draw_table(reports))
    elif len(reports) == 1 and ALL not in policy:
        print_json(reports[0])
    else:
        print_json({"policies": reports})


def _check_numbers(load: float, processes: int, copies: int) -> None:
    if not 0 < load <= _MOST_LOAD:
        raise ReplayError(f"--load: {load:g} is not above 0 and at most {_MOST_LOAD:g}")
    if processes < 0:
        raise ReplayError(f"--processes: {processes} is less than none")
    if not 1 <= copies <= _MOST_COPIES:
        raise ReplayError(f"--copies: {copies} is not 1 to {_MOST_COPIES}")


def _write_figures(folder: Path, list_name: str, reports: Sequence[Report]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    name = list_name.removeprefix("openb_pod_list_")
    for what, svg in draw_figures(reports, name).items():
        (folder / f"{name}-{what}.svg").write_text(svg, encoding="utf-8")


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
