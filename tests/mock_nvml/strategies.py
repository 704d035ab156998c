"""Machine descriptions of the format that nobody has captured, for laws that hold for all."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import yaml
from hypothesis import strategies as st

from topology.machine_yaml import parse_machine
from topology.machines import Machine

_MODELS = ("8x H100", "2x RTX 3090 with bridge", "8x V100 SXM2", "8x A100 SXM4", "new silicon")
_RANGES = ("0-1", "0,3-9,11-17", "", None)


@st.composite
def described_machines(draw: st.DrawFn, most: int = 16) -> dict[str, Any]:
    """Draw a description: GPUs and NICs hung on a random tree, NVLinks laid over it."""
    count = draw(st.integers(1, most))
    nics = draw(st.integers(0, 5))
    # Sockets, host bridges, upper switches, leaf switches; few of each, so that groups are uneven.
    place = st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1), st.integers(0, 1))
    places = draw(st.lists(place, min_size=count + nics, max_size=count + nics))
    joined = draw(st.lists(st.booleans(), min_size=3, max_size=3))

    def level(a: int, b: int) -> str:
        mine, theirs = places[a], places[b]
        if mine[0] != theirs[0]:
            return "SYS"
        if mine[1] != theirs[1]:
            return "NODE" if joined[mine[0]] else "SYS"
        if mine[2] != theirs[2]:
            return "PHB"
        return "PIX" if mine[3] == theirs[3] else "PXB"

    def matrix(members: list[int]) -> list[list[str]]:
        return [["X" if a == b else level(a, b) for b in members] for a in members]

    counts, nvlink = draw(_nvlinks(count))
    pcie = matrix(list(range(count)))
    links = [
        [f"NV{counts[a][b]}" if counts[a][b] else pcie[a][b] for b in range(count)]
        for a in range(count)
    ]
    every = list(range(count, count + nics))
    with_columns = draw(st.booleans())
    nic_columns = matrix(every)
    return {
        "name": "drawn",
        "model": draw(st.sampled_from(_MODELS)),
        "gpus": draw(_gpus(places[:count])),
        "links": links,
        **({"pcie_links": pcie} if draw(st.booleans()) else {}),
        "nics": [
            {
                "name": f"mlx5_{at}",
                "gpus": [level(nic, gpu) for gpu in range(count)],
                **({"nics": nic_columns[at]} if with_columns else {}),
            }
            for at, nic in enumerate(every)
        ],
        "nvlink": nvlink,
        "an_unknown_key": {"is": "ignored"},
    }


@st.composite
def _gpus(draw: st.DrawFn, places: list[tuple[int, int, int, int]]) -> list[dict[str, Any]]:
    style = draw(st.sampled_from(("socket", "same", "range", "any")))
    sockets = draw(st.permutations((0, 1, 8)))
    shared = draw(st.sampled_from(_RANGES))
    cpus = draw(st.sampled_from(("socket", "", None)))
    address = draw(st.sampled_from(("none", "all", "some", "domains")))
    gpus = []
    for index, (socket, *_) in enumerate(places):
        numa = {"socket": str(sockets[socket]), "same": "0", "range": shared}.get(style)
        if style == "any":
            numa = draw(st.sampled_from(("0", "1", *_RANGES)))
        gpu = {
            "index": index,
            "numa": numa,
            "cpus": f"{16 * socket}-{16 * socket + 15},{100 + socket}"
            if cpus == "socket"
            else cpus,
        }
        if address == "all" or (address == "some" and index % 3 == 1):
            gpu["pci"] = f"{0x10 + 0xC * index:02X}:00.0"
        elif address == "domains":
            gpu["pci"] = f"{index + 1:04x}:00:00.0"
        gpus.append(gpu)
    return gpus


@st.composite
def _nvlinks(draw: st.DrawFn, count: int) -> tuple[list[list[int]], dict[str, Any]]:
    kind = draw(st.sampled_from(("none", "direct", "switch")))
    most = draw(st.sampled_from((2, 6, 12, 18)))
    counts = [[0] * count for _ in range(count)]
    if kind == "none":
        return counts, {"links_per_gpu": 0, "nvswitch": False}
    if kind == "direct":
        for a, b in draw(st.permutations(list(combinations(range(count), 2)))):
            room = min(most - sum(counts[a]), most - sum(counts[b]))
            if room > 0:
                counts[a][b] = counts[b][a] = draw(st.integers(0, min(room, 4)))
        return counts, {"links_per_gpu": most, "nvswitch": False}
    islands = draw(st.lists(st.sampled_from((0, 0, 0, 1, -1)), min_size=count, max_size=count))
    active = draw(
        st.lists(st.sampled_from((most, most, most, most - 1)), min_size=count, max_size=count)
    )
    for a, b in combinations(range(count), 2):
        if islands[a] == islands[b] >= 0:
            counts[a][b] = counts[b][a] = min(active[a], active[b])
    told = {"links_per_switch": [most - 1, 1]} if draw(st.booleans()) else {}
    return counts, {"links_per_gpu": most, "nvswitch": True, **told}


def machines(most: int = 16) -> st.SearchStrategy[Machine]:
    """Draw machines, read from the text of their description."""
    return described_machines(most).map(lambda top: parse_machine(yaml.safe_dump(top), "drawn"))
