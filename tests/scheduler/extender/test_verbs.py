"""The extender's verbs over HTTP, in both forms that kube-scheduler speaks."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from embedded.apiserver import ApiServer
from runtime.kube_aio import AioKubeClient
from tests.scheduler.conftest import Town, make_town
from tests.scheduler.nodes import container, mesh, node_object, pcie, pod_object, switched
from topology.wire import NodeState

NOT_FREE_YET = "gputopo: GPUs that kube-scheduler counts as free are not free yet"


async def test_filter_answers_with_the_best_node(town: Town) -> None:
    """The fastest machine stands alone; the others are left out, without a reason."""
    await town.node("slow", pcie(4))
    await town.node("fast", switched(4))
    answer = await town.filter(await town.pod("p", 4), "slow", "fast")
    assert answer == {
        "Nodes": None,
        "NodeNames": ["fast"],
        "FailedNodes": {},
        "FailedAndUnresolvableNodes": {},
        "Error": "",
    }


async def test_filter_answers_with_at_most_three_equals(town: Town) -> None:
    """kube-scheduler may decide between equal nodes."""
    for name in ("a", "b", "c", "d"):
        await town.node(name, mesh(4))
    answer = await town.filter(await town.pod("p", 2), "d", "c", "b", "a")
    assert answer["NodeNames"] == ["a", "b", "c"]


async def test_filter_repeats_whole_nodes_as_they_came(town: Town) -> None:
    """Without nodeCacheCapable the accepted nodes come back with every field they had."""
    await town.node("slow", pcie(4))
    await town.node("fast", switched(4))
    items = [
        {**node_object(name), "spec": {"odd": {"field": [1, 2.5, None]}}}
        for name in ("slow", "fast")
    ]
    body = {"Pod": await town.pod("p", 4), "Nodes": {"items": items}, "NodeNames": None}
    answer = await town.post("filter", body)
    assert answer["Nodes"] == {"items": [items[1]]}
    assert answer["NodeNames"] is None


async def test_whole_nodes_that_nobody_knows_are_read_from_the_request(town: Town) -> None:
    """A node that the watch has not shown is judged by its own annotations."""
    items = [node_object("new", mesh(4), NodeState(1, allocations={"x": ("GPU-0",)}))]
    pod = await town.pod("p", 4)
    answer = await town.post("filter", {"Pod": pod, "Nodes": {"items": items}})
    assert answer["Error"] == NOT_FREE_YET
    pod = await town.pod("q", 3)
    answer = await town.post("filter", {"Pod": pod, "Nodes": {"items": items}})
    assert answer["Nodes"]["items"] == items


async def test_pods_without_gpus_pass_everything(town: Town) -> None:
    """They are none of our business, even for nodes that we do not know."""
    answer = await town.filter(await town.pod("p", 0), "x", "y")
    assert answer["NodeNames"] == ["x", "y"]


async def test_filter_holds_the_planned_set(town: Town) -> None:
    """The next pod is not shown GPUs that the first is about to get."""
    await town.node("a", mesh(4))
    assert (await town.filter(await town.pod("p", 3), "a"))["NodeNames"] == ["a"]
    assert town.free("a") == 1
    refused = await town.filter(await town.pod("q", 2), "a")
    assert not refused["NodeNames"]


async def test_a_pod_that_only_a_plan_keeps_out_is_tried_again_by_the_clock(town: Town) -> None:
    """A plan may end without an event."""
    await town.node("a", mesh(4))
    first, second = await town.pod("p", 3), await town.pod("q", 2)
    await town.filter(first, "a")
    answer = await town.filter(second, "a")
    assert answer["Error"] == "gputopo: GPUs that would do are planned for another pod"


async def test_a_pod_that_would_not_fit_without_the_plan_either_is_refused(town: Town) -> None:
    """Nothing is gained by trying it again."""
    await town.node("a", mesh(4))
    await town.filter(await town.pod("p", 1), "a")
    answer = await town.filter(await town.pod("q", 5), "a")
    assert answer["Error"] == ""
    assert list(answer["FailedAndUnresolvableNodes"]) == ["a"]


async def test_a_refused_pod_gets_one_constant_text_a_reason(town: Town) -> None:
    """Texts name neither node nor number, and the same question gets the same bytes."""
    for number in range(3):
        await town.node(f"slow{number}", pcie(4))
    await town.node("small", mesh(2))
    pod = await town.pod("p", 4, annotations={"gputopo.dev/min-link": "NV"})
    names = ("slow0", "slow1", "slow2", "small")
    first = await town.filter(pod, *names)
    assert first["NodeNames"] == []
    assert first["FailedNodes"] == {}
    assert first["FailedAndUnresolvableNodes"] == {
        "slow0": "gputopo: no set of the node's free GPUs meets the pod's demands",
        "slow1": "gputopo: no set of the node's free GPUs meets the pod's demands",
        "slow2": "gputopo: no set of the node's free GPUs meets the pod's demands",
        "small": "gputopo: node has too few healthy GPUs",
    }
    await town.node("other", mesh(2))
    assert await town.filter(pod, *names) == first


async def test_a_repeated_refusal_is_remembered_until_something_changes(town: Town) -> None:
    """An unchanged cluster is not looked at again; a GPU that is well again is seen at once."""
    await town.node("a", mesh(4), NodeState(1, unhealthy={"GPU-0": "xid 79"}))
    pod = await town.pod("p", 4)
    first = await town.filter(pod, "a")
    assert await town.filter(pod, "a") == first
    repeated = town.extender.metrics.filters["repeated"]
    assert repeated._value.get() == 1
    node = node_object("a", mesh(4), NodeState(2))
    await town.client.patch("/api/v1/nodes/a", {"metadata": node["metadata"]})
    await town.until(lambda: town.free("a") == 4)
    assert (await town.filter(pod, "a"))["NodeNames"] == ["a"]


async def test_a_refusal_is_remembered_whatever_the_order_of_names(town: Town) -> None:
    """kube-scheduler names the same nodes in any order; fewer are another question."""
    broken = NodeState(1, unhealthy={"GPU-0": "xid 79"})
    for name in ("a", "b"):
        await town.node(name, mesh(4), broken)
    pod = await town.pod("p", 4)
    first = await town.filter(pod, "a", "b")
    assert await town.filter(pod, "b", "a") == first
    repeated = town.extender.metrics.filters["repeated"]
    assert repeated._value.get() == 1
    assert set((await town.filter(pod, "b"))["FailedAndUnresolvableNodes"]) == {"b"}
    assert repeated._value.get() == 1


async def test_nobody_is_refused_by_a_picture_that_may_be_old(town: Town) -> None:
    """While a watch is renewed a refusal is an error: it is tried again without an event."""
    await town.node("a", mesh(4), NodeState(1, unhealthy={"GPU-0": "xid 79"}))
    await town.node("free", mesh(2))
    pod = await town.pod("p", 4)
    refused = await town.filter(pod, "a")
    town.extender.inventory.follow("nodes", False)
    answer = await town.filter(pod, "a")
    assert answer["Error"] == "gputopo: the watches of nodes and pods are being renewed"
    assert (await town.filter(await town.pod("q", 2), "free"))["NodeNames"] == ["free"]
    town.extender.inventory.follow("nodes", True)
    assert await town.filter(pod, "a") == refused


async def test_nobody_is_refused_for_gpus_that_are_about_to_be_free(town: Town) -> None:
    """kube-scheduler counts them as free; who was refused now might be woken before we know better.

    Who may evict would do so elsewhere, too.
    """
    held = NodeState(1, allocations={"gone": tuple(f"GPU-{i}" for i in range(4))})
    await town.node("a", mesh(4), held)
    await town.node("b", mesh(2))
    low = await town.pod("low", 2, node="b", assigned={"main": ("GPU-0", "GPU-1")})
    await town.until(lambda: town.extender.inventory.bound(low["metadata"]["uid"]))
    for waiting in (
        await town.pod("high", 4, priority=10),
        await town.pod("equal", 4),
        await town.pod("never", 4, priority=10, preemptionPolicy="Never"),
    ):
        answer = await town.filter(waiting, "a", "b")
        assert answer["Error"] == NOT_FREE_YET
        assert answer["FailedNodes"] == answer["FailedAndUnresolvableNodes"] == {}


async def test_nobody_is_refused_while_it_is_not_known_who_has_what(town: Town) -> None:
    """A node that is held back says so in an error: its next state may wake the pod too early."""
    await town.node("a", mesh(4))
    stranger = await town.pod("stranger", 2, node="a")
    await town.until(lambda: town.extender.inventory.bound(stranger["metadata"]["uid"]))
    answer = await town.filter(await town.pod("p", 2), "a")
    assert answer["Error"] == (
        "gputopo: node is held back until its device plugin has reported which GPUs are in use"
    )


async def test_a_reason_that_does_not_pass_is_a_refusal_after_all(town: Town) -> None:
    """After 30 s of errors, so that the pod may evict others; a pause begins the time anew."""
    await town.node("a", mesh(4), NodeState(1, allocations={"gone": ("GPU-0",)}))
    pod = await town.pod("p", 4)
    moment = [0.0]
    town.extender.handlers._clock = lambda: moment[0]
    for at, refused in ((0.0, False), (20.0, False), (31.0, True), (70.0, False)):
        moment[0] = at
        answer = await town.filter(pod, "a")
        assert bool(answer["FailedAndUnresolvableNodes"]) is refused
        assert bool(answer["Error"]) is not refused
        # What is remembered of the refusal ends with the next change.
        town.extender.cluster.version += 1


async def test_evictions_are_never_asked_for(town: Town) -> None:
    """kube-scheduler has passed the nodes it asks about: it would find no victim, and spin."""
    await town.node("a", pcie(4))
    low = await town.pod("low", 1, node="a", assigned={"main": ("GPU-0",)})
    await town.until(lambda: town.extender.inventory.bound(low["metadata"]["uid"]))
    linked = {"gputopo.dev/min-link": "NV"}
    answer = await town.filter(await town.pod("high", 2, priority=10, annotations=linked), "a")
    assert answer["Error"] == ""
    assert answer["FailedNodes"] == {}
    assert set(answer["FailedAndUnresolvableNodes"]) == {"a"}


MISTAKES = [
    ({"annotations": {"gputopo.dev/min-link": "FAST"}}, "gputopo.dev/min-link: 'FAST'"),
    ({"annotations": {"gputopo.dev/profile": "mine"}}, "gputopo.dev/profile: no profile 'mine'"),
    ({"containers": [container("main", "1500m")]}, "container main: nvidia.com/gpu: '1500m'"),
    ({"initContainers": [container("init", 3)]}, "init containers with GPUs"),
]


@pytest.mark.parametrize(("given", "text"), MISTAKES)
async def test_a_pod_that_nobody_can_serve_is_refused_everywhere(
    town: Town, given: dict[str, Any], text: str
) -> None:
    """The reason is the pod's own, the same for every node and every try."""
    await town.node("a", mesh(4))
    await town.node("b", mesh(4))
    pod = pod_object("p", 1, uid="u", **given)
    for _ in range(2):
        answer = await town.filter(pod, "a", "b")
        reasons = answer["FailedAndUnresolvableNodes"]
        assert reasons["a"] == reasons["b"]
        assert reasons["a"].startswith(f"gputopo: {text}")
        assert (answer["NodeNames"], answer["Error"]) == ([], "")


