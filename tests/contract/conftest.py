"""The worlds that the contract's cases run in, and the table of what came of it.

Every case runs on the embedded cluster; with ``--real`` on real components as well. These fixtures
alone know what a world is made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.contract.cluster import Cluster
from tests.contract.embedded_cluster import EmbeddedCluster
from tests.contract.embedded_world import EmbeddedWorld
from tests.contract.table import Outcome, draw
from tests.contract.world import Setup, World

EMBEDDED: Final = "embedded"
REAL: Final = "real"

_CASE: Final = "contract_case"
_KIND: Final = "contract_kind"


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker of cases that one kind of cluster cannot run."""
    config.addinivalue_line(
        "markers", "only(kind, reason): a case that only one kind of cluster can run, and why"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each case once for each kind of cluster."""
    if "kind" in metafunc.fixturenames:
        kinds = [EMBEDDED, REAL] if _with_real(metafunc.config) else [EMBEDDED]
        metafunc.parametrize("kind", kinds, scope="module")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Note a case's name without its kind, and skip it where it does not apply."""
    if not isinstance(item, pytest.Function) or "kind" not in item.fixturenames:
        return
    kind = str(item.callspec.params["kind"])
    rest = re.sub(rf"(^|-){kind}(-|$)", r"\1", item.callspec.id).strip("-")
    words = item.originalname.removeprefix("test_").replace("_", " ")
    case = f"{item.path.stem.removeprefix('test_')}: {words}{f' [{rest}]' if rest else ''}"
    item.user_properties += [(_CASE, case), (_KIND, kind)]
    for only in item.iter_markers("only"):
        if only.args[0] != kind:
            item.add_marker(pytest.mark.skip(reason=only.kwargs["reason"]))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the table case x cluster after a run with ``--real``."""
    if not _with_real(config):
        return
    outcomes: list[Outcome] = []
    for word in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.getreports(word):
            told = dict(report.user_properties)
            if _CASE in told:
                reason = report.longrepr[2] if word == "skipped" else ""
                outcomes.append(Outcome(str(told[_CASE]), str(told[_KIND]), word, str(reason)))
    terminalreporter.section("case x cluster")
    # Workers finish their files in any order; within a file the cases stay in theirs.
    outcomes.sort(key=lambda one: one.case.partition(":")[0])
    for line in draw(outcomes, (EMBEDDED, REAL)):
        terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def setup() -> Setup:
    """Return how the node is set up; a module may parametrise it in another way."""
    return Setup()


@pytest.fixture(scope="module")
def node(kind: str, setup: Setup, request: pytest.FixtureRequest) -> Iterator[World]:
    """Return a node whose plugin is up; of a real one the logs are kept if a case fails."""
    if kind == EMBEDDED:
        yield from _run(EmbeddedWorld(setup))
        return
    # Only here: nobody else needs the components.
    from tests.contract.real_world import RealWorld

    before = request.session.testsfailed
    yield from _run(RealWorld(setup, failed=lambda: request.session.testsfailed > before))


def _run(world: World) -> Iterator[World]:
    try:
        world.start_plugin()
        yield world
    finally:
        world.close()


@pytest.fixture
def world(node: World) -> Iterator[World]:
    """Return the node, as good as new; it is cleared after each case, whatever became of it."""
    yield node
    node.clear()


@pytest.fixture(scope="module")
def nodes(kind: str, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Return a cluster whose nodes are up and whose schedulers have a leader."""
    made: Cluster
    started = False
    if kind == EMBEDDED:
        made = EmbeddedCluster()
    else:
        # Only here: nobody else needs the components.
        from tests.contract.real_cluster import RealCluster

        before = request.session.testsfailed
        made = RealCluster(failed=lambda: not started or request.session.testsfailed > before)
    try:
        made.start()
        made.settle()
        started = True
        yield made
    finally:
        made.close()


@pytest.fixture
def cluster(nodes: Cluster) -> Iterator[Cluster]:
    """Return the cluster, as good as new; it is cleared after each case, whatever became of it."""
    yield nodes
    nodes.settle()


def _with_real(config: pytest.Config) -> bool:
    return bool(config.getoption("real", default=False))
