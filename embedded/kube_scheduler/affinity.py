"""Node affinity: which nodes a pod requires, and which it would rather have. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from runtime.objects import Node

_NAME_FIELD: Final = "metadata.name"


class Requirement(msgspec.Struct, frozen=True):
    """One expression over a label, or over the node's name in `match_fields`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def meets(self, labels: Mapping[str, str]) -> bool:
        """Tell whether the labels are as required; an unknown operator is met by nothing."""
        test = _TESTS.get(self.operator)
        return test is not None and test(self.values, labels.get(self.key))


class Term(msgspec.Struct, frozen=True, rename="camel"):
    """Expressions that must all be met; a term without any matches no node."""

    match_expressions: tuple[Requirement, ...] = ()
    match_fields: tuple[Requirement, ...] = ()

    def matches(self, node: Node) -> bool:
        """Tell whether the node meets the term."""
        labels, fields = node.metadata.labels or {}, {_NAME_FIELD: node.metadata.name}
        checks = [each.meets(labels) for each in self.match_expressions]
        checks += [each.meets(fields) for each in self.match_fields]
        return bool(checks) and all(checks)


class Preferred(msgspec.Struct, frozen=True):
    """A term that adds its weight, 1 to 100, where it matches."""

    weight: int
    preference: Term


class _Required(msgspec.Struct, frozen=True, rename="camel"):
    node_selector_terms: tuple[Term, ...] = ()


class NodeAffinity(msgspec.Struct, frozen=True):
    """What the pod's `spec.affinity.nodeAffinity` says."""

    required: _Required | None = msgspec.field(
        name="requiredDuringSchedulingIgnoredDuringExecution", default=None
    )
    preferred: tuple[Preferred, ...] = msgspec.field(
        name="preferredDuringSchedulingIgnoredDuringExecution", default=()
    )

    def allows(self, node: Node) -> bool:
        """Tell whether one of the required terms matches, if there are any."""
        return self.required is None or any(
            term.matches(node) for term in self.required.node_selector_terms
        )

    def weight(self, node: Node) -> int:
        """Return the sum of the weights of the preferred terms that match."""
        return sum(each.weight for each in self.preferred if each.preference.matches(node))


NO_AFFINITY: Final = NodeAffinity()


def read_affinity(pod: Mapping[str, Any]) -> NodeAffinity:
    """Return the node affinity of a pod's whole object. Raises msgspec.ValidationError."""
    affinity = (pod.get("spec") or {}).get("affinity") or {}
    return msgspec.convert(affinity.get("nodeAffinity") or {}, NodeAffinity)


def _compare(values: tuple[str, ...], value: str | None, sign: int) -> bool:
    try:
        return value is not None and sign * (int(value) - int(values[0])) > 0
    except (ValueError, IndexError):
        return False


# NotIn and DoesNotExist also match nodes without the label, as selectors do everywhere.
_TESTS: Final[Mapping[str, Callable[[tuple[str, ...], str | None], bool]]] = {
    "In": lambda values, value: value in values,
    "NotIn": lambda values, value: value not in values,
    "Exists": lambda _, value: value is not None,
    "DoesNotExist": lambda _, value: value is None,
    "Gt": lambda values, value: _compare(values, value, 1),
    "Lt": lambda values, value: _compare(values, value, -1),
}
