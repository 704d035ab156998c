"""The monitor over unmodified pynvml on a mock machine: events, losses, recoveries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deviceplugin.discovery.sysfs import read_gpus
from deviceplugin.discovery.topology import discover
from deviceplugin.errors import DriverMismatchError
from deviceplugin.guarding.monitor import Monitor
from deviceplugin.guarding.pulse import Pulse, Watchdog
from deviceplugin.guarding.recent import Recent
from deviceplugin.health.xids import Response
from deviceplugin.metrics import Metrics
from deviceplugin.nvml.library import open_nvml
from deviceplugin.resources.inventory import Board, Inventory
from mock_nvml import MockNvml, write_sysfs
from tests.waiting import wait_until
from topology.catalogue import load_machine
from topology.model import NodeTopology


class World:
    """A machine behind pynvml, and a monitor that watches it."""

    def __init__(self, folder: Path, name: str = "dgx1-v100") -> None:
        machine = load_machine(name)
        self.mock = MockNvml(machine, seed="n1")
        write_sysfs(machine, folder, seed="n1")
        self.board = Board()
        self.metrics = Metrics()
        self.posted: list[Inventory] = []
        self.board.listen(self.posted.append)
        self.stopping = threading.Event()
        self.pulse = Pulse()
        self.recent = Recent()
        self.warmed: list[NodeTopology] = []
        self.monitor = Monitor(
            open_nvml=open_nvml,
            discover=lambda nvml: discover(nvml, folder),
            board=self.board,
            metrics=self.metrics,
            stopping=self.stopping,
            hold_seconds=0.3,
            probe_seconds=0.05,
            reinit_seconds=0.2,
            plugged=lambda: read_gpus(folder),
            pulse=self.pulse,
            recent=self.recent,
            xid_responses={13: Response.UNHEALTHY, 63: Response.DEGRADE},
            warm=self.warmed.append,
        )
        self._thread = threading.Thread(target=self.monitor.run)

    def start(self) -> None:
        """Watch, and wait for the first discovery."""
        self._thread.start()
        wait_until(lambda: self.board.read().topology.gpus, what="the first discovery")

    def run(self) -> None:
        """Watch."""
        self._thread.start()

    def stop(self) -> None:
        """End everything."""
        self.stopping.set()
        if self._thread.ident is not None:
            self._thread.join(10)

    def unhealthy(self) -> dict[int, str]:
        """Return the failed GPUs by index."""
        inventory = self.board.read()
        return {
            gpu.index: inventory.unhealthy[gpu.uuid]
            for gpu in inventory.topology.gpus
            if gpu.uuid in inventory.unhealthy
        }

    def events(self, kind: str, response: str) -> float:
        """Return how many such events were counted."""
        labels = {"kind": kind, "response": response}
        name = "gputopo_plugin_health_events_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0

    def errors(self, stage: str) -> float:
        """Return how many NVML errors were counted."""
        name = "gputopo_plugin_nvml_errors_total"
        return self.metrics.registry.get_sample_value(name, {"stage": stage}) or 0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Return a world whose NVML is installed."""
    world = World(tmp_path)
    world.mock.install()
    yield world
    world.stop()
    world.mock.uninstall()


def _sees(world: World, unhealthy: set[int]) -> Callable[[], bool]:
    return lambda: world.unhealthy().keys() == unhealthy


def _reports(world: World, index: int) -> Callable[[], bool]:
    """Report an XID again and again: NVML does not replay what nobody was registered for."""

    def reported() -> bool:
        world.mock.inject("xid", gpu=index, xid=48)
        return index in world.unhealthy()

    return reported


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
    wait_until(_sees(world, {3}), what="GPU 3 unhealthy")
    assert world.unhealthy()[3].startswith("XID 48")
    wait_until(_sees(world, set()), what="GPU 3 healthy again")
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
    wait_until(_sees(world, {0}), what="GPU 0 unhealthy")


