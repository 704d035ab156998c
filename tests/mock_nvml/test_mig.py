"""MIG behind unmodified pynvml: modes, profiles, instances, devices, and what goes wrong."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import pynvml
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mock_nvml import FaultError, MockNvml
from mock_nvml.errors import NvmlStatusError
from mock_nvml.mig import MigState
from mock_nvml.mig_profiles import geometry_of, named_profiles
from mock_nvml.products import find_product
from topology.catalogue import load_machine
from topology.machine_yaml import parse_machine

A100 = "dgx-a100-8x"


@pytest.fixture
def mock() -> Iterator[MockNvml]:
    """Put a DGX A100 (40 GB) behind pynvml and initialise it once."""
    with MockNvml(load_machine(A100), seed="n1") as made:
        pynvml.nvmlInit()
        yield made


def handle(index: int = 0) -> Any:
    """Return a GPU's handle."""
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def code_of(call: Any, *arguments: Any) -> int:
    """Return the code that a call fails with."""
    with pytest.raises(pynvml.NVMLError) as caught:
        call(*arguments)
    return int(caught.value.value)


def devices(index: int = 0) -> dict[int, Any]:
    """Return a GPU's MIG devices by their index, holes left out."""
    found = {}
    for at in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(handle(index))):
        try:
            found[at] = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle(index), at)
        except pynvml.NVMLError_NotFound:
            continue
    return found


def names(index: int = 0) -> list[str]:
    """Return the profiles of a GPU's MIG devices."""
    return [pynvml.nvmlDeviceGetName(one).rpartition(" MIG ")[2] for one in devices(index).values()]


SIZES = [
    ("c_nvmlDeviceAttributes", 40),
    ("c_nvmlGpuInstanceProfileInfo_v2_t", 152),
    ("c_nvmlComputeInstanceProfileInfo_v2_t", 136),
    ("c_nvmlGpuInstanceInfo_t", 24),
    ("c_nvmlComputeInstanceInfo_t", 32),
]


@pytest.mark.parametrize(("struct", "size"), SIZES)
def test_structs_have_the_layout_that_the_mock_fills(struct: str, size: int) -> None:
    """A pynvml with other structs would be filled wrongly: this tells it first."""
    assert ctypes.sizeof(getattr(pynvml, struct)) == size


def test_the_mode_is_off_until_it_is_set(mock: MockNvml) -> None:
    """Without it there can be no MIG device; products without MIG do not know the question."""
    assert pynvml.nvmlDeviceGetMigMode(handle()) == [0, 0]
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(handle()) == 0
    assert code_of(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle(), 0) == 6
    assert code_of(pynvml.nvmlDeviceCreateGpuInstance, handle(), 19) == 3
    assert pynvml.nvmlDeviceSetMigMode(handle(), 1) == pynvml.NVML_SUCCESS
    assert pynvml.nvmlDeviceGetMigMode(handle()) == [1, 1]
    assert pynvml.nvmlDeviceGetMaxMigDeviceCount(handle()) == 7
    assert devices() == {}
    with MockNvml(load_machine("l40s-8x")):
        pynvml.nvmlInit()
        assert code_of(pynvml.nvmlDeviceSetMigMode, handle(), 1) == 3


PROFILES = [
    (pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE, "MIG 1g.5gb", 19, 7, 4864, 14, range(7)),
    (pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV1, "MIG 1g.5gb+me", 20, 1, 4864, 14, range(7)),
    (pynvml.NVML_GPU_INSTANCE_PROFILE_1_SLICE_REV2, "MIG 1g.10gb", 15, 4, 9856, 14, (0, 2, 4, 6)),
    (pynvml.NVML_GPU_INSTANCE_PROFILE_2_SLICE, "MIG 2g.10gb", 14, 3, 9856, 28, (0, 2, 4)),
    (pynvml.NVML_GPU_INSTANCE_PROFILE_3_SLICE, "MIG 3g.20gb", 9, 2, 19968, 42, (0, 4)),
    (pynvml.NVML_GPU_INSTANCE_PROFILE_4_SLICE, "MIG 4g.20gb", 5, 1, 19968, 56, (0,)),
    (pynvml.NVML_GPU_INSTANCE_PROFILE_7_SLICE, "MIG 7g.40gb", 0, 1, 40192, 98, (0,)),
]


