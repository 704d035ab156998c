"""`gputopo device-plugin`: the per-node daemon, on real NVML or on a mock machine."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.usage import one_line_errors

if TYPE_CHECKING:
    from deviceplugin.settings import PluginSettings


def device_plugin(
    context: typer.Context,
    *,
    config_file: Path | None = typer.Option(
        None, envvar="CONFIG_FILE", help="What is offered and how: NVIDIA's own `version: v1` file."
    ),
    config_dir: Path | None = typer.Option(
        None,
        envvar="GPUTOPO_CONFIG_DIR",
        help="A folder of such files; a label of the Node names one.",
    ),
    config_default: str = typer.Option(
        "default", envvar="DEFAULT_CONFIG", help="The file of the folder for the fallback `named`."
    ),
    config_fallbacks: str = typer.Option(
        "named,single,empty",
        envvar="FALLBACK_STRATEGIES",
        help="What to take, in order, when no label names a file.",
    ),
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
    mock_machine_label: str | None = typer.Option(
        None,
        metavar="KEY",
        help="A label of the Node that names the mock machine; without it, --mock-machine.",
    ),
    mock_faults: Path | None = typer.Option(
        None, help="A script of faults that befall the mock machine; re-read when it changes."
    ),
) -> int:
    """Advertise the node's GPUs to kubelet and hand over the sets that the scheduler chose.

    Each option of the daemon can be set as GPUTOPO_<OPTION> too, for example GPUTOPO_NODE_NAME.
    The flags and variables of NVIDIA's device plugin (--mig-strategy, MIG_STRATEGY, ...) work as
    well and stand over the file; docs/device-plugin.md has them all.
    """
    from runtime.lean_imports import without

    with without("rich", "greenlet"):
        # On every node and never on a terminal: 5 MiB of memory for nothing.
        import structlog  # noqa: F401 -- imported here so that it finds neither

    from cli.plugin_config import Choice, make_reader
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
    with contextlib.ExitStack() as stack:
        with one_line_errors():
            if mock_machine is None and (mock_faults or mock_machine_label):
                raise typer.BadParameter(
                    "--mock-faults and --mock-machine-label need --mock-machine"
                )
            settings = load_settings(PluginSettings, config, os.environ, flags)
            choice = Choice(config_file, config_dir, config_default, config_fallbacks)
            reader = make_reader(choice, settings, os.environ, context.args)
            if mock_machine is not None:
                reference = labelled_machine(settings, mock_machine_label) or mock_machine
                settings = stack.enter_context(mocked(settings, reference, mock_faults))
        return run(settings, config=reader)


@contextlib.contextmanager
def mocked(
    settings: PluginSettings, reference: str, faults: Path | None
) -> Iterator[PluginSettings]:
    """Put a mock of the machine behind pynvml; the node's name makes its GPUs' uuids unique.

    Yields settings with the sysfs of the machine, unless they name one: on the host's own, the
    addresses of the mock would be those of other devices, or of none. Nor has it to do with the
    host's device nodes: where it looks for them there are none, unless settings say where.
    """
    from mock_nvml import MockNvml, write_sysfs
    from topology.catalogue import load_machine

    machine = load_machine(reference)
    with contextlib.ExitStack() as stack:
        mock = stack.enter_context(MockNvml(machine, seed=settings.node_name))
        if "sysfs_root" not in settings.model_fields_set:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gputopo-sys-"))
            write_sysfs(machine, Path(folder), seed=settings.node_name)
            settings = settings.model_copy(update={"sysfs_root": folder})
        if "dev_root" not in settings.model_fields_set:
            settings = settings.model_copy(update={"dev_root": settings.sysfs_root})
        if faults is not None:
            mock.play(faults)
        yield settings


def labelled_machine(settings: PluginSettings, label: str | None) -> str | None:
    """Return the machine that the label of the own Node names, None where there is none."""
    if label is None:
        return None
    import msgspec

    from runtime.errors import AccessError, KubeError
    from runtime.kube import connect
    from runtime.objects import Node

    try:
        with contextlib.closing(connect(settings.kubeconfig)) as client:
            body = client.get(f"/api/v1/nodes/{settings.node_name}")
    except (AccessError, KubeError) as error:
        # kubelet starts the container again, by when the API server may be there.
        raise OSError(f"the label {label} cannot be read: {error}") from None
    return (msgspec.json.decode(body, type=Node).metadata.labels or {}).get(label)
