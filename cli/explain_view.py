"""The explain API's answers as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Answer = Mapping[str, Any]


def print_pod(pod: Answer, console: Console) -> None:
    """Print a pod's record: what became of it, then its decision."""
    tries = "try" if pod["attempts"] == 1 else "tries"
    console.print(
        f"{pod['namespace']}/{pod['name']}: {pod['outcome']}, {pod['attempts']} {tries} "
        f"since {pod['since']}"
    )
    if pod["reason"]:
        console.print(f"waits: {pod['reason']}")
    print_waiting(pod["waiting"], console)
    binding = pod["binding"]
    if binding is not None:
        console.print(f"bound to {binding['node']} at {binding['time']} ({binding['how']})")
    if pod["decision"] is not None:
        print_decision(pod["decision"], console)


def print_dry_run(answer: Answer, console: Console) -> None:
    """Print where pods would go."""
    for change in answer["changes"]:
        console.print(f"if: {change}")
    for pod in answer["pods"]:
        where = f"would go to {pod['node']}" if pod["node"] else "would be refused"
        console.print(f"{pod['namespace']}/{pod['name']}: {where}")
        if pod["reason"]:
            console.print(f"why: {pod['reason']}")
        print_waiting(pod["waiting"], console)
        if pod["decision"] is not None:
            print_decision(pod["decision"], console)
    console.print(f"not looked at: {'; '.join(answer['notChecked'])}")


def print_waiting(waiting: Answer | None, console: Console) -> None:
    """Print what would help."""
    if waiting is None:
        return
    console.print(f"what would help: {waiting['help']}")
    if not waiting["ways"]:
        return
    table = Table("node", "GPUs", "not free", "held by", "GB/s", title_justify="left")
    for way in waiting["ways"]:
        held = ", ".join(f"{one['pod'] or one['uid']} ({one['how']})" for one in way["pods"])
        table.add_row(
            way["node"],
            _numbers(way["gpus"]),
            _numbers(way["missing"]),
            held,
            f"{way['busBandwidthGbs']:g}",
        )
    console.print(table)


def print_decision(decision: Answer, console: Console) -> None:
    """Print the scores, the sets and the refusals of a decision."""
    console.print(
        f"profile {decision['profile']}: {decision['accepted']} of {decision['considered']} "
        f"nodes would do"
    )
    if decision["nodes"]:
        weights = {one["strategy"]: one["weight"] for one in decision["strategies"]}
        table = Table("node", "score", title="scores: normalised x weight", title_justify="left")
        for name, weight in weights.items():
            table.add_column(f"{name}\n{weight:.2f}", justify="right")
        for node in decision["nodes"]:
            parts = {one["strategy"]: one for one in node["strategies"]}
            cells = [f"{parts[name]['normalised']:.1f}" for name in weights]
            table.add_row(node["node"], f"{node['score']:.2f}", *cells)
        console.print(table)
    sets = [*decision["options"], *decision["runnersUp"]]
    if any(one["gpus"] for one in sets):
        table = Table("node", "GPUs", "worst link", "GB/s", "loss", title="sets")
        for one in sets:
            positions = _numbers(gpu["position"] for gpu in one["gpus"])
            speed = f"{one['busBandwidthGbs']:g}"
            table.add_row(
                one["node"], positions, one["worstLink"] or "-", speed, f"{one['loss']:.3f}"
            )
        console.print(table)
    if decision["refusals"]:
        table = Table("refused", "by", "why", "nodes")
        for one in decision["refusals"]:
            names = ", ".join(one["nodes"][:5]) + (" ..." if one["count"] > 5 else "")
            table.add_row(str(one["count"]), one["plugin"], one["reason"], names)
        console.print(table)


def print_nodes(nodes: list[Answer], console: Console) -> None:
    """Print all nodes."""
    table = Table("node", "GPUs", "healthy", "free", "wasted", "link loss", "load", "models")
    for node in nodes:
        known = node["known"]
        table.add_row(
            node["node"] + (" (held back)" if node["heldBack"] else ""),
            str(node["gpus"]),
            str(node["healthy"]),
            f"{node['freeShare']:g}" if known else "-",
            f"{node['wasted']:.2f}" if known else "-",
            f"{node['linkLoss']:.0%}" if known else "-",
            "-" if node["load"] is None else f"{node['load']:.0%}",
            ", ".join(node["models"]) or "topology not known",
        )
    console.print(table)


def print_node(node: Answer, console: Console) -> None:
    """Print one node: its GPUs with who holds them, and the sets that are left."""
    table = Table("GPU", "model", "NUMA", "free", "held by", "problem", title=node["node"])
    for gpu in node["gpus"]:
        held = ", ".join(f"{one['pod'] or one['uid']} ({one['how']})" for one in gpu["holders"])
        table.add_row(
            f"{gpu['position']}",
            gpu["model"],
            "-" if gpu["numaNode"] is None else str(gpu["numaNode"]),
            f"{gpu['freeShare']:g}",
            held,
            gpu["problem"],
        )
    console.print(table)
    if node["sets"]:
        table = Table("size", "GPUs", "worst link", "GB/s", title="best sets to be had")
        for one in node["sets"]:
            speed = f"{one['busBandwidthGbs']:g}"
            table.add_row(str(one["size"]), _numbers(one["gpus"]), one["worstLink"] or "-", speed)
        console.print(table)


def print_cluster(cluster: Answer, console: Console) -> None:
    """Print what the cluster has and what is left."""
    console.print(
        f"{cluster['nodes']} nodes, {cluster['gpus']} GPUs: {cluster['healthy']} healthy, "
        f"{cluster['free']} free ({cluster['unallocatedPct']:g} % unallocated); "
        f"of no use to the expected pods {cluster['wastedPct']:g} %, "
        f"link loss {cluster['linkLoss']:.1%}"
    )
    console.print(f"{cluster['bound']} pods bound, {cluster['pending']} waiting")
    if not cluster["sizes"]:
        return
    levels = list(cluster["sizes"][0]["nodes"])
    table = Table("size", *levels, "best GB/s", "on", title="nodes that have such a set now")
    for one in cluster["sizes"]:
        counts = [str(one["nodes"][level] or "-") for level in levels]
        table.add_row(str(one["size"]), *counts, f"{one['busBandwidthGbs']:g}", one["node"] or "-")
    console.print(table)


def print_pending(pods: list[Answer], console: Console) -> None:
    """Print the pods that wait, each with why and what would help."""
    if not pods:
        console.print("no pod waits")
        return
    table = Table("pod", "GPUs", "since", "tries", "why", "what would help")
    for pod in pods:
        waiting = pod.get("waiting")
        table.add_row(
            f"{pod['namespace']}/{pod['name']}",
            str(pod["asks"]["gpus"] if "asks" in pod else pod["gpus"]),
            pod["since"],
            str(pod["attempts"]),
            pod["reason"] or pod["outcome"],
            "" if waiting is None else waiting["help"],
        )
    console.print(table)


def _numbers(positions: Iterable[int]) -> str:
    return ",".join(map(str, positions))
