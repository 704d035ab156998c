"""A node drawn in text: who holds which GPU, and by which links the GPUs reach each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations

from topology.gpuset import GpuSet, gpuset, positions
from topology.links import CELL_OF_LEVEL, Level, format_cell
from topology.matrix import index_order, links_cells, nic_rows
from topology.model import NodeTopology, classify
from topology.quality import bus_bandwidth

_NAME = 14
"""Characters of a pod's name in a GPU's box; of longer names the end is shown."""


def draw_matrix(topology: NodeTopology) -> str:
    """Return the matrix as `nvidia-smi topo -m` shows it, GPUs in NVML's order, then the NICs."""
    gpus = [topology.gpus[at] for at in index_order(topology)]
    names = [f"GPU{gpu.index}" for gpu in gpus]
    nics = nic_rows(topology)
    rows = [["", *names, *(nic.name for nic in nics), "NUMA", "CPUs"]]
    for row, (gpu, cells) in enumerate(zip(gpus, links_cells(topology), strict=True)):
        to_nics = [nic.gpus[row] for nic in nics]
        rows.append([names[row], *cells, *to_nics, _known(gpu.numa), _known(gpu.cpus)])
    rows += [[nic.name, *nic.gpus, *nic.nics, "", ""] for nic in nics]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def _known(text: str | None) -> str:
    return "N/A" if text is None else text


def draw_node(topology: NodeTopology, holders: Mapping[str, str], width: int = 80) -> str:
    """Draw the GPUs in rows for each NUMA node, the links beneath, then each pod's set.

    `holders` maps GPU uuids to the name of the pod that has them; a GPU not in it is free.
    `width` is in characters.
    """
    lines: list[str] = []
    by_numa: dict[int | None, list[int]] = {}
    for at, gpu in enumerate(topology.gpus):
        by_numa.setdefault(gpu.numa_node, []).append(at)
    inner = max(6, *(len(_shorten(name)) for name in holders.values()), 6) + 2
    per_row = max(1, (width - 2) // (inner + 2))
    for numa, members in sorted(by_numa.items(), key=lambda item: (item[0] is None, item[0] or 0)):
        lines.append("NUMA node unknown" if numa is None else f"NUMA node {numa}")
        for start in range(0, len(members), per_row):
            lines += _draw_boxes(topology, members[start : start + per_row], holders, inner)
    return "\n".join([*lines, *describe_links(topology), "", *describe_sets(topology, holders)])


def _draw_boxes(
    topology: NodeTopology, members: list[int], holders: Mapping[str, str], inner: int
) -> list[str]:
    top, name, holder, bottom = "", "", "", ""
    for at in members:
        gpu = topology.gpus[at]
        held = holders.get(gpu.uuid)
        line = "─" if held is None else "━"
        top += ("┌" if held is None else "┏") + line * inner + ("┐" if held is None else "┓")
        side = "│" if held is None else "┃"
        name += side + f" GPU {gpu.index}".ljust(inner) + side
        text = "free" if held is None else _shorten(held)
        holder += side + f" {text}".ljust(inner) + side
        bottom += ("└" if held is None else "┗") + line * inner + ("┘" if held is None else "┛")
    return [f"  {line}" for line in (top, name, holder, bottom)]


def _shorten(name: str) -> str:
    # The end of a pod's name tells pods apart, its beginning seldom does.
    return name if len(name) <= _NAME else "…" + name[1 - _NAME :]


def describe_sets(topology: NodeTopology, holders: Mapping[str, str]) -> list[str]:
    """Say in one line a pod which GPUs it has, how they are linked, and what that carries."""
    sets: dict[str, list[int]] = {}
    for at, gpu in enumerate(topology.gpus):
        if gpu.uuid in holders:
            sets.setdefault(holders[gpu.uuid], []).append(at)
    lines: list[str] = []
    for name, members in sorted(sets.items()):
        chosen = gpuset(members)
        line = f"{name}: GPU {_name(topology, chosen)}"
        if len(members) > 1:
            cells = Counter(
                format_cell(topology.pcie[a][b], topology.nvlinks[a][b])
                for a, b in combinations(members, 2)
            )
            links = ", ".join(f"{count} x {cell}" for cell, count in sorted(cells.items()))
            line += f"; {links}; {bus_bandwidth(classify(topology), chosen):.0f} GB/s"
        lines.append(line)
    return lines


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
