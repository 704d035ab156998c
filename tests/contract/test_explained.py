"""What the extender tells of its decisions is what kube-scheduler and the kubelets then did."""

from __future__ import annotations

import pytest

from tests.contract.cluster import NAMESPACE, Cluster, PodPlan
from tests.contract.scheduling import PATIENCE, check_exact, pods, refused, submit
from tests.waiting import wait_until
from topology.wire import MIN_LINK_KEY


def test_the_winner_is_where_the_pod_runs(cluster: Cluster) -> None:
    """The first of the scores is the pod's node; the set of the record is in its containers."""
    plans = [*pods("four", 4, count=2), *pods("pair", 2, count=2), *pods("single", 1, count=2)]
    submit(cluster, plans)
    check_exact(cluster, plans)
    for plan in plans:
        path = f"/v1/pods/{NAMESPACE}/{plan.name}"
        wait_until(
            lambda path=path: cluster.explain(path)["outcome"] == "bound", PATIENCE, plan.name
        )
        node = cluster.node_of(plan.name)
        scores = cluster.explain(f"{path}/scores?top=10")
        assert scores[0]["Host"] == node
        assert all(set(line) == {"Host", "Score"} for line in scores)
        assert scores[0]["Score"] == max(line["Score"] for line in scores)
        strategies = cluster.explain(f"{path}/strategies?top=5")
        assert sum(line["Weight"] for line in strategies) == pytest.approx(1, abs=1e-4)
        record = cluster.explain(path)
        assert record["binding"]["node"] == node
        option = next(one for one in record["decision"]["options"] if one["node"] == node)
        known = cluster.set_of(plan.name)
        assert known is not None
        assert {f"{node}/{gpu['position']}" for gpu in option["gpus"]} == known["main"]


def test_a_demand_that_nobody_meets_says_so(cluster: Cluster) -> None:
    """Nothing that ends would help it."""
    plan = PodPlan("linked", {"main": 2}, notes={MIN_LINK_KEY: "NV36"})
    submit(cluster, [plan])
    refused(cluster, plan, "no set of the node's free GPUs meets the pod's demands")
    told = cluster.explain(f"/v1/pods/{NAMESPACE}/linked")
    assert told["outcome"] == "refused"
    assert told["waiting"]["help"].startswith("no node could give 2 healthy GPUs")
    listed = cluster.explain("/v1/pods?outcome=pending")
    assert [line["name"] for line in listed] == ["linked"]
