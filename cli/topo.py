"""`gputopo topo`: what discovery finds on a machine, as a matrix or as JSON."""

from __future__ import annotations

import typer

from cli.discovered import discover_machine
from cli.usage import one_line_errors, print_json
from topology.catalogue import load_machine
from topology.drawing import draw_matrix
from topology.matrix import index_order, links_cells, nic_rows, pcie_cells
from topology.wire import encode_topology


def topo(
    machine: str = typer.Argument(
        metavar="FILE-or-NAME", help="A machine description, or the name of a shipped one."
    ),
    *,
    json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Discover a machine through pynvml on the mock and print its matrix."""
    with one_line_errors():
        described = load_machine(machine)
        topology = discover_machine(described)
        annotation = encode_topology(topology)
    if not json:
        print(f"{described.name}: {described.model}\n")
        print(draw_matrix(topology))
        return
    print_json(
        {
            "name": described.name,
            "gpus": [topology.gpus[at] for at in index_order(topology)],
            "links": links_cells(topology),
            "pcie_links": pcie_cells(topology),
            "nics": nic_rows(topology),
            "annotation": annotation,
        }
    )
