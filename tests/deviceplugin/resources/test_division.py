"""What a node offers under each configuration."""

from __future__ import annotations

import pytest

from deviceplugin.config.names import matches
from deviceplugin.resources.stock import MAIN
from tests.deviceplugin.resources.nodes import cut, ids, instance, offers, stock

MIXED = "flags: {migStrategy: mixed}"
SINGLE = "flags: {migStrategy: single}"


def test_without_a_word_all_gpus_are_whole_ones() -> None:
    """The default offers each GPU once, under the name that pods ask for, MIG mode or not."""
    assert offers(stock()) == {"gpu": ["g0", "g1"]}
    assert offers(stock(mig=cut(0, "1g.5gb"))) == {"gpu": ["g0", "g1"]}
    assert stock().division.withheld == {}


def test_mixed_offers_a_resource_for_each_profile() -> None:
    """Whole GPUs stay; instances are called after their profile, with a dot for the plus."""
    node = stock(MIXED, 3, cut(0, "1g.5gb", "2g.10gb", "1g.5gb") | cut(2, "1g.5gb+me"))
    assert offers(node) == {
        "gpu": ["g1"],
        "mig-1g.5gb": ["m0-0", "m0-2"],
        "mig-1g.5gb.me": ["m2-0"],
        "mig-2g.10gb": ["m0-1"],
    }
    assert node.division.problems == ()
    device = node.resource("nvidia.com/mig-1g.5gb").devices[1]
    assert (device.name, device.gpu, device.numa_node) == ("0:2", "g0", 0)


def test_mixed_only_warns_of_a_gpu_that_is_not_cut() -> None:
    """MIG on and nothing cut offers nothing of that GPU, and everything of the others."""
    node = stock(MIXED, 2, cut(0))
    assert offers(node) == {"gpu": ["g1"]}
    assert node.division.problems == ("g0 is in MIG mode and has no instance",)


def test_mixed_does_not_offer_parts_of_a_gpu_instance() -> None:
    """A compute instance that shares its GPU instance with others is left out."""
    node = stock(MIXED, 1, cut(0, "1c.3g.20gb", "3g.20gb"))
    assert offers(node) == {"gpu": [], "mig-3g.20gb": ["m0-1"]}
    assert "1c.3g.20gb shares its GPU instance" in node.problem


def test_single_offers_instances_as_gpus() -> None:
    """All alike on all GPUs: pods ask for them as for GPUs."""
    node = stock(SINGLE, 2, cut(0, "1g.5gb", "1g.5gb") | cut(1, "1g.5gb"))
    assert offers(node) == {"gpu": ["m0-0", "m0-1", "m1-0"]}
    assert not node.resource(MAIN).whole
    assert node.division.withheld == {
        "g0": "offered as nvidia.com/gpu",
        "g1": "offered as nvidia.com/gpu",
    }


def test_single_without_mig_offers_whole_gpus() -> None:
    """A node on which MIG is off everywhere is a node of GPUs."""
    assert offers(stock(SINGLE)) == {"gpu": ["g0", "g1"]}


@pytest.mark.parametrize(
    ("mig", "said"),
    [
        (cut(0, "1g.5gb"), "g1 is not in MIG mode"),
        (cut(0, "1g.5gb") | cut(1), "g1 is in MIG mode and has no instance"),
        (cut(0, "1g.5gb") | cut(1, "2g.10gb"), "instances differ: 1g.5gb, 2g.10gb"),
        (
            cut(0, "1g.5gb") | {"g1": (instance(1, 0, multiprocessors=7),)},
            "instances differ",
        ),
    ],
)
def test_single_takes_no_mixture(mig: dict[str, tuple[object, ...]], said: str) -> None:
    """Some GPUs cut and others not, none cut, or instances that differ: nothing is offered."""
    node = stock(SINGLE, 2, mig)  # type: ignore[arg-type]  # as above
    assert offers(node) == {"gpu": []}
    assert said in node.problem


def test_a_repartitioning_is_another_stock() -> None:
    """The same node cut otherwise offers other resources; what is gone has no devices."""
    before, after = stock(MIXED, 1, cut(0, "1g.5gb")), stock(MIXED, 1, cut(0, "2g.10gb"))
    assert offers(before) == {"gpu": [], "mig-1g.5gb": ["m0-0"]}
    assert offers(after) == {"gpu": [], "mig-2g.10gb": ["m0-0"]}
    assert after.resource("nvidia.com/mig-1g.5gb").devices == ()


def test_rules_name_gpus_and_instances() -> None:
    """The first rule that matches counts; what none matches keeps its usual name."""
    node = stock(
        "flags: {migStrategy: mixed}\n"
        "resources:\n"
        "  gpus: [{pattern: V1*, name: volta}, {pattern: '*', name: other}]\n"
        "  mig: [{pattern: 1g.5gb, name: small}]\n",
        3,
        cut(0, "1g.5gb", "1g.5gb+me"),
    )
    assert offers(node) == {
        "gpu": [],
        "mig-1g.5gb.me": ["m0-1"],
        "small": ["m0-0"],
        "volta": ["g1", "g2"],
    }
    assert node.division.withheld["g1"] == "offered as nvidia.com/volta"


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("1g.5gb", "1g.5gb", True),
        ("1g.5gb", "1g.5gb+me", False),
        ("1g.5gb", "1g.5gb+gfx", False),
        ("1g.5gb", "11g.5gb", False),
        ("1g.5gb", "1gx5gb", False),
        ("*", "anything at all", True),
        ("NVIDIA A100*", "NVIDIA A100-SXM4-40GB", True),
        ("*A100*40GB", "NVIDIA A100-SXM4-80GB", False),
    ],
)
def test_patterns_are_anchored(pattern: str, text: str, expected: bool) -> None:
    """A pattern matches the whole text or not at all; a star stands for anything."""
    assert matches(pattern, text) is expected


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("{exclude: [0]}", ["g1", "g2"]),
        ('{include: ["1", "2"], exclude: [2]}', ["g1"]),
        ("{include: ['0000:11:00.0']}", ["g1"]),
        ("{exclude: ['12:00.0']}", ["g0", "g1"]),
        ("{exclude: ['V1*']}", []),
        ("{include: []}", []),
    ],
)
def test_gpus_are_included_and_excluded(selection: str, expected: list[str]) -> None:
    """By index, PCI address or model; the scheduler is told that the others are not to be had."""
    node = stock(f"gpus: {selection}", 3)
    assert ids(node.resource(MAIN)) == expected
    assert set(node.division.withheld) == {"g0", "g1", "g2"} - set(expected)


def test_a_failed_gpu_takes_its_instances_and_replicas_with_it() -> None:
    """All that is cut from a failed GPU is unhealthy, and nothing else."""
    text = MIXED + "\nsharing: {timeSlicing: {resources: [{name: gpu, replicas: 4}]}}"
    node = stock(text, 3, cut(0, "1g.5gb", "1g.5gb"), {"g1": "XID 79", "g0": "XID 48"})
    sick = {
        device.id
        for resource in node.division.resources.values()
        for device in resource.devices
        if device.problem
    }
    assert sick == {"m0-0", "m0-1", "g1::0", "g1::1", "g1::2", "g1::3"}


def test_a_failed_instance_is_alone() -> None:
    """A fault that names an instance leaves its neighbours on the GPU alone."""
    node = stock(MIXED, 1, cut(0, "1g.5gb", "1g.5gb"), {"m0-1": "XID 43"})
    problems = [device.problem for device in node.resource("nvidia.com/mig-1g.5gb").devices]
    assert problems == ["", "XID 43"]
