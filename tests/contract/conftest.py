"""The world that the contract's cases run in. This fixture alone knows what it is made of."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.embedded_world import EmbeddedWorld
from tests.contract.world import World


@pytest.fixture(scope="module")
def node() -> Iterator[World]:
    """Return a node whose plugin is up."""
    world = EmbeddedWorld()
    try:
        world.start_plugin()
        yield world
    finally:
        world.close()


@pytest.fixture
def world(node: World) -> Iterator[World]:
    """Return the node, as good as new; it is cleared after each case, whatever became of it."""
    yield node
    node.clear()
