"""`gputopo device-plugin`: the per-node daemon, on real NVML or on a mock machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.usage import one_line_errors

if TYPE_CHECKING:
    from mock_nvml import MockNvml


def device_plugin(
    *,
    config: Path | None = typer.Option(None, help="A YAML file with the settings."),
    node_name: str | None = typer.Option(None, help="The node that this process serves."),
    kubeconfig: str | None = typer.Option(None, help="Default: the pod's service account."),
    resource: str | None = typer.Option(None, help="The resource that is advertised."),
    device_plugins_dir: str | None = typer.Option(None, help="kubelet's folder of sockets."),
    pod_resources_socket: str | None = typer.Option(None, help="kubelet's PodResources socket."),
    sysfs_root: str | None = typer.Option(None, help="Where sysfs is mounted."),
    ops_host: str | None = typer.Option(None, help="Where metrics and health are served."),
    ops_port: int | None = typer.Option(None, help="The port of metrics and health."),
    log_level: str | None = typer.Option(None, help="debug, info, warning or error."),
    mock_machine: str | None = typer.Option(
        None, metavar="FILE-or-NAME", help="No hardware: NVML answers as this machine would."
    ),
    mock_faults: Path | None = typer.Option(
        None, help="A script of faults that befall the mock machine; re-read when it changes."
    ),
) -> int:
    """Advertise the node's GPUs to kubelet and hand over the sets that the scheduler chose.

    Each option of the daemon can be set as GPUTOPO_<OPTION> too, for example GPUTOPO_NODE_NAME.
    """
    from runtime.lean_imports import without

    with without("rich"):
        # On every node and never on a terminal: 4 MiB of memory for nothing.
        import structlog  # noqa: F401 -- imported here so that it does not find rich

    from deviceplugin.main import run
    from deviceplugin.settings import PluginSettings
    from runtime.settings import load_settings

    flags = {
        "node_name": node_name,
        "kubeconfig": kubeconfig,
        "resource": resource,
        "device_plugins_dir": device_plugins_dir,
        "pod_resources_socket": pod_resources_socket,
        "sysfs_root": sysfs_root,
        "ops_host": ops_host,
        "ops_port": ops_port,
        "log_level": log_level,
    }
    with one_line_errors():
        if mock_faults is not None and mock_machine is None:
            raise typer.BadParameter("--mock-faults needs --mock-machine")
        settings = load_settings(PluginSettings, config, os.environ, flags)
        mock = None if mock_machine is None else install_mock(mock_machine, settings.node_name)
        if mock is not None and mock_faults is not None:
            mock.play(mock_faults)
    try:
        return run(settings)
    finally:
        if mock is not None:
            mock.uninstall()


def install_mock(reference: str, seed: str) -> MockNvml:
    """Put a mock of the machine behind pynvml; the node's name makes its GPUs' uuids unique."""
    from mock_nvml import MockNvml
    from topology.catalogue import load_machine

    mock = MockNvml(load_machine(reference), seed=seed)
    mock.install()
    return mock
