"""What is remembered for the reference plugin is what the machine answers, asked once."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from mock_nvml.native.build import find_compiler
from tests.bench.nvml_box import NvmlBox

pytestmark = pytest.mark.skipif(
    find_compiler() is None, reason="no C compiler: $CC, cc, gcc, clang"
)

# As Go's bindings do it: the library is loaded for all, and its functions are found by name.
ASK = """
import ctypes, json
ctypes.CDLL("libnvidia-ml.so.1", mode=ctypes.RTLD_GLOBAL)
nvml = ctypes.CDLL(None)
nvml.nvmlInit_v2()
gpus = [ctypes.c_void_p() for _ in range(8)]
for at, gpu in enumerate(gpus):
    nvml.nvmlDeviceGetHandleByIndex_v2(at, ctypes.byref(gpu))
seen = []
for _ in range(3):
    told = []
    for gpu in gpus:
        name, uuid, pci = (ctypes.create_string_buffer(96) for _ in range(3))
        nvml.nvmlDeviceGetName(gpu, name, 96)
        nvml.nvmlDeviceGetUUID(gpu, uuid, 96)
        nvml.nvmlDeviceGetPciInfo_v3(gpu, pci)
        told.append([name.value.decode(), uuid.value.decode(), pci.raw[:68].hex()])
        for link in range(8):
            state, far = ctypes.c_uint(), ctypes.create_string_buffer(68)
            code = nvml.nvmlDeviceGetNvLinkState(gpu, link, ctypes.byref(state))
            remote = nvml.nvmlDeviceGetNvLinkRemotePciInfo_v2(gpu, link, far)
            told.append([code, state.value, remote, far.raw.hex()])
        for other in gpus:
            level = ctypes.c_uint()
            code = nvml.nvmlDeviceGetTopologyCommonAncestor(gpu, other, ctypes.byref(level))
            told.append([code, level.value])
    seen.append(told)
print(json.dumps(seen))
"""


def ask(box: NvmlBox, *, remembered: bool) -> tuple[list[object], int]:
    """Ask everything three times in a process; return what was told, and the machine's calls."""
    before = box.calls()
    done = subprocess.run(
        [sys.executable, "-c", ASK],
        env=box.environment(remembered=remembered),
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout), box.calls() - before


def test_what_is_remembered_is_what_the_machine_says() -> None:
    """Codes, states, addresses and levels; a third of the calls, and those that are not kept."""
    with NvmlBox("dgx1-v100", "n1") as box:
        (first, second, third), all_calls = ask(box, remembered=False)
        remembered, calls = ask(box, remembered=True)
    assert remembered == [first, second, third]
    assert first == second == third
    kept = 8 * (3 + 2 * 8 + 8)
    assert (all_calls, calls) == (3 * kept + 9, kept + 9)
