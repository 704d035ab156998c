"""What the API tells of pods: scores, strategies, sets and refusals of decisions that were made."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scheduler.explain.conftest import Asker
from tests.scheduler.nodes import mesh, pcie, pod_object, switched
from topology.wire import NodeState

NODES = ("fast", "full", "near", "slow")


@pytest.fixture
async def busy(ask: Asker) -> Asker:
    """Four nodes, of which one is full; `p` wants four GPUs and is bound."""
    await ask.town.node("slow", pcie(4))
    await ask.town.node("near", mesh(4))
    await ask.town.node("fast", switched(4))
    await ask.town.node("full", mesh(4), NodeState(1, allocations={"x": ("GPU-0",)}))
    await ask.place("p", 4, *NODES, annotations={"gputopo.dev/profile": "training"})
    return ask


async def test_scores_are_hosts_and_scores_and_nothing_else(busy: Asker) -> None:
    """The nodes that passed, the best first, in the names of kube-scheduler's HostPriority."""
    scores = await busy.get("/v1/pods/default/p/scores")
    assert [line["Host"] for line in scores] == ["fast", "near", "slow"]
    assert all(set(line) == {"Host", "Score"} for line in scores)
    values = [line["Score"] for line in scores]
    assert values == sorted(values, reverse=True)
    assert 0 <= values[-1] < values[0] <= 100


async def test_top_says_how_many(busy: Asker) -> None:
    """Ten nodes unless told otherwise; five a strategy."""
    assert len(await busy.get("/v1/pods/default/p/scores?top=2")) == 2
    strategies = await busy.get("/v1/pods/default/p/strategies?top=1")
    assert all(len(line["HostPriority"]) == 1 for line in strategies)


async def test_strategies_add_up_to_the_scores(busy: Asker) -> None:
    """The sum of Weight x Score over the strategies is the node's score."""
    scores = await busy.get("/v1/pods/default/p/scores")
    strategies = await busy.get("/v1/pods/default/p/strategies")
    assert [set(line) for line in strategies] == [{"Strategy", "Weight", "HostPriority"}] * 3
    assert [line["Strategy"] for line in strategies] == ["link_quality", "link_loss", "packing"]
    assert sum(line["Weight"] for line in strategies) == pytest.approx(1, abs=1e-4)
    sums: dict[str, float] = {}
    for line in strategies:
        for host in line["HostPriority"]:
            sums[host["Host"]] = sums.get(host["Host"], 0) + line["Weight"] * host["Score"]
    assert sums == pytest.approx({line["Host"]: line["Score"] for line in scores}, abs=1e-4)


async def test_the_record_has_the_set_with_its_links(busy: Asker) -> None:
    """Which GPUs, what links them and how fast that is, as bound."""
    pod = await busy.get("/v1/pods/default/p")
    assert (pod["outcome"], pod["attempts"], pod["reason"]) == ("bound", 1, "")
    best = pod["decision"]["options"][0]
    assert best["node"] == pod["binding"]["node"] == "fast"
    assert [gpu["uuid"] for gpu in best["gpus"]] == pod["binding"]["containers"]["main"]
    assert len(best["links"]) == 6
    assert {link["link"] for link in best["links"]} == {best["worstLink"]}
    assert best["busBandwidthGbs"] == pod["binding"]["busBandwidthGbs"] > 0
    assert best["free"] == [0, 1, 2, 3]


async def test_the_record_has_every_strategy_of_every_node(busy: Asker) -> None:
    """Raw in its own unit, normalised and weighted; the weighted ones add up to the score."""
    nodes = (await busy.get("/v1/pods/default/p"))["decision"]["nodes"]
    assert [node["node"] for node in nodes] == ["fast", "near", "slow"]
    for node in nodes:
        parts = node["strategies"]
        assert sum(part["weighted"] for part in parts) == pytest.approx(node["score"], abs=1e-4)
    best = (await busy.get("/v1/pods/default/p"))["decision"]["options"][0]
    quality = nodes[0]["strategies"][0]
    assert quality["raw"] == pytest.approx(best["busBandwidthGbs"], abs=1e-3)
    assert quality["normalised"] == 100


