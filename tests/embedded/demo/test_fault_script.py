"""Scripts of GPU faults for a demo: what is read, what is refused, which GPUs they take."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded.errors import FaultError
from embedded.fault_script import SHIPPED, find_script, read_script
from topology.catalogue import load_machine

MACHINES = {name: load_machine("hgx-h100-8x-ib") for name in ("n01", "n02", "n03")}


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_scripts_read(path: Path) -> None:
    """On three nodes of the machine that the documentation names."""
    faults = read_script(path, MACHINES)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert {fault.node for fault in faults} <= MACHINES.keys()


def test_the_story_has_what_it_promises() -> None:
    """Four XIDs, a lost GPU, a link down and up, MIG cut twice and taken away, the driver."""
    faults = read_script(find_script("story"), MACHINES)
    kinds = [fault.entry["kind"] for fault in faults]
    assert [fault.entry["xid"] for fault in faults if fault.entry["kind"] == "xid"] == [
        13,
        48,
        79,
        94,
    ]
    assert (kinds.count("mig"), kinds.count("driver")) == (3, 2)
    assert {"lost", "recover", "link-down", "link-up"} <= set(kinds)


CASES = [
    ("{at: 1, kind: xid, gpu: 2, xid: 48}", "n01", (2,), "n01: xid gpu 2, xid 48"),
    ("{node: n02, kind: driver}", "n02", tuple(range(8)), "n02: driver"),
    ("{kind: link-down, gpu: 1}", "n01", (), "n01: link-down gpu 1"),
    ("{kind: mig, gpu: 7, profiles: null}", "n01", (7,), "n01: mig gpu 7, profiles none"),
    (
        "{kind: call, function: nvmlDeviceGetName, code: UNKNOWN}",
        "n01",
        tuple(range(8)),
        "n01: call function nvmldevicegetname, code unknown",
    ),
]


@pytest.mark.parametrize(("entry", "node", "gpus", "words"), CASES)
def test_an_entry_knows_which_gpus_it_may_take(
    tmp_path: Path, entry: str, node: str, gpus: tuple[int, ...], words: str
) -> None:
    """A pod that was promised one of them is excused; what leaves GPUs in use takes none."""
    script = tmp_path / "faults.yaml"
    script.write_text(f"- {entry}\n")
    (fault,) = read_script(script, MACHINES)
    assert (fault.node, fault.gpus, str(fault)) == (node, gpus, words)
    assert "at" not in fault.entry
    assert "node" not in fault.entry


MALFORMED = [
    ("kind: xid", "a list of faults is wanted"),
    ("- 7", "[0]: a mapping is wanted"),
    ("- {node: n09, kind: driver}", "[0].node: no node 'n09'; there are n01, n02, n03"),
    ("- {kind: driver}\n- {kind: meteor}", "[1].kind: 'meteor' is none of xid"),
    ("- {kind: xid, gpu: 9, xid: 1}", "[0].gpu: 9: the machine has GPU 0 to 7"),
    ("- {kind: driver, at: 9999}", "[0].at: 9999 is more than 600 seconds"),
    ("- {kind: mig, gpu: 1, profiles: [9g.1gb]}", "[0].profiles: '9g.1gb' is none of"),
    ("[", "line 2: not YAML"),
]


@pytest.mark.parametrize(("text", "problem"), MALFORMED)
def test_a_mistake_names_file_and_entry(tmp_path: Path, text: str, problem: str) -> None:
    """Before the cluster starts."""
    script = tmp_path / "faults.yaml"
    script.write_text(text)
    with pytest.raises(FaultError) as caught:
        read_script(script, MACHINES)
    assert str(script) in str(caught.value)
    assert problem in str(caught.value)


def test_a_name_that_nobody_ships_is_told(tmp_path: Path) -> None:
    """With the names there are; a file of that name would do."""
    with pytest.raises(FaultError, match="neither a file nor one of story"):
        find_script(str(tmp_path / "tale"))
