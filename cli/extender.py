"""`gputopo extender`: the scheduler's daemon."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from cli.usage import one_line_errors


def extender(
    *,
    config: Path | None = typer.Option(None, help="A YAML file with the settings."),
    kubeconfig: str | None = typer.Option(None, help="Default: the pod's service account."),
    resource: str | None = typer.Option(None, help="The resource that is placed."),
    host: str | None = typer.Option(None, help="Where kube-scheduler reaches the verbs."),
    port: int | None = typer.Option(None, help="The port of the verbs; 0 takes a free one."),
    ops_host: str | None = typer.Option(None, help="Where metrics and health are served."),
    ops_port: int | None = typer.Option(None, help="The port of metrics and health."),
    explain_host: str | None = typer.Option(None, help="Where decisions are told."),
    explain_port: int | None = typer.Option(None, help="The port of that; -1 for none."),
    explain_token_file: Path | None = typer.Option(None, help="The token that it wants."),
    explain_audience: str | None = typer.Option(
        None, help="Take tokens of the cluster's for it, of who may get decisions.gputopo.dev."
    ),
    explain_lease: str | None = typer.Option(
        None, metavar="NAMESPACE/NAME", help="kube-scheduler's Lease: who holds it is asked."
    ),
    explain_peer_token_file: Path | None = typer.Option(
        None, help="The token that a replica that does not decide shows to the one that does."
    ),
    log_level: str | None = typer.Option(None, help="debug, info, warning or error."),
) -> int:
    """Answer kube-scheduler's filter and bind with GPU sets.

    Each option can be set as GPUTOPO_<OPTION> too, for example GPUTOPO_OPS_PORT.
    """
    from runtime.settings import load_settings
    from scheduler.main import run
    from scheduler.settings import ExtenderSettings

    flags = {
        "kubeconfig": kubeconfig,
        "resource": resource,
        "host": host,
        "port": port,
        "ops_host": ops_host,
        "ops_port": ops_port,
        "explain__host": explain_host,
        "explain__port": explain_port,
        "explain__token_file": explain_token_file,
        "explain__audience": explain_audience,
        "explain__lease": explain_lease,
        "explain__peer_token_file": explain_peer_token_file,
        "log_level": log_level,
    }
    with one_line_errors():
        settings = load_settings(ExtenderSettings, config, os.environ, flags)
    return run(settings)
