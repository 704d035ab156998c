"""The mock behind unmodified pynvml: what a real library would answer."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import pynvml
import pytest

from mock_nvml import MockNvml, gpu_uuid
from topology.catalogue import load_machine, shipped_names


@pytest.fixture
def dgx1() -> Iterator[MockNvml]:
    """Put a DGX-1V behind pynvml and initialise it once."""
    with MockNvml(load_machine("dgx1-v100"), seed="n1") as mock:
        pynvml.nvmlInit()
        yield mock


@pytest.fixture
def hgx() -> Iterator[MockNvml]:
    """Put an HGX H100 behind pynvml and initialise it once."""
    with MockNvml(load_machine("hgx-h100-8x-ib")) as mock:
        pynvml.nvmlInit()
        yield mock


def handle(index: int) -> object:
    """Return a GPU's handle."""
    return pynvml.nvmlDeviceGetHandleByIndex(index)


def code_of(call: object, *arguments: object) -> int:
    """Return the code that a call fails with."""
    with pytest.raises(pynvml.NVMLError) as caught:
        call(*arguments)
    return int(caught.value.value)


SIZES = [
    ("nvmlPciInfo_t", 68),
    ("c_nvmlMemory_t", 24),
    ("c_nvmlMemory_v2_t", 40),
    ("c_nvmlEventData_t", 32),
    ("c_nvmlFieldValue_t", 40),
    ("c_nvmlRowRemapperHistogramValues", 20),
    ("c_nvmlGpuFabricInfo_t", 28),
    ("c_nvmlGpuFabricInfo_v2_t", 36),
    ("c_nvmlGpuFabricInfo_v3_t", 40),
]


@pytest.mark.parametrize(("struct", "size"), SIZES)
def test_structs_have_the_layout_that_the_mock_fills(struct: str, size: int) -> None:
    """A pynvml with other structs would be filled wrongly: this tells it first."""
    assert ctypes.sizeof(getattr(pynvml, struct)) == size


def test_the_pci_struct_has_its_fields_in_place() -> None:
    """The long bus id stands at 36, the ids at 28 and 32."""
    struct = pynvml.nvmlPciInfo_t
    offsets = [getattr(struct, name).offset for name, _ in struct._fields_]
    assert offsets == [0, 16, 20, 24, 28, 32, 36]


def test_initialisations_are_counted(dgx1: MockNvml) -> None:
    """Only the last shutdown shuts down, and one more is an error."""
    pynvml.nvmlInit()
    pynvml.nvmlShutdown()
    assert pynvml.nvmlDeviceGetCount() == 8
    old = handle(0)
    pynvml.nvmlShutdown()
    assert code_of(pynvml.nvmlDeviceGetCount) == pynvml.NVML_ERROR_UNINITIALIZED
    assert code_of(pynvml.nvmlShutdown) == pynvml.NVML_ERROR_UNINITIALIZED
    pynvml.nvmlInit()
    assert code_of(pynvml.nvmlDeviceGetUUID, old) == pynvml.NVML_ERROR_INVALID_ARGUMENT


def test_calls_are_counted_by_function(dgx1: MockNvml) -> None:
    """Whoever asks too much can be told so."""
    before = dgx1.state.calls["nvmlDeviceGetCount_v2"]
    pynvml.nvmlInit()
    pynvml.nvmlDeviceGetCount()
    pynvml.nvmlDeviceGetCount()
    pynvml.nvmlShutdown()
    assert dgx1.state.calls["nvmlDeviceGetCount_v2"] == before + 2


def test_gpus_are_found_by_index_uuid_and_address(dgx1: MockNvml) -> None:
    """Three ways lead to one GPU; what is not there has its own code for each way."""
    uuid = gpu_uuid("n1", 5)
    assert pynvml.nvmlDeviceGetUUID(handle(5)) == uuid
    assert pynvml.nvmlDeviceGetMinorNumber(pynvml.nvmlDeviceGetHandleByUUID(uuid)) == 5
    bus = pynvml.nvmlDeviceGetPciInfo(handle(5)).busId
    assert len(bus) == len("00000000:60:00.0")
    assert pynvml.nvmlDeviceGetMinorNumber(pynvml.nvmlDeviceGetHandleByPciBusId(bus)) == 5
    assert code_of(pynvml.nvmlDeviceGetHandleByIndex, 8) == pynvml.NVML_ERROR_INVALID_ARGUMENT
    assert code_of(pynvml.nvmlDeviceGetHandleByUUID, "GPU-0") == pynvml.NVML_ERROR_NOT_FOUND
    assert code_of(pynvml.nvmlDeviceGetHandleByPciBusId, "01:00.0") == pynvml.NVML_ERROR_NOT_FOUND


def test_the_address_has_both_forms(dgx1: MockNvml) -> None:
    """Eight digits of domain in the new one, four in the old; the vendor is NVIDIA."""
    info = pynvml.nvmlDeviceGetPciInfo(handle(0))
    assert (info.busId, info.busIdLegacy) == ("00000000:10:00.0", "0000:10:00.0")
    assert (info.domain, info.bus, info.device) == (0, 0x10, 0)
    assert info.pciDeviceId & 0xFFFF == 0x10DE


