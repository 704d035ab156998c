"""`gputopo node`: one node as its plugin sees it, in a terminal or as JSON."""

from __future__ import annotations

import typer

from cli.usage import one_line_errors, print_json


def node(
    name: str = typer.Argument("", help="The node, read from the API server."),
    *,
    kubeconfig: str | None = typer.Option(None, help="Default: the user's own."),
    url: str | None = typer.Option(
        None, metavar="http://HOST:8890", help="Ask the node's plugin itself, with its last XIDs."
    ),
    json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Show a node: the matrix of its links, who holds which GPU, their health, what happened last.

    From the API server (what the plugin has published, and the node's Events), or from the plugin
    itself, which also knows the XIDs that did nothing.
    """
    from cli.node_reading import NodeReadingError, from_api_server, from_plugin
    from cli.node_view import draw

    with one_line_errors(NodeReadingError):
        if bool(name) == (url is not None):
            raise typer.BadParameter("name a node, or give --url of its plugin")
        view = from_plugin(url) if url is not None else from_api_server(name, kubeconfig)
    if json:
        print_json(view)
    else:
        print(draw(view))
