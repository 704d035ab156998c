"""`gputopo nodes`: the nodes as the scheduler sees them, or one of them in full."""

from __future__ import annotations

from pathlib import Path

import typer

from cli.asking import JSON, KUBECONFIG, NAMESPACE, SERVER, TOKEN_FILE, reach


def nodes(
    name: str = typer.Argument("", metavar="[NODE]", help="One node in full."),
    *,
    server: str | None = SERVER,
    token_file: Path | None = TOKEN_FILE,
    namespace: str = NAMESPACE,
    kubeconfig: str | None = KUBECONFIG,
    json: bool = JSON,
) -> None:
    """List the nodes with what is free, wasted and lost of links; or who holds what on one."""
    from rich.console import Console

    from cli.explain_view import print_node, print_nodes
    from cli.usage import print_json

    with reach(server, token_file, namespace, kubeconfig) as api:
        answer = api.get("v1", "nodes", *([name] if name else []))
    if json:
        print_json(answer)
    elif name:
        print_node(answer, Console())
    else:
        print_nodes(answer, Console())
