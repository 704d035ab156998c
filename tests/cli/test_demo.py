"""`gputopo demo` as a command: real processes and sockets, one JSON object, nothing left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.main import run
from tests.waiting import wait_until

MACHINES = ("--machine", "dgx1-v100", "--machine", "a40-8x-bridges", "--machine", "l40s-4x")
HEADER = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\n"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """Lend a folder for temporary files whose path is short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def start_demo(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command with its temporary files in `folder`."""
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )


def run_demo(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Run it to its end; standard output must be one JSON object."""
    process = start_demo(folder, *arguments, "--json")
    out, err = process.communicate(timeout=110)
    assert out, err
    return process.returncode, msgspec.json.decode(out)


def assert_nothing_left(folder: Path) -> None:
    """No file, no socket, and no process that was started in `folder`."""
    assert list(folder.iterdir()) == []
    assert processes_of(folder) == []


def processes_of(folder: Path) -> list[str]:
    """Return the command lines that mention the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line)
    return found


def test_every_pod_sees_its_set_and_the_rest_waits_with_a_reason(short_folder: Path) -> None:
    """The whole way works: all that run are honoured, and what does not fit says why."""
    status, report = run_demo(short_folder, *MACHINES, "--pods", "14")
    assert status == 0, report
    assert report["nodes"] == 3
    assert report["gpus"] == 20
    assert report["honoured"] == report["running"] == report["bound"] > 5
    assert report["pending"] == 14 - report["running"] == sum(report["pending_reasons"].values())
    assert all("nodes are available" in reason for reason in report["pending_reasons"])
    assert (report["mismatched"], report["double_allocated"], report["failed"]) == (0, 0, 0)
    assert report["seconds"] > 0
    assert_nothing_left(short_folder)


def test_what_is_broken_recovers_and_nothing_is_given_twice(short_folder: Path) -> None:
    """Plugin and extender killed, kubelet restarted, API server away: each heals by itself."""
    status, report = run_demo(
        short_folder,
        *MACHINES,
        *("--pods", "16"),
        *("--fault", "plugin-killed:n01@1"),
        *("--fault", "kubelet-restarted:n02@2"),
        *("--fault", "extender-killed@3"),
        *("--fault", "plugin-socket-deleted:n02@4"),
        *("--fault", "gpu-xid:n03@5"),
        *("--fault", "apiserver-away@9+2"),
    )
    assert status == 0, report
    assert [fault["kind"] for fault in report["faults"]] == [
        "plugin-killed",
        "kubelet-restarted",
        "extender-killed",
        "plugin-socket-deleted",
        "gpu-xid",
        "apiserver-away",
    ]
    assert all(fault["recovered_after"] is not None for fault in report["faults"])
    assert report["honoured"] == report["running"] > 5
    assert (report["mismatched"], report["double_allocated"]) == (0, 0)
    assert report["restarts"] == {"extender": 1, "device-plugin n01": 1}
    assert_nothing_left(short_folder)


def test_a_script_of_gpu_faults_is_played_and_told(short_folder: Path) -> None:
    """Running pods go on, all is well at the end, and the nodes tell what has happened."""
    script = short_folder / "faults.yaml"
    script.write_text(
        "- {at: 1, kind: xid, gpu: 1, xid: 13}\n"
        "- {at: 1.5, kind: xid, gpu: 2, xid: 79}\n"
        "- {at: 2, node: n02, kind: mig, gpu: 0, profiles: [3g.20gb]}\n"
        "- {at: 5, node: n02, kind: mig, gpu: 0, profiles: null}\n"
    )
    machines = ("--machine", "dgx1-v100", "--machine", "dgx-a100-8x")
    words = (*machines, "--pods", "6", "--fault-script", str(script))
    status, report = run_demo(short_folder, *words)
    assert status == 0, report
    (fault,) = report["faults"]
    assert (fault["kind"], fault["what"]) == ("script", "4 faults of the script")
    assert (report["mismatched"], report["double_allocated"], report["failed"]) == (0, 0, 0)
    told = "\n".join(report["story"])
    for word in ("GpuUnhealthy  GPU 2", "GpuRecovered  GPU 2", "GPU 0", "is cut into 3g.20gb"):
        assert word in told
    assert 'xid="13"} 1.0' in told
    script.unlink()
    assert_nothing_left(short_folder)


def test_a_list_fills_the_cluster_and_pods_end(short_folder: Path, tmp_path: Path) -> None:
    """Pods of a list come, run, end and make room; shared ones are counted and left out."""
    rows = [f"p-{number},1000,1024,{1 + number % 2},1000" for number in range(40)]
    rows += ["c-1,1000,1024,0,0", "s-1,1000,1024,1,500"]
    path = tmp_path / "pods.csv"
    path.write_text(HEADER + "\n".join(rows) + "\n")
    status, report = run_demo(short_folder, "--machine", "l40s-4x", "--pods", str(path))
    assert status == 0, report
    assert report["left_out"]["shared"] == 1
    assert report["completed"] > 0
    assert report["completed_honoured"] == report["completed"]
    assert report["honoured"] == report["running"]
    assert report["full_after_seconds"] is not None
    assert_nothing_left(short_folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_leaves_nothing(short_folder: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM while the cluster is up: processes, sockets and folders go."""
    process = start_demo(short_folder, "--machine", "l40s-4x", "--pods", "2", "--serve")
    try:
        wait_until(lambda: len(processes_of(short_folder)) >= 2, 30, "the daemons run")
        process.send_signal(number)
        process.communicate(timeout=30)
    finally:
        process.kill()
    wait_until(lambda: processes_of(short_folder) == [], 5, "the daemons are gone")
    assert_nothing_left(short_folder)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--nodes", "0"], "--nodes 0"),
        (["--nodes", "-1"], "--nodes -1"),
        (["--nodes", "100000"], "--nodes 100000"),
        (["--machine", "no-such-machine"], "no-such-machine"),
        (["--pods", "-1"], "--pods -1"),
        (["--pods", "nowhere.csv"], "nowhere.csv"),
        (["--pods", "BROKEN"], ":1:num_gpu: the column is missing"),
        (["--fault", "meteor@3"], "meteor"),
        (["--fault", "plugin-killed:n99@3"], "n99"),
        (["--keep-logs", "BROKEN"], "--keep-logs"),
        (["--no-such-option"], "no-such-option"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(
    arguments: list[str], text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started; the mistake is named on standard error, standard output stays empty."""
    broken = tmp_path / "broken.csv"
    broken.write_text("name,cpu_milli,memory_mib,gpu_milli\np,1,1,1000\n")
    words = [str(broken) if word == "BROKEN" else word for word in arguments]
    with pytest.raises(SystemExit) as ended:
        run(["demo", *words])
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    assert text in captured.err
    assert captured.err.count("\n") == 1
