"""What `simulate` shows is what the extender does: a part of openb through its HTTP verbs.

Real sockets on both sides: the embedded API server, and uvicorn with the extender's routes. The
nodes of the excerpt get machines, the tasks become pods, and what filter and bind give each of
them, node and GPUs, is compared with what the replay's engine places. Tasks that ask for a share
of a GPU are left out: no pod can ask for one yet.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
from prometheus_client import CollectorRegistry

from embedded.apiserver import ApiServer
from runtime.kube_aio import AioKubeClient
from scheduler import serving
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN, DEFAULT_PROFILE
from scheduler.engine.workload import GivenWorkload, PodClass, count_classes
from scheduler.extender import app
from scheduler.main import build, build_mix, build_profiles
from scheduler.settings import ExtenderSettings, PodClassSettings
from scheduler.simulation.boards import Boards, Machines, cut_machine
from scheduler.simulation.classes import pod_class
from scheduler.simulation.cluster import Cluster
from scheduler.simulation.fleet import Fleet
from scheduler.simulation.placers import EnginePlacer, Placement
from tests.scheduler.conftest import Border, Town
from tests.scheduler.nodes import bridged, container, mesh, node_object, pcie, pod_object, switched
from topology.gpuset import positions
from topology.model import NodeTopology
from topology.wire import ASSIGNMENT_KEY, GPU_MODEL_KEY, decode_assignment
from traces.openb import Node, Task, TaskClass, read_nodes, read_tasks

EXCERPT = Path(__file__).parent / "openb_excerpt"
NODES = read_nodes((EXCERPT / "nodes.csv").read_text(), "nodes.csv")
TASKS = [
    task
    for task in read_tasks((EXCERPT / "pods.csv").read_text(), "pods.csv")
    if not task.kind.shares
]
MACHINES: Machines = {
    ("G2", 8): bridged(8),
    ("G3", 8): switched(8),
    ("V100M32", 8): mesh(8, links=1),
    ("V100M16", 4): mesh(4),
    ("T4", 2): pcie(2),
    ("P100", 2): cut_machine(pcie(4), 2),
}
# Every third task that got a place ends when the seventh after it arrives.
STAY = 7


def topology_of(node: Node) -> NodeTopology:
    """Return the topology that the node's device plugin would publish."""
    machine = MACHINES[node.model, node.gpus]
    gpus = [
        msgspec.structs.replace(gpu, uuid=f"{node.name}/{at}", model=node.model, memory_mib=0)
        for at, gpu in enumerate(machine.gpus)
    ]
    return msgspec.structs.replace(machine, gpus=tuple(gpus))


def write_node(node: Node) -> dict[str, Any]:
    """Write a node of the trace as the API server holds it."""
    amounts = {"cpu": f"{node.cpu_milli}m", "memory": f"{node.memory_mib}Mi", "pods": "1001"}
    return node_object(node.name, topology_of(node), amounts=amounts)


def write_pod(task: Task) -> dict[str, Any]:
    """Write a task of the trace as a pod."""
    kind = task.kind
    main = container("main", kind.gpus)
    main["resources"]["requests"] = {
        "cpu": f"{kind.cpu_milli}m",
        "memory": f"{kind.memory_mib}Mi",
    }
    wanted = {GPU_MODEL_KEY: ",".join(kind.models)} if kind.models else {}
    return pod_object(task.name, annotations=wanted, containers=[main])


def expect(one: PodClass, weight: float) -> PodClassSettings:
    """Write a class of the list as the extender's configuration has it."""
    return PodClassSettings(
        weight=weight,
        gpus=one.gpus,
        cpu=one.cpu_milli / 1000,
        gpu_share=(one.share_milli or 1000) / 1000,
        gpu_models=one.models,
    )


