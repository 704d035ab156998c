"""The desk: identity, promises and held GPUs together, and when kubelet may be asked."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from deviceplugin.admission.allocation import Plan, Request
from deviceplugin.admission.desk import Desk
from deviceplugin.admission.ledger import Ledger
from deviceplugin.config.model import Config
from deviceplugin.errors import HeldDeviceError, StrictRefusalError
from deviceplugin.metrics import Metrics
from deviceplugin.outcomes import Drift, Outcome
from deviceplugin.pods.holdings import Holdings, Reading
from deviceplugin.resources.inventory import Board, Inventory
from deviceplugin.resources.stock import take_stock
from runtime.errors import KubeError, UnreachableError
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
)

ALL = names(*range(8))
NONE: tuple[str, ...] = ()


class World:
    """A desk and everything around it, to be changed by a test."""

    def __init__(self) -> None:
        self.board = Board()
        self.board.post(Inventory(machine(8, DGX1V)))
        self.clock = FakeClock()
        self.kubelet = FakePodResources(Holdings())
        self.pods: dict[str, Pod] = {}
        self.server: dict[str, Pod] | KubeError = {}
        self.gets: list[str] = []
        self.metrics = Metrics()
        self.told = 0
        self.ledger = Ledger(self.kubelet, self.metrics, on_reading=self._tell, clock=self.clock)
        self.desk = Desk(
            stock=lambda: take_stock(self.board.read(), Config()),
            resource=RESOURCE,
            pods=lambda: self.pods,
            get_pod=self._get,
            ledger=self.ledger,
            chooser_for=CHOOSERS,
            metrics=self.metrics,
            clock=self.clock,
        )

    def admit(self, *pods: Pod, **held: dict[str, tuple[str, ...]]) -> None:
        """Let the watch know these pods and kubelet show these holdings."""
        self.pods = by_key(*pods)
        self.kubelet.answer = holdings(**held)

    def ask(self, size: int, *, offered: tuple[str, ...] = ALL) -> Plan:
        """Ask for one container as kubelet does."""
        return self.desk.prefer([Request(offered, (), size)])[0]

    def count(self, name: str, **labels: str) -> float:
        """Return a metric's value."""
        return self.metrics.registry.get_sample_value(f"gputopo_plugin_{name}", labels) or 0.0

    def _get(self, key: str, _timeout: float) -> Pod | None:
        self.gets.append(key)
        if isinstance(self.server, KubeError):
            raise self.server
        return self.server.get(key)

    def _tell(self) -> None:
        self.told += 1


@pytest.fixture
def world() -> World:
    """Return a calm world with eight free GPUs."""
    return World()


def test_the_asking_pod_gets_its_set(world: World) -> None:
    """An annotated pod in admission gets exactly the set that it was bound with."""
    world.admit(pod("a", 2, promised={"c0": names(6, 1)}), a={"c0": NONE})
    assert Plan(names(1, 6), Outcome.EXACT) == world.ask(2)
    assert world.count("preferred_allocations_total", outcome="exact") == 1


def test_an_unknown_pod_is_looked_up(world: World) -> None:
    """A pod that the watch has not shown yet is asked for at the API server."""
    world.kubelet.answer = holdings(a={"c0": NONE})
    world.server = by_key(pod("a", 2, promised={"c0": names(6, 1)}))
    assert world.ask(2).uuids == names(1, 6)


def test_a_pod_that_the_server_does_not_know_is_asked_for_once(world: World) -> None:
    """A static pod without mirror costs one GET, not one in every admission."""
    world.admit(pod("a", 2, promised={"c0": names(6, 1)}), a={"c0": NONE}, static={"c0": NONE})
    for _ in range(3):
        assert world.ask(2).outcome is Outcome.EXACT
    assert world.gets == ["d/static"]
    world.clock.now += 11
    world.ask(2)
    assert world.gets == ["d/static"] * 2


def test_a_static_pod_has_no_drift(world: World) -> None:
    """The API server does not know it, so nobody has promised it anything: the best set it is."""
    world.admit(pod("a", 2, promised={"c0": names(0, 3)}), static={"c0": NONE})
    answer = world.ask(2)
    assert (answer.outcome, answer.drift) == (Outcome.BEST, None)
    assert not set(answer.uuids) & {"g0", "g3"}


def test_a_namesake_of_another_size_is_looked_up(world: World) -> None:
    """The watch still shows the pod that had the name before: the API server knows better."""
    world.admit(pod("a", 4, phase="Running", uid="old"), a={"c0": NONE})
    world.server = by_key(pod("a", 2, promised={"c0": names(6, 1)}, uid="new"))
    assert Plan(names(1, 6), Outcome.EXACT) == world.ask(2)


