"""Every mask and size of every shipped machine with at most ten GPUs, against the reference."""

from __future__ import annotations

from itertools import product

import pytest

from tests.topology.machines import machine_class
from topology.catalogue import load_machine, shipped_names
from topology.gpuset import EMPTY, GpuSet, format_positions, gpuset, positions, size
from topology.model import TopologyClass
from topology.policies import choose
from topology.reference import ReferenceAllocator
from topology.tables import Tables

_LARGEST = 10


def _distinct_classes() -> dict[TopologyClass, str]:
    classes: dict[TopologyClass, str] = {}
    for name in shipped_names():
        machine = load_machine(name)
        if len(machine.gpus) <= _LARGEST:
            classes.setdefault(machine_class(machine), name)
    return classes


_CLASSES = _distinct_classes()


_LINKED = {
    cls: name
    for cls, name in _CLASSES.items()
    if any(map(any, cls.nvlinks)) and max(cls.switch) < 0
}


def _worse_choices(cls: TopologyClass, *, with_must: bool) -> list[str]:
    tables = Tables(cls)
    reference = ReferenceAllocator(cls)
    worse = []
    for mask in range(1, 1 << cls.count):
        free = GpuSet(mask)
        musts = [gpuset([i]) for i in positions(free)] if with_must else [EMPTY]
        for count, must in product(range(1, size(free) + 1), musts):
            theirs = reference.allocate(free, count, must)
            ours = choose(tables, free, count, must=must)
            assert size(ours.members) == count
            assert not ours.members & ~free
            if size(theirs) != count:
                continue  # the reference returned padding: it gives fewer GPUs than asked for
            bandwidth = tables.quality[theirs]
            slower = ours.bus_bandwidth_gbs < bandwidth
            equal = ours.bus_bandwidth_gbs == bandwidth
            lower = equal and ours.pair_score < reference.score(theirs)
            if slower or (lower and not tables.switched):
                worse.append(f"{format_positions(free)} for {count}: {format_positions(theirs)}")
    return worse


@pytest.mark.parametrize("cls", list(_CLASSES), ids=list(_CLASSES.values()))
def test_no_choice_is_below_the_reference(cls: TopologyClass) -> None:
    """Our set is never slower than the reference's, nor as fast but below in score."""
    assert _worse_choices(cls, with_must=False) == []


@pytest.mark.parametrize("cls", list(_LINKED), ids=list(_LINKED.values()))
def test_no_choice_that_holds_a_given_gpu_is_below_the_reference(cls: TopologyClass) -> None:
    """The same holds on linked machines when one GPU must be in the set."""
    assert _worse_choices(cls, with_must=True) == []


def test_every_small_machine_is_asked() -> None:
    """The shipped machines make at least thirty different classes of at most ten GPUs."""
    assert len(_CLASSES) >= 30
