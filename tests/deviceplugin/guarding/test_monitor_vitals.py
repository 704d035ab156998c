"""What a GPU says of itself, by no event: conditions that last, flaws that cost nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deviceplugin.guarding.watched import World, sees
from tests.waiting import wait_until


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ({"kind": "remap", "failed": True, "pending": False}, "no spare row left"),
        ({"kind": "lost", "event": False}, "lost: "),
    ],
)
def test_a_condition_lasts_until_it_is_gone(
    tmp_path: Path, fault: dict[str, object], reason: str
) -> None:
    """The hold time begins only when the GPU says that it is well."""
    world = World(tmp_path, "dgx-a100-8x")
    with world.mock:
        world.start()
        world.mock.inject(gpu=2, **fault)
        wait_until(sees(world, {2}), what="the fault")
        assert world.unhealthy()[2].startswith(reason)
        world.mock.inject("recover", gpu=2)
        wait_until(sees(world, set()), timeout=20, what="the recovery")
        world.stop()


def test_a_flaw_is_told_and_costs_nothing(tmp_path: Path) -> None:
    """Heat, rows that wait for a reset, a link that is down: degraded, and given out on."""
    world = World(tmp_path, "dgx-a100-8x")

    def degraded() -> dict[int, str]:
        inventory = world.board.read()
        return {
            gpu.index: inventory.degraded[gpu.uuid]
            for gpu in inventory.topology.gpus
            if gpu.uuid in inventory.degraded
        }

    with world.mock:
        world.start()
        wait_until(lambda: world.monitor._vitals, what="the first vitals")
        world.mock.inject("thermal", gpu=1, celsius=90)
        world.mock.inject("remap", gpu=2)
        world.mock.inject("link-down", gpu=3, link=0)
        wait_until(lambda: degraded().keys() == {1, 2, 3}, what="three flaws")
        assert degraded()[3] == "NVLink down, 11 of 12 are up"
        assert world.unhealthy() == {}
        wait_until(lambda: world.board.read().topology.nvlinks[3][0] == 11, what="the topology")
        world.mock.inject("recover")
        wait_until(lambda: not degraded(), what="no flaw any more")
        wait_until(lambda: world.board.read().topology.nvlinks[3][0] == 12, what="the link")
        world.stop()


def test_an_error_that_no_event_told_is_found(world: World) -> None:
    """The counter of double-bit errors speaks for a driver that sends no event."""
    world.mock.inject("call", function="nvmlDeviceRegisterEvents", code="NOT_SUPPORTED")
    world.start()
    wait_until(lambda: world.monitor._vitals, what="the first vitals")
    world.mock.inject("ecc", gpu=6)
    wait_until(sees(world, {6}), what="the GPU with the error")
