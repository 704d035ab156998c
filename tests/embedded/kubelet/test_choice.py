"""Which devices a container gets: what the plugin is asked, and what its answer is worth."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from deviceplugin.v1beta1 import api_pb2
from tests.embedded.kubelet.conftest import MakePlugin
from tests.embedded.kubelet.node import Node, container, pod
from tests.embedded.kubelet.plugin import RefusedError, healthy

FREE = ["a", "b", "c", "d"]

ANSWERS = [
    # what the plugin answers to "3 of a, b, c, d"; what is surely given; what may be given besides
    pytest.param(["d", "b", "a"], {"a", "b", "d"}, set(), id="exact"),
    pytest.param(["b", "d"], {"b", "d"}, {"a", "c"}, id="short: the rest by chance"),
    pytest.param([], set(), set(FREE), id="empty: all by chance"),
    pytest.param(["x", "y", "z"], set(), set(FREE), id="unknown: all by chance"),
    pytest.param(["x", "c", "y"], {"c"}, {"a", "b", "d"}, id="partly unknown"),
    pytest.param(["a", "b", "c", "d"], set(), set(FREE), id="too long: a part of it by chance"),
    pytest.param(["a", "a", "a"], {"a"}, {"b", "c", "d"}, id="repeated: counts once"),
]


@pytest.mark.parametrize(("answer", "given", "chance"), ANSWERS)
def test_what_an_answer_is_worth(
    node: Node, make_plugin: MakePlugin, answer: list[str], given: set[str], chance: set[str]
) -> None:
    """Of a preference only what is available counts; chance does the rest; the size holds."""
    plugin = make_plugin(node, prefer=lambda *_: answer)
    one = pod("one", 3)
    node.run(one)
    got = set(node.devices(one))
    assert len(got) == 3
    assert given <= got <= given | chance
    assert plugin.allocated == [sorted(got)]
    assert node.env(one) == {"NVIDIA_VISIBLE_DEVICES": ",".join(sorted(got))}


def test_a_long_answer_is_cut_by_chance(node: Node, make_plugin: MakePlugin) -> None:
    """Of four preferred devices for one, any may be given: over many pods all are."""
    make_plugin(node, prefer=lambda *_: FREE)
    seen = set()
    for number in range(40):
        one = pod(f"p{number}")
        node.run(one)
        seen.update(node.devices(one))
        node.remove(one)
    assert seen == set(FREE)


def test_without_the_option_chance_decides(node: Node, make_plugin: MakePlugin) -> None:
    """A plugin without GetPreferredAllocation has its devices given at random."""
    plugin = make_plugin(node)
    first = []
    for number in range(20):
        one = pod(f"p{number}", 2)
        node.run(one)
        first.append(tuple(node.devices(one)))
        node.remove(one)
    assert len(set(first)) > 1
    assert plugin.asked == []


def test_is_asked_even_when_all_are_needed(node: Node, make_plugin: MakePlugin) -> None:
    """Without alignment the plugin is asked also when needed equals available."""
    plugin = make_plugin(node, prefer=lambda free, _, size: free[:size])
    node.run(pod("all", 4))
    assert plugin.asked == [(FREE, [], 4)]


def test_only_free_healthy_devices_are_offered(node: Node, make_plugin: MakePlugin) -> None:
    """Held devices and unhealthy ones are not available."""
    devices = [*healthy("a", "b", "c"), api_pb2.Device(ID="d", health="Unhealthy")]
    plugin = make_plugin(node, devices, prefer=lambda free, _, size: sorted(free)[:size])
    node.run(pod("one"), pod("two"))
    assert [asked[0] for asked in plugin.asked] == [["a", "b", "c"], ["b", "c"]]


def test_an_error_fails_the_pod(node: Node, make_plugin: MakePlugin) -> None:
    """An error of GetPreferredAllocation fails the pod for good, and nothing is allocated."""

    def refuse(_free: list[str], _must: list[str], _size: int) -> Sequence[str]:
        raise RefusedError("not these")

    plugin = make_plugin(node, prefer=refuse)
    one = pod("one")
    node.bind(one)
    status = node.wait_phase(one, "Failed")
    assert status["reason"] == "UnexpectedAdmissionError"
    assert (
        "Allocate failed due to device plugin GetPreferredAllocation rpc failed with err:"
        " rpc error: code = Internal desc = not these, which is unexpected" in status["message"]
    )
    assert plugin.allocated == []
    assert len(plugin.asked) == 1


def test_an_allocate_error_fails_the_pod(node: Node, make_plugin: MakePlugin) -> None:
    """An error of Allocate fails the pod for good with the error's text; it is never retried."""

    def refuse(_: list[str]) -> api_pb2.AllocateResponse:
        raise RefusedError("GPU is lost")

    plugin = make_plugin(node, answer=refuse)
    one = pod("one")
    node.bind(one)
    status = node.wait_phase(one, "Failed")
    assert status["reason"] == "UnexpectedAdmissionError"
    assert (
        "Allocate failed due to rpc error: code = Internal desc = GPU is lost, which is unexpected"
        in status["message"]
    )
    plugin.answer = lambda _: api_pb2.AllocateResponse(
        container_responses=[api_pb2.ContainerAllocateResponse()]
    )
    node.run(pod("two", 4))  # what failed holds nothing
    assert len(plugin.allocated) == 2
    assert node.status(one)["phase"] == "Failed"


