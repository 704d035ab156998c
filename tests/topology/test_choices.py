"""What is chosen: the reference's published cases as a table, profiles, refusals."""

from __future__ import annotations

from functools import cache
from itertools import permutations

import numpy as np
import pytest

from tests.topology.machines import (
    draw_bridged_pairs,
    draw_dgx1p,
    draw_dgx1v,
    draw_pcie_tree,
    draw_rtx8000,
    draw_switch,
    drawn_class,
    shipped_class,
)
from topology.demands import parse_min_link
from topology.errors import SelectionError
from topology.gpuset import EMPTY, GpuSet, full_set, gpuset, positions, size
from topology.links import Level
from topology.policies import INFERENCE, PACK, PROFILES, SPREAD, TRAINING, choose, chooser_for
from topology.profiles import Criterion, Profile, profile_named
from topology.quality import pair_score
from topology.reference import ReferenceAllocator
from topology.tables import Tables, tables_for

_MACHINES = {
    "DGX-1V": draw_dgx1v,
    "DGX-1P": draw_dgx1p,
    "RTX8000": draw_rtx8000,
    "bridged pairs": draw_bridged_pairs,
}


@cache
def _tables(machine: str) -> Tables:
    return Tables(_MACHINES[machine]())


def _digits(members: GpuSet) -> str:
    return "".join(map(str, positions(members)))


def _set(digits: str) -> GpuSet:
    return gpuset(map(int, digits))


