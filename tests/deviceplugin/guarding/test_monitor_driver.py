"""A driver that fails, goes, comes back as another one, or hangs."""

from __future__ import annotations

import threading

from deviceplugin.errors import DriverMismatchError
from deviceplugin.guarding.pulse import Watchdog
from tests.deviceplugin.guarding.watched import World, reports, sees
from tests.waiting import wait_until


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
    wait_until(reports(world, 1), what="an event after the new initialisation")


def test_gpus_that_nobody_can_watch_are_not_given_out(world: World) -> None:
    """NVML that stays away makes known GPUs unhealthy, and they come back with it."""
    world.start()
    world.mock.inject("call", function="nvmlInitWithFlags", code="DRIVER_NOT_LOADED")
    world.mock.inject("call", function="nvmlEventSetWait_v2", code="UNKNOWN", times=1)
    wait_until(sees(world, set(range(8))), what="all GPUs unhealthy")
    world.mock.inject("recover")
    wait_until(sees(world, set()), timeout=20, what="all GPUs healthy again")


def test_wait_errors_back_off(world: World) -> None:
    """While every wait fails at once the loop makes few of them."""
    world.start()
    world.mock.inject("call", function="nvmlEventSetWait_v2", code="GPU_IS_LOST")
    wait_until(lambda: world.errors("wait") >= 2, what="failing waits")
    failed = world.errors("wait")
    world.mock.inject("recover")
    wait_until(reports(world, 1), timeout=20, what="an event after the trouble")
    assert failed < 10


def test_a_driver_that_is_loaded_anew_is_found_again(world: World) -> None:
    """While it is away GPUs that nobody can watch are not given out; then all are well again."""
    world.start()
    world.mock.inject("driver", loaded=False)
    wait_until(sees(world, set(range(8))), timeout=20, what="nobody is watched")
    assert "DRIVER_NOT_LOADED" in world.monitor.problem
    world.mock.inject("driver")
    wait_until(sees(world, set()), timeout=20, what="all are well")
    wait_until(reports(world, 1), what="an event by the new driver")


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
    wait_until(sees(world, set()), timeout=20, what="all is well")
    world.stop()
    watching.join(10)
