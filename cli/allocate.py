"""`gputopo allocate`: the set that would be chosen on a machine."""

from __future__ import annotations

import time

import typer

from cli.discovered import discover_machine
from cli.usage import one_line_errors, print_json
from topology.catalogue import load_machine
from topology.errors import SelectionError
from topology.gpuset import EMPTY, GpuSet, parse_numbers, positions
from topology.links import format_cell
from topology.model import NodeTopology, classify
from topology.policies import DEFAULT_MIX, PROFILES, Choice, choose
from topology.profiles import profile_named
from topology.tables import tables_for


def allocate(
    machine: str = typer.Argument(
        metavar="FILE-or-NAME", help="A machine description, or the name of a shipped one."
    ),
    *,
    size: int = typer.Option(..., "--size", metavar="K", help="How many GPUs."),
    available: str | None = typer.Option(
        None, metavar="I,J,..", help="The free GPUs; default: all."
    ),
    must: str | None = typer.Option(None, metavar="I,..", help="GPUs that the set must hold."),
    profile: str = typer.Option("training", help="How to choose: " + ", ".join(PROFILES)),
    json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Print the GPU set that would be chosen."""
    with one_line_errors():
        order = profile_named(profile)
        topology = discover_machine(load_machine(machine))
        free = topology.everything
        if available is not None:
            free = _read_set(topology, available, "--available")
        needed = EMPTY if must is None else _read_set(topology, must, "--must")
        # The tables are a class's, built once in a daemon's life: not part of the choice's time.
        tables = tables_for(classify(topology), DEFAULT_MIX)
        started = time.perf_counter()
        choice = choose(tables, free, size, must=needed, profile=order)
        microseconds = (time.perf_counter() - started) * 1e6
    chosen = sorted(topology.gpus[at].index for at in positions(choice.members))
    if json:
        print_json(
            {
                "gpus": chosen,
                "uuids": [topology.gpus[at].uuid for at in positions(choice.members)],
                "bus_bandwidth_gbs": round(choice.bus_bandwidth_gbs, 3),
                "pair_score": choice.pair_score,
                "profile": profile,
                "microseconds": round(microseconds, 1),
            }
        )
        return
    print(f"GPUs {','.join(map(str, chosen))}: {_describe(topology, choice)}")


def _read_set(topology: NodeTopology, text: str, option: str) -> GpuSet:
    try:
        return topology.set_of_indexes(parse_numbers(text, option))
    except SelectionError:
        raise
    except ValueError as error:
        raise SelectionError(f"{option}: {error}") from None


def _describe(topology: NodeTopology, choice: Choice) -> str:
    members = list(positions(choice.members))
    cells = [
        format_cell(topology.pcie[a][b], topology.nvlinks[a][b])
        for a in members
        for b in members
        if a < b
    ]
    links = ", ".join(f"{cells.count(cell)} x {cell}" for cell in sorted(set(cells))) or "one GPU"
    return (
        f"{links}; predicted bus bandwidth {choice.bus_bandwidth_gbs:.0f} GB/s; "
        f"pair score {choice.pair_score}"
    )
