"""What `gputopo simulate` tells: reports for JSON, a table, CSV rows, plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

import msgspec

from cli.line_chart import draw_lines
from cli.simulation_jobs import Done
from scheduler.simulation.dynamic import Departures
from scheduler.simulation.measures import Outcome, mean_outcome

if TYPE_CHECKING:
    from rich.table import Table

SHOWN: Final = ("90", "100", "130")
"""The arrived loads of the results table."""

Bandwidths = dict[str, float] | msgspec.UnsetType


class Run(msgspec.Struct, frozen=True):
    """A run as it is printed. `seconds` is its wall time, reading the lists apart.

    `bandwidth_gbs` is there with --links only.
    """

    seed: int
    unallocated_pct: dict[str, float]
    fragmented_pct: dict[str, float]
    failed: int
    seconds: float
    bandwidth_gbs: Bandwidths = msgspec.UNSET


class Mean(msgspec.Struct, frozen=True):
    """The mean of a policy's runs."""

    unallocated_pct: dict[str, float]
    fragmented_pct: dict[str, float]
    failed: float
    seconds: float
    bandwidth_gbs: Bandwidths = msgspec.UNSET


class Report(msgspec.Struct, frozen=True):
    """The runs of a policy and their mean."""

    policy: str
    runs: list[Run]
    mean: Mean


class DynamicReport(msgspec.Struct, frozen=True):
    """Runs in which tasks depart: the fields of Departures, with seed and seconds."""

    policy: str
    runs: list[dict[str, object]]
    mean: dict[str, object]


AnyReport = Report | DynamicReport


def make_report(policy: str, seeds: Sequence[int], done: Sequence[Done]) -> AnyReport:
    """Return a policy's report; all runs are of one kind."""
    if isinstance(done[0].figures, Departures):
        return _make_dynamic(policy, seeds, done)
    outcomes = [cast("Outcome", one.figures) for one in done]
    runs = [
        Run(
            seed=seed,
            unallocated_pct=outcome.unallocated_pct,
            fragmented_pct=outcome.fragmented_pct,
            failed=outcome.failed,
            seconds=one.seconds,
            bandwidth_gbs=outcome.bandwidth_gbs or msgspec.UNSET,
        )
        for seed, outcome, one in zip(seeds, outcomes, done, strict=True)
    ]
    means = mean_outcome(outcomes)
    mean = Mean(
        means.unallocated_pct,
        means.fragmented_pct,
        means.failed,
        _mean([one.seconds for one in done]),
        means.bandwidth_gbs or msgspec.UNSET,
    )
    return Report(policy, runs, mean)


def _make_dynamic(policy: str, seeds: Sequence[int], done: Sequence[Done]) -> DynamicReport:
    runs = []
    for seed, one in zip(seeds, done, strict=True):
        figures = msgspec.to_builtins(one.figures)
        if not figures["bandwidth_gbs"]:
            del figures["bandwidth_gbs"]
        runs.append({"seed": seed, **figures, "seconds": one.seconds})
    mean: dict[str, object] = {}
    for key, value in runs[0].items():
        if key == "seed":
            continue
        if isinstance(value, dict):
            sizes = sorted({size for run in runs for size in run[key]}, key=_by_size)
            mean[key] = {
                size: _mean([run[key][size] for run in runs if size in run[key]]) for size in sizes
            }
        else:
            mean[key] = _mean([run[key] for run in runs])
    return DynamicReport(policy, runs, mean)


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 4)


def _by_size(size: str) -> tuple[int, str]:
    return len(size), size


def draw_table(reports: Sequence[AnyReport]) -> Table:
    """Draw the means, a row a policy."""
    from rich.table import Table

    rows = [_row_of(report) for report in reports]
    title = "mean of the runs; free and wasted are GPU % of the cluster, by arrived load in %"
    if isinstance(reports[0], DynamicReport):
        title = "mean of the runs; tasks depart by the trace's times"
    table = Table(title=title)
    table.add_column("policy", no_wrap=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    for name in columns:
        table.add_column(name, justify="right")
    for report, row in zip(reports, rows, strict=True):
        table.add_row(report.policy, *(row.get(name, "-") for name in columns))
    return table


def _row_of(report: AnyReport) -> dict[str, str]:
    row: dict[str, str] = {}
    if isinstance(report, DynamicReport):
        mean = cast("dict[str, float]", report.mean)
        row["GPU time lost %"] = f"{mean['lost_pct']:.2f}"
        row["waited %"] = f"{mean['waited_pct']:.1f}"
        row["mean wait s"] = f"{mean['mean_wait_seconds']:.0f}"
        row["p99 wait s"] = f"{mean['p99_wait_seconds']:.0f}"
        row["2+ GPUs: wait s"] = f"{mean['multi_gpu_wait_seconds']:.0f}"
        row |= _speeds(cast("Mapping[str, float]", report.mean.get("bandwidth_gbs", {})))
        row["s a run"] = f"{mean['seconds']:.1f}"
        return row
    figures = report.mean
    for at in SHOWN:
        if at in figures.unallocated_pct:
            row[f"free @{at}"] = f"{figures.unallocated_pct[at]:.2f}"
    if "100" in figures.fragmented_pct:
        row["wasted @100"] = f"{figures.fragmented_pct['100']:.2f}"
    row |= _speeds(figures.bandwidth_gbs or {})
    row["failed"] = f"{figures.failed:.0f}"
    row["s a run"] = f"{figures.seconds:.1f}"
    return row


def _speeds(bandwidths: Mapping[str, float]) -> dict[str, str]:
    return {
        f"GB/s, {size}" + (" GPUs" if size.isdigit() else ""): f"{bandwidths[size]:.1f}"
        for size in sorted(bandwidths, key=_by_size)
    }


def write_csv(reports: Sequence[AnyReport]) -> str:
    """Write all figures: a row a policy, seed and load, or a row a policy and seed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    first = reports[0]
    if isinstance(first, DynamicReport):
        keys = [key for key, value in first.runs[0].items() if not isinstance(value, dict)]
        writer.writerow(["policy", *keys])
        for report in reports:
            for figures in cast("DynamicReport", report).runs:
                writer.writerow([report.policy, *(figures[key] for key in keys)])
        return text.getvalue()
    writer.writerow(["policy", "seed", "arrived_pct", "unallocated_pct", "fragmented_pct"])
    for report in reports:
        for run in cast("Report", report).runs:
            for at, free in run.unallocated_pct.items():
                writer.writerow([report.policy, run.seed, at, free, run.fragmented_pct[at]])
    return text.getvalue()


def draw_figures(reports: Sequence[Report], title: str) -> dict[str, str]:
    """Return plots as SVG, by what they show: unallocated and fragmented GPU over arrived load."""
    shown = {
        "unallocated": [report.mean.unallocated_pct for report in reports],
        "fragmented": [report.mean.fragmented_pct for report in reports],
    }
    return {
        name: draw_lines(
            f"{title}: {name} GPU",
            "arrived load, % of the cluster's GPUs",
            f"{name} GPU, %",
            {
                report.policy: [(float(at), value) for at, value in figures.items()]
                for report, figures in zip(reports, curves, strict=True)
            },
        )
        for name, curves in shown.items()
    }
