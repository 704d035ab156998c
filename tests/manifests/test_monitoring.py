"""Alerts and dashboard speak of metrics that the device plugin has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deviceplugin.metrics import Metrics

FOLDER = Path(__file__).parents[2] / "daemonset" / "monitoring"
GUIDE = FOLDER.parents[1] / "docs" / "monitoring.md"

RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())


def known() -> set[str]:
    """Return the names of all series, with the suffixes that Prometheus adds."""
    names: set[str] = set()
    for family in Metrics().registry.collect():
        if family.type == "counter":
            names.add(f"{family.name}_total")
        elif family.type == "histogram":
            names |= {f"{family.name}_{end}" for end in ("bucket", "count", "sum")}
        else:
            names.add(family.name)
    return names


def labels() -> dict[str, set[str]]:
    """Return the labels of each metric, by the name that the registry gives it."""
    registry = Metrics().registry
    return {
        name: set(collector._labelnames)
        for collector, names in registry._collector_to_names.items()
        for name in names
    }


def queries() -> Iterator[tuple[str, str]]:
    """Yield the queries of alerts and panels, with who asks."""
    for rule in RULES:
        yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], variable["query"]["query"]


QUERIES = list(queries())
IDS = [f"{at}-{who}" for at, (who, _) in enumerate(QUERIES)]


@pytest.mark.parametrize(("who", "query"), QUERIES, ids=IDS)
def test_every_metric_exists(who: str, query: str) -> None:
    """A query for a metric that nobody has is silent for ever."""
    named = set(re.findall(r"gputopo_\w+", query))
    assert named <= known(), who
    assert named or "up{" in query


@pytest.mark.parametrize(("who", "query"), QUERIES, ids=IDS)
def test_every_label_exists(who: str, query: str) -> None:
    """What is grouped by or selected on is a label of the metric, or one that Prometheus adds."""
    has = labels()
    added = {"instance", "job", "le"}
    for name, selector in re.findall(r"(gputopo_\w+)(?:\{([^}]*)\})?", query):
        mine = has.get(name, set()) | added
        assert set(re.findall(r"(\w+)\s*(?:=~|!=|=)", selector)) <= mine, (who, name)
    for group in re.findall(r"by \(([^)]*)\)", query):
        wanted = {word.strip() for word in group.split(",")}
        metrics = re.findall(r"gputopo_\w+", query)
        assert any(wanted <= has.get(name, set()) | added for name in metrics), (who, wanted)


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_what_and_how_bad(rule: dict[str, Any]) -> None:
    """Summary, description, severity, and a row in the guide that says what to do."""
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"].endswith(".")
    assert f"| {rule['alert']} |" in GUIDE.read_text()


def test_every_metric_is_in_the_guide() -> None:
    """Under the name that Prometheus shows."""
    text = GUIDE.read_text()
    for name in known():
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        assert f"`{base}`" in text, name


def test_the_dashboard_shows_every_metric_of_weight() -> None:
    """What an alert asks for can be looked at."""
    asked = {name for rule in RULES for name in re.findall(r"gputopo_\w+", rule["expr"])}
    shown = {
        name
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
        for name in re.findall(r"gputopo_\w+", target["expr"])
    }
    assert asked <= shown


def test_panels_do_not_overlap() -> None:
    """Each has a number and a place of its own."""
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        mine = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert cells.isdisjoint(mine), panel["title"]
        cells |= mine
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
