"""docs/install.md tells of every right, and names what there is."""

from __future__ import annotations

import re

import pytest

from tests.manifests.sources import DAEMONSET, read_objects

REPOSITORY = DAEMONSET.parent
GUIDE = (REPOSITORY / "docs" / "install.md").read_text(encoding="utf-8")
RIGHTS = [
    line for line in GUIDE.splitlines() if line.startswith("| `gputopo-") or "the same" in line
]
RULES = [
    (item["metadata"]["name"], resource, rule["verbs"], rule["apiGroups"][0])
    for item in read_objects()
    if item["kind"] in {"ClusterRole", "Role"}
    for rule in item["rules"]
    for resource in rule["resources"]
]


@pytest.mark.parametrize(("role", "resource", "verbs", "group"), RULES)
def test_every_right_has_a_reason_in_the_guide(
    role: str, resource: str, verbs: list[str], group: str
) -> None:
    """A row names the resource, the verbs, and what they are for."""
    account = "gputopo-device-plugin" if role == "gputopo-device-plugin" else "gputopo-scheduler"
    rows = [
        row
        for row in RIGHTS
        if f"`{resource}`" in row
        and ", ".join(verbs) in row
        and (account in row or "the same" in row)
        and (group in row or group in {"", "coordination.k8s.io"})
    ]
    assert rows, f"{role}: {resource} {verbs}"


@pytest.mark.parametrize("kind", ["ClusterRoleBinding", "RoleBinding"])
def test_every_role_that_is_not_ours_is_explained(kind: str) -> None:
    """What the accounts get of Kubernetes' own roles stands in the table too."""
    ours = {item["metadata"]["name"] for item in read_objects() if item["kind"].endswith("Role")}
    for item in read_objects():
        if item["kind"] == kind and item["roleRef"]["name"] not in ours:
            assert any(f"`{item['roleRef']['name']}`" in row for row in RIGHTS)


def test_every_policy_is_explained() -> None:
    """Each has a row that says what it allows and why."""
    for item in read_objects():
        if item["kind"] == "ValidatingAdmissionPolicy":
            assert any(f"`{item['metadata']['name']}`" in row for row in RIGHTS)


def test_the_guide_names_folders_that_exist() -> None:
    """Every path below daemonset/ in a command or a text is there."""
    named = set(re.findall(r"daemonset/[a-z][-a-z/.]*[a-z]", GUIDE))
    assert len(named) > 5
    # The two kinds of words that look like a path: `rollout status daemonset/NAME`.
    assert [path for path in named if not (REPOSITORY / path).exists()] == [
        "daemonset/gputopo-extender"
    ]
