"""`gputopo node` over real sockets: the plugin's own port, and the API server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from cli.main import run
from tests.deviceplugin.world import World
from tests.waiting import wait_until


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Return a node with a pod on GPU 0 and 3, a failed GPU 5, and a cordoned GPU 6."""
    world = World()
    world.options["recovery_hold_seconds"] = 3600.0
    world.start_plugin()
    world.bind("train", 2, (0, 3))
    world.sees("train")
    world.mock.inject("xid", gpu=1, xid=31)
    world.mock.inject("xid", gpu=5, xid=79)
    body = {"metadata": {"annotations": {"gputopo.dev/cordon": "6"}}}
    world.client.patch("/api/v1/nodes/n1", body)
    wait_until(lambda: len(world.state().conditions) == 2, what="both conditions")
    wait_until(lambda: world.state().allocations, what="the allocation")
    yield world
    world.close()


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Return what the command prints; it ends with 0."""
    with pytest.raises(SystemExit) as caught:
        run(["node", *words])
    assert caught.value.code == 0
    return capsys.readouterr().out


def ways(world: World) -> list[list[str]]:
    """Return both ways to ask."""
    return [
        ["n1", "--kubeconfig", str(world.kubeconfig)],
        ["--url", f"http://127.0.0.1:{world.port}"],
    ]


@pytest.mark.parametrize("way", [0, 1], ids=["API server", "plugin"])
def test_it_shows_links_pods_and_health(
    world: World, capsys: pytest.CaptureFixture[str], way: int
) -> None:
    """The matrix, who has what, what is wrong and since when, and what happened last."""
    text = shown(capsys, *ways(world)[way])
    lines = text.splitlines()
    assert lines[0].startswith("n1: 8 GPUs, 2 with pods")
    assert any(line.startswith("GPU0    X     NV1   NV1   NV2") for line in lines)
    rows = {line.split()[0]: line for line in lines if line[:1].isdigit() and "GPU-" in line}
    assert rows["0"].endswith("d/train")
    assert rows["3"].endswith("d/train")
    assert "unhealthy: XID 79: GPU fell off the bus" in rows["5"]
    assert "cordoned: with no pod" in rows["6"]
    assert "well" in rows["7"]
    assert "XID 79" in lines[-1] or "XID 79" in text.rpartition("\n\n")[2]


def test_the_plugin_tells_of_xids_that_did_nothing(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Events do not."""
    text = shown(capsys, *ways(world)[1])
    assert "XID 31: MMU page fault (ignore)" in text
    assert "driver 580.95.05" in text.splitlines()[0]


@pytest.mark.parametrize("way", [0, 1], ids=["API server", "plugin"])
def test_it_is_one_json_object(world: World, capsys: pytest.CaptureFixture[str], way: int) -> None:
    """With the same facts."""
    told = json.loads(shown(capsys, *ways(world)[way], "--json"))
    assert len(told["topology"]["gpus"]) == 8
    assert sorted(told["holders"].values()) == [["d/train"], ["d/train"]]
    statuses = sorted(one["status"] for one in told["conditions"].values())
    assert statuses == ["cordoned", "unhealthy"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ([], "name a node, or give --url"),
        (["n1", "--url", "http://x"], "name a node, or give --url"),
        (["--url", "ftp://x"], "a URL like http://"),
        (["--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    words: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a traceback nor an empty picture."""
    with pytest.raises(SystemExit) as caught:
        run(["node", *words])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert problem in error
    assert error.count("\n") == 1


def test_a_node_without_our_plugin_is_told_so(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """And so is one that does not exist."""
    world.client.post("/api/v1/nodes", {"metadata": {"name": "bare"}})
    for name, problem in (("bare", "no device plugin of gputopo"), ("nowhere", "nowhere")):
        with pytest.raises(SystemExit) as caught:
            run(["node", name, "--kubeconfig", str(world.kubeconfig)])
        assert caught.value.code == 2
        assert problem in capsys.readouterr().err
