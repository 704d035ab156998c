"""`gputopo topo`, `gputopo allocate`, and how the command tells of a mistake."""

from __future__ import annotations

import json

import pytest

from cli.main import run
from topology.catalogue import load_machine


def ended(*arguments: str) -> object:
    """Run the command to its end and return its exit code."""
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    return caught.value.code


def test_topo_prints_the_matrix_of_the_description(capsys: pytest.CaptureFixture[str]) -> None:
    """What discovery finds through NVML is what the machine's file says, cell by cell."""
    assert ended("topo", "dgx1-v100", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    machine = load_machine("dgx1-v100")
    assert told["links"] == [list(row) for row in machine.links]
    assert [nic["name"] for nic in told["nics"]] == [nic.name for nic in machine.nics]
    assert json.loads(told["annotation"])["v"] == 1


def test_allocate_speaks_nvmls_indexes(capsys: pytest.CaptureFixture[str]) -> None:
    """Given free GPUs and one that must be there, the answer holds it and nothing else."""
    words = ("--size", "4", "--available", "0,2,3,4,5,7", "--must", "4", "--json")
    assert ended("allocate", "dgx1-v100", *words) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(set(told["gpus"])) == len(set(told["uuids"])) == 4
    assert 4 in told["gpus"]
    assert set(told["gpus"]) <= {0, 2, 3, 4, 5, 7}


def test_allocate_tells_people_links_and_bandwidth(capsys: pytest.CaptureFixture[str]) -> None:
    """The four V100s with four closed rings are worth 80 GB/s."""
    assert ended("allocate", "dgx1-v100", "--size", "4") == 0
    assert "predicted bus bandwidth 80 GB/s" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("topo", "no-such-box"), "no-such-box"),
        (("allocate", "dgx1-v100"), "--size"),
        (("allocate", "dgx1-v100", "--size", "9"), "only 8 GPUs"),
        (("allocate", "dgx1-v100", "--size", "2", "--profile", "fast"), "'fast' is none of"),
        (("allocate", "dgx1-v100", "--size", "2", "--available", "1,1"), "named twice"),
        (("allocate", "dgx1-v100", "--size", "2", "--available", "1,9"), "index 9"),
        (("allocate", "dgx1-v100", "--size", "1", "--must", "x"), "--must: 'x'"),
        (("nonsense",), "nonsense"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    words: tuple[str, ...], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing on standard output, one line that names the mistake, exit code 2."""
    assert ended(*words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("gputopo: ")
    assert problem in said.err
    assert said.err.count("\n") == 1


def test_the_version_is_that_of_the_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    """`gputopo --version` is one line."""
    assert ended("--version") == 0
    assert capsys.readouterr().out.startswith("gputopo 0.")