async def test_the_record_has_the_refusals_and_the_runners_up(busy: Asker) -> None:
    """Each reason with its class and its nodes; sets on the next best nodes."""
    decision = (await busy.get("/v1/pods/default/p"))["decision"]
    assert (decision["considered"], decision["accepted"]) == (4, 3)
    assert decision["refusals"] == [
        {
            "plugin": "free_gpus",
            "reason": "node has too few free GPUs",
            "busy": True,
            "count": 1,
            "nodes": ["full"],
        }
    ]
    assert [one["node"] for one in decision["runnersUp"]] == ["near", "slow"]
    assert decision["workload"]["sizes"]
    assert decision["durations"]["decide"] > 0


async def test_reservations_in_force_are_told(ask: Asker) -> None:
    """A set that is only planned for another pod is why this one goes elsewhere."""
    await ask.town.node("a", switched(4))
    await ask.town.node("b", switched(4))
    first = await ask.town.pod("first", 4)
    await ask.town.filter(first, "a")
    await ask.place("second", 4, "a", "b")
    decision = (await ask.get("/v1/pods/default/second"))["decision"]
    assert decision["reservationsInForce"] == 1
    assert decision["refusals"][0]["nodes"] == ["a"]


async def test_a_pod_that_is_refused_says_why_and_since_when(ask: Asker) -> None:
    """Each try counts; the first tells since when it waits."""
    await ask.town.node("a", mesh(4), NodeState(1, allocations={"x": ("GPU-0",)}))
    pod = await ask.town.pod("p", 4)
    for _ in range(3):
        await ask.town.filter(pod, "a")
    told = await ask.get("/v1/pods/default/p")
    assert (told["outcome"], told["attempts"]) == ("refused", 3)
    assert told["since"] <= told["updated"]
    assert told["reason"] == "1 of 1: node has too few free GPUs"
    assert told["decision"]["refusals"][0]["nodes"] == ["a"]
    assert await ask.get("/v1/pods/default/p/scores") == []
    assert await ask.get("/v1/pods/default/p/strategies") == []


async def test_a_pod_refused_like_another_has_a_record_of_its_own(ask: Asker) -> None:
    """Its verdict is the one that was made for the other."""
    await ask.town.node("a", mesh(4), NodeState(1, unhealthy={"GPU-0": "xid 79"}))
    for name in ("p", "q"):
        await ask.town.filter(await ask.town.pod(name, 4), "a")
    assert ask.town.extender.metrics.filters["repeated"]._value.get() == 1
    first, second = [await ask.get(f"/v1/pods/default/{name}") for name in ("p", "q")]
    assert first["decision"] == second["decision"]
    assert (second["name"], second["outcome"]) == ("q", "refused")


async def test_a_pod_that_waits_for_a_plan_is_deferred(ask: Asker) -> None:
    """It will be tried again by the clock."""
    await ask.town.node("a", mesh(4))
    await ask.town.filter(await ask.town.pod("p", 3), "a")
    await ask.town.filter(await ask.town.pod("q", 2), "a")
    told = await ask.get("/v1/pods/default/q")
    assert told["outcome"] == "deferred"
    assert told["reason"] == "GPUs that would do are planned for another pod"
    assert [held["node"] for held in told["decision"]["reservations"]] == ["a"]


WRONG: list[dict[str, Any]] = [
    {"gputopo.dev/min-link": "FAST"},
    {"gputopo.dev/profile": "mine"},
]


