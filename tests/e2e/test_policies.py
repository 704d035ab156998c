"""The admission policies, as a real API server evaluates them.

Every attempt is a dry run: it passes through admission and leaves nothing behind. All that try
are real users with real tokens; `ben` has every right on pods that RBAC can give.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from runtime.errors import ApiError
from runtime.kube import KubeClient, connect
from tests.e2e.control_plane import ADMIN, SCHEDULER, ControlPlane
from tests.waiting import wait_until
from topology.wire import ASSIGNMENT_KEY, STATE_KEY, TOPOLOGY_KEY

NAMESPACE = "gputopo-system"
PODS = "/api/v1/namespaces/default/pods"
DRY = "?dryRun=All"
FOREIGN = "example.org/owner"

ONLY_SCHEDULER = "the annotation gputopo.dev/gpus is written by the scheduler only"
ONLY_OWN_NODE = "may change the node it runs on only"
ONLY_OUR_KEYS = "may change annotations under gputopo.dev/ only"
ONLY_ANNOTATIONS = "may change nothing of a node but its annotations"

_POD_RESOURCES = ("pods", "pods/status", "pods/binding", "pods/ephemeralcontainers", "bindings")
_RIGHTS = (
    {
        "kind": "ClusterRole",
        "metadata": {"name": "ben"},
        "rules": [{"apiGroups": [""], "resources": _POD_RESOURCES, "verbs": ["*"]}],
    },
    {
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "ben"},
        "roleRef": {"kind": "ClusterRole", "name": "ben", "apiGroup": "rbac.authorization.k8s.io"},
        "subjects": [{"kind": "ServiceAccount", "name": "ben", "namespace": "default"}],
    },
)


class Users(msgspec.Struct, frozen=True):
    """Those who try; `plugin` has the token of its pod on n1, `nowhere` one that names no pod."""

    admin: KubeClient
    ben: KubeClient
    kubelet: KubeClient
    default_scheduler: KubeClient
    plugin: KubeClient
    nowhere: KubeClient
    scheduler: KubeClient


@pytest.fixture(scope="module")
def users(control_plane: ControlPlane) -> Iterator[Users]:
    """Make nodes n1 and n2, and two pods: `chosen` is bound to n1 with a set, `free` is not."""
    plane = control_plane
    with contextlib.ExitStack() as stack:

        def log_in(user: str) -> KubeClient:
            return stack.enter_context(contextlib.closing(connect(str(plane.kubeconfig(user)))))

        def use_token(file: str, account: str, namespace: str, *options: str) -> KubeClient:
            token = plane.kubectl("create", "token", account, "-n", namespace, *options).strip()
            path = str(plane.write_kubeconfig(file, token))
            return stack.enter_context(contextlib.closing(connect(path)))

        admin = log_in(ADMIN)
        for name in ("n1", "n2"):
            metadata = {"name": name, "annotations": {FOREIGN: "lab"}}
            admin.post("/api/v1/nodes", {"metadata": metadata})
        plane.kubectl("create", "serviceaccount", "ben")
        for right in _RIGHTS:
            path = f"/apis/rbac.authorization.k8s.io/v1/{str(right['kind']).lower()}s"
            admin.post(path, right)
        plugin = "gputopo-device-plugin"
        admin.post(
            f"/api/v1/namespaces/{NAMESPACE}/pods",
            _pod("plugin", serviceAccountName=plugin, nodeName="n1"),
        )
        bound = ("--bound-object-kind=Pod", "--bound-object-name=plugin")
        users = Users(
            admin=admin,
            ben=use_token("ben", "ben", "default"),
            kubelet=log_in("system:node:n1"),
            default_scheduler=log_in(SCHEDULER),
            plugin=use_token("plugin", plugin, NAMESPACE, *bound),
            nowhere=use_token("nowhere", plugin, NAMESPACE),
            scheduler=use_token("scheduler", "gputopo-scheduler", NAMESPACE),
        )
        # The API server takes up a policy, and a right, a moment after it was written.
        wait_until(lambda: _is_refused(_create, users.ben, "x"), 30, "the policy on sets")
        wait_until(lambda: _is_refused(_annotate, users.plugin, "n2"), 30, "the policy on nodes")
        wait_until(lambda: not _is_refused(_create, users.ben, None), 30, "the rights of ben")
        for name in ("chosen", "free"):
            admin.post(PODS, _pod(name))
        _bind(users.scheduler, "chosen", "x", dry="")
        yield users


@pytest.mark.parametrize("key", [TOPOLOGY_KEY, STATE_KEY, "gputopo.dev/later"])
@pytest.mark.parametrize("value", ["x", None], ids=["written", "deleted"])
def test_the_plugin_annotates_its_own_node(users: Users, key: str, value: str | None) -> None:
    """Every key below our prefix may be written, and taken back."""
    _patch_node(users.plugin, "n1", annotations={key: value})


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"annotations": {"example.org/new": "x"}}, ONLY_OUR_KEYS),
        ({"annotations": {FOREIGN: "me"}}, ONLY_OUR_KEYS),
        ({"annotations": {FOREIGN: None}}, ONLY_OUR_KEYS),
        ({"annotations": {"gputopo.dev.example.org/x": "x"}}, ONLY_OUR_KEYS),
        ({"labels": {"gputopo.dev/label": "x"}}, ONLY_ANNOTATIONS),
        ({"finalizers": ["gputopo.dev/f"]}, ONLY_ANNOTATIONS),
        (
            {"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "n2", "uid": "u"}]},
            ONLY_ANNOTATIONS,
        ),
        # An allowed change beside it does not let it pass.
        ({"annotations": {STATE_KEY: "x"}, "labels": {"a": "b"}}, ONLY_ANNOTATIONS),
    ],
    ids=["new", "changed", "deleted", "look-alike", "label", "finalizer", "owner", "hidden"],
)
def test_the_plugin_changes_no_other_metadata(
    users: Users, metadata: dict[str, Any], reason: str
) -> None:
    """Other annotations, labels, finalizers and owners of its own node are refused."""
    with pytest.raises(ApiError, match=reason):
        _patch_node(users.plugin, "n1", **metadata)


@pytest.mark.parametrize(
    "spec",
    [{"unschedulable": True}, {"taints": [{"key": "k", "effect": "NoExecute"}]}],
    ids=["cordon", "taint"],
)
def test_the_plugin_changes_no_spec(users: Users, spec: dict[str, Any]) -> None:
    """It can neither empty a node nor keep pods from it."""
    with pytest.raises(ApiError, match=ONLY_ANNOTATIONS):
        users.plugin.patch(f"/api/v1/nodes/n1{DRY}", {"spec": spec})


def test_the_plugin_does_not_touch_another_node(users: Users) -> None:
    """The pod of n1 may not annotate n2, not even with our keys."""
    with pytest.raises(ApiError, match=ONLY_OWN_NODE):
        _annotate(users.plugin, "n2")


def test_a_token_that_names_no_node_is_of_no_use(users: Users) -> None:
    """A token of the account that belongs to no pod may change no node at all."""
    with pytest.raises(ApiError, match=ONLY_OWN_NODE):
        _annotate(users.nowhere, "n1")


@pytest.mark.parametrize(
    "path",
    ["/api/v1/nodes/n1/status", f"{PODS}/free", f"{PODS}/chosen/status"],
    ids=["status-of-a-node", "pod", "status-of-a-pod"],
)
def test_the_plugin_has_no_other_right_to_patch(users: Users, path: str) -> None:
    """RBAC refuses what the policy need not look at."""
    with pytest.raises(ApiError, match="cannot patch resource"):
        users.plugin.patch(path + DRY, {"metadata": {"annotations": {STATE_KEY: "x"}}})


@pytest.mark.parametrize("who", ["admin", "kubelet"])
def test_the_policy_on_nodes_concerns_the_plugin_alone(users: Users, who: str) -> None:
    """Administrators and kubelets change nodes as before."""
    _patch_node(getattr(users, who), "n1", annotations={"example.org/new": "x"})


@pytest.mark.parametrize("who", ["ben", "admin"])
def test_nobody_creates_a_pod_with_a_set(users: Users, who: str) -> None:
    """Not even an administrator: the GPUs could be those that were chosen for another."""
    with pytest.raises(ApiError, match=ONLY_SCHEDULER) as caught:
        _create(getattr(users, who), "x")
    assert (caught.value.status, caught.value.reason) == (403, "Forbidden")


def test_an_empty_set_is_one_too(users: Users) -> None:
    """The presence of the key counts, not its content."""
    with pytest.raises(ApiError, match=ONLY_SCHEDULER):
        _create(users.ben, "")


@pytest.mark.parametrize(
    ("pod", "value"),
    [("free", "x"), ("chosen", "y"), ("chosen", None)],
    ids=["added", "changed", "removed"],
)
@pytest.mark.parametrize("subresource", ["", "/status"])
def test_nobody_changes_a_set(users: Users, pod: str, value: str | None, subresource: str) -> None:
    """Neither through the pod nor through its status, which takes annotations too."""
    patch = {"metadata": {"annotations": {ASSIGNMENT_KEY: value}}}
    with pytest.raises(ApiError, match=ONLY_SCHEDULER):
        users.ben.patch(f"{PODS}/{pod}{subresource}{DRY}", patch)


@pytest.mark.parametrize("who", ["ben", "admin", "default_scheduler"])
@pytest.mark.parametrize("endpoint", ["pods/free/binding", "bindings"])
def test_nobody_else_binds_with_a_set(users: Users, who: str, endpoint: str) -> None:
    """Through either endpoint; the cluster's own scheduler may not say a set either."""
    with pytest.raises(ApiError, match=ONLY_SCHEDULER):
        _bind(getattr(users, who), "free", "x", endpoint)