def test_a_name_that_the_library_lacks_is_an_old_driver() -> None:
    """The code is FUNCTION_NOT_FOUND, the rest works."""
    missing = frozenset(("nvmlDeviceGetMemoryAffinity",))
    with MockNvml(load_machine("dgx1-v100"), missing=missing):
        pynvml.nvmlInit()
        gpu = handle(0)
        assert code_of(pynvml.nvmlDeviceGetMemoryAffinity, gpu, 1, 0) == 13
        assert code_of(pynvml.nvmlDeviceGetPdi, gpu) == 13
        assert pynvml.nvmlDeviceGetName(gpu) == "Tesla V100-SXM2-16GB"


def test_uninstalling_gives_pynvml_back() -> None:
    """Afterwards pynvml has what it had before, and no function of the mock is cached."""
    with MockNvml(load_machine("dgx1-v100")) as outer:
        pynvml.nvmlInit()
        with MockNvml(load_machine("l4-8x")):
            pynvml.nvmlInit()
            assert pynvml.nvmlDeviceGetName(handle(0)) == "NVIDIA L4"
        assert pynvml.nvmlLib is outer.library
        assert pynvml.nvmlDeviceGetName(handle(0)).startswith("Tesla V100")


def test_direct_links_pair_up(dgx1: MockNvml) -> None:
    """Each link's far end names the GPU at the near end, equally often from both sides."""
    address = {pynvml.nvmlDeviceGetPciInfo(handle(at)).busId: at for at in range(8)}
    counts = [[0] * 8 for _ in range(8)]
    for at in range(8):
        for link in range(6):
            assert pynvml.nvmlDeviceGetNvLinkState(handle(at), link) == 1
            remote = pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle(at), link)
            counts[at][address[remote.busId]] += 1
            assert pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle(at), link) == 0
    assert counts == [list(row) for row in dgx1.machine.nvlinks]


def test_link_numbers_end_where_the_board_ends(dgx1: MockNvml) -> None:
    """Beyond the GPU's own links: INVALID_ARGUMENT; a board without NVLink: NOT_SUPPORTED."""
    assert code_of(pynvml.nvmlDeviceGetNvLinkState, handle(0), 6) == 2
    with MockNvml(load_machine("l4-8x")):
        pynvml.nvmlInit()
        assert code_of(pynvml.nvmlDeviceGetNvLinkState, handle(0), 0) == 3


def test_an_unused_link_is_inactive() -> None:
    """A GPU whose bridge peer is away has links, in state 0, without a far end."""
    with MockNvml(load_machine("a40-3x-cgroup")):
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetNvLinkState(handle(2), 0) == 0
        assert code_of(pynvml.nvmlDeviceGetNvLinkRemotePciInfo, handle(2), 0) == 3


def test_switch_links_are_spread_as_told(hgx: MockNvml) -> None:
    """An H100 has 4, 5, 5 and 4 links to its four switches, which are no GPUs."""
    remotes = [pynvml.nvmlDeviceGetNvLinkRemotePciInfo(handle(0), link).busId for link in range(18)]
    assert sorted(remotes.count(bus) for bus in set(remotes)) == [4, 4, 5, 5]
    gpus = {pynvml.nvmlDeviceGetPciInfo(handle(at)).busId for at in range(8)}
    assert gpus.isdisjoint(remotes)
    assert pynvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle(0), 0) == 2
    assert pynvml.nvmlDeviceGetNvLinkVersion(handle(0), 0) == 6
    assert pynvml.nvmlDeviceGetNvLinkCapability(handle(0), 0, 0) == 1


def test_p2p_over_nvlink_is_told_apart_from_the_level(dgx1: MockNvml) -> None:
    """Linked pairs say OK, others NOT_SUPPORTED; GeForce refuses PCIe P2P at every level."""
    nvlink = pynvml.NVML_P2P_CAPS_INDEX_NVLINK
    assert pynvml.nvmlDeviceGetP2PStatus(handle(0), handle(3), nvlink) == 0
    assert pynvml.nvmlDeviceGetP2PStatus(handle(0), handle(7), nvlink) == 5
    for name, status in (("rtx5090-8x", 2), ("rtx5060ti-5x-node", 0), ("l4-8x", 0)):
        with MockNvml(load_machine(name)):
            pynvml.nvmlInit()
            assert pynvml.nvmlDeviceGetP2PStatus(handle(0), handle(1), 0) == status


def test_nearest_gpus_come_in_two_calls(dgx1: MockNvml) -> None:
    """Within a level; and so do the GPUs near a CPU."""
    near = pynvml.nvmlDeviceGetTopologyNearestGpus(handle(0), pynvml.NVML_TOPOLOGY_HOSTBRIDGE)
    assert [pynvml.nvmlDeviceGetIndex(gpu) for gpu in near] == [1, 2, 3]
    near = pynvml.nvmlSystemGetTopologyGpuSet(25)
    assert [pynvml.nvmlDeviceGetIndex(gpu) for gpu in near] == [4, 5, 6, 7]