@pytest.mark.parametrize(
    ("key", "name", "number", "most", "memory", "multiprocessors", "starts"), PROFILES
)
def test_an_a100_has_the_vendors_profiles(  # noqa: PLR0917 - a row of the vendor's table
    mock: MockNvml,
    key: int,
    name: str,
    number: int,
    most: int,
    memory: int,
    multiprocessors: int,
    starts: Any,
) -> None:
    """Number, count, memory and multiprocessors, and the places where each may lie."""
    pynvml.nvmlDeviceSetMigMode(handle(), 1)
    info = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle(), key)
    assert (info.name, info.id, info.instanceCount) == (name, number, most)
    assert (info.memorySizeMB, info.multiprocessorCount) == (memory, multiprocessors)
    old = pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle(), key, version=1)
    assert (old.id, old.memorySizeMB) == (number, memory)
    assert pynvml.nvmlDeviceGetGpuInstanceProfileInfoById(handle(), number).name == name
    count = ctypes.c_uint()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle(), number, None, ctypes.byref(count))
    places = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle(), number, places, ctypes.byref(count))
    assert [place.start for place in places] == list(starts)


GIGABYTES = [
    ("H100", "1g.10gb 3g.40gb 7g.80gb"),
    ("H200", "1g.18gb 3g.71gb 7g.141gb"),
    ("B200", "1g.23gb 3g.90gb 7g.180gb"),
    ("GB200", "1g.23gb 3g.93gb 7g.186gb"),
    ("A30", "1g.6gb 2g.12gb 4g.24gb"),
    ("RTX PRO 6000", "1g.24gb 2g.48gb 4g.96gb"),
]


@pytest.mark.parametrize(("model", "wanted"), GIGABYTES)
def test_names_count_the_share_of_the_whole_memory(model: str, wanted: str) -> None:
    """The vendor's rounding: an eighth of 141 GiB is called 18 GB."""
    assert set(wanted.split()) <= named_profiles(find_product(model)).keys()


def test_a_device_is_a_compute_instance_in_a_gpu_instance(mock: MockNvml) -> None:
    """Made as nvidia-smi makes it; the device knows its parts, its share, and its parent."""
    pynvml.nvmlDeviceSetMigMode(handle(), 1)
    gpu_instance = pynvml.nvmlDeviceCreateGpuInstance(handle(), 9)
    assert devices() == {}
    key = pynvml.NVML_COMPUTE_INSTANCE_PROFILE_2_SLICE
    profile = pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(gpu_instance, key, 0)
    assert (profile.sliceCount, profile.multiprocessorCount) == (2, 28)
    compute = pynvml.nvmlGpuInstanceCreateComputeInstance(gpu_instance, profile.id)
    info = pynvml.nvmlGpuInstanceGetInfo(gpu_instance)
    assert (info.id, info.profileId, info.placement.start, info.placement.size) == (2, 9, 4, 4)
    assert pynvml.nvmlDeviceGetUUID(info.device) == pynvml.nvmlDeviceGetUUID(handle())
    mine = pynvml.nvmlComputeInstanceGetInfo(compute)
    assert (mine.id, mine.profileId) == (0, profile.id)
    assert pynvml.nvmlGpuInstanceGetInfo(mine.gpuInstance).id == 2

    (device,) = devices().values()
    assert pynvml.nvmlDeviceIsMigDeviceHandle(device).value == 1
    assert pynvml.nvmlDeviceIsMigDeviceHandle(handle()).value == 0
    assert pynvml.nvmlDeviceGetName(device) == "NVIDIA A100-SXM4-40GB MIG 2c.3g.20gb"
    assert pynvml.nvmlDeviceGetGpuInstanceId(device) == 2
    assert pynvml.nvmlDeviceGetComputeInstanceId(device) == 0
    assert pynvml.nvmlDeviceGetMemoryInfo(device).total == 19968 << 20
    attributes = pynvml.nvmlDeviceGetAttributes(device)
    assert (attributes.gpuInstanceSliceCount, attributes.computeInstanceSliceCount) == (3, 2)
    assert (attributes.memorySizeMB, attributes.multiprocessorCount) == (19968, 28)
    parent = pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(device)
    assert pynvml.nvmlDeviceGetIndex(parent) == 0
    uuid = pynvml.nvmlDeviceGetUUID(device)
    assert uuid.startswith("MIG-")
    for name in (uuid, f"MIG-{pynvml.nvmlDeviceGetUUID(handle())}/2/0"):
        again = pynvml.nvmlDeviceGetHandleByUUID(name)
        assert pynvml.nvmlDeviceGetUUID(again) == uuid


