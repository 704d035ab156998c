"""Create, update, patch and delete, one rule of the real server each."""

from __future__ import annotations

from typing import Any

import pytest

from embedded.apiserver.api import Api, decode_body
from embedded.apiserver.errors import ApiRefusal
from embedded.apiserver.resources import LEASES, NODES, PODS, Resource, Target
from tests.embedded.apiserver.conftest import NOW

PODS_HERE = Target(PODS, "default")
POD = Target(PODS, "default", "p")
POD_STATUS = Target(PODS, "default", "p", "status")
NODE = Target(NODES, "", "n")


def refused(run: Any, *arguments: Any) -> ApiRefusal:
    """Call a verb that is refused and return the refusal."""
    with pytest.raises(ApiRefusal) as caught:
        run(*arguments)
    return caught.value


def test_create_gives_identity_and_version(api: Api, a_pod: Any) -> None:
    """The uid, version, time, kind and namespace are the server's to set."""
    made = api.create(PODS_HERE, a_pod()).object
    assert (made["kind"], made["apiVersion"]) == ("Pod", "v1")
    assert made["metadata"]["namespace"] == "default"
    assert made["metadata"]["creationTimestamp"] == NOW
    assert made["metadata"]["uid"]
    assert made["metadata"]["resourceVersion"] == str(api.store.version)


def test_generated_names_differ(api: Api, a_pod: Any) -> None:
    """A generateName gets five letters."""
    bodies = [{**a_pod(), "metadata": {"generateName": "job-"}} for _ in range(50)]
    names = {api.create(PODS_HERE, body).name[1] for body in bodies}
    assert len(names) == 50
    assert all(name.startswith("job-") and len(name) == 9 for name in names)


def test_a_second_object_of_a_name_is_refused(api: Api, a_pod: Any) -> None:
    """Create of what exists is 409 AlreadyExists."""
    api.create(PODS_HERE, a_pod())
    refusal = refused(api.create, PODS_HERE, a_pod())
    assert (refusal.code, refusal.reason) == (409, "AlreadyExists")


def test_a_new_pod_is_pending_and_unbound(api: Api, a_pod: Any) -> None:
    """A status in the body of a create is ignored for pods; defaults are filled in."""
    body = {**a_pod(), "status": {"phase": "Running"}}
    made = api.create(PODS_HERE, body).object
    assert made["status"]["phase"] == "Pending"
    assert made["spec"]["schedulerName"] == "default-scheduler"


def test_limits_become_requests(api: Api) -> None:
    """A limit without a request is the request, as API defaulting has it."""
    resources = {"limits": {"nvidia.com/gpu": "2", "cpu": "4"}, "requests": {"cpu": "1"}}
    body = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}]}}
    body["spec"]["containers"][0]["resources"] = resources
    [container] = api.create(PODS_HERE, body).object["spec"]["containers"]
    assert container["resources"]["requests"] == {"nvidia.com/gpu": "2", "cpu": "1"}


