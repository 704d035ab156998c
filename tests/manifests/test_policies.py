"""The policies name the identities and the keys that the daemons really use."""

from __future__ import annotations

import pytest

from tests.manifests.sources import read_one
from topology.wire import ASSIGNMENT_KEY, STATE_KEY, TOPOLOGY_KEY

NAMES = ("gputopo-own-node", "gputopo-set-by-scheduler")


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_is_bound_and_denies(name: str) -> None:
    """A policy without a binding does nothing; one that fails must not let anything pass."""
    binding = read_one("ValidatingAdmissionPolicyBinding", name)["spec"]
    assert binding == {"policyName": name, "validationActions": ["Deny"]}
    assert read_one("ValidatingAdmissionPolicy", name)["spec"]["failurePolicy"] == "Fail"


@pytest.mark.parametrize(
    ("name", "account"),
    [
        ("gputopo-own-node", "gputopo-device-plugin"),
        ("gputopo-set-by-scheduler", "gputopo-scheduler"),
    ],
)
def test_a_policy_names_an_account_that_exists(name: str, account: str) -> None:
    """The account of the condition is that of a workload, in its namespace."""
    (condition,) = read_one("ValidatingAdmissionPolicy", name)["spec"]["matchConditions"]
    namespace = read_one("ServiceAccount", account)["metadata"]["namespace"]
    assert f"'system:serviceaccount:{namespace}:{account}'" in condition["expression"]


def test_the_policies_guard_the_keys_that_are_written() -> None:
    """The node's keys stand below the prefix that the plugin may write; the set has its own."""
    own_node, by_scheduler = (
        [
            rule["expression"]
            for rule in read_one("ValidatingAdmissionPolicy", name)["spec"]["validations"]
        ]
        for name in NAMES
    )
    assert any("startsWith('gputopo.dev/')" in expression for expression in own_node)
    assert {key.split("/")[0] for key in (STATE_KEY, TOPOLOGY_KEY)} == {"gputopo.dev"}
    (expression,) = by_scheduler
    assert expression.count(f"[?'{ASSIGNMENT_KEY}']") == 2
