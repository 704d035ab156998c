"""NVML as the plugin sees it: typed answers over pynvml and its quirks."""

from __future__ import annotations

import pynvml
import pytest

from deviceplugin.errors import NvmlError
from deviceplugin.nvml.library import Code, EventType, NvmlEvent, open_nvml
from mock_nvml import MockNvml, gpu_uuid
from tests.mock_nvml.rig import rig
from topology.catalogue import load_machine


def test_a_missing_library_is_an_error_with_its_code() -> None:
    """A host without the driver has no libnvidia-ml.so.1."""
    before = pynvml.nvmlLib
    pynvml.nvmlLib = None
    try:
        with pytest.raises(NvmlError) as caught:
            open_nvml()
    finally:
        pynvml.nvmlLib = before
    assert (caught.value.code, caught.value.name) == (12, "LIBRARY_NOT_FOUND")


@pytest.mark.parametrize("code", [9, 18, 999, 424242])
def test_a_failing_start_keeps_the_code(code: int) -> None:
    """Also a code that pynvml's table lacks."""
    with MockNvml(load_machine("l4-8x")) as mock:
        mock.inject("call", function="nvmlInitWithFlags", code=code)
        with pytest.raises(NvmlError) as caught:
            open_nvml()
    assert caught.value.code == code
    assert f"({code})" in str(caught.value)


def test_closing_twice_gives_back_once() -> None:
    """Another user of NVML in the process keeps its initialisation."""
    with MockNvml(load_machine("l4-8x")):
        pynvml.nvmlInit()
        nvml = open_nvml()
        nvml.close()
        nvml.close()
        assert pynvml.nvmlDeviceGetCount() == 8


def test_answers_are_typed() -> None:
    """Text is str, addresses are Linux', sizes are MiB."""
    with rig(load_machine("hgx-h100-8x-ib"), seed="n") as set_up:
        nvml = set_up.nvml
        gpu = nvml.device(7)
        assert nvml.count() == 8
        assert nvml.uuid(gpu) == gpu_uuid("n", 7)
        assert nvml.pci(gpu) == "0000:80:00.0"
        assert nvml.minor(gpu) == 7
        assert nvml.compute_capability(gpu) == "9.0"
        assert nvml.memory_mib(gpu) == 81559
        assert nvml.pcie_generation(gpu) == 5
        assert nvml.memory_affinity(gpu) == (1,)
        assert nvml.cpu_affinity(gpu)[0] == 56
        assert nvml.driver_version()
        assert len(nvml.links(gpu)) == 18


def test_events_are_resolved_to_uuids() -> None:
    """The mask is cut to what the GPU supports; no event within the time is None."""
    with rig(load_machine("rtx5090-8x"), seed="n") as set_up:
        events = set_up.nvml.event_set()
        every = EventType.XID | EventType.DOUBLE_BIT_ECC | EventType.SINGLE_BIT_ECC
        events.register(set_up.nvml.device(2), every)
        assert events.wait(0) is None
        set_up.mock.inject("xid", gpu=2, xid=48)
        assert events.wait(10) == NvmlEvent(uuid=gpu_uuid("n", 2), type=EventType.XID, data=48)
        set_up.mock.inject("xid", gpu=2, xid=94, gpu_instance=3)
        event = events.wait(10)
        assert event is not None
        assert (event.gpu_instance, event.compute_instance) == (3, None)
        events.close()
        events.close()


def test_events_that_a_gpu_lacks_are_not_supported() -> None:
    """With nothing left of the mask the set stays usable for the others."""
    with rig(load_machine("rtx5090-8x")) as set_up:
        events = set_up.nvml.event_set()
        with pytest.raises(NvmlError) as caught:
            events.register(set_up.nvml.device(0), EventType.DOUBLE_BIT_ECC)
        assert caught.value.code == Code.NOT_SUPPORTED
        events.register(set_up.nvml.device(1), EventType.XID)


def test_a_lost_gpu_is_told_by_every_wait() -> None:
    """First the event, with its uuid though the GPU is silent; then GPU_IS_LOST each time."""
    with rig(load_machine("l4-8x")) as set_up:
        events = set_up.nvml.event_set()
        uuid = set_up.nvml.uuid(set_up.nvml.device(0))
        events.register(set_up.nvml.device(0), EventType.XID)
        set_up.mock.inject("lost", gpu=0)
        event = events.wait(10)
        assert event is not None
        assert (event.uuid, event.data) == (uuid, 79)
        for _ in range(2):
            with pytest.raises(NvmlError) as caught:
                events.wait(10)
            assert caught.value.code == Code.GPU_IS_LOST


def test_every_question_to_a_lost_gpu_keeps_its_code() -> None:
    """No answer of pynvml's own kind gets out."""
    with rig(load_machine("hgx-h100-8x-ib")) as set_up:
        nvml = set_up.nvml
        gpu, other = nvml.device(0), nvml.device(1)
        set_up.mock.inject("lost", gpu=0)
        questions = (
            nvml.uuid,
            nvml.name,
            nvml.pci,
            nvml.minor,
            nvml.compute_capability,
            nvml.memory_mib,
            nvml.pcie_generation,
            nvml.cpu_affinity,
            nvml.memory_affinity,
            nvml.links,
            nvml.clique,
        )
        for question in questions:
            with pytest.raises(NvmlError) as caught:
                question(gpu)
            assert caught.value.code == Code.GPU_IS_LOST
        for pair in (nvml.common_ancestor, nvml.nvlink_access):
            with pytest.raises(NvmlError) as caught:
                pair(gpu, other)
            assert caught.value.code == Code.GPU_IS_LOST