def replay() -> list[tuple[str, frozenset[str]] | None]:
    """Return node and GPUs of each task as the simulation places them."""
    cluster = Cluster(NODES)
    expected = GivenWorkload(count_classes(pod_class(task.kind) for task in TASKS))
    fleet = Fleet(NODES, Boards(MACHINES), expected)
    placer = EnginePlacer(cluster, fleet, built_in(), BUILT_IN[DEFAULT_PROFILE])
    placed: list[tuple[str, frozenset[str]] | None] = []
    leaving: dict[int, tuple[Placement, TaskClass]] = {}
    for at, task in enumerate(TASKS):
        if at in leaving:
            placer.give_back(*leaving.pop(at))
        placement = placer.place(task.kind)
        if placement is None:
            placed.append(None)
            continue
        name = NODES[placement.row].name
        gpus = frozenset(f"{name}/{position}" for position in positions(placement.members))
        placed.append((name, gpus))
        if at % 3 == 0:
            leaving[at + STAY] = (placement, task.kind)
    return placed


@asynccontextmanager
async def serve(api: ApiServer, client: AioKubeClient) -> AsyncIterator[Town]:
    """Run an extender that answers with one node, and knows the list's mix, on a real port."""
    counts = count_classes(pod_class(task.kind) for task in TASKS)
    settings = ExtenderSettings(
        shortlist=1,
        place_all_pods=True,
        workload=[expect(one, weight) for one, weight in counts.items()],
    )
    registry = CollectorRegistry()
    extender = build(
        settings,
        build_profiles(settings, built_in()),
        build_mix(settings),
        Border(client),
        registry,
    )
    town = Town(api, client, Border(client), extender, registry)
    await town.http.aclose()
    listener = serving.listen("127.0.0.1", 0)
    port = listener.getsockname()[1]
    town.http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}")
    server = serving.make_server(app.build(extender.handlers, extender.metrics))
    task = asyncio.create_task(serving.serve(server, listener))
    await town.open()
    try:
        yield town
    finally:
        await town.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_the_extender_places_as_the_simulation_does(
    api: ApiServer, client: AioKubeClient
) -> None:
    """Node and GPUs of each pod are those of the replay, while pods come and go."""
    for node in NODES:
        await client.post("/api/v1/nodes", write_node(node))
    names = [node.name for node in NODES]
    placed: list[tuple[str, frozenset[str]] | None] = []
    leaving: dict[int, dict[str, Any]] = {}
    async with serve(api, client) as town:
        inventory = town.extender.inventory
        for at, task in enumerate(TASKS):
            if at in leaving:
                gone = leaving.pop(at)["metadata"]
                await town.until(lambda uid=gone["uid"]: inventory.node_of(uid), "seen bound")
                path = f"/api/v1/namespaces/default/pods/{gone['name']}"
                await client.delete(path, {"gracePeriodSeconds": 0})  # no kubelet is there to do it
                await town.until(lambda uid=gone["uid"]: not inventory.node_of(uid), "gone")
            answer = await client.post("/api/v1/namespaces/default/pods", write_pod(task))
            pod = msgspec.json.decode(answer)
            # kube-scheduler asks only for nodes whose CPU and memory suffice.
            able = [name for name in names if has_room(town, name, task.kind)]
            chosen = (await town.filter(pod, *able))["NodeNames"]
            if not chosen:
                placed.append(None)
                continue
            assert await town.bind(pod, chosen[0]) == ""
            raw = (await town.read(pod))["metadata"].get("annotations", {}).get(ASSIGNMENT_KEY)
            gpus = frozenset() if raw is None else decode_assignment(raw).uuids()
            placed.append((chosen[0], gpus))
            if at % 3 == 0:
                leaving[at + STAY] = pod
    expected = replay()
    assert placed == expected
    assert None in expected
    assert len({place[0] for place in expected if place is not None}) == len(NODES)


def has_room(town: Town, name: str, kind: TaskClass) -> bool:
    """Return whether a node has CPU and memory for a task."""
    view = town.extender.cluster.view([name])
    return bool(view.cpu[0] >= kind.cpu_milli and view.memory[0] >= kind.memory_mib)
