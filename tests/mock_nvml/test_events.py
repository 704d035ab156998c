"""Event sets and faults: what happens to a GPU, and who hears of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pynvml
import pytest

from mock_nvml import FaultError, MockNvml
from tests.waiting import wait_until
from topology.catalogue import load_machine

XID = pynvml.nvmlEventTypeXidCriticalError
WHOLE = 0xFFFFFFFF


@pytest.fixture
def mock() -> Iterator[MockNvml]:
    """Put an HGX H100 behind pynvml and initialise it once."""
    with MockNvml(load_machine("hgx-h100-8x-ib")) as made:
        pynvml.nvmlInit()
        yield made


def handle(index: int) -> object:
    """Return a GPU's handle."""
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def watch(*indexes: int, mask: int = XID) -> object:
    """Return an event set that watches GPUs."""
    event_set = pynvml.nvmlEventSetCreate()
    for index in indexes:
        pynvml.nvmlDeviceRegisterEvents(handle(index), mask, event_set)
    return event_set


def wait_code(event_set: object, milliseconds: int = 0) -> int:
    """Return the code that a wait fails with."""
    with pytest.raises(pynvml.NVMLError) as caught:
        pynvml.nvmlEventSetWait_v2(event_set, milliseconds)
    return int(caught.value.value)


def test_an_xid_is_told_with_its_gpu(mock: MockNvml) -> None:
    """Type, number and GPU; the instance ids of a whole GPU are all ones."""
    event_set = watch(0, 3)
    mock.inject("xid", gpu=3, xid=48)
    event = pynvml.nvmlEventSetWait_v2(event_set, 1000)
    assert (event.eventType, event.eventData) == (XID, 48)
    assert (event.gpuInstanceId, event.computeInstanceId) == (WHOLE, WHOLE)
    assert pynvml.nvmlDeviceGetUUID(event.device) == pynvml.nvmlDeviceGetUUID(handle(3))
    assert wait_code(event_set) == pynvml.NVML_ERROR_TIMEOUT


def test_an_xid_of_an_instance_names_it(mock: MockNvml) -> None:
    """A fault that belongs to a MIG instance carries its ids."""
    event_set = watch(3)
    mock.inject("xid", gpu=3, xid=13, gpu_instance=1, compute_instance=0)
    event = pynvml.nvmlEventSetWait_v2(event_set, 1000)
    assert (event.gpuInstanceId, event.computeInstanceId) == (1, 0)


def test_only_what_is_watched_is_told(mock: MockNvml) -> None:
    """Neither other GPUs, nor other types, nor what was before the registration."""
    mock.inject("xid", gpu=0, xid=31)
    event_set = watch(0)
    mock.inject("xid", gpu=1, xid=31)
    mock.inject("ecc", gpu=0)
    assert wait_code(event_set) == pynvml.NVML_ERROR_TIMEOUT


def test_every_set_hears_of_an_event(mock: MockNvml) -> None:
    """Two watchers do not take events from each other, and keep their order."""
    first, second = watch(0), watch(0)
    mock.inject("xid", gpu=0, xid=1)
    mock.inject("xid", gpu=0, xid=2)
    for event_set in (first, second):
        heard = [pynvml.nvmlEventSetWait_v2(event_set, 0).eventData for _ in range(2)]
        assert heard == [1, 2]


def test_a_mask_beyond_what_is_supported_registers_nothing(mock: MockNvml) -> None:
    """The call fails as a whole and the set stays usable for others."""
    event_set = watch(1)
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceRegisterEvents(handle(0), XID | 0x4000, event_set)
    mock.inject("xid", gpu=0, xid=1)
    mock.inject("xid", gpu=1, xid=2)
    assert pynvml.nvmlEventSetWait_v2(event_set, 0).eventData == 2


def test_a_wait_lasts_its_timeout(mock: MockNvml) -> None:
    """It never comes back without an event before that."""
    start = time.monotonic()
    assert wait_code(watch(0), 50) == pynvml.NVML_ERROR_TIMEOUT
    assert time.monotonic() - start >= 0.05


