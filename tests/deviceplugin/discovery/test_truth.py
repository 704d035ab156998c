"""Discovery through pynvml and sysfs gives back what a machine's description tells."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deviceplugin.discovery.sysfs import compare_paths, read_path
from deviceplugin.discovery.topology import discover
from deviceplugin.nvml.library import RemoteType, open_nvml
from tests.mock_nvml.rig import Rig, differences, rig
from tests.mock_nvml.strategies import machines
from topology.catalogue import load_machine, shipped_names
from topology.links import Level
from topology.machine_yaml import parse_machine
from topology.machines import Machine
from topology.model import NodeTopology

SHIPPED = shipped_names()

LAWS = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)


def assert_sysfs_agrees(set_up: Rig, topology: NodeTopology) -> None:
    """Fail unless the levels by path equal the levels by NVML."""
    paths = [read_path(set_up.root, gpu.pci) for gpu in topology.gpus]
    for a, mine in enumerate(paths):
        for b, theirs in enumerate(paths):
            assert mine is not None
            assert theirs is not None
            assert topology.pcie[a][b] is compare_paths(mine, theirs)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_machine_is_found_again(name: str) -> None:
    """Links, PCIe levels, NICs, NUMA and CPU lists come back cell for cell, by both ways."""
    machine = load_machine(name)
    with rig(machine) as set_up:
        found = set_up.discover()
        assert found.problems == ()
        assert differences(machine, found.topology) == []
        assert_sysfs_agrees(set_up, found.topology)


@given(machine=machines())
@LAWS
def test_every_machine_of_the_format_is_found_again(machine: Machine) -> None:
    """The same holds for machines that nobody has captured."""
    with rig(machine) as set_up:
        found = set_up.discover()
        assert found.problems == ()
        assert differences(machine, found.topology) == []
        assert_sysfs_agrees(set_up, found.topology)


@pytest.mark.parametrize("name", ["hgx-h100-8x-ib", "dgx2-16x-v100", "gb200-nvl72-tray-4x"])
def test_hidden_switches_are_assumed(name: str) -> None:
    """In a virtual machine that hides the NVSwitch the same links are found."""
    machine = load_machine(name)
    with rig(machine, hide_switches=True) as set_up:
        links = set_up.nvml.links(set_up.nvml.device(0))
        topology = set_up.discover().topology
    assert {link.remote_pci for link in links} == {None}
    assert differences(machine, topology) == []
    assert set(topology.switch) == {0}


@pytest.mark.parametrize("kind", ["lost", "removed"])
@given(machine=machines(most=8), at=st.integers(0, 7))
@settings(LAWS, max_examples=15)
def test_a_lost_gpu_changes_no_answer_about_the_others(
    kind: str, machine: Machine, at: int
) -> None:
    """Everything between the other GPUs stays as it was, and the lost one is reported."""
    lost = at % len(machine.gpus)
    with rig(machine) as set_up:
        before = set_up.discover().topology
        set_up.mock.inject(kind, gpu=lost)
        found = set_up.discover()
    after = found.topology
    assert [(problem.index, problem.code) for problem in found.problems] == [(lost, 15)]
    kept = [p for p, gpu in enumerate(before.gpus) if gpu.index != lost]
    assert [before.gpus[p] for p in kept] == list(after.gpus)
    for a, p in enumerate(kept):
        for b, q in enumerate(kept):
            assert before.nvlinks[p][q] == after.nvlinks[a][b]
            assert before.pcie[p][q] is after.pcie[a][b]
            if before.nvlinks[p][q]:
                assert (before.switch[p] == before.switch[q] >= 0) == (
                    after.switch[a] == after.switch[b] >= 0
                )
    assert [nic.nics for nic in before.nics] == [nic.nics for nic in after.nics]


def test_an_unplugged_gpu_is_gone_after_the_next_initialisation() -> None:
    """The others are numbered anew, keep their minors, and nothing is a problem any more."""
    machine = load_machine("dgx1-v100")
    with rig(machine) as set_up:
        set_up.mock.inject("removed", gpu=2)
        set_up.nvml.close()
        with open_nvml() as again:
            found = discover(again, set_up.root)
    assert found.problems == ()
    assert [gpu.index for gpu in found.topology.gpus] == [0, 1, 2, 3, 4, 5, 6]
    assert [gpu.minor for gpu in found.topology.gpus] == [0, 1, 3, 4, 5, 6, 7]


def test_a_link_that_is_down_is_not_counted() -> None:
    """On a switch the pair has the lesser count; a direct pair loses the link on both ends."""
    with rig(load_machine("hgx-h100-8x-ib")) as set_up:
        set_up.mock.inject("link-down", gpu=3, link=17)
        topology = set_up.discover().topology
        assert {topology.nvlinks[3][other] for other in range(8) if other != 3} == {17}
        assert topology.nvlinks[0][1] == 18
    with rig(load_machine("dgx1-v100")) as set_up:
        set_up.mock.inject("link-down", gpu=0, link=0)  # to GPU 1
        topology = set_up.discover().topology
        assert (topology.nvlinks[0][1], topology.nvlinks[0][2]) == (0, 1)
        assert topology.pcie[0][1] is Level.PIX
        set_up.mock.inject("recover", gpu=1)
        assert set_up.discover().topology.nvlinks[0][1] == 1


def test_islands_are_groups_of_their_own() -> None:
    """GPUs of two islands have links to switches and still none to each other."""
    cells = [
        ["X" if a == b else "NV12" if a // 2 == b // 2 else "SYS" for b in range(4)]
        for a in range(4)
    ]
    text = {
        "name": "islands",
        "model": "4x A100",
        "gpus": [{"index": at, "numa": "0", "cpus": None} for at in range(4)],
        "links": cells,
        "nvlink": {"links_per_gpu": 12, "nvswitch": True},
    }
    with rig(parse_machine(yaml.safe_dump(text), "islands")) as set_up:
        assert set_up.discover().topology.switch == (0, 0, 1, 1)
        assert {link.remote for link in set_up.nvml.links(set_up.nvml.device(0))} == {
            RemoteType.SWITCH
        }


def test_the_clique_is_that_of_a_multi_node_fabric_only() -> None:
    """GB200 has one; an HGX board completes its fabric with a uuid of zeros and has none."""
    with rig(load_machine("gb200-nvl72-tray-4x")) as set_up:
        clique = set_up.discover().topology.clique
        assert clique is not None
        assert clique.clique_id == 1
    with rig(load_machine("hgx-h100-8x-ib")) as set_up:
        assert set_up.discover().topology.clique is None


def test_seeds_name_the_gpus() -> None:
    """Two nodes of one kind have other uuids and else the same topology."""
    machine = load_machine("l4-8x")
    with rig(machine, seed="a") as set_up:
        one = set_up.discover().topology
        assert one == set_up.discover().topology
    with rig(machine, seed="b") as set_up:
        other = set_up.discover().topology
    assert {gpu.uuid for gpu in one.gpus}.isdisjoint(gpu.uuid for gpu in other.gpus)
    assert one.pcie == other.pcie
