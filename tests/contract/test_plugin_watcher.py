"""kubelet's plugin watcher finds the plugin: after restarts, and when a socket is made anew."""

from __future__ import annotations

import pytest

from tests.contract.checks import check_exact, one
from tests.contract.world import Setup, World
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def setup() -> Setup:
    """Let the plugin lie in plugins_registry."""
    return Setup(watched=True)


def test_pods_get_their_sets(world: World) -> None:
    """As when the plugin calls kubelet."""
    pods = [one("watched-a", 0, 3), one("watched-b", 5)]
    for each in pods:
        world.bind(each)
    check_exact(world, pods)


def test_a_restarted_kubelet_comes_by_itself(world: World) -> None:
    """To the same socket; running pods run on."""
    pod = one("watched-stays", 1, 2)
    world.bind(pod)
    check_exact(world, [pod])
    before = world.registrations()
    world.restart_kubelet()
    wait_until(lambda: world.registrations() > before, timeout=30, what="kubelet came again")
    wait_until(lambda: world.allocatable() == 8, timeout=30, what="8 GPUs")
    check_exact(world, [pod])
    assert world.starts("watched-stays") == 1


def test_a_socket_that_is_made_anew_is_found(world: World) -> None:
    """When somebody has deleted it."""
    before = world.registrations()
    world.delete_plugin_socket()
    wait_until(lambda: world.registrations() > before, timeout=30, what="kubelet came again")
    wait_until(lambda: world.allocatable() == 8, timeout=30, what="8 GPUs")
    pod = one("watched-next", 4, 7)
    world.bind(pod)
    check_exact(world, [pod])
