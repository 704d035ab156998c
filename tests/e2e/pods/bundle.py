"""What the cases do with the bundle and its workload, and what they see of them."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any, Final

import grpc
import yaml

from deviceplugin.podresources.v1 import api_pb2, api_pb2_grpc
from tests.e2e.errors import StartError
from tests.e2e.images.archives import ENVIRONMENT, LAST_LINE
from tests.e2e.pods.cluster import PodCluster
from tests.waiting import wait_until
from topology.wire import ASSIGNMENT_KEY, STATE_KEY, NodeState, decode_assignment, decode_state

NAMESPACE: Final = "gputopo-system"
RESOURCE: Final = "nvidia.com/gpu"
VISIBLE: Final = "NVIDIA_VISIBLE_DEVICES"
PLUGIN: Final = "app.kubernetes.io/name=gputopo-device-plugin"
SCHEDULER: Final = "app.kubernetes.io/name=gputopo-scheduler"

_WORKERS: Final = ("daemonset/gputopo-device-plugin", "deployment/gputopo-scheduler")
_REPOSITORY: Final = Path(__file__).parents[3]
OVERLAY: Final = _REPOSITORY / "daemonset" / "overlays" / "mock"

Sets = dict[str, frozenset[str]]
"""A container's name to the uuids of its GPUs."""


def readme_example() -> dict[str, Any]:
    """Return the pod that the README shows."""
    text = (_REPOSITORY / "README.md").read_text(encoding="utf-8")
    (found,) = (
        block
        for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        if "schedulerName: gputopo" in block
    )
    pod: dict[str, Any] = yaml.safe_load(found)
    return pod


def workload(name: str, *, node: str | None = None, **counts: int) -> dict[str, Any]:
    """Return a pod for our scheduler; `counts` are containers and the GPUs that each asks for."""
    selector = {} if node is None else {"nodeSelector": {"kubernetes.io/hostname": node}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "schedulerName": "gputopo",
            **selector,
            "containers": [
                {
                    "name": container,
                    "image": ENVIRONMENT,
                    "resources": {"limits": {RESOURCE: count}},
                }
                for container, count in counts.items()
            ],
        },
    }


def deployment(name: str, replicas: int, count: int) -> dict[str, Any]:
    """Return a Deployment of pods that ask for `count` GPUs each."""
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": workload(name, main=count)["spec"],
            },
        },
    }


