"""The bundle as a user installs it: our daemons are pods, and containers are real ones.

After each case no GPU may be in two running containers, and kubelet's PodResources and the nodes'
state must both equal what the containers printed.
"""

from __future__ import annotations

import pytest

from tests.e2e.pods.bundle import (
    PLUGIN,
    SCHEDULER,
    Bundle,
    deployment,
    readme_example,
    workload,
)
from tests.e2e.pods.conftest import MACHINES
from tests.waiting import wait_until
from topology.catalogue import load_machine
from topology.wire import TOPOLOGY_KEY, decode_topology


def test_both_daemons_run_as_pods_on_both_nodes(bundle: Bundle) -> None:
    """Every container of the bundle is ready, on both nodes, and none had to be started again."""
    for selector, containers in ((PLUGIN, 1), (SCHEDULER, 2)):
        pods = bundle.daemons(selector)
        assert {pod["spec"]["nodeName"] for pod in pods} == set(MACHINES)
        for pod in pods:
            statuses = pod["status"]["containerStatuses"]
            assert [(one["ready"], one["restartCount"]) for one in statuses] == [
                (True, 0)
            ] * containers


@pytest.mark.parametrize(("node", "machine"), MACHINES.items())
def test_a_node_offers_and_describes_its_gpus(bundle: Bundle, node: str, machine: str) -> None:
    """A node offers as many GPUs as its machine has, and its annotation describes them."""
    gpus = load_machine(machine).gpus
    assert bundle.allocatable(node) == len(gpus)
    assert len(decode_topology(bundle.annotations(node)[TOPOLOGY_KEY]).gpus) == len(gpus)


def test_the_readme_example_sees_the_gpus_that_its_annotation_names(bundle: Bundle) -> None:
    """The README's pod, applied by kubectl as it stands there, prints the set chosen for it."""
    name = bundle.run(readme_example())
    assert [len(uuids) for uuids in bundle.chosen(name).values()] == [4]
    assert bundle.printed(name) == bundle.chosen(name)


def test_two_containers_see_a_set_each(bundle: Bundle) -> None:
    """Each container of a pod prints its own set, and no GPU is in both."""
    name = bundle.run(workload("pair", first=3, second=2))
    assert {key: len(uuids) for key, uuids in bundle.chosen(name).items()} == {
        "first": 3,
        "second": 2,
    }
    assert bundle.printed(name) == bundle.chosen(name)


def test_pods_that_come_at_once_fill_both_nodes(bundle: Bundle) -> None:
    """A Deployment of eight pods with two GPUs each takes all sixteen, each pod its own set."""
    bundle.apply(deployment("eight", replicas=8, count=2))
    wait_until(lambda: len(bundle.running()) == 8, 60, "eight pods to run")
    for name in bundle.running():
        assert bundle.printed(name) == bundle.chosen(name)


def test_a_pod_of_the_default_scheduler_is_reckoned_with(bundle: Bundle) -> None:
    """A pod that our scheduler never saw has GPUs without a set; the next one gets the others."""
    stranger = workload("stranger", node="n1", main=3)
    del stranger["spec"]["schedulerName"]
    name = bundle.run(stranger)
    assert bundle.chosen(name) == {}
    assert [len(uuids) for uuids in bundle.printed(name).values()] == [3]
    after = bundle.run(workload("after", node="n1", main=5))
    assert bundle.printed(after) == bundle.chosen(after)


def test_a_container_that_is_started_again_sees_the_same_gpus(bundle: Bundle) -> None:
    """A container whose process was killed prints the set that it had."""
    name = bundle.run(workload("again", main=2))
    before = bundle.printed(name)
    bundle.kill(bundle.pod(name), "main")
    wait_until(lambda: bundle.lives(name)["main"][1] == 1, 30, "the container to start again")
    bundle.await_running(name)
    assert bundle.printed(name) == before


def test_an_ended_pod_gives_its_gpus_back(bundle: Bundle) -> None:
    """A pod that is over holds nothing, though nobody deleted it."""
    short = workload("short", node="n1", main=8)
    short["spec"]["restartPolicy"] = "Never"
    name = bundle.run(short)
    freed = bundle.printed(name)
    bundle.kill(bundle.pod(name), "main")
    assert bundle.printed(bundle.run(workload("after", node="n1", main=8))) == freed


