"""Machine descriptions: the format's rules, each with its one clear error."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from topology.catalogue import load_machine, shipped_names
from topology.errors import MachineFileError
from topology.links import Level
from topology.machine_yaml import parse_machine
from topology.pci import normalise_pci

Change = Callable[[dict[str, Any]], Any]


def bridged() -> dict[str, Any]:
    """Return a sound description: two bridged pairs and two NICs."""
    return {
        "name": "bridged",
        "model": "4x A100 PCIe",
        "gpus": [{"index": at, "numa": str(at // 2), "cpus": "0-3"} for at in range(4)],
        "links": [
            ["X", "NV12", "SYS", "SYS"],
            ["NV12", "X", "SYS", "SYS"],
            ["SYS", "SYS", "X", "NV12"],
            ["SYS", "SYS", "NV12", "X"],
        ],
        "nics": [
            {"name": "mlx5_0", "gpus": ["PIX", "NODE", "SYS", "SYS"], "nics": ["X", "SYS"]},
            {"name": "mlx5_1", "gpus": ["SYS", "SYS", "PIX", "NODE"], "nics": ["SYS", "X"]},
        ],
        "nvlink": {"links_per_gpu": 12, "nvswitch": False},
    }


def switched() -> dict[str, Any]:
    """Return a sound description: three GPUs on an NVSwitch, one that is not."""
    cells = [
        ["X" if a == b else "NV18" if 3 not in (a, b) else "NODE" for b in range(4)]
        for a in range(4)
    ]
    return {
        "name": "switched",
        "model": "4x H100",
        "gpus": [{"index": at, "numa": None, "cpus": None} for at in range(4)],
        "links": cells,
        "nvlink": {"links_per_gpu": 18, "nvswitch": True},
    }


def cell(top: dict[str, Any], a: int, b: int, text: str, *, both: bool = True) -> None:
    """Change a cell of the links, and its mirror."""
    top["links"][a][b] = text
    if both:
        top["links"][b][a] = text


BROKEN: list[tuple[str, Callable[[], dict[str, Any]], Change, str]] = [
    ("no links", bridged, lambda m: m.pop("links"), "missing key 'links'"),
    ("no gpus", bridged, lambda m: m.pop("gpus"), "missing key 'gpus'"),
    ("no nvlink", bridged, lambda m: m.pop("nvlink"), "missing key 'nvlink'"),
    ("no name", bridged, lambda m: m.pop("name"), "missing key 'name'"),
    ("no numa", bridged, lambda m: m["gpus"][2].pop("numa"), "gpus[2]: missing key 'numa'"),
    (
        "no count of links",
        bridged,
        lambda m: m["nvlink"].pop("links_per_gpu"),
        "nvlink: missing key 'links_per_gpu'",
    ),
    ("empty name", bridged, lambda m: m.update(name=""), "name: a text is wanted, not an empty"),
    ("no GPU", bridged, lambda m: m.update(gpus=[], links=[]), "gpus: 1 to 64 GPUs"),
    (
        "65 GPUs",
        bridged,
        lambda m: m.update(gpus=[{"index": at, "numa": None, "cpus": None} for at in range(65)]),
        "gpus: 1 to 64 GPUs are wanted, not 65",
    ),
    ("gpus a mapping", bridged, lambda m: m.update(gpus={}), "gpus: a list is wanted"),
    ("gpu a number", bridged, lambda m: m["gpus"].__setitem__(1, 7), "gpus[1]: a mapping"),
    ("index twice", bridged, lambda m: m["gpus"][3].update(index=2), "gpus[3].index: 2 where 3"),
    ("index a word", bridged, lambda m: m["gpus"][3].update(index="x"), "gpus[3].index: a number"),
    ("index true", bridged, lambda m: m["gpus"][1].update(index=True), "gpus[1].index: a number"),
    ("bad numa", bridged, lambda m: m["gpus"][1].update(numa="0-"), "gpus[1].numa: '0-'"),
    ("descending", bridged, lambda m: m["gpus"][1].update(cpus="9-3"), "gpus[1].cpus: '9-3'"),
    ("cpus a list", bridged, lambda m: m["gpus"][1].update(cpus=[0]), "gpus[1].cpus: a list like"),
    ("bad pci", bridged, lambda m: m["gpus"][1].update(pci="8f:00"), "gpus[1].pci: '8f:00' is not"),
    ("device 20", bridged, lambda m: m["gpus"][1].update(pci="8f:20.0"), "gpus[1].pci: '8f:20.0'"),
    ("pci a number", bridged, lambda m: m["gpus"][1].update(pci=4), "gpus[1].pci: 4 is not"),
    (
        "pci twice",
        bridged,
        lambda m: (m["gpus"][0].update(pci="8f:00.0"), m["gpus"][2].update(pci="0000:8F:00.0")),
        "gpus[2].pci: 0000:8f:00.0 is GPU 0's already",
    ),
    ("a row short", bridged, lambda m: m["links"].pop(), "links: 3 rows for 4 GPUs"),
    ("a cell short", bridged, lambda m: m["links"][2].pop(), "links[2]: 3 cells for 4 GPUs"),
    ("row a text", bridged, lambda m: m["links"].__setitem__(1, "X"), "links[1]: a list"),
    ("unknown cell", bridged, lambda m: cell(m, 2, 3, "NVX"), "links[2][3]: unknown cell 'NVX'"),
    ("99 links", bridged, lambda m: cell(m, 2, 3, "NV99"), "links[2][3]: unknown cell 'NV99'"),
    ("no links NV0", bridged, lambda m: cell(m, 2, 3, "NV0"), "links[2][3]: unknown cell 'NV0'"),
    ("cell a number", bridged, lambda m: cell(m, 0, 1, 12), "links[0][1]: unknown cell 12"),
    ("old SOC", bridged, lambda m: cell(m, 0, 2, "SOC"), "links[0][2]: unknown cell 'SOC'"),
    ("diagonal", bridged, lambda m: cell(m, 1, 1, "PIX"), "links[1][1]: 'PIX': X stands on"),
    ("X beside it", bridged, lambda m: cell(m, 0, 1, "X"), "links[0][1]: 'X': X stands on"),
    (
        "asymmetric",
        bridged,
        lambda m: cell(m, 1, 3, "NODE", both=False),
        "links[1][3]: NODE, but links[3][1] is SYS",
    ),
    (
        "too many links",
        bridged,
        lambda m: cell(m, 0, 2, "NV1"),
        "links[0]: 13 NVLinks in the row, but a GPU has 12",
    ),
    (
        "pcie with NVLinks",
        bridged,
        lambda m: m.update(pcie_links=m["links"]),
        "pcie_links[0][1]: unknown cell 'NV12'",
    ),
    (
        "pcie not square",
        bridged,
        lambda m: m.update(pcie_links=[["X"]]),
        "pcie_links: 1 rows for 4 GPUs",
    ),
    (
        "pcie contradicts",
        bridged,
        lambda m: m.update(
            pcie_links=[["X" if a == b else "NODE" for b in range(4)] for a in range(4)]
        ),
        "pcie_links[0][2]: NODE, but links say SYS",
    ),
    ("nics a text", bridged, lambda m: m.update(nics="none"), "nics: a list is wanted"),
    ("nic unnamed", bridged, lambda m: m["nics"][0].pop("name"), "nics[0]: missing key 'name'"),
    ("nic a path", bridged, lambda m: m["nics"][0].update(name="../x"), "nics[0].name: '../x'"),
    ("nic twice", bridged, lambda m: m["nics"][1].update(name="mlx5_0"), "nics[1].name: mlx5_0"),
    ("nic row short", bridged, lambda m: m["nics"][1]["gpus"].pop(), "nics[1].gpus: 3 cells"),
    (
        "nic NVLink",
        bridged,
        lambda m: m["nics"][1]["gpus"].__setitem__(2, "NV1"),
        "nics[1].gpus[2]: unknown cell 'NV1'",
    ),
    (
        "nic X",
        bridged,
        lambda m: m["nics"][1]["gpus"].__setitem__(2, "X"),
        "nics[1].gpus[2]: 'X'",
    ),
    (
        "nic columns short",
        bridged,
        lambda m: m["nics"][1]["nics"].pop(),
        "nics[1].nics: 1 cells for 2 NICs",
    ),
    (
        "nics asymmetric",
        bridged,
        lambda m: m["nics"][0]["nics"].__setitem__(1, "PIX"),
        "nics[0].nics[1]: PIX, but nics[1].nics[0] is SYS",
    ),
    (
        "nics diagonal",
        bridged,
        lambda m: m["nics"][0]["nics"].__setitem__(0, "PIX"),
        "nics[0].nics[0]: 'PIX'",
    ),
    ("switch a word", bridged, lambda m: m["nvlink"].update(nvswitch="yes"), "nvlink.nvswitch: "),
    (
        "37 links",
        bridged,
        lambda m: m["nvlink"].update(links_per_gpu=37),
        "nvlink.links_per_gpu: a number from 0 to 36 is wanted, not 37",
    ),
    ("uneven switch", switched, lambda m: cell(m, 0, 1, "NV17"), "links[0][1]: 17 NVLinks"),
    ("hole in a switch", switched, lambda m: cell(m, 0, 1, "NODE"), "links[0][1]: 0 NVLinks"),
    (
        "more than the board has",
        switched,
        lambda m: m["nvlink"].update(links_per_gpu=12),
        "links[0]: 18 NVLinks to the switch, but a GPU has 12",
    ),
]


@pytest.mark.parametrize(
    ("make", "change", "message"),
    [row[1:] for row in BROKEN],
    ids=[row[0] for row in BROKEN],
)
def test_a_breach_is_one_error_that_names_the_place(
    make: Callable[[], dict[str, Any]], change: Change, message: str
) -> None:
    """The error starts with the file, then the place, and is one line."""
    top = make()
    change(top)
    with pytest.raises(MachineFileError) as caught:
        parse_machine(yaml.safe_dump(top), "box.yaml")
    assert str(caught.value).startswith(f"box.yaml: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "box.yaml: a mapping is wanted, not nothing"),
        ("- 1\n", "box.yaml: a mapping is wanted, not a list"),
        ("name: [\nlinks: }\n", "box.yaml: line 2: not YAML: "),
        ("name: &a [*b]\n", "box.yaml: line 1: not YAML: "),
        ("when: 2026-13-45\n", "box.yaml: not YAML: "),
        (b"\xff\xff\x00\x01", "box.yaml: not YAML: "),
        pytest.param("[" * 100_000, "box.yaml: line 1: nested more than 40 deep", id="deep"),
        pytest.param(" " * (5 << 20), "box.yaml: longer than 4 MiB", id="long"),
        ("? [a]\n: 1\n? {b: 1}\n: 2\n", "box.yaml: "),
        ("x: !!python/object/apply:os.system [true]\n", "box.yaml: line 1: not YAML: "),
    ],
)
def test_text_that_is_no_description_is_refused(text: str | bytes, message: str) -> None:
    """Whatever the text is, the answer is one error of ours, with the line where there is one."""
    with pytest.raises(MachineFileError) as caught:
        parse_machine(text, "box.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_hidden_levels_are_unknown_unless_uncovered() -> None:
    """Beneath an NVLink the level is None; pcie_links tells it."""
    top = bridged()
    machine = parse_machine(yaml.safe_dump(top), "box")
    assert machine.levels[0] == (Level.SELF, None, Level.SYS, Level.SYS)
    top["pcie_links"] = [
        ["X" if a == b else "NODE" if a // 2 == b // 2 else "SYS" for b in range(4)]
        for a in range(4)
    ]
    machine = parse_machine(yaml.safe_dump(top), "box")
    assert machine.levels[0] == (Level.SELF, Level.NODE, Level.SYS, Level.SYS)


def test_a_gpu_that_left_the_switch_has_no_active_links() -> None:
    """The others keep theirs."""
    assert parse_machine(yaml.safe_dump(switched()), "box").active_links == (18, 18, 18, 0)


def test_a_degraded_gpu_gives_its_pairs_the_lesser_count() -> None:
    """A GPU with fewer links is no breach of the switch's evenness."""
    top = switched()
    for other in (0, 1):
        cell(top, other, 2, "NV12")
    assert parse_machine(yaml.safe_dump(top), "box").active_links == (18, 18, 12, 0)