async def test_nodes_that_are_not_known_yet_are_an_error_only_if_nobody_will_do(
    town: Town,
) -> None:
    """An error is tried again by the clock; no event would wake the pod for them."""
    await town.node("a", mesh(4))
    answer = await town.filter(await town.pod("p", 2), "a", "new")
    assert answer["NodeNames"] == ["a"]
    answer = await town.filter(await town.pod("q", 4), "a", "new")
    assert "not in the inventory" in answer["Error"]


async def test_before_the_first_lists_filter_is_an_error(
    api: ApiServer, client: AioKubeClient
) -> None:
    """Without them everything would look free."""
    closed = make_town(api, client)
    pod = pod_object("p", 1, uid="u")
    answer = await closed.filter(pod, "a")
    assert answer["Error"] == "gputopo: the inventory is not complete yet"
    assert "not complete" in await closed.bind(await closed.pod("q", 1), "a")
    await closed.close()


async def test_prioritize_gives_ten_to_the_best_and_nothing_to_the_others(town: Town) -> None:
    """It names the node whose set is held, also when it was never filtered here."""
    for name in ("a", "b"):
        await town.node(name, mesh(4))
    await town.node("fast", switched(4))
    pod = await town.pod("p", 4)
    names = ["a", "fast", "b"]
    want = [{"Host": "a", "Score": 0}, {"Host": "fast", "Score": 10}, {"Host": "b", "Score": 0}]
    assert await town.post("prioritize", {"Pod": pod, "NodeNames": names}) == want
    await town.filter(pod, "a", "b")
    answer = await town.post("prioritize", {"Pod": pod, "NodeNames": names})
    assert [line["Score"] for line in answer] == [10, 0, 0]
    items = [node_object(name) for name in names]
    answer = await town.post("prioritize", {"Pod": pod, "Nodes": {"items": items}})
    assert [line["Score"] for line in answer] == [10, 0, 0]


