"""The plugin as a process: signals, its command line, and the configuration that a label names."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import msgspec
import pytest

from embedded.apiserver import ApiServer
from embedded.kubelet import Kubelet
from embedded.ports import free_port
from embedded.processes import own_command
from runtime.kube import connect
from runtime.objects import Node
from tests.waiting import wait_until

GPU: Final = "nvidia.com/gpu"
LABEL: Final = "nvidia.com/device-plugin.config"


class World:
    """An API server, a kubelet, and a plugin process on a mock DGX-1V."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gt-"))
        self.api = ApiServer()
        self.api.start()
        self.kubeconfig = self.api.write_kubeconfig(self.folder / "kubeconfig")
        self.client = connect(str(self.kubeconfig))
        self.kubelet = Kubelet("n1", self.folder, self.client, status_period=0.05)
        self.kubelet.start()
        self.port = free_port()
        self.process: subprocess.Popen[str] | None = None

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Start the process with these words after the usual ones."""
        command = own_command(
            "device-plugin",
            *("--node-name", "n1"),
            *("--kubeconfig", str(self.kubeconfig)),
            *("--device-plugins-dir", str(self.kubelet.device_plugins_dir)),
            *("--pod-resources-socket", str(self.kubelet.pod_resources_socket)),
            *("--ops-host", "127.0.0.1"),
            *("--ops-port", str(self.port)),
            *("--mock-machine", "dgx1-v100"),
            *words,
        )
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return self.process

    def label(self, value: str | None) -> None:
        """Set the Node's label, or take it away."""
        self.client.patch("/api/v1/nodes/n1", {"metadata": {"labels": {LABEL: value}}})

    def allocatable(self, resource: str = GPU) -> str:
        """Return how many devices kubelet offers."""
        node = msgspec.json.decode(self.client.get("/api/v1/nodes/n1"), type=Node)
        return (node.status.allocatable or {}).get(resource, "0")

    def metric(self, line: str) -> float:
        """Return the value of a series."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            for text in answer.read().decode().splitlines():
                if text.startswith(line + " "):
                    return float(text.rsplit(" ", 1)[1])
        return 0.0

    def sockets(self) -> list[Path]:
        """Return the plugin's sockets."""
        return list(self.kubelet.device_plugins_dir.glob("gputopo-*.sock"))

    def close(self) -> None:
        """End everything."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
        self.kubelet.stop()
        self.client.close()
        self.api.stop()
        shutil.rmtree(self.folder)


@pytest.fixture
def world() -> Iterator[World]:
    """Return a node on which no plugin runs yet."""
    world = World()
    yield world
    world.close()


def wait_for(world: World, count: int, resource: str = GPU) -> None:
    """Wait until kubelet offers so many devices."""
    wait_until(lambda: world.allocatable(resource) == str(count), 60, what=f"{count} of {resource}")


def test_sighup_reads_the_configuration_and_sigterm_ends_well(world: World) -> None:
    """SIGHUP reloads though the content is the same; SIGTERM takes the sockets away and exits 0."""
    file = world.folder / "config.yaml"
    file.write_text("gpus: {exclude: [0]}")
    process = world.start("--config-file", str(file))
    wait_for(world, 7)
    process.send_signal(signal.SIGHUP)
    reloaded = 'gputopo_plugin_config_reloads_total{result="ok"}'
    wait_until(lambda: world.metric(reloaded) == 1, 60, what="the reload")
    assert world.allocatable() == "7"
    assert len(world.sockets()) == 1
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert world.sockets() == []


def test_flags_and_variables_of_the_reference_are_taken(world: World) -> None:
    """A manifest written for NVIDIA's plugin starts ours as it stands."""
    file = world.folder / "config.yaml"
    file.write_text(
        "version: v1\nflags: {migStrategy: none, plugin: {deviceIDStrategy: uuid}}\n"
        "sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 2}]}}\n"
    )
    world.start(
        "--device-list-strategy=envvar",
        "--pass-device-specs",
        "--fail-on-init-error=false",
        CONFIG_FILE=str(file),
        MIG_STRATEGY="mixed",
        NVIDIA_MIG_MONITOR_DEVICES="all",
    )
    wait_for(world, 16)


def test_a_label_of_the_node_names_the_configuration(world: World) -> None:
    """Without the label a fallback, with it its file, live; one that names none changes nothing."""
    configs = world.folder / "configs"
    configs.mkdir()
    for name, count in (("default", 2), ("shared", 4)):
        (configs / name).write_text(
            f"sharing: {{timeSlicing: {{resources: [{{name: gpu, replicas: {count}}}]}}}}"
        )
    world.start("--config-dir", str(configs), GPUTOPO_CONFIG_LABEL_SECONDS="0.1")
    wait_for(world, 16)
    world.label("shared")
    wait_for(world, 32)
    world.label("unknown")
    failed = 'gputopo_plugin_config_reloads_total{result="failed"}'
    wait_until(lambda: world.metric(failed) == 1, 60, what="the refusal")
    assert world.allocatable() == "32"
    world.label(None)
    wait_for(world, 16)


def test_a_wrong_configuration_ends_the_start_with_all_mistakes(world: World) -> None:
    """One line with every mistake and its place, exit code 2."""
    file = world.folder / "config.yaml"
    file.write_text("flags:\n  migStrategy: all\n  gdsEnable: true\n")
    process = world.start("--config-file", str(file), "--device-id-strategy=name")
    told, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    (line,) = told.splitlines()
    assert f"{file}:2: flags.migStrategy: " in line
    assert f"{file}:3: flags.gdsEnable: there is no such key; gdsEnabled is meant?" in line
    assert "--device-id-strategy: flags.plugin.deviceIDStrategy: " in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--nonsense",), "no such option: --nonsense"),
        (("--config-file=x", "--config-dir=y"), "exclude each other"),
        (("--config-dir=y", "--config-fallbacks=any"), "none of named, single, empty"),
    ],
)
def test_a_wrong_word_is_named(world: World, words: tuple[str, ...], said: str) -> None:
    """A word that is no option of either plugin, and options that contradict each other."""
    process = world.start(*words)
    told, _ = process.communicate(timeout=60)
    assert (process.returncode, said in told) == (2, True), told


@pytest.mark.parametrize("fails", [True, False])
def test_a_driver_that_is_not_there_ends_the_plugin_or_is_waited_for(
    world: World, fails: bool
) -> None:
    """With failOnInitError true the process ends with 1, with false it waits and says why."""
    file = world.folder / "config.yaml"
    file.write_text(f"flags: {{failOnInitError: {str(fails).lower()}}}")
    script = (
        "import sys; from deviceplugin.config.source import ConfigReader, OneFile;"
        "from deviceplugin.main import run; from deviceplugin.settings import PluginSettings;"
        "from pathlib import Path;"
        f"sys.exit(run(PluginSettings(node_name='n1', kubeconfig={str(world.kubeconfig)!r}, "
        f"ops_host='127.0.0.1', ops_port={world.port}, "
        f"device_plugins_dir={str(world.kubelet.device_plugins_dir)!r}), "
        f"config=ConfigReader(OneFile(Path({str(file)!r})))))"
    )
    command = [sys.executable, "-c", script]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    world.process = process
    if fails:
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "LIBRARY_NOT_FOUND" in told
    else:
        errors = 'gputopo_plugin_nvml_errors_total{stage="init"}'
        wait_until(lambda: _metric(world, errors) > 1, 60, what="another attempt")
        assert process.poll() is None


def _metric(world: World, line: str) -> float:
    try:
        return world.metric(line)
    except OSError:
        return 0.0
