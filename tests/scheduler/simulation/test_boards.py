"""Machines behind a trace's nodes, and what the reference would do on them."""

from __future__ import annotations

import numpy as np

from scheduler.simulation.boards import Boards, cut_machine
from scheduler.simulation.cluster import Cluster
from scheduler.simulation.placers import RatingPlacer
from scheduler.simulation.policies.published import BestFit
from scheduler.simulation.runs import run_once
from tests.scheduler.nodes import bridged, switched
from topology.gpuset import gpuset
from traces.openb import Node, Task, TaskClass

PAIR = TaskClass(1000, 1, 2, 1000)
ONE = TaskClass(1000, 1, 1, 1000)
NODE = Node("a", 96_000, 65_536, 4, "G2")


def test_a_cut_machine_is_its_first_gpus() -> None:
    """Links among them stay, links to the rest are gone."""
    cut = cut_machine(bridged(8), 4)
    assert cut.nvlinks == bridged(4).nvlinks
    assert [gpu.uuid for gpu in cut.gpus] == ["GPU-0", "GPU-1", "GPU-2", "GPU-3"]


def test_published_policies_get_the_reference_allocators_set() -> None:
    """With GPU 0 taken, the two of the other bridge are preferred to the lowest two."""
    boards = Boards({("G2", 4): bridged(4)})
    cluster = Cluster([NODE])
    placer = RatingPlacer(cluster, [NODE], boards, BestFit(), np.random.default_rng(1))
    cluster.place(0, ONE, gpuset([0]))
    placement = placer.place(PAIR)
    assert placement is not None
    assert placement.members == gpuset([2, 3])
    hardware = boards.hardware(NODE)
    assert placement.bus_bandwidth_gbs == boards.bandwidth(hardware, gpuset([2, 3]))
    assert placement.bus_bandwidth_gbs > boards.bandwidth(hardware, gpuset([1, 2]))


def test_without_links_the_lowest_idle_gpus_are_taken() -> None:
    """As published."""
    cluster = Cluster([NODE])
    placer = RatingPlacer(cluster, [NODE], Boards(), BestFit(), np.random.default_rng(1))
    cluster.place(0, ONE, gpuset([0]))
    placement = placer.place(PAIR)
    assert placement is not None
    assert placement.members == gpuset([1, 2])


def test_ours_sends_pairs_to_fast_links() -> None:
    """Of an NVSwitch and bridges the switch gets the pairs, and nobody fails for it."""
    nodes = [NODE, Node("b", 96_000, 65_536, 4, "G3")]
    machines = {("G2", 4): bridged(4), ("G3", 4): switched(4)}
    tasks = [Task(f"p{at}", PAIR) for at in range(2)]
    ours = run_once(nodes, tasks, "gputopo", seed=1, load=0.5, machines=machines)
    boards = Boards(machines)
    best = boards.bandwidth(boards.hardware(nodes[1]), gpuset([0, 1]))
    assert ours.bandwidth_gbs == {"2": best, "all": best}
    assert ours.failed == 0