def test_a_deleted_pods_gpus_are_given_again(bundle: Bundle) -> None:
    """A pod waits while both nodes are full, and gets the GPUs of the pod that is deleted."""
    first, second = (bundle.run(workload(name, main=8)) for name in ("first", "second"))
    freed = bundle.printed(first)
    bundle.apply(workload("third", main=8))
    wait_until(lambda: _refused(bundle, "third"), 30, "the third pod to be refused")
    bundle.delete(first)
    assert bundle.printed(bundle.run(workload("third", main=8))) == freed
    assert bundle.node_of("third") != bundle.node_of(second)


def test_a_deleted_plugin_pod_comes_back_and_disturbs_nobody(bundle: Bundle) -> None:
    """The plugin's pod is replaced; a running container keeps its GPUs, the next gets others."""
    before = bundle.run(workload("before", node="n1", main=4))
    lives, gpus = bundle.lives(before), bundle.printed(before)
    (plugin,) = (pod for pod in bundle.daemons(PLUGIN) if pod["spec"]["nodeName"] == "n1")
    bundle.delete_daemon(plugin)
    bundle.await_ready()
    after = bundle.run(workload("after", node="n1", main=4))
    assert bundle.lives(before) == lives
    assert bundle.printed(before) == gpus
    assert bundle.printed(after) == bundle.chosen(after)


@pytest.mark.parametrize("how", ["deleted", "killed"])
def test_pods_are_scheduled_when_the_leader_is_gone(bundle: Bundle, how: str) -> None:
    """Another scheduler takes over with all that it needs to know, also from one that left no word.

    Deleted, the leader gives its lease back; killed, with its extender, it leaves it to run out.
    """
    before = bundle.run(workload("before", main=4))
    leader = bundle.leader()
    if how == "deleted":
        bundle.delete_daemon(bundle.leading_pod())
    else:
        bundle.kill(bundle.leading_pod(), "kube-scheduler", "extender")
    after = bundle.run(workload("after", node=bundle.node_of(before), main=4))
    assert bundle.leader() not in {"", leader}
    assert bundle.printed(after) == bundle.chosen(after)
    bundle.await_ready()


def test_a_kubelet_that_restarts_disturbs_nobody(bundle: Bundle) -> None:
    """Containers run through kubelet's restart, and its GPUs are offered again."""
    before = bundle.run(workload("before", node="n2", main=2))
    lives = bundle.lives(before)
    bundle.cluster.kubelets["n2"].restart()
    bundle.await_ready()
    after = bundle.run(workload("after", node="n2", main=2))
    assert bundle.lives(before) == lives
    assert bundle.printed(after) == bundle.chosen(after)


def test_an_upgrade_disturbs_nobody(bundle: Bundle) -> None:
    """While every pod of the bundle is replaced, containers run on and new pods are placed."""
    before = bundle.run(workload("before", node="n1", main=4))
    lives = bundle.lives(before)
    bundle.restart()
    during = bundle.run(workload("during", node="n1", main=2))
    bundle.await_ready()
    after = bundle.run(workload("after", node="n1", main=2))
    assert bundle.lives(before) == lives
    assert bundle.printed(during) == bundle.chosen(during)
    assert bundle.printed(after) == bundle.chosen(after)


def test_a_bundle_that_is_taken_away_leaves_the_workload(bundle: Bundle) -> None:
    """Containers outlive the bundle; installed again, it knows who holds what."""
    before = bundle.run(workload("before", node="n1", main=4))
    lives = bundle.lives(before)
    bundle.uninstall()
    assert set(bundle.running()) == {before}
    bundle.install()
    after = bundle.run(workload("after", node="n1", main=4))
    assert bundle.lives(before) == lives
    assert bundle.printed(after) == bundle.chosen(after)


def test_the_daemons_cannot_write_where_they_were_not_told_to(bundle: Bundle) -> None:
    """The extender is nobody's user, and neither daemon's own file system takes a file."""
    code = "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/root', os.W_OK))"
    scheduler, plugin = bundle.daemons(SCHEDULER)[0], bundle.daemons(PLUGIN)[0]
    assert bundle.run_in(scheduler, "extender", code) == "65532 False False"
    assert bundle.run_in(plugin, "device-plugin", code) == "0 False False"


def _refused(bundle: Bundle, name: str) -> bool:
    conditions = bundle.pod(name)["status"].get("conditions", ())
    return any(one.get("reason") == "Unschedulable" for one in conditions)
