"""The sizes that links are weighed by follow the pods that come."""

from __future__ import annotations

import pytest

from scheduler.engine.workload import PodClass, mix_distance, size_mix
from scheduler.sizes import SIZES_SEEN, follow_sizes
from tests.scheduler.nodes import bridged
from tests.scheduler.worlds import cluster, facts, request
from topology.tables import DEFAULT_MIX, Mix


def test_sizes_share_the_gpus_that_are_asked_for() -> None:
    """Six pods with one GPU and one with two: a quarter of the GPUs. Shares have no links."""
    counts = {PodClass(1, 1, 1000): 6.0, PodClass(9, 2, 1000): 1.0, PodClass(1, 1, 500): 50.0}
    assert size_mix(counts) == Mix(((1, 0.75), (2, 0.25)))
    assert size_mix({PodClass(1, 1, 500): 1.0, PodClass(1, 0, 0): 1.0}) is None


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [
        (((1, 1.0),), ((1, 3.0),), 0.0),
        (((1, 1.0),), ((2, 1.0),), 1.0),
        (((1, 0.5), (2, 0.5)), ((1, 0.75), (2, 0.25)), 0.25),
    ],
)
def test_the_distance_is_the_part_that_goes_to_other_sizes(
    one: tuple[tuple[int, float], ...], other: tuple[tuple[int, float], ...], distance: float
) -> None:
    """Whatever the weights sum up to."""
    assert mix_distance(Mix(one), Mix(other)) == pytest.approx(distance)


async def test_sizes_are_learned_when_enough_pods_were_seen() -> None:
    """Pods with two GPUs only: then a broken bridge is all that can be lost."""
    state = cluster(a=facts(bridged(4)))
    pair = request(2)
    before = state.view(["a"]).loss(pair)[0]
    for number in range(SIZES_SEEN):
        assert not await follow_sizes(state)
        state.outlook.observe(request(2, uid=f"u{number}"))
    assert state.sets.tables.mix == DEFAULT_MIX
    assert await follow_sizes(state)
    assert state.sets.tables.mix == Mix(((2, 1.0),))
    assert state.view(["a"]).loss(pair)[0] != before
    assert not await follow_sizes(state)
