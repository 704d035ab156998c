"""The decision that docs/how-a-decision-is-made.md draws, computed."""

from __future__ import annotations

import msgspec

from cli.discovered import discover_machine
from scheduler.engine.cluster import ClusterState
from scheduler.engine.columns import Room
from scheduler.engine.cycle import schedule
from scheduler.engine.decision import Decision
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN, DEFAULT_PROFILE
from scheduler.engine.request import Amounts
from scheduler.engine.workload import GivenWorkload, PodClass
from tests.scheduler.worlds import facts, request
from topology.catalogue import load_machine
from topology.tables import DEFAULT_MIX

# Machine, GPUs in use, cores in use of 96.
NODES = {
    "n1": ("dgx1-v100", (1, 2, 5, 6), 40),
    "n2": ("a40-8x-bridges", (0,), 12),
    "n3": ("dgx-a100-8x", (0, 1, 2, 3, 4), 60),
    "n4": ("dgx-a100-8x", (), 0),
    "n5": ("l40s-8x", (0, 1, 2, 3, 4, 5, 6), 84),
}
# What is expected: whole GPUs with 8 cores each, in these numbers.
EXPECTED = {1: 6.0, 2: 2.0, 4: 1.0, 8: 1.0}


def decide() -> Decision:
    """Place a pod that asks for two GPUs and 16 cores."""
    workload = {PodClass(8000 * size, size, 1000): count for size, count in EXPECTED.items()}
    state = ClusterState(DEFAULT_MIX, workload=GivenWorkload(workload))
    for name, (machine, used, cores) in NODES.items():
        topology = discover_machine(load_machine(machine))
        state.put(name, facts(topology, occupied=sum(1 << at for at in used)))
        room = Room(Amounts(96_000, 786_432, 110), Amounts(1000 * cores, 8192, len(used)))
        state.put_room(name, room)
    pod = msgspec.structs.replace(request(2), asks=Amounts(16_000, 65_536))
    profile = BUILT_IN[DEFAULT_PROFILE]
    return schedule(built_in(), state.view(sorted(NODES)), pod, profile, at=0.0)


def rows(decision: Decision) -> list[str]:
    """Return the table of the page: each accepted node's scores as its plugins gave them."""
    lines = []
    for place, row in enumerate(decision.accepted.tolist()):
        raws = {scored.plugin: scored.raw[place] for scored in decision.scores}
        cells = [
            decision.candidates[row],
            f"{raws['fragmentation']:.0f}",
            f"{raws['balance']:.0f}",
            f"{raws['model_fit'] + 0.0:.0f}",
            f"{raws['link_quality']:.0f}",
            f"{raws['link_loss'] + 0.0:.1f}",
            f"{decision.totals[place]:.4f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines
