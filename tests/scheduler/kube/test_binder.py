"""Bind: one set a UID, no GPU twice, and certainty about what was written."""

from __future__ import annotations

import asyncio
import random

import pytest

from embedded.apiserver import ApiServer
from runtime.kube_aio import AioKubeClient
from scheduler.engine.reservations import Stage
from tests.scheduler.conftest import Town, make_town
from tests.scheduler.nodes import bridged, container, mesh, pcie
from topology.wire import (
    ASSIGNMENT_KEY,
    Assignment,
    NodeState,
    decode_assignment,
    encode_assignment,
)


async def test_the_binding_carries_the_set_that_filter_held(town: Town) -> None:
    """The pod is bound, with the held GPUs in its annotation, and the claim is handed over."""
    await town.node("a", mesh(4))
    pod = await town.pod("p", 2)
    await town.filter(pod, "a")
    held = town.extender.cluster.claims.get(pod["metadata"]["uid"])
    assert held is not None
    assert await town.bind(pod, "a") == ""
    assert await town.assigned(pod) == frozenset(held.uuids)
    await town.until(lambda: not len(town.extender.cluster.claims), "handed over to the watch")
    assert town.free("a") == 2


async def test_bind_needs_no_filter_before(town: Town) -> None:
    """After a restart the pod is read from the API server."""
    await town.node("a", mesh(4))
    pod = await town.pod("p", 2)
    assert await town.bind(pod, "a") == ""
    assert len(await town.assigned(pod) or ()) == 2
    assert town.border.gets == 1


async def test_each_container_is_told_its_gpus(town: Town) -> None:
    """The annotation has a list per container, disjoint."""
    await town.node("a", bridged(4))
    pod = await town.pod("p", containers=[container("x", 2), container("y", 0), container("z", 2)])
    assert await town.bind(pod, "a") == ""
    raw = (await town.read(pod))["metadata"]["annotations"][ASSIGNMENT_KEY]
    sets = decode_assignment(raw).containers
    assert {frozenset(uuids) for uuids in sets.values()} == {
        frozenset({"GPU-0", "GPU-1"}),
        frozenset({"GPU-2", "GPU-3"}),
    }
    assert set(sets) == {"x", "z"}


async def test_bind_repeated_is_bound_with_the_same_set(town: Town) -> None:
    """Before and after the watch has shown it, and on no other node."""
    await town.node("a", mesh(4))
    await town.node("b", mesh(4))
    pod = await town.pod("p", 2)
    assert await town.bind(pod, "a") == ""
    first = await town.assigned(pod)
    assert await town.bind(pod, "a") == ""
    await town.until(lambda: town.extender.inventory.bound(pod["metadata"]["uid"]))
    assert await town.bind(pod, "a") == ""
    assert "bound to node a" in await town.bind(pod, "b")
    assert await town.assigned(pod) == first


async def test_binds_at_the_same_time_share_one_attempt(town: Town) -> None:
    """Ten calls for one UID write one Binding."""
    await town.node("a", mesh(4))
    pod = await town.pod("p", 2)
    town.border.sends.clear()
    calls = [asyncio.create_task(town.bind(pod, "a")) for _ in range(10)]
    await town.until(lambda: town.border.posts)
    town.border.sends.set()
    assert await asyncio.gather(*calls) == [""] * 10
    assert town.border.posts == 1


async def test_concurrent_binds_on_one_node_never_overlap(town: Town) -> None:
    """Eight pods race for eight GPUs with no filter before; each GPU goes to one pod."""
    await town.node("a", pcie(8))
    pods = [await town.pod(f"p{number}", 1) for number in range(10)]
    errors = await asyncio.gather(*(town.bind(pod, "a") for pod in pods))
    sets = [await town.assigned(pod) for pod in pods]
    given = [uuid for uuids in sets if uuids for uuid in uuids]
    assert sorted(given) == [f"GPU-{number}" for number in range(8)]
    assert sum("too few free GPUs" in error for error in errors) == 2