def test_without_the_api_server_the_watch_is_enough(world: World) -> None:
    """A candidate that the watch knows is believed even if others cannot be looked up."""
    world.server = UnreachableError("away")
    world.admit(pod("a", 2, promised={"c0": names(6, 1)}), a={"c0": NONE}, new={"c0": NONE})
    assert world.ask(2).outcome is Outcome.EXACT


def test_without_the_api_server_an_unknown_pod_is_served(world: World) -> None:
    """Nobody known is waiting and the server is away: the best set, and the drift is counted."""
    world.server = UnreachableError("away")
    world.kubelet.answer = holdings(new={"c0": NONE})
    answer = world.ask(2)
    assert (answer.outcome, answer.drift) == (Outcome.DRIFT, Drift.API_SERVER)
    assert world.count("drift_total", reason="api_server") == 1


def test_without_podresources_a_pod_is_served(world: World) -> None:
    """A silent kubelet means no identity: the best set that spares what others were promised."""
    world.kubelet.answer = None
    world.pods = by_key(
        pod("a", 2, promised={"c0": names(0, 3)}), pod("b", 4, promised={"c0": names(1, 2, 5, 6)})
    )
    answer = world.ask(2)
    assert (answer.outcome, answer.drift) == (Outcome.DRIFT, Drift.POD_RESOURCES)
    assert not set(answer.uuids) & set(names(1, 2, 5, 6))


def test_two_that_may_be_asking_do_not_shut_each_other_out(world: World) -> None:
    """What the candidates were promised may be given to either; what others were may not."""
    world.admit(
        pod("a", 4, promised={"c0": names(0, 1, 2, 3)}),
        pod("b", 4, promised={"c0": names(4, 5, 6, 7)}),
        a={"c0": NONE},
        b={"c0": NONE},
    )
    answer = world.ask(4)
    assert answer.drift is Drift.AMBIGUOUS_POD
    assert answer.promised_taken == 0


def test_a_pod_of_another_scheduler_spares_promises(world: World) -> None:
    """A pod without a set gets none of the GPUs that a bound pod waits for."""
    world.admit(
        pod("foreign", 2),
        pod("ours", 4, promised={"c0": names(0, 1, 2, 3)}),
        foreign={"c0": NONE},
    )
    answer = world.ask(2)
    assert answer.outcome is Outcome.BEST
    assert not set(answer.uuids) & set(names(0, 1, 2, 3))
    assert world.count("promised_taken_total") == 0


def test_drift_of_one_container_spares_the_next(world: World) -> None:
    """A container that cannot have its GPU does not take what its pod's next one was promised."""
    world.board.post(Inventory(machine(8, DGX1V), {"g0": "XID 79"}))
    both = pod("a", 1, 1, promised={"c0": names(0), "c1": names(3)})
    world.admit(both, a={"c0": NONE, "c1": NONE})
    first = world.ask(1, offered=names(3, 5))
    assert (first.uuids, first.drift) == (names(5), Drift.UNHEALTHY)
    world.admit(both, a={"c0": names(5), "c1": NONE})
    assert Plan(names(3), Outcome.EXACT) == world.ask(1, offered=names(3))


def test_held_gpus_are_not_preferred(world: World) -> None:
    """What kubelet's own books show with a live pod is not preferred, though it is offered."""
    world.admit(
        pod("a", 2, promised={"c0": names(0, 3)}),
        pod("b", 1, phase="Running"),
        a={"c0": NONE},
        b={"c0": names(3)},
    )
    answer = world.ask(2)
    assert answer.drift is Drift.NOT_OFFERED
    assert "g3" not in answer.uuids
    assert "g0" in answer.uuids


def test_an_allocate_of_a_gpu_just_seen_elsewhere_is_refused(world: World) -> None:
    """Right after the books showed it with a live pod a GPU is refused, and named."""
    world.admit(pod("a", 1), pod("b", 1, phase="Running"), a={"c0": NONE}, b={"c0": names(3)})
    world.ask(1)
    with pytest.raises(HeldDeviceError, match=r"g3 .* d/b"):
        world.desk.allocate([names(3)])
    assert world.count("allocations_total", outcome="refused") == 1


