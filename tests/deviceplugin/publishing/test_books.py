"""What there is to say about the node, over kubelet's gaps."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from deviceplugin.config.model import Config
from deviceplugin.metrics import Metrics
from deviceplugin.pods.holdings import Holdings
from deviceplugin.publishing.books import Books
from deviceplugin.resources.inventory import Board, Inventory
from deviceplugin.resources.stock import take_stock
from tests.deviceplugin.nodes import (
    PAIRS,
    FakeClock,
    by_key,
    holdings,
    machine,
    names,
    pod,
    reading_of,
)
from topology.wire import (
    decode_topology,
)


def test_the_books_count_each_pod_once() -> None:
    """However often the state is composed, a pod is judged one time; no GPUs, nothing to say."""
    board, metrics = Board(), Metrics()
    said: Holdings | None = None
    pods = by_key(pod("a", 1, promised={"c0": names(0)}, phase="Running"))
    books = Books(
        stock=lambda: take_stock(board.read(), Config()),
        reading=lambda: None if said is None else reading_of(said),
        pods=lambda: pods,
        metrics=metrics,
    )
    assert (books.topology(), books.state()) == (None, None)
    board.post(Inventory(machine(8, PAIRS)))
    assert books.state() is None
    said = holdings(a={"c0": names(0)})
    for _ in range(3):
        assert books.state() is not None
    honoured = metrics.registry.get_sample_value(
        "gputopo_plugin_realised_total", {"outcome": "honoured"}
    )
    assert honoured == 1
    text = books.topology()
    assert text is not None
    assert decode_topology(text) == machine(8, PAIRS)
    assert books.topology() is text


class Ledger:
    """Books over a kubelet and a watch that say what they are told to."""

    def __init__(self) -> None:
        board = Board()
        board.post(Inventory(machine(8, PAIRS)))
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.said = holdings(a={"c0": names(0)}, b={"c0": names(1)})
        self.pods = by_key(
            pod("a", 1, promised={"c0": names(0)}, phase="Running"), pod("b", 1, phase="Running")
        )
        self._books = Books(
            stock=lambda: take_stock(board.read(), Config()),
            reading=lambda: reading_of(self.said),
            pods=lambda: self.pods,
            metrics=self.metrics,
            clock=self.clock,
        )

    def allocations(self) -> Mapping[str, tuple[str, ...]]:
        """Return what is published."""
        state = self._books.state()
        assert state is not None
        return state.allocations


BOTH = {"uid-a": names(0), "uid-b": names(1)}


def test_a_kubelet_that_has_just_started_frees_nobodys_gpus() -> None:
    """Pods that the watch shows alive keep what they hold while kubelet shows no pods yet."""
    books = Ledger()
    assert books.allocations() == BOTH
    books.said = Holdings()
    assert books.allocations() == BOTH
    books.said = holdings(a={"c0": names(0)})
    assert books.allocations() == BOTH
    honoured = books.metrics.registry.get_sample_value(
        "gputopo_plugin_realised_total", {"outcome": "honoured"}
    )
    assert honoured == 1


@pytest.mark.parametrize("why", ["ended", "gone", "replaced", "given-on", "late"])
def test_what_is_kept_for_a_pod_ends(why: str) -> None:
    """Not after its end, not under its successor, not if kubelet gave it on, and not for ever."""
    books = Ledger()
    assert books.allocations() == BOTH
    books.said = holdings(a={"c0": names(0)})
    other = {
        "ended": [pod("b", 1, phase="Succeeded")],
        "gone": [],
        "replaced": [pod("b", 1, uid="new")],
        "given-on": [pod("b", 1, phase="Running")],
        "late": [pod("b", 1, phase="Running")],
    }[why]
    books.pods = by_key(pod("a", 1, phase="Running"), *other)
    if why == "given-on":
        books.said = holdings(a={"c0": names(0, 1)})
    if why == "late":
        books.clock.now += 31
    assert books.allocations().keys() == {"uid-a"}
