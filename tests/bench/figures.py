"""The tables and plots of docs/simulation.md: `make figures OPENB=folder`.

Runs every list of the folder under every policy and keeps the means in docs/figures/results.json;
the page's tables stand between marks and are drawn from that file, so that some of the runs can
be repeated (`--lists default --modes links --policies fgd`) and the others stay.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cli.simulation_jobs import Job, Lists, run_all
from cli.simulation_report import Report, draw_figures, make_report
from cli.trace_machines import OPENB_MACHINES, find_machines
from scheduler.simulation.policies.catalogue import COMPARED, PUBLISHED
from traces.openb import read_nodes, read_tasks

DOCS = Path(__file__).parents[2] / "docs"
RESULTS = DOCS / "figures" / "results.json"
PAGE = DOCS / "simulation.md"
NODES = "openb_node_list_gpu_node.csv"
PODS = "openb_pod_list_"
LINKED = ("default", "multigpu20")
LOADS = ("90", "100", "130")

# What the authors recorded, at 100 and 130 %, of the lists that come with the project's data.
RECORDED = {
    "default": (13.70, 9.38, 8.35, 8.22, 7.14, 4.77),
    "cpu050": (10.98, 6.97, 6.48, 6.54, 6.44, 5.00),
    "gpushare40": (15.14, 10.70, 10.24, 10.23, 8.56, 6.04),
    "gpuspec10": (13.74, 9.83, 8.04, 7.76, 6.90, 5.34),
    "multigpu20": (13.08, 8.15, 6.66, 6.50, 6.27, 4.47),
}
RECORDED_FGD = {
    "default": "4.77 / 4.61",
    "cpu050": "5.00 / 4.79",
    "gpushare40": "6.04 / 5.85",
    "gpuspec10": "5.34 / 5.05",
    "multigpu20": "4.47 / 4.35",
}

Results = dict[str, dict[str, dict[str, Any]]]
"""Mode -> list -> policy -> figures."""


def run(
    folder: Path, mode: str, name: str, policies: Sequence[str], seeds: range
) -> dict[str, Any]:
    """Run one list in one mode; returns the means by policy."""
    nodes = read_nodes((folder / NODES).read_text(), NODES)
    file = f"{PODS}{name}.csv"
    tasks = read_tasks((folder / file).read_text(), file)
    machines = find_machines(nodes, OPENB_MACHINES) if mode == "links" else None
    load, copies = (0.9, 6) if mode == "dynamic" else (1.3, 0)
    jobs = [Job(policy, seed, load, copies) for policy in policies for seed in seeds]
    done = run_all(Lists(nodes, tasks, machines), jobs, os.cpu_count() or 1)
    reports = [
        make_report(policy, list(seeds), [done[policy, seed] for seed in seeds])
        for policy in policies
    ]
    plain = [report for report in reports if isinstance(report, Report)]
    if mode == "plain" and len(plain) == len(COMPARED):
        for what, svg in draw_figures(plain, name).items():
            (RESULTS.parent / f"{name}-{what}.svg").write_text(svg)
    return {report.policy: figures_of(report, len(seeds)) for report in reports}


def figures_of(report: Any, seeds: int) -> dict[str, Any]:
    """Return what is kept of a policy's mean."""
    if not isinstance(report, Report):
        return {**report.mean, "seeds": seeds}
    mean = report.mean
    kept: dict[str, Any] = {at: mean.unallocated_pct[at] for at in LOADS}
    kept["failed"] = round(mean.failed, 1)
    if mean.bandwidth_gbs:
        kept["bandwidth_gbs"] = mean.bandwidth_gbs
    return {**kept, "seeds": seeds}


def cell(results: Results, mode: str, name: str, policy: str, show: Callable[[Any], str]) -> str:
    """Draw one cell, a dash where nothing was run."""
    figures = results.get(mode, {}).get(name, {}).get(policy)
    return show(figures) if figures else "-"


