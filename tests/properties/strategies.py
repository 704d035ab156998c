"""Random machines, requests and annotations for the laws."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from topology.gpuset import GpuSet, positions
from topology.links import Level
from topology.model import Clique, Gpu, Nic, NodeTopology, TopologyClass
from topology.tables import Mix

_COMPUTES = ("", "6.0", "7.0", "8.0", "8.6", "9.0", "10.0")
_PAIR_LEVELS = (Level.PIX, Level.PXB, Level.PHB, Level.NODE, Level.SYS)

Counts = list[list[int]]


def _mesh(draw: DrawFn, count: int) -> Counts:
    """Link random pairs directly."""
    links = [[0] * count for _ in range(count)]
    most = draw(st.integers(1, 4))
    for i in range(count):
        for j in range(i):
            links[i][j] = links[j][i] = draw(st.sampled_from((0, 0, 1, most)))
    return links


def _bridges(draw: DrawFn, count: int) -> Counts:
    """Bridge disjoint pairs, also across the sockets."""
    links = [[0] * count for _ in range(count)]
    order = draw(st.permutations(range(count)))
    width = draw(st.sampled_from((1, 4, 12)))
    for one, two in zip(order[::2], order[1::2], strict=False):
        if draw(st.booleans()):
            links[one][two] = links[two][one] = width
    return links


def _switched(draw: DrawFn, count: int) -> tuple[Counts, tuple[int, ...]]:
    """Hang GPUs on one or two switches, some with fewer links, some on none."""
    group = tuple(draw(st.sampled_from((0, 0, 0, 1, -1))) for _ in range(count))
    width = [draw(st.sampled_from((18, 18, 18, 12))) for _ in range(count)]
    links = [
        [
            min(width[i], width[j]) if i != j and group[i] == group[j] >= 0 else 0
            for j in range(count)
        ]
        for i in range(count)
    ]
    return links, group


def _levels(draw: DrawFn, count: int) -> tuple[tuple[tuple[Level, ...], ...], tuple[int, ...]]:
    """Hang GPUs into a PCIe tree: sockets, bridges, switches; groups may be uneven."""
    path = [
        (
            draw(st.integers(0, 1)),
            draw(st.integers(0, 1)),
            draw(st.integers(0, 1)),
            draw(st.integers(0, 1)),
        )
        for _ in range(count)
    ]
    within = (Level.SYS, Level.NODE, Level.PHB, Level.PXB, Level.PIX)

    def level(i: int, j: int) -> Level:
        if i == j:
            return Level.SELF
        shared = next((n for n in range(4) if path[i][n] != path[j][n]), 4)
        return within[shared]

    numa = tuple(place[0] for place in path)
    return tuple(tuple(level(i, j) for j in range(count)) for i in range(count)), numa


@st.composite
def machines(draw: DrawFn, *, most: int = 7) -> TopologyClass:
    """Draw a machine: a mesh, bridges, switches or PCIe alone over a PCIe tree."""
    count = draw(st.integers(1, most))
    kind = draw(st.sampled_from(("mesh", "bridges", "switch", "pcie")))
    group: tuple[int, ...] = (-1,) * count
    links: Counts = [[0] * count for _ in range(count)]
    if kind == "mesh":
        links = _mesh(draw, count)
    elif kind == "bridges":
        links = _bridges(draw, count)
    elif kind == "switch":
        links, group = _switched(draw, count)
    pcie, numa = _levels(draw, count)
    mixed = draw(st.booleans())
    compute = draw(st.sampled_from(_COMPUTES))
    gen = draw(st.integers(0, 6))
    return TopologyClass(
        nvlinks=tuple(map(tuple, links)),
        switch=group,
        pcie=pcie,
        compute=tuple(draw(st.sampled_from(_COMPUTES)) if mixed else compute for _ in range(count)),
        pcie_gen=tuple(draw(st.integers(0, 6)) if mixed else gen for _ in range(count)),
        numa=numa if draw(st.booleans()) else (-1,) * count,
        nic=tuple(draw(st.sampled_from(_PAIR_LEVELS)) for _ in range(count)),
    )


def gpu_sets(cls: TopologyClass) -> SearchStrategy[GpuSet]:
    """Draw any set of the machine's GPUs."""
    return st.integers(0, (1 << cls.count) - 1).map(GpuSet)


def mixes() -> SearchStrategy[Mix]:
    """Draw what sizes the pods to come ask for."""
    weights = st.floats(0.01, 10, allow_nan=False)
    return st.dictionaries(st.integers(1, 8), weights, min_size=1, max_size=4).map(
        lambda shares: Mix(shares=tuple(sorted(shares.items())))
    )


def relabel(cls: TopologyClass, order: list[int]) -> TopologyClass:
    """Return the same machine with GPU ``order[i]`` at position i."""
    return TopologyClass(
        nvlinks=tuple(tuple(cls.nvlinks[i][j] for j in order) for i in order),
        switch=tuple(cls.switch[i] for i in order),
        pcie=tuple(tuple(cls.pcie[i][j] for j in order) for i in order),
        compute=tuple(cls.compute[i] for i in order),
        pcie_gen=tuple(cls.pcie_gen[i] for i in order),
        numa=tuple(cls.numa[i] for i in order),
        nic=tuple(cls.nic[i] for i in order),
    )


def relabel_set(members: GpuSet, order: list[int]) -> GpuSet:
    """Return where the members of a set stand in the relabelled machine."""
    place = {old: new for new, old in enumerate(order)}
    return GpuSet(sum(1 << place[i] for i in positions(members)))


_TEXT = st.text(max_size=20)
_NAME = st.text(min_size=1, max_size=20)
_CPU_LISTS = st.sampled_from((None, "", "0", "0-3,8-11", "0-27,56-83"))


@st.composite
def node_topologies(draw: DrawFn) -> NodeTopology:
    """Draw a node with names: what discovery could find, in all corners of the model."""
    cls = draw(machines(most=9))
    count = cls.count
    uuids = draw(st.lists(_NAME, min_size=count, max_size=count, unique=True))
    indexes = draw(st.permutations(range(count)))
    nics = draw(st.integers(0, 3))
    levels = st.sampled_from(tuple(Level))
    return NodeTopology(
        gpus=tuple(
            Gpu(
                uuid=uuids[i],
                index=indexes[i],
                minor=draw(st.integers(0, 2**31)),
                pci=f"{draw(st.integers(0, 0xFFFF)):04x}:{i:02x}:00.0",
                model=draw(_TEXT),
                compute=cls.compute[i],
                memory_mib=draw(st.integers(0, 2**40)),
                pcie_gen=cls.pcie_gen[i],
                numa=draw(_CPU_LISTS),
                cpus=draw(_CPU_LISTS),
                numa_node=draw(st.none() | st.integers(0, 64)),
            )
            for i in range(count)
        ),
        nvlinks=cls.nvlinks,
        switch=cls.switch,
        pcie=cls.pcie,
        nics=tuple(
            Nic(
                name=draw(_TEXT),
                pci=draw(_TEXT),
                gpus=tuple(draw(levels) for _ in range(count)),
                nics=tuple(draw(levels) for _ in range(nics)),
            )
            for _ in range(nics)
        ),
        clique=draw(st.none() | st.builds(Clique, _TEXT, st.integers(-(2**31), 2**31))),
    )


_UUID_LISTS = st.lists(_NAME, max_size=4, unique=True).map(tuple)


def uuid_sets() -> SearchStrategy[dict[str, tuple[str, ...]]]:
    """Draw what pods or containers hold: a name to GPU uuids."""
    return st.dictionaries(_NAME, _UUID_LISTS, max_size=4)
