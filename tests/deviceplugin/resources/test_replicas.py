"""Time-slicing and MPS: which devices are offered how often, and under which name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from deviceplugin.resources.devices import Sharing
from deviceplugin.resources.facts import read_facts
from deviceplugin.resources.inventory import Inventory
from deviceplugin.resources.replicas import mps_clients
from deviceplugin.resources.stock import MAIN, take_stock
from tests.deviceplugin.nodes import machine
from tests.deviceplugin.resources.nodes import config_of, cut, instance, offers, stock


def sliced(rules: str, more: str = "") -> str:
    """Return a configuration with time-slicing rules."""
    return f"sharing: {{timeSlicing: {{{more} resources: [{rules}]}}}}"


def mps(rules: str, more: str = "") -> str:
    """Return a configuration with MPS rules."""
    return f"flags: {{mpsRoot: /m}}\nsharing: {{mps: {{{more} resources: [{rules}]}}}}"


def test_each_device_is_offered_so_many_times() -> None:
    """A replica's id is the uuid and its number."""
    node = stock(sliced("{name: gpu, replicas: 2}"))
    assert offers(node) == {"gpu": ["g0::0", "g0::1", "g1::0", "g1::1"]}
    assert node.resource(MAIN).sharing is Sharing.TIME_SLICING
    assert not node.resource(MAIN).whole


def test_a_shared_resource_can_be_renamed() -> None:
    """`renameByDefault` adds .shared, `rename` names it; the old name keeps what is not shared."""
    assert offers(stock(sliced("{name: gpu, replicas: 2}", "renameByDefault: true,"), 1)) == {
        "gpu": [],
        "gpu.shared": ["g0::0", "g0::1"],
    }
    assert offers(stock(sliced("{name: gpu, rename: half, devices: [1], replicas: 2}"))) == {
        "gpu": ["g0"],
        "half": ["g1::0", "g1::1"],
    }


def test_some_devices_are_shared_and_others_are_not() -> None:
    """A count takes the first devices, a list those it names; each may have its own number."""
    rules = "{name: gpu, devices: 1, replicas: 2}, {name: gpu, devices: [2], replicas: 3}"
    node = stock(sliced(rules), 3)
    assert offers(node) == {"gpu": ["g0::0", "g0::1", "g1", "g2::0", "g2::1", "g2::2"]}
    assert not node.resource(MAIN).whole


def test_a_rule_for_another_node_changes_nothing() -> None:
    """A resource or device that is not here leaves the rest as it is."""
    rules = "{name: a100, replicas: 2}, {name: gpu, devices: [7], replicas: 2}"
    assert offers(stock(sliced(rules))) == {"gpu": ["g0", "g1"]}


def test_mig_instances_are_time_sliced_too() -> None:
    """An instance is named by its profile's resource, and by GPU and instance."""
    text = "flags: {migStrategy: mixed}\n" + sliced(
        "{name: mig-1g.5gb, devices: ['0:1'], replicas: 2}"
    )
    assert offers(stock(text, 1, cut(0, "1g.5gb", "1g.5gb"))) == {
        "gpu": [],
        "mig-1g.5gb": ["m0-0", "m0-1::0", "m0-1::1"],
    }


@pytest.mark.parametrize("word", ["MIG-1-a-b-c-d", "MIG-GPU-0-a-b-c-d/2/0", "0:1"])
def test_an_instance_is_known_by_either_uuid(word: str) -> None:
    """Its own, and the one of drivers before 470, made of the GPU's and both instances' numbers."""
    whole = machine(1)
    gpu = msgspec.structs.replace(whole.gpus[0], uuid="GPU-0-a-b-c-d")
    instances = tuple(instance(0, n, uuid=f"MIG-{n}-a-b-c-d") for n in range(2))
    inventory = Inventory(msgspec.structs.replace(whole, gpus=(gpu,)), {}, {gpu.uuid: instances})
    rule = f"{{name: mig-1g.5gb, devices: ['{word}'], replicas: 2}}"
    text = "flags: {migStrategy: mixed}\n" + sliced(rule)
    node = take_stock(inventory, config_of(text))
    assert offers(node)["mig-1g.5gb"] == [
        "MIG-0-a-b-c-d",
        "MIG-1-a-b-c-d::0",
        "MIG-1-a-b-c-d::1",
    ]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (sliced("{name: gpu, replicas: 2}"), False),
        (sliced("{name: gpu, replicas: 2}", "failRequestsGreaterThanOne: true,"), True),
        (mps("{name: gpu, replicas: 2}"), True),
        (mps("{name: gpu, replicas: 2}", "failRequestsGreaterThanOne: false,"), False),
    ],
)
def test_who_may_ask_for_more_than_one(text: str, refused: bool) -> None:
    """Time-slicing allows it unless told, MPS forbids it unless told."""
    assert stock(text).resource(MAIN).one_each is refused


def test_mps_wins_over_time_slicing() -> None:
    """With both present the list of MPS counts, as in the reference."""
    text = (
        "flags: {mpsRoot: /m}\nsharing:\n"
        "  timeSlicing: {resources: [{name: gpu, replicas: 3}]}\n"
        "  mps: {resources: [{name: gpu, replicas: 2}]}\n"
    )
    node = stock(text, 1)
    assert offers(node) == {"gpu": ["g0::0", "g0::1"]}
    assert node.resource(MAIN).sharing is Sharing.MPS


def test_mps_has_a_limit_of_clients() -> None:
    """48 from Volta on, 16 before; a GPU with more replicas is not offered, and said so."""
    assert [mps_clients(compute) for compute in ("6.1", "7.0", "7.5", "10.0", "")] == [
        16,
        48,
        48,
        48,
        48,
    ]
    assert len(offers(stock(mps("{name: gpu, replicas: 48}"), 1))["gpu"]) == 48
    node = stock(mps("{name: gpu, replicas: 49}"), 1)
    assert offers(node) == {"gpu": []}
    assert "49 replicas; MPS has 48 clients" in node.problem


def test_mps_shares_no_mig_instance() -> None:
    """Under the single strategy the instances bear the GPUs' name, and are refused still."""
    text = mps("{name: gpu, replicas: 2}").replace(
        "mpsRoot: /m", "mpsRoot: /m, migStrategy: single"
    )
    node = stock(text, 1, cut(0, "1g.5gb"))
    assert offers(node) == {"gpu": []}
    assert "MPS does not share MIG instances" in node.problem


def test_mps_waits_for_its_daemon(tmp_path: Path) -> None:
    """Until the control daemon has made the resource's pipe its devices are unhealthy."""
    config, inventory = config_of(mps("{name: gpu, replicas: 2}")), Inventory(machine(1))

    def problems() -> set[str]:
        facts = read_facts(tmp_path, tmp_path / "mps", inventory, config)
        one = take_stock(inventory, config, facts)
        return {device.problem for device in one.resource(MAIN).devices}

    assert problems() == {"the MPS control daemon of nvidia.com/gpu has no pipe yet"}
    (tmp_path / "mps" / MAIN / "pipe").mkdir(parents=True)
    (tmp_path / "mps" / MAIN / "pipe" / "control").touch()
    assert problems() == {""}