async def test_many_pods_through_filter_and_bind_never_overlap(town: Town) -> None:
    """Forty pods in disorder over four nodes: no GPU twice, and what does not fit stays unbound."""
    rng = random.Random(7)
    names = ("a", "b", "c", "d")
    for name in names:
        await town.node(name, bridged(4, prefix=name))
    pods = [await town.pod(f"p{number}", rng.choice((1, 2, 4))) for number in range(40)]

    async def place(pod: dict[str, object]) -> None:
        for _ in range(3):
            answer = await town.filter(pod, *names)
            if answer["NodeNames"] and not await town.bind(pod, rng.choice(answer["NodeNames"])):
                return

    await asyncio.gather(*map(place, pods))
    for pod in pods:
        # Alone, so that a refusal is no other pod's plan: what is unbound now does not fit.
        if not await town.assigned(pod):
            await place(pod)
    sets = [await town.assigned(pod) for pod in pods]
    given = [uuid for uuids in sets if uuids for uuid in uuids]
    assert len(given) == len(set(given))
    assert len(given) == 16


async def test_a_bind_answered_late_is_found_by_the_retry(town: Town) -> None:
    """The verb gives up in time, the set stays reserved, the retry joins or finds it bound."""
    await town.node("a", mesh(4))
    await town.node("b", mesh(4))
    pod = await town.pod("p", 2)
    await town.filter(pod, "a")
    town.border.answers.clear()
    assert "no answer from the API server within 0.5 s" in await town.bind(pod, "a")
    first = await town.assigned(pod)
    assert first
    assert (await town.filter(pod, "a", "b"))["NodeNames"] == ["a"]
    again = asyncio.create_task(town.bind(pod, "a"))
    town.border.answers.set()
    assert await again == ""
    assert await town.assigned(pod) == first
    assert town.border.posts == 1


async def test_a_bind_under_way_pins_the_pod_to_its_node(town: Town) -> None:
    """Elsewhere it is refused, and filter without that node is an error to be tried again."""
    await town.node("a", mesh(4))
    await town.node("b", mesh(4))
    pod = await town.pod("p", 2)
    town.border.sends.clear()
    assert "no answer" in await town.bind(pod, "a")
    assert "node a is under way" in await town.bind(pod, "b")
    assert "not settled" in (await town.filter(pod, "b"))["Error"]
    other = await town.pod("q", 3)
    assert "too few free GPUs" in await town.bind(other, "a")
    town.border.sends.set()
    assert await town.bind(pod, "a") == ""


async def test_a_lost_answer_keeps_the_set_until_the_watch_shows_it(town: Town) -> None:
    """The Binding was written: nobody else gets these GPUs at any moment."""
    await town.node("a", mesh(4))
    pod = await town.pod("p", 2)
    town.border.lose_answers = True
    assert "reset" in await town.bind(pod, "a")
    assert town.free("a") == 2
    await town.until(lambda: not len(town.extender.cluster.claims))
    assert town.free("a") == 2
    town.border.lose_answers = False
    assert await town.bind(pod, "a") == ""


async def test_a_binding_that_was_never_written_is_released_after_a_look(town: Town) -> None:
    """The API server is away, comes back, and shows the pod unbound: the GPUs are free again."""
    await town.node("a", mesh(4))
    pod = await town.pod("p", 2)
    await town.filter(pod, "a")
    town.api.go_away()
    assert await town.bind(pod, "a") != ""
    claim = town.extender.cluster.claims.get(pod["metadata"]["uid"])
    assert claim is not None
    assert claim.stage is Stage.RESERVED
    assert town.free("a") == 2
    town.api.come_back()
    await town.until(lambda: not len(town.extender.cluster.claims))
    assert town.free("a") == 4


async def test_bound_meanwhile_with_our_set_is_success(town: Town) -> None:
    """409 after our own Binding got through means that it is done."""
    await town.node("a", mesh(4))
    pod = await town.pod("p", 4)
    await town.filter(pod, "a")
    path = "/api/v1/namespaces/default/pods/p/binding"
    town.border.sends.clear()
    bind = asyncio.create_task(town.bind(pod, "a"))
    await town.until(lambda: town.border.posts)
    ours = Assignment({"main": ("GPU-0", "GPU-1", "GPU-2", "GPU-3")})
    annotations = {ASSIGNMENT_KEY: encode_assignment(ours)}
    await town.client.post(
        path,
        {"metadata": {"name": "p", "annotations": annotations}, "target": {"name": "a"}},
    )
    town.border.sends.set()
    assert await bind == ""


