"""The choosers of a node."""

from __future__ import annotations

import pytest

from deviceplugin.admission.choosers import Choosers
from tests.deviceplugin.nodes import machine
from topology.gpuset import GpuSet, size
from topology.model import classify
from topology.policies import chooser_for
from topology.profiles import profile_named
from topology.tables import tables_for


@pytest.mark.parametrize("count", [1, 8, 17, 64])
def test_a_node_of_any_size_is_warm_before_it_registers(count: int) -> None:
    """Warming ends soon also where each choice is a search, and choices come out of it after."""
    topology = machine(count, {(i, i + 1): 4 for i in range(0, count - 1, 2)})
    choosers = Choosers("training")
    choosers.warm(topology)
    assert size(choosers(topology)(topology.everything, min(2, count), GpuSet(0))) == min(2, count)


def test_a_node_of_eight_knows_all_its_choices_beforehand() -> None:
    """Whatever is free and however many are asked, a warm node looks the choice up."""
    topology = machine(8, {(0, 1): 4, (2, 3): 4})
    choosers = Choosers("training")
    choosers.warm(topology)
    choices = chooser_for(tables_for(classify(topology)), profile_named("training")).choose
    made = choices.cache_info().misses
    for free in range(1, 256):
        for count in range(1, free.bit_count() + 1):
            choosers(topology)(GpuSet(free), count, GpuSet(0))
    assert made == choices.cache_info().misses