# machine, available, required, size, the reference's set, ours. Where they differ ours is faster
# ("q") or has, among the sets as fast, the greater pair score ("s"): the reference maximises a
# whole partition of the available GPUs, not the set.
CASES = [
    ("DGX-1V", "0245", "", 2, "45", "04"),  # q: 40 GB/s by the double link, not 20
    ("DGX-1V", "0456", "", 2, "56", "56"),
    ("DGX-1V", "013", "", 2, "03", "03"),
    ("DGX-1V", "014", "", 2, "04", "04"),
    ("DGX-1V", "01234567", "4", 1, "4", "4"),
    ("DGX-1V", "01234567", "4", 2, "47", "47"),
    ("DGX-1V", "01234567", "4", 4, "4567", "4567"),
    ("DGX-1V", "01234567", "0246", 4, "0246", "0246"),
    ("DGX-1V", "01234567", "", 2, "03", "23"),  # s: 250, not 230
    ("DGX-1V", "01234567", "", 3, "023", "023"),
    ("DGX-1V", "01234567", "", 4, "0123", "0123"),
    ("DGX-1V", "01234567", "", 8, "01234567", "01234567"),
    ("DGX-1P", "01234567", "", 2, "02", "02"),
    ("DGX-1P", "1234567", "", 2, "13", "13"),
    ("DGX-1P", "24567", "", 2, "46", "57"),  # both 18 GB/s and 150: 57 leaves 2 its link to 6
    ("RTX8000", "0123", "", 2, "03", "03"),
    ("RTX8000", "12", "", 2, "12", "12"),
    ("bridged pairs", "01234567", "", 2, "01", "01"),
    ("bridged pairs", "1234567", "", 2, "23", "23"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_the_references_cases(case: tuple[str, str, str, int, str, str]) -> None:
    """Each published case of the reference gives its set, or a better one where that is noted."""
    machine, available, required, count, theirs, ours = case
    tables = _tables(machine)
    reference = ReferenceAllocator(tables.cls)
    assert theirs == _digits(reference.allocate(_set(available), count, _set(required)))
    choice = choose(tables, _set(available), count, must=_set(required))
    assert ours == _digits(choice.members)
    assert choice.bus_bandwidth_gbs >= tables.quality[_set(theirs)]


@pytest.mark.parametrize(
    ("count", "score"), [(2, 230), (3, 610), (4, 1120), (5, 1360), (6, 1750), (7, 2250), (8, 3000)]
)
def test_the_oracle_is_the_reference(count: int, score: int) -> None:
    """On a whole DGX-1V the oracle finds the scores that were measured on the reference itself."""
    reference = ReferenceAllocator(draw_dgx1v())
    assert score == reference.score(reference.allocate(full_set(8), count))


@pytest.mark.parametrize(
    ("machine", "expected"), [("DGX-1V", 42), ("DGX-1P", 20), ("bridged pairs", 32)]
)
def test_the_oracle_falls_below_the_best_as_often_as_the_reference(
    machine: str, expected: int
) -> None:
    """Over all masks and sizes the oracle takes a set below the best score as often as measured."""
    tables = _tables(machine)
    reference = ReferenceAllocator(tables.cls)
    below = 0
    for mask in range(1, 1 << tables.count):
        for count in range(2, size(GpuSet(mask)) + 1):
            sets = tables.candidates(count)
            best = tables.pair_scores[sets[sets & ~mask == 0]].max()
            below += reference.score(reference.allocate(GpuSet(mask), count)) < best
    assert expected == below


@pytest.mark.parametrize(
    ("machine", "count", "expected"),
    [
        ("DGX-1V", 2, ["23", "67", "04", "15"]),
        ("DGX-1V", 4, ["0123", "4567"]),
        ("DGX-1P", 2, ["02", "13", "46", "57"]),
        ("DGX-1P", 4, ["0123", "4567"]),
        ("RTX8000", 2, ["03", "12"]),
        ("bridged pairs", 2, ["01", "23", "45", "67"]),
    ],
)
def test_pods_of_one_size_fill_a_machine_with_linked_sets(
    machine: str, count: int, expected: list[str]
) -> None:
    """Pod after pod of one size gets a set as fast as the first, until the machine is full."""
    tables = _tables(machine)
    free, chosen, bandwidths = tables.everything, [], set()
    while free:
        choice = choose(tables, free, count)
        chosen.append(_digits(choice.members))
        bandwidths.add(choice.bus_bandwidth_gbs)
        free = GpuSet(free ^ choice.members)
    assert expected == chosen
    assert len(bandwidths) == 1


@pytest.mark.parametrize(("machine", "kept"), [("DGX-1V", 1120), ("DGX-1P", 820)])
def test_single_gpus_leave_a_quad_whole(machine: str, kept: int) -> None:
    """After each of four single-GPU pods the best quad left scores as on the whole machine."""
    tables = _tables(machine)
    free = tables.everything
    quads = tables.candidates(4)
    for _ in range(4):
        free = GpuSet(free ^ choose(tables, free, 1).members)
        assert kept == tables.pair_scores[quads[quads & ~int(free) == 0]].max()


def test_single_gpus_leave_bridged_pairs_whole() -> None:
    """After each of four single-GPU pods two bridged pairs of one socket are whole."""
    tables = _tables("bridged pairs")
    free = tables.everything
    quads = tables.candidates(4)
    for _ in range(4):
        free = GpuSet(free ^ choose(tables, free, 1).members)
        assert tables.pair_scores[quads[quads & ~int(free) == 0]].max() == 2520
    bridges = [_set(pair) for pair in ("01", "23", "45", "67")]
    assert sum(bridge & free == bridge for bridge in bridges) == 2


def test_a_lone_gpu_goes_before_a_linked_one() -> None:
    """Of a bridged pair and one GPU without a bridge, the single-GPU pod gets the latter."""
    tables = Tables(shipped_class("a40-3x-cgroup"))
    assert _digits(choose(tables, tables.everything, 1).members) == "2"


def test_five_gpus_with_one_pair_give_three() -> None:
    """Three of five GPUs, one bridged pair among them, are three real, different GPUs."""
    tables = Tables(drawn_class(5, links={"01": 1}, compute="8.6", pcie_gen=4))
    choice = choose(tables, tables.everything, 3)
    assert size(choice.members) == 3
    assert not choice.members & ~tables.everything


@pytest.mark.parametrize("count", range(1, 17))
def test_sixteen_gpus_are_chosen_from(count: int) -> None:
    """Each size is chosen from 16 GPUs, and its score is the tree's best for that size."""
    best = [0, 50, 130, 260, 340, 470, 630, 840, 920, 1050, 1210, 1420, 1580, 1790, 2030, 2320]
    tables = tables_for(draw_pcie_tree(16))
    choice = choose(tables, tables.everything, count)
    assert size(choice.members) == count
    assert choice.pair_score == pair_score(tables.cls, choice.members) <= best[count - 1]
    assert choice.bus_bandwidth_gbs == tables.best(count)[tables.everything]


def test_any_order_of_the_gpus_gives_the_same_answer() -> None:
    """The free GPUs are a set: in whatever order they are named, one set is chosen."""
    tables = _tables("DGX-1V")
    answers = {choose(tables, gpuset(order), 2).members for order in permutations((0, 3, 4, 7, 5))}
    assert len(answers) == 1


def test_equal_sets_under_a_switch_stay_in_one_socket() -> None:
    """Where all sets are equally fast, fewer NUMA nodes decide, then the lowest positions."""
    tables = Tables(draw_switch(8))
    assert _digits(choose(tables, tables.everything, 4).members) == "0123"
    assert _digits(choose(tables, gpuset([0, 1, 4, 5, 6, 7]), 4).members) == "4567"


def test_the_nearer_nic_decides_between_equals() -> None:
    """Of two GPUs that hurt the rest equally, the one nearer to a NIC is taken."""
    base = drawn_class(2, other=Level.PIX)
    far, near = Level.SYS, Level.PIX
    cls = type(base)(
        nvlinks=base.nvlinks,
        switch=base.switch,
        pcie=base.pcie,
        compute=base.compute,
        pcie_gen=base.pcie_gen,
        numa=base.numa,
        nic=(far, near),
    )
    tables = Tables(cls)
    assert _digits(choose(tables, tables.everything, 1).members) == "1"


def test_a_choice_tells_what_it_is() -> None:
    """A choice carries bandwidth, score, loss and worst link."""
    tables = _tables("DGX-1V")
    choice = choose(tables, tables.everything, 4)
    assert choice.bus_bandwidth_gbs == 80.0
    assert choice.pair_score == 1120
    assert str(choice.worst_link) == "NV1"
    assert 0 < choice.loss < 1
    assert choose(tables, tables.everything, 1).worst_link is None


def test_only_allowed_gpus_are_chosen() -> None:
    """`allowed` narrows what may be taken, not what the rest is judged by."""
    tables = _tables("DGX-1V")
    choice = choose(tables, tables.everything, 2, allowed=_set("0145"))
    assert _digits(choice.members) in ("04", "15")
    assert choice.bus_bandwidth_gbs == 40.0


@pytest.mark.parametrize(
    ("word", "count", "expected"), [("NV2", 2, "23"), ("NV", 4, "0123"), ("PIX", 2, "23")]
)
def test_min_link_is_met_by_every_pair(word: str, count: int, expected: str) -> None:
    """With a min-link the best set is taken whose pairs all meet it."""
    tables = _tables("DGX-1V")
    choice = choose(tables, tables.everything, count, min_link=parse_min_link(word))
    assert expected == _digits(choice.members)
    assert choice.worst_link is not None
    assert choice.worst_link.rank >= parse_min_link(word).rank


def test_inference_spares_links_that_training_takes() -> None:
    """With half the bandwidth enough, two of a quad's GPUs with single links are left alone."""
    tables = Tables(draw_dgx1v())
    free = _set("0123")
    fast = choose(tables, free, 2)
    spare = choose(tables, free, 2, profile=INFERENCE)
    assert spare.loss <= fast.loss
    assert spare.bus_bandwidth_gbs >= fast.bus_bandwidth_gbs / 2


def test_inference_stops_at_half_of_the_best_bandwidth() -> None:
    """The pair that would hurt the rest least has a quarter of the bandwidth: it is out."""
    tables = Tables(draw_dgx1v())
    free = _set("1234")
    anything = Profile("anything", 1.0, INFERENCE.order, INFERENCE.order_without_switch)
    assert choose(tables, free, 2, profile=anything).bus_bandwidth_gbs == 10.0
    assert choose(tables, free, 2, profile=INFERENCE).bus_bandwidth_gbs == 40.0


def test_pack_takes_leftovers() -> None:
    """Packing takes two lone GPUs rather than a bridged pair."""
    tables = _tables("bridged pairs")
    assert _digits(choose(tables, _set("0124"), 2, profile=PACK).members) == "24"
    assert _digits(choose(tables, _set("0124"), 2, profile=TRAINING).members) == "01"


def test_spread_takes_both_sockets() -> None:
    """Spreading takes one GPU of each socket, under different switches."""
    tables = Tables(draw_pcie_tree(16))
    where = list(positions(choose(tables, tables.everything, 2, profile=SPREAD).members))
    assert [i // 8 for i in where] == [0, 1]
    four = list(positions(choose(tables, tables.everything, 4, profile=SPREAD).members))
    assert len({i // 4 for i in four}) == 4


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_are_named(name: str) -> None:
    """Each profile is found by its name."""
    assert profile_named(name).name == name


def test_an_unknown_profile_is_refused() -> None:
    """A profile that does not exist is refused with those that do."""
    with pytest.raises(SelectionError, match="'fast' is none of training, inference, pack, spread"):
        profile_named("fast")


@pytest.mark.parametrize(
    ("tolerance", "order"), [(1.5, (Criterion.REST,)), (0.0, (Criterion.BANDWIDTH,))]
)
def test_a_profile_that_makes_no_sense_is_refused(
    tolerance: float, order: tuple[Criterion, ...]
) -> None:
    """A tolerance lies between 0 and 1, and what is left stands once in each order."""
    with pytest.raises(SelectionError, match="profile odd"):
        Profile(name="odd", tolerance=tolerance, order=order, order_without_switch=order)


@pytest.mark.parametrize(
    ("free", "count", "must", "problem"),
    [
        ("0123", 0, "", "size 0: at least one GPU must be asked for"),
        ("0123", -1, "", "size -1: at least one GPU"),
        ("0123", 5, "", "size 5: only 4 GPUs are available"),
        ("", 1, "", "size 1: only 0 GPUs are available"),
        ("0123", 2, "47", "must: GPU 4,7 is not available"),
        ("0123", 2, "012", "must: 3 GPUs do not fit a set of 2"),
        ("89", 1, "", "available: there are GPUs that the node does not have"),
        ("0123", 1, "9", "must: GPU of another node is not available"),
    ],
)
def test_impossible_requests_are_refused_in_one_line(
    free: str, count: int, must: str, problem: str
) -> None:
    """A request that no set can satisfy is one line that says why."""
    with pytest.raises(SelectionError) as caught:
        choose(_tables("DGX-1V"), _set(free), count, must=_set(must))
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_min_link_that_no_set_meets_is_refused() -> None:
    """A demand that the free GPUs cannot meet is one line with the demand."""
    with pytest.raises(SelectionError, match="min-link NV2: no 3 of the available GPUs"):
        choose(_tables("DGX-1V"), full_set(8), 3, min_link=parse_min_link("NV2"))


def test_columns_hold_the_choices_of_many_masks() -> None:
    """A column gives, for each mask of free GPUs, set, loss and bandwidth of its choice."""
    tables = _tables("DGX-1V")
    column = chooser_for(tables, TRAINING).column(2)
    masks = np.arange(1 << 8)
    column.fill(masks)
    column.fill(masks[:7])
    for mask in range(1 << 8):
        if size(GpuSet(mask)) < 2:
            assert column.members[mask] == EMPTY
            continue
        choice = choose(tables, GpuSet(mask), 2)
        assert column.members[mask] == choice.members
        assert column.loss[mask] == choice.loss
        assert column.quality[mask] == choice.bus_bandwidth_gbs