@pytest.mark.parametrize("node", ["a", "b"])
async def test_bound_meanwhile_by_somebody_else_is_an_error(town: Town, node: str) -> None:
    """409 and another node, or no set of ours: the reservation goes, the truth stays."""
    await town.node("a", mesh(4), NodeState(1))
    await town.node("b", mesh(4), NodeState(1))
    pod = await town.pod("p", 2)
    town.border.sends.clear()
    bind = asyncio.create_task(town.bind(pod, "a"))
    await town.until(lambda: town.border.posts)
    path = "/api/v1/namespaces/default/pods/p/binding"
    await town.client.post(path, {"metadata": {"name": "p"}, "target": {"name": node}})
    town.border.sends.set()
    assert await bind == f"gputopo: the pod was bound to node {node} by somebody else"
    await town.until(lambda: town.extender.inventory.bound(pod["metadata"]["uid"]))
    assert len(town.extender.cluster.claims) == 0
    held_back = town.extender.cluster.view(["a", "b"]).held_back.tolist()
    assert held_back == [node == "a", node == "b"]


async def test_a_pod_that_is_gone_frees_its_set(town: Town) -> None:
    """404, or another pod of the same name, ends the reservation at once."""
    await town.node("a", mesh(4))
    pod = await town.pod("p", 2)
    await town.filter(pod, "a")
    await town.client.delete("/api/v1/namespaces/default/pods/p")
    assert await town.bind(pod, "a") == "gputopo: the pod is gone"
    assert town.free("a") == 4
    await town.pod("p", 2)
    assert "gone" in await town.bind(pod, "a")
    assert town.free("a") == 4


async def test_nodes_held_back_are_not_bound_to(town: Town) -> None:
    """Also when filter accepted the node a moment ago."""
    await town.node("a", mesh(4))
    pod = await town.pod("p", 2)
    await town.filter(pod, "a")
    await town.client.patch(
        "/api/v1/nodes/a/status", {"status": {"allocatable": {"nvidia.com/gpu": "0"}}}
    )
    await town.until(lambda: bool(town.extender.cluster.view(["a"]).held_back[0]))
    assert "held back" in await town.bind(pod, "a")
    assert await town.assigned(pod) is None


async def test_a_node_without_topology_gets_the_pod_without_a_set(town: Town) -> None:
    """Kubelet chooses there: the Binding has no annotation."""
    await town.node("a", None)
    pod = await town.pod("p", 2)
    assert (await town.filter(pod, "a"))["NodeNames"] == ["a"]
    assert await town.bind(pod, "a") == ""
    assert await town.assigned(pod) == frozenset()


async def test_a_new_process_knows_what_the_old_one_promised(
    api: ApiServer, client: AioKubeClient
) -> None:
    """Promises are rebuilt from bound pods: the second extender gives out the rest only."""
    old = make_town(api, client)
    await old.open()
    await old.node("a", mesh(4))
    first = await old.pod("p", 2)
    assert await old.bind(first, "a") == ""
    await old.close()
    new = make_town(api, client)
    await new.open()
    assert new.free("a") == 2
    second = await new.pod("q", 2)
    assert await new.bind(second, "a") == ""
    one, other = await new.assigned(first), await new.assigned(second)
    assert one
    assert other
    assert not one & other
    assert await new.bind(first, "a") == ""
    await new.close()


async def test_pods_that_are_not_ours_cannot_be_bound(town: Town) -> None:
    """A pod without GPUs, or with a demand that does not read, is answered with the reason."""
    await town.node("a", mesh(4))
    assert "does not request nvidia.com/gpu" in await town.bind(await town.pod("p", 0), "a")
    broken = await town.pod("q", 1, annotations={"gputopo.dev/strict": "1"})
    assert "gputopo.dev/strict" in await town.bind(broken, "a")
    assert town.border.posts == 0