def both(figures: Mapping[str, float]) -> str:
    """Draw the figures at 100 and 130 %."""
    return f"{figures['100']:.2f} / {figures['130']:.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Draw a table of numbers with a first column of names."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def draw_tables(results: Results) -> dict[str, str]:
    """Return the page's tables by their marks."""
    lists = [name for name in RECORDED if name in results.get("plain", {})]

    def published(name: str) -> list[str]:
        cells = zip(PUBLISHED, RECORDED[name], strict=True)
        return [
            cell(results, "plain", name, policy, lambda f: f"{f['100']:.2f}") + f" ({recorded:.2f})"
            for policy, recorded in cells
        ]

    ours = ("fgd", "kube", "gputopo", "gputopo-learned")
    tables = {
        "published": table(["list", *PUBLISHED], [[name, *published(name)] for name in lists]),
        "ours": table(
            ["list", "FGD recorded", *(f"`{policy}`" for policy in ours)],
            [
                [
                    name,
                    RECORDED_FGD[name],
                    *(cell(results, "plain", name, policy, both) for policy in ours),
                ]
                for name in lists
            ],
        ),
    }
    for name, runs in results.get("links", {}).items():
        rows = [
            [
                f"`{policy}`",
                *(f"{figures[at]:.2f}" for at in LOADS),
                *(
                    f"{figures['bandwidth_gbs'].get(size, 0):.0f}"
                    for size in ("2", "4", "8", "all")
                ),
            ]
            for policy, figures in runs.items()
        ]
        head = ["policy", "free @90", "@100", "@130", "GB/s, 2 GPUs", "4 GPUs", "8 GPUs", "all"]
        tables[f"links-{name}"] = table(head, rows)
    rows = [
        [
            f"`{policy}`",
            f"{figures['lost_pct']:.2f}",
            f"{figures['waited_pct']:.1f}",
            f"{figures['mean_wait_seconds']:.0f}",
            f"{figures['p99_wait_seconds']:.0f}",
            f"{figures['multi_gpu_wait_seconds']:.0f}",
        ]
        for policy, figures in results.get("dynamic", {}).get("default", {}).items()
    ]
    head = ["policy", "GPU time lost %", "waited %", "mean wait s", "p99 wait s", "2+ GPUs: wait s"]
    tables["dynamic"] = table(head, rows)
    return tables


def write_page(results: Results) -> None:
    """Put the tables between their marks; raises SystemExit if a mark is missing."""
    text = PAGE.read_text()
    for name, drawn in draw_tables(results).items():
        pattern = rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)"
        text, times = re.subn(
            pattern, lambda m, drawn=drawn: f"{m[1]}{drawn}\n{m[2]}", text, flags=re.DOTALL
        )
        if times != 1:
            raise SystemExit(f"{PAGE}: there are {times} marks for table {name}, wanted 1")
    PAGE.write_text(text)


def main(words: Sequence[str] | None = None) -> None:
    """Run what was asked for, and write results, plots and the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="where the lists are; none: draw only")
    parser.add_argument("--lists", nargs="+", help="default: all of the folder")
    parser.add_argument("--modes", nargs="+", default=["plain", "links", "dynamic"])
    parser.add_argument("--policies", nargs="+", default=list(COMPARED))
    parser.add_argument("--seeds", default="42-51")
    given = parser.parse_args(words)
    results: Results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    first, last = map(int, given.seeds.split("-"))
    RESULTS.parent.mkdir(exist_ok=True)
    lists = given.lists
    if given.folder is not None and lists is None:
        lists = sorted(path.stem.removeprefix(PODS) for path in given.folder.glob(f"{PODS}*.csv"))
    for mode in given.modes if given.folder is not None else ():
        # Links matter to lists with multi-GPU tasks; the multigpu lists have no times.
        wanted = {"links": LINKED, "dynamic": ("default",)}.get(mode, lists)
        for name in [name for name in lists if name in wanted]:
            print(mode, name, flush=True)
            means = run(given.folder, mode, name, given.policies, range(first, last + 1))
            results.setdefault(mode, {}).setdefault(name, {}).update(means)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_page(results)


if __name__ == "__main__":
    main()