def test_what_fits_depends_on_the_places(mock: MockNvml) -> None:
    """Five slices are free after a 2g in the middle, but no 3g fits any more."""
    pynvml.nvmlDeviceSetMigMode(handle(), 1)
    place = pynvml.c_nvmlGpuInstancePlacement_t(start=2, size=2)
    pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle(), 14, ctypes.byref(place))
    capacity = pynvml.nvmlDeviceGetGpuInstanceRemainingCapacity
    assert [capacity(handle(), number) for number in (19, 14, 9, 5)] == [5, 2, 1, 0]
    pynvml.nvmlDeviceCreateGpuInstance(handle(), 14)
    assert [capacity(handle(), number) for number in (19, 14, 9, 5)] == [3, 1, 0, 0]
    full = pynvml.NVML_ERROR_INSUFFICIENT_RESOURCES
    assert code_of(pynvml.nvmlDeviceCreateGpuInstance, handle(), 9) == full
    taken = ctypes.byref(place)
    create = pynvml.nvmlDeviceCreateGpuInstanceWithPlacement
    assert code_of(create, handle(), 14, taken) == full
    assert code_of(pynvml.nvmlDeviceCreateGpuInstance, handle(), 77) == 2


def test_destruction_goes_from_the_inside_out(mock: MockNvml) -> None:
    """What has parts is IN_USE; handles of what is gone are void, and indexes keep their holes."""
    mock.inject("mig", gpu=0, profiles=["1g.5gb", "1g.5gb", "1g.5gb"])
    before = devices()
    count = ctypes.c_uint()
    found = (pynvml.c_nvmlGpuInstance_t * 7)()
    pynvml.nvmlDeviceGetGpuInstances(handle(), 19, found, ctypes.byref(count))
    assert count.value == 3
    in_use = pynvml.NVML_ERROR_IN_USE
    assert code_of(pynvml.nvmlDeviceSetMigMode, handle(), 0) == in_use
    second = pynvml.nvmlDeviceGetGpuInstanceById(
        handle(), pynvml.nvmlDeviceGetGpuInstanceId(before[1])
    )
    assert code_of(pynvml.nvmlGpuInstanceDestroy, second) == in_use
    parts = (pynvml.c_nvmlComputeInstance_t * 1)()
    pynvml.nvmlGpuInstanceGetComputeInstances(second, 0, parts, ctypes.byref(count))
    pynvml.nvmlComputeInstanceDestroy(parts[0])
    pynvml.nvmlGpuInstanceDestroy(second)
    assert devices().keys() == {0, 2}
    assert code_of(pynvml.nvmlDeviceGetUUID, before[1]) == 2
    assert code_of(pynvml.nvmlGpuInstanceGetInfo, second) == 2
    assert pynvml.nvmlDeviceGetUUID(before[2]) == pynvml.nvmlDeviceGetUUID(devices()[2])


def test_a_gpu_is_cut_anew_while_it_runs(mock: MockNvml) -> None:
    """A script's `mig` fault replaces all devices; the same cut has the same uuids again."""
    mock.inject("mig", gpu=0, profiles=["3g.20gb", "2g.10gb", "1g.5gb+me"])
    assert names() == ["3g.20gb", "2g.10gb", "1g.5gb+me"]
    uuids = [pynvml.nvmlDeviceGetUUID(one) for one in devices().values()]
    assert len(set(uuids)) == 3
    old = devices()[0]
    mock.inject("mig", gpu=0, profiles=["4g.20gb", "3g.20gb"])
    assert names() == ["4g.20gb", "3g.20gb"]
    assert code_of(pynvml.nvmlDeviceGetName, old) == 2
    mock.inject("mig", gpu=0, profiles=["3g.20gb", "2g.10gb", "1g.5gb+me"])
    assert [pynvml.nvmlDeviceGetUUID(one) for one in devices().values()] == uuids
    mock.inject("mig", gpu=0, profiles=[])
    assert (pynvml.nvmlDeviceGetMigMode(handle()), names()) == ([1, 1], [])
    mock.inject("mig", gpu=0, profiles=None)
    assert pynvml.nvmlDeviceGetMigMode(handle()) == [0, 0]
    assert names(1) == []


def test_a_change_is_told_to_who_watches_for_it(mock: MockNvml) -> None:
    """As the event of that type, once for each cut."""
    event_set = pynvml.nvmlEventSetCreate()
    pynvml.nvmlDeviceRegisterEvents(handle(3), pynvml.nvmlEventMigConfigChange, event_set)
    mock.inject("mig", gpu=3, profiles=["7g.40gb"])
    event = pynvml.nvmlEventSetWait_v2(event_set, 1000)
    assert event.eventType == pynvml.nvmlEventMigConfigChange
    assert pynvml.nvmlDeviceGetIndex(event.device) == 3


