"""Fault scripts: entries that happen by the clock, also when they are written meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from mock_nvml import FaultError, MockNvml
from tests.waiting import wait_until
from topology.catalogue import load_machine


def test_a_script_happens_in_order_of_time(tmp_path: Path) -> None:
    """Each entry once; later lines may come earlier."""
    script = tmp_path / "faults.yaml"
    script.write_text(
        "- {at: 0.15, gpu: 0, kind: recover}\n- {at: 0.0, gpu: 0, kind: ecc, count: 5}\n"
        "- {at: 0.1, gpu: 1, kind: lost}\n",
        encoding="utf-8",
    )
    mock = MockNvml(load_machine("dgx1-v100"))
    player = mock.play(script)
    try:
        wait_until(lambda: mock.state.gpus[1].lost, what="the loss")
        wait_until(lambda: mock.state.gpus[0].double_bit_errors == 0, what="the recovery")
    finally:
        player.stop()
    assert mock.state.gpus[1].lost


def test_entries_written_while_playing_happen(tmp_path: Path) -> None:
    """An appended entry happens; what has happened before does not happen again."""
    script = tmp_path / "faults.yaml"
    script.write_text("- {gpu: 0, kind: ecc}\n", encoding="utf-8")
    mock = MockNvml(load_machine("dgx1-v100"))
    player = mock.play(script)
    try:
        wait_until(lambda: mock.state.gpus[0].double_bit_errors == 1, what="the first")
        with script.open("a", encoding="utf-8") as file:
            file.write("- {gpu: 1, kind: ecc}\n")
        wait_until(lambda: mock.state.gpus[1].double_bit_errors == 1, what="the second")
    finally:
        player.stop()
    assert mock.state.gpus[0].double_bit_errors == 1


def test_a_script_that_becomes_malformed_is_ignored_until_mended(tmp_path: Path) -> None:
    """The problem is told with its place; the mended script goes on."""
    script = tmp_path / "faults.yaml"
    script.write_text("[]\n", encoding="utf-8")
    mock = MockNvml(load_machine("dgx1-v100"))
    player = mock.play(script)
    try:
        script.write_text("- {gpu: 99, kind: lost}\n", encoding="utf-8")
        wait_until(lambda: player.problem, what="the problem")
        assert "faults.yaml: [0].gpu: 99: the machine has GPU 0 to 7" in str(player.problem)
        script.write_text("- {gpu: 2, kind: lost}\n", encoding="utf-8")
        wait_until(lambda: mock.state.gpus[2].lost, what="the mended loss")
        assert player.problem is None
    finally:
        player.stop()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: lost", "faults.yaml: a list of faults is wanted"),
        ("- 3", "faults.yaml: [0]: a mapping is wanted"),
        ("- {gpu: 0, kind: lost}\n- {gpu: 0, kind: los}", "faults.yaml: [1].kind: 'los'"),
        ("- [}", "faults.yaml: line 1: not YAML"),
        (None, "faults.yaml: cannot be read: No such file"),
    ],
)
def test_a_script_that_starts_malformed_is_refused(
    tmp_path: Path, text: str | None, message: str
) -> None:
    """The error names file and entry, before anything is played."""
    script = tmp_path / "faults.yaml"
    if text is not None:
        script.write_text(text, encoding="utf-8")
    with pytest.raises(FaultError) as caught:
        MockNvml(load_machine("dgx1-v100")).play(script)
    assert message in str(caught.value)
