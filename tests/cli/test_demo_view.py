"""How a demo shows itself."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from cli.demo_view import LiveView, PlainView, draw_picture, summarise
from embedded.picture import Counts, GpuCell, NodeRow, Picture
from embedded.reports import FaultReport, LeftOut, Report

ROW = NodeRow(
    "n01",
    "dgx1-v100",
    (
        GpuCell(0, "a", "pod-007"),
        GpuCell(1, "b"),
        GpuCell(2, "c", "", healthy=False),
    ),
    best_size=2,
    best_gbs=48.5,
)
PICTURE = Picture(1.5, "pods arrive", (ROW,), Counts(created=3, bound=1), ("a note",))
REPORT = Report(
    nodes=2,
    gpus=16,
    gpus_in_use=9,
    machines={"dgx1-v100": 2},
    pods=5,
    bound=4,
    running=3,
    pending=1,
    failed=0,
    completed=1,
    honoured=3,
    completed_honoured=1,
    mismatched=0,
    drifted=0,
    double_allocated=0,
    pending_reasons={"no room": 1},
    failed_reasons={},
    mismatches=(),
    doubles=(),
    faults=(),
    story=(),
    restarts={"extender": 1},
    left_out=LeftOut(shared=7),
    settled=True,
    full_after_seconds=4.0,
    startup_seconds=2.0,
    seconds=9.0,
)


def test_a_row_shows_holders_free_and_lost_gpus() -> None:
    """A held GPU bears the end of its pod's name, a free one a dot, a lost one a cross."""
    console = Console(width=120, no_color=True)
    with console.capture() as capture:
        console.print(draw_picture(PICTURE))
    text = capture.get()
    for part in (
        "n01",
        "dgx1-v100",
        "007",
        "·",
        "✗",
        "2 at 48.5 GB/s",
        "3 pods, 1 bound",
        "a note",
    ):
        assert part in text


def test_the_plain_view_tells_counters_now_and_then_and_notes_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Pictures in quick succession give one line of counters, and each note a line of its own."""
    view = PlainView(quiet=False)
    for tenth in range(20):
        view.look(msgspec.structs.replace(PICTURE, seconds=tenth / 10))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("pods arrive") == 1
    assert captured.err.count("a note") == 1


def test_a_quiet_view_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json and no terminal nobody is disturbed."""
    with PlainView(quiet=True) as view:
        view.say("hello")
        view.look(PICTURE)
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_the_summary_names_what_matters() -> None:
    """Counts, reasons, what was left out, restarts and the verdict are there."""
    text = summarise(REPORT)
    for part in (
        "2 x dgx1-v100",
        "9 of 16 GPUs in use",
        "3 of 3 running pods and 1 of 1 completed ones saw exactly the set",
        "1 pending: no room",
        "7 pods that share a GPU",
        "full after 4.0 s",
        "started again: extender",
        "as it should be",
    ):
        assert part in text
    assert "NOT" not in text


FAULT = FaultReport("plugin-killed", "n01", 1.0, "killed", 2.0)


@pytest.mark.parametrize(
    ("change", "well"),
    [
        ({}, True),
        ({"mismatched": 1}, False),
        ({"double_allocated": 1}, False),
        ({"settled": False}, False),
        ({"failed": 1}, False),
        ({"failed": 1, "faults": (FAULT,)}, True),
        ({"faults": (msgspec.structs.replace(FAULT, recovered_after=None),)}, False),
        ({"drifted": 1, "honoured": 2, "faults": (FAULT,)}, True),
    ],
)
def test_a_run_is_well_only_if_it_proves_what_it_should(
    change: dict[str, object], well: bool
) -> None:
    """A mismatch, a double, a fault that stays or an unexplained failure spoils the run."""
    report = msgspec.structs.replace(REPORT, **change)
    assert report.well is well
    assert report.to_json()["well"] is well
    assert ("NOT" in summarise(report)) is not well


def test_the_json_bears_the_promised_keys() -> None:
    """Others rely on these."""
    promised = {
        "nodes",
        "bound",
        "running",
        "pending",
        "failed",
        "honoured",
        "mismatched",
        "double_allocated",
        "seconds",
    }
    assert promised <= set(REPORT.to_json())


def test_an_announcement_stays_above_the_table_and_is_not_wrapped() -> None:
    """Addresses must still be there, in one piece, when the table has been drawn again."""
    out = io.StringIO()
    address = f"http://127.0.0.1:40001/{'x' * 100}"
    with LiveView(Console(file=out, width=60, force_terminal=True)) as view:
        view.look(PICTURE)
        view.announce(address)
        view.look(PICTURE)
    assert out.getvalue().count(address) == 1


def test_an_announcement_is_made_also_if_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """`--serve --json` says on standard error where the cluster can be reached."""
    with PlainView(quiet=True) as view:
        view.say("hidden")
        view.announce("http://127.0.0.1:40001")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "http://127.0.0.1:40001\n"


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_narrow_terminal_keeps_nodes_gpus_and_free_ones(width: int) -> None:
    """Sixteen GPUs fit into 80 columns; what does not fit beside them is left out, never cut."""
    cells = tuple(GpuCell(at, f"u{at}", "pod-007" if at < 15 else "") for at in range(16))
    row = NodeRow("n01", "pcie-8x-two-switches-nic-one-socket", cells, best_size=1, best_gbs=0.0)
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(draw_picture(Picture(1.5, "", (row,), Counts(), ()), width))
    header, line = capture.get().splitlines()[:2]
    assert header.split()[0] == "node"
    assert "free" in header
    assert line.startswith("n01")
    assert line.count("007") == 15
    assert "…" not in line