def test_a_double_bit_error_takes_the_gpu(world: World) -> None:
    """The ECC event alone, which the reference drops, makes the GPU unhealthy."""
    world.start()
    world.mock.inject("ecc", gpu=5, double=True)
    wait_until(_sees(world, {5}), what="GPU 5 unhealthy")


@pytest.mark.parametrize("event", [True, False])
def test_a_lost_gpu_disturbs_no_other(world: World, event: bool) -> None:
    """With or without an XID: the lost GPU is unhealthy, stays listed, the others go on."""
    world.start()
    world.mock.inject("lost", gpu=2, event=event)
    wait_until(_sees(world, {2}), what="GPU 2 unhealthy")
    assert len(world.board.read().topology.gpus) == 8
    world.mock.inject("xid", gpu=6, xid=48)
    wait_until(lambda: 6 in world.unhealthy(), what="an event of another GPU")
    world.mock.inject("recover", gpu=2)
    wait_until(_sees(world, set()), timeout=20, what="GPU 2 healthy again")


def test_wait_errors_back_off(world: World) -> None:
    """While every wait fails at once the loop makes few of them."""
    world.start()
    world.mock.inject("call", function="nvmlEventSetWait_v2", code="GPU_IS_LOST")
    wait_until(lambda: world.errors("wait") >= 2, what="failing waits")
    failed = world.errors("wait")
    world.mock.inject("recover")
    wait_until(_reports(world, 1), timeout=20, what="an event after the trouble")
    assert failed < 10


def test_a_link_that_goes_down_is_seen_in_the_topology(world: World) -> None:
    """An NVLink fault has the links read again; the new topology is posted."""
    world.start()
    before = world.board.read().topology
    world.mock.inject("link-down", gpu=0)
    world.mock.inject("xid", gpu=0, xid=74)
    wait_until(lambda: world.board.read().topology != before, what="another topology")
    assert sum(world.board.read().topology.nvlinks[0]) == 0


def test_nvml_that_cannot_start_is_tried_until_it_can(world: World) -> None:
    """Nothing is posted and the problem is told until NVML works; no restart is needed."""
    world.mock.inject("call", function="nvmlInitWithFlags", code="DRIVER_NOT_LOADED", times=3)
    world.run()
    wait_until(lambda: "DRIVER_NOT_LOADED" in world.monitor.problem, what="the problem")
    assert not world.board.read().topology.gpus
    wait_until(lambda: world.board.read().topology.gpus, what="the discovery")
    assert world.errors("init") == 3
    assert world.unhealthy() == {}


def test_nvml_that_dies_later_is_initialised_again(world: World) -> None:
    """A wait that fails for another reason than a lost GPU leads to a new initialisation."""
    world.start()
    world.mock.inject("call", function="nvmlEventSetWait_v2", code="UNKNOWN", times=1)
    wait_until(lambda: world.errors("wait") == 1, what="the failing wait")
    wait_until(_reports(world, 1), what="an event after the new initialisation")


def test_gpus_that_nobody_can_watch_are_not_given_out(world: World) -> None:
    """NVML that stays away makes known GPUs unhealthy, and they come back with it."""
    world.start()
    world.mock.inject("call", function="nvmlInitWithFlags", code="DRIVER_NOT_LOADED")
    world.mock.inject("call", function="nvmlEventSetWait_v2", code="UNKNOWN", times=1)
    wait_until(_sees(world, set(range(8))), what="all GPUs unhealthy")
    world.mock.inject("recover")
    wait_until(_sees(world, set()), timeout=20, what="all GPUs healthy again")


def test_old_gpus_without_events_stay_healthy(world: World) -> None:
    """Where registering for events is not supported the GPU is used, and probed."""
    world.mock.inject("call", function="nvmlDeviceRegisterEvents", code="NOT_SUPPORTED", gpu=0)
    world.start()
    world.mock.inject("xid", gpu=1, xid=48)
    wait_until(_sees(world, {1}), what="the event of another GPU")


