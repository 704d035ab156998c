"""A dry-run says where pods would go, and nothing is different after it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from prometheus_client import generate_latest

from scheduler.engine.cluster import ClusterState
from tests.scheduler.conftest import Town
from tests.scheduler.explain.conftest import Asker
from tests.scheduler.nodes import mesh, node_object, pcie, pod_object, switched

ROOM = {"cpu": "96", "memory": "1Ti", "pods": "110"}

POD_YAML = """
apiVersion: v1
kind: Pod
metadata:
  name: train
  annotations:
    gputopo.dev/profile: training
spec:
  containers:
    - name: main
      resources:
        limits:
          nvidia.com/gpu: 4
"""


async def dry_run(ask: Asker, body: object, status: int = 200, query: str = "") -> Any:
    """Post a body: text as it is, all else as JSON."""
    content = body if isinstance(body, (str, bytes)) else json.dumps(body)
    answer = await ask.http.post(f"/v1/dry-run{query}", content=content)
    assert answer.status_code == status, answer.text
    return answer.json()


def fingerprint(town: Town) -> str:
    """Return a hash of all that decisions look at and of all that is counted."""
    cluster: ClusterState = town.extender.cluster
    columns = cluster.columns
    sums = hashlib.sha256()
    for array in columns._arrays():
        sums.update(array.tobytes())
    rest = (
        columns.rows,
        columns.names,
        columns.facts,
        columns.state_free,
        columns._shares,
        (columns.change, columns.epoch, columns.fleet, cluster.version),
        cluster._rooms,
        cluster.claims.all(),
        sorted(map(str, cluster.sets._kept)),
        (
            cluster.outlook.expected.version,
            cluster.outlook.expected.seen,
            len(cluster.outlook._seen),
        ),
        sorted(map(str, cluster.outlook._kept)),
        {uid: str(pod) for uid, pod in town.extender.inventory._bound.items()},
        [record.updated for record in town.extender.desk._recorder.store],
    )
    sums.update(repr(rest).encode())
    sums.update(generate_latest(town.registry))
    return sums.hexdigest()


@pytest.fixture
async def fleet(ask: Asker) -> Asker:
    """Three kinds of nodes, and a pod on the fastest."""
    await ask.town.node("slow", pcie(4), amounts=ROOM)
    await ask.town.node("near", mesh(4), amounts=ROOM)
    await ask.town.node("fast", switched(8), amounts=ROOM)
    await ask.place("there", 4, "slow", "near", "fast")
    await ask.town.until(lambda: ask.town.extender.inventory.find("default/there"))
    return ask


async def test_a_pod_in_yaml_gets_both_views_its_set_and_the_refusals(fleet: Asker) -> None:
    """As a decision that was made is told."""
    answer = await dry_run(fleet, POD_YAML)
    (pod,) = answer["pods"]
    assert (pod["outcome"], pod["node"], pod["reason"]) == ("placed", "fast", "")
    assert pod["scores"][0]["Host"] == "fast"
    assert {line["Strategy"] for line in pod["strategies"]} >= {"link_quality"}
    assert len(pod["set"]["gpus"]) == 4
    assert pod["decision"]["considered"] == 3
    assert answer["notChecked"]


async def test_what_it_says_is_what_then_happens(fleet: Asker) -> None:
    """The same node, the same GPUs and the same scores."""
    (told,) = (await dry_run(fleet, POD_YAML))["pods"]
    pod = await fleet.place("train", 4, "slow", "near", "fast", **_profile("training"))
    assert pod
    happened = await fleet.get("/v1/pods/default/train")
    assert happened["binding"]["node"] == told["node"]
    uuids = [gpu["uuid"] for gpu in told["set"]["gpus"]]
    assert happened["binding"]["containers"]["main"] == uuids
    assert await fleet.get("/v1/pods/default/train/scores") == told["scores"]
    assert await fleet.get("/v1/pods/default/train/strategies") == told["strategies"]


def _profile(name: str) -> dict[str, Any]:
    return {"annotations": {"gputopo.dev/profile": name}}


CHANGES: list[dict[str, Any]] = [
    {},
    {"drain": ["fast"]},
    {"cordon": [{"node": "fast", "gpus": [4, "GPU-5"]}]},
    {"remove": ["default/there"]},
    {"profile": "spread"},
    {"weights": {"packing": 1}},
]


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: next(iter(changes), "none"))
async def test_nothing_is_different_after_it(fleet: Asker, changes: dict[str, Any]) -> None:
    """Neither columns nor claims, caches, records or metrics, whatever was changed."""
    body = {"pods": [pod_object("p", 4), pod_object("q", 2), {"pod": "default/there"}]}
    body["changes"] = changes
    await fleet.get("/v1/cluster")
    before = fingerprint(fleet.town)
    await dry_run(fleet, body)
    assert fingerprint(fleet.town) == before


async def test_pods_of_a_batch_see_each_other(fleet: Asker) -> None:
    """The second finds the GPUs of the first taken."""
    documents = f"{POD_YAML}\n---\n{POD_YAML}"
    first, second = (await dry_run(fleet, documents))["pods"]
    assert (first["node"], second["node"]) == ("fast", "near")
    listed = {"kind": "List", "items": [pod_object("p", 4), pod_object("q", 4)]}
    nodes = [pod["node"] for pod in (await dry_run(fleet, listed))["pods"]]
    assert len(set(nodes)) == 2


async def test_a_drained_node_takes_nothing(fleet: Asker) -> None:
    """It is not even considered."""
    body = {"pods": [pod_object("p", 4)], "changes": {"drain": ["fast"]}}
    answer = await dry_run(fleet, body)
    assert answer["changes"] == ["node fast drained"]
    assert answer["pods"][0]["decision"]["considered"] == 2
    assert answer["pods"][0]["node"] == "near"


async def test_cordoned_gpus_are_not_given_out(fleet: Asker) -> None:
    """By position or by UUID."""
    cordon = [{"node": "fast", "gpus": [0, 1, 2, 3, "GPU-4"]}]
    body = {"pods": [pod_object("p", 4)], "changes": {"cordon": cordon}}
    answer = await dry_run(fleet, body)
    assert answer["pods"][0]["node"] == "near"


async def test_a_pod_that_is_gone_leaves_its_gpus(fleet: Asker) -> None:
    """Eight on the fast node are to be had without it."""
    body: dict[str, Any] = {"pods": [pod_object("p", 8)]}
    refused = (await dry_run(fleet, body))["pods"][0]
    assert (refused["outcome"], refused["node"]) == ("refused", None)
    body["changes"] = {"remove": ["default/there"]}
    answer = await dry_run(fleet, body)
    assert answer["pods"][0]["node"] == "fast"
    assert answer["changes"] == ["pod default/there gone from fast"]


async def test_other_weights_rank_a_known_pod_anew(fleet: Asker) -> None:
    """It is decided as if it were not there, under the weights that are given."""
    body = {"pods": [{"pod": "default/there"}], "changes": {"weights": {"packing": 1}}}
    answer = await dry_run(fleet, body)
    (pod,) = answer["pods"]
    assert answer["changes"] == ["weights packing 1"]
    assert [line["Strategy"] for line in pod["strategies"]] == ["packing"]
    assert pod["node"] in {"near", "slow"}
    assert len(pod["scores"]) == 3


async def test_a_refused_pod_says_who_stands_in_its_way(fleet: Asker) -> None:
    """The fewest pods whose end would give it a set."""
    (pod,) = (await dry_run(fleet, {"pods": [pod_object("p", 8)]}))["pods"]
    assert pod["reason"].startswith("2 of 3: node has too few healthy GPUs")
    (way,) = pod["waiting"]["ways"]
    assert (way["node"], [one["pod"] for one in way["pods"]]) == ("fast", ["default/there"])
    assert pod["waiting"]["help"] == (
        f"GPU {', '.join(map(str, way['missing']))} of fast must become free, held by default/there"
    )


async def test_a_pod_that_can_never_run_says_so(fleet: Asker) -> None:
    """No node would do if it were empty."""
    (pod,) = (await dry_run(fleet, {"pods": [pod_object("p", 9)]}))["pods"]
    assert pod["waiting"] == {
        "help": "no node could give 9 healthy GPUs, even if it were empty",
        "possible": 0,
        "ways": [],
    }


STOCK: list[tuple[dict[str, Any], list[str]]] = [
    ({"nodeSelector": {"zone": "a"}}, ["plain"]),
    ({"nodeName": "plain"}, ["plain"]),
    ({}, ["plain"]),
    ({"tolerations": [{"key": "gpu", "operator": "Exists"}]}, ["plain", "tainted"]),
    (
        {"tolerations": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]},
        ["plain", "tainted"],
    ),
    ({"tolerations": [{"key": "gpu", "value": "no"}]}, ["plain"]),
    ({"tolerations": [{"operator": "Exists"}]}, ["cordoned", "plain", "tainted"]),
]


@pytest.mark.parametrize(("spec", "nodes"), STOCK)
async def test_labels_taints_and_cordons_are_looked_at(
    ask: Asker, spec: dict[str, Any], nodes: list[str]
) -> None:
    """As kube-scheduler's own filters would."""
    specs = {
        "plain": {},
        "tainted": {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]},
        "cordoned": {"unschedulable": True},
    }
    for name, given in specs.items():
        node = {**node_object(name, mesh(4), amounts=ROOM), "spec": given}
        node["metadata"]["labels"] = {"zone": "a" if name == "plain" else "b"}
        await ask.town.client.post("/api/v1/nodes", node)
        await ask.town.until(lambda name=name: ask.town.extender.inventory.knows(name))
    pod = pod_object("p", 1)
    pod["spec"].update(spec)
    (told,) = (await dry_run(ask, {"pods": [pod]}))["pods"]
    assert sorted(line["Host"] for line in told["scores"]) == nodes
    assert told["decision"]["considered"] == 3


