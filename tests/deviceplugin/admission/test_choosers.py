"""The choosers of a node."""

from __future__ import annotations

import pytest

from deviceplugin.admission.choosers import Choosers
from tests.deviceplugin.nodes import machine
from topology.gpuset import GpuSet, size


@pytest.mark.parametrize("count", [1, 8, 17, 64])
def test_a_node_of_any_size_is_warm_before_it_registers(count: int) -> None:
    """Warming ends soon also where each choice is a search, and choices come out of it after."""
    topology = machine(count, {(i, i + 1): 4 for i in range(0, count - 1, 2)})
    choosers = Choosers("training")
    choosers.warm(topology)
    assert size(choosers(topology)(topology.everything, min(2, count), GpuSet(0))) == min(2, count)