def test_a_restart_heals_nothing(world: World) -> None:
    """What a former process found unhealthy must pass the hold time first."""
    uuid = _uuid_of(world, 4)
    world.monitor.adopt({uuid: "XID 48: double-bit ECC error", "GPU-gone": "XID 79"})
    world.start()
    assert world.posted[0].unhealthy == {uuid: "XID 48: double-bit ECC error"}
    wait_until(_sees(world, set()), what="GPU 4 healthy again")


def _uuid_of(world: World, index: int) -> str:
    with open_nvml() as nvml:
        return nvml.uuid(nvml.device(index))


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


A100 = "dgx-a100-8x"


@pytest.fixture
def cut(tmp_path: Path) -> Iterator[World]:
    """Return a DGX A100 whose GPU 5 is cut into two MIG devices, watched."""
    world = World(tmp_path, A100)
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
    world = World(tmp_path, A100)
    with world.mock:
        world.start()
        world.mock.inject(gpu=2, **fault)
        wait_until(_sees(world, {2}), what="the fault")
        assert world.unhealthy()[2].startswith(reason)
        world.mock.inject("recover", gpu=2)
        wait_until(_sees(world, set()), timeout=20, what="the recovery")
        world.stop()


def test_a_flaw_is_told_and_costs_nothing(tmp_path: Path) -> None:
    """Heat, rows that wait for a reset, a link that is down: degraded, and given out on."""
    world = World(tmp_path, A100)

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
    wait_until(_sees(world, {6}), what="the GPU with the error")


def test_a_driver_that_is_loaded_anew_is_found_again(world: World) -> None:
    """While it is away GPUs that nobody can watch are not given out; then all are well again."""
    world.start()
    world.mock.inject("driver", loaded=False)
    wait_until(_sees(world, set(range(8))), timeout=20, what="nobody is watched")
    assert "DRIVER_NOT_LOADED" in world.monitor.problem
    world.mock.inject("driver")
    wait_until(_sees(world, set()), timeout=20, what="all are well")
    wait_until(_reports(world, 1), what="an event by the new driver")


def test_another_driver_ends_the_monitor_with_a_message(world: World) -> None:
    """The library that is loaded is of no use any more: another process must be started."""
    ended: list[str] = []

    def run() -> None:
        try:
            world.monitor.run()
        except DriverMismatchError as error:
            ended.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    wait_until(lambda: world.board.read().topology.gpus, what="the first discovery")
    world.mock.inject("driver", version="590.44.01")
    thread.join(20)
    assert len(ended) == 1
    assert "LIB_RM_VERSION_MISMATCH" in ended[0]
    assert len(world.unhealthy()) == 8


def test_a_call_that_hangs_is_noticed_and_forgotten(world: World) -> None:
    """The GPU that is asked is unhealthy while the call hangs; the pulse tells what hangs."""
    dog = Watchdog(world.pulse, world.board, patience=0.6, stopping=world.stopping)
    watching = threading.Thread(target=dog.run)
    world.start()
    watching.start()
    world.mock.inject("slow", function="nvmlDeviceGetMemoryInfo", seconds=600, gpu=4)
    wait_until(lambda: 4 in world.unhealthy(), what="the hanging GPU")
    assert world.unhealthy()[4] == "NVML hangs: asking GPU 4 how it fares"
    wait_until(lambda: len(world.unhealthy()) == 8, what="nobody is watched")
    assert dog.problem is not None
    world.mock.inject("recover")
    wait_until(_sees(world, set()), timeout=20, what="all is well")
    world.stop()
    watching.join(10)


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
    wait_until(_sees(world, {7}), what="the lost GPU")
    world.mock.inject("recover", gpu=7)
    wait_until(_sees(world, set()), timeout=20, what="the GPU is back")