def test_unquoted_numbers_and_blank_columns_are_taken() -> None:
    """A NUMA node without quotes is that node; "" stays "" and null stays None."""
    top = bridged()
    top["gpus"][0]["numa"] = 3
    top["gpus"][1]["numa"] = ""
    top["gpus"][2]["numa"] = None
    numa = [gpu.numa for gpu in parse_machine(yaml.safe_dump(top), "box").gpus]
    assert numa == ["3", "", None, "1"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("8f:00.0", "0000:8f:00.0"),
        ("0000:10:1c.0", "0000:10:1c.0"),
        ("0001:00:00.0", "0001:00:00.0"),
        ("00000000:CA:00.0", "0000:ca:00.0"),
        ("10000:01:00.0", "10000:01:00.0"),
    ],
)
def test_pci_addresses_come_in_several_forms(text: str, address: str) -> None:
    """All become Linux' form."""
    assert normalise_pci(text) == address


def test_all_shipped_machines_are_sound() -> None:
    """Each can be read by its name and bears it."""
    names = shipped_names()
    assert len(names) == 53
    assert [load_machine(name).name for name in names] == list(names)


def test_a_machine_is_loaded_from_a_path(tmp_path: Path) -> None:
    """A path that exists goes before the shipped names, and stands in the errors."""
    path = tmp_path / "box.yaml"
    path.write_text(yaml.safe_dump(bridged()), encoding="utf-8")
    assert load_machine(str(path)).name == "bridged"
    path.write_text("[]", encoding="utf-8")
    with pytest.raises(MachineFileError, match=r"box\.yaml: a mapping is wanted, not a list"):
        load_machine(str(path))


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("dgx1-v10", "neither a file nor a shipped machine; close ones: dgx1-v100"),
        ("dgx1.yaml", "neither a file nor a shipped machine"),
        ("", "cannot be read"),
        ("a\0b", "a"),
        ("x" * 300, "cannot be read: File name too long"),
    ],
)
def test_an_unknown_machine_names_close_ones(ref: str, message: str) -> None:
    """The error tells what comes close, and no odd name breaks it."""
    with pytest.raises(MachineFileError, match=re.escape(message)):
        load_machine(ref)
