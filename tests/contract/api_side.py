"""What a cluster of either kind does alike: through its API server, gates and mock machines."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from mock_nvml import gpu_uuid
from runtime.errors import ApiError, ConflictError, NotFoundError
from runtime.kube import KubeClient
from runtime.objects import Node
from tests.contract.cluster import MACHINES, Binding, Effect, Fate, PodPlan, Sets
from tests.contract.http_gate import Mode
from tests.contract.pair import Pair
from tests.contract.world import NAMESPACE, RESOURCE
from tests.waiting import wait_until
from topology.errors import WireError
from topology.wire import ASSIGNMENT_KEY, STATE_KEY, NodeState, decode_assignment, decode_state

GPUS: Final = 8
LEASE: Final = "gputopo-scheduler"

PODS: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/{}/leases"
_EVENTS: Final = f"/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events"
_CLASSES: Final = "/apis/scheduling.k8s.io/v1/priorityclasses"
_TAINT: Final = "contract"
_HOST: Final = "kubernetes.io/hostname"
_MODES: Final[dict[Fate, Mode]] = {
    "free": "open",
    "held": "hold",
    "withheld": "withhold",
    "lost": "lose",
}
_PATIENCE: Final = 30.0

# Times are short so that the cases are; none of them is what a case is about.
PLUGIN_SETTINGS: Final = {
    "probe_seconds": 0.2,
    "recovery_hold_seconds": 0.3,
    "reinit_seconds": 0.2,
    "publish_seconds": 0.05,
    "read_back_seconds": 0.3,
}


class ApiSide:
    """The part of `tests.contract.cluster.Cluster` that asks the API server, or a gate.

    `client` reaches the API server past all gates. `faults` are the files that the nodes' mock
    machines follow.
    """

    lease_namespace = "kube-system"

    def __init__(self, client: KubeClient, faults: dict[str, Path]) -> None:
        self._client = client
        self._faults = faults
        self._pairs: list[Pair] = []
        self._names = {
            gpu_uuid(node, gpu): f"{node}/{gpu}" for node in MACHINES for gpu in range(GPUS)
        }

    def submit(self, pod: PodPlan) -> str:
        """Create the pod; return its UID."""
        if pod.priority:
            self._make_class(pod)
        made = self._client.post(PODS, _manifest(pod))
        return str(msgspec.json.decode(made)["metadata"]["uid"])

    def delete(self, name: str) -> None:
        """Ask for the pod's end."""
        self._client.delete(f"{PODS}/{name}")

    def annotate(self, name: str, text: str) -> None:
        """Change an annotation of the pod that nobody of ours reads."""
        self._client.patch(f"{PODS}/{name}", {"metadata": {"annotations": {"note": text}}})

    def phase(self, name: str) -> tuple[str, str, str]:
        """Return a pod's phase, reason and message."""
        status = self._pod(name).get("status", {})
        return tuple(str(status.get(key, "")) for key in ("phase", "reason", "message"))  # type: ignore[return-value]  # three keys

    def verdict(self, name: str) -> tuple[str, str]:
        """Return reason and message of a pod's PodScheduled condition."""
        for condition in self._pod(name).get("status", {}).get("conditions") or ():
            if condition["type"] == "PodScheduled":
                return str(condition.get("reason", "")), str(condition.get("message", ""))
        return "", ""

    def events(self, name: str) -> tuple[tuple[str, str], ...]:
        """Return reason and note of the events about a pod, oldest first."""
        items = self._items(_EVENTS)
        about = [each for each in items if (each.get("regarding") or {}).get("name") == name]
        about.sort(key=lambda each: str(each["metadata"].get("creationTimestamp")))
        return tuple((str(each.get("reason")), str(each.get("note"))) for each in about)

    def version(self, name: str) -> str:
        """Return a pod's resourceVersion."""
        return str(self._pod(name)["metadata"]["resourceVersion"])

    def uid(self, name: str) -> str:
        """Return a pod's UID."""
        return str(self._pod(name)["metadata"]["uid"])

    def node_of(self, name: str) -> str | None:
        """Return the node that the pod is bound to."""
        return self._pod(name).get("spec", {}).get("nodeName")

    def set_of(self, name: str) -> Sets | None:
        """Return what the pod's annotation names."""
        text = (self._pod(name).get("metadata", {}).get("annotations") or {}).get(ASSIGNMENT_KEY)
        return None if text is None else self._sets(text)

    def state(self, node: str) -> NodeState | None:
        """Return what the node's annotation says."""
        text = self._node(node).metadata.annotation(STATE_KEY)
        try:
            return None if text is None else decode_state(text)
        except WireError as error:
            raise AssertionError(f"{node}: {error}") from error

    def held(self, node: str) -> dict[str, frozenset[str]]:
        """Return the node's published allocations."""
        state = self.state(node)
        allocations = {} if state is None else state.allocations
        return {uid: self.called(uuids) for uid, uuids in allocations.items()}

    def allocatable(self, node: str) -> int:
        """Return how many GPUs node.status offers."""
        return int((self._node(node).status.allocatable or {}).get(RESOURCE, "0"))

    def cordon(self, node: str, on: bool = True) -> None:
        """Mark a node unschedulable, or schedulable again."""
        self._change(node, {"unschedulable": on or None})

    def taint(self, node: str, effect: Effect) -> None:
        """Give a node a taint."""
        self._change(node, {"taints": [{"key": _TAINT, "effect": effect}]})

    def untaint(self, node: str) -> None:
        """Take it away."""
        self._change(node, {"taints": None})

    def lose_gpu(self, node: str, gpu: int) -> None:
        """Let a GPU fall off the bus."""
        self._befall(node, {"kind": "lost", "gpu": gpu})

    def heal_gpus(self, node: str) -> None:
        """Let all GPUs of a node be well again."""
        self._befall(node, {"kind": "recover"})

    def leader(self) -> str:
        """Return the name of the pair that leads."""
        pair = self._leading()
        return "" if pair is None else pair.name

    def kill_leader(self) -> None:
        """End the leading pair at once."""
        self._led().kill()

    def restart_extender(self) -> None:
        """Kill the leading pair's extender and start it again."""
        pair = self._led()
        pair.kill_extender()
        pair.start()
        pair.wait_ready()

    def bindings(self, fate: Fate) -> None:
        """Decide what befalls the Bindings of extenders."""
        for pair in self._pairs:
            pair.extender_gate.set("binding", _MODES[fate])

    def bind_answers(self, fate: Fate) -> None:
        """Decide what befalls the answers to bind calls."""
        for pair in self._pairs:
            pair.verbs_gate.set("bind", _MODES[fate])

    def waiting_bindings(self) -> tuple[Binding, ...]:
        """Return the Bindings that wait."""
        found = []
        for pair in self._pairs:
            for held in pair.extender_gate.held():
                if held.kind != "binding":
                    continue
                body = msgspec.json.decode(held.body)
                text = body["metadata"]["annotations"][ASSIGNMENT_KEY]
                found.append(
                    Binding(
                        pair.name,
                        body["metadata"]["name"],
                        body["target"]["name"],
                        self._sets(text),
                        held.passed,
                    )
                )
        return tuple(found)

    def bind_calls(self) -> int:
        """Return how many bind calls kube-schedulers have made so far."""
        return sum(pair.verbs_gate.seen("bind") for pair in self._pairs)

    def abandoned_binds(self) -> int:
        """Return how many bind calls wait for an answer that kube-scheduler no longer waits for."""
        return sum(pair.verbs_gate.abandoned("bind") for pair in self._pairs)

    def hold_watches(self) -> None:
        """Let the watches of extenders and kube-schedulers fall silent."""
        for pair in self._pairs:
            pair.scheduler_gate.set("watch", "hold")
            pair.extender_gate.set("watch", "hold")

    def cut_watches(self) -> None:
        """Cut the extenders' watches."""
        for pair in self._pairs:
            pair.extender_gate.cut_watches()

    def expired_watches(self) -> int:
        """Return how many of the extenders' watches were answered with 410 so far."""
        return sum(pair.extender_gate.gone for pair in self._pairs)

    def release(self, pair: str = "") -> None:
        """Let go all that is held back, or what is held back of one pair."""
        for each in self._pairs:
            if pair in {"", each.name}:
                for gate in each.gates:
                    gate.release()

    def vain_requests(self) -> int:
        """Return how many requests of extenders and kube-schedulers found no API server so far."""
        gates = (gate for pair in self._pairs for gate in (pair.scheduler_gate, pair.extender_gate))
        return sum(gate.vain for gate in gates)

    def explain(self, path: str) -> Any:
        """Ask the explain API of the leading pair's extender."""
        return self._led().explain(path)

    def count(self, name: str, **labels: str) -> float:
        """Return a metric of the leading pair's extender."""
        return self._led().count(name, **labels)

    def settle(self) -> None:
        """Delete all pods, undo all faults, and wait until the cluster is as at the start."""
        self.start_api()
        self.release()
        for pair in self._pairs:
            pair.start()
        for node in MACHINES:
            self.heal_gpus(node)
            self.untaint(node)
            self.cordon(node, on=False)
        for pod in self._items(PODS):
            with contextlib.suppress(NotFoundError):
                self.delete(pod["metadata"]["name"])
        wait_until(lambda: not self._items(PODS), _PATIENCE, "all pods to be gone")
        for node in MACHINES:
            wait_until(lambda node=node: self._whole(node), _PATIENCE, f"{node} to be whole")  # type: ignore[misc]  # a default binds the loop's value
            (self._faults[node]).write_text("[]")
        for pair in self._pairs:
            pair.wait_ready()
        wait_until(self.leader, _PATIENCE, "a leader")

    def start_api(self) -> None:
        """Let the API server come back."""
        raise NotImplementedError

    def called(self, uuids: Iterable[str]) -> frozenset[str]:
        """Return GPUs by the names that cases use."""
        return frozenset(self._names[uuid] for uuid in uuids)

    def _sets(self, text: str) -> dict[str, frozenset[str]]:
        containers = decode_assignment(text).containers
        return {name: self.called(uuids) for name, uuids in containers.items()}

    def _whole(self, node: str) -> bool:
        state = self.state(node)
        return (
            state is not None
            and not state.unhealthy
            and not state.allocations
            and self.allocatable(node) == GPUS
        )

    def _leading(self) -> Pair | None:
        path = f"{_LEASES.format(self.lease_namespace)}/{LEASE}"
        try:
            lease = msgspec.json.decode(self._client.get(path))
        except NotFoundError:
            return None
        holder = str(lease["spec"].get("holderIdentity") or "").encode()
        for pair in self._pairs:
            if holder and pair.alive and holder in pair.scheduler_gate.last_lease:
                return pair
        return None

    def _led(self) -> Pair:
        wait_until(self._leading, _PATIENCE, "a leader")
        pair = self._leading()
        assert pair is not None
        return pair

    def _make_class(self, pod: PodPlan) -> None:
        """See that there is a class of the pod's priority, and that admission knows of it."""
        made = {"metadata": {"name": _class_name(pod.priority)}, "value": pod.priority}
        with contextlib.suppress(ConflictError):
            self._client.post(_CLASSES, made)

        def is_known() -> bool:
            try:
                self._client.post(PODS, _manifest(pod), {"dryRun": "All"})
            except ApiError as error:
                if error.status != 403:
                    raise
                return False
            return True

        wait_until(is_known, _PATIENCE, "the priority class to be known")

    def _change(self, node: str, spec: dict[str, Any]) -> None:
        """Change a node's spec; return when the kube-schedulers have been told."""
        before = msgspec.json.decode(self._client.get(_node_path(node)))
        after = msgspec.json.decode(self._client.patch(_node_path(node), {"spec": spec}))
        version = str(after["metadata"]["resourceVersion"])
        for pair in self._pairs:
            if after["spec"] != before["spec"] and pair.alive:
                wait_until(
                    lambda pair=pair: pair.scheduler_gate.passed(version),  # type: ignore[misc]  # a default binds the loop's value
                    _PATIENCE,
                    f"the kube-scheduler of pair {pair.name} to be told of {node}",
                )

    def _befall(self, node: str, fault: dict[str, Any]) -> None:
        path = self._faults[node]
        told = msgspec.yaml.decode(path.read_bytes())
        path.write_bytes(msgspec.yaml.encode([*told, {"at": 0, **fault}]))

    def _items(self, path: str) -> list[dict[str, Any]]:
        return list(msgspec.json.decode(self._client.get(path))["items"])

    def _pod(self, name: str) -> dict[str, Any]:
        try:
            return dict(msgspec.json.decode(self._client.get(f"{PODS}/{name}")))
        except NotFoundError:
            return {}

    def _node(self, name: str) -> Node:
        return msgspec.json.decode(self._client.get(_node_path(name)), type=Node)


