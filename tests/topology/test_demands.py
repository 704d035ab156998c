"""The min-link demand: its words and what meets it."""

from __future__ import annotations

import pytest

from tests.topology.machines import draw_dgx1v, draw_switch
from topology.demands import MinLink, meets, parse_min_link, worst_link
from topology.errors import SelectionError
from topology.gpuset import EMPTY, GpuSet, full_set, gpuset
from topology.links import Level


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NV", MinLink(level=Level.SELF, nvlinks=1)),
        ("NV1", MinLink(level=Level.SELF, nvlinks=1)),
        (" NV18 ", MinLink(level=Level.SELF, nvlinks=18)),
        ("PIX", MinLink(level=Level.PIX)),
        ("SYS", MinLink(level=Level.SYS)),
    ],
)
def test_words_are_those_of_topo(text: str, expected: MinLink) -> None:
    """A demand is written as a cell of `nvidia-smi topo -m`, or NV for any NVLink."""
    assert parse_min_link(text) == expected


@pytest.mark.parametrize("text", ["", "X", "NV0", "NV37", "NV-1", "pix", "SOC", "NV 4", "NV4,PIX"])
def test_other_words_are_refused(text: str) -> None:
    """Any other word is refused with those that exist."""
    with pytest.raises(SelectionError, match=r"min-link: .* is none of NV, NV1 to NV36, PIX"):
        parse_min_link(text)


def test_levels_are_ranked_by_nearness() -> None:
    """More NVLinks are nearer than fewer, those nearer than PIX, and so on down to SYS."""
    words = ["NV18", "NV2", "NV1", "PIX", "PXB", "PHB", "NODE", "SYS"]
    ranks = [parse_min_link(word).rank for word in words]
    assert ranks == sorted(set(ranks), reverse=True)


@pytest.mark.parametrize(
    ("members", "expected"),
    [([0, 3], "NV2"), ([0, 1, 2], "NV1"), ([0, 1, 2, 3], "NV1"), ([0, 5], "SYS"), ([1, 4], "SYS")],
)
def test_the_worst_pair_counts(members: list[int], expected: str) -> None:
    """The worst link of a set is that of its worst pair."""
    assert str(worst_link(draw_dgx1v(), gpuset(members))) == expected


@pytest.mark.parametrize("members", [EMPTY, gpuset([2])])
def test_one_gpu_meets_every_demand(members: GpuSet) -> None:
    """A set without pairs has no worst link and meets all demands."""
    assert worst_link(draw_dgx1v(), members) is None
    assert meets(draw_dgx1v(), members, parse_min_link("NV18"))


def test_nvlinks_meet_every_pcie_level() -> None:
    """GPUs under one NVSwitch meet PIX whatever lies beneath."""
    machine = draw_switch(8)
    assert meets(machine, full_set(8), parse_min_link("PIX"))
    assert meets(machine, full_set(8), parse_min_link("NV18"))
    assert not meets(machine, full_set(8), MinLink(level=Level.SELF, nvlinks=19))
