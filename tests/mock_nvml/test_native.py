"""The mock as a shared library: other processes see the same machine and the same faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.main import run as run_command
from mock_nvml import MockNvml
from mock_nvml.errors import BuildError
from mock_nvml.library import Library
from mock_nvml.native import LIBRARY, SOCKET, NativeServer, build
from mock_nvml.native.build import find_compiler
from mock_nvml.native.signatures import SIGNATURES
from tests.mock_nvml.answers import collect
from tests.waiting import wait_until
from topology.catalogue import load_machine

needs_compiler = pytest.mark.skipif(
    find_compiler() is None, reason="no C compiler here, so the shared library cannot be made"
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the compiled library."""
    made = tmp_path_factory.mktemp("nvml")
    build(made)
    return made


Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return what starts a process that finds the library in a folder; all are gone afterwards."""
    started: list[subprocess.Popen[str]] = []

    def run(folder: Path, *command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            command,
            env={**os.environ, "LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def python(start: Start) -> Start:
    """Return what starts Python, with unmodified pynvml on the library in a folder."""
    return lambda folder, code: start(folder, sys.executable, "-c", code)


def test_every_function_has_a_signature() -> None:
    """None is missing in the library on disk, and none is there that the mock does not know."""
    library = Library(MockNvml(load_machine("l4-8x")).client)
    assert library._functions.keys() == SIGNATURES.keys() | {"nvmlErrorString"}


@needs_compiler
@pytest.mark.parametrize(
    ("name", "cut"),
    [
        ("dgx1-v100", None),
        ("hgx-h100-8x-ib", ["3g.40gb", "2g.20gb", "1g.10gb+me"]),
        ("gb200-nvl72-tray-4x", None),
        ("rtx5090-8x", None),
        ("k80-4gpu", None),
        ("dgx-a100-8x", ["7g.40gb"]),
    ],
)
def test_another_process_gets_the_same_answers(
    start: Start, folder: Path, name: str, cut: list[str] | None
) -> None:
    """Cell for cell: whatever unmodified pynvml is asked, faults and MIG devices included."""
    mock = MockNvml(load_machine(name), seed="n1")
    if cut:
        mock.inject("mig", gpu=1, profiles=cut)
    mock.inject("ecc", gpu=0, double=False, count=4)
    with mock:
        here = json.loads(json.dumps(collect()))
    with NativeServer(mock.state, folder / SOCKET):
        process = start(folder, sys.executable, "-m", "tests.mock_nvml.answers")
        text, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(text) == here


WAITER = """
import pynvml
pynvml.nvmlInit()
events = pynvml.nvmlEventSetCreate()
for at in range(pynvml.nvmlDeviceGetCount()):
    pynvml.nvmlDeviceRegisterEvents(pynvml.nvmlDeviceGetHandleByIndex(at), 8, events)
print("watching", flush=True)
event = pynvml.nvmlEventSetWait_v2(events, 60000)
print(event.eventData, pynvml.nvmlDeviceGetIndex(event.device), event.gpuInstanceId, flush=True)
try:
    pynvml.nvmlEventSetWait_v2(events, 60000)
except pynvml.NVMLError as error:
    print(error.value, flush=True)
"""


@needs_compiler
def test_every_process_hears_of_an_event(python: Start, folder: Path) -> None:
    """Two that wait are both woken by one XID, and by a loss for ever after."""
    mock = MockNvml(load_machine("dgx-a100-8x"))
    with NativeServer(mock.state, folder / SOCKET) as server:
        waiters = [python(folder, WAITER) for _ in range(2)]
        for one in waiters:
            assert one.stdout is not None
            assert one.stdout.readline() == "watching\n"
        mock.inject("xid", gpu=3, xid=94, gpu_instance=1)
        mock.inject("lost", gpu=5, event=False)
        for one in waiters:
            assert one.communicate(timeout=60)[0].splitlines() == ["94 3 1", "15"]
        wait_until(lambda: not server.processes, what="both processes are forgotten")


PROGRAM = r"""
#include <dlfcn.h>
#include <stdio.h>
int main(void) {
    void *nvml = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!nvml) return 3;
    unsigned int (*init)(void) = dlsym(nvml, "nvmlInit_v2");
    unsigned int (*count)(unsigned int *) = dlsym(nvml, "nvmlDeviceGetCount_v2");
    unsigned int (*handle)(unsigned int, void **) = dlsym(nvml, "nvmlDeviceGetHandleByIndex_v2");
    unsigned int (*uuid)(void *, char *, unsigned int) = dlsym(nvml, "nvmlDeviceGetUUID");
    const char *(*words)(unsigned int) = dlsym(nvml, "nvmlErrorString");
    unsigned int gpus = 0, status = init();
    if (status) { printf("%s\n", words(status)); return 4; }
    count(&gpus);
    for (unsigned int at = 0; at < gpus; at++) {
        void *gpu;
        char text[96];
        status = handle(at, &gpu);
        if (!status) status = uuid(gpu, text, sizeof text);
        printf("%u %s\n", at, status ? words(status) : text);
    }
    return uuid(0, 0, 0) == 2 ? 0 : 5;
}
"""


@needs_compiler
def test_a_program_in_c_lists_the_gpus(start: Start, folder: Path, tmp_path: Path) -> None:
    """It knows nothing of Python; a lost GPU concerns only itself, and null is no crash."""
    compiler = find_compiler()
    assert compiler is not None
    (tmp_path / "list.c").write_text(PROGRAM)
    subprocess.run([compiler, "-o", "list", "list.c", "-ldl"], cwd=tmp_path, check=True)
    mock = MockNvml(load_machine("gb200-nvl72-tray-4x"))
    mock.inject("lost", gpu=2)
    with NativeServer(mock.state, folder / SOCKET):
        process = start(folder, str(tmp_path / "list"))
        lines = process.communicate(timeout=60)[0].splitlines()
    wanted = [f"{at} {gpu.uuid}" for at, gpu in enumerate(mock.state.gpus)]
    wanted[2] = "2 Gpu is lost"
    assert (process.returncode, lines) == (0, wanted)
    # Nobody answers any more: that is a machine without a driver.
    process = start(folder, str(tmp_path / "list"))
    assert process.communicate(timeout=60)[0] == "Driver not loaded\n"
    assert process.returncode == 4


FORKING = """
import os, threading, pynvml
pynvml.nvmlInit()
pynvml.nvmlDeviceGetCount()
thread = threading.Thread(target=lambda: print("thread", pynvml.nvmlDeviceGetCount(), flush=True))
thread.start()
thread.join()
child = os.fork()
if not child:
    try:
        pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError_Uninitialized:
        pynvml.nvmlInit()
        print("child", pynvml.nvmlDeviceGetCount(), flush=True)
        os._exit(0)
