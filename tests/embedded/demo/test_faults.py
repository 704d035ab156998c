"""Reading --fault."""

from __future__ import annotations

import pytest

from embedded.errors import FaultError
from embedded.faults import CLUSTER_WIDE, Fault, FaultKind, parse_fault, parse_faults

NODES = ["n01", "n02", "n03"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("plugin-killed@5", Fault(FaultKind.PLUGIN_KILLED, "n01", 5.0)),
        ("plugin-killed:n02@0.5", Fault(FaultKind.PLUGIN_KILLED, "n02", 0.5)),
        ("extender-killed@3", Fault(FaultKind.EXTENDER_KILLED, "", 3.0)),
        ("apiserver-away@3", Fault(FaultKind.APISERVER_AWAY, "", 3.0, 10.0)),
        ("apiserver-away@3+2", Fault(FaultKind.APISERVER_AWAY, "", 3.0, 2.0)),
        ("gpu-lost:n03@4+1.5", Fault(FaultKind.GPU_LOST, "n03", 4.0, 1.5)),
    ],
)
def test_a_fault_reads_as_written(text: str, fault: Fault) -> None:
    """Kind, node, time and duration are taken; what is left out has its default."""
    assert parse_fault(text, NODES) == fault


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plugin-killed",
        "plugin-killed@",
        "plugin-killed@soon",
        "plugin-killed@-1",
        "plugin-killed@1.2.3",
        "plugin-killed@9999",
        "plugin-killed:n09@1",
        "plugin-killed@1+2",
        "extender-killed:n01@1",
        "meteor@1",
        "all@3",
    ],
)
def test_a_wrong_fault_is_named(text: str) -> None:
    """What cannot be understood is refused with its own text."""
    with pytest.raises(FaultError, match="--fault"):
        parse_fault(text, NODES)


def test_all_is_one_of_each() -> None:
    """`all` gives each kind once, in order of time, on nodes that exist."""
    faults = parse_faults(["all"], NODES)
    assert {fault.kind for fault in faults} == set(FaultKind)
    assert len(faults) == len(FaultKind)
    assert [fault.at for fault in faults] == sorted(fault.at for fault in faults)
    assert all(fault.node in NODES or fault.kind in CLUSTER_WIDE for fault in faults)


def test_faults_are_sorted_by_time() -> None:
    """The order of options does not matter."""
    faults = parse_faults(["gpu-xid@9", "plugin-killed@2"], NODES)
    assert [fault.at for fault in faults] == [2.0, 9.0]
