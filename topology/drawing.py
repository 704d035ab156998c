"""A node drawn in text: who holds which GPU, and by which links the GPUs reach each other."""

from __future__ import annotations

from collections.abc import Mapping

from topology.gpuset import GpuSet, gpuset, positions
from topology.links import CELL_OF_LEVEL, Level, format_cell
from topology.model import NodeTopology

_BOX = 14
"""Width of a GPU's box; a pod's name is cut to what fits."""
_PER_ROW = 8


def draw_matrix(topology: NodeTopology) -> str:
    """Return the matrix as `nvidia-smi topo -m` shows it, GPUs in NVML's order, then the NICs."""
    order = sorted(range(len(topology.gpus)), key=lambda at: topology.gpus[at].index)
    names = [f"GPU{topology.gpus[at].index}" for at in order]
    rows = [["", *names, *(nic.name for nic in topology.nics), "NUMA", "CPUs"]]
    for at, name in zip(order, names, strict=True):
        gpu = topology.gpus[at]
        cells = [
            format_cell(topology.pcie[at][other], topology.nvlinks[at][other]) for other in order
        ]
        nics = [CELL_OF_LEVEL[nic.gpus[at]] for nic in topology.nics]
        rows.append([name, *cells, *nics, _known(gpu.numa), _known(gpu.cpus)])
    for nic in topology.nics:
        gpus = [CELL_OF_LEVEL[nic.gpus[at]] for at in order]
        rows.append([nic.name, *gpus, *(CELL_OF_LEVEL[level] for level in nic.nics), "", ""])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _known(text: str | None) -> str:
    return "N/A" if text is None else text


def draw_node(topology: NodeTopology, holders: Mapping[str, str]) -> str:
    """Draw the GPUs in a row for each NUMA node, with the links beneath.

    `holders` maps GPU uuids to the name of the pod that has them; a GPU not in it is free.
    """
    lines: list[str] = []
    by_numa: dict[int | None, list[int]] = {}
    for at, gpu in enumerate(topology.gpus):
        by_numa.setdefault(gpu.numa_node, []).append(at)
    for numa, members in sorted(by_numa.items(), key=lambda item: (item[0] is None, item[0] or 0)):
        lines.append("NUMA node unknown" if numa is None else f"NUMA node {numa}")
        for start in range(0, len(members), _PER_ROW):
            lines += _draw_boxes(topology, members[start : start + _PER_ROW], holders)
    lines += describe_links(topology)
    return "\n".join(lines)


def _draw_boxes(
    topology: NodeTopology, members: list[int], holders: Mapping[str, str]
) -> list[str]:
    inner = _BOX - 2
    top, name, holder, bottom = "", "", "", ""
    for at in members:
        gpu = topology.gpus[at]
        held = holders.get(gpu.uuid)
        line = "─" if held is None else "━"
        top += ("┌" if held is None else "┏") + line * inner + ("┐" if held is None else "┓")
        side = "│" if held is None else "┃"
        name += side + f" GPU {gpu.index}".ljust(inner) + side
        text = "free" if held is None else held
        # The end of a pod's name tells pods apart, its beginning seldom does.
        text = text if len(text) <= inner - 2 else "…" + text[-(inner - 3) :]
        holder += side + f" {text}".ljust(inner) + side
        bottom += ("└" if held is None else "┗") + line * inner + ("┘" if held is None else "┛")
    return [f"  {line}" for line in (top, name, holder, bottom)]


def describe_links(topology: NodeTopology) -> list[str]:
    """Say in one line a group which GPUs are linked: switch groups, direct NVLinks, PCIe levels."""
    lines: list[str] = []
    groups: dict[int, list[int]] = {}
    for at, group in enumerate(topology.switch):
        if group >= 0:
            groups.setdefault(group, []).append(at)
    for members in groups.values():
        counts = sorted({topology.nvlinks[a][b] for a in members for b in members if a != b})
        links = "/".join(map(str, counts)) or "0"
        lines.append(f"NVSwitch: GPU {_name(topology, gpuset(members))}, {links} NVLinks each")
    direct: dict[int, list[str]] = {}
    pcie: dict[Level, list[str]] = {}
    for a in range(len(topology.gpus)):
        for b in range(a + 1, len(topology.gpus)):
            pair = f"{topology.gpus[a].index}-{topology.gpus[b].index}"
            switched = topology.switch[a] >= 0 and topology.switch[a] == topology.switch[b]
            if topology.nvlinks[a][b] and not switched:
                direct.setdefault(topology.nvlinks[a][b], []).append(pair)
            elif not topology.nvlinks[a][b]:
                pcie.setdefault(topology.pcie[a][b], []).append(pair)
    lines += [
        f"NV{count}: {' '.join(pairs)}" for count, pairs in sorted(direct.items(), reverse=True)
    ]
    lines += [f"{CELL_OF_LEVEL[level]}: {' '.join(pairs)}" for level, pairs in sorted(pcie.items())]
    return lines


def _name(topology: NodeTopology, members: GpuSet) -> str:
    return ",".join(str(topology.gpus[at].index) for at in positions(members))
