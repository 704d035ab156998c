"""Lists: selectors, order, and pages of one consistent state."""

from __future__ import annotations

from typing import Any

import pytest

from embedded.apiserver.api import Api
from embedded.apiserver.errors import ApiRefusal
from embedded.apiserver.resources import NODES, PODS, Target

EVERYWHERE = Target(PODS)


@pytest.fixture
def filled(api: Api, a_pod: Any) -> Api:
    """Four pods in two namespaces, one of them bound, one of them finished."""
    for namespace, name, spec, labels in (
        ("default", "a", {"nodeName": "n1"}, {"app": "web", "tier": "1"}),
        ("default", "b", {}, {"app": "db"}),
        ("default", "c", {}, {}),
        ("other", "a", {}, {"app": "web"}),
    ):
        api.create(Target(PODS, namespace), a_pod(name, spec, labels=labels))
    done = {"status": {"phase": "Succeeded"}}
    api.patch(Target(PODS, "default", "c", "status"), done)
    return api


def names(api: Api, target: Target = EVERYWHERE, labels: str = "", fields: str = "") -> list[str]:
    """Say what a list finds, as namespace/name."""
    return ["/".join(entry.name) for entry in api.list(target, labels, fields).entries]


def test_lists_are_ordered_and_bounded_by_the_namespace(filled: Api) -> None:
    """All namespaces, or one."""
    assert names(filled) == ["default/a", "default/b", "default/c", "other/a"]
    assert names(filled, Target(PODS, "other")) == ["other/a"]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ("spec.nodeName=n1", ["default/a"]),
        ("spec.nodeName=", ["default/b", "default/c", "other/a"]),
        ("spec.nodeName!=n1", ["default/b", "default/c", "other/a"]),
        ("metadata.name=a", ["default/a", "other/a"]),
        ("metadata.name==a,metadata.namespace=other", ["other/a"]),
        ("status.phase=Succeeded", ["default/c"]),
        ("status.phase!=Succeeded,status.phase!=Failed,spec.nodeName=n1", ["default/a"]),
    ],
)
def test_field_selectors(filled: Api, fields: str, found: list[str]) -> None:
    """Equal, not equal, empty and all of them together."""
    assert names(filled, fields=fields) == found


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        ("app=web", ["default/a", "other/a"]),
        ("app==web,tier=1", ["default/a"]),
        ("app!=web", ["default/b", "default/c"]),
        ("app in (web, db)", ["default/a", "default/b", "other/a"]),
        ("app notin (web)", ["default/b", "default/c"]),
        ("tier", ["default/a"]),
        ("!app", ["default/c"]),
    ],
)
def test_label_selectors(filled: Api, labels: str, found: list[str]) -> None:
    """Equality, sets and existence; a missing label is not equal to anything."""
    assert names(filled, labels=labels) == found


def test_a_bool_is_selected_by_its_text(api: Api) -> None:
    """spec.unschedulable of nodes."""
    api.create(Target(NODES), {"metadata": {"name": "a"}, "spec": {"unschedulable": True}})
    api.create(Target(NODES), {"metadata": {"name": "b"}})
    assert names(api, Target(NODES), fields="spec.unschedulable=true") == ["/a"]


@pytest.mark.parametrize(
    ("labels", "fields"), [("a in (", ""), ("=x", ""), ("", "a"), ("", "spec.color=red")]
)
def test_selectors_that_do_not_read_are_bad_requests(api: Api, labels: str, fields: str) -> None:
    """Text that does not parse and fields that are not supported are 400."""
    with pytest.raises(ApiRefusal) as caught:
        api.list(EVERYWHERE, labels, fields)
    assert caught.value.code == 400


def test_pages_are_of_one_state(filled: Api, a_pod: Any) -> None:
    """Writes between two pages do not show in the second, which has the first one's version."""
    first = filled.list(EVERYWHERE, limit=2)
    filled.delete(Target(PODS, "other", "a"))
    filled.create(Target(PODS, "default"), a_pod("bb"))
    second = filled.list(EVERYWHERE, limit=2, token=first.token)
    assert (first.remaining, second.remaining, second.token) == (2, 0, "")
    assert second.version == first.version
    assert [entry.name for entry in second.entries] == [("default", "c"), ("other", "a")]


@pytest.mark.parametrize("how", ["compacted", "unknown", "pushed out"])
def test_a_continue_token_expires(filled: Api, how: str) -> None:
    """A token that is too old, or was never given, is 410 Expired."""
    token = filled.list(EVERYWHERE, limit=1).token
    if how == "compacted":
        filled.store.compact()
    elif how == "unknown":
        token = f"{filled.store.version}-999"
    else:
        for _ in range(100):
            filled.list(EVERYWHERE, limit=1)
    with pytest.raises(ApiRefusal) as caught:
        filled.list(EVERYWHERE, limit=1, token=token)
    assert (caught.value.code, caught.value.reason) == (410, "Expired")