def test_affinities_are_masks(dgx1: MockNvml) -> None:
    """CPUs and NUMA nodes as the description lists them; NOT_SUPPORTED where it has none."""
    assert list(pynvml.nvmlDeviceGetCpuAffinity(handle(0), 2)) == [0x0FFFFF00000FFFFF, 0]
    assert list(pynvml.nvmlDeviceGetMemoryAffinity(handle(4), 1, 0)) == [0b10]
    assert code_of(pynvml.nvmlDeviceGetMemoryAffinity, handle(4), 1, 9) == 2
    assert code_of(pynvml.nvmlDeviceGetNumaNodeId, handle(0)) == 3
    with MockNvml(load_machine("k80-4gpu")):
        pynvml.nvmlInit()
        assert code_of(pynvml.nvmlDeviceGetMemoryAffinity, handle(0), 1, 0) == 3
    with MockNvml(load_machine("gb200-nvl72-tray-4x")):
        pynvml.nvmlInit()
        assert [pynvml.nvmlDeviceGetNumaNodeId(handle(at)) for at in range(4)] == [2, 10, 18, 26]


def test_versioned_structs_are_checked(hgx: MockNvml) -> None:
    """A wrong version word is refused; the right one is filled."""
    info = pynvml.c_nvmlGpuFabricInfo_v3_t()
    info.version = 7
    call = pynvml.nvmlDeviceGetGpuFabricInfoV
    assert code_of(call, handle(0), ctypes.byref(info)) == 25
    info.version = ctypes.sizeof(info) | 3 << 24
    call(handle(0), ctypes.byref(info))
    assert (info.state, info.status, bytes(info.clusterUuid)) == (3, 0, bytes(16))
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle(0), pynvml.nvmlMemory_v2)
    assert memory.total == 81559 << 20


def test_products_differ_in_what_they_support() -> None:
    """Row remapping, ECC and MIG are NOT_SUPPORTED where the product lacks them."""
    with MockNvml(load_machine("dgx1-v100")):
        pynvml.nvmlInit()
        assert code_of(pynvml.nvmlDeviceGetRemappedRows, handle(0)) == 3
        assert pynvml.nvmlDeviceGetRetiredPages(handle(0), 0) == []
        assert code_of(pynvml.nvmlDeviceGetMigMode, handle(0)) == 3
    with MockNvml(load_machine("rtx5090-8x")):
        pynvml.nvmlInit()
        assert code_of(pynvml.nvmlDeviceGetEccMode, handle(0)) == 3
        assert pynvml.nvmlDeviceGetSupportedEventTypes(handle(0)) & 0x3 == 0
    with MockNvml(load_machine("hgx-h100-8x-ib")):
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetMigMode(handle(0)) == [0, 0]
        assert pynvml.nvmlDeviceGetRemappedRows(handle(0)) == (0, 0, 0, 0)
        assert code_of(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle(0), 0) == 6


def test_fields_answer_each_for_itself(hgx: MockNvml) -> None:
    """A field that is not known says so and leaves the others alone."""
    fields = [pynvml.NVML_FI_DEV_NVLINK_LINK_COUNT, pynvml.NVML_FI_DEV_POWER_INSTANT]
    known, unknown = pynvml.nvmlDeviceGetFieldValues(handle(0), fields)
    assert (known.nvmlReturn, known.value.ullVal) == (0, 18)
    assert unknown.nvmlReturn == 3


@pytest.mark.parametrize("name", shipped_names())
def test_every_machine_answers_the_usual_questions(name: str) -> None:
    """Name, memory, compute capability, PCIe and load are there on each machine."""
    with MockNvml(load_machine(name)):
        pynvml.nvmlInit()
        assert pynvml.nvmlSystemGetDriverVersion().count(".") == 2
        assert pynvml.nvmlSystemGetCudaDriverVersion() % 10 == 0
        for at in range(pynvml.nvmlDeviceGetCount()):
            gpu = handle(at)
            assert pynvml.nvmlDeviceGetName(gpu)
            memory = pynvml.nvmlDeviceGetMemoryInfo(gpu)
            assert memory.total == memory.free + memory.used
            major, _ = pynvml.nvmlDeviceGetCudaComputeCapability(gpu)
            assert 3 <= major <= 12
            assert 3 <= pynvml.nvmlDeviceGetMaxPcieLinkGeneration(gpu) <= 6
            assert pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu == 0
            assert pynvml.nvmlDeviceGetComputeRunningProcesses(gpu) == []
            assert pynvml.nvmlDeviceGetPowerUsage(gpu) > 0
            assert pynvml.nvmlDeviceGetTemperature(gpu, 0) > 0


def test_codes_have_words(dgx1: MockNvml) -> None:
    """The library gives words for codes, also for one that pynvml's table lacks."""
    assert pynvml.nvmlErrorString(15) == "Gpu is lost"
    assert str(pynvml.NVMLError(15))
    assert pynvml.nvmlErrorString(12345) == "Unknown Error"