def test_a_new_node_keeps_its_status(api: Api) -> None:
    """Nodes may be created with their capacity."""
    body = {"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "4"}}}
    assert api.create(Target(NODES), body).object["status"] == {"capacity": {"cpu": "4"}}


BROKEN: list[tuple[str, dict[str, Any], int, str]] = [
    ("no metadata", {"spec": {}}, 400, "no metadata"),
    ("no name", {"metadata": {}}, 422, "name or generateName is required"),
    ("a bad name", {"metadata": {"name": "Not_Good"}}, 422, "Invalid value"),
    ("no containers", {"metadata": {"name": "p"}}, 422, "spec.containers: Required"),
    (
        "a nameless container",
        {"metadata": {"name": "p"}, "spec": {"containers": [{}]}},
        422,
        r"containers\[0\].name",
    ),
    ("another namespace", {"metadata": {"name": "p", "namespace": "x"}}, 400, "namespace"),
    ("another kind", {"kind": "Node", "metadata": {"name": "p"}}, 400, "the kind in the data"),
    ("a version", {"metadata": {"name": "p", "resourceVersion": "1"}}, 400, "should not be set"),
    (
        "a number as annotation",
        {"metadata": {"name": "p", "annotations": {"a": 1}}},
        400,
        "maps texts to texts",
    ),
    (
        "too much annotation",
        {"metadata": {"name": "p", "annotations": {"a": "x" * 262_144}}},
        422,
        "Too long",
    ),
    ("a text as spec", {"metadata": {"name": "p"}, "spec": "x"}, 400, "not an object"),
]


@pytest.mark.parametrize(
    ("body", "code", "text"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN]
)
def test_what_cannot_be_created_is_refused(
    api: Api, body: dict[str, Any], code: int, text: str
) -> None:
    """Each mistake has its code and says what is wrong."""
    with pytest.raises(ApiRefusal, match=text) as caught:
        api.create(PODS_HERE, body)
    assert caught.value.code == code


def test_an_update_with_a_stale_version_is_refused(api: Api, a_pod: Any) -> None:
    """Somebody else's write in between is 409, and the object stays as that one left it."""
    old = api.create(PODS_HERE, a_pod()).object
    api.patch(POD, {"metadata": {"labels": {"a": "b"}}})
    refusal = refused(api.update, POD, old)
    assert (refusal.code, refusal.reason) == (409, "Conflict")
    assert api.get(POD).object["metadata"]["labels"] == {"a": "b"}


def test_a_lease_without_a_version_is_not_updated(api: Api) -> None:
    """Leases need the version that was read; nodes do not."""
    api.create(Target(LEASES, "default"), {"metadata": {"name": "l"}})
    api.create(Target(NODES), {"metadata": {"name": "n"}})
    body = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    assert refused(api.update, Target(LEASES, "default", "l"), body).code == 422
    api.update(NODE, {"metadata": {"name": "n", "labels": {"a": "b"}}})
    assert api.get(NODE).object["metadata"]["labels"] == {"a": "b"}


def test_a_patch_with_a_version_is_conditional(api: Api, a_pod: Any) -> None:
    """A resourceVersion inside a patch must be the present one."""
    version = api.create(PODS_HERE, a_pod()).object["metadata"]["resourceVersion"]
    patch = {"metadata": {"resourceVersion": version, "labels": {"a": "1"}}}
    api.patch(POD, patch)
    assert refused(api.patch, POD, patch).code == 409


@pytest.mark.parametrize("metadata", [None, "x", []])
def test_a_patch_without_usable_metadata_is_a_bad_request(
    api: Api, a_pod: Any, metadata: Any
) -> None:
    """Metadata can be neither taken away nor replaced by something else."""
    api.create(PODS_HERE, a_pod())
    assert refused(api.patch, POD, {"metadata": metadata}).code == 400


def test_a_plain_update_leaves_the_status_and_a_status_update_the_spec(
    api: Api, a_pod: Any
) -> None:
    """Each of the two writes its own half; annotations go with both."""
    api.create(PODS_HERE, a_pod())
    api.patch(POD, {"status": {"phase": "Failed"}, "metadata": {"annotations": {"a": "1"}}})
    api.patch(POD_STATUS, {"status": {"phase": "Running"}, "spec": {"nodeName": "n"}})
    pod = api.get(POD).object
    assert pod["status"]["phase"] == "Running"
    assert "nodeName" not in pod["spec"]
    assert pod["metadata"]["annotations"] == {"a": "1"}


def test_a_pods_node_is_set_by_a_binding_only(api: Api, a_pod: Any) -> None:
    """A patch of the spec is 422."""
    api.create(PODS_HERE, a_pod())
    refusal = refused(api.patch, POD, {"spec": {"nodeName": "n1"}})
    assert (refusal.code, refusal.reason) == (422, "Invalid")


def test_scheduling_gates_can_be_taken_away(api: Api, a_pod: Any) -> None:
    """Of a pod's spec, gates may go but not come."""
    api.create(PODS_HERE, a_pod(spec={"schedulingGates": [{"name": "g"}]}))
    api.patch(POD, {"spec": {"schedulingGates": []}})
    assert refused(api.patch, POD, {"spec": {"schedulingGates": [{"name": "h"}]}}).code == 422


def test_identity_survives_an_update(api: Api, a_pod: Any) -> None:
    """The uid, name and creation time are what they were, whatever a patch says."""
    before = api.create(PODS_HERE, a_pod()).object["metadata"]
    assert refused(api.patch, POD, {"metadata": {"uid": "mine"}}).code == 409
    api.patch(POD, {"metadata": {"creationTimestamp": None, "labels": {"a": "b"}}})
    after = api.get(POD).object["metadata"]
    assert {k: after[k] for k in ("uid", "creationTimestamp")} == {
        k: before[k] for k in ("uid", "creationTimestamp")
    }


def test_a_write_that_changes_nothing_makes_no_version(api: Api, a_pod: Any) -> None:
    """Neither a version nor an event follows."""
    api.create(PODS_HERE, a_pod(labels={"a": "b"}))
    version = api.store.version
    api.patch(POD, {"metadata": {"labels": {"a": "b"}}})
    assert api.store.version == version


def test_a_delete_is_a_version_of_its_own(api: Api, a_pod: Any) -> None:
    """The last state carries the version of the deletion, so that watches can go on from it."""
    made = api.create(PODS_HERE, a_pod())
    gone = api.delete(POD)
    assert gone.version == made.version + 1 == api.store.version
    assert gone.object["metadata"]["resourceVersion"] == str(gone.version)
    assert refused(api.get, POD).code == 404


def test_a_delete_honours_its_preconditions(api: Api, a_pod: Any) -> None:
    """Another uid is 409 and deletes nothing."""
    api.create(PODS_HERE, a_pod())
    assert refused(api.delete, POD, {"preconditions": {"uid": "other"}}).code == 409
    assert api.get(POD)


def test_finalizers_hold_an_object_back(api: Api, a_pod: Any) -> None:
    """It is marked, and goes when the last finalizer does."""
    api.create(PODS_HERE, a_pod(finalizers=["x/y"]))
    api.delete(POD)
    assert api.get(POD).object["metadata"]["deletionTimestamp"] == NOW
    api.patch(POD, {"metadata": {"finalizers": None}})
    assert refused(api.get, POD).code == 404


def _bound(api: Api, a_pod: Any, **status: str) -> None:
    made = a_pod()
    made["spec"] |= {"nodeName": "n1", "terminationGracePeriodSeconds": 30}
    api.create(PODS_HERE, made)
    if status:
        api.patch(POD_STATUS, {"status": status})


def test_a_bound_pod_waits_for_its_kubelet(api: Api, a_pod: Any) -> None:
    """It is marked, may still be written to, and goes when it is deleted with no grace."""
    _bound(api, a_pod)
    api.delete(POD)
    version = api.store.version
    api.delete(POD)
    assert api.store.version == version
    meta = api.get(POD).object["metadata"]
    assert (meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"]) == (NOW, 30)
    api.patch(POD, {"metadata": {"labels": {"a": "b"}}})
    assert api.get(POD)
    api.delete(POD, {"gracePeriodSeconds": 0})
    assert refused(api.get, POD).code == 404


@pytest.mark.parametrize(
    ("first", "second", "stands"), [(30, 10, 10), (10, 30, 10), (10, None, 10), (-5, None, 1)]
)
def test_a_grace_is_only_shortened(
    api: Api, a_pod: Any, first: int, second: int | None, stands: int
) -> None:
    """A second deletion may make it shorter, never longer; a negative one is a second."""
    _bound(api, a_pod)
    api.delete(POD, {"gracePeriodSeconds": first})
    api.delete(POD, {} if second is None else {"gracePeriodSeconds": second})
    assert api.get(POD).object["metadata"]["deletionGracePeriodSeconds"] == stands


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_goes_at_once(api: Api, a_pod: Any, phase: str) -> None:
    """There is nothing left for its kubelet to end."""
    _bound(api, a_pod, phase=phase)
    api.delete(POD)
    assert refused(api.get, POD).code == 404


@pytest.mark.parametrize("resource", [PODS, NODES, LEASES], ids=lambda r: r.kind)
def test_the_unknown_is_not_found(api: Api, resource: Resource) -> None:
    """Every verb on a missing object is 404."""
    target = Target(resource, "default" if resource.namespaced else "", "none")
    for run, arguments in ((api.get, ()), (api.delete, ()), (api.patch, ({},))):
        assert refused(run, target, *arguments).code == 404


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'"x"', b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_object_is_a_bad_request(body: bytes) -> None:
    """Garbage is 400, never a failure of the server."""
    assert refused(decode_body, body).code == 400