@pytest.mark.parametrize("endpoint", ["pods/free/binding", "bindings"])
def test_the_own_scheduler_of_the_cluster_binds_as_before(users: Users, endpoint: str) -> None:
    """A Binding without a set is nobody's concern."""
    _bind(users.default_scheduler, "free", None, endpoint)


def test_our_scheduler_binds_with_a_set(users: Users) -> None:
    """Its account may say which GPUs the pod gets."""
    _bind(users.scheduler, "free", "x")


def test_pods_without_a_set_are_created_as_before(users: Users) -> None:
    """What a pod asks of us it may say; only the answer is the scheduler's."""
    pod = _pod("new")
    pod["metadata"]["annotations"] = {"gputopo.dev/profile": "pack"}
    users.ben.post(PODS + DRY, pod)


@pytest.mark.parametrize(
    ("who", "patch", "subresource"),
    [
        ("ben", {"metadata": {"labels": {"a": "b"}}}, ""),
        ("ben", {"metadata": {"annotations": {"gputopo.dev/profile": "pack"}}}, ""),
        ("ben", {"metadata": {"finalizers": ["example.org/f"]}}, ""),
        ("ben", {"spec": {"activeDeadlineSeconds": 9}}, ""),
        ("kubelet", {"status": {"phase": "Running"}}, "/status"),
        (
            "ben",
            {"spec": {"ephemeralContainers": [{"name": "debug", "image": "debug"}]}},
            "/ephemeralcontainers",
        ),
    ],
    ids=["label", "request", "finalizer", "spec", "kubelet", "debug"],
)
def test_a_pod_with_a_set_changes_as_before(
    users: Users, who: str, patch: dict[str, Any], subresource: str
) -> None:
    """Users, controllers and kubelet leave the set as it is, and are not held up."""
    client: KubeClient = getattr(users, who)
    changed = json.loads(client.patch(f"{PODS}/chosen{subresource}{DRY}", patch))
    assert changed["metadata"]["annotations"][ASSIGNMENT_KEY] == "x"


