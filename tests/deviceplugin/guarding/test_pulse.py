"""A call of NVML that hangs is noticed, told, and forgotten when it comes back."""

from __future__ import annotations

import threading

import pytest

from deviceplugin.guarding.pulse import Pulse, Watchdog
from deviceplugin.resources.inventory import Board, Inventory
from tests.deviceplugin.nodes import machine
from tests.waiting import wait_until

TOPOLOGY = machine(8)
FIRST = TOPOLOGY.gpus[0].uuid


class World:
    """A board with eight GPUs, a clock that stands still, and a watchdog."""

    def __init__(self) -> None:
        self.now = 0.0
        self.board = Board()
        self.board.post(Inventory(TOPOLOGY))
        self.pulse = Pulse(clock=lambda: self.now)
        self.dog = Watchdog(self.pulse, self.board, patience=20, stopping=threading.Event())

    def unhealthy(self) -> dict[str, str]:
        """Look, and return who is unhealthy."""
        self.dog.look()
        return self.board.read().unhealthy


@pytest.fixture
def world() -> World:
    """Return a world whose NVML answers."""
    return World()


def test_the_gpu_that_is_asked_pays_first(world: World) -> None:
    """After the patience it is unhealthy, with what hangs as the reason; the others are not."""
    world.pulse.beat("asking GPU 0 how it fares", FIRST)
    world.now = 19.9
    assert world.unhealthy() == {}
    world.now = 20.0
    assert world.unhealthy() == {FIRST: "NVML hangs: asking GPU 0 how it fares"}
    assert world.dog.problem is None


def test_gpus_that_nobody_watches_are_not_given_out(world: World) -> None:
    """After three times the patience all are unhealthy and the probe asks for a restart."""
    world.pulse.beat("asking GPU 0 how it fares", FIRST)
    world.now = 60.0
    assert len(world.unhealthy()) == 8
    assert world.dog.problem == "NVML hangs: asking GPU 0 how it fares"


def test_a_call_that_belongs_to_no_gpu_concerns_all(world: World) -> None:
    """Initialisation, or the wait for events."""
    world.pulse.beat("initialising")
    world.now = 20.0
    assert len(world.unhealthy()) == 8


def test_all_is_taken_back_when_it_moves_again(world: World) -> None:
    """But what was unhealthy for another reason stays so."""
    world.board.post(Inventory(TOPOLOGY, {FIRST: "XID 48"}))
    world.now = 60.0
    assert world.unhealthy()[FIRST] == "XID 48"
    world.pulse.beat("waiting for events")
    assert world.unhealthy() == {FIRST: "XID 48"}
    assert world.dog.problem is None


def test_it_looks_until_the_stop() -> None:
    """In a thread, by the real clock."""
    board, stopping = Board(), threading.Event()
    board.post(Inventory(TOPOLOGY))
    dog = Watchdog(Pulse(), board, patience=0.02, stopping=stopping)
    thread = threading.Thread(target=dog.run)
    thread.start()
    wait_until(lambda: len(board.read().unhealthy) == 8, what="the silence is told")
    stopping.set()
    thread.join(10)
    assert not thread.is_alive()
