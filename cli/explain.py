"""`gputopo explain`: why a pod is where it is, or why it waits."""

from __future__ import annotations

from pathlib import Path

import typer

from cli.asking import JSON, KUBECONFIG, NAMESPACE, SERVER, TOKEN_FILE, reach


def explain(
    pod: str = typer.Argument(..., metavar="NAMESPACE/POD"),
    *,
    top: int = typer.Option(10, min=1, max=10_000, help="How many nodes."),
    server: str | None = SERVER,
    token_file: Path | None = TOKEN_FILE,
    namespace: str = NAMESPACE,
    kubeconfig: str | None = KUBECONFIG,
    json: bool = JSON,
) -> None:
    """Tell why a pod is where it is, or why it waits: scores, sets, refusals, who is in the way.

    Without --server the port of the scheduler's pod is opened by kubectl, which needs the rights
    to list pods and to create pods/portforward in its namespace.
    """
    from rich.console import Console

    from cli.explain_view import print_pod
    from cli.usage import print_json

    where, slash, name = pod.rpartition("/")
    if not name or (slash and not where) or "/" in where:
        raise typer.BadParameter(f"{pod!r} is not NAMESPACE/POD")
    with reach(server, token_file, namespace, kubeconfig) as api:
        answer = api.get("v1", "pods", where or "default", name, top=top)
    if json:
        print_json(answer)
    else:
        print_pod(answer, Console())