MISTAKES: list[tuple[object, str, str]] = [
    ("", "body", "is empty"),
    ("{", "line 2, column 1", "expected"),
    ("a: b: c", "line 1, column 5", "mapping values are not allowed"),
    (b"\xff\xfe\x00", "body", "is not UTF-8 at byte 0"),
    ("a: &x [1]\nb: *x", "body", "aliases are not read"),
    ("[" * 100_000 + "]" * 100_000, "body", "nested more than 100 deep"),
    ("when: 2026-99-99", "body", "month must be in"),
    ([], "body[0]", "array, want a Pod"),
    ("- 1", "body[0]", "array, want a Pod"),
    ("hello", "body[0]", "text, want a Pod"),
    ({"kind": "Job"}, "body[0].kind", "'Job', want Pod or List"),
    ({"kind": ["Pod"]}, "body[0].kind", "array, want Pod or List"),
    ({"kind": "Pod"}, "body[0].spec", "is missing"),
    ({"kind": "List", "items": 3}, "body[0].items", "int, want an array"),
    ({"kind": "List", "items": [3]}, "body[0].items[0]", "int, want a Pod"),
    ({"pods": []}, "pods", "0 pods, want 1 to 256"),
    ({"pods": [{"spec": {}}] * 257}, "pods", "257 pods"),
    ({"pods": 3}, "body.pods", "Expected `array`"),
    ({"pods": [{"spec": {"containers": 3}}]}, "pods[0].spec.containers", "Expected `array`"),
    (
        {"pods": [{"metadata": {"annotations": {"a": True}}, "spec": {}}]},
        "pods[0].metadata.annotations[...]",
        "Expected `str`, got `bool`",
    ),
    ({"pods": [{"spec": {}}], "change": {}}, "body", "unknown field `change`"),
    (
        {"pods": [{"spec": {}}], "changes": {"weights": {"packing": -1}}},
        "body.changes.weights[...]",
        ">= 0",
    ),
    ("x" * ((1 << 20) + 1), "body", "more than 1048576 bytes"),
]


