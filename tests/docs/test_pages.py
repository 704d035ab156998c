"""What the documentation shows is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from scheduler.configuration import build_profiles, build_workload
from scheduler.engine.cycle import schedule
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import BUILT_IN
from scheduler.extensions import load_plugins
from scheduler.settings import ExtenderSettings
from tests.docs.example import decide, rows
from tests.scheduler.nodes import mesh
from tests.scheduler.worlds import cluster, facts, request

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """Return the page's code blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def test_the_drawn_decision_is_the_engines() -> None:
    """Each row of the table, the refusal, the winner and its GPUs."""
    page = (DOCS / "how-a-decision-is-made.md").read_text()
    decision = decide()
    for row in rows(decision):
        assert row in page
    assert decision.counts() == {"free_gpus": 1}
    assert decision.chosen is not None
    assert decision.chosen.node == "n3"
    assert decision.chosen.choice.members == 0b11000000


def test_the_policy_of_the_page_works(tmp_path: Path) -> None:
    """It is twenty lines or less, and sends pods past spot nodes by its weight."""
    (source,) = blocks("writing-a-policy.md", "python")
    assert len([line for line in source.splitlines() if line.strip()]) <= 20
    path = tmp_path / "spot_last.py"
    path.write_text(source)
    configured = yaml.safe_load(blocks("writing-a-policy.md", "yaml")[0])
    given = [{**configured["plugins"][0], "file": str(path)}]
    settings = ExtenderSettings(**{**configured, "plugins": given})
    framework = load_plugins(settings.plugins, built_in())
    profile = build_profiles(settings, framework)["training"]
    state = cluster(**{"a-spot-1": facts(mesh(4)), "b": facts(mesh(4))})
    decision = schedule(framework, state.view(["a-spot-1", "b"]), request(2), profile, at=0)
    assert decision.chosen is not None
    assert decision.chosen.node == "b"
    assert decision.faults == ()


@pytest.mark.parametrize("page", ["profiles.md", "how-a-decision-is-made.md"])
def test_the_configurations_of_the_pages_are_taken(page: str) -> None:
    """They read, and what they name is there."""
    for text in blocks(page, "yaml"):
        settings = ExtenderSettings(**yaml.safe_load(text))
        assert build_profiles(settings, built_in())
        assert build_workload(settings).source == ("given" if settings.workload else "learned")


def test_the_tables_of_profiles_and_plugins_are_whole() -> None:
    """Every built-in profile with its weights, and every score plugin."""
    page = (DOCS / "profiles.md").read_text()
    for name, profile in BUILT_IN.items():
        weights = ", ".join(f"{plugin} {weight:g}" for plugin, weight in profile.weights)
        assert re.search(rf"^\| `{name}`.*\| {re.escape(weights)} \|", page, re.MULTILINE)
    assert all(f"`{plugin}`" in page for plugin in built_in().scores)
