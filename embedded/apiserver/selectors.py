"""Label and field selectors, compiled once per request to a predicate over an object."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from embedded.apiserver.errors import bad_request
from embedded.apiserver.resources import Resource

Object = Mapping[str, Any]
Predicate = Callable[[Object], bool]

_SET = re.compile(r"(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s+\((?P<values>[^()]*)\)")
_EQUAL = re.compile(r"(?P<key>[^\s!=,()]+)\s*(?P<op>==|!=|=)\s*(?P<value>[^\s!=,()]*)")
_EXISTS = re.compile(r"(?P<not>!?)\s*(?P<key>[^\s!=,()]+)")
_COMMA = re.compile(r",(?![^(]*\))")


def compile_selectors(
    resource: Resource, namespace: str, labels: str, fields: str
) -> Predicate | None:
    """Build one predicate of all that narrows a list; None lets everything through.

    Raises ApiRefusal 400 for text that does not parse and for fields that are not supported.
    """
    tests: list[Predicate] = []
    if namespace:
        tests.append(lambda obj: obj["metadata"].get("namespace") == namespace)
    tests += [_field_test(resource, part) for part in _parts(fields)]
    tests += [_label_test(part) for part in _parts(labels)]
    if not tests:
        return None
    if len(tests) == 1:
        return tests[0]
    return lambda obj: all(test(obj) for test in tests)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in _COMMA.split(text) if part.strip()]


def _field_test(resource: Resource, text: str) -> Predicate:
    match = _EQUAL.fullmatch(text)
    if match is None:
        raise bad_request(f"invalid field selector: {text[:80]!r}")
    key, value, negated = match["key"], match["value"], match["op"] == "!="
    if key not in resource.fields:
        raise bad_request(f"field label not supported: {key}")
    *parents, last = key.split(".")

    def test(obj: Object) -> bool:
        inner: Any = obj
        for parent in parents:
            inner = inner.get(parent) or {}
        found = inner.get(last)
        # An absent field is the empty text, so `spec.nodeName=` finds the unbound pods.
        shown = "" if found is None else str(found)
        return ((shown.lower() if isinstance(found, bool) else shown) == value) != negated

    return test


def _label_test(text: str) -> Predicate:
    if match := _SET.fullmatch(text):
        values = {value.strip() for value in match["values"].split(",")}
        return _among(match["key"], values, negated=match["op"] == "notin")
    if match := _EQUAL.fullmatch(text):
        return _among(match["key"], {match["value"]}, negated=match["op"] == "!=")
    if match := _EXISTS.fullmatch(text):
        key, wanted = match["key"], not match["not"]
        return lambda obj: (key in (obj["metadata"].get("labels") or {})) == wanted
    raise bad_request(f"unable to parse label selector: {text[:80]!r}")


def _among(key: str, values: set[str], *, negated: bool) -> Predicate:
    def test(obj: Object) -> bool:
        labels = obj["metadata"].get("labels") or {}
        # Kubernetes: "not equal" and "notin" also select objects without the label.
        return (key in labels and labels[key] in values) != negated

    return test