@pytest.mark.parametrize("annotations", WRONG)
async def test_a_pod_that_does_not_read_says_what_is_wrong(
    ask: Asker, annotations: dict[str, str]
) -> None:
    """The annotation is named."""
    await ask.town.node("a", mesh(4))
    await ask.town.filter(pod_object("p", 1, uid="u", annotations=annotations), "a")
    told = await ask.get("/v1/pods/default/p")
    assert told["outcome"] == "refused"
    assert told["reason"].startswith(next(iter(annotations)))
    assert told["decision"] is None


async def test_the_list_has_the_last_first_and_can_be_narrowed(busy: Asker) -> None:
    """By what became of the pods; pending are all that are not bound."""
    await busy.town.filter(await busy.town.pod("q", 8), *NODES)
    assert [line["name"] for line in await busy.get("/v1/pods")] == ["q", "p"]
    assert [line["name"] for line in await busy.get("/v1/pods?outcome=bound")] == ["p"]
    assert [line["name"] for line in await busy.get("/v1/pods?outcome=pending")] == ["q"]
    assert len(await busy.get("/v1/pods?limit=1")) == 1
    line = (await busy.get("/v1/pods?outcome=bound"))[0]
    assert (line["node"], line["gpus"]) == ("fast", 4)


async def test_a_binding_whose_answer_is_lost_is_told_by_the_watch(ask: Asker) -> None:
    """The pod's own annotation says what it was bound with."""
    town = ask.town
    await town.node("a", mesh(4))
    pod = await town.pod("p", 2)
    await town.filter(pod, "a")
    town.border.lose_answers = True
    assert "the connection was reset" in await town.bind(pod, "a")
    await town.until(lambda: town.extender.inventory.bound(pod["metadata"]["uid"]))
    told = await ask.get("/v1/pods/default/p")
    assert (told["outcome"], told["binding"]["how"]) == ("bound", "seen")
    assert set(told["binding"]["containers"]["main"]) == await town.assigned(pod)
    assert told["binding"]["busBandwidthGbs"] > 0


async def test_a_pod_that_is_deleted_waits_no_more(ask: Asker) -> None:
    """It is told of for a while, and is not among those that wait."""
    await ask.town.node("a", mesh(2))
    await ask.town.filter(await ask.town.pod("p", 4), "a")
    assert [line["name"] for line in await ask.get("/v1/pods?outcome=pending")] == ["p"]
    await ask.town.client.delete("/api/v1/namespaces/default/pods/p")
    await ask.town.until(lambda: next(iter(ask.town.extender.store)).outcome == "gone")
    assert await ask.get("/v1/pods?outcome=pending") == []
    told = await ask.get("/v1/pods/default/p")
    assert (told["outcome"], told["reason"], told["waiting"]) == ("gone", "the pod is gone", None)


MISTAKES = [
    ("/v1/pods/default/x", 404, "no decision about it is known", ""),
    ("/v1/pods/default/p/scores?top=0", 400, "'0' is not a number from 1 to 10000", "top"),
    ("/v1/pods/default/p/scores?top=ten", 400, "'ten' is not a number", "top"),
    ("/v1/pods/default/p/strategies?top=1&top=2", 400, "given more than once", "top"),
    ("/v1/pods?outcome=lost", 400, "'lost' is none of pending, waiting, planned", "outcome"),
    ("/v1/nodes/x", 404, "node x: is not in the inventory", ""),
    ("/v2", 404, "GET /v2: not found", ""),
]


@pytest.mark.parametrize(("path", "status", "problem", "place"), MISTAKES)
async def test_a_wrong_question_is_one_clear_error(
    busy: Asker, path: str, status: int, problem: str, place: str
) -> None:
    """In JSON, with the place of what is wrong."""
    answer = await busy.get(path, status)
    assert problem in answer["error"]
    assert answer.get("place", "") == place


async def test_other_methods_are_refused_in_json(busy: Asker) -> None:
    """There is nothing to write."""
    answer = await busy.http.put("/v1/pods/default/p")
    assert answer.status_code == 405
    assert answer.json() == {"error": "PUT /v1/pods/default/p: method not allowed"}