class Bundle:
    """The bundle in a cluster, with the pods that use it in the namespace default."""

    def __init__(self, cluster: PodCluster, overlay: Path = OVERLAY) -> None:
        self.cluster = cluster
        self._overlay = overlay
        self._kubectl = cluster.plane.kubectl

    # The bundle.

    def install(self) -> None:
        """Apply it as a user would, and wait until all of it is ready."""
        self._kubectl("apply", "-k", str(self._overlay))
        self.await_ready()

    def uninstall(self) -> None:
        """Take it away and wait until it is gone."""
        self._kubectl("delete", "-k", str(self._overlay), "--wait=true", "--timeout=120s")

    def restart(self) -> None:
        """Begin to replace every pod of the bundle, as an upgrade does."""
        self._kubectl("rollout", "restart", *_WORKERS, "-n", NAMESPACE)

    def await_ready(self) -> None:
        """Wait until every pod of the bundle is ready and new, and every node has its GPUs."""
        for one in _WORKERS:
            self._kubectl("rollout", "status", one, "-n", NAMESPACE, "--timeout=120s")
        for node in self.cluster.kubelets:
            wait_until(lambda node=node: self.allocatable(node) > 0, 30, f"GPUs on {node}")

    def daemons(self, selector: str) -> list[dict[str, Any]]:
        """Return the pods of one of the daemons that are not on their way out."""
        return [
            pod
            for pod in self._get("pods", "-n", NAMESPACE, "-l", selector)["items"]
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def delete_daemon(self, pod: dict[str, Any]) -> None:
        """Delete a pod of the bundle, and wait until it is gone."""
        self._kubectl("delete", "pod", pod["metadata"]["name"], "-n", NAMESPACE)

    def leader(self) -> str:
        """Return who holds the lease of the schedulers: a pod's name, _, and a start's own part."""
        lease = self._get("lease", "gputopo-scheduler", "-n", NAMESPACE)
        return str(lease["spec"].get("holderIdentity") or "")

    def leading_pod(self) -> dict[str, Any]:
        """Return the pod whose kube-scheduler schedules."""
        name = self.leader().partition("_")[0]
        (pod,) = (one for one in self.daemons(SCHEDULER) if one["metadata"]["name"] == name)
        return pod

    def restarts(self, pod: dict[str, Any], container: str) -> int:
        """Return how often a container of the bundle was started again."""
        statuses = pod["status"]["containerStatuses"]
        return next(int(one["restartCount"]) for one in statuses if one["name"] == container)

    def run_in(self, pod: dict[str, Any], container: str, code: str) -> str:
        """Run Python code in a container of the bundle; return what it printed."""
        name = str(pod["metadata"]["name"])
        command = ("exec", name, "-n", NAMESPACE, "-c", container, "--", "python3", "-c", code)
        return self._kubectl(*command).strip()

    # Nodes.

    def allocatable(self, node: str) -> int:
        """Return how many GPUs a node offers."""
        return int(self._get("node", node)["status"]["allocatable"].get(RESOURCE, "0"))

    def annotations(self, node: str) -> dict[str, str]:
        """Return a node's annotations."""
        found: dict[str, str] = self._get("node", node)["metadata"].get("annotations", {})
        return found

    def state(self, node: str) -> NodeState:
        """Return what the plugin has published of a node; nothing held if it has not."""
        text = self.annotations(node).get(STATE_KEY)
        return NodeState(0) if text is None else decode_state(text)

    def held(self, node: str) -> dict[str, Sets]:
        """Return which GPUs kubelet says that pods hold, by PodResources List."""
        socket = self.cluster.kubelets[node].pod_resources_socket
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            answer = api_pb2_grpc.PodResourcesListerStub(channel).List(
                api_pb2.ListPodResourcesRequest(), timeout=5, wait_for_ready=True
            )
        found: dict[str, Sets] = {}
        for pod in answer.pod_resources:
            for container in pod.containers:
                uuids = [one for entry in container.devices for one in entry.device_ids]
                if uuids:
                    found.setdefault(pod.name, {})[container.name] = frozenset(uuids)
        return found

    # The workload.

    def apply(self, body: dict[str, Any]) -> None:
        """Apply a pod or a Deployment by kubectl."""
        self._kubectl("apply", "-f", "-", text=json.dumps(body))

    def await_running(self, name: str, seconds: int = 60) -> None:
        """Wait until every container of a pod runs."""
        self._kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={seconds}s")

    def run(self, pod: dict[str, Any]) -> str:
        """Apply a pod, wait until it runs, and return its name."""
        self.apply(pod)
        name = str(pod["metadata"]["name"])
        self.await_running(name)
        return name

    def kill(self, pod: dict[str, Any], *containers: str) -> None:
        """Kill containers' processes, behind kubelet's back."""
        self.signal("SIGKILL", pod, *containers)

    def signal(self, name: str, pod: dict[str, Any], *containers: str) -> None:
        """Send containers' processes a signal."""
        runtime = self.cluster.runtimes[str(pod["spec"]["nodeName"])]
        for status in pod["status"]["containerStatuses"]:
            if status["name"] in containers:
                container = str(status["containerID"]).removeprefix("containerd://")
                runtime.ctr("tasks", "kill", f"--signal={name}", container)

    def delete(self, name: str) -> None:
        """Delete a pod and wait until it is gone."""
        self._kubectl("delete", "pod", name)

    def pod(self, name: str) -> dict[str, Any]:
        """Return a pod."""
        return self._get("pod", name)

    def node_of(self, name: str) -> str:
        """Return the node that a pod is bound to, "" if it is to none."""
        return str(self.pod(name)["spec"].get("nodeName", ""))

    def chosen(self, name: str) -> Sets:
        """Return the sets that a pod's annotation names."""
        text = self.pod(name)["metadata"].get("annotations", {}).get(ASSIGNMENT_KEY)
        if text is None:
            return {}
        sets = decode_assignment(text).containers
        return {container: frozenset(uuids) for container, uuids in sets.items()}

    def printed(self, name: str) -> Sets:
        """Return the GPUs that each container of a running pod has printed, by kubectl logs."""
        names = [str(one["name"]) for one in self.pod(name)["spec"]["containers"]]
        return {container: self._printed(name, container) for container in names}

    def lives(self, name: str) -> dict[str, tuple[str, int]]:
        """Return each container's id and how often it was started again."""
        statuses = self.pod(name)["status"]["containerStatuses"]
        return {
            str(one["name"]): (str(one.get("containerID", "")), int(one["restartCount"]))
            for one in statuses
        }

    def running(self) -> dict[str, dict[str, Any]]:
        """Return the pods of the workload that run, by name."""
        return {
            str(pod["metadata"]["name"]): pod
            for pod in self._get("pods")["items"]
            if pod["status"].get("phase") == "Running"
        }

    def clear(self) -> None:
        """Delete the whole workload and wait until its GPUs are free."""
        self._kubectl("delete", "deployments,pods", "--all")
        for node in self.cluster.kubelets:
            wait_until(lambda node=node: not self.held(node), 30, f"kubelet to free {node}'s GPUs")
            wait_until(
                lambda node=node: not self.state(node).allocations, 30, f"{node}'s state to say so"
            )

    def _printed(self, name: str, container: str) -> frozenset[str]:
        log = ""

        def all_told() -> bool:
            nonlocal log
            # A container that is just being started has no log, and kubectl complains.
            with contextlib.suppress(StartError):
                log = self._kubectl("logs", name, "-c", container)
            return LAST_LINE in log

        wait_until(all_told, 30, f"the environment of {name}/{container}")
        told = dict(line.split("=", 1) for line in log.splitlines() if "=" in line)
        return frozenset(told[VISIBLE].split(",")) if told.get(VISIBLE) else frozenset()

    def _get(self, *arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._kubectl("get", *arguments, "--output=json"))
        return found


def check_books(bundle: Bundle) -> None:
    """Fail if a GPU is in two containers, or if kubelet or a node's state tells another story."""
    pods = bundle.running()
    seen = {name: bundle.printed(name) for name in pods}
    given = [uuid for sets in seen.values() for uuids in sets.values() for uuid in uuids]
    assert len(given) == len(set(given)), f"a GPU is in two containers: {seen}"
    for node in bundle.cluster.kubelets:
        here = [name for name, pod in pods.items() if pod["spec"]["nodeName"] == node]
        assert bundle.held(node) == {name: seen[name] for name in here if any(seen[name].values())}
        wanted = {
            str(pods[name]["metadata"]["uid"]): frozenset().union(*seen[name].values())
            for name in here
            if any(seen[name].values())
        }
        wait_until(
            lambda node=node, wanted=wanted: (
                {uid: frozenset(uuids) for uid, uuids in bundle.state(node).allocations.items()}
                == wanted
            ),
            30,
            f"{STATE_KEY} of {node} to be {wanted}",
        )
