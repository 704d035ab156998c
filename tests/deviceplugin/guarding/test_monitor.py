"""The monitor over unmodified pynvml on a mock machine: events, losses, recoveries."""

from __future__ import annotations

from pathlib import Path

import pytest

from deviceplugin.nvml.library import open_nvml
from tests.deviceplugin.guarding.watched import World, sees
from tests.waiting import wait_until


def test_a_healthy_machine_is_posted_whole(world: World) -> None:
    """All GPUs are found, healthy, and the topology was made warm before it was posted."""
    world.start()
    assert len(world.board.read().topology.gpus) == 8
    assert world.unhealthy() == {}
    assert world.warmed == [world.board.read().topology]
    assert world.monitor.problem == ""


def test_a_critical_xid_takes_the_gpu_and_time_brings_it_back(world: World) -> None:
    """XID 48 makes one GPU unhealthy with its reason; it returns after the hold time."""
    world.start()
    world.mock.inject("xid", gpu=3, xid=48)
    wait_until(sees(world, {3}), what="GPU 3 unhealthy")
    assert world.unhealthy()[3].startswith("XID 48")
    wait_until(sees(world, set()), what="GPU 3 healthy again")
    assert world.events("xid", "unhealthy") == 1


def test_an_applications_xid_changes_nothing(world: World) -> None:
    """XID 31 is counted as ignored; the XID after it shows that it was seen."""
    world.start()
    world.mock.inject("xid", gpu=3, xid=31)
    world.mock.inject("xid", gpu=4, xid=63)
    wait_until(lambda: world.events("xid", "degrade") == 1, what="the second event")
    assert world.events("xid", "ignore") == 1
    assert not any(inventory.unhealthy for inventory in world.posted)


def test_an_override_is_obeyed(world: World) -> None:
    """The operator's response to an XID wins over the table's."""
    world.start()
    world.mock.inject("xid", gpu=0, xid=13)
    wait_until(sees(world, {0}), what="GPU 0 unhealthy")


def test_a_double_bit_error_takes_the_gpu(world: World) -> None:
    """The ECC event alone, which the reference drops, makes the GPU unhealthy."""
    world.start()
    world.mock.inject("ecc", gpu=5, double=True)
    wait_until(sees(world, {5}), what="GPU 5 unhealthy")


@pytest.mark.parametrize("event", [True, False])
def test_a_lost_gpu_disturbs_no_other(world: World, event: bool) -> None:
    """With or without an XID: the lost GPU is unhealthy, stays listed, the others go on."""
    world.start()
    world.mock.inject("lost", gpu=2, event=event)
    wait_until(sees(world, {2}), what="GPU 2 unhealthy")
    assert len(world.board.read().topology.gpus) == 8
    world.mock.inject("xid", gpu=6, xid=48)
    wait_until(lambda: 6 in world.unhealthy(), what="an event of another GPU")
    world.mock.inject("recover", gpu=2)
    wait_until(sees(world, set()), timeout=20, what="GPU 2 healthy again")


def test_a_link_that_goes_down_is_seen_in_the_topology(world: World) -> None:
    """An NVLink fault has the links read again; the new topology is posted."""
    world.start()
    before = world.board.read().topology
    world.mock.inject("link-down", gpu=0)
    world.mock.inject("xid", gpu=0, xid=74)
    wait_until(lambda: world.board.read().topology != before, what="another topology")
    assert sum(world.board.read().topology.nvlinks[0]) == 0


def test_old_gpus_without_events_stay_healthy(world: World) -> None:
    """Where registering for events is not supported the GPU is used, and probed."""
    world.mock.inject("call", function="nvmlDeviceRegisterEvents", code="NOT_SUPPORTED", gpu=0)
    world.start()
    world.mock.inject("xid", gpu=1, xid=48)
    wait_until(sees(world, {1}), what="the event of another GPU")


def test_a_restart_heals_nothing(world: World) -> None:
    """What a former process found unhealthy must pass the hold time first."""
    uuid = _uuid_of(world, 4)
    world.monitor.adopt({uuid: "XID 48: double-bit ECC error", "GPU-gone": "XID 79"})
    world.start()
    assert world.posted[0].unhealthy == {uuid: "XID 48: double-bit ECC error"}
    wait_until(sees(world, set()), what="GPU 4 healthy again")


def _uuid_of(world: World, index: int) -> str:
    with open_nvml() as nvml:
        return nvml.uuid(nvml.device(index))


def test_reports_of_gpus_are_kept_for_people(world: World) -> None:
    """With time, number, what they did, and whom they hit."""
    world.start()
    world.mock.inject("xid", gpu=3, xid=31)
    world.mock.inject("xid", gpu=3, xid=48)
    wait_until(lambda: len(world.recent.read()) == 2, what="two reports")
    first, second = world.recent.read()
    assert (first.xid, first.response, second.xid, second.response) == (
        31,
        "ignore",
        48,
        "unhealthy",
    )
    assert second.devices == (world.board.read().topology.gpus[3].uuid,)
    counted = world.metrics.registry.get_sample_value(
        "gputopo_plugin_xids_total", {"uuid": second.uuid, "xid": "48"}
    )
    assert counted == 1


def test_a_gpu_that_is_plugged_is_found(tmp_path: Path) -> None:
    """The kernel shows it first; NVML counts it when it is initialised anew, and no restart."""
    world = World(tmp_path)
    last = tmp_path / "bus/pci/devices" / world.mock.state.gpus[7].pci
    target = last.readlink()
    last.unlink()
    world.mock.inject("removed", gpu=7)
    with world.mock:
        world.start()
        assert len(world.board.read().topology.gpus) == 7
        world.mock.inject("recover", gpu=7)
        last.symlink_to(target)
        wait_until(lambda: len(world.board.read().topology.gpus) == 8, what="the eighth GPU")
        assert world.unhealthy() == {}
        world.stop()


def test_an_unplugged_gpu_stays_as_a_lost_one(world: World) -> None:
    """A pod that has it is shown with a sick device; plugged again it is well after the hold."""
    world.start()
    world.mock.inject("removed", gpu=7)
    wait_until(sees(world, {7}), what="the lost GPU")
    world.mock.inject("recover", gpu=7)
    wait_until(sees(world, set()), timeout=20, what="the GPU is back")
