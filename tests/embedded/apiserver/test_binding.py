"""The Binding subresource as a table: what is bound, what is refused, and with which text."""

from __future__ import annotations

from typing import Any

import pytest

from embedded.apiserver.api import Api
from embedded.apiserver.errors import ApiRefusal
from embedded.apiserver.resources import BINDINGS, PODS, Target

POD = Target(PODS, "default", "p")
BINDING = Target(PODS, "default", "p", "binding")
TO_N1 = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}


def create(api: Api, pod: dict[str, Any]) -> dict[str, Any]:
    """Create a pod and return it as it is stored."""
    return api.create(Target(PODS, "default"), pod).object


def binding(**meta: Any) -> dict[str, Any]:
    """Make a Binding to n1 with more metadata."""
    return {**TO_N1, "metadata": {"name": "p", **meta}}


def test_one_write_sets_node_annotations_labels_and_condition(api: Api, a_pod: Any) -> None:
    """All of a Binding is seen in one version: exactly one change follows the create."""
    create(api, a_pod(annotations={"keep": "1", "both": "old"}, labels={"l": "1"}))
    before = api.store.version
    api.bind(BINDING, binding(annotations={"both": "new", "set": "x"}, labels={"zone": "a"}))
    [change] = api.store.since(PODS.key, before)
    bound = change.after.object
    assert bound["spec"]["nodeName"] == "n1"
    assert bound["metadata"]["annotations"] == {"keep": "1", "both": "new", "set": "x"}
    assert bound["metadata"]["labels"] == {"l": "1", "zone": "a"}
    [condition] = bound["status"]["conditions"]
    assert (condition["type"], condition["status"]) == ("PodScheduled", "True")
    assert int(bound["metadata"]["resourceVersion"]) == before + 1


def test_the_condition_replaces_an_unschedulable_one(api: Api, a_pod: Any) -> None:
    """PodScheduled stands once, and other conditions stay."""
    create(api, a_pod())
    told = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
    conditions = [*told, {"type": "Other", "status": "True"}]
    api.patch(Target(PODS, "default", "p", "status"), {"status": {"conditions": conditions}})
    api.bind(BINDING, TO_N1)
    left = api.get(POD).object["status"]["conditions"]
    assert sorted((c["type"], c["status"]) for c in left) == [
        ("Other", "True"),
        ("PodScheduled", "True"),
    ]
    assert "reason" not in left[-1]


def test_the_old_collection_endpoint_binds_alike(api: Api, a_pod: Any) -> None:
    """POST to `bindings` takes the pod's name from the Binding."""
    create(api, a_pod())
    api.bind(Target(PODS, "default", "", BINDINGS), binding(annotations={"set": "x"}))
    bound = api.get(POD).object
    assert (bound["spec"]["nodeName"], bound["metadata"]["annotations"]) == ("n1", {"set": "x"})


def test_a_dry_run_checks_and_writes_nothing(api: Api, a_pod: Any) -> None:
    """dryRun=All answers as the real call would."""
    create(api, a_pod())
    version = api.store.version
    api.bind(BINDING, TO_N1, dry_run=True)
    assert api.store.version == version
    api.bind(BINDING, TO_N1)
    with pytest.raises(ApiRefusal):
        api.bind(BINDING, TO_N1, dry_run=True)


def test_matching_preconditions_are_met(api: Api, a_pod: Any) -> None:
    """The pod's own uid and version bind."""
    meta = create(api, a_pod())["metadata"]
    api.bind(BINDING, binding(uid=meta["uid"], resourceVersion=meta["resourceVersion"]))
    assert api.get(POD).object["spec"]["nodeName"] == "n1"


REFUSALS = [
    ("another uid", {}, binding(uid="other"), 409, "Precondition failed: UID"),
    ("another version", {}, binding(resourceVersion="999"), 409, "ResourceVersion"),
    ("bound already", {"nodeName": "n0"}, TO_N1, 409, 'already assigned to node "n0"'),
    ("gated", {"schedulingGates": [{"name": "g"}]}, TO_N1, 409, "schedulingGates"),
    ("no target", {}, {"metadata": {"name": "p"}}, 422, "target.name: Required value"),
    ("empty target", {}, {"target": {"name": ""}}, 422, "target.name: Required value"),
    ("a pod as target", {}, {"target": {"kind": "Pod", "name": "x"}}, 422, "target.kind"),
    ("another name", {}, {**TO_N1, "metadata": {"name": "q"}}, 400, "name in URL"),
]


@pytest.mark.parametrize("row", [r[1:] for r in REFUSALS], ids=[r[0] for r in REFUSALS])
def test_what_cannot_be_bound_is_refused_and_unchanged(api: Api, a_pod: Any, row: Any) -> None:
    """Each refusal has its code and text, and the pod stays as it was."""
    spec, body, code, text = row
    before = create(api, a_pod(spec=spec))
    with pytest.raises(ApiRefusal, match=text) as caught:
        api.bind(BINDING, body)
    assert caught.value.code == code
    assert api.get(POD).object == before


def test_a_pod_that_is_being_deleted_is_refused(api: Api, a_pod: Any) -> None:
    """A deletionTimestamp is 409."""
    create(api, a_pod(finalizers=["x/y"]))
    api.delete(POD)
    with pytest.raises(ApiRefusal, match="being deleted") as caught:
        api.bind(BINDING, TO_N1)
    assert caught.value.code == 409


def test_an_unknown_pod_is_404(api: Api) -> None:
    """There is nothing to bind."""
    with pytest.raises(ApiRefusal, match='pods "p" not found') as caught:
        api.bind(BINDING, TO_N1)
    assert caught.value.code == 404
