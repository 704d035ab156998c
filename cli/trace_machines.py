"""The machines behind a trace's nodes: shipped descriptions by model, or what the user names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from cli.discovered import discover_machine
from scheduler.simulation.boards import cut_machine
from scheduler.simulation.errors import ReplayError
from topology.catalogue import load_machine
from topology.model import NodeTopology
from traces.openb import Node

# openb tells models and counts, not boards. G2 and G3 are undisclosed: G3 (39 nodes, the most CPU)
# stands for an NVSwitch, G2 (549 nodes) for bridged pairs. T4, P100 and A10 are PCIe cards; the
# machines are those of the same generation. V100 with 8 GPUs is the hybrid cube mesh.
OPENB_MACHINES: Final = (
    "G2=a40-8x-bridges",
    "G3=dgx-a100-8x",
    "V100M16=dgx1-v100",
    "V100M16/4=aws-p3.8xlarge-4x-v100",
    "V100M32=dgx1-v100",
    "V100M32/4=aws-p3.8xlarge-4x-v100",
    "P100=p40-8x-single-root",
    "T4=rtx2080ti-4x-switch",
    "A10=l4-8x",
)


class _Rule(msgspec.Struct, frozen=True):
    model: str
    gpus: int | None
    machine: str


def find_machines(
    nodes: Iterable[Node], rules: Sequence[str]
) -> dict[tuple[str, int], NodeTopology]:
    """Return the machine of each (model, GPUs) among the nodes that a rule names.

    Rules read MODEL=NAME or MODEL/GPUS=NAME; later ones win, those with a count over those
    without. A machine of more GPUs is cut down to the node's. Raises ReplayError for a rule that
    does not read or a machine that is too small, TopologyError for one that is not there.
    """
    parsed = [_parse(rule) for rule in rules]
    found: dict[tuple[str, int], NodeTopology] = {}
    machines: dict[str, NodeTopology] = {}
    for model, gpus in sorted({(node.model, node.gpus) for node in nodes if node.gpus}):
        rule = _rule_for(parsed, model, gpus)
        if rule is None:
            continue
        if rule.machine not in machines:
            machines[rule.machine] = discover_machine(load_machine(rule.machine))
        machine = machines[rule.machine]
        if len(machine.gpus) < gpus:
            raise ReplayError(
                f"--machine: {rule.machine} has {len(machine.gpus)} GPUs, "
                f"nodes of model {model} have {gpus}"
            )
        found[model, gpus] = cut_machine(machine, gpus)
    return found


def _parse(text: str) -> _Rule:
    key, equals, machine = text.partition("=")
    model, slash, count = key.partition("/")
    fine = bool(equals and model.strip() and machine.strip())
    if slash and not (count.isascii() and count.isdigit() and len(count) < 4):
        fine = False
    if not fine:
        raise ReplayError(f"--machine: {text!r} is not MODEL=NAME or MODEL/GPUS=NAME")
    return _Rule(model.strip(), int(count) if slash else None, machine.strip())


def _rule_for(rules: Sequence[_Rule], model: str, gpus: int) -> _Rule | None:
    exact = [rule for rule in rules if rule.model == model and rule.gpus == gpus]
    general = [rule for rule in rules if rule.model == model and rule.gpus is None]
    return (general + exact)[-1] if exact or general else None
