"""The `gputopo` command and how it ends: 0 success, 1 failure, 2 bad usage or bad input."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import typer

# Where each subcommand lives; the function bears the module's name.
COMMANDS: Final = {
    "demo": ("cli.demo", "A whole cluster on this machine: real daemons, real sockets."),
    "topo": ("cli.topo", "Discover a machine through NVML and print its matrix."),
    "allocate": ("cli.allocate", "The GPU set that would be chosen on a machine."),
    "simulate": ("cli.simulate", "A trace replayed under the published protocol, by policy."),
    "bench": ("cli.bench", "What choosing costs here, by machine and size of the cluster."),
    "node": ("cli.node", "One node: its links, who holds what, health, the last XIDs."),
    "mock-nvml": (
        "cli.mock_nvml",
        "A machine as libnvidia-ml.so.1, for processes of any language.",
    ),
    "explain": ("cli.explain", "Why a pod is where it is, or why it waits."),
    "dry-run": ("cli.dry_run", "Where pods would go, without creating them."),
    "nodes": ("cli.nodes", "The nodes as the scheduler sees them, and who holds what."),
    "cluster": ("cli.cluster", "What is left of the cluster, and which sets that gives."),
    "pending": ("cli.pending", "The pods that wait, why, and what would help."),
    "device-plugin": ("cli.device_plugin", "The per-node daemon."),
    "extender": ("cli.extender", "The scheduler's daemon beside kube-scheduler."),
}


# The device plugin takes the flags of NVIDIA's, which are data of its own.
SETTINGS: Final = {
    "device-plugin": {"allow_extra_args": True, "ignore_unknown_options": True},
}


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gputopo {version('gputopo')}")
        raise typer.Exit


def gputopo(
    *,
    version: bool = typer.Option(
        False, "--version", callback=show_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Make a Kubernetes cluster hand out linked GPUs."""


def build_app(names: Iterable[str]) -> typer.Typer:
    """Make the command with these subcommands; only their modules are imported."""
    app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None)
    app.callback()(gputopo)
    for name in names:
        module, summary = COMMANDS[name]
        function = getattr(importlib.import_module(module), name.replace("-", "_"))
        app.command(name=name, short_help=summary, context_settings=SETTINGS.get(name))(function)
    return app


def run(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process; a user's mistake is one line on standard error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    # `gputopo device-plugin` must not pay for the demo's imports: only the help needs them all.
    names = words[:1] if words and words[0] in COMMANDS else list(COMMANDS)
    try:
        status = build_app(names)(args=words, prog_name="gputopo", standalone_mode=False)
    except typer.TyperException as error:
        # One line, without the frame that rich would draw around it.
        text = error.format_message()
        print(f"gputopo: {' '.join(text.split())}", file=sys.stderr)
        sys.exit(2)
    except typer.Abort:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the pipe went away: `gputopo topo dgx1-v100 | head -1`.
        sys.stderr.close()
        sys.exit(141)
    sys.exit(status if isinstance(status, int) else 0)


if __name__ == "__main__":
    run()