async def test_prioritize_has_no_opinion_on_other_pods(town: Town) -> None:
    """Pods without GPUs, and pods that nobody can serve, get zeros."""
    await town.node("a", mesh(4))
    zero = [{"Host": "a", "Score": 0}]
    for pod in (
        pod_object("p", 0, uid="u"),
        pod_object("p", 9, uid="u"),
        pod_object("p", 1, uid="u", annotations={"gputopo.dev/strict": "maybe"}),
    ):
        assert await town.post("prioritize", {"Pod": pod, "NodeNames": ["a"]}) == zero


async def test_every_verb_answers_below_v1_too(town: Town) -> None:
    """The prefix of a configuration file may carry a version."""
    await town.node("a", mesh(4))
    pod = await town.pod("p", 2)
    assert (await town.post("v1/filter", {"Pod": pod, "NodeNames": ["a"]}))["NodeNames"] == ["a"]
    assert await town.post("v1/prioritize", {"Pod": pod, "NodeNames": ["a"]})
    meta = pod["metadata"]
    bind = {"PodName": "p", "PodNamespace": "default", "PodUID": meta["uid"], "Node": "a"}
    assert await town.post("v1/bind", bind) == {"Error": ""}


POD = pod_object("p", 1, uid="u")
UNSAID = b'{"Pod":' + msgspec.json.encode(POD) + b",%s}"
GARBAGE = [
    (b"", "body: "),
    (b"{", "body: "),
    (b"\xff\xfe", "body: "),
    (b"null", "Expected `object`, got `null`"),
    (b"[]", "Expected `object`, got `array`"),
    (b"{}", "missing required field `Pod`"),
    ({"Pod": 3}, "at `$.Pod`"),
    ({"Pod": {"metadata": {"name": 7}}, "NodeNames": []}, "at `$.Pod.metadata.name`"),
    ({"Pod": POD}, "neither Nodes nor NodeNames"),
    ({"Pod": {**POD, "metadata": {"name": "p"}}, "NodeNames": []}, "name and uid are needed"),
    ({"Pod": POD, "NodeNames": "a"}, "$.NodeNames: Expected `array | null`"),
    ({"Pod": POD, "NodeNames": ["a", 3]}, "$.NodeNames: Expected `str`, got `int` - at `$[1]`"),
    ({"Pod": POD, "Nodes": []}, "at `$.Nodes`"),
    ({"Pod": POD, "Nodes": {"items": [3]}}, "$.Nodes.items[0]: Expected `object`"),
    ({"Pod": POD, "Nodes": {"items": [{}]}}, "$.Nodes.items[0].metadata.name: is needed"),
    (b"[" * 100_000, "body: "),
    (UNSAID % b'"NodeNames":["\xff"]', "$.NodeNames: 'utf-8' codec"),
    (UNSAID % b'"Nodes":{"items":[{"metadata":{"name":"\xff"}}]}', "$.Nodes.items[0]: 'utf-8'"),
]


