"""`gputopo cluster`: what is left of the cluster, and which sets that gives."""

from __future__ import annotations

from pathlib import Path

from cli.asking import JSON, KUBECONFIG, NAMESPACE, SERVER, TOKEN_FILE, reach


def cluster(
    *,
    server: str | None = SERVER,
    token_file: Path | None = TOKEN_FILE,
    namespace: str = NAMESPACE,
    kubeconfig: str | None = KUBECONFIG,
    json: bool = JSON,
) -> None:
    """Tell what is unallocated and fragmented, and the sets to be had by size and level."""
    from rich.console import Console

    from cli.explain_view import print_cluster
    from cli.usage import print_json

    with reach(server, token_file, namespace, kubeconfig) as api:
        answer = api.get("v1", "cluster")
    if json:
        print_json(answer)
    else:
        print_cluster(answer, Console())
