"""What is told of the change from one inventory to the next."""

from __future__ import annotations

import pytest

from deviceplugin.guarding.conditions import ConditionLog
from deviceplugin.guarding.happenings import compare
from deviceplugin.nvml.interface import MigDevice
from deviceplugin.resources.inventory import Inventory
from tests.deviceplugin.nodes import PAIRS, machine
from topology.wire import DeviceCondition

TOPOLOGY = machine(4)
WELL = Inventory(TOPOLOGY)
PART = MigDevice("m0", 0, 1, 0, "3g.40gb")


def having(**fields: object) -> Inventory:
    """Return the inventory of four well GPUs with some fields changed."""
    return Inventory(**{"topology": TOPOLOGY, **fields})


CASES = [
    (WELL, WELL, []),
    (WELL, having(unhealthy={"g1": "XID 48"}), [("GpuUnhealthy", "GPU 1 (g1) gets no new pods")]),
    (having(unhealthy={"g1": "XID 48"}), WELL, [("GpuRecovered", "GPU 1 (g1) is well again")]),
    (having(unhealthy={"g1": "a"}), having(unhealthy={"g1": "b"}), []),
    (WELL, having(degraded={"g2": "hot"}), [("GpuDegraded", "GPU 2 (g2) works with a flaw: hot")]),
    (having(degraded={"g2": "hot"}), WELL, [("GpuFlawGone", "GPU 2 (g2) is well again")]),
    (
        having(degraded={"g2": "hot"}),
        having(unhealthy={"g2": "lost"}),
        [("GpuUnhealthy", "GPU 2 (g2) gets no new pods: lost")],
    ),
    (
        WELL,
        having(cordoned={"g0": frozenset(["g0"])}),
        [("GpuCordoned", "GPU 0 (g0) gets no new pods, one still holds it")],
    ),
    (
        having(cordoned={"g0": frozenset(["g0"])}),
        having(cordoned={"g0": frozenset()}),
        [("GpuDrained", "GPU 0 (g0) is cordoned and with no pod")],
    ),
    (having(cordoned={"g0": frozenset()}), WELL, [("GpuUncordoned", "GPU 0 (g0) may get pods")]),
    (WELL, having(topology=machine(5)), [("GpuAdded", "GPU 4 (g4) is new")]),
    (WELL, having(topology=machine(3)), [("GpuRemoved", "GPU 3 (g3) is gone")]),
    (WELL, having(mig={"g1": (PART,)}), [("MigChanged", "GPU 1 (g1) is cut into 3g.40gb")]),
    (WELL, having(mig={"g1": ()}), [("MigChanged", "GPU 1 (g1) is cut into nothing yet")]),
    (having(mig={"g1": ()}), WELL, [("MigChanged", "GPU 1 (g1) is whole, MIG is off")]),
    (
        having(mig={"g1": (PART,)}),
        having(mig={"g1": (PART,)}, unhealthy={"m0": "XID 94"}),
        [("GpuUnhealthy", "MIG device 1:0 3g.40gb (m0) gets no new pods: XID 94")],
    ),
    (
        having(mig={"g1": (PART,)}, unhealthy={"m0": "XID 94"}),
        having(mig={"g1": ()}),
        [("MigChanged", "GPU 1 (g1) is cut into nothing yet")],
    ),
    (
        WELL,
        having(topology=machine(4, {(0, 1): 4})),
        [("LinksChanged", "NVLinks between GPUs: 4, before 0")],
    ),
    (Inventory(), WELL, []),
    (Inventory(), having(unhealthy={"g1": "XID 48"}), [("GpuUnhealthy", "GPU 1 (g1) gets no")]),
]


@pytest.mark.parametrize(("before", "after", "told"), CASES)
def test_each_change_is_told_once_and_in_words(
    before: Inventory, after: Inventory, told: list[tuple[str, str]]
) -> None:
    """With its reason; what is as it was is no news, nor are the GPUs of the first inventory."""
    found = compare(before, after)
    assert [one.reason for one in found] == [reason for reason, _ in told]
    for one, (_, message) in zip(found, told, strict=True):
        assert one.message.startswith(message)
        assert one.warning == (one.reason in {"GpuUnhealthy", "GpuDegraded", "GpuRemoved"})


def test_a_condition_has_a_beginning() -> None:
    """It stays while the status does, whatever becomes of the reason; others begin anew."""
    now = [0.0]
    log = ConditionLog(wall=lambda: now[0])
    log.take(having(degraded={"g0": "hot"}, unhealthy={"g1": "XID 48"}))
    now[0] = 3600.0
    log.take(having(unhealthy={"g0": "lost", "g1": "XID 79"}, cordoned={"g2": frozenset()}))
    assert log.read() == {
        "g0": DeviceCondition("unhealthy", "lost", "1970-01-01T01:00:00Z"),
        "g1": DeviceCondition("unhealthy", "XID 79", "1970-01-01T00:00:00Z"),
        "g2": DeviceCondition("cordoned", "with no pod", "1970-01-01T01:00:00Z"),
    }
    log.take(WELL)
    assert log.read() == {}


def test_a_restart_begins_nothing() -> None:
    """What a former process said counts on, until the GPUs have been seen."""
    log = ConditionLog(wall=lambda: 7200.0)
    before = {"g1": DeviceCondition("unhealthy", "XID 48", "1970-01-01T00:00:00Z")}
    log.adopt(before)
    log.take(Inventory())
    assert log.read() == before
    log.take(having(unhealthy={"g1": "XID 48"}))
    assert log.read() == before


def test_links_are_counted_once_for_a_pair() -> None:
    """Four bridges of four links are sixteen."""
    (told,) = compare(Inventory(machine(8)), Inventory(machine(8, PAIRS)))
    assert told.message == "NVLinks between GPUs: 16, before 0"