def test_who_waits_is_woken_and_others_go_on(mock: MockNvml) -> None:
    """A wait holds no lock: other calls answer meanwhile, and an event ends it."""
    event_set = watch(0)
    heard: list[int] = []
    thread = threading.Thread(
        target=lambda: heard.append(pynvml.nvmlEventSetWait_v2(event_set, 60_000).eventData)
    )
    thread.start()
    assert pynvml.nvmlDeviceGetCount() == 8
    mock.inject("xid", gpu=0, xid=94)
    thread.join(10)
    assert heard == [94]


@pytest.mark.parametrize("end", [pynvml.nvmlShutdown, None])
def test_the_end_of_a_set_sends_its_waiter_home(mock: MockNvml, end: object) -> None:
    """Freeing it, or the last shutdown, ends a wait with UNINITIALIZED."""
    event_set = watch(0)
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(wait_code(event_set, 60_000)))
    thread.start()
    wait_until(lambda: mock.state.changed._waiters, what="the waiter waits")
    if end is None:
        pynvml.nvmlEventSetFree(event_set)
    else:
        pynvml.nvmlShutdown()
    thread.join(10)
    assert codes == [pynvml.NVML_ERROR_UNINITIALIZED]


def test_a_lost_gpu_ends_every_wait_for_ever(mock: MockNvml) -> None:
    """First its XID 79 is told, then GPU_IS_LOST at once each time; a set without it is quiet."""
    event_set, other = watch(0, 1), watch(1)
    gpu = handle(0)
    mock.inject("lost", gpu=0)
    assert pynvml.nvmlEventSetWait_v2(event_set, 60_000).eventData == 79
    for _ in range(3):
        assert wait_code(event_set, 60_000) == pynvml.NVML_ERROR_GPU_IS_LOST
    assert wait_code(other) == pynvml.NVML_ERROR_TIMEOUT
    for call in (pynvml.nvmlDeviceGetUUID, pynvml.nvmlDeviceGetName):
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            call(gpu)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        handle(0)
    assert pynvml.nvmlDeviceGetCount() == 8


def test_a_loss_can_be_silent_and_leave_some_answers(mock: MockNvml) -> None:
    """Which of both a driver does is not documented, so a script may choose."""
    event_set, gpu = watch(0), handle(0)
    mock.inject("lost", gpu=0, event=False, answers=["nvmlDeviceGetUUID"])
    assert wait_code(event_set, 60_000) == pynvml.NVML_ERROR_GPU_IS_LOST
    assert pynvml.nvmlDeviceGetUUID(gpu).startswith("GPU-")


def test_recovery_makes_a_gpu_whole(mock: MockNvml) -> None:
    """Its calls answer, its counters are zero, its links are up; other GPUs' faults stay."""
    mock.inject("lost", gpu=0)
    mock.inject("ecc", gpu=0, count=3)
    mock.inject("link-down", gpu=0)
    mock.inject("link-down", gpu=1, link=4)
    mock.inject("recover", gpu=0)
    assert pynvml.nvmlDeviceGetTotalEccErrors(handle(0), 1, 0) == 0
    assert [pynvml.nvmlDeviceGetNvLinkState(handle(0), link) for link in range(18)] == [1] * 18
    assert pynvml.nvmlDeviceGetNvLinkState(handle(1), 4) == 0


def test_a_removed_gpu_is_not_numbered_again(mock: MockNvml) -> None:
    """It is lost at once; the next initialisation counts seven, and recovery brings it back."""
    third = pynvml.nvmlDeviceGetUUID(handle(3))
    mock.inject("removed", gpu=3)
    with pytest.raises(pynvml.NVMLError_GpuIsLost):
        pynvml.nvmlDeviceGetName(handle(3))

    def seen_anew() -> list[str]:
        pynvml.nvmlShutdown()
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        return [pynvml.nvmlDeviceGetUUID(handle(index)) for index in range(count)]

    seen = seen_anew()
    assert len(seen) == 7
    assert third not in seen
    mock.inject("recover")
    assert seen_anew()[3] == third


