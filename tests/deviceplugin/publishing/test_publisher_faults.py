"""What no failure of the API server may do to what is published."""

from __future__ import annotations

import pytest

from runtime.errors import ApiError, NotFoundError, UnreachableError
from tests.deviceplugin.publishing.node import World
from topology.wire import (
    STATE_KEY,
)


def test_an_absent_server_loses_nothing(world: World) -> None:
    """While the server is away the newest value waits; it is written soon after the return."""
    world.pass_time(1)
    world.node.error = UnreachableError("away")
    world.hold("g1")
    world.pass_time(20)
    world.hold("g2")
    world.pass_time(20)
    world.node.error = None
    world.pass_time(5.1)
    assert world.published().allocations == {"u": ("g2",)}


def test_a_server_that_is_heard_again_is_told_at_once(world: World) -> None:
    """The watch hears of the return first: what waited is written without the rest of the pause."""
    world.pass_time(1)
    world.node.error = UnreachableError("away")
    world.hold("g1")
    world.pass_time(20.8)
    world.node.error = None
    world.publisher.server_answers()
    world.pass_time(0.001)
    assert world.published().allocations == {"u": ("g1",)}


def test_a_server_that_refuses_is_not_hurried(world: World) -> None:
    """An error of the server keeps its pauses, however often the watch is heard."""
    world.node.error = NotFoundError(404, "NotFound", "no such node")
    for _ in range(60):
        world.publisher.server_answers()
        world.pass_time(1)
    failed = world.metrics.registry.get_sample_value(
        "gputopo_plugin_api_writes_total", {"result": "failed"}
    )
    assert failed is not None
    assert failed <= 17


def test_failures_are_retried_with_growing_pauses(world: World) -> None:
    """An absent server is asked about ten times a minute, not ten times a second."""
    world.node.error = UnreachableError("away")
    world.pass_time(60)
    failed = world.metrics.registry.get_sample_value(
        "gputopo_plugin_api_writes_total", {"result": "failed"}
    )
    assert failed is not None
    assert 10 <= failed <= 17


@pytest.mark.parametrize("status", [403, 422])
def test_what_is_refused_is_hardly_tried_again(world: World, status: int) -> None:
    """A right that is missing, a value that is not taken: once a minute, until it is taken."""
    world.node.error = ApiError(status, "Refused", "")
    world.pass_time(3600)
    failed = world.metrics.registry.get_sample_value(
        "gputopo_plugin_api_writes_total", {"result": "failed"}
    )
    assert failed is not None
    assert 60 <= failed <= 70
    world.node.error = None
    world.pass_time(61)
    assert STATE_KEY in world.node.annotations
