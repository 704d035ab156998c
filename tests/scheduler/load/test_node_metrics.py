"""Reading the Kubernetes metrics API."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.load.errors import AnswerError
from scheduler.load.node_metrics import read_usage
from scheduler.load.samples import Sample
from tests.scheduler.load.answering import NOW, book, node, node_metrics

SIZES = book(node("n1"), node("n2"), node("bare", cpu="0", memory="0")).sizes


def test_amounts_become_shares_of_the_machine() -> None:
    """2 of 8 CPUs averaged over 30 s, 8 of 32 GiB at the moment."""
    body = node_metrics(("n1", "2000m", "8Gi"), ("n2", "123456789n", "1024Ki"), at=NOW - 20)
    cpu, memory = read_usage(body, SIZES, now=NOW)
    assert cpu.samples["n1"] == Sample(0.25, NOW - 20, 30.0)
    assert memory.samples["n1"] == Sample(0.25, NOW - 20, 0.0)
    assert cpu.samples["n2"].value == pytest.approx(0.123456789 / 8)
    assert (cpu.metric, memory.metric, cpu.source) == ("cpu", "memory", "metrics_api")
    assert not cpu.faults


ROWS = [
    (("n9", "1", "1Gi"), {"unknown_node": 1}, {"unknown_node": 1}),
    (("bare", "1", "1Gi"), {"unknown_node": 1}, {"unknown_node": 1}),
    (("n1", "busy", "1Gi"), {"unreadable": 1}, {}),
    (("n1", "1", ""), {}, {"unreadable": 1}),
    (("n1", "-3", "1Gi"), {"negative": 1}, {}),
    (("n1", "80", "1Gi"), {"above_one": 1}, {}),
]


@pytest.mark.parametrize(("item", "cpu_faults", "memory_faults"), ROWS)
def test_what_is_wrong_with_a_node_is_counted(
    item: tuple[str, str, str], cpu_faults: dict[str, int], memory_faults: dict[str, int]
) -> None:
    """The other metric and the other nodes are taken."""
    cpu, memory = read_usage(node_metrics(item, ("n2", "4", "16Gi")), SIZES, now=NOW)
    assert cpu.samples["n2"].value == memory.samples["n2"].value == 0.5
    assert (cpu.faults, memory.faults) == (cpu_faults, memory_faults)


@pytest.mark.parametrize("window", ["", "soon", "30", "1e3s", "-5s"])
def test_a_window_that_does_not_read_costs_the_node_its_samples(window: str) -> None:
    """Nobody would know when pods show."""
    cpu, _ = read_usage(node_metrics(("n1", "1", "1Gi"), window=window), SIZES, now=NOW)
    assert not cpu.samples or window == ""
    assert cpu.faults == ({} if window == "" else {"unreadable": 1})


@pytest.mark.parametrize(
    ("window", "seconds"), [("30s", 30), ("1m0s", 60), ("10.062s", 10.062), ("1h2m", 3720)]
)
def test_windows_are_go_durations(window: str, seconds: float) -> None:
    """As metrics-server writes them."""
    cpu, _ = read_usage(node_metrics(("n1", "1", "1Gi"), window=window), SIZES, now=NOW)
    assert cpu.samples["n1"].window == pytest.approx(seconds)


@pytest.mark.parametrize("when", ["yesterday", "", "9999999-01-01T00:00:00Z"])
def test_a_time_that_does_not_read_costs_the_node_its_samples(when: str) -> None:
    """Its age would not be known."""
    good = node_metrics(("n1", "1", "1Gi"))
    body = good.replace(b'"timestamp":"2027-01-15T08:00:00Z"', f'"timestamp":"{when}"'.encode())
    assert body != good
    cpu, memory = read_usage(body, SIZES, now=NOW)
    assert cpu.faults == memory.faults == {"unreadable": 1}


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"<html>", b"null", b"{}", b'{"items":[{}]}', b"\xff", b'{"items":' + b"[" * 99999],
)
def test_a_body_that_is_no_list_is_refused(body: bytes) -> None:
    """With how it begins."""
    with pytest.raises(AnswerError, match="not a list of node metrics"):
        read_usage(body, SIZES, now=NOW)


@given(st.binary(max_size=100))
def test_no_bytes_break_the_reader(body: bytes) -> None:
    """It reads, or it says why not."""
    with pytest.raises(AnswerError):
        read_usage(body, SIZES, now=NOW)
