"""`gputopo pending`: the pods that wait, why, and what would help."""

from __future__ import annotations

from pathlib import Path

import typer

from cli.asking import JSON, KUBECONFIG, NAMESPACE, SERVER, TOKEN_FILE, reach


def pending(
    *,
    limit: int = typer.Option(20, min=1, max=1000, help="How many, those tried last."),
    server: str | None = SERVER,
    token_file: Path | None = TOKEN_FILE,
    namespace: str = NAMESPACE,
    kubeconfig: str | None = KUBECONFIG,
    json: bool = JSON,
) -> None:
    """List the pods that wait: since when, why, and which pods hold what they wait for."""
    from rich.console import Console

    from cli.asking import AskError
    from cli.explain_view import print_pending
    from cli.usage import print_json

    answer = []
    with reach(server, token_file, namespace, kubeconfig) as api:
        for line in api.get("v1", "pods", outcome="pending", limit=limit):
            if line["outcome"] == "waiting":
                answer.append(line)  # nobody asked about it: kube-scheduler's word is all there is
                continue
            try:
                answer.append(api.get("v1", "pods", line["namespace"], line["name"], top=1))
            except AskError as error:
                if error.code == 1:
                    raise
                # It has expired in between.
    if json:
        print_json(answer)
    else:
        print_pending(answer, Console())
