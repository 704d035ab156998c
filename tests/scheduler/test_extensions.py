"""Plugins that the user brought: from a file or an entry point, checked at start."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from scheduler import extensions
from scheduler.engine.cycle import schedule
from scheduler.engine.framework import Framework
from scheduler.engine.plugins import built_in
from scheduler.engine.profiles import Profile
from scheduler.errors import ExtensionError
from scheduler.extensions import load_plugins
from scheduler.fault_log import QUIET_SECONDS, FaultLog
from scheduler.metrics import Metrics
from scheduler.settings import PluginSettings
from tests.scheduler.nodes import mesh
from tests.scheduler.worlds import cluster, facts, request
from topology.profiles import TRAINING

GOOD = """
import numpy as np

class Last:
    name = "last"

    def __init__(self, power=1.0):
        self.power = power

    def score(self, view, request):
        return np.linspace(0, 1, len(view)) ** self.power
"""

Write = Callable[..., PluginSettings]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a plugin's file; returns its settings."""

    def make(text: str, name: str = "plugin.py", **given: object) -> PluginSettings:
        path = tmp_path / name
        path.write_text(text)
        return PluginSettings(file=str(path), **given)

    return make


def choose(framework: Framework, *weights: tuple[str, float]) -> str:
    """Return which of three equal nodes is chosen."""
    profile = framework.check(Profile("mine", weights, 0.0, TRAINING))
    state = cluster(a=facts(mesh(4)), b=facts(mesh(4)), c=facts(mesh(4)))
    decision = schedule(framework, state.view(["a", "b", "c"]), request(1), profile, at=0)
    assert decision.chosen is not None
    return decision.chosen.node


def test_a_class_from_a_file_takes_part(write: Write) -> None:
    """Its score counts by the weight that a profile gives it."""
    framework = load_plugins([write(GOOD)], built_in())
    assert choose(framework, ("last", 1.0), ("packing", 1.0)) == "c"
    assert choose(framework, ("packing", 1.0)) == "a"


def test_options_are_given_by_name(write: Write) -> None:
    """They are the arguments of the class."""
    framework = load_plugins([write(GOOD, options={"power": 2.0})], built_in())
    assert framework.scores["last"].plugin.power == 2.0


def test_a_class_from_an_entry_point_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution offers it in the group gputopo.plugins."""
    point = EntryPoint("spread_more", "scheduler.engine.plugins.spreading:Spreading", "x")
    monkeypatch.setattr(extensions, "entry_points", lambda group: [point])
    base = built_in()
    alone = Framework(pre_filters=(), filters=base.filters, scores=(), reserve=base.reserve)
    framework = load_plugins([PluginSettings(entry_point="spread_more")], alone)
    assert "spreading" in framework.scores


CLASS = "class Mine:\n    name = 'mine'\n"
SCORE = "    def score(self, view, request): pass\n"
FILTER = "    def filter(self, view, request): pass\n"

MISTAKES = [
    ("no Python", "class :", "does not run: SyntaxError"),
    ("it raises", "1 / 0", "does not run: ZeroDivisionError: division by zero"),
    ("no class", "x = 1", "name one with `class`: there are 0 classes"),
    ("two classes", "class A: pass\nclass B: pass", "name one with `class`: there are 2 classes"),
    ("no name", "class A:\n" + SCORE, "name: None is not a word"),
    ("a name taken", "class A:\n    name = 'packing'\n" + SCORE, "there is a plugin 'packing'"),
    ("no method", CLASS, "it has none of the methods pre_filter, filter, score, reserve"),
    (
        "too few arguments",
        CLASS + "    def score(self, view): pass",
        "score: does not take 2 arguments",
    ),
    ("no reason", CLASS + "    busy = True\n" + FILTER, "reason: a filter says with one"),
    ("no busy", CLASS + "    reason = 'x'\n" + FILTER, "busy: a filter says whether"),
    (
        "normalize alone",
        CLASS + "    def normalize(self, view, raw): pass",
        "normalize: there is no score",
    ),
    (
        "it cannot be made",
        CLASS + "    def __init__(self, must): pass\n" + SCORE,
        "Mine cannot be made: TypeError",
    ),
]


@pytest.mark.parametrize(
    ("text", "told"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES]
)
def test_a_mistake_is_told_at_start(write: Write, text: str, told: str) -> None:
    """With the plugin's number and file."""
    with pytest.raises(ExtensionError) as caught:
        load_plugins([write(text)], built_in())
    assert re.match(r"plugin 1 \(.*plugin\.py\): ", caught.value.problems[0])
    assert told in str(caught.value)


def test_all_mistakes_are_told_at_once(write: Write) -> None:
    """Whoever mends one need not start again to find the next."""
    with pytest.raises(ExtensionError) as caught:
        load_plugins(
            [
                write("1 / 0", "a.py"),
                write(GOOD, "b.py", **{"class": "Lost"}),
                PluginSettings(entry_point="nosuch"),
                PluginSettings(file="/nowhere/plugin.py"),
                write("class A:\n    name = ''\n", "c.py"),
            ],
            built_in(),
        )
    problems = caught.value.problems
    assert [problem.split(" ")[1] for problem in problems] == ["1", "2", "3", "4", "5", "5"]
    assert "no class 'Lost'; there is Last" in problems[1]
    assert "no such entry point in gputopo.plugins" in problems[2]
    assert problems[3] == "plugin 4 (/nowhere/plugin.py): no such file"


def test_only_one_plugin_chooses_sets(write: Write) -> None:
    """Two would have to agree."""
    text = "class C:\n    name = '{}'\n    def reserve(self, view, place, request): pass\n"
    with pytest.raises(ExtensionError, match="one and two: only one plugin may have reserve"):
        load_plugins(
            [write(text.format("one"), "a.py"), write(text.format("two"), "b.py")], built_in()
        )


def test_a_plugin_comes_from_one_place() -> None:
    """Neither or both is refused with the configuration."""
    for given in ({}, {"entry_point": "x", "file": "y"}):
        with pytest.raises(ValueError, match="either entry_point or file"):
            PluginSettings(**given)


def test_faults_are_counted_always_and_logged_once_in_a_while(
    write: Write,
) -> None:
    """A plugin that fails in every decision does not fill the log."""
    text = CLASS + "    def score(self, view, request): return 1 / 0\n"
    framework = load_plugins([write(text)], built_in())
    registry = CollectorRegistry()
    now = [0.0]
    log = FaultLog(Metrics(registry), lambda: now[0])
    profile = Profile("mine", (("mine", 1.0),), 0.0, TRAINING)
    view = cluster(a=facts(mesh(4))).view(["a"])
    decision = schedule(framework, view, request(1), profile, at=0)
    with capture_logs() as logged:
        for _ in range(3):
            log.tell(decision)
        assert [line["event"] for line in logged] == ["plugin left out"]
        now[0] = QUIET_SECONDS
        log.tell(decision)
    assert [line["event"] for line in logged] == 2 * ["plugin left out"]
    line = 'gputopo_extender_plugin_faults_total{method="score",plugin="mine"} 4.0'
    assert line in generate_latest(registry).decode()
