"""Score plugins by tables: what each of them prefers, on nodes small enough to follow by hand."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import NodeFacts, Room
from scheduler.engine.cycle import schedule
from scheduler.engine.framework import run_score
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN
from scheduler.engine.request import Amounts, Demand, PodRequest
from scheduler.engine.workload import GivenWorkload, PodClass
from tests.scheduler.nodes import bridged, mesh, pcie, switched
from tests.scheduler.worlds import cluster, facts, request
from topology.links import Level
from topology.model import Nic, NodeTopology
from topology.tables import DEFAULT_MIX


def raw(state: ClusterState, plugin: str, wanted: PodRequest, *names: str) -> list[float]:
    """Return what a plugin gives nodes, in its own unit."""
    view = state.view(names or sorted(state.columns.rows)).under(BUILT_IN["training"].policy)
    return run_score(built_in().scores[plugin], view, wanted)[0].tolist()


def sharing(*used: int) -> NodeFacts:
    """Say of a PCIe node what of its GPUs is used."""
    return msgspec.structs.replace(facts(pcie(len(used))), used=used)


def share(milli: int, **more: object) -> PodRequest:
    """Ask for a share of one GPU."""
    return request(1, share_milli=milli, **more)


def with_nics(topology: NodeTopology, *levels: Level) -> NodeTopology:
    """Give a machine one NIC at these levels to its GPUs."""
    nic = Nic("mlx5_0", "0000:c0:00.0", levels, (Level.SELF,))
    return msgspec.structs.replace(topology, nics=(nic,))


def test_numa_counts_the_nodes_of_the_set() -> None:
    """Two GPUs of one socket, then two that are left on both; unknown topology comes last."""
    state = cluster(
        a=facts(pcie(4)), b=facts(pcie(4), occupied=0b1001), c=facts(None), d=facts(pcie(4))
    )
    assert raw(state, "numa", request(2)) == [1.0, 0.5, 0.0, 1.0]
    assert raw(state, "numa", request(1)) == [1.0, 1.0, 0.0, 1.0]


def test_nic_is_how_near_the_sets_gpus_are_to_one() -> None:
    """The mean over the set: PIX is 1, SYS or no NIC is 0."""
    near = with_nics(pcie(2), Level.PIX, Level.PIX)
    half = with_nics(pcie(2), Level.PIX, Level.SYS)
    state = cluster(a=facts(near), b=facts(half), c=facts(pcie(2)), d=facts(None))
    assert raw(state, "nic", request(2)) == [1.0, 0.5, 0.0, 0.0]
    assert raw(state, "nic", request(1)) == [1.0, 1.0, 0.0, 0.0]


def test_packing_counts_parts_of_gpus() -> None:
    """Node level: what of the node is in use once the pod is there."""
    state = cluster(a=sharing(0, 500), b=sharing(0, 0), c=sharing(1000, 0))
    assert raw(state, "packing", share(500)) == [0.5, 0.25, 0.75]
    assert raw(state, "spreading", share(500)) == [0.5, 0.75, 0.25]


def test_gpu_packing_is_how_full_the_gpu_gets() -> None:
    """GPU level, of the GPU that the share would come from; whole GPUs are full anyway."""
    state = cluster(a=sharing(0, 500), b=sharing(0, 0))
    assert raw(state, "gpu_packing", share(300)) == [pytest.approx(0.8), pytest.approx(0.3)]
    assert raw(state, "gpu_spreading", share(300)) == [pytest.approx(0.2), pytest.approx(0.7)]
    assert raw(state, "gpu_packing", request(1)) == [1.0, 1.0]


def test_a_share_comes_from_the_gpu_that_wastes_least() -> None:
    """A used one, the fuller of two, so that the idle one stays whole for who wants it."""
    state = ClusterState(DEFAULT_MIX, workload=GivenWorkload({PodClass(0, 1, 1000): 1.0}))
    state.put("a", sharing(0, 500, 700))
    decision = schedule(built_in(), state.view(["a"]), share(300), BUILT_IN["gputopo"], at=0)
    assert decision.chosen is not None
    assert decision.chosen.choice.members == 0b100


def test_an_idle_gpu_is_shared_where_its_links_are_missed_least() -> None:
    """On a machine with one bridge and two single GPUs a single one is split."""
    single = mesh(2)
    links = [[0] * 4 for _ in range(4)]
    links[0][1] = links[1][0] = single.nvlinks[0][1]
    topology = msgspec.structs.replace(pcie(4), nvlinks=tuple(map(tuple, links)))
    decision = schedule(
        built_in(),
        cluster(a=facts(topology)).view(["a"]),
        share(300),
        BUILT_IN["gputopo"],
        at=0,
    )
    assert decision.chosen is not None
    assert decision.chosen.choice.members in {0b0100, 0b1000}


def test_a_share_costs_links_only_where_it_splits_an_idle_gpu() -> None:
    """Beside another share nothing is lost."""
    state = cluster(
        a=facts(bridged(4)), b=msgspec.structs.replace(facts(bridged(4)), used=(500,) * 4)
    )
    lost, kept = raw(state, "link_loss", share(300))
    assert lost < 0
    assert kept == 0


def test_a_share_must_be_free_on_one_gpu() -> None:
    """Two halves of two GPUs do not make up a larger share."""
    state = cluster(a=sharing(500, 500), b=sharing(0, 600))
    decision = schedule(built_in(), state.view(["a", "b"]), share(600), BUILT_IN["gputopo"], at=0)
    assert [option.node for option in decision.shortlist] == ["b"]
    assert decision.counts() == {"free_gpus": 1}


def test_a_share_of_a_demanded_model() -> None:
    """Of a node with two kinds of GPUs the demanded kind is given, though the other fits better."""
    known = sharing(700, 0)
    assert known.hardware is not None
    mixed = msgspec.structs.replace(
        known, hardware=msgspec.structs.replace(known.hardware, models=("T4", "A10"))
    )
    decision = schedule(
        built_in(),
        cluster(a=mixed).view(["a"]),
        share(300, models=("A10",)),
        BUILT_IN["gputopo"],
        at=0,
    )
    assert decision.chosen is not None
    assert decision.chosen.choice.members == 0b10


def test_links_that_make_no_difference_are_no_loss() -> None:
    """In a cluster of equal NVSwitches a GPU less is a GPU less, and nothing else."""
    state = cluster(a=facts(switched(4)), b=facts(switched(4), occupied=0b1))
    assert raw(state, "link_loss", request(1)) == [0.0, 0.0]
    mixed = cluster(a=facts(switched(4)), b=facts(pcie(4)))
    fast, slow = raw(mixed, "link_loss", request(1))
    assert fast < slow < 0


def test_balance_prefers_nodes_whose_cpu_is_used() -> None:
    """Free CPU costs; GPUs that exceed the CPU left cost more; unknown CPU says nothing."""
    state = cluster(idle=facts(pcie(4)), busy=facts(pcie(4)), starved=facts(pcie(4)))
    capacity = Amounts(64_000, 1024, 110)
    state.put_room("idle", Room(capacity))
    state.put_room("busy", Room(capacity, Amounts(16_000)))
    state.put_room("starved", Room(capacity, Amounts(63_000)))
    wanted = msgspec.structs.replace(request(1), asks=Amounts(1000))
    busy, idle, starved = raw(state, "balance", wanted)
    assert starved < idle < busy
    assert raw(cluster(a=facts(pcie(4))), "balance", wanted) == [0.0]


def test_model_fit_keeps_a_rare_model() -> None:
    """Half of what is expected names A10, of which there are few."""
    workload = GivenWorkload({PodClass(0, 1, 1000): 1.0, PodClass(0, 1, 1000, ("A10",)): 1.0})
    state = ClusterState(DEFAULT_MIX, workload=workload)
    state.put("common", facts(pcie(8, model="T4")))
    state.put("rare", facts(pcie(2, model="A10")))
    common, rare = raw(state, "model_fit", request(1))
    assert (common, rare) == (0.0, pytest.approx(-150 * 0.5 * 10 / 2))
    assert raw(state, "model_fit", request(2))[1] == 2 * rare


def test_a_node_of_unknown_topology_may_come_later() -> None:
    """It is under no pressure, and asking for it is no error."""
    state = cluster(a=facts(pcie(2)))
    assert raw(state, "model_fit", request(1)) == [0.0]
    state.put("b", facts(None))
    assert raw(state, "model_fit", request(1)) == [0.0, 0.0]
    assert raw(state, "fragmentation", request(1), "b") == [0.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([0, 250, 500, 750, 1000]), min_size=1, max_size=4))
def test_what_is_kept_by_row_is_what_is_worked_out_anew(used: list[int]) -> None:
    """Gains that were kept over changes of rows equal those of a cluster that never changed."""
    workload = {PodClass(1000, 1, 500): 1.0, PodClass(1000, 1, 1000): 2.0}
    room = Room(Amounts(8000, 1024, 110))
    wanted = msgspec.structs.replace(share(250), asks=Amounts(1000))
    kept = ClusterState(DEFAULT_MIX, workload=GivenWorkload(workload))
    kept.put("a", sharing(0, 0, 0, 0))
    kept.put("b", sharing(0, 0))
    for name in ("a", "b"):
        kept.put_room(name, room)
    raw(kept, "fragmentation", wanted)
    for position in range(len(used)):
        kept.put("a", sharing(*used[: position + 1]))
        kept.put_room("a", Room(room.capacity, Amounts(500 * position)))
        fresh = ClusterState(DEFAULT_MIX, workload=GivenWorkload(workload))
        fresh.put("a", sharing(*used[: position + 1]))
        fresh.put("b", sharing(0, 0))
        fresh.put_room("a", Room(room.capacity, Amounts(500 * position)))
        fresh.put_room("b", room)
        able = [
            name
            for name in ("a", "b")
            if fresh.view([name]).sharable(Demand(1, share_milli=250))[0]
        ]
        assert raw(kept, "fragmentation", wanted, *able) == raw(
            fresh, "fragmentation", wanted, *able
        )


def test_loads_are_taken_whole() -> None:
    """A node that is not named any more is of unknown load."""
    state = cluster(a=facts(pcie(2)), b=facts(pcie(2)))
    state.columns.put_loads({"a": 0.75, "gone": 0.1})
    assert raw(state, "load", request(1))[0] == 0.25
    state.columns.put_loads({})
    assert np.isnan(state.view(["a"]).load[0])


@pytest.mark.parametrize("models", [(), ("T4",)])
def test_rows_that_are_alike_are_worked_out_once_and_come_out_the_same(
    models: tuple[str, ...],
) -> None:
    """On 700 nodes of few states the gain of each is that of the row looked at alone."""
    dice = np.random.default_rng(2)
    workload = {PodClass(1000, 1, 500): 1.0, PodClass(3000, 1, 1000): 2.0, PodClass(9, 4, 1000): 1}
    state = ClusterState(DEFAULT_MIX, workload=GivenWorkload(workload))
    names = [f"n{number}" for number in range(700)]
    for name in names:
        node = facts(pcie(4, model=str(dice.choice(["T4", "A10"]))))
        used = tuple(dice.choice([0, 250, 750, 1000], size=4).tolist())
        state.put(name, msgspec.structs.replace(node, used=used))
        cpu = int(dice.choice([0, 3500, 6500]))
        state.put_room(name, Room(Amounts(8000, 1024, 110), Amounts(cpu)))
    wanted = msgspec.structs.replace(share(250, models=models), asks=Amounts(1000))
    rows = np.arange(len(names))
    gains = state.outlook.gains(wanted, rows)
    shares = state.outlook.device_shares(wanted, rows)
    for row in rows.tolist():
        alone = state.outlook.gains_by_device(wanted, row)
        assert gains[row] == alone.max()
        if alone.max() > -np.inf:
            best = state.columns.share[row][alone == alone.max()]
            assert shares[row] == best.min()
