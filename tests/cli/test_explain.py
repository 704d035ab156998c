"""`gputopo explain`, `dry-run`, `nodes`, `cluster` and `pending` against a running extender."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.main import run
from tests.cli.explained import Explained, explained
from tests.scheduler.nodes import pod_object


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Explained]:
    """Run an extender for all of this file."""
    with explained(tmp_path_factory.mktemp("explained")) as found:
        yield found


def ended(*arguments: str) -> object:
    """Run the command to its end and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    return caught.value.code


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """Run a command with --json and return what it prints."""
    assert ended(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_json_is_what_the_api_says(served: Explained, capsys: pytest.CaptureFixture[str]) -> None:
    """One value on standard output, field by field."""
    server = ("--server", served.url)
    pod = told(capsys, "explain", "default/train", *server)
    assert pod == served.ask("/v1/pods/default/train?top=10")
    assert told(capsys, "nodes", *server) == served.ask("/v1/nodes")
    assert told(capsys, "nodes", "fast", *server) == served.ask("/v1/nodes/fast")
    assert told(capsys, "cluster", *server) == served.ask("/v1/cluster")
    (waits,) = told(capsys, "pending", *server)
    assert waits["name"] == "big"


SHOWN = [
    (
        ("explain", "default/train"),
        ["default/train: bound, 1 try", "bound to fast", "fragmentation"],
    ),
    (("explain", "train"), ["default/train: bound"]),
    (("explain", "default/big"), ["what would help: GPU", "default/train (promised)"]),
    (("nodes",), ["fast", "near", "slow"]),
    (("nodes", "fast"), ["default/train (promised)", "best sets to be had"]),
    (("cluster",), ["3 nodes, 16 GPUs: 16 healthy, 12 free (75 % unallocated)", "1 pods bound"]),
    (("pending",), ["default/big", "must become free"]),
]


@pytest.mark.parametrize(("words", "texts"), SHOWN)
def test_people_get_tables(
    served: Explained,
    words: tuple[str, ...],
    texts: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same, to be read."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("GPUTOPO_SERVER", served.url)
    assert ended(*words) == 0
    out = capsys.readouterr().out
    for text in texts:
        assert text in out


def test_a_dry_run_reads_a_file(
    served: Explained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with 0 if every pod has a place, else with 1."""
    path = tmp_path / "pod.json"
    path.write_text(json.dumps(pod_object("p", 4)))
    words = ("dry-run", "-f", str(path), "--server", served.url)
    answer = told(capsys, *words)
    assert answer["pods"][0]["node"] == "fast"
    assert ended(*words) == 0
    assert "default/p: would go to fast" in capsys.readouterr().out
    path.write_text(json.dumps(pod_object("p", 9)))
    assert ended(*words) == 1
    assert "default/p: would be refused" in capsys.readouterr().out


MISTAKES = [
    (("explain", "default/nobody"), 2, "pod default/nobody: no decision about it is known"),
    (("explain", "default/"), 2, "'default/' is not NAMESPACE/POD"),
    (("explain", "a/../b"), 2, "'a/../b' is not NAMESPACE/POD"),
    (("nodes", "nowhere"), 2, "node nowhere: is not in the inventory"),
    (("dry-run", "-f", "/nowhere.yaml"), 2, "/nowhere.yaml"),
]


@pytest.mark.parametrize(("words", "code", "text"), MISTAKES)
def test_a_mistake_is_one_line_and_its_code(
    served: Explained,
    words: tuple[str, ...],
    code: int,
    text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Standard output stays empty."""
    assert ended(*words, "--server", served.url) == code
    said = capsys.readouterr()
    assert text in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_yaml_that_does_not_read_names_its_line(
    served: Explained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the API says it."""
    path = tmp_path / "pod.yaml"
    path.write_text("kind: Pod\nspec: [\n")
    assert ended("dry-run", "-f", str(path), "--server", served.url) == 2
    assert "line 3, column 1: " in capsys.readouterr().err


def test_nobody_at_the_address_is_one_line_and_1(capsys: pytest.CaptureFixture[str]) -> None:
    """It is a failure, not a mistake of the user's."""
    assert ended("cluster", "--server", "http://127.0.0.1:9") == 1
    assert "127.0.0.1:9" in capsys.readouterr().err
    assert ended("cluster", "--server", "127.0.0.1:9") == 2
    assert "wants http:// or https://" in capsys.readouterr().err


KUBECTL = """#!{python}
import sys, time
words = sys.argv[1:]
with open({log!r}, "a") as log:
    log.write(" ".join(words) + "\\n")
if "pods" in words:
    print({pods!r})
elif "lease" in words:
    print({holder!r})
elif "token" in words:
    print("made")
elif "port-forward" in words:
    if {refused!r}:
        sys.exit({refused!r})
    print("Forwarding from {address} -> 8887", flush=True)
    time.sleep(60)
"""


def make_kubectl(
    folder: Path, address: str, *, pods: str = "a\nb", holder: str = "", refused: str = ""
) -> Path:
    """Stand in for kubectl, which is what lies beyond us; returns the file that it logs to."""
    folder.mkdir()
    log = folder / "log"
    script = folder / "kubectl"
    script.write_text(
        KUBECTL.format(
            python=sys.executable,
            log=str(log),
            pods=pods,
            holder=holder,
            refused=refused,
            address=address,
        )
    )
    script.chmod(0o755)
    return log


def test_without_a_server_kubectl_opens_the_port_of_the_leader(
    served: Explained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Lease names it; kubectl is told of the kubeconfig and the namespace, and ended."""
    address = served.url.removeprefix("http://")
    log = make_kubectl(tmp_path / "bin", address, holder="b_0b1c")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    answer = told(capsys, "cluster", "--kubeconfig", "mine", "--namespace", "there")
    assert answer["nodes"] == 3
    assert log.read_text().splitlines()[-1] == (
        "--kubeconfig mine --namespace there port-forward pod/b :8887 --address 127.0.0.1"
    )


def test_without_the_right_to_the_lease_any_replica_is_asked(
    served: Explained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one that does not decide asks the one that does."""
    log = make_kubectl(tmp_path / "bin", served.url.removeprefix("http://"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert told(capsys, "cluster")["nodes"] == 3
    assert "port-forward pod/a" in log.read_text()


def test_where_a_token_is_wanted_kubectl_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the API alone and for a short while; by the rights of whoever asks."""
    token = tmp_path / "token"
    token.write_text("made")
    options = ("--explain-token-file", str(token))
    with explained(tmp_path, *options, token=token.read_text()) as strict:
        capsys.readouterr()
        log = make_kubectl(tmp_path / "bin", strict.url.removeprefix("http://"))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        assert told(capsys, "cluster")["nodes"] == 3
        assert (
            log.read_text()
            .splitlines()[-1]
            .endswith("create token gputopo-scheduler --audience gputopo-explain --duration 10m")
        )
        assert ended("cluster", "--server", strict.url) == 1
        assert "a bearer token is needed; wanted: --token-file" in capsys.readouterr().err


TROUBLES: list[tuple[dict[str, str], str]] = [
    ({"pods": ""}, "no scheduler of gputopo runs in gputopo-system"),
    ({"refused": "error: forbidden"}, "port-forward pod/a: error: forbidden"),
]


@pytest.mark.parametrize(("given", "text"), TROUBLES)
def test_what_kubectl_cannot_do_is_one_line(
    given: dict[str, str],
    text: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With kubectl's own words."""
    make_kubectl(tmp_path / "bin", "127.0.0.1:9", **given)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert ended("cluster") == 1
    said = capsys.readouterr().err
    assert text in said
    assert said.count("\n") == 1


def test_neither_server_nor_kubectl_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to give."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ended("cluster") == 2
    assert "neither --server is given nor is kubectl to be found" in capsys.readouterr().err
