"""Which replicas and MIG instances are preferred."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deviceplugin.admission.allocation import Plan, Request, Wanted, check_devices
from deviceplugin.admission.choosers import Choosers
from deviceplugin.admission.desk import Desk
from deviceplugin.admission.ledger import Ledger
from deviceplugin.admission.shared_allocation import SharedCircumstances, plan_shared
from deviceplugin.config.model import SharedPolicy
from deviceplugin.errors import (
    HeldDeviceError,
    RequestError,
    SharingError,
    StrictRefusalError,
    UnknownDeviceError,
)
from deviceplugin.metrics import Metrics
from deviceplugin.outcomes import Drift, Outcome
from deviceplugin.pods.holdings import Holdings
from deviceplugin.resources.devices import Resource, uuid_of
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.stock import MAIN, take_stock
from tests.deviceplugin.nodes import PAIRS, FakeClock, FakePodResources, machine
from tests.deviceplugin.resources.nodes import READY, config_of, cut, stock
from topology.model import NodeTopology

PACKED, DISTRIBUTED = SharedPolicy.PACKED, SharedPolicy.DISTRIBUTED
CHOOSERS = Choosers("training")


class Node:
    """A node of shared devices that is asked."""

    def __init__(
        self, gpus: int | NodeTopology, replicas: int, more: str = "", *, way: str = "timeSlicing"
    ) -> None:
        topology = machine(gpus) if isinstance(gpus, int) else gpus
        text = (
            f"flags: {{mpsRoot: /m}}\n"
            f"sharing: {{{way}: {{{more} resources: [{{name: gpu, replicas: {replicas}}}]}}}}"
        )
        one = take_stock(Inventory(topology), config_of(text), READY)
        self.resource: Resource = one.resource(MAIN)
        self.choose = CHOOSERS(topology)

    def ask(
        self,
        size: int,
        policy: SharedPolicy = DISTRIBUTED,
        *,
        used: dict[str, int] | None = None,
        offered: list[str] | None = None,
        must: tuple[str, ...] = (),
        wanted: Wanted | None = None,
        circumstances: SharedCircumstances | None = None,
    ) -> Plan:
        """Ask for some devices; `used` says how many replicas of a GPU are not on offer."""
        taken = [f"{uuid}::{n}" for uuid, count in (used or {}).items() for n in range(count)]
        if offered is None:
            offered = [one for one in self.resource.by_id if one not in taken]
        return plan_shared(
            Request(tuple(offered), must, size),
            wanted or Wanted(),
            circumstances or SharedCircumstances(),
            self.resource,
            policy=policy,
            choose=self.choose,
        )


def spread(plan: Plan) -> list[int]:
    """Return how many devices come from each GPU, most first."""
    return sorted(Counter(map(uuid_of, plan.uuids)).values(), reverse=True)


@pytest.mark.parametrize(
    ("policy", "gpus", "replicas", "size", "expected"),
    [
        pytest.param(DISTRIBUTED, 2, 4, 2, [1, 1], id="distributed-one-each"),
        pytest.param(DISTRIBUTED, 2, 4, 4, [2, 2], id="distributed-two-each"),
        pytest.param(DISTRIBUTED, 3, 2, 3, [1, 1, 1], id="distributed-three"),
        pytest.param(PACKED, 2, 4, 2, [2], id="packed-same-gpu"),
        pytest.param(PACKED, 2, 4, 5, [4, 1], id="packed-one-more"),
        pytest.param(PACKED, 3, 2, 3, [2, 1], id="packed-two-and-one"),
    ],
)
def test_the_policy_spreads_or_packs(
    policy: SharedPolicy, gpus: int, replicas: int, size: int, expected: list[int]
) -> None:
    """Distributed fills all GPUs alike, packed one after the other."""
    assert spread(Node(gpus, replicas).ask(size, policy)) == expected


def test_distributed_takes_the_least_used_first() -> None:
    """Of partly used GPUs the one that is used least is next, until they are level."""
    node = Node(3, 4)
    assert node.ask(1, used={"g0": 2, "g1": 1, "g2": 3}).uuids == ("g1::1",)
    plan = node.ask(3, used={"g0": 2, "g1": 1, "g2": 3})
    assert Counter(map(uuid_of, plan.uuids)) == {"g1": 2, "g0": 1}


def test_packed_takes_the_most_used_first() -> None:
    """The GPU with least room is filled before another one is begun."""
    plan = Node(3, 4).ask(2, PACKED, used={"g0": 1, "g1": 3})
    assert Counter(map(uuid_of, plan.uuids)) == {"g1": 1, "g0": 1}


def test_equal_gpus_are_chosen_by_their_links() -> None:
    """Four shares of four GPUs come from linked ones, and the pair that is begun is finished."""
    node = Node(machine(8, PAIRS), 2)
    for policy, size in ((DISTRIBUTED, 2), (PACKED, 4)):
        first, second = sorted({int(uuid_of(one)[1:]) for one in node.ask(size, policy).uuids})
        assert (first, second) in PAIRS
    assert node.ask(1, used={"g5": 2}, policy=DISTRIBUTED).uuids == ("g4::0",)


def test_mig_instances_follow_their_gpus() -> None:
    """Distributed takes instances of the GPU that is used least, packed of the one used most."""
    mig = cut(0, "1g.5gb", "1g.5gb", "1g.5gb") | cut(1, "1g.5gb", "1g.5gb", "1g.5gb")
    one = stock("flags: {migStrategy: mixed}", 2, mig)
    resource = one.resource("nvidia.com/mig-1g.5gb")

    def ask(policy: SharedPolicy, size: int) -> tuple[str, ...]:
        return plan_shared(
            Request(("m0-1", "m0-2", "m1-0", "m1-1", "m1-2"), (), size),
            Wanted(),
            SharedCircumstances(),
            resource,
            policy=policy,
            choose=CHOOSERS(one.inventory.topology),
        ).uuids

    assert ask(DISTRIBUTED, 1) == ("m1-0",)
    assert ask(PACKED, 1) == ("m0-1",)
    assert ask(DISTRIBUTED, 3) == ("m0-1", "m1-0", "m1-1")
    assert ask(PACKED, 3) == ("m0-1", "m0-2", "m1-0")


def test_the_schedulers_set_comes_first() -> None:
    """One replica of each GPU that the pod was bound with, whatever the policy says."""
    node = Node(4, 2)
    for policy in SharedPolicy:
        plan = node.ask(2, policy, used={"g3": 1}, wanted=Wanted(("g3", "g0")))
        assert (plan.uuids, plan.outcome) == (("g0::0", "g3::1"), Outcome.EXACT)
    twice = node.ask(2, wanted=Wanted(("g2", "g2")))
    assert (twice.uuids, twice.outcome) == (("g2::0", "g2::1"), Outcome.EXACT)


@pytest.mark.parametrize(
    ("wanted", "size", "must", "drift"),
    [
        (("g0", "g1"), 1, (), Drift.WRONG_SIZE),
        (("g0", "g3"), 2, (), Drift.NOT_OFFERED),
        (("g0", "gX"), 2, (), Drift.NOT_OFFERED),
        (("g0", "g1"), 2, ("g2::1",), Drift.MUST_INCLUDE),
    ],
)
def test_each_reason_of_drift_has_its_name(
    wanted: tuple[str, ...], size: int, must: tuple[str, ...], drift: Drift
) -> None:
    """What can be had of the set is given, the reason is told; a strict pod is refused with it."""
    node, used = Node(4, 2), {"g3": 2}
    plan = node.ask(size, used=used, must=must, wanted=Wanted(wanted))
    assert (plan.outcome, plan.drift) == (Outcome.DRIFT, drift)
    assert "g0::0" in plan.uuids
    assert set(must) <= set(plan.uuids)
    with pytest.raises(StrictRefusalError, match=str(drift)):
        node.ask(size, used=used, must=must, wanted=Wanted(wanted, strict=True))


def test_what_kubelet_insists_on_counts_for_the_set() -> None:
    """A replica that must be included stands for its GPU in the set."""
    plan = Node(4, 2).ask(2, must=("g1::1",), wanted=Wanted(("g1", "g2")))
    assert (plan.uuids, plan.outcome) == (("g1::1", "g2::0"), Outcome.EXACT)


def test_promised_gpus_come_last_among_equals() -> None:
    """A GPU that another pod was bound with is left for it if there is an equal one."""
    plan = Node(2, 2).ask(1, circumstances=SharedCircumstances(promised=frozenset(["g0"])))
    assert plan.uuids == ("g1::0",)


def test_devices_of_other_pods_are_not_given() -> None:
    """What kubelet shows with a live pod is no choice, also if it was a whole GPU before."""
    node = Node(2, 2)
    held = SharedCircumstances(held={"g0": "d/a", "g1::0": "d/b"})
    assert node.ask(1, circumstances=held).uuids == ("g1::1",)
    with pytest.raises(HeldDeviceError, match="d/a"):
        node.ask(2, circumstances=held)


def test_a_pod_with_a_replica_keeps_its_gpu_from_being_given_whole() -> None:
    """After sharing ends a GPU is given out again when its last replica is free."""
    whole = stock("").resource(MAIN)
    with pytest.raises(HeldDeviceError, match="d/a"):
        check_devices(["g0"], whole, {"g0::3": "d/a"})
    assert check_devices(["g1"], whole, {"g0::3": "d/a"})


def test_two_shares_may_have_to_come_from_two_gpus() -> None:
    """With `distinctGPUs` each device is of another GPU; a pod that asks for more is refused."""
    node = Node(2, 4, "distinctGPUs: true,")
    for policy in SharedPolicy:
        assert spread(node.ask(2, policy, used={"g0": 1})) == [1, 1]
        with pytest.raises(SharingError):
            node.ask(3, policy)
    with pytest.raises(SharingError, match="of one GPU"):
        check_devices(["g0::0", "g0::1"], node.resource, {})
    assert check_devices(["g0::0", "g1::1"], node.resource, {})


@pytest.mark.parametrize(
    ("way", "more", "passes"),
    [
        ("timeSlicing", "", True),
        ("timeSlicing", "failRequestsGreaterThanOne: true,", False),
        ("mps", "", False),
        ("mps", "failRequestsGreaterThanOne: false,", True),
    ],
)
def test_more_than_one_share_passes_or_fails(way: str, more: str, passes: bool) -> None:
    """Time-slicing gives two by default, MPS does not; either may be told otherwise."""
    resource = Node(2, 4, more, way=way).resource
    assert check_devices(["g0::0"], resource, {})
    if passes:
        assert len(check_devices(["g0::0", "g1::0"], resource, {})) == 2
    else:
        with pytest.raises(SharingError, match=r"2 replicas of nvidia\.com/gpu asked"):
            check_devices(["g0::0", "g1::0"], resource, {})


def test_an_unknown_replica_is_named() -> None:
    """An id that the resource does not have is an error with its name."""
    with pytest.raises(UnknownDeviceError, match="g0::9"):
        check_devices(["g0::0", "g0::9"], Node(1, 2).resource, {})


@pytest.mark.parametrize(
    ("offered", "must", "size"),
    [
        (["g0::0"], (), 2),
        (["g0::0"], (), 0),
        (["g0::0"], ("g1::0",), 1),
        (["g0::0", "g1::0"], ("g0::0", "g1::0"), 1),
        (["gX::0"], (), 1),
        (["gX::0"], ("gX::0",), 1),
    ],
)
def test_a_question_without_an_answer_is_an_error(
    offered: list[str], must: tuple[str, ...], size: int
) -> None:
    """Too few devices, and questions that contradict themselves, are refused."""
    with pytest.raises(RequestError):
        Node(2, 2).ask(size, offered=offered, must=must)


FLEET = [f"g{gpu}::{replica}" for gpu in range(4) for replica in range(3)]


@given(
    offered=st.lists(st.sampled_from(FLEET), unique=True, min_size=1),
    policy=st.sampled_from(SharedPolicy),
    data=st.data(),
)
def test_the_answer_is_whole_and_the_same_in_any_order(
    offered: list[str], policy: SharedPolicy, data: st.DataObject
) -> None:
    """As many devices as asked, all offered, none twice, whatever the order of the offer."""
    node = Node(machine(4, {(0, 1): 2, (2, 3): 2}), 3)
    size = data.draw(st.integers(1, len(offered)))
    must = data.draw(st.lists(st.sampled_from(offered), unique=True, max_size=size))
    other = data.draw(st.permutations(offered))
    plan = node.ask(size, policy, offered=offered, must=tuple(must))
    assert plan == node.ask(size, policy, offered=other, must=tuple(must))
    assert len(set(plan.uuids)) == len(plan.uuids) == size
    assert set(must) <= set(plan.uuids) <= set(offered)


@given(used=st.lists(st.integers(0, 4), min_size=4, max_size=4), size=st.integers(1, 16))
def test_distributed_levels_and_packed_fills(used: list[int], size: int) -> None:
    """Distributed never raises one GPU above another it could have taken; packed begins few."""
    node = Node(machine(4), 4)
    free = 16 - sum(used)
    if size > free:
        return
    before = {f"g{gpu}": count for gpu, count in enumerate(used)}
    for policy in SharedPolicy:
        picked = Counter(map(uuid_of, node.ask(size, policy, used=before).uuids))
        after = {uuid: count + picked[uuid] for uuid, count in before.items()}
        if policy is DISTRIBUTED:
            highest = max(after[uuid] for uuid in picked)
            assert all(count >= highest - 1 for count in after.values())
        else:
            begun = [uuid for uuid in picked if after[uuid] < 4]
            assert len(begun) <= 1


@pytest.mark.parametrize("policy", SharedPolicy)
def test_whole_gpus_ignore_the_sharing_policy(policy: SharedPolicy) -> None:
    """Whatever the policy says, two whole GPUs are the linked pair that is left over."""
    text = f"flags: {{plugin: {{sharedDevicesAllocationPolicy: {policy}}}}}"
    one = take_stock(Inventory(machine(8, PAIRS)), config_of(text))
    metrics = Metrics()
    desk = Desk(
        stock=lambda: one,
        resource=MAIN,
        pods=dict,
        get_pod=lambda _key, _timeout: None,
        ledger=Ledger(FakePodResources(Holdings()), metrics),
        chooser_for=CHOOSERS,
        metrics=metrics,
    )
    (plan,) = desk.prefer([Request(("g0", "g2", "g3", "g5"), (), 2)])
    assert plan.uuids == ("g2", "g3")


def test_an_allocate_of_one_resource_keeps_kubelets_books_shut_for_all() -> None:
    """While shares may be in flight no List is made: it could make kubelet forget them."""
    metrics, clock = Metrics(), FakeClock()
    ledger = Ledger(FakePodResources(Holdings()), metrics, clock=clock)
    one = stock("flags: {migStrategy: mixed}", 2, cut(0, "1g.5gb"))
    desks = {
        name: Desk(
            stock=lambda: one,
            resource=name,
            pods=dict,
            get_pod=lambda _key, _timeout: None,
            ledger=ledger,
            chooser_for=CHOOSERS,
            metrics=metrics,
            clock=clock,
        )
        for name in one.division.resources
    }
    assert ledger.read_back() is not None
    desks["nvidia.com/mig-1g.5gb"].prefer([Request(("m0-0",), (), 1)])
    clock.now += 1
    assert ledger.read_back() is None
    desks["nvidia.com/mig-1g.5gb"].allocate([("m0-0",)])
    assert ledger.read_back() is None
    clock.now += 1
    assert ledger.read_back() is not None