@pytest.mark.parametrize(("body", "place", "problem"), MISTAKES)
async def test_a_wrong_question_is_one_clear_error(
    ask: Asker, body: object, place: str, problem: str
) -> None:
    """It names the place; nothing is run."""
    answer = await dry_run(ask, body, 400)
    assert problem in answer["error"]
    assert answer["place"] == place


NOT_THERE: list[tuple[dict[str, Any], str, str]] = [
    ({"drain": ["x"]}, "changes.drain[0]", "no node 'x'"),
    ({"remove": ["a/b"]}, "changes.remove[0]", "no bound pod 'a/b'"),
    ({"cordon": [{"node": "x", "gpus": [0]}]}, "changes.cordon[0].node", "no node 'x'"),
    (
        {"cordon": [{"node": "slow", "gpus": [9]}]},
        "changes.cordon[0].gpus[0]",
        "slow has no GPU '9'; it has 4",
    ),
    ({"profile": "x"}, "changes.profile", "no profile 'x'"),
    ({"weights": {"speed": 1}}, "changes.weights", "no score plugin 'speed'"),
    ({"weights": {"packing": 0}}, "changes.weights", "its weights sum up to nothing"),
]


@pytest.mark.parametrize(("changes", "place", "problem"), NOT_THERE)
async def test_what_is_not_there_is_said(
    ask: Asker, changes: dict[str, Any], place: str, problem: str
) -> None:
    """By name, with the place where it stands."""
    await ask.town.node("slow", pcie(4))
    answer = await dry_run(ask, {"pods": [{"spec": {}}], "changes": changes}, 404)
    assert problem in answer["error"]
    assert answer["place"] == place


async def test_a_pod_that_nobody_decided_on_cannot_be_decided_anew(ask: Asker) -> None:
    """It has to be written out."""
    answer = await dry_run(ask, {"pods": [{"pod": "default/x"}]}, 404)
    assert answer["place"] == "pods[0].pod"
    assert "no decision about it is known" in answer["error"]


async def test_a_pod_whose_demands_do_not_read_is_refused_alone(fleet: Asker) -> None:
    """The others of the batch are placed."""
    wrong = pod_object("wrong", 1, annotations={"gputopo.dev/min-link": "FAST"})
    answer = await dry_run(fleet, {"pods": [wrong, pod_object("p", 1)]})
    assert [pod["outcome"] for pod in answer["pods"]] == ["refused", "placed"]
    assert answer["pods"][0]["reason"].startswith("gputopo.dev/min-link: 'FAST'")


async def test_top_says_how_many_nodes(fleet: Asker) -> None:
    """In both views."""
    (pod,) = (await dry_run(fleet, POD_YAML, query="?top=1"))["pods"]
    assert len(pod["scores"]) == 1
    assert {len(line["HostPriority"]) for line in pod["strategies"]} == {1}