@pytest.mark.parametrize("why", ["later", "ended", "unasked"])
def test_old_knowledge_refuses_nobody(world: World, why: str) -> None:
    """A GPU is not refused for what was seen long ago, for a pod that ended, or unasked."""
    world.admit(pod("a", 1), pod("b", 1, phase="Running"), a={"c0": NONE}, b={"c0": names(3)})
    world.ask(1)
    if why == "later":
        world.clock.now += 2
    elif why == "ended":
        world.pods = by_key(pod("a", 1), pod("b", 1, phase="Succeeded"))
    else:
        world.desk.allocate([names(0)])
    assert [one.envs for one in world.desk.allocate([names(3)])] == [
        {"NVIDIA_VISIBLE_DEVICES": "g3"}
    ]


def test_a_strict_pod_is_refused_under_drift(world: World) -> None:
    """Strict turns drift into an error, which is counted."""
    world.admit(pod("a", 2, promised={"c0": names(6, 1)}, strict=True), a={"c0": NONE})
    with pytest.raises(StrictRefusalError, match="not_offered"):
        world.ask(2, offered=names(0, 1, 2))
    assert world.count("preferred_allocations_total", outcome="refused") == 1


def test_a_senseless_question_leaves_the_choice_to_kubelet(world: World) -> None:
    """A request that contradicts itself gets an empty preference, unless the pod is strict."""
    world.admit(pod("a", 9), a={"c0": NONE})
    answer = world.ask(9)
    assert (answer.uuids, answer.drift) == ((), Drift.BAD_REQUEST)
    world.admit(pod("a", 9, strict=True), a={"c0": NONE})
    with pytest.raises(StrictRefusalError):
        world.ask(9)


def test_a_lost_gpu_disturbs_no_other(world: World) -> None:
    """With GPU 5 failed, questions and allocations about the others go on."""
    world.board.post(Inventory(machine(8, DGX1V), {"g5": "XID 79"}))
    world.admit(pod("a", 2, promised={"c0": names(0, 3)}), a={"c0": NONE})
    assert world.ask(2).outcome is Outcome.EXACT
    assert world.desk.allocate([names(0, 3)])[0].envs == {"NVIDIA_VISIBLE_DEVICES": "g0,g3"}


def test_containers_are_answered_in_order(world: World) -> None:
    """A request for several containers gets one answer for each, in order."""
    answers = world.desk.allocate([names(2), names(1, 0)])
    assert [answer.envs["NVIDIA_VISIBLE_DEVICES"] for answer in answers] == ["g2", "g0,g1"]


def test_kubelet_is_not_asked_between_preference_and_allocate(world: World) -> None:
    """From a preference until a while after its Allocate no List is made: it could lose it."""
    world.admit(pod("a", 1), a={"c0": NONE})
    assert world.ledger.read_back() is not None
    world.ask(1)
    calls = world.kubelet.calls
    world.clock.now += 1
    assert world.ledger.read_back() is None
    world.desk.allocate([names(0)])
    assert world.ledger.read_back() is None
    assert calls == world.kubelet.calls
    world.clock.now += 0.2
    assert world.ledger.read_back() is not None


def test_an_allocate_that_never_comes_does_not_stop_reading(world: World) -> None:
    """Kubelet may change its mind after a preference; then reading goes on after a while."""
    world.admit(pod("a", 1), a={"c0": NONE})
    world.ask(1)
    world.clock.now += 6
    assert world.ledger.read_back() is not None


def test_reading_gives_way_to_an_admission(world: World) -> None:
    """While a question is being answered a reading is put off rather than queued."""
    inside, leave = threading.Event(), threading.Event()
    reading: Callable[[float], Reading] = world.kubelet.list

    def slow(timeout: float) -> Reading:
        inside.set()
        leave.wait(10)
        return reading(timeout)

    world.kubelet.list = slow  # type: ignore[method-assign]  # the fake's own answer, delayed
    world.admit(pod("a", 1), a={"c0": NONE})
    asking = threading.Thread(target=world.ask, args=(1,))
    asking.start()
    assert inside.wait(10)
    assert world.ledger.read_back() is None
    leave.set()
    asking.join(10)


def test_every_answer_of_kubelet_is_passed_on(world: World) -> None:
    """The books of an admission serve the publisher too, once the pod has its answer."""
    assert world.ledger.last is None
    world.admit(pod("a", 1), a={"c0": NONE}, b={"c0": names(2)})
    world.ask(1)
    assert world.ledger.last is not None
    assert world.ledger.last.everything().holders() == {"g2": "d/b"}
    assert world.told == 0
    assert world.ledger.read_back() is None
    assert world.told == 1
    world.ledger.read_back()
    assert world.told == 1