os.waitpid(child, 0)
print("parent", pynvml.nvmlDeviceGetCount(), flush=True)
"""


@needs_compiler
def test_threads_share_an_initialisation_and_children_do_not(python: Start, folder: Path) -> None:
    """As with the driver's library: a forked child must initialise anew."""
    mock = MockNvml(load_machine("l4-8x"))
    with NativeServer(mock.state, folder / SOCKET):
        process = python(folder, FORKING)
        lines = process.communicate(timeout=60)[0].splitlines()
    assert lines == ["thread 8", "child 8", "parent 8"]


UPGRADED = """
import pynvml
pynvml.nvmlInit()
print(pynvml.nvmlDeviceGetCount(), flush=True)
input()
for call in (pynvml.nvmlDeviceGetCount, pynvml.nvmlShutdown, pynvml.nvmlInit):
    try:
        print(call())
    except pynvml.NVMLError as error:
        print(error.value)
"""


@needs_compiler
def test_a_driver_that_is_exchanged_outdates_who_is_running(python: Start, folder: Path) -> None:
    """The old process cannot initialise again; a new one finds the new driver's library."""
    mock = MockNvml(load_machine("l4-8x"))
    with NativeServer(mock.state, folder / SOCKET):
        old = python(folder, UPGRADED)
        assert old.stdout is not None
        assert old.stdout.readline() == "8\n"
        mock.inject("driver", version="590.44.01")
        assert old.communicate("\n", timeout=60)[0].splitlines() == ["999", "None", "18"]
        version = "import pynvml; pynvml.nvmlInit(); print(pynvml.nvmlSystemGetDriverVersion())"
        assert python(folder, version).communicate(timeout=60)[0] == "590.44.01\n"


@needs_compiler
def test_the_command_serves_a_machine_until_a_signal(
    start: Start, python: Start, tmp_path: Path
) -> None:
    """With its sysfs and proc; what is added to the script of faults befalls everybody."""
    script = tmp_path / "faults.yaml"
    script.write_text("[]\n")
    out = tmp_path / "out"
    command = (sys.executable, "-m", "cli.main", "mock-nvml", "l4-8x", str(out))
    serving = start(tmp_path, *command, "--faults", str(script))
    assert serving.stdout is not None
    assert serving.stdout.readline().startswith(f"l4-8x: LD_LIBRARY_PATH={out}")
    assert (out / "sys/bus/pci/devices").is_dir()
    assert (out / "proc/driver/nvidia-caps/mig-minors").is_file()
    waiter = python(out, WAITER)
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == "watching\n"
    script.write_text("- {kind: xid, gpu: 6, xid: 48}\n- {kind: lost, gpu: 7, event: false}\n")
    assert waiter.communicate(timeout=60)[0].splitlines()[0].startswith("48 6 ")
    serving.send_signal(signal.SIGTERM)
    serving.communicate(timeout=30)
    assert serving.returncode == 0
    assert not (out / SOCKET).exists()


def test_without_a_compiler_the_reason_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a traceback nor half a library."""
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(BuildError, match="no C compiler"):
        build(tmp_path)
    with pytest.raises(SystemExit) as caught:
        run_command(["mock-nvml", "l4-8x", str(tmp_path)])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / LIBRARY).exists()


def test_a_compilers_complaint_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error holds what it said; a folder too deep for a socket is told before."""
    complaining = tmp_path / "cc"
    complaining.write_text("#!/bin/sh\necho no room left >&2\nexit 1\n")
    complaining.chmod(0o755)
    monkeypatch.setenv("CC", str(complaining))
    with pytest.raises(BuildError, match="no room left"):
        build(tmp_path / "out")
    with pytest.raises(BuildError, match="too long for a Unix socket"):
        build(tmp_path / ("deep" * 30))
