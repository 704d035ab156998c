"""What the desk does when it cannot be sure: nobody is refused on a guess, nothing takes long."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import pytest

from deviceplugin.admission.allocation import Plan, Request
from deviceplugin.admission.desk import Desk
from deviceplugin.admission.ledger import Ledger
from deviceplugin.config.model import Config
from deviceplugin.errors import StrictRefusalError
from deviceplugin.metrics import Metrics
from deviceplugin.outcomes import Drift, Outcome
from deviceplugin.pods.holdings import Holdings, Reading
from deviceplugin.resources.inventory import Board, Inventory
from deviceplugin.resources.stock import take_stock
from runtime.errors import UnreachableError
from runtime.objects import Pod
from tests.deviceplugin.nodes import (
    CHOOSERS,
    DGX1V,
    RESOURCE,
    FakeClock,
    FakePodResources,
    by_key,
    holdings,
    machine,
    names,
    pod,
    reading_of,
)
from tests.waiting import wait_until
from topology.gpuset import GpuSet
from topology.model import NodeTopology

ALL = names(*range(8))
NONE: tuple[str, ...] = ()


class Scene:
    """A desk whose kubelet, watch and API server say what they are told to."""

    def __init__(
        self, choosers: Callable[[NodeTopology], Callable[[GpuSet, int, GpuSet], GpuSet]] = CHOOSERS
    ) -> None:
        board = Board()
        board.post(Inventory(machine(8, DGX1V)))
        self.clock = FakeClock()
        self.kubelet = FakePodResources(Holdings())
        self.pods: Mapping[str, Pod] = {}
        self.server: Mapping[str, Pod] = {}
        self.gets: list[tuple[str, float]] = []
        self.metrics = Metrics()
        self.ledger = Ledger(self.kubelet, self.metrics, clock=self.clock)
        self.desk = Desk(
            stock=lambda: take_stock(board.read(), Config()),
            resource=RESOURCE,
            pods=lambda: self.pods,
            get_pod=self._get,
            ledger=self.ledger,
            chooser_for=choosers,
            metrics=self.metrics,
            clock=self.clock,
        )

    def ask(self, size: int, *, offered: tuple[str, ...] = ALL) -> Plan:
        """Ask for one container as kubelet does."""
        return self.desk.prefer([Request(offered, (), size)])[0]

    def _get(self, key: str, timeout: float) -> Pod | None:
        self.gets.append((key, timeout))
        return self.server.get(key)


@pytest.fixture
def scene() -> Scene:
    """Return a scene in which kubelet has once shown that d/old holds GPU 3."""
    scene = Scene()
    scene.pods = by_key(pod("old", 1, phase="Running"))
    scene.kubelet.answer = holdings(old={"c0": names(3)})
    scene.ledger.read_back()
    scene.kubelet.answer = None
    return scene


def test_what_kubelet_said_before_refuses_nobody(scene: Scene) -> None:
    """d/old is gone, PodResources silent: its GPU, which kubelet offers, is spared at most."""
    scene.pods = {}
    assert "g3" not in scene.ask(7).uuids
    assert scene.ask(8).uuids == ALL
    assert scene.desk.allocate([ALL])[0].envs["NVIDIA_VISIBLE_DEVICES"] == ",".join(ALL)


def test_a_strict_pod_is_not_served_by_guess(scene: Scene) -> None:
    """If only strict pods can be asking, not to know which one is to refuse."""
    strict = pod("a", 2, promised={"c0": names(0, 3)}, strict=True)
    scene.pods = by_key(strict)
    with pytest.raises(StrictRefusalError, match="pod_resources"):
        scene.ask(2)
    scene.pods = by_key(strict, pod("b", 2))
    assert scene.ask(2).drift is Drift.POD_RESOURCES
    scene.pods = {}
    assert scene.ask(2).drift is Drift.POD_RESOURCES


def test_after_a_refusal_kubelet_is_asked_again_soon(scene: Scene) -> None:
    """No Allocate follows a refusal, so the reading need not wait for one."""
    scene.pods = by_key(pod("a", 2, promised={"c0": names(0, 3)}, strict=True))
    with pytest.raises(StrictRefusalError):
        scene.ask(2)
    scene.kubelet.answer = Holdings()
    scene.clock.now += 0.2
    assert scene.ledger.read_back() is not None


def test_a_pod_that_is_being_deleted_may_be_its_successor(scene: Scene) -> None:
    """A Pending pod of the watch that is dying is looked up: its namesake has another set."""
    scene.pods = by_key(pod("a", 2, promised={"c0": names(0, 3)}, deleted=True))
    scene.server = by_key(pod("a", 2, promised={"c0": names(6, 1)}, uid="new"))
    scene.kubelet.answer = holdings(a={"c0": NONE})
    assert scene.ask(2).uuids == names(1, 6)
    scene.server = scene.pods
    assert scene.ask(2).uuids == names(0, 3)


def test_pods_without_any_gpu_are_looked_up_first(scene: Scene) -> None:
    """Of many that the watch has not shown, those that hold GPUs already come last."""
    scene.kubelet.answer = holdings(b={"c0": names(3)}, a={"c0": NONE})
    scene.ask(1)
    assert [key for key, _ in scene.gets] == ["d/a", "d/b"]


def test_the_wait_for_a_reading_counts(scene: Scene) -> None:
    """An admission that had to wait for a slow List has that much less time for its own calls."""
    inside, leave = threading.Event(), threading.Event()
    given: list[float] = []

    def slow(timeout: float) -> Reading:
        given.append(timeout)
        inside.set()
        leave.wait(10)
        return reading_of(holdings(new={"c0": NONE}))

    scene.kubelet.list = slow  # type: ignore[method-assign]  # the fake's own answer, delayed
    scene.clock.now += 10
    reading = threading.Thread(target=scene.ledger.read_back)
    reading.start()
    assert inside.wait(10)
    asking = threading.Thread(target=scene.ask, args=(1,))
    looks = scene.clock.asked
    asking.start()
    wait_until(lambda: scene.clock.asked > looks, what="the question to note its deadline")
    scene.clock.now += 1.5
    leave.set()
    reading.join(10)
    asking.join(10)
    assert given == [1.0, 0.5]
    assert [timeout for _, timeout in scene.gets] == [0.5]


def test_a_fault_of_ours_leaves_the_choice_to_kubelet() -> None:
    """Whatever breaks inside, the pod is admitted, and the drift is counted."""

    def broken(_: NodeTopology) -> Callable[[GpuSet, int, GpuSet], GpuSet]:
        raise ZeroDivisionError

    scene = Scene(broken)
    scene.pods = by_key(pod("a", 2, promised={"c0": names(0, 3)}))
    scene.kubelet.answer = holdings(a={"c0": NONE})
    assert Plan((), Outcome.DRIFT, Drift.INTERNAL) == scene.ask(2)
    labels = {"reason": "internal"}
    assert scene.metrics.registry.get_sample_value("gputopo_plugin_drift_total", labels) == 1


def test_a_server_that_fails_on_the_way_is_drift(scene: Scene) -> None:
    """The pod is dying in the watch and the server away: nobody is taken for it."""

    def away(_key: str, _timeout: float) -> Pod | None:
        raise UnreachableError("away")

    scene.desk._lookup._get_pod = away
    scene.pods = by_key(pod("a", 2, promised={"c0": names(0, 3)}, deleted=True))
    scene.kubelet.answer = holdings(a={"c0": NONE})
    assert scene.ask(2).drift is Drift.API_SERVER
