"""A node that is a mock machine: which one, and the sysfs that belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pynvml
import pytest

from cli.device_plugin import labelled_machine, mocked
from deviceplugin.settings import PluginSettings
from embedded.apiserver import ApiServer
from runtime.kube import connect

LABEL = "gputopo.dev/mock-machine"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    """Run an API server on a free port."""
    server = ApiServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> str:
    """Know two nodes, of which the first says what it is to be."""
    path = str(server.write_kubeconfig(tmp_path / "kubeconfig"))
    client = connect(path)
    client.post("/api/v1/nodes", {"metadata": {"name": "n1", "labels": {LABEL: "dgx1-v100"}}})
    client.post("/api/v1/nodes", {"metadata": {"name": "n2"}})
    client.close()
    return path


@pytest.mark.parametrize(("node", "machine"), [("n1", "dgx1-v100"), ("n2", None)])
def test_a_label_of_the_node_names_the_machine(
    kubeconfig: str, node: str, machine: str | None
) -> None:
    """A node without the label is the machine that the option names."""
    settings = PluginSettings(node_name=node, kubeconfig=kubeconfig)
    assert labelled_machine(settings, LABEL) == machine


def test_a_label_that_cannot_be_read_is_one_clear_error(kubeconfig: str) -> None:
    """The process ends with the label and the server's answer; kubelet starts it again."""
    settings = PluginSettings(node_name="n3", kubeconfig=kubeconfig)
    with pytest.raises(OSError, match=f"label {LABEL} cannot be read: .*n3"):
        labelled_machine(settings, LABEL)


def test_a_mock_machine_brings_its_own_sysfs() -> None:
    """The host's PCI devices are others than the mock's; its tree is gone afterwards."""
    settings = PluginSettings(node_name="n1")
    with mocked(settings, "dgx1-v100", None) as given:
        root = Path(given.sysfs_root)
        pynvml.nvmlInit()
        gpu = pynvml.nvmlDeviceGetHandleByIndex(0)
        address = pynvml.nvmlDeviceGetPciInfo(gpu).busId[-12:].lower()
        pynvml.nvmlShutdown()
        assert (root / "bus" / "pci" / "devices" / address).exists()
    assert not root.exists()


def test_a_sysfs_that_is_named_stays(tmp_path: Path) -> None:
    """The demo writes the tree itself and names it."""
    settings = PluginSettings(node_name="n1", sysfs_root=str(tmp_path))
    with mocked(settings, "dgx1-v100", None) as given:
        assert given.sysfs_root == str(tmp_path)
    assert list(tmp_path.iterdir()) == []