def test_a_direct_link_goes_down_on_both_ends() -> None:
    """What one GPU's link has lost, the GPU at the far end has lost too, and nobody else."""

    def count_active() -> list[int]:
        return [
            sum(pynvml.nvmlDeviceGetNvLinkState(handle(index), link) for link in range(6))
            for index in range(8)
        ]

    with MockNvml(load_machine("dgx1-v100")) as mock:
        pynvml.nvmlInit()
        assert count_active() == [6] * 8
        mock.inject("link-down", gpu=0, link=0)
        fewer = [index for index, links in enumerate(count_active()) if links == 5]
        assert len(fewer) == 2
        assert fewer[0] == 0
        assert sum(count_active()) == 46


def test_memory_errors_are_counted_and_told(mock: MockNvml) -> None:
    """Double-bit errors also take spare rows."""
    event_set = watch(2, mask=3)
    mock.inject("ecc", gpu=2, double=False, count=7)
    mock.inject("ecc", gpu=2)
    types = [pynvml.nvmlEventSetWait_v2(event_set, 0).eventType for _ in range(2)]
    assert types == [1, 2]
    assert pynvml.nvmlDeviceGetTotalEccErrors(handle(2), 0, 0) == 7
    assert pynvml.nvmlDeviceGetRemappedRows(handle(2)) == (0, 1, 1, 0)


def test_a_named_call_fails_as_often_as_told(mock: MockNvml) -> None:
    """For one GPU or all, a number of times or until recovery."""
    mock.inject("call", function="nvmlDeviceGetName", code="UNKNOWN", gpu=1, times=2)
    assert pynvml.nvmlDeviceGetName(handle(0))
    for _ in range(2):
        with pytest.raises(pynvml.NVMLError_Unknown):
            pynvml.nvmlDeviceGetName(handle(1))
    assert pynvml.nvmlDeviceGetName(handle(1))
    mock.inject("call", function="nvmlInitWithFlags", code=18)
    with pytest.raises(pynvml.NVMLError_LibRmVersionMismatch):
        pynvml.nvmlInit()
    mock.inject("recover")
    pynvml.nvmlInit()


def test_a_slow_call_holds_up_nobody_else(mock: MockNvml) -> None:
    """It ends early when the machine recovers."""
    mock.inject("slow", function="nvmlDeviceGetName", seconds=60, gpu=1)
    gpu = handle(1)
    names: list[str] = []
    thread = threading.Thread(target=lambda: names.append(pynvml.nvmlDeviceGetName(gpu)))
    thread.start()
    assert pynvml.nvmlDeviceGetName(handle(0))
    assert names == []
    mock.inject("recover", gpu=1)
    thread.join(10)
    assert names == ["NVIDIA H100 80GB HBM3"]


MALFORMED = [
    ({"kind": "meteor"}, "kind: 'meteor' is none of xid, ecc"),
    ({"kind": "xid", "gpu": 8, "xid": 1}, "gpu: 8: the machine has GPU 0 to 7"),
    ({"kind": "xid", "gpu": -1, "xid": 1}, "gpu: -1"),
    ({"kind": "xid", "gpu": 1}, "Object missing required field `xid`"),
    ({"kind": "xid", "gpu": 1, "xid": "much"}, "xid: Expected `int`, got `str`"),
    ({"kind": "ecc", "gpu": 1, "colour": 1}, "Object contains unknown field `colour`"),
    ({"kind": "lost", "gpu": 1, "at": -1}, "at: -1 s lies in the past"),
    ({"kind": "call", "function": "nvmlX", "code": "OOPS"}, "code: 'OOPS' is no code of NVML"),
    ({"kind": "slow", "function": "nvmlX", "seconds": -2}, "seconds: -2 s"),
]