def test_a_gpu_in_mig_mode_answers_less(mock: MockNvml) -> None:
    """Its load is NOT_SUPPORTED, with instances its remapped rows too; a part is no whole GPU."""
    mock.inject("mig", gpu=0, profiles=["7g.40gb"])
    (device,) = devices().values()
    assert code_of(pynvml.nvmlDeviceGetUtilizationRates, handle()) == 3
    assert code_of(pynvml.nvmlDeviceGetRemappedRows, handle()) == 3
    assert code_of(pynvml.nvmlDeviceGetAttributes, handle()) == 3
    assert code_of(pynvml.nvmlDeviceGetPciInfo, device) == 2
    event_set = pynvml.nvmlEventSetCreate()
    assert code_of(pynvml.nvmlDeviceRegisterEvents, device, 8, event_set) == 2


def test_a_lost_gpu_takes_its_devices_along(mock: MockNvml) -> None:
    """Their calls say GPU_IS_LOST; another GPU's devices answer on."""
    mock.inject("mig", gpu=0, profiles=["7g.40gb"])
    mock.inject("mig", gpu=1, profiles=["7g.40gb"])
    (device,) = devices().values()
    mock.inject("lost", gpu=0)
    assert code_of(pynvml.nvmlDeviceGetGpuInstanceId, device) == 15
    assert names(1) == ["7g.40gb"]


def test_the_machine_file_can_cut_gpus() -> None:
    """`mig` of a GPU names its profiles; what does not fit is refused with the place."""
    text = yaml.safe_dump(
        {
            "name": "m",
            "model": "2x A30",
            "gpus": [
                {"index": 0, "numa": None, "cpus": None, "mig": ["2g.12gb", "1g.6gb"]},
                {"index": 1, "numa": None, "cpus": None},
            ],
            "links": [["X", "SYS"], ["SYS", "X"]],
            "nvlink": {"links_per_gpu": 0, "nvswitch": False},
        }
    )
    with MockNvml(parse_machine(text, "m.yaml")):
        pynvml.nvmlInit()
        assert names(0) == ["2g.12gb", "1g.6gb"]
        assert pynvml.nvmlDeviceGetMigMode(handle(1)) == [0, 0]
    crowded = parse_machine(text.replace("1g.6gb", "4g.24gb"), "m.yaml")
    with pytest.raises(FaultError, match=r"gpus\[0\].mig: 2g.12gb, 4g.24gb do not fit together"):
        MockNvml(crowded)


MALFORMED = [
    ({"gpu": 0, "profiles": ["3g.40gb"]}, "profiles: '3g.40gb' is none of 1g.5gb, 1g.5gb+me"),
    ({"gpu": 0, "profiles": ["4g.20gb"] * 2}, "profiles: 4g.20gb, 4g.20gb do not fit together"),
    ({"gpu": 0}, "missing required field `profiles`"),
]


@pytest.mark.parametrize(("fields", "message"), MALFORMED)
def test_a_malformed_cut_names_the_place(
    mock: MockNvml, fields: dict[str, Any], message: str
) -> None:
    """Before anything happens: the GPU is as it was."""
    with pytest.raises(FaultError) as caught:
        mock.inject("mig", **fields)
    assert message in str(caught.value)
    assert pynvml.nvmlDeviceGetMigMode(handle()) == [0, 0]


_ACTIONS = st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 6)), max_size=30)


@given(st.sampled_from(["A100", "H100", "A30"]), _ACTIONS)
def test_instances_never_overlap(model: str, actions: list[tuple[bool, int, int]]) -> None:
    """Whatever is made and destroyed: no memory slice twice, no more slices than there are."""
    geometry = geometry_of(find_product(model))
    assert geometry is not None
    numbers = iter(range(10_000))
    state = MigState(geometry, "law", lambda: next(numbers))
    state.set_mode(enabled=True)
    for make, which, part in actions:
        if make:
            profile = geometry.profiles[which % len(geometry.profiles)]
            fits = state.remaining(profile) > 0
            try:
                instance = state.create(profile)
                state.create_compute(instance, [1, profile.slices][part % 2])
            except NvmlStatusError:
                assert not fits
            else:
                assert fits
        elif state.instances:
            instance = list(state.instances.values())[which % len(state.instances)]
            for compute in list(instance.compute.values()):
                state.destroy_compute(instance, compute)
            state.destroy(instance)
        present = list(state.instances.values())
        taken = [at for one in present for at in range(one.start, one.start + one.profile.size)]
        assert len(taken) == len(set(taken))
        assert set(taken) <= set(range(geometry.memory_slices))
        assert sum(one.profile.slices for one in present) <= geometry.slices
        assert len({one.uuid for _, one in state.devices()}) == len(list(state.devices()))
