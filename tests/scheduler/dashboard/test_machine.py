"""A machine as a picture: all 53 that ship, lying and standing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import combinations

import msgspec
import pytest

from scheduler.dashboard.layout import LYING, STANDING, Box, lay_out
from scheduler.dashboard.machine import colours_of, draw_machine, matrix
from scheduler.explain.fleet_shapes import AmountAnswer, NicAnswer, NodeAnswer, NodeGpu, NodeLine
from scheduler.explain.shapes import HolderAnswer, LinkAnswer
from topology.catalogue import load_machine, shipped_names
from topology.links import CELL_OF_LEVEL
from topology.machines import Machine


def gpu(
    position: int, *, numa: int | None = 0, switch: int | None = None, pod: str = ""
) -> NodeGpu:
    """Make a healthy GPU."""
    holders = (HolderAnswer(pod, "uid", "real"),) if pod else ()
    return NodeGpu(
        position, f"u{position}", position, "M", 1024, numa, switch, True, "", 1, holders
    )


def node(gpus: list[NodeGpu], links: dict[tuple[int, int], str], nics: int = 0) -> NodeAnswer:
    """Make a node's answer."""
    return NodeAnswer(
        node="n",
        summary=NodeLine("n", ("M",), len(gpus), len(gpus), len(gpus), 1, False, True, 0, 0, None),
        gpus=tuple(gpus),
        links=tuple(LinkAnswer(pair, link) for pair, link in links.items()),
        nics=tuple(NicAnswer(f"mlx5_{n}", ("PIX",) * len(gpus)) for n in range(nics)),
        sets=(),
        room=AmountAnswer(1, 1, 1, 1, 1),
        load=None,
    )


def test_each_gpu_has_its_place_in_both_layouts() -> None:
    """Inside its NUMA node's frame, over no other, in the picture."""
    for numa in (
        [0] * 2,
        [0] * 8,
        [0] * 4 + [1] * 4,
        [None] * 6,
        [0, 0, 1, 1, 2, 2, 3, 3],
        [0] * 16,
    ):
        for metrics in (LYING, STANDING):
            layout = lay_out(numa, 100, metrics)
            assert sorted(layout.boxes) == list(range(len(numa)))
            for one, other in combinations(layout.boxes.values(), 2):
                assert not overlap(one, other)
            for position, box in layout.boxes.items():
                frames = [
                    panel.box
                    for panel in layout.panels
                    if panel.number == numa[position] and inside(box, panel.box)
                ]
                assert len(frames) == 1
                assert box.along >= 0
                assert box.along + box.length <= layout.length
                assert box.across + box.depth <= layout.depth


def overlap(one: Box, other: Box) -> bool:
    """Return whether two boxes share a point."""
    apart_along = one.along + one.length <= other.along or other.along + other.length <= one.along
    apart = one.across + one.depth <= other.across or other.across + other.depth <= one.across
    return not (apart_along or apart)


def inside(one: Box, other: Box) -> bool:
    """Return whether a box lies in another."""
    return (
        other.along <= one.along
        and one.along + one.length <= other.along + other.length
        and other.across <= one.across
        and one.across + one.depth <= other.across + other.depth
    )


def test_a_phone_has_room_for_two_sockets() -> None:
    """Standing, a picture of eight GPUs is no wider than a phone."""
    layout = lay_out([0] * 4 + [1] * 4, 96, STANDING)
    assert layout.point(layout.length, layout.depth)[0] <= 390


def test_direct_nvlinks_are_curves_as_wide_as_they_have_links() -> None:
    """And a pair without them has none."""
    drawn = draw_machine(
        node([gpu(0), gpu(1), gpu(2)], {(0, 1): "NV1", (1, 2): "NV4", (0, 2): "SYS"})
    )
    for picture in (drawn.lying, drawn.standing):
        paths = ET.fromstring(picture).findall("path")  # noqa: S314 -- our own
        widths = {path.findtext("title"): float(path.attrib["stroke-width"]) for path in paths}
        assert set(widths) == {"GPU 0 – GPU 1: 1 NVLinks", "GPU 1 – GPU 2: 4 NVLinks"}
        assert widths["GPU 1 – GPU 2: 4 NVLinks"] > widths["GPU 0 – GPU 1: 1 NVLinks"]


def test_a_chosen_set_stands_out_with_its_links() -> None:
    """Its GPUs, and the links among them alone."""
    links = dict.fromkeys(combinations(range(3), 2), "NV2")
    drawn = draw_machine(node([gpu(n) for n in range(3)], links), chosen={0, 2}).lying
    assert drawn.count("chosen") == 2
    on = re.findall(r'<path class="nv on"[^>]*><title>([^<]*)', drawn)
    assert on == ["GPU 0 – GPU 2: 2 NVLinks"]


def test_sets_get_colours_before_single_gpus() -> None:
    """Two sets on a full machine never look alike."""
    pods = [f"d/{n}" for n in range(9)] + ["d/set"] * 2
    colours = colours_of([gpu(place, pod=pod) for place, pod in enumerate(pods)])
    assert colours["d/set"] == 0
    assert max(colours.values()) == 7


def test_gpus_on_one_pcie_switch_are_joined() -> None:
    """Over more than one pair too, and by row."""
    links = {(0, 1): "PIX", (1, 2): "PIX", (0, 2): "PIX", (2, 3): "NODE"}
    drawn = draw_machine(node([gpu(n) for n in range(4)], links))
    for picture in (drawn.lying, drawn.standing):
        assert "GPU 0, GPU 1, GPU 2: PIX" in picture


def test_nics_are_drawn_where_there_is_room() -> None:
    """Beside the GPUs that they are near to; on a phone the table has them."""
    drawn = draw_machine(node([gpu(0), gpu(1)], {(0, 1): "PIX"}, nics=3))
    assert "mlx5_1 +1" in drawn.lying
    assert "mlx5_0, mlx5_1, mlx5_2: PIX" in drawn.lying
    assert "mlx5" not in drawn.standing


@pytest.mark.parametrize("name", shipped_names())
def test_every_machine_that_ships_can_be_drawn(name: str) -> None:
    """As XML, with each of its GPUs, lying and standing; its matrix is its own."""
    machine = load_machine(name)
    answer = answer_of(machine)
    drawn = draw_machine(answer)
    for picture in (drawn.lying, drawn.standing):
        parsed = ET.fromstring(picture)  # noqa: S314 -- our own
        names = {text.text for text in parsed.iter("text") if text.get("class") == "name"}
        assert names == {f"GPU {one.index}" for one in answer.gpus}
    cells = {(link.gpus[0], link.gpus[1]): link.link for link in answer.links}
    shown = matrix(answer)
    assert all(shown[i][j] == shown[j][i] == link for (i, j), link in cells.items())


def answer_of(machine: Machine) -> NodeAnswer:
    """Make the API's answer about a machine, in index order."""
    switch = 0 if machine.nvlink.nvswitch else None
    gpus = [
        gpu(
            place,
            numa=int(one.numa) if one.numa and one.numa.isdigit() else None,
            switch=switch,
            pod=f"default/pod-{place // 3}" if place % 3 else "",
        )
        for place, one in enumerate(machine.gpus)
    ]
    pairs = combinations(range(len(gpus)), 2)
    answer = node(gpus, {(i, j): machine.links[i][j] for i, j in pairs})
    nics = tuple(
        NicAnswer(nic.name, tuple(CELL_OF_LEVEL[level] for level in nic.gpus))
        for nic in machine.nics
    )
    return msgspec.structs.replace(answer, nics=nics)