@pytest.mark.parametrize(("fields", "message"), MALFORMED, ids=[row[1][:20] for row in MALFORMED])
def test_a_malformed_fault_names_the_place(
    mock: MockNvml, fields: dict[str, object], message: str
) -> None:
    """From Python it is a FaultError, and nothing has happened."""
    with pytest.raises(FaultError) as caught:
        mock.inject(**fields)
    assert message in str(caught.value)


def codes(*calls: Callable[[], object]) -> list[int]:
    """Return what each call ends with, 0 for a success."""
    found = []
    for call in calls:
        try:
            call()
        except pynvml.NVMLError as error:
            found.append(error.value)
        else:
            found.append(0)
    return found


def test_an_unloaded_driver_ends_what_was_initialised(mock: MockNvml) -> None:
    """Calls say UNKNOWN until the shutdown, and nobody initialises before it is loaded again."""
    mock.inject("driver", loaded=False)
    count, init, shutdown = pynvml.nvmlDeviceGetCount, pynvml.nvmlInit, pynvml.nvmlShutdown
    assert codes(count, shutdown, init) == [999, 0, 9]
    mock.inject("driver")
    assert codes(init, count) == [0, 0]


def test_a_reloaded_driver_wants_a_new_initialisation(mock: MockNvml) -> None:
    """Also where nobody noticed that it was away: handles and event sets are void."""
    event_set = watch(0)
    mock.inject("driver")
    assert wait_code(event_set) == pynvml.NVML_ERROR_UNKNOWN
    count, init, shutdown = pynvml.nvmlDeviceGetCount, pynvml.nvmlInit, pynvml.nvmlShutdown
    assert codes(count, shutdown, init, count) == [999, 0, 0, 0]


def test_another_driver_needs_another_process(mock: MockNvml) -> None:
    """The library that is loaded fits the old one; recovery puts that back."""
    mock.inject("driver", version="590.44.01")
    assert codes(pynvml.nvmlShutdown, pynvml.nvmlInit) == [0, 18]
    mock.inject("recover")
    assert codes(pynvml.nvmlInit) == [0]


def test_heat_holds_the_clocks_down(mock: MockNvml) -> None:
    """From the slowdown threshold on, as the reasons of the clocks say."""
    limit = pynvml.nvmlDeviceGetTemperatureThreshold(handle(1), 1)
    for celsius, reason in ((limit - 1, 0x1), (limit, 0x40)):
        mock.inject("thermal", gpu=1, celsius=celsius)
        assert pynvml.nvmlDeviceGetTemperature(handle(1), 0) == celsius
        assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle(1)) == reason
    mock.inject("recover", gpu=1)
    assert pynvml.nvmlDeviceGetTemperature(handle(1), 0) < limit


def test_rows_wait_for_a_reset_or_have_no_spare(mock: MockNvml) -> None:
    """Both are told apart, and recovery ends them."""
    rows = pynvml.nvmlDeviceGetRemappedRows
    mock.inject("remap", gpu=2)
    assert rows(handle(2)) == (0, 0, 1, 0)
    mock.inject("remap", gpu=2, pending=False, failed=True)
    assert rows(handle(2)) == (0, 0, 0, 1)
    mock.inject("recover", gpu=2)
    assert rows(handle(2)) == (0, 0, 0, 0)


def test_links_come_up_again_one_by_one() -> None:
    """On both ends; links of the board that were never there stay down."""
    with MockNvml(load_machine("dgx1-v100")) as mock:
        pynvml.nvmlInit()

        def up(gpu: int) -> int:
            return sum(pynvml.nvmlDeviceGetNvLinkState(handle(gpu), at) for at in range(6))

        mock.inject("link-down", gpu=0)
        peers = [gpu for gpu in range(1, 8) if up(gpu) < 6]
        mock.inject("link-up", gpu=0, link=2)
        assert up(0) == 1
        mock.inject("link-up", gpu=0)
        assert [up(gpu) for gpu in (0, *peers)] == [6] * (1 + len(peers))