def test_an_answer_without_a_container_is_an_error(node: Node, make_plugin: MakePlugin) -> None:
    """An empty AllocateResponse fails the pod."""
    make_plugin(node, answer=lambda _: api_pb2.AllocateResponse())
    one = pod("one")
    node.bind(one)
    assert "no containers return" in node.wait_phase(one, "Failed")["message"]


def test_only_the_first_answer_counts(node: Node, make_plugin: MakePlugin) -> None:
    """Of several container responses only the first is used."""

    def answer(_: list[str]) -> api_pb2.AllocateResponse:
        return api_pb2.AllocateResponse(
            container_responses=[
                api_pb2.ContainerAllocateResponse(envs={"WHICH": name}) for name in ("one", "two")
            ]
        )

    make_plugin(node, answer=answer)
    one = pod("one")
    node.run(one)
    assert node.env(one) == {"WHICH": "one"}


def test_each_container_is_a_call_of_its_own(node: Node, make_plugin: MakePlugin) -> None:
    """Containers are allocated one by one in spec order, one resource a call."""
    plugin = make_plugin(node, prefer=lambda free, _, size: sorted(free)[:size])
    one = pod("one", containers=[container("z", 2), container("a", 1)])
    node.run(one)
    assert plugin.allocated == [["a", "b"], ["c"]]
    assert (node.devices(one, "z"), node.devices(one, "a")) == (["a", "b"], ["c"])


def test_too_many_fail_the_pod(node: Node, make_plugin: MakePlugin) -> None:
    """A pod that wants more than is free fails and says how many are free."""
    plugin = make_plugin(node)
    node.run(pod("one", 2))
    big = pod("big", 3)
    node.bind(big)
    assert (
        "requested number of devices unavailable for nvidia.com/gpu. Requested: 3, Available: 2"
        in node.wait_phase(big, "Failed")["message"]
    )
    assert len(plugin.allocated) == 1


def test_zero_is_refused_while_nothing_is_healthy(node: Node, make_plugin: MakePlugin) -> None:
    """A limit of 0 is refused as well while the resource has no healthy device."""
    make_plugin(node).end_streams()
    node.wait_numbers(4, 0)
    none = pod("none", 0)
    node.bind(none)
    assert "no healthy devices present" in node.wait_phase(none, "Failed")["message"]


def test_zero_is_well_otherwise(node: Node, make_plugin: MakePlugin) -> None:
    """A limit of 0 of a healthy resource runs without devices and without a call."""
    plugin = make_plugin(node)
    none = pod("none", 0)
    node.run(none)
    assert plugin.allocated == []


# Init containers


def test_reuse_is_random_and_unasked(node: Node, make_plugin: MakePlugin) -> None:
    """Containers draw from a finished init container's devices by chance, without a question."""
    plugin = make_plugin(node, prefer=lambda free, _, size: sorted(free)[:size])
    one = pod("one", containers=[container("app", 2)], init=[container("init", 3)])
    node.run(one)
    assert plugin.asked == [(FREE, [], 3)]
    assert set(node.devices(one, "app")) < {"a", "b", "c"}


def test_reuse_that_is_too_small_must_be_included(node: Node, make_plugin: MakePlugin) -> None:
    """For what reuse does not cover the plugin is asked, with the reused devices as a must."""
    plugin = make_plugin(node, prefer=lambda free, must, size: sorted(free)[:size])
    one = pod("one", containers=[container("app", 3)], init=[container("init", 2)])
    node.run(one)
    assert plugin.asked == [(FREE, [], 2), (FREE, ["a", "b"], 3)]
    assert node.devices(one, "app") == ["a", "b", "c"]


def test_must_include_is_not_enforced(node: Node, make_plugin: MakePlugin) -> None:
    """An answer without the must-include devices does not lose them."""
    make_plugin(node, prefer=lambda _free, must, _size: ["d"] if must else ["a", "b"])
    one = pod("one", containers=[container("app", 3)], init=[container("init", 2)])
    node.run(one)
    assert node.devices(one, "app") == ["a", "b", "d"]


def test_sidecars_keep_their_devices(node: Node, make_plugin: MakePlugin) -> None:
    """A restartable init container's devices are not reused by the others."""
    make_plugin(node)
    side = container("side", 2, restart_policy="Always")
    one = pod("one", containers=[container("app", 2)], init=[side])
    node.run(one)
    assert set(node.devices(one, "side")).isdisjoint(node.devices(one, "app"))


def test_reused_devices_run_out(node: Node, make_plugin: MakePlugin) -> None:
    """What one container took of the init container's devices the next one does not get."""
    plugin = make_plugin(node)
    side = container("side", 1, restart_policy="Always")
    one = pod(
        "one",
        containers=[container("app", 2), container("more", 1)],
        init=[container("init", 3), side],
    )
    node.run(one)
    first = set(plugin.allocated[0])
    given = [set(each) for each in plugin.allocated[1:]]
    assert given[0] | given[1] == first
    assert given[2].isdisjoint(first)