def test_a_pod_with_a_set_is_deleted_as_before(users: Users) -> None:
    """Deletion is nobody's concern."""
    users.ben.delete(f"{PODS}/chosen{DRY}")


def _pod(name: str, set_: str | None = None, **spec: Any) -> dict[str, Any]:
    annotations = {} if set_ is None else {ASSIGNMENT_KEY: set_}
    return {
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"containers": [{"name": "main", "image": "main"}], **spec},
    }


def _create(client: KubeClient, set_: str | None) -> None:
    client.post(PODS + DRY, _pod("new", set_))


def _annotate(client: KubeClient, node: str) -> None:
    _patch_node(client, node, annotations={STATE_KEY: "x"})


def _patch_node(client: KubeClient, node: str, **metadata: Any) -> None:
    client.patch(f"/api/v1/nodes/{node}{DRY}", {"metadata": metadata})


def _bind(
    client: KubeClient, pod: str, set_: str | None, endpoint: str | None = None, *, dry: str = DRY
) -> None:
    binding = {
        "metadata": _pod(pod, set_)["metadata"],
        "target": {"kind": "Node", "name": "n1"},
    }
    place = endpoint or f"pods/{pod}/binding"
    client.post(f"/api/v1/namespaces/default/{place}{dry}", binding)


def _is_refused(attempt: Any, client: KubeClient, what: str | None) -> bool:
    try:
        attempt(client, what)
    except ApiError:
        return True
    return False