def _node_path(node: str) -> str:
    return f"/api/v1/nodes/{node}"


def _class_name(priority: int) -> str:
    return f"contract-{priority}"


def _manifest(pod: PodPlan) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "schedulerName": pod.scheduler,
        "containers": [_container(*each) for each in pod.gpus.items()],
        # A runtime that starts nothing ends `true` at once.
        "initContainers": [{**_container(*each), "command": ["true"]} for each in pod.init.items()],
        "tolerations": [{"key": key, "operator": "Exists"} for key in pod.tolerates],
        # 0 would take a pod from the API server before its containers have ended.
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
    }
    if pod.only is not None:
        spec["nodeSelector"] = {_HOST: pod.only}
    if pod.priority:
        spec["priorityClassName"] = _class_name(pod.priority)
    if pod.prefers is not None:
        term = {"key": _HOST, "operator": "In", "values": [pod.prefers]}
        preferred = {"weight": 100, "preference": {"matchExpressions": [term]}}
        spec["affinity"] = {
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}
        }
    meta = {"name": pod.name, "namespace": NAMESPACE, "annotations": pod.notes}
    return {"metadata": meta, "spec": spec}


def _container(name: str, count: int) -> dict[str, Any]:
    limits = {RESOURCE: str(count)} if count else {}
    return {"name": name, "image": "x", "resources": {"limits": limits}}
