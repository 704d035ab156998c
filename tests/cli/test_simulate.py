"""`gputopo simulate`: the contract of its JSON, its table, its CSV and its errors."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

NODES = "sn,cpu_milli,memory_mib,gpu,model\n" + "".join(
    f"node-{at},{gpus * 12_000},65536,{gpus},{model}\n"
    for at, (gpus, model) in enumerate([(8, "G2"), (2, "T4"), (4, "P100")])
)
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n" + "".join(
    f"pod-{at},{cpu},1024,{gpus},{share}\n"
    for at, (cpu, gpus, share) in enumerate(
        [(3152, 1, 810), (3152, 1, 470), (11_400, 1, 1000), (8000, 0, 0), (16_000, 2, 1000)] * 3
    )
)


@pytest.fixture
def lists(tmp_path: Path) -> list[str]:
    """Write a small trace; returns the options that name it."""
    (tmp_path / "nodes.csv").write_text(NODES)
    (tmp_path / "pods.csv").write_text(PODS)
    return ["--nodes", str(tmp_path / "nodes.csv"), "--pods", str(tmp_path / "pods.csv")]


def simulate(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "simulate", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_policy_is_one_object(lists: list[str]) -> None:
    """Its keys are the contract; each whole percent from 75 to the load has a figure."""
    done = simulate(*lists, "--policy", "fgd", "--seeds", "42-43", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert set(report) == {"policy", "runs", "mean"}
    assert report["policy"] == "fgd"
    assert [run["seed"] for run in report["runs"]] == [42, 43]
    percents = [str(x) for x in range(75, 131)]
    for run in report["runs"]:
        assert set(run) == {"seed", "unallocated_pct", "fragmented_pct", "failed", "seconds"}
        assert list(run["unallocated_pct"]) == list(run["fragmented_pct"]) == percents
    for key in ("unallocated_pct", "fragmented_pct"):
        figures = [run[key]["100"] for run in report["runs"]]
        assert report["mean"][key]["100"] == pytest.approx(sum(figures) / 2, abs=1e-4)


def test_all_policies_are_an_object_of_objects(lists: list[str]) -> None:
    """`--policy all` prints them under `policies`, each as it stands alone."""
    done = simulate(*lists, "--policy", "all", "--seeds", "7", "--json", "--processes", "1")
    names = [report["policy"] for report in json.loads(done.stdout)["policies"]]
    assert names[:6] == ["random", "dotprod", "clustering", "packing", "bestfit", "fgd"]
    assert "gputopo" in names


def test_links_give_sets_a_bandwidth(lists: list[str]) -> None:
    """With machines behind the nodes, each run tells what its multi-GPU tasks got, by size."""
    done = simulate(*lists, "--seeds", "1-1", "--links", "--json")
    (run,) = json.loads(done.stdout)["runs"]
    assert set(run["bandwidth_gbs"]) == {"2", "all"}
    assert 0 < run["bandwidth_gbs"]["2"] < 1000


def test_a_machine_may_be_named(lists: list[str]) -> None:
    """`--machine` replaces the one behind a model: two of the GPUs of an H100 are faster."""
    speeds = []
    for words in (("--links",), ("--machine", "G2=hgx-h100-8x-ib")):
        done = simulate(*lists, "--seeds", "1-1", "--json", *words)
        speeds.append(json.loads(done.stdout)["mean"]["bandwidth_gbs"]["2"])
    assert speeds[0] < speeds[1]


def test_tasks_may_depart(lists: list[str], tmp_path: Path) -> None:
    """`--dynamic` tells what waiting cost; the list needs times."""
    rows = "".join(f"p{at},1000,1,{1 + at % 2},1000,{at},{at + 40},{at}\n" for at in range(40))
    header = PODS.splitlines()[0] + ",creation_time,deletion_time,scheduled_time\n"
    (tmp_path / "pods.csv").write_text(header + rows)
    file = tmp_path / "out.csv"
    words = ("--dynamic", "--copies", "1", "--load", "4", "--seeds", "1-2", "--csv", str(file))
    done = simulate(*lists, *words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert [run["seed"] for run in report["runs"]] == [1, 2]
    assert 0 < report["mean"]["lost_pct"] < 100
    assert report["mean"]["mean_wait_seconds"] > 0
    assert len(list(csv.DictReader(file.read_text().splitlines()))) == 2


def test_plots_are_written(lists: list[str], tmp_path: Path) -> None:
    """Unallocated and fragmented GPU over the arrived load, a line a policy."""
    folder = tmp_path / "figures"
    words = ("--policy", "bestfit", "--policy", "fgd", "--seeds", "1-1", "--figures", str(folder))
    assert simulate(*lists, *words).returncode == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "pods-fragmented.svg",
        "pods-unallocated.svg",
    ]
    assert (folder / "pods-fragmented.svg").read_text().count("<polyline") == 2


def test_processes_do_not_change_the_figures(lists: list[str]) -> None:
    """Runs are the same in one process and in two."""
    figures = []
    for processes in ("1", "2"):
        done = simulate(*lists, "--seeds", "1-3", "--json", "--processes", processes)
        runs = json.loads(done.stdout)["runs"]
        figures.append([run | {"seconds": 0} for run in runs])
    assert figures[0] == figures[1]


def test_the_table_compares_policies(lists: list[str], tmp_path: Path) -> None:
    """Without --json there is a table, and --csv holds all figures."""
    file = tmp_path / "out.csv"
    words = ("--policy", "bestfit", "--policy", "gputopo", "--seeds", "1-1", "--csv", str(file))
    done = simulate(*lists, *words)
    assert done.returncode == 0
    assert "bestfit" in done.stdout
    assert "gputopo" in done.stdout
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert {row["policy"] for row in rows} == {"bestfit", "gputopo"}
    assert [row["arrived_pct"] for row in rows[:2]] == ["75", "76"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--policy", "nosuch"), "gputopo: no policy 'nosuch'; there are random, "),
        (("--seeds", "5-3"), "gputopo: --seeds: '5-3' is not a range of 1 to 1000 seeds\n"),
        (("--seeds", "x"), "gputopo: --seeds: 'x' is neither A-B nor one number\n"),
        (("--load", "nan"), "gputopo: --load: nan is not above 0 and at most 10\n"),
        (("--processes", "-1"), "gputopo: --processes: -1 is less than none\n"),
        (("--machine", "G2"), "gputopo: --machine: 'G2' is not MODEL=NAME or MODEL/GPUS=NAME\n"),
        (("--machine", "G2=nosuch"), "gputopo: "),
        (("--machine", "G2=a30-4x-bridges"), "gputopo: --machine: a30-4x-bridges has 4 GPUs, "),
        (("--dynamic",), "gputopo: no task of the list has times, so none can depart\n"),
        (("--dynamic", "--copies", "0"), "gputopo: --copies: 0 is not 1 to 1000\n"),
        (("--dynamic", "--figures", "x"), "gputopo: --figures: with --dynamic there is no "),
        (("--csv", "/nowhere/x.csv"), "gputopo: [Errno 2] No such file or directory: "),
        (("--nodes", "/nowhere/n.csv"), "gputopo: [Errno 2] No such file or directory: "),
    ],
)
def test_bad_usage_is_one_line(lists: list[str], words: tuple[str, ...], told: str) -> None:
    """Exit code 2, and nothing on standard output."""
    done = simulate(*lists, "--seeds", "1-1", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(told)
    assert done.stderr.count("\n") == 1


def test_a_bad_row_is_named(lists: list[str], tmp_path: Path) -> None:
    """File, line and column stand in front."""
    pods = tmp_path / "pods.csv"
    pods.write_text(PODS + "last,many,1,1,1000\n")
    done = simulate(*lists)
    assert done.returncode == 2
    assert done.stderr.startswith(f"gputopo: {pods}:17:cpu_milli: 'many' is not a whole number")
