"""The chart's plain files, without Helm; what Helm renders is compared in tests/e2e."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

import pytest
import yaml

from tests.manifests.sources import DAEMONSET

CHART = DAEMONSET / "chart"
ABOUT = yaml.safe_load((CHART / "Chart.yaml").read_text())
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEMPLATES = "\n".join(path.read_text() for path in sorted((CHART / "templates").iterdir()))


def leaves(values: dict[str, Any], place: str = "") -> list[str]:
    """Return the dotted names of all values that the chart itself has a say in."""
    found = []
    for key, value in values.items():
        name = f"{place}.{key}"
        schema = _schema_of(name)
        inner = isinstance(value, dict) and schema.get("additionalProperties") is False
        found += leaves(value, name) if inner and "resources" not in key else [name]
    return found


def _schema_of(name: str) -> dict[str, Any]:
    """Return the schema of a value, following the references. Raises KeyError if it has none."""
    schema: dict[str, Any] = SCHEMA
    for key in name.removeprefix(".").split("."):
        schema = schema["properties"][key]
        if "$ref" in schema:
            schema = SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]]
    return schema


def test_the_chart_is_of_the_project_s_version() -> None:
    """Whoever installs a release gets its image."""
    version = importlib.metadata.version("gputopo")
    assert ABOUT["version"] == ABOUT["appVersion"] == version


@pytest.mark.parametrize("name", leaves(VALUES))
def test_a_value_has_a_schema_and_is_used(name: str) -> None:
    """A misspelt value is refused, and none is there for nothing."""
    assert _schema_of(name)
    last = name.rsplit(".", 1)[1]
    assert f".{last}" in TEMPLATES


def test_the_schema_knows_no_value_that_the_file_does_not_explain() -> None:
    """Every value can be found where users look for it."""

    def compare(schema: dict[str, Any], values: dict[str, Any], place: str) -> None:
        known = set(schema["properties"]) - {"global", "pullPolicy"}
        assert known == set(values) - {"pullPolicy"}, place
        for key, inner in schema["properties"].items():
            if inner.get("additionalProperties") is False and "properties" in inner:
                compare(inner, values[key], f"{place}.{key}")

    compare(SCHEMA, VALUES, "values")
