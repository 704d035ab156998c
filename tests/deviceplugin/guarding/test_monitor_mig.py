"""GPUs that are cut into MIG devices while they are watched."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deviceplugin.guarding.watched import World
from tests.waiting import wait_until


@pytest.mark.parametrize("missing", [False, True], ids=["by an event", "by the probe alone"])
def test_a_gpu_that_is_cut_otherwise_is_seen(tmp_path: Path, *, missing: bool) -> None:
    """New MIG devices are posted without a restart; drivers that tell of it by no event too."""
    world = World(tmp_path, "dgx-a100-8x")

    def profiles() -> list[str]:
        return [one.profile for devices in world.board.read().mig.values() for one in devices]

    with world.mock:
        if missing:
            world.mock.inject(
                "call", function="nvmlDeviceGetSupportedEventTypes", code="NOT_SUPPORTED"
            )
        world.start()
        assert world.board.read().mig == {}
        for cut in (["3g.20gb", "2g.10gb"], ["7g.40gb"], []):
            world.mock.inject("mig", gpu=5, profiles=cut)
            wait_until(lambda cut=cut: profiles() == cut, what=f"the MIG devices {cut}")
        assert world.board.read().mig.keys() == {world.board.read().topology.gpus[5].uuid}
        world.mock.inject("mig", gpu=5, profiles=None)
        wait_until(lambda: not world.board.read().mig, what="the whole GPU")
        world.stop()


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[World]:
    """Return a DGX "dgx-a100-8x" whose GPU 5 is cut into two MIG devices, watched."""
    world = World(tmp_path, "dgx-a100-8x")
    with world.mock:
        world.mock.inject("mig", gpu=5, profiles=["3g.20gb", "2g.10gb"])
        world.start()
        yield world
        world.stop()


def _failed(world: World) -> set[str]:
    return set(world.board.read().unhealthy)


@pytest.mark.parametrize(
    ("instance", "hit"),
    [
        ({}, "gpu"),
        ({"gpu_instance": 2}, "3g.20gb"),
        ({"gpu_instance": 2, "compute_instance": 0}, "3g.20gb"),
        ({"gpu_instance": 2, "compute_instance": 6}, "gpu"),
        ({"gpu_instance": 9}, "gpu"),
    ],
)
def test_an_xid_hits_the_instance_that_it_names(
    cut: World, instance: dict[str, int], hit: str
) -> None:
    """That MIG device alone; the whole GPU if it names none, or one that nobody knows."""
    inventory = cut.board.read()
    gpu = inventory.topology.gpus[5].uuid
    devices = {one.profile: one.uuid for one in inventory.mig[gpu]}
    cut.mock.inject("xid", gpu=5, xid=94, **instance)
    wait_until(lambda: _failed(cut) == {gpu if hit == "gpu" else devices[hit]}, what="the fault")
    wait_until(lambda: not _failed(cut), what="the recovery")


def test_a_failed_mig_device_ends_with_its_instance(cut: World) -> None:
    """What is cut anew is other devices: they start well."""
    cut.mock.inject("xid", gpu=5, xid=94, gpu_instance=2)
    wait_until(lambda: len(_failed(cut)) == 1, what="the fault")
    cut.mock.inject("mig", gpu=5, profiles=["7g.40gb"])
    wait_until(lambda: not _failed(cut), what="other devices")
