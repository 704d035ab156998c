"""`gputopo dry-run`: where pods would go, without creating them."""

from __future__ import annotations

from pathlib import Path

import typer

from cli.asking import JSON, KUBECONFIG, NAMESPACE, SERVER, TOKEN_FILE, reach, read_input


def dry_run(
    *,
    file: str = typer.Option(..., "--file", "-f", help="Pods as YAML or JSON; - for stdin."),
    top: int = typer.Option(10, min=1, max=10_000, help="How many nodes."),
    server: str | None = SERVER,
    token_file: Path | None = TOKEN_FILE,
    namespace: str = NAMESPACE,
    kubeconfig: str | None = KUBECONFIG,
    json: bool = JSON,
) -> int:
    """Tell where pods would go now: node, GPUs, scores, refusals. Nothing is changed by it.

    The file has one Pod, several, a List, or {pods: [...], changes: {...}} with what if: drain,
    cordon, remove, profile, weights. Exits with 1 if a pod would be refused.
    """
    from rich.console import Console

    from cli.explain_view import print_dry_run
    from cli.usage import one_line_errors, print_json

    with one_line_errors():
        body = read_input(file)
    with reach(server, token_file, namespace, kubeconfig) as api:
        answer = api.post("v1/dry-run", body, top=top)
    if json:
        print_json(answer)
    else:
        print_dry_run(answer, Console())
    return 0 if all(pod["outcome"] == "placed" for pod in answer["pods"]) else 1