@pytest.mark.parametrize(("body", "problem"), GARBAGE)
async def test_garbage_is_answered_with_its_place(
    town: Town, body: bytes | dict[str, Any], problem: str
) -> None:
    """Filter has a field for the error, prioritize a status; both live on."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    answer = await town.post("filter", content)
    assert problem in answer["Error"]
    assert len(answer["Error"]) < 300
    refused = await town.http.post("/prioritize", content=content)
    assert refused.status_code == 400
    assert problem in refused.json()["Error"]
    assert (await town.filter(pod_object("p", 0, uid="u"), "a"))["NodeNames"] == ["a"]


BIND = {"PodName": "p", "PodNamespace": "default", "PodUID": "u", "Node": "a"}
BIND_GARBAGE = [
    (b"", "body: "),
    (b"7", "Expected `object`, got `int`"),
    ({}, "missing required field `PodName`"),
    ({**BIND, "Node": 5}, "at `$.Node`"),
    ({**BIND, "PodUID": ""}, "$.PodUID: is empty"),
    ({**BIND, "PodName": "../../nodes/a"}, "$.PodName: '../../nodes/a' is no name"),
]


@pytest.mark.parametrize(("body", "problem"), BIND_GARBAGE)
async def test_a_garbage_bind_is_answered_with_its_place(
    town: Town, body: bytes | dict[str, Any], problem: str
) -> None:
    """The protocol's Error field carries it, and nothing was sent to the API server."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    assert problem in (await town.post("bind", content))["Error"]
    assert (town.border.posts, town.border.gets) == (0, 0)


async def test_other_paths_and_methods_are_refused(town: Town) -> None:
    """There is nothing else behind the port."""
    assert (await town.http.post("/preempt")).status_code == 404
    assert (await town.http.get("/filter")).status_code == 405
