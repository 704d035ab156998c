"""The extender as a process: it starts, says when it is ready, and ends as it is told to."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedded.apiserver import ApiServer
from embedded.ports import free_port
from scheduler.engine.plugins import built_in
from scheduler.engine.workload import PodClass
from scheduler.errors import ProfileError
from scheduler.main import build_mix, build_profiles, build_workload
from scheduler.settings import ExtenderSettings, PodClassSettings, ProfileSettings
from tests.waiting import wait_until
from topology.errors import SelectionError
from topology.profiles import PACK

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start extenders; end those that are left."""
    started: list[subprocess.Popen[str]] = []

    def run(*args: str) -> subprocess.Popen[str]:
        ports = [*args] if "--explain-port" in args else ["--explain-port", "0", *args]
        command = [sys.executable, "-m", "cli.main", "extender", *ports]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def get(port: int, path: str) -> tuple[int, str]:
    """Get a page; status 0 if nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_it_waits_for_the_api_server_and_ends_with_zero_on_sigterm(
    start: Start, tmp_path: Path
) -> None:
    """Alive at once, ready after both lists, filter an error until then, metrics from 0 on."""
    api = ApiServer()
    api.start()
    config = api.write_kubeconfig(tmp_path / "kubeconfig")
    api.go_away()
    port, ops = free_port(), free_port()
    process = start("--kubeconfig", str(config), "--port", str(port), "--ops-port", str(ops))
    try:
        wait_until(lambda: get(ops, "/healthz")[0] == 200, 30, "alive")
        assert get(ops, "/readyz") == (503, "nodes and pods are not listed yet\n")
        api.come_back()
        wait_until(lambda: get(ops, "/readyz")[0] == 200, 30, "ready")
        body = {"Pod": {"metadata": {"name": "p", "uid": "u"}}, "NodeNames": ["x"]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/filter", data=json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 -- our own URL
            assert json.loads(answer.read())["NodeNames"] == ["x"]
        page = get(ops, "/metrics")[1]
        assert 'gputopo_extender_filter_total{outcome="passed_through"} 1.0' in page
        assert 'gputopo_extender_bind_total{outcome="bound"} 0.0' in page
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
    finally:
        api.stop()


PORTS = ("--port", "--ops-port", "--explain-port")


@pytest.mark.parametrize("option", PORTS)
def test_a_port_in_use_is_one_clear_line(start: Start, option: str) -> None:
    """Exit code 1, the address, and no traceback."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        others = [word for name in PORTS if name != option for word in (name, str(free_port()))]
        process = start(option, port, *others)
        errors = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    said = [line for line in errors.splitlines() if "error" in line]
    assert len(said) == 1
    assert f"127.0.0.1:{port}: " in said[0]
    assert "in use" in said[0]
    assert "Traceback" not in errors


def test_a_kubeconfig_that_is_not_there_is_one_clear_line(start: Start) -> None:
    """Exit code 1, the file, and no traceback."""
    process = start(
        "--kubeconfig", "/nowhere/config", "--port", str(free_port()), "--ops-port", "0"
    )
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert "/nowhere/config" in errors
    assert "Traceback" not in errors


def test_profiles_of_the_settings_join_the_built_in_ones() -> None:
    """A name that exists is replaced, another is added."""
    given = ProfileSettings(weights={"packing": 1.0}, tolerance=0.1, policy="pack")
    settings = ExtenderSettings(profiles={"mine": given, "spread": given})
    profiles = build_profiles(settings, built_in())
    assert profiles["mine"].policy is PACK
    assert profiles["spread"].weights == (("packing", 1.0),)
    assert "training" in profiles


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"profiles": {"x": {"weights": {"speed": 1}}}}, "no score plugin 'speed'"),
        ({"profiles": {"x": {"weights": {"packing": 1}, "policy": "best"}}}, "'best' is none of"),
        ({"default_profile": "x"}, "profile 'x': is the default"),
    ],
)
def test_a_profile_that_cannot_be_used_stops_the_start(
    settings: dict[str, object], problem: str
) -> None:
    """The error names the profile."""
    with pytest.raises(ProfileError, match=problem):
        build_profiles(ExtenderSettings.model_validate(settings), built_in())


def test_the_mix_of_the_settings_is_taken() -> None:
    """Sizes in ascending order; a weight of nothing is a mistake."""
    assert build_mix(ExtenderSettings(mix={4: 1.0, 1: 3.0})).shares == ((1, 3.0), (4, 1.0))
    with pytest.raises(SelectionError):
        build_mix(ExtenderSettings(mix={4: 0.0}))


def test_the_workload_may_be_given() -> None:
    """Classes of pods with weights, in cores and parts of a GPU; if not given, it is learned."""
    assert build_workload(ExtenderSettings()).source == "learned"
    given = build_workload(
        ExtenderSettings(
            workload=[
                PodClassSettings(weight=3, cpu=3.152, gpu_share=0.81),
                PodClassSettings(weight=1, cpu=96, gpus=8, gpu_models=("*H100*",)),
                PodClassSettings(weight=1, cpu=2, gpus=0),
            ]
        )
    )
    assert given.source == "given"
    assert given.counts() == {
        PodClass(3152, 1, 810): 3.0,
        PodClass(96_000, 8, 1000, ("*H100*",)): 1.0,
        PodClass(2000, 0, 0): 1.0,
    }


def test_a_share_of_two_gpus_is_no_class() -> None:
    """It is refused where the configuration is read."""
    with pytest.raises(ValueError, match="gpu_share: only of one GPU"):
        PodClassSettings(weight=1, gpus=2, gpu_share=0.5)
